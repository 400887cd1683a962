"""One look at a pretended target: what is a failure of a part, and what was only not seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.convex import ConvexError
from fixtures.observe.nomad import NomadNotFound
from fixtures.observe.nomad_types import Allocation, Service, TaskState
from fixtures.observe.recording import InMemory
from fixtures.rollout import observation, triggers
from fixtures.rollout.looks import TABLE, Observer
from fixtures.rollout.observation import Seen
from fixtures.target import names
from fixtures.target.target import Target

TOKEN = SecretStr("the-token")
AWAY = ProbeError("it", "ConnectError", "an answer")


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def said(event: str, exit_: str = "", why: str = "", t: float = 1.0) -> str:
    return json.dumps(
        {"t": t, "event": event, "exit": exit_, "want": "", "got": "", "why": why, "code": 0, "alloc": "a"},
        separators=(",", ":"),
    )


class FakeConvex:
    url = "http://100.64.0.1:3210"

    def __init__(self) -> None:
        self.rows_: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.drops = False
        self.away: ProbeError | None = None

    def _check(self) -> None:
        if self.away is not None:
            raise self.away

    def insert(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        self._check()
        assert table == TABLE
        stored = {"id": str(len(self.rows_)), **row}
        if not self.drops:
            self.rows_.append(stored)
        return stored

    def rows(self, table: str, **equal: Any) -> list[dict[str, Any]]:
        self._check()
        return [row for row in self.rows_ if equal.items() <= row.items()]

    def delete(self, table: str, **equal: Any) -> int:
        self._check()
        gone = self.rows(table, **equal)
        self.rows_ = [row for row in self.rows_ if row not in gone]
        return len(gone)

    def query(self, path: str, args: dict[str, Any]) -> Any:
        self._check()
        assert (path, args["source_type"]) == ("ingestion_runs:list", "bingx")
        return {"data": self.runs, "count": None}


class World:
    """A target as far as a look touches it; every part can be spoilt."""

    label = "pretended"

    def __init__(self) -> None:
        self.record = InMemory()
        self.config = SimpleNamespace(gvfx_health_latency_seconds=2.0, gvfx_convex_url=None)
        self.store = FakeConvex()
        self.answers: dict[str, int | ProbeError] = {}
        self.registered = 2
        self.logs_: dict[str, str] = {names.WATCH_TASK: said("exit-active", "e1"), names.TAILSCALE_TASK: ""}
        self.allocations_: list[Allocation] | ProbeError = [self.allocation("alloc-0001")]
        self.sees = True
        self.tokens: list[tuple[str, SecretStr | None]] = []
        self.nomad = SimpleNamespace(allocations=self._allocations, logs=self._logs, nodes=self._nodes)
        self.http = SimpleNamespace(get=self._get)

    def allocation(self, id_: str, task: str = names.WATCH_TASK, desired: str = "run") -> Allocation:
        state = TaskState(task, "running", False, 0, 1.0, None)
        return Allocation(
            id_, names.WORKER_JOB, "worker", "n", "c3", desired, "running", 1, True, 0.0, {task: state}
        )

    def require_scratch(self) -> None:
        return

    def api_token(self) -> SecretStr:
        return TOKEN

    def convex(self) -> FakeConvex:
        return self.store

    def one_instance(self, service: str) -> Service:
        return self.instances(service)[0]

    def instances(self, service: str) -> list[Service]:
        if not self.sees:
            raise AWAY
        if service == names.CONVEX.service:
            return [Service("c", service, "100.64.0.1", 3210, "a", True)]
        port = {names.API.service: 8787, names.RL.service: 9101}[service]
        return [
            Service(str(n), service, f"100.64.0.{n}", port, "a", True) for n in range(1, self.registered + 1)
        ]

    def _nodes(self) -> list[Any]:
        if not self.sees:
            raise AWAY
        return []

    def _get(self, address: str, *, token: SecretStr | None, timeout: float) -> Any:
        self.tokens.append((address, token))
        answer = self.answers.get(address, 200)
        if isinstance(answer, ProbeError):
            raise answer
        return SimpleNamespace(status=answer)

    def _allocations(self, job: str) -> list[Allocation]:
        if isinstance(self.allocations_, ProbeError):
            raise self.allocations_
        return self.allocations_

    def _logs(self, alloc: str, task: str, *, tail: int) -> str:
        return self.logs_[task][-tail:]


@pytest.fixture
def world() -> World:
    made = World()
    now = time.time()
    made.store.runs = [
        run("lock-1", names.LOCK_FEED, now + 1, now + 2),
        run("c-1", "candles", now + 1, now + 2),
    ]
    return made


def run(name: str, feed: str, start: float, end: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "id": name, "source_type": "bingx", "source_id": None, "feed": feed, "trigger": "schedule",
        "status": "running" if end is None else "succeeded", "started_at": stamp(start),
        "finished_at": None if end is None else stamp(end), "new_count": 1, "updated_count": 0,
        "error_summary": None, "holder": None, **changes,
    }  # fmt: skip


def observer(world: World) -> Observer:
    header = observation.header(world.label, 1.0, 1.0, triggers.thresholds(60.0))
    return Observer(cast("Target", world), header)


def seen(world: World, runs: bool = True) -> Seen:
    one = observer(world)
    try:
        return one.look(runs)
    finally:
        one.close()


def test_a_sound_target_is_seen_sound_and_left_as_it_was(world: World) -> None:
    found = seen(world)
    assert found.writes is not None and found.writes.ok
    assert found.api == found.rl == triggers.Service(wanted=2, good=2)
    assert found.guard == triggers.Guard(active=True)
    assert found.runs is not None and len(found.runs.cycles) == 1 and not found.runs.incidents
    assert world.store.rows_ == []
    assert all(token == (TOKEN if "/ops/" in address else None) for address, token in world.tokens)
    assert len(world.tokens) == 6
    assert seen(world, runs=False).runs is None


def test_an_acknowledged_write_that_is_not_there_is_lost(world: World) -> None:
    world.store.drops = True
    found = seen(world).writes
    assert found is not None and (found.ok, found.lost) == (False, True)


def test_a_refused_write_is_a_failure_unless_nobody_is_seen(world: World) -> None:
    world.store.away = ConvexError("Convex mutation", "HTTP 500", "HTTP 200")
    found = seen(world).writes
    assert found is not None and not found.ok and not found.lost and "HTTP 500" in found.why
    assert seen(world).runs is None
    world.sees = False
    blind = seen(world)
    assert (blind.writes, blind.api, blind.rl) == (None, None, None)


def test_rows_that_could_not_be_deleted_are_noted(world: World) -> None:
    one = observer(world)
    world.store.away = ConvexError("Convex", "away", "there")
    one.close()
    assert [event.name for event in world.record.events if event.kind == "note"] == [
        "scratch rows not deleted"
    ]


@pytest.mark.parametrize(
    ("spoil", "good", "store_errors"),
    [
        (lambda w: w.answers.update({"http://100.64.0.1:8787/health": 503}), 1, 0),
        (lambda w: w.answers.update({"http://100.64.0.2:8787/ops/alerts?limit=1": 500}), 1, 1),
        (lambda w: w.answers.update({"http://100.64.0.2:8787/ops/alerts?limit=1": 401}), 1, 0),
        (lambda w: w.answers.update({"http://100.64.0.1:8787/ops/alerts?limit=1": AWAY}), 1, 0),
        (lambda w: setattr(w, "registered", 1), 1, 0),
        (lambda w: setattr(w, "registered", 0), 0, 0),
    ],
    ids=["health", "store", "token", "silence", "one-gone", "all-gone"],
)
def test_every_instance_counts(
    world: World, spoil: Callable[[World], Any], good: int, store_errors: int
) -> None:
    spoil(world)
    found = seen(world).api
    assert found is not None and (found.wanted, found.good, found.store_errors) == (2, good, store_errors)
    assert found.why


@pytest.mark.parametrize(
    ("events", "word"),
    [
        ([said("exit-active", "e1"), said("exit-lost", "e1", "silent")], "exit-lost: silent"),
        ([said("exit-active", "e1"), said("exits-none", why="all"), said("blocked-stop", why="30s", t=2.0)], "blocked-stop: 30s"),
        ([said("exit-try", "e1")], "no exit was ever in use"),
    ],
)  # fmt: skip
def test_a_guard_without_an_exit_says_why(world: World, events: list[str], word: str) -> None:
    world.logs_[names.WATCH_TASK] = "\n".join(events)
    found = seen(world).guard
    assert found is not None and not found.active and word in found.why


def test_the_sidecars_reason_is_told_too(world: World) -> None:
    world.logs_ = {
        names.WATCH_TASK: said("exit-try", "e1"),
        names.TAILSCALE_TASK: said("login-failed", why="ERROR: invalid key"),
    }
    found = seen(world).guard
    assert found is not None and "login-failed: ERROR: invalid key" in found.why


def test_no_worker_at_all_is_a_failing_guard_and_an_unreadable_one_is_not_seen(world: World) -> None:
    for nobody in (
        [],
        [world.allocation("a", task=names.GUARD_TASK)],
        [world.allocation("a", desired="stop")],
        NomadNotFound("job", "404", "a job"),
    ):
        world.allocations_ = nobody
        found = seen(world).guard
        assert found is not None and not found.active
    world.allocations_ = AWAY
    assert seen(world).guard is None


def test_a_word_that_was_pushed_out_of_the_log_still_holds(world: World) -> None:
    one = observer(world)
    assert one.look(False).guard == triggers.Guard(active=True)
    world.logs_[names.WATCH_TASK] = "noise\n"
    assert one.look(False).guard == triggers.Guard(active=True)
    one.close()
    # Who comes later finds it in the whole log.
    world.logs_[names.WATCH_TASK] = said("exit-active", "e1") + "\n" + "noise\n" * 20_000
    assert seen(world).guard == triggers.Guard(active=True)


def test_duplicates_in_the_run_log_are_incidents(world: World) -> None:
    one, now = observer(world), time.time()
    world.store.runs = [run("a", "candles", now + 1, now + 30), run("b", "candles", now + 10, now + 20)]
    read = one.look(True).runs
    assert read is not None and [found.kind for found in read.incidents] == ["overlap"]
    # Ended before, and changed since: only two readings tell.
    world.store.runs = [run("a", "candles", now + 1, now + 5)]
    one.look(True)
    world.store.runs = [run("a", "candles", now + 1, now + 9)]
    read = one.look(True).runs
    assert read is not None and [found.kind for found in read.incidents] == ["zombie"]
    one.close()


def test_what_was_before_the_observation_is_not_its_own(world: World) -> None:
    before = time.time() - 1000
    world.store.runs = [
        run("a", "candles", before, before + 30),
        run("b", "candles", before + 10, before + 20),
        run("lock", names.LOCK_FEED, before, before + 1),
    ]
    found = seen(world).runs
    assert found == triggers.Runs(cycles=())


def test_an_empty_or_odd_run_log_was_not_read(world: World) -> None:
    for rows in ([], [{"id": "x"}]):
        world.store.runs = rows
        assert seen(world).runs is None


def test_without_scratch_or_token_nothing_is_observed(world: World) -> None:
    def refuse() -> None:
        raise Unknown("scratch", "not allowed", "allowed")

    world.require_scratch = refuse  # type: ignore[method-assign]
    with pytest.raises(Unknown, match="not allowed"):
        observer(world)
