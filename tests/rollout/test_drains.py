"""Drains on a pretend cluster: what each rule would be decided by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.faults import Ineligible, Journal, NodeDrain
from fixtures.observe import eventually as waiting
from fixtures.observe.nomad_types import Allocation, Node
from fixtures.observe.recording import InMemory
from fixtures.rollout import answering
from fixtures.rollout.drains import app_node, arrivals, departures, surveys, worker_node
from fixtures.rollout.drains.departures import Emptying
from fixtures.rollout.drains.surveys import Footprint, JobState, Survey
from fixtures.rollout.drains.worker_node import Watch
from fixtures.target import names
from fixtures.target.handover import Handover
from tests.faults.conftest import FakeTime
from tests.rollout.cluster import REFUSED, Asker, Cluster, Control, Pretend

SERVICES = [job.id for job in names.SERVICES]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(waiting, "time", fake)
    return fake


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def pretend(cluster: Cluster) -> Pretend:
    return Pretend(cluster)


@pytest.fixture
def faults(tmp_path: Path, cluster: Cluster) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journals", "run", Control(cluster), InMemory())
    yield journal
    journal.close()


# -- an app node ------------------------------------------------------------------------------------------------


def drained(
    pretend: Pretend, faults: Journal, kept: list[Footprint], asker: Asker | None = None
) -> app_node.AppDrain:
    seen = surveys.steady(pretend.target, SERVICES)
    node = app_node.to_drain(seen)
    asker = asker or Asker(pretend.cluster)
    return app_node.drain_app_node(pretend.target, faults, kept, seen, node, asker)


def test_a_drain_as_it_should_be(pretend: Pretend, faults: Journal) -> None:
    kept: list[Footprint] = []
    found = drained(pretend, faults, kept)
    assert found.node.name == "c1", "the node with the stores carries most"
    assert set(found.moved) == set(SERVICES)
    assert found.emptied.proven().empty
    assert found.arrived.proven().problems == ()
    assert found.misplaced == ()
    assert answering.proven(found.answering) == 0.0
    assert found.soonest == 1.0
    assert (kept[0].after is not None) and surveys.changes(kept[0].before, kept[0].after) == []
    assert [one.eligibility for one in pretend.cluster.nodes()] == ["eligible"] * 4


def test_a_container_that_stays_is_seen_though_nomad_says_complete(pretend: Pretend, faults: Journal) -> None:
    pretend.cluster.stubborn.add(names.RL.id)
    found = drained(pretend, faults, [])
    with pytest.raises(AssertionError, match="rl-service-"):
        found.emptied.proven()


def test_a_service_without_a_place_is_told_with_the_schedulers_reason(
    pretend: Pretend, faults: Journal, clock: FakeTime
) -> None:
    pretend.cluster.pinned[names.API.id] = ("c1", "c2")
    kept: list[Footprint] = []
    found = drained(pretend, faults, kept)
    assert found.emptied.met
    assert found.arrived.value is not None
    assert found.arrived.value.refused == (
        f"gvfx-api has no place, group: {REFUSED}",
        f"gvfx-api has no place, group: {REFUSED}",
    )
    assert clock.now < 30, "nobody waits for a place that is not there"
    assert found.answering is None, "nor for answers while the services are not back"
    # The node takes work again, and the instance returns.
    assert kept[0].after is not None and surveys.changes(kept[0].before, kept[0].after) == []


def test_an_api_that_lost_its_store_in_the_drain_is_found_before_the_node_is_given_back(
    pretend: Pretend, faults: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker(pretend.cluster)
    drain = pretend.cluster.drain

    def moved(node_id: str, deadline: float) -> None:
        drain(node_id, deadline)
        asker.problems["c2"] = "status 500, 21 bytes"

    monkeypatch.setattr(pretend.cluster, "drain", moved)
    found = drained(pretend, faults, [], asker)
    assert found.arrived.proven().problems == (), "for Nomad and Consul all is well"
    with pytest.raises(AssertionError, match="c2: status 500"):
        answering.proven(found.answering)


def test_the_node_with_convex_is_the_one_to_drain(pretend: Pretend) -> None:
    seen = surveys.survey(pretend.target)
    (convex,) = pretend.cluster.allocations(names.CONVEX.id)
    elsewhere = replace(convex, node_id="id-c2", node_name="c2")
    there = replace(seen, allocations=(*(one for one in seen.allocations if one.id != convex.id), elsewhere))
    assert len(there.on(there.node("id-c1"))) > len(there.on(there.node("id-c2")))
    assert app_node.to_drain(there).name == "c2"
    # Where no API is beside it, the one that carries most.
    away = replace(convex, node_id="id-c4", node_name="c4")
    there = replace(seen, allocations=(*(one for one in seen.allocations if one.id != convex.id), away))
    assert app_node.to_drain(there).name == "c1"


def test_another_version_is_a_change(pretend: Pretend, faults: Journal) -> None:
    kept: list[Footprint] = []
    cluster = pretend.cluster
    drain = cluster.drain

    def deployed(node_id: str, deadline: float) -> None:
        drain(node_id, deadline)
        cluster.versions[names.FRONTEND.id] = 1

    cluster.drain = deployed  # type: ignore[method-assign]
    drained(pretend, faults, kept)
    assert kept[0].after is not None
    (only,) = surveys.changes(kept[0].before, kept[0].after)
    assert only.startswith("gvfx-frontend is JobState(version=1")


def test_a_footprint_is_kept_though_the_drill_fails(pretend: Pretend, faults: Journal) -> None:
    kept: list[Footprint] = []
    seen = surveys.steady(pretend.target, SERVICES)
    with (
        pytest.raises(AssertionError, match="rule"),
        surveys.footprint(pretend.target, kept, "x", seen),
        faults.applied(NodeDrain("c1", "id-c1", 30.0)),
    ):
        raise AssertionError("rule")
    assert kept[0].after is not None and surveys.changes(seen, kept[0].after) == []


def test_a_drain_of_an_unsteady_cluster_proves_nothing(pretend: Pretend) -> None:
    pretend.cluster.set_eligibility("id-c4", eligible=False)
    with pytest.raises(Unknown, match="node c4 is ready, ineligible"):
        surveys.steady(pretend.target, SERVICES)
    pretend.cluster.set_eligibility("id-c4", eligible=True)
    pretend.cluster.stop(pretend.cluster.allocations(names.CONVEX.id)[0])
    with pytest.raises(Unknown, match="gvfx-convex: 0 run"):
        surveys.steady(pretend.target, SERVICES)


def test_what_nomad_does_not_call_healthy_cannot_be_drained_yet(pretend: Pretend, clock: FakeTime) -> None:
    seen = surveys.survey(pretend.target)
    node = seen.node("id-c3")
    departures.movable(pretend.target, seen, node)
    (one,) = seen.on(node)
    pretend.cluster.allocations_[one.id] = replace(one, deployment_healthy=None)
    with pytest.raises(Unknown, match=f"gvfx-worker {one.id[:8]}"):
        departures.movable(pretend.target, seen, node)
    assert clock.now == pytest.approx(10 + 15, abs=1)


def test_the_engine_is_believed_only_if_it_shows_what_runs(pretend: Pretend) -> None:
    seen = surveys.survey(pretend.target)
    node = seen.node("id-c1")
    assert len(departures.believed(pretend.target, seen, node)) == len(seen.on(node))
    gone = seen.on(node)[0]
    pretend.cluster.stop(gone)
    with pytest.raises(Unknown, match=gone.id[:8]):
        departures.believed(pretend.target, seen, node)


# -- the worker's node ------------------------------------------------------------------------------------------


def test_the_worker_is_handed_over(pretend: Pretend, faults: Journal) -> None:
    seen = surveys.steady(pretend.target, names.ALL_JOBS)
    held = pretend.cluster.running(names.WORKER_JOB, names.WORKER_TASK)[0]
    node = seen.node(held.node_id)
    there = worker_node.places_left(seen, node)
    assert [one.name for one in there] == ["c4"]
    watch = Watch(pretend.target, there, node)
    with faults.applied(NodeDrain(node.name, node.id, 30.0)):
        new = worker_node.came(pretend.target, watch.arrival(held.id, 30.0), seen)
        old = pretend.cluster.allocation(held.id)
    assert new.node_name == "c4"
    assert watch.most == 1
    assert worker_node.leaving(old) == 1.0
    absence = worker_node.absence(old, new)
    assert absence.seconds > 0 and worker_node.over(old) == absence.last


# -- emptied in time, told in time, started in time --------------------------------------------------------------


def emptying_of_the_worker_node(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch, clock: FakeTime
) -> Emptying:
    """Who looks whether the worker's node is empty, which has to be so within 30 s by the clock of the waits."""
    monkeypatch.setattr(departures, "time", clock)
    seen = surveys.steady(pretend.target, names.ALL_JOBS)
    node = seen.node("id-c3")
    return Emptying(pretend.target, node, departures.believed(pretend.target, seen, node), 30.0)


