"""The rollback against a pretended cluster that keeps time: the plan's order, and what each step must not believe."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import DeployError, FaultError, Unknown
from fixtures.observe.nomad_types import Allocation, Service
from fixtures.observe.processes import Census, WorkerProcess
from fixtures.observe.recorder import AllocationRecorder
from fixtures.observe.recording import InMemory
from fixtures.observe.timeline import Interval
from fixtures.rollout import checks, egress, restore, rollback, users, worker
from fixtures.rollout.restore import Content
from fixtures.rollout.rollback import STEPS, Rollback
from fixtures.target import names
from fixtures.target.capabilities import DeploymentResult
from fixtures.target.target import Target
from fixtures.target.windows import FEEDS
from tests.journals import journal_for

EXIT, LEGACY = "203.0.113.11", "203.0.113.41"
SOURCES = {EXIT: "exit1", LEGACY: "legacy"}
TABLE = "scratch"


class Cluster:
    """Time goes on by a second whenever somebody looks; workers fetch every second while they run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.record = InMemory()
        self.config = SimpleNamespace(gvfx_worker_pattern="x")
        self.nomad_runs: list[Interval] = [Interval("n1", "c3", 900.0, None, True)]
        self.legacy_lives: list[list[float | None]] = []
        self.records: list[dict[str, Any]] = []
        self.connections = 0
        self.open_: dict[str, tuple[int, float]] = {EXIT: (0, 900.0)}
        self.calls: list[str] = []
        self.versions: list[dict[str, Any]] = [{"env": "good"}]
        self.rows: dict[str, dict[str, Any]] = {"1": {"id": "1", "text": "a"}, "2": {"id": "2", "text": "b"}}
        self.stop_leaves_worker = False
        self.stop_starts_legacy = False
        self.legacy_ingests = True
        self.held = ""
        self.reverts_wrongly = False
        self.unhealthy = ""
        self.asked_to_stop = False
        self.deploy = self
        self.legacy = SimpleNamespace(
            start=self.start_legacy, stop=self.stop_legacy, running=lambda: self.legacy_runs
        )
        self.internet = SimpleNamespace(sources=lambda: SOURCES, exchange_records=self.exchange_records)
        self.hosts = SimpleNamespace(
            names=lambda role=None: ["legacy"] if role == "legacy" else ["c3", "legacy"]
        )
        self.nomad = SimpleNamespace(
            job=self.job,
            allocations=self.allocations,
            running=lambda job, task: [1] if self.nomad_running else [],
        )

    # -- time --------------------------------------------------------------------------------------------

    def time(self) -> float:
        self.now += 0.25
        self._pass()
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._pass()

    def _pass(self) -> None:
        for peer in self.workers:
            self.records.append({"t": self.now, "kind": "rest", "peer": peer})
        conns = [
            {"conn": number, "peer": peer, "opened": opened, "heard": self.now}
            for peer, (number, opened) in self.open_.items()
        ]
        self.records.append({"t": self.now, "kind": "connections", "conns": conns})

    @property
    def nomad_running(self) -> bool:
        return self.nomad_runs[-1].end is None

    @property
    def legacy_runs(self) -> bool:
        return bool(self.legacy_lives) and self.legacy_lives[-1][1] is None

    @property
    def workers(self) -> list[str]:
        found = [EXIT] if self.nomad_running else []
        return [*found, LEGACY] if self.legacy_runs and self.legacy_ingests else found

    def connect(self, peer: str) -> None:
        self.connections += 1
        self.open_[peer] = (self.connections, self.now)
        self.records.append({"t": self.now, "kind": "ws_open", "conn": self.connections, "peer": peer})
        self.records.append(
            {"t": self.now, "kind": "ws_sub", "conn": self.connections, "peer": peer, "topics": 9}
        )

    def disconnect(self, peer: str) -> None:
        number, opened = self.open_.pop(peer)
        self.records.append(
            {
                "t": self.now,
                "kind": "ws_close",
                "conn": number,
                "peer": peer,
                "opened": opened,
                "heard": self.now,
            }
        )

    def exchange_records(self, since: float) -> list[dict[str, Any]]:
        return [one for one in self.records if one["t"] >= since]

    # -- what the rollback does ---------------------------------------------------------------------------

    def start_legacy(self) -> None:
        self.calls.append("legacy start")
        self.time()
        if not self.legacy_runs:
            self.legacy_lives.append([self.now, None])
            if self.legacy_ingests:
                self.connect(LEGACY)

    def stop_legacy(self) -> None:
        self.calls.append("legacy stop")
        if self.legacy_runs:
            self.legacy_lives[-1][1] = self.now
            if self.legacy_ingests:
                self.disconnect(LEGACY)
        self.time()

    def stop(self, job: str) -> None:
        self.calls.append(f"stop {job}")
        self.asked_to_stop = True
        if self.stop_starts_legacy:
            self.start_legacy()
        self.time()
        if not self.stop_leaves_worker:
            self.end_nomad()

    def end_nomad(self) -> None:
        last = self.nomad_runs[-1]
        self.nomad_runs[-1] = Interval(last.alloc, last.node, last.start, self.now, False)
        self.disconnect(EXIT)

    def submit(self, job: str, variables: dict[str, Any] | None = None) -> DeploymentResult:
        self.calls.append(f"submit {job}")
        if variables is not None:
            self.versions.append({"env": "new", **variables["api_env"]})
        return DeploymentResult(job, len(self.versions) - 1, variables is not None, "")

    def revert(self, job: str, version: int) -> DeploymentResult:
        self.calls.append(f"revert {job} {version}")
        self.versions.append({"env": "another"} if self.reverts_wrongly else dict(self.versions[version]))
        return DeploymentResult(job, len(self.versions) - 1, True, "")

    def wait_healthy(self, job: str, timeout: float) -> None:
        if self.unhealthy and self.calls[-1].startswith(self.unhealthy):
            raise DeployError(job, "unhealthy", "healthy")

    def variables(self) -> dict[str, Any]:
        return {"api_env": {"A": "1"}}

    # -- what it looks at -----------------------------------------------------------------------------------

    def job(self, job: str) -> dict[str, Any]:
        task = {"Name": "worker", "KillTimeout": 5e9, "Env": self.versions[-1]}
        stopped = job == names.WORKER_JOB and self.asked_to_stop
        group = {"Count": 1, "Tasks": [task]}
        return {"ID": job, "Version": len(self.versions) - 1, "TaskGroups": [group], "Stop": stopped}

    def can(self, name: str) -> bool:
        return True

    def allocations(self, job: str, *, all_versions: bool) -> list[Allocation]:
        client = "running" if self.nomad_running else "complete"
        return [Allocation("n1", job, "worker", "n", "c3", "stop", client, 1, True, 0.0)]

    def census(self, hosts: Any, pattern: str, record: Any) -> Census:
        self.time()
        found = [WorkerProcess("c3", 7, ("worker",))] if self.nomad_running else []
        found += [WorkerProcess("legacy", 8, ("worker",))] if self.legacy_runs else []
        return Census(tuple(found), ("c3", "legacy"))

    def convex(self) -> Any:
        def rows(table: str, **equal: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in self.rows.values()]

        def query(path: str, args: dict[str, Any]) -> dict[str, Any]:
            assert path == "ingestion_runs:list"
            begun = f"1970-01-01T00:{int(self.now) // 60:02}:{int(self.now) % 60:02}.999Z"
            at_work = self.legacy_runs and self.legacy_ingests
            found = [
                {
                    "id": f"{feed} {begun}", "source_type": "bingx", "feed": feed, "trigger": "schedule",
                    "started_at": begun, "finished_at": begun,
                    "status": "running" if feed == self.held else "succeeded",
                }
                for feed in (names.LOCK_FEED, *FEEDS)
            ]  # fmt: skip
            return {"data": found if at_work else []}

        def mutation(path: str, args: dict[str, Any]) -> None:
            assert (path, args["action"]) == ("data:write", "insert")
            self.rows |= {row["id"]: dict(row) for row in args["payload"]}

        def delete(table: str, id: str) -> int:
            return int(self.rows.pop(id, None) is not None)

        return SimpleNamespace(rows=rows, query=query, mutation=mutation, delete=delete)

    def require(self, name: str) -> None:
        self.calls.append(f"require {name}")

    def require_scratch(self) -> None:
        return

    def instances(self, service: str) -> list[Service]:
        return [Service(str(n), service, f"100.64.0.{n}", 3000, str(n), True) for n in (1, 2)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    clock = SimpleNamespace(time=made.time, monotonic=made.time, sleep=made.sleep)
    monkeypatch.setattr(rollback, "time", clock)
    monkeypatch.setattr("fixtures.observe.eventually.time", clock)
    monkeypatch.setattr(rollback, "worker_processes", made.census)
    settings = SimpleNamespace(cycle=6.0, backoff=5.0, rest_gap=lambda down: 13.0)
    monkeypatch.setattr(egress, "ready", lambda target: SimpleNamespace(node_name="c3"))
    monkeypatch.setattr(egress, "ingest_settings", lambda target: settings)
    monkeypatch.setattr(checks, "deployed", lambda *_: [])
    monkeypatch.setattr(checks, "catalogue_is_true", lambda *_: 0.1)
    monkeypatch.setattr(checks, "approved_addresses", lambda target: {EXIT})
    monkeypatch.setattr(users, "tour", lambda target: "tour")
    monkeypatch.setattr(users, "served", lambda found, ours: [])
    monkeypatch.setattr(worker, "running", lambda target: [1] if made.nomad_running else [])

    def through(phase: int) -> Any:
        made.calls.append(f"rollout {phase}")
        if not made.nomad_running:
            made.time()
            made.asked_to_stop = False
            made.nomad_runs.append(Interval("n2", "c4", made.now, None, True))
            made.connect(EXIT)
        return SimpleNamespace(outcome=lambda step: SimpleNamespace(proven=lambda: None))

    monkeypatch.setattr(rollback, "Rollout", lambda target: SimpleNamespace(through=through))
    return made


def made(cluster: Cluster) -> Rollback:
    return Rollback(
        cast("Target", cluster),
        cast("AllocationRecorder", SimpleNamespace(runs=lambda: cluster.nomad_runs)),
        journal_for(cluster),
        (TABLE,),
        begun=cluster.now,
    )


def damage(cluster: Cluster) -> Callable[[], None]:
    def spoil() -> None:
        cluster.rows["1"]["text"] = "damaged"
        del cluster.rows["2"]
        cluster.rows["3"] = {"id": "3", "text": "foreign"}

    return spoil


def carried_out(cluster: Cluster) -> Rollback:
    one = made(cluster)
    one.ready()
    one.prepare(damage(cluster))
    one.back()
    one.legacy_alone()
    one.forward()
    return one


def test_back_in_the_plans_order_and_forward_again(cluster: Cluster) -> None:
    content = {key: dict(row) for key, row in cluster.rows.items()}
    one = carried_out(cluster)
    acted = [call for call in cluster.calls if not call.startswith("require")]
    assert acted == [
        "submit gvfx-api", "stop gvfx-worker", "legacy start", "revert gvfx-api 0", "legacy stop",
        "legacy stop", "submit gvfx-api", "rollout 3", "submit gvfx-worker", "submit gvfx-api",
    ]  # fmt: skip
    assert [step.step.action for step in one.done] == [step.action for step in STEPS]
    assert cluster.rows == content
    assert cluster.versions[-1] == {"env": "good"}
    assert one.never_two() == {"nomad_runs": 2, "turns": ["nomad", "legacy", "nomad"]}
    assert one.done[3].evidence["damaged"] == 3


def back(cluster: Cluster) -> None:
    one = made(cluster)
    one.ready()
    one.prepare(damage(cluster))
    one.back()


def test_a_worker_that_stays_keeps_the_legacy_worker_away(cluster: Cluster) -> None:
    cluster.stop_leaves_worker = True
    with pytest.raises(AssertionError, match="still alive"):
        back(cluster)
    assert "legacy start" not in cluster.calls


def test_a_worker_that_does_not_stop_is_red(cluster: Cluster) -> None:
    def hang(job: str) -> None:
        raise DeployError(job, "still running after 120 s", "stopped")

    cluster.stop = hang  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="does not stop"):
        back(cluster)
    assert "legacy start" not in cluster.calls


