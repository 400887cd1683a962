"""What surrounds a disturbance: how a task ended, who was away together, and a node that is opened again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.nomad_types import Allocation, TaskEvent, TaskState
from fixtures.observe.recording import InMemory
from fixtures.rollout import absence, disturbances, durability
from fixtures.rollout.absence import Instance, Watch
from fixtures.rollout.durability import Trial
from fixtures.target import names
from fixtures.target.recovery import Bounds
from fixtures.target.target import Target


def allocation(
    job: names.Job, node: str = "c1", events: tuple[TaskEvent, ...] = (), alloc: str = "a"
) -> Allocation:
    state = TaskState(job.task, "running", False, 0, 100.0, None, events)
    return Allocation(
        alloc, job.id, job.task, f"id-{node}", node, "run", "running", 0, True, 0.0, {job.task: state}
    )


class Nomad:
    """Nodes by their eligibility, and allocations by job."""

    def __init__(self) -> None:
        self.eligibility = {"id-c1": "eligible", "id-c2": "eligible"}
        self.found: dict[str, list[Allocation]] = {}
        self.deaf = 0

    def nodes(self) -> list[Any]:
        return [
            SimpleNamespace(
                id=key, name=key[3:], status="ready", eligibility=value, draining=False, address="a"
            )
            for key, value in self.eligibility.items()
        ]

    def running(self, job: str, task: str) -> list[Allocation]:
        return self.found.get(job, [])

    def allocation(self, alloc: str) -> Allocation:
        return next(one for found in self.found.values() for one in found if one.id == alloc)

    def jobs(self) -> list[dict[str, Any]]:
        return [{"ID": job, "Status": "running"} for job in self.found]

    def job(self, job: str) -> dict[str, Any]:
        return {"TaskGroups": [{"Count": 1}]}

    def set_eligibility(self, node: str, *, eligible: bool) -> None:
        if eligible and self.deaf:
            self.deaf -= 1
            raise ProbeError("node", "no leader", "an answer")
        self.eligibility[node] = "eligible" if eligible else "ineligible"


def target(nomad: Nomad) -> Target:
    return cast("Target", SimpleNamespace(nomad=nomad, record=InMemory()))


def ended(code: int, time: float) -> TaskEvent:
    return TaskEvent("Terminated", time, "", code)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ((ended(0, 200.0),), 0),
        # One end from before this run of the task, and one of the next.
        ((ended(137, 50.0), ended(143, 200.0), ended(137, 300.0)), 143),
    ],
)
def test_an_end_that_was_asked_for(events: tuple[TaskEvent, ...], code: int) -> None:
    nomad = Nomad()
    one = Instance(names.POSTGRES, allocation(names.POSTGRES, events=events), "x")
    nomad.found[names.POSTGRES.id] = [one.allocation]
    assert disturbances.ended_by_itself(target(nomad), one) == code


def test_an_end_by_force_is_a_broken_rule() -> None:
    nomad = Nomad()
    one = Instance(names.POSTGRES, allocation(names.POSTGRES, events=(ended(137, 200.0),)), "x")
    nomad.found[names.POSTGRES.id] = [one.allocation]
    with pytest.raises(AssertionError, match="was killed: exit code 137"):
        disturbances.ended_by_itself(target(nomad), one)


def test_an_end_that_nobody_saw_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.target.deadlines.MARGIN", 0.01)
    nomad = Nomad()
    one = Instance(names.POSTGRES, allocation(names.POSTGRES, events=(ended(0, 50.0),)), "x")
    nomad.found[names.POSTGRES.id] = [one.allocation]
    with pytest.raises(Unknown):
        disturbances.ended_by_itself(target(nomad), one)


def test_the_host_of_most() -> None:
    nomad = Nomad()
    for job, node in ((names.POSTGRES, "c2"), (names.OBJECTSTORE, "c2"), (names.CONVEX, "c1")):
        nomad.found[job.id] = [allocation(job, node)]
    assert disturbances.host_of_most(target(nomad), ["postgres", "objectstore", "convex"]) == "c2"
    assert disturbances.host_of_most(target(nomad), ["convex"]) == "c1"
    nomad.found[names.CONVEX.id] *= 2
    with pytest.raises(AssertionError, match="2 allocations"):
        disturbances.host_of_most(target(nomad), ["convex"])


def watch(component: str, start: float | None, end: float | None, over: bool = True) -> Watch:
    found = Watch(component, list, lambda: True)
    found.start, found.end, found._over = start, end, over
    return found


@pytest.mark.parametrize(
    ("second", "together"), [((2.0, 5.0), True), ((3.5, 5.0), False), ((None, None), False)]
)
def test_two_at_once_were_away_at_once(
    monkeypatch: pytest.MonkeyPatch, second: tuple[float | None, float | None], together: bool
) -> None:
    struck: list[str] = []
    ended: list[str] = []

    @contextmanager
    def watched(*given: object, **more: object) -> Iterator[list[Watch]]:
        yield [watch("convex", 1.0, 3.0), watch("postgres", *second)]

    monkeypatch.setattr(disturbances, "watched", watched)
    monkeypatch.setattr(
        disturbances,
        "instance",
        lambda target, job: Instance(job, allocation(job, alloc=f"{job.task}1"), "x"),
    )
    nomad = SimpleNamespace(job=lambda job: _job(job.removeprefix("gvfx-")))
    trial = SimpleNamespace(
        target=SimpleNamespace(nomad=nomad, record=InMemory()),
        recovered=lambda watches, bounds: None,
        as_before=lambda within: None,
    )
    # Nothing else may be undone: the trial's own rows and files are in the journal, too.
    faults = SimpleNamespace(
        begin=lambda fault: struck.append(fault.container),
        end_all=lambda kills: ended.extend(one.container for one in kills),
    )
    pair = (names.CONVEX, names.POSTGRES)
    if together:
        disturbances.kill(cast("Trial", trial), cast("Any", faults), pair)
    else:
        with pytest.raises(Unknown):
            disturbances.kill(cast("Trial", trial), cast("Any", faults), pair)
    assert struck == ["convex-convex1", "postgres-postgres1"]
    assert ended == struck


def _job(task: str) -> dict[str, Any]:
    policy = {"Delay": 1_000_000_000}
    return {
        "TaskGroups": [{"RestartPolicy": policy, "Tasks": [{"Name": task, "KillTimeout": 5_000_000_000}]}]
    }


def test_a_component_that_nobody_saw_away_is_unknown_and_one_that_stays_away_breaks_the_rule() -> None:
    trial = Trial(target(Nomad()), cast("Any", None))
    bounds = Bounds(1.0, 0.01)
    with pytest.raises(Unknown, match="never seen away"):
        trial.recovered([watch("convex", None, None, over=False)], bounds)
    with pytest.raises(AssertionError, match="convex went away and came back: not so"):
        trial.recovered([watch("convex", 1.0, 2.0, over=False)], bounds)
    trial._writer = cast(
        "Any", SimpleNamespace(ledger=SimpleNamespace(acknowledged_since=lambda since: False))
    )
    with pytest.raises(AssertionError, match="acknowledged: not so"):
        trial.recovered([watch("convex", 1.0, 2.0)], bounds)
    assert trial.unavoidable == 1.0


def test_a_disturbance_comes_when_there_is_something_to_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.rollout.checks.catalogue_problems", lambda target, job: [])
    monkeypatch.setattr(durability, "STEADY", 0.01)
    trial = Trial(target(Nomad()), cast("Any", None))
    trial._jobs = {}
    asked: list[float] = []

    def acknowledged(since: float) -> bool:
        asked.append(since)
        return len(asked) > 1 and writes

    trial._writer = cast("Any", SimpleNamespace(ledger=SimpleNamespace(acknowledged_since=acknowledged)))
    writes = True
    trial.as_before(0.01)
    assert len(asked) == 2
    writes = False
    with pytest.raises(Unknown, match="acknowledged"):
        trial.as_before(0.01)


def test_the_bound_of_a_component_is_the_widest_of_its_absences() -> None:
    trial = Trial(target(Nomad()), cast("Any", None))
    trial._writer = cast(
        "Any", SimpleNamespace(ledger=SimpleNamespace(acknowledged_since=lambda since: True))
    )
    trial.recovered([watch("postgres", 1.0, 2.0)], Bounds(1.0, 50.0))
    trial.recovered([watch("postgres", 1.0, 2.0), watch("convex", 1.0, 2.0)], Bounds(2.0, 30.0))
    assert trial.bounds == {"postgres": Bounds(2.0, 50.0), "convex": Bounds(2.0, 30.0)}
    terms = trial.terms(("postgres", "convex"))
    assert terms.rto_s == {"postgres": 50.0, "convex": 30.0} and terms.sentinels == 3


def test_a_cluster_is_whole_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    nomad = Nomad()
    nomad.found = {job.id: [allocation(job)] for job in (*names.DATA_PLANE, names.API)}
    monkeypatch.setattr("fixtures.rollout.checks.catalogue_problems", lambda target, job: [])
    before = durability.whole(target(nomad))
    assert before == {job.id: 1 for job in (*names.DATA_PLANE, names.API)}
    assert durability.missing(target(nomad), before) == []
    nomad.found[names.API.id] = []
    nomad.eligibility["id-c2"] = "ineligible"
    assert durability.missing(target(nomad), before) == ["c2 is ready, ineligible", "gvfx-api: 0 of 1 run"]
    with pytest.raises(Unknown, match="c2 ready, ineligible"):
        durability.whole(target(nomad))


def test_what_a_node_that_came_back_still_shows_belongs_to_no_steady_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nomad, job = Nomad(), names.FRONTEND.id
    shown = [
        [allocation(names.FRONTEND), allocation(names.FRONTEND, alloc="lost")],
        [allocation(names.FRONTEND)],
    ]
    monkeypatch.setattr(nomad, "running", lambda asked, task: shown.pop(0) if len(shown) > 1 else shown[0])
    monkeypatch.setattr("fixtures.rollout.checks.catalogue_problems", lambda target, job: [])
    nomad.found = {job: []}
    assert durability.whole(target(nomad)) == {job: 1}
    shown[:] = [[allocation(names.FRONTEND)] * 2]
    assert durability.missing(target(nomad), {job: 1}) == ["gvfx-frontend: 2 of 1 run"]
    monkeypatch.setattr(durability, "BACK", 0.0)
    with pytest.raises(Unknown, match="no more runs than is asked for"):
        durability.whole(target(nomad))


def test_convex_is_where_it_runs_and_not_where_it_died() -> None:
    nomad = Nomad()
    nomad.found[names.CONVEX.id] = [allocation(names.CONVEX, alloc="new")]

    def instances(service: str) -> list[Any]:
        return [
            SimpleNamespace(alloc_id="old", address="100.64.0.1", port=3210),
            SimpleNamespace(alloc_id="new", address="100.64.0.2", port=3210),
        ]

    found = SimpleNamespace(config=SimpleNamespace(gvfx_convex_url=None), nomad=nomad, instances=instances)
    assert durability.convex_address(cast("Target", found)) == "http://100.64.0.2:3210"
    nomad.found.clear()
    with pytest.raises(Unknown, match="0 instances"):
        durability.convex_address(cast("Target", found))


def test_an_instance_needs_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    nomad = Nomad()
    nomad.found[names.CONVEX.id] = [allocation(names.CONVEX)]
    monkeypatch.setattr(absence, "_inspect", lambda target, one: ("running", "x"))
    assert absence.instance(target(nomad), names.CONVEX).container == "x"
    monkeypatch.setattr(absence, "_inspect", lambda target, one: ("exited", "x"))
    with pytest.raises(ProbeError, match="exited"):
        absence.instance(target(nomad), names.CONVEX)
