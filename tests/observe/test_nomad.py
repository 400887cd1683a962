from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
import requests
from nomad.api import exceptions as refusals

from fixtures.errors import ProbeError, Unknown
from fixtures.observe import nomad, nomad_types
from fixtures.observe.nomad_types import Allocation
from fixtures.observe.recorder import AllocationRecorder
from fixtures.observe.recording import InMemory
from fixtures.target import config

RECORD: dict[str, Any] = {
    "ID": "11111111-2222-3333-4444-555555555555",
    "JobID": "gvfx-worker",
    "TaskGroup": "worker",
    "NodeID": "n",
    "NodeName": "c3",
    "DesiredStatus": "run",
    "ClientStatus": "running",
    "JobVersion": 3,
    "CreateTime": 1_700_000_000_000_000_000,
    "DeploymentStatus": {"Healthy": True},
    "AllocatedResources": {"Shared": {"Ports": [{"Label": "http", "Value": 8787, "HostIP": "100.64.0.1"}]}},
    "TaskStates": {
        "worker": {
            "State": "pending",
            "Failed": False,
            "StartedAt": None,
            "FinishedAt": None,
            "Events": None,
        },
        "egress-guard": {
            "State": "dead",
            "Failed": True,
            "Restarts": 1,
            "StartedAt": "2026-11-23T10:00:00.123456789Z",
            "FinishedAt": "2026-11-23T10:00:05Z",
            "Events": [
                {"Type": "Started", "Time": 1, "ExitCode": 0},
                {"Type": "Terminated", "Time": 2_500_000_000, "Details": {"exit_code": "42"}},
            ],
        },
    },
}


def test_a_running_allocation_with_a_pending_worker_is_no_running_worker() -> None:
    found = nomad_types.allocation(RECORD)
    assert found.client == "running"
    assert not found.task_running("worker")
    assert not found.tasks["worker"].ever_started
    guard = found.tasks["egress-guard"]
    assert (guard.failed, guard.restarts) == (True, 1)
    assert [event.exit_code for event in guard.events] == [None, 42]
    assert found.ports[0].value == 8787
    assert found.job_version == 3
    assert found.create_time == 1_700_000_000


@pytest.mark.parametrize("client", ["unknown", "pending", "running"])
def test_only_a_finished_allocation_is_over(client: str) -> None:
    assert nomad_types.allocation({**RECORD, "ClientStatus": client}).live
    assert not nomad_types.allocation({**RECORD, "ClientStatus": "lost"}).live


def test_times_with_nanoseconds_and_zones() -> None:
    base = datetime.fromisoformat("2026-11-23T10:00:00+00:00").timestamp()
    assert nomad_types.parse_time("2026-11-23T10:00:00.123456789Z") == pytest.approx(base + 0.123456789)
    assert nomad_types.parse_time("2026-11-23T12:00:00.5+02:00") == pytest.approx(base + 0.5)
    assert nomad_types.parse_time("2026-11-23T10:00:00Z") == base
    assert nomad_types.parse_time("0001-01-01T00:00:00Z") is None
    assert nomad_types.parse_time(None) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, nomad.NomadForbidden), (403, nomad.NomadForbidden), (404, nomad.NomadNotFound),
     (400, nomad.NomadRejected), (500, nomad.NomadServerError)],
)  # fmt: skip
def test_one_error_per_cause(status: int, kind: type[nomad.NomadError]) -> None:
    assert type(nomad.by_status(status, "x", "body")) is kind


def test_python_nomads_one_exception_is_told_apart() -> None:
    response = requests.Response()
    response.status_code = 403
    causes: list[tuple[object, type[nomad.NomadError]]] = [
        (response, nomad.NomadForbidden),
        (requests.ReadTimeout(), nomad.NomadTimeout),
        (requests.ConnectionError("refused"), nomad.NomadUnreachable),
    ]
    for wrapped, kind in causes:
        with pytest.raises(kind), nomad._typed("x"):
            raise refusals.BaseNomadException(wrapped)