def slow_worker(pretend: Pretend, clock: FakeTime, seconds: float) -> None:
    """The old worker's node is empty only after so many seconds, and another worker runs from then on."""
    cluster = pretend.cluster
    (old,) = cluster.allocations(names.WORKER_JOB)
    live = cluster.allocations_on

    def later(node_id: str) -> list[Allocation]:
        if clock.now >= seconds and cluster.allocation(old.id).live:
            cluster.stop(old)
            cluster.place(names.WORKER_JOB, "id-c4")
        return live(node_id)

    cluster.allocations_on = later  # type: ignore[method-assign]


def test_a_node_is_seen_empty_while_the_worker_is_awaited(
    pretend: Pretend, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptying = emptying_of_the_worker_node(pretend, monkeypatch, clock)
    (old,) = pretend.cluster.allocations(names.WORKER_JOB)
    slow_worker(pretend, clock, 20.0)
    watch = Watch(pretend.target, [], emptying.node, emptying)
    watch.arrival(old.id, 60.0)
    emptying.wait()
    assert emptying.in_time() == pytest.approx(20.0, abs=0.2)


def test_a_node_emptied_after_its_deadline_was_not_emptied_in_time(
    pretend: Pretend, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptying = emptying_of_the_worker_node(pretend, monkeypatch, clock)
    (old,) = pretend.cluster.allocations(names.WORKER_JOB)
    slow_worker(pretend, clock, 31.0)
    watch = Watch(pretend.target, [], emptying.node, emptying)
    watch.arrival(old.id, 60.0)
    # It is empty by now, with no time left to look for it.
    emptying.wait()
    with pytest.raises(AssertionError, match=r"not empty within 30.0 s: seen empty after 31.*gvfx-worker"):
        emptying.in_time()


def test_a_node_that_is_never_empty_is_looked_at_until_its_deadline(
    pretend: Pretend, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptying = emptying_of_the_worker_node(pretend, monkeypatch, clock)
    emptying.wait()
    assert clock.now == pytest.approx(30.0)
    with pytest.raises(AssertionError, match="never seen empty"):
        emptying.in_time()


def test_nobody_can_tell_of_a_node_that_could_not_be_looked_at_then(
    pretend: Pretend, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptying = emptying_of_the_worker_node(pretend, monkeypatch, clock)
    live = pretend.cluster.allocations_on

    def silent(node_id: str) -> list[Allocation]:
        raise ProbeError("allocations", "silence", "an answer")

    emptying.look()
    pretend.cluster.allocations_on = silent  # type: ignore[method-assign]
    emptying.wait()
    pretend.cluster.allocations_on = live  # type: ignore[method-assign]
    pretend.cluster.stop(pretend.cluster.allocations(names.WORKER_JOB)[0])
    clock.sleep(1.0)
    emptying.look()
    with pytest.raises(Unknown, match=r"last seen otherwise at 0.0 s, seen empty after 31.0 s"):
        emptying.in_time()


def test_a_drain_that_nobody_heeds_in_time(pretend: Pretend) -> None:
    (old,) = pretend.cluster.allocations(names.WORKER_JOB)
    pretend.cluster.stop(old)
    stopped = pretend.cluster.allocation(old.id)
    at = worker_node.told(stopped)
    assert worker_node.told_in_time(stopped, at - 5.0, 5.0) == 5.0
    with pytest.raises(
        AssertionError, match=r"told to stop 5\.1 s after the drain, the settings allow 5\.0 s"
    ):
        worker_node.told_in_time(stopped, at - 5.1, 5.0)


def test_a_lock_that_nobody_gave_back_is_seen_in_the_next_start() -> None:
    own = Handover(leaving=15.0, starting=20.0, unreleased=30.0)
    assert worker_node.started_in_time(105.0, 100.0, own) == 5.0
    assert worker_node.started_in_time(120.0, 100.0, own) == 20.0
    # The ceiling of the whole absence would allow it.
    assert own.ceiling > 30.0
    with pytest.raises(AssertionError, match=r"took 30\.0 s to start, the settings allow 20\.0 s"):
        worker_node.started_in_time(130.0, 100.0, own)


def test_a_pinned_worker_is_missed_with_the_schedulers_reason(pretend: Pretend, faults: Journal) -> None:
    pretend.cluster.pinned[names.WORKER_JOB] = ("c3",)
    seen = surveys.steady(pretend.target, names.ALL_JOBS)
    held = pretend.cluster.running(names.WORKER_JOB, names.WORKER_TASK)[0]
    node = seen.node(held.node_id)
    watch = Watch(pretend.target, worker_node.places_left(seen, node), node)
    with (
        faults.applied(NodeDrain(node.name, node.id, 30.0)),
        pytest.raises(AssertionError, match=r"0 tasks, 0 processes; group: 2 nodes ready"),
    ):
        worker_node.came(pretend.target, watch.arrival(held.id, 30.0), seen)


def test_two_processes_at_once_are_two(pretend: Pretend) -> None:
    seen = surveys.survey(pretend.target)
    node = seen.node("id-c3")
    watch = Watch(pretend.target, worker_node.places_left(seen, node), node)
    assert watch.look().processes == 1
    pretend.cluster.place(names.WORKER_JOB, "id-c4")
    watch.look()
    assert (watch.most, watch.looks) == (2, 2)


def test_a_drain_with_nowhere_to_go(pretend: Pretend, faults: Journal) -> None:
    seen = surveys.steady(pretend.target, names.ALL_JOBS)
    held = pretend.cluster.running(names.WORKER_JOB, names.WORKER_TASK)[0]
    node = seen.node(held.node_id)
    there = worker_node.places_left(seen, node)
    closed = [Ineligible(one.name, one.id) for one in there]
    for one in closed:
        faults.begin(one)
    faults.begin(NodeDrain(node.name, node.id, 30.0))
    found = worker_node.nowhere(pretend.target, seen, [node, *there])
    assert found.elsewhere == ()
    assert found.reported.proven()[0] == f"group: {REFUSED}"
    for one in closed:
        faults.end(one)
    watch = Watch(pretend.target, there, node)
    new = worker_node.came(pretend.target, watch.arrival(held.id, 30.0), seen)
    assert new.node_name == "c4"
    faults.undo_all()
    assert surveys.changes(seen, surveys.survey(pretend.target)) == []


def test_silence_of_the_scheduler_is_broken_and_old_refusals_are_none(pretend: Pretend) -> None:
    cluster = pretend.cluster
    cluster.pinned[names.WORKER_JOB] = ()
    cluster.schedule(names.WORKER_JOB)
    seen = surveys.survey(pretend.target)
    found = worker_node.nowhere(pretend.target, seen, list(seen.nodes))
    with pytest.raises(AssertionError, match="no place"):
        found.reported.proven()


def test_a_place_that_nobody_closed_is_noticed(pretend: Pretend) -> None:
    seen = surveys.survey(pretend.target)
    found = worker_node.nowhere(pretend.target, seen, [seen.node("id-c4")])
    assert found.elsewhere and "on c3" in found.elsewhere[0]


def test_a_waiting_worker_is_put_to_work(pretend: Pretend) -> None:
    cluster = pretend.cluster
    held = cluster.allocations(names.WORKER_JOB)[0]
    pending = replace(held.tasks[names.WORKER_TASK], state="pending")
    cluster.allocations_[held.id] = replace(held, tasks={names.WORKER_TASK: pending})
    worker_node.back_to_work(pretend.target)
    assert [one.id for one in cluster.running(names.WORKER_JOB, names.WORKER_TASK)] != [held.id]
    assert len(cluster.running(names.WORKER_JOB, names.WORKER_TASK)) == 1


# -- pure -------------------------------------------------------------------------------------------------------


NODE = Node("n1", "c1", "", "app", "ready", "eligible", False, "")
STATE = JobState(3, False, 2, 2)


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (Survey((replace(NODE, eligibility="ineligible"),), {"j": STATE}), "eligibility of node c1"),
        (Survey((replace(NODE, draining=True),), {"j": STATE}), "drain of node c1"),
        (Survey((replace(NODE, status="down"),), {"j": STATE}), "status of node c1"),
        (Survey((), {"j": STATE}), "node c1 is gone"),
        (Survey((NODE, replace(NODE, id="n2", name="c2")), {"j": STATE}), "node c2 is new"),
        (Survey((NODE,), {"j": replace(STATE, version=4)}), "version=4"),
        (Survey((NODE,), {"j": replace(STATE, running=1)}), "running=1"),
        (Survey((NODE,), {"j": replace(STATE, wanted=3)}), "wanted=3"),
        (Survey((NODE,), {}), "j is None"),
    ],
)
def test_every_change_is_one(after: Survey, word: str) -> None:
    before = Survey((NODE,), {"j": STATE})
    (only,) = surveys.changes(before, after)
    assert word in only
    assert len(surveys.changes(after, before)) == 1
    assert surveys.changes(before, before) == []


def test_where_nobody_may_be(pretend: Pretend) -> None:
    seen = surveys.survey(pretend.target)
    c1 = seen.node("id-c1")
    assert any("on the drained node c1" in one for one in arrivals.misplaced(seen, c1, []))
    assert all("c1" not in one for one in arrivals.misplaced(seen, seen.node("id-c4"), []))
    assert any("on the witness c2" in one for one in arrivals.misplaced(seen, seen.node("id-c4"), ["c2"]))
    role = replace(seen.node("id-c2"), role="witness")
    nodes = tuple(role if one.id == role.id else one for one in seen.nodes)
    assert any("on the witness c2" in one for one in arrivals.misplaced(replace(seen, nodes=nodes), c1, []))
    closed = tuple(replace(one, eligibility="ineligible") for one in seen.nodes)
    assert arrivals.misplaced(replace(seen, nodes=closed), seen.node("id-c4"), [])


def test_without_an_api_there_is_no_app_node(pretend: Pretend) -> None:
    seen = surveys.survey(pretend.target)
    without = tuple(one for one in seen.allocations if one.job != names.API.id)
    with pytest.raises(Unknown, match="app node"):
        app_node.to_drain(replace(seen, allocations=without))


RECORDS = [
    {"kind": "rest", "t": 10.0, "peer": "203.0.113.11"},
    {"kind": "connections", "t": 11.0, "conns": [{"conn": 1, "peer": "203.0.113.11", "heard": 10.9}]},
    {"kind": "ws_close", "t": 12.1, "conn": 1, "peer": "203.0.113.11", "heard": 12.0},
    {"kind": "rest", "t": 13.0, "peer": "203.0.113.41"},
    {"kind": "ws_open", "t": 16.0, "conn": 2, "peer": "203.0.113.11"},
    {"kind": "connections", "t": 17.0, "conns": [{"conn": 2, "peer": "203.0.113.11", "heard": 16.5}]},
]


def test_the_exchanges_pause() -> None:
    found = worker_node.heard(RECORDS, 14.0, {"203.0.113.41"})
    assert (found.last, found.first, found.seconds, found.middle) == (12.0, 16.0, 4.0, 14.0)
    # The legacy worker would have filled it.
    assert worker_node.heard(RECORDS, 14.0, set()).last == 13.0
    for nobody in (5.0, 20.0):
        with pytest.raises(Unknown, match="both sides"):
            worker_node.heard(RECORDS, nobody, set())


def test_what_has_not_ended_has_no_end(pretend: Pretend) -> None:
    one = pretend.cluster.allocations(names.WORKER_JOB)[0]
    with pytest.raises(Unknown, match="a dead task"):
        worker_node.over(one)
    with pytest.raises(Unknown, match="Killing"):
        worker_node.leaving(one)
    with pytest.raises(Unknown, match="Killing"):
        worker_node.told(one)
    pretend.cluster.stop(one)
    stopped = pretend.cluster.allocation(one.id)
    idle = replace(one, tasks={names.WORKER_TASK: replace(one.tasks[names.WORKER_TASK], started=None)})
    with pytest.raises(Unknown, match="no time"):
        worker_node.absence(stopped, idle)


def test_an_unreadable_cluster_leaves_no_footprint(pretend: Pretend) -> None:
    kept: list[Footprint] = []
    seen = surveys.survey(pretend.target)

    def silent() -> list[Node]:
        raise ProbeError("nodes", "silence", "an answer")

    with surveys.footprint(pretend.target, kept, "x", seen):
        pretend.cluster.nodes = silent  # type: ignore[method-assign]
    assert kept[0].after is None


def test_what_is_away_before_a_drain_is_no_drains_doing(pretend: Pretend) -> None:
    arrivals.served(pretend.target)
    cluster = pretend.cluster
    instances = cluster.instances
    cluster.instances = lambda service: [  # type: ignore[method-assign]
        replace(one, passing=one.node != "c2") for one in instances(service)
    ]
    with pytest.raises(Unknown, match="before a drain"):
        arrivals.served(pretend.target)
    # Without any check of its own an instance is there all the same.
    cluster.instances = lambda service: [  # type: ignore[method-assign]
        replace(one, passing=None) for one in instances(service)
    ]
    arrivals.served(pretend.target)
