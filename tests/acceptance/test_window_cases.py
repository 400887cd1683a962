"""The table of T8, and its flow against a small world in real time: cycles of a third of a second, a real census."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from acceptance import test_8_duplicate_ingestion as t8
from fixtures.errors import Unknown
from fixtures.faults import Journal
from fixtures.history.log import EventLog
from fixtures.history.rules import BY_ID, RULES
from fixtures.observe import census
from fixtures.observe.nomad_types import Allocation, Node, TaskEvent, TaskState
from fixtures.observe.recorder import AllocationRecorder
from fixtures.pytest_judged import Judged
from fixtures.rollout import egress, takeover, windows
from fixtures.rollout.takeover import Case
from fixtures.rollout.windows import WindowWatch
from fixtures.target import deadlines, names
from fixtures.target import windows as clocks
from fixtures.target.capabilities import HostState
from fixtures.target.target import Target
from fixtures.target.windows import FEEDS
from tests.observe.test_census import Here

PERIOD = 0.3


def test_every_rule_of_the_test_has_one_test() -> None:
    ids = [case.id for case in t8.CASES]
    assert len(ids) == len(set(ids))
    decided = [case.rule for case in t8.CASES]
    decided += [
        mark.args[0]
        for name, function in vars(t8).items()
        if name.startswith("test_")
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "rule"
    ]
    assert sorted(decided) == sorted(rule.id for rule in RULES if rule.test == "T8")
    assert {BY_ID[case.rule].test for case in t8.CASES} == {"T8"}


def test_an_overlap_is_allowed_to_nobody_but_who_is_seen_after_a_thaw() -> None:
    for case in t8.CASES:
        assert set(case.allowed) == ({"processes", "tasks"} if case.id == "node-freeze" else set())


class World:
    """A store, an exchange, a cluster and its worker, all of one clock; every part answers like the real one."""

    def __init__(self, directory: Path) -> None:
        self.hosts = Here(directory)
        self.rows: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.allocation = self._allocation("alloc-one", time.time())
        self.twice = self.silent = False
        self.state: HostState = "running"
        self._ids = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._cycles, self._listings)]
        self.session = (1, time.time())
        for one in self._threads:
            one.start()

    def close(self) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def restart(self) -> None:
        number, _ = self.session
        self.session = (number + 1, time.time() + 0.2)
        self.allocation = self._allocation("alloc-one", time.time(), self.allocation)

    def _allocation(self, id_: str, started: float, before: Allocation | None = None) -> Allocation:
        events: tuple[TaskEvent, ...] = (TaskEvent("Received", started - 1, "", None),)
        if before is not None:
            events = (*before.tasks["worker"].events, TaskEvent("Terminated", started - 0.01, "", 0))
        events = (*events, TaskEvent("Started", started, "", None))
        tasks = {"worker": TaskState("worker", "running", False, 0, started, None, events)}
        return Allocation(
            id_, names.WORKER_JOB, "worker", "node", "here", "run", "running", 1, True, 0.0, tasks
        )

    def _cycles(self) -> None:
        while not self._stop.wait(PERIOD):
            if self.silent:
                continue
            begun = time.time()
            made = []
            for feed in (names.LOCK_FEED, *FEEDS, *(("candles",) if self.twice else ())):
                row = {
                    "id": f"r{next(self._ids)}", "source_type": "bingx", "source_id": None, "feed": feed,
                    "trigger": "schedule", "status": "running", "started_at": iso(begun), "finished_at": None,
                    "new_count": 1, "updated_count": 0, "error_summary": None, "holder": self.allocation.id,
                }  # fmt: skip
                made.append(row)
            self.rows[:0] = made
            at = time.time()
            self.records.append(
                {"t": at, "kind": "rest", "conn": f"p:{begun}", "path": "/quote/ticker", "symbol": "S",
                 "status": 200, "ms": 1.0}
            )  # fmt: skip
            self._stop.wait(0.15)
            for row in made:
                row.update(status="succeeded", finished_at=iso(time.time()))

    def _listings(self) -> None:
        while not self._stop.wait(0.1):
            number, opened = self.session
            now = time.time()
            if now > opened:
                conns = [{"conn": number, "peer": "exit", "opened": opened, "heard": now}]
                self.records.append({"t": now, "kind": "connections", "conns": conns})

    # -- what the suite asks ------------------------------------------------------------------------------------

    def ask(self, page: int, size: int) -> list[dict[str, Any]]:
        return [dict(one) for one in self.rows[(page - 1) * size : page * size]]

    def target(self, log: EventLog) -> Target:
        job = {
            "TaskGroups": [
                {"Tasks": [
                    {"Name": "worker", "KillTimeout": 1e9, "Env": {
                        "BINGX_MARKET_DATA_INTERVAL_MIN": str(PERIOD / 60),
                        "INGESTION_RUN_TIMEOUT_MIN": "0.5",
                        "INGESTION_DEFAULT_BACKOFF_BASE_SECONDS": "1",
                    }},
                ]}
            ]
        }  # fmt: skip
        nomad = SimpleNamespace(
            agent_self=lambda: {"stats": {"raft": {"term": "2"}}},
            job=lambda name: job,
            allocations=lambda name, all_versions=False: [self.allocation],
            running=lambda name, task: [self.allocation],
            allocation=lambda id_: self.allocation,
            lock_is_held=lambda path: True,
            variable=lambda path: {"Items": {"holder": self.allocation.id}},
            nodes=lambda: [Node("node", "here", "", "egress-worker", "ready", "eligible", False, "1")],
            restart_task=lambda alloc, task: self.restart(),
        )
        found = SimpleNamespace(
            nomad=nomad,
            hosts=self.hosts,
            power=SimpleNamespace(host_state=lambda host: self.state),
            internet=SimpleNamespace(
                exchange_records=lambda since: [dict(one) for one in self.records if one["t"] >= since]
            ),
            config=SimpleNamespace(
                gvfx_worker_pattern=r"workloads\.worker(\s|$)",
                gvfx_discovery="nomad",
                gvfx_convex_url=None,
            ),
            record=log,
            can=lambda name: True,
            require=lambda name: object(),
        )
        return cast("Target", found)


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


Flow = Callable[[Case], dict[str, Any]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def flow(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flow]:
    """Plays one case in the small world and judges it by the real checkers."""
    log = EventLog(tmp_path / "events.ndjson", "run")
    target = world.target(log)
    monkeypatch.setattr(egress, "ready", lambda target: world.allocation)
    monkeypatch.setattr(egress, "in_use", lambda target, one: "100.64.0.1")
    monkeypatch.setattr(deadlines, "MARGIN", 10.0)
    monkeypatch.setattr(clocks, "MARGIN", 10.0)
    for module, name in (
        (windows, "LOCK_PERIOD"),
        (windows, "POWER_PERIOD"),
        (windows, "LOG_PERIOD"),
        (census, "PERIOD"),
    ):
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr(WindowWatch, "_ask", lambda self, page, size: world.ask(page, size))
    tasks = AllocationRecorder(target.nomad, log, names.WORKER_JOB, names.WORKER_TASK)
    tasks.reread()
    watch = WindowWatch(target, tasks)
    watch._census._censuses[0].pattern = rf"{world.hosts.directory}/workloads\.worker(\s|$)"
    script = world.hosts.directory / "workloads.worker"
    script.write_text("import time\ntime.sleep(60)\n")
    process = subprocess.Popen([sys.executable, "-u", script])
    figures: dict[str, Any] = {}
    try:
        watch.start()
        judge = Judged("T8.1", log, figures.update)

        def play(case: Case) -> dict[str, Any]:
            figures.update(takeover.across(target, cast("Journal", None), watch, judge, case))
            return figures

        yield play
    finally:
        watch.stop()
        process.kill()
        process.wait()
        log.close()


@contextmanager
def nothing(scene: takeover.Scene) -> Iterator[None]:
    scene.target.nomad.restart_task(scene.one.id, names.WORKER_TASK)
    yield


RESTART = Case(
    "restart", "T8.1", nothing, "restarted", lambda scene: takeover.Down(0.0, 2.0), killed=False, stands=False
)


def test_a_restart_in_which_nothing_goes_wrong_passes(flow: Flow) -> None:
    figures = flow(RESTART)
    assert figures["overlaps"] == 0 and figures["lanes"] == 8
    assert {"tasks", "processes", "store", "exchange"} <= figures.keys()
    # The session of before may have said its last word just before the span.
    assert figures["exchange"]["intervals"] in {1, 2}
    assert figures["node_after"] == "here"


def test_only_the_window_of_a_feed_is_one() -> None:
    """A cycle without a feed that is due holds the lock for a moment: a fault would come after it, and hit nothing."""
    runs = [
        SimpleNamespace(run=feed, feed=feed, status=status)
        for feed, status in ((names.LOCK_FEED, "running"), ("candles", "succeeded"), ("ticker", "running"))
    ]
    log = SimpleNamespace(read=lambda: None, runs=lambda: runs)
    watch = cast("WindowWatch", SimpleNamespace(log=log))
    assert [one.run for one in WindowWatch.under_way(watch)] == ["ticker"]


def test_a_cycle_that_is_nearly_over_is_not_struck() -> None:
    cycles = [SimpleNamespace(run="old", started_at=9.0), SimpleNamespace(run="new", started_at=10.5)]
    watch = cast("WindowWatch", SimpleNamespace(under_way=lambda: cycles))
    assert [one.run for one in takeover.begun(watch, 10.0)] == ["new"]
    assert not takeover.begun(watch, 11.0)


def test_two_windows_at_once_are_told_as_the_two_they_are(flow: Flow, world: World) -> None:
    @contextmanager
    def doubled(scene: takeover.Scene) -> Iterator[None]:
        world.twice = True
        with nothing(scene):
            yield

    with pytest.raises(AssertionError, match="bingx/-/candles was ingested twice within"):
        flow(Case("x", "T8.1", doubled, "restarted", lambda scene: takeover.Down(0.0, 2.0), killed=False))


@pytest.mark.parametrize("stands", [True, False])
def test_a_worker_that_does_not_come_back_is_a_broken_rule(flow: Flow, world: World, stands: bool) -> None:
    @contextmanager
    def silenced(scene: takeover.Scene) -> Iterator[None]:
        with nothing(scene):
            world.silent = True
            yield

    when = "while the fault stands" if stands else "after the fault"
    with pytest.raises(AssertionError, match=f"every feed is ingested {when}"):
        flow(replace(RESTART, hold=silenced, stands=stands))


@pytest.mark.parametrize(("seen", "zombie"), [(16.0, True), (1.0, False)])
def test_a_worker_that_ended_with_its_fault_was_no_zombie(
    monkeypatch: pytest.MonkeyPatch, seen: float, zombie: bool
) -> None:
    """Were it gone at once, never two would be no achievement of the lock."""
    monkeypatch.setattr(takeover, "lock", lambda target: SimpleNamespace(renew=2.0))
    watch = SimpleNamespace(worked_until=lambda host: 100.0 + seen)
    scene = cast("takeover.Scene", SimpleNamespace(target=None, watch=watch, node="c3"))
    case = replace(RESTART, zombie=True)
    if zombie:
        assert takeover._worked_on(scene, case, 100.0) == {"worked_on_seconds": seen}
    else:
        with pytest.raises(Unknown, match="last seen 1.0 s after the fault"):
            takeover._worked_on(scene, case, 100.0)
    assert takeover._worked_on(scene, RESTART, 100.0) == {}