def test_a_legacy_worker_that_does_not_start_is_red(cluster: Cluster) -> None:
    def refuse() -> None:
        raise FaultError("legacy worker", "running: False", "running: True")

    cluster.legacy.start = refuse
    with pytest.raises(AssertionError, match="does not start"):
        back(cluster)


def test_a_legacy_worker_that_starts_too_early_is_seen_at_the_first_step(cluster: Cluster) -> None:
    cluster.stop_starts_legacy = True
    with pytest.raises(AssertionError, match="no worker process is left"):
        back(cluster)


def test_a_legacy_worker_that_only_runs_is_not_enough(cluster: Cluster) -> None:
    cluster.legacy_ingests = False
    with pytest.raises(AssertionError, match="ingests from its own address"):
        back(cluster)


def test_a_legacy_worker_whose_lock_alone_succeeds_ingests_nothing(cluster: Cluster) -> None:
    cluster.held = "funding"
    with pytest.raises(AssertionError, match="runs of every feed succeed"):
        back(cluster)


def test_a_revert_to_something_else_is_no_way_back(cluster: Cluster) -> None:
    cluster.reverts_wrongly = True
    with pytest.raises(AssertionError, match="is not what version 0 was"):
        back(cluster)


@pytest.mark.parametrize(
    ("unhealthy", "words"), [("submit", "the release"), ("revert", "before the release")]
)
def test_an_api_that_does_not_get_healthy_is_red(cluster: Cluster, unhealthy: str, words: str) -> None:
    cluster.unhealthy = unhealthy
    with pytest.raises(AssertionError, match=words):
        back(cluster)


