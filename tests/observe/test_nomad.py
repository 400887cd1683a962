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