def test_an_unreachable_agent_is_a_recorded_unknown() -> None:
    record = InMemory()
    probe = nomad.NomadProbe(config.described({"nomad_addr": "http://127.0.0.1:9"}), record)
    with pytest.raises(nomad.NomadUnreachable):
        probe.nodes()
    with pytest.raises(nomad.NomadUnreachable):
        probe.agent_self()
    assert [event.data["ok"] for event in record.events] == [False, False]
    probe.close()


class FakeNomad:
    """Lists once, streams once, then breaks."""

    def __init__(self, *listed: Allocation) -> None:
        self.listed = list(listed)

    def allocations(self, job: str, *, all_versions: bool = False) -> list[Allocation]:
        return self.listed

    def stream(
        self, topic: str, index: int, opened: Callable[[Callable[[], None]], None]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        raise nomad.NomadUnreachable("stream", "broke", "events")


def test_the_recorder_writes_each_event_once() -> None:
    state = {
        "State": "running",
        "StartedAt": "2026-11-23T10:00:00Z",
        "Events": [{"Type": "Received", "Time": 1}, {"Type": "Started", "Time": 2_000_000_000}],
    }
    seen = nomad_types.allocation({**RECORD, "TaskStates": {"worker": state}})
    record = InMemory()
    recorder = AllocationRecorder(cast("Any", FakeNomad(seen)), record, "gvfx-worker", "worker")
    recorder.reread()
    recorder.reread()
    assert [event.name for event in record.events] == ["Received", "Started"]
    assert [one.start for one in recorder.timeline().intervals()] == [2.0]


def test_lost_events_make_the_timeline_unknown() -> None:
    events = [{"Type": "Restarting", "Time": at} for at in range(10)]
    cut = nomad_types.allocation({**RECORD, "TaskStates": {"worker": {"State": "running", "Events": events}}})
    recorder = AllocationRecorder(cast("Any", FakeNomad(cut)), InMemory(), "gvfx-worker", "worker")
    with pytest.raises(Unknown, match="discarded"):
        recorder.timeline()


def test_what_was_over_before_the_run_is_no_part_of_it() -> None:
    """A host that was lost in an earlier run reported its end late: two workers, by Nomad's events alone."""

    def run(alloc: str, start: float, end: float | None) -> Allocation:
        events = [{"Type": "Received", "Time": 1}, {"Type": "Started", "Time": int(start * 1e9)}]
        if end is not None:
            events.append({"Type": "Terminated", "Time": int(end * 1e9)})
        state = {
            "State": "running" if end is None else "dead",
            "StartedAt": "2026-11-23T10:00:00Z",
            "Events": events,
        }
        return nomad_types.allocation({**RECORD, "ID": alloc, "TaskStates": {"worker": state}})

    now = time.time()
    listed = run("lost", now - 90, now - 30), run("taken-over", now - 60, None)
    recorder = AllocationRecorder(cast("Any", FakeNomad(*listed)), InMemory(), "gvfx-worker", "worker")
    recorder.start()
    recorder.stop()
    assert [one.alloc for one in recorder.runs()] == ["taken-over"]


@pytest.mark.parametrize("told", [True, False])
def test_a_gap_is_closed_by_the_tasks_own_log_or_not_at_all(told: bool) -> None:
    events = [{"Type": "Restarting", "Time": at * 10**9} for at in range(50, 60)]
    cut = nomad_types.allocation({**RECORD, "TaskStates": {"worker": {"State": "running", "Events": events}}})
    line = '{"t":%s,"event":"%s","exit":"","want":"","got":"","why":"","code":0,"alloc":"x"}'

    class Telling(FakeNomad):
        def logs(self, alloc: str, task: str, tail: int) -> str:
            return "\n".join([line % (5.5, "worker-start"), line % (40.0, "worker-killed")]) if told else ""

    recorder = AllocationRecorder(cast("Any", Telling(cut)), InMemory(), "gvfx-worker", "worker")
    if told:
        assert [(one.start, one.end) for one in recorder.runs()] == [(5.5, 40.0)]
    else:
        with pytest.raises(Unknown, match="discarded"):
            recorder.runs()


class Silent(BaseHTTPRequestHandler):
    """Answers an event stream with one batch and then nothing, other paths with an empty list."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if not self.path.startswith("/v1/event/stream"):
            self.wfile.write(b"[]")
            return
        payload = {**RECORD, "TaskStates": {"worker": {"Events": [{"Type": "Received", "Time": 1}]}}}
        event = {"Payload": {"Allocation": payload}}
        self.wfile.write(json.dumps({"Index": 7, "Events": [event]}).encode() + b"\n")
        self.wfile.flush()
        self.server.leave.wait(30)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def test_the_recorder_leaves_a_silent_stream_at_once() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.leave = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    record = InMemory()
    address = f"http://127.0.0.1:{server.server_port}"
    probe = nomad.NomadProbe(config.described({"nomad_addr": address}), record)
    recorder = AllocationRecorder(probe, record, "gvfx-worker", "worker")
    try:
        recorder.start()
        deadline = time.monotonic() + 10
        while not any(event.source == "stream" for event in record.events):
            assert time.monotonic() < deadline, "the batch never arrived"
        begun = time.monotonic()
        recorder.stop()
        assert time.monotonic() - begun < 5
        assert recorder.reconnects == 0
    finally:
        server.leave.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        probe.close()


def test_errors_of_the_probe_are_unknown() -> None:
    assert issubclass(nomad.NomadError, ProbeError)


# -- nodes, drains, evaluations --------------------------------------------------------------------------------


class Asked(BaseHTTPRequestHandler):
    """Keeps what it was asked, and answers what a node, an agent and an evaluation look like."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path, body))  # type: ignore[attr-defined]
        answers: dict[str, Any] = {
            "/v1/node/n1": {
                "ID": "n1", "Name": "c3", "HTTPAddr": "100.64.0.9:4646", "NodeClass": "egress-worker",
                "Status": "ready", "SchedulingEligibility": "ineligible", "Drain": False,
                "DrainStrategy": {"Deadline": 1}, "Meta": {"role": "egress"},
            },
            "/v1/node/n1/allocations": [RECORD],
            "/v1/agent/self": {"config": {"Client": {"MaxKillTimeout": "120s"}}},
            "/v1/job/gvfx-worker/evaluations": [
                {"ID": "e1", "JobID": "gvfx-worker", "Status": "complete", "TriggeredBy": "node-drain",
                 "CreateTime": 2_500_000_000, "FailedTGAllocs": {"worker": METRIC}},
                {"ID": "e2", "JobID": "gvfx-worker", "Status": "blocked", "FailedTGAllocs": None},
            ],
            "/v1/service/gvfx-api": [
                {"ID": "_nomad-task-1", "ServiceName": API, "Address": "100.64.0.1", "Port": 8787, "AllocID": "good",
                 "NodeID": "n1"},
            ],
            **{f"/v1/client/allocation/{one}/checks": found for one, found in CHECKS.items()},
        }  # fmt: skip
        content = json.dumps(answers.get(path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def result(service: str, status: str, check: str = "alive") -> dict[str, Any]:
    """One result, as `nomad alloc checks -json` shows it."""
    return {
        "Check": check, "Group": "gvfx-api.api[0]", "ID": f"{service}-{check}", "Mode": "healthiness",
        "Output": "nomad: http ok", "Service": service, "Status": status, "StatusCode": 200, "Task": "",
        "Timestamp": 1_764_000_000,
    }  # fmt: skip


def results(*all_: dict[str, Any]) -> dict[str, Any]:
    return {one["ID"]: one for one in all_}


API = "gvfx-api"
CHECKS: dict[str, Any] = {
    "good": results(result(API, "success"), result(API, "success", "ready"), result("metrics", "failure")),
    "bad": results(result(API, "success"), result(API, "failure", "ready")),
    "young": results(result(API, "pending")),
    "others": results(result("metrics", "success")),
    "none": {},
    # The client knows the allocation and made no check of it.
    "null": None,
}
"""Answers about an allocation of each name."""

METRIC: dict[str, Any] = {
    "NodesAvailable": {"dc1": 2},
    "NodesEvaluated": 2,
    "NodesFiltered": 2,
    "ConstraintFiltered": {"${node.class} = egress-worker": 2},
    "ClassFiltered": None,
}


@pytest.fixture
def asked() -> Iterator[tuple[nomad.NomadProbe, list[Any], int]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    probe = nomad.NomadProbe(
        config.described({"nomad_addr": f"http://localhost:{server.server_port}", "nomad_token": "t"}),
        InMemory(),
    )
    yield probe, server.asked, server.server_port  # type: ignore[attr-defined]
    probe.close()
    server.shutdown()
    server.server_close()


def test_drains_and_eligibility(asked: tuple[nomad.NomadProbe, list[Any], int]) -> None:
    probe, requests_, _ = asked
    probe.drain("n1", 90.5)
    probe.set_eligibility("n1", eligible=False)
    probe.set_eligibility("n1", eligible=True)
    spec = {"Deadline": 90_500_000_000, "IgnoreSystemJobs": False}
    assert requests_ == [
        ("POST", "/v1/node/n1/drain", {"NodeID": "n1", "DrainSpec": spec}),
        ("POST", "/v1/node/n1/eligibility", {"NodeID": "n1", "Eligibility": "ineligible"}),
        # Ends a drain as well, which the other endpoint refuses to.
        ("POST", "/v1/node/n1/drain", {"NodeID": "n1", "DrainSpec": None, "MarkEligible": True}),
    ]


def test_one_node_tells_its_role_and_its_drain(asked: tuple[nomad.NomadProbe, list[Any], int]) -> None:
    probe, _, _ = asked
    found = probe.node("n1")
    assert (found.address, found.role, found.draining) == ("100.64.0.9", "egress", True)
    assert [one.id for one in probe.allocations_on("n1")] == [RECORD["ID"]]


def test_the_agent_of_another_host_is_asked_at_its_own_address(
    asked: tuple[nomad.NomadProbe, list[Any], int],
) -> None:
    probe, requests_, _ = asked
    # The probe's own agent is called by another name than this one.
    assert probe.agent_self("127.0.0.1")["config"]["Client"]["MaxKillTimeout"] == "120s"
    assert probe.agent_self()["config"]
    assert [path for _, path, _ in requests_] == ["/v1/agent/self"] * 2


def test_evaluations_say_why_there_is_no_place(asked: tuple[nomad.NomadProbe, list[Any], int]) -> None:
    probe, _, _ = asked
    refused, blocked = probe.evaluations("gvfx-worker")
    assert (refused.created, refused.triggered_by, blocked.status) == (2.5, "node-drain", "blocked")
    assert refused.refused == {
        "worker": "2 nodes ready and eligible, 2 looked at, 2 filtered: ${node.class} = egress-worker (2)"
    }
    assert blocked.refused == {}
    assert nomad_types.refusal({}) == "0 nodes ready and eligible, 0 looked at, 0 filtered"


# -- services without Consul -----------------------------------------------------------------------------------


def instance(alloc: str) -> nomad_types.Service:
    return nomad_types.Service(f"_nomad-task-{alloc}", API, "100.64.0.1", 8787, alloc, None, "n1")


def test_a_registration_of_nomads_own_says_nothing_of_its_checks(
    asked: tuple[nomad.NomadProbe, list[Any], int],
) -> None:
    probe, requests_, _ = asked
    (found,) = probe.service(API)
    assert (found.alloc_id, found.address, found.port, found.passing) == ("good", "100.64.0.1", 8787, None)
    assert probe.passing(found) is True
    assert [path for _, path, _ in requests_] == [
        "/v1/service/gvfx-api", "/v1/client/allocation/good/checks",
    ]  # fmt: skip


@pytest.mark.parametrize(("alloc", "passing"), [("good", True), ("bad", False), ("young", False)])
def test_every_check_of_the_service_must_succeed(
    asked: tuple[nomad.NomadProbe, list[Any], int], alloc: str, passing: bool
) -> None:
    assert asked[0].passing(instance(alloc)) is passing


@pytest.mark.parametrize("alloc", ["others", "none", "null"])
def test_a_check_without_a_result_is_unknown(
    asked: tuple[nomad.NomadProbe, list[Any], int], alloc: str
) -> None:
    with pytest.raises(ProbeError, match=f"checks of gvfx-api in {alloc}(.|\n)*no result"):
        asked[0].passing(instance(alloc))