def test_a_user_who_is_not_served_is_red(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "served", lambda found, ours: ["nothing there"])
    with pytest.raises(AssertionError, match="nothing there"):
        back(cluster)


def test_a_restore_without_damage_proves_nothing(cluster: Cluster) -> None:
    one = made(cluster)
    one.ready()
    one.prepare(lambda: None)
    with pytest.raises(Unknown, match="nothing differs"):
        one.back()


def test_a_restore_that_leaves_something_is_red(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "restore", lambda convex, wanted: 3)
    with pytest.raises(AssertionError, match="3 differences"):
        back(cluster)


def test_a_legacy_worker_beforehand_is_no_steady_state(cluster: Cluster) -> None:
    cluster.start_legacy()
    with pytest.raises(AssertionError, match="beside the one in Nomad"):
        made(cluster).ready()


# -- never two, over the whole of it --------------------------------------------------------------------------


def test_a_nomad_worker_during_the_legacy_workers_life_is_two(cluster: Cluster) -> None:
    one = carried_out(cluster)
    begun = cluster.legacy_lives[0][0] or 0.0
    cluster.nomad_runs.insert(1, Interval("n9", "c4", begun + 1, begun + 2, False))
    with pytest.raises(AssertionError, match=r"two workers from .*: legacy on legacy and n9 on c4"):
        one.never_two()


def test_a_worker_whose_end_nobody_saw_is_undecided(cluster: Cluster) -> None:
    one = carried_out(cluster)
    first = cluster.nomad_runs[0]
    cluster.nomad_runs[0] = Interval(first.alloc, first.node, first.start, None, False)
    with pytest.raises(Unknown, match="no event says when it ended"):
        one.never_two()


def test_two_sockets_at_once_are_two(cluster: Cluster) -> None:
    one = carried_out(cluster)
    at = (cluster.legacy_lives[0][0] or 0.0) + 1
    cluster.records.append(
        {"t": cluster.now, "kind": "ws_close", "conn": 99, "peer": EXIT, "opened": at, "heard": at + 1}
    )
    with pytest.raises(AssertionError, match="two clients at the exchange"):
        one.never_two()


def test_a_call_out_of_turn_is_seen(cluster: Cluster) -> None:
    one = carried_out(cluster)
    legacy = next(
        n for n, one in enumerate(cluster.records) if one["kind"] == "rest" and one["peer"] == LEGACY
    )
    cluster.records.insert(legacy + 2, {"t": cluster.records[legacy + 1]["t"], "kind": "rest", "peer": EXIT})
    with pytest.raises(AssertionError, match="in order"):
        one.never_two()


def test_a_rollback_that_never_came_to_the_legacy_worker_decides_nothing(cluster: Cluster) -> None:
    with pytest.raises(Unknown, match="never started"):
        made(cluster).never_two()


def test_who_fetches_in_turn() -> None:
    def rest(peer: str) -> dict[str, Any]:
        return {"kind": "rest", "peer": peer}

    records = [rest(EXIT), {"kind": "connections"}, rest(EXIT), rest(LEGACY), rest("192.0.2.1"), rest(LEGACY)]
    assert rollback.turns(records, SOURCES) == ["nomad", "legacy", "nomad", "legacy"]
    assert rollback.turns([], SOURCES) == []


# -- snapshot ---------------------------------------------------------------------------------------------------


def test_content_is_compared_without_the_stores_own_stamps() -> None:
    was: Content = {TABLE: {"1": {"id": "1", "a": [1, {"b": None}], "updated_at": "x"}, "2": {"id": "2"}}}
    assert (
        restore.differences(was, {TABLE: {"1": {**was[TABLE]["1"], "updated_at": "y"}, "2": {"id": "2"}}})
        == []
    )
    now: Content = {TABLE: {"1": {"id": "1", "a": [1, {"b": 0}]}, "3": {"id": "3"}}}
    assert restore.differences(was, now) == [
        f"{TABLE}: 2 is missing",
        f"{TABLE}: 3 is foreign",
        f"{TABLE}: 1 differs",
    ]
    assert restore.differences(was, {}) == [f"{TABLE}: 1 is missing", f"{TABLE}: 2 is missing"]


def test_a_row_without_an_id_cannot_be_put_back(cluster: Cluster) -> None:
    cluster.rows["4"] = {"text": "nameless"}
    with pytest.raises(Unknown, match="without an id"):
        restore.take(cluster.convex(), (TABLE,))
