"""Acceptance test 7: a node is drained; everything leaves, lands where it may, and is missed no longer than it must."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from fixtures.errors import Unknown
from fixtures.faults import Ineligible, Journal, NodeDrain, TaskHeldDown
from fixtures.history.availability import AvailabilityTerms
from fixtures.observe.caller import Call, Caller, Name, longest_outage
from fixtures.observe.nomad_types import Allocation, Node
from fixtures.observe.recorder import AllocationRecorder
from fixtures.pytest_judged import Judged
from fixtures.rollout import answering, egress, failover, worker
from fixtures.rollout.drains import app_node, arrivals, departures, surveys, worker_node
from fixtures.rollout.drains.app_node import AppDrain
from fixtures.rollout.drains.departures import Emptying
from fixtures.rollout.drains.surveys import Footprint, Survey
from fixtures.rollout.drains.worker_node import Watch
from fixtures.target import deadlines, handover, names, slo
from fixtures.target.heartbeats import heartbeats
from fixtures.target.target import Target

pytestmark = pytest.mark.disruptive

Measure = Callable[..., None]
BY_NAME = f"{names.API.service} by its name"
BY_ANSWER = f"{names.API.service} by an answer of {slo.KEPT_ANSWER:g} s ago"
ITS_STORE = f"{names.API.service} with its store"
SELDOM = 0.5
"""Seconds between two calls that go through to the store: how long they fail in a drain is not judged."""


@pytest.fixture(scope="session")
def footprints() -> list[Footprint]:
    """The drains of this run and what they left."""
    return []


# -- an app node ------------------------------------------------------------------------------------------------


class Calls:
    """The API called through its name: its health, which is judged, and an answer from the store, which has to return."""

    def __init__(self, target: Target) -> None:
        if target.config.gvfx_discovery != "consul":
            raise Unknown("the API's name", "services are registered with Nomad", "Consul's DNS, by the plan")
        name = Name(f"{names.API.service}.service.consul", target.consul.dns())
        port, within = names.API.port, target.config.gvfx_health_latency_seconds
        self.health = Caller(
            Call(BY_NAME, port, str(names.API.health), _healthy, within),
            name.addresses,
            target.record,
            kept={BY_ANSWER: slo.KEPT_ANSWER},
        )
        token = {"Authorization": f"Bearer {target.api_token().get_secret_value()}"}
        self.store = Caller(
            Call(ITS_STORE, port, "/ops/alerts?limit=1", lambda status, body: status == 200, within, token),
            name.addresses,
            target.record,
            every=SELDOM,
        )

    def start(self) -> None:
        """Begin both."""
        self.health.start()
        self.store.start()

    def stop(self) -> None:
        """End both; harmless when they never began."""
        self.health.stop()
        self.store.stop()


def _healthy(status: int, body: bytes) -> bool:
    try:
        return status == 200 and json.loads(body) == {"status": "ok"}
    except ValueError:
        return False


class AppDrill:
    """One drain of an app node under load, made when it is first asked for: two rules are about the same one."""

    def __init__(self, target: Target, faults: Journal, footprints: list[Footprint]) -> None:
        self._target, self._faults, self._footprints = target, faults, footprints
        self._made: tuple[AppDrain, Calls, frozenset[str]] | Exception | None = None

    def __call__(self) -> tuple[AppDrain, Calls, frozenset[str]]:
        """The drain, the calls during it, and where the drained node's API was; what went wrong is raised again."""
        if self._made is None:
            try:
                self._made = self._make()
            except Exception as error:
                self._made = error
        if isinstance(self._made, Exception):
            raise self._made
        return self._made

    def _make(self) -> tuple[AppDrain, Calls, frozenset[str]]:
        target = self._target
        seen = surveys.steady(target, [job.id for job in names.SERVICES])
        arrivals.served(target)
        node = app_node.to_drain(seen)
        departures.movable(target, seen, node)
        here = {one.id for one in seen.on(node)}
        theirs = frozenset(one.address for one in target.instances(names.API.service) if one.alloc_id in here)
        calls = Calls(target)
        try:
            calls.start()
            # What does not work already is no drain's doing.
            answering.awaited(target, calls.store).known()
            drain = app_node.drain_app_node(target, self._faults, self._footprints, seen, node, calls.store)
        finally:
            calls.stop()
        return drain, calls, theirs


@pytest.fixture(scope="session")
def app_drill(
    target: Target, phase2: object, fault_journal: Journal, footprints: list[Footprint]
) -> AppDrill:
    """The drain of an app node, not made yet: to be asked in a rule's own body."""
    return AppDrill(target, fault_journal, footprints)


@pytest.mark.phase2
@pytest.mark.phase3
@pytest.mark.rule("T7.1")
def test_an_app_node_is_emptied_in_time(target: Target, app_drill: AppDrill, measure: Measure) -> None:
    """Drains the node that carries Convex: all has left by the deadline and runs elsewhere, and the API finds its store."""
    drain, _, _ = app_drill()
    drain.emptied.proven()
    back = drain.arrived
    if back.value is not None and back.value.refused:
        raise AssertionError("; ".join(back.value.refused))
    back.proven()
    assert not drain.misplaced, "; ".join(drain.misplaced)
    answered = answering.proven(drain.answering)
    measure(
        node=drain.node.name,
        moved=list(drain.moved),
        emptied_seconds=round(drain.emptied.elapsed, 3),
        emptied_floor=round(drain.soonest, 3),
        # Of the drain that T7.2 is about as well.
        unavoidable_seconds=round(drain.soonest, 3),
        deadline_seconds=round(drain.deadline, 3),
        services_back_seconds=round(drain.emptied.elapsed + back.elapsed, 3),
        store_back_seconds=round(drain.emptied.elapsed + back.elapsed + answered, 3),
        store_answers_seconds=round(answered, 3),
        store_answers_ceiling=round(drain.answering.within, 3) if drain.answering else None,
        witnesses=target.hosts.names(surveys.WITNESS),
    )


@pytest.mark.phase2
@pytest.mark.phase3
@pytest.mark.rule("T7.2")
def test_the_api_is_available_during_the_drain(app_drill: AppDrill, judged: Judged, measure: Measure) -> None:
    """Calls every instance behind the API's name all through a drain of an app node."""
    drain, calls, served = app_drill()
    if not served or not served <= calls.health.addresses:
        raise Unknown(
            "calls through the API's name",
            f"went to {sorted(calls.health.addresses)}",
            f"also to the drained node, at {sorted(served) or 'no address'}",
        )
    store = [one for one in calls.store.samples(ITS_STORE) if drain.begun <= one[0] <= drain.ended]
    measure(
        node=drain.node.name,
        instances=sorted(calls.health.addresses),
        # Nobody promises how long: the stores have one instance each, and those that were here moved along. T7.1 says
        # that it ends.
        with_store_longest_outage_s=round(longest_outage(store), 3),
        with_store_samples=len(store),
        drained_seconds=round(drain.ended - drain.begun, 3),
    )
    judged(
        AvailabilityTerms(
            what=calls.health.clients,
            since=drain.begun,
            until=drain.ended,
            at_least=slo.API_AVAILABILITY,
            longest_s=slo.API_LONGEST_OUTAGE,
            max_gap_s=slo.API_SAMPLE_GAP,
        ),
        since=drain.begun,
    )


# -- the worker's node ------------------------------------------------------------------------------------------


def _steady(target: Target) -> tuple[Allocation, Survey, Node, list[Node]]:
    """The one worker with an exit, the cluster at rest, its node, and the nodes it could go to."""
    held = egress.ready(target)
    seen = surveys.steady(target, names.ALL_JOBS)
    node = seen.node(held.node_id)
    there = worker_node.places_left(seen, node)
    if not there:
        raise Unknown(f"places for {names.WORKER_JOB}", f"only {node.name}", "a second node of its class")
    departures.movable(target, seen, node)
    return held, seen, node, there


@pytest.mark.usefixtures("phase3")
@pytest.mark.rule("T7.3")
def test_a_drained_node_hands_the_worker_over(
    target: Target,
    faults: Journal,
    worker_recorder: AllocationRecorder,
    footprints: list[Footprint],
    measure: Measure,
) -> None:
    """Drains the worker's node: one worker goes on elsewhere, after a pause that the settings allow."""
    held, seen, node, there = _steady(target)
    own = worker_node.bounds(target, node)
    loss = heartbeats(target.nomad.agent_self())
    known = departures.believed(target, seen, node)
    within = departures.deadline(target, seen, node)
    heeded = handover.told(target.nomad.job(names.WORKER_JOB))
    begun = time.time()
    with (
        surveys.footprint(target, footprints, f"drain of the worker's node {node.name}", seen),
        faults.applied(NodeDrain(node.name, node.id, within)),
    ):
        drained = time.time()
        # Nobody may wait for the worker first: what leaves too late has left by then.
        emptying = Emptying(target, node, known, within)
        watch = Watch(target, there, node, emptying)
        patience = handover.DRAIN_BATCH + own.ceiling + own.unreleased + deadlines.MARGIN
        new = worker_node.came(target, watch.arrival(held.id, patience), seen)
        emptying.wait()
        old = target.nomad.allocation(held.id)
        absence = worker_node.absence(old, new)
        pause = worker_node.exchange_pause(target, begun - 60, absence.middle, own.starting)
        holder = (target.nomad.variable(names.LOCK_PATH).get("Items") or {}).get("holder")
        locked = target.nomad.lock_is_held(names.LOCK_PATH)
        wrong = arrivals.misplaced(surveys.survey(target), node, target.hosts.names(surveys.WITNESS))
        wrong += arrivals.on_the_witness(target)
    emptied = emptying.in_time()
    assert not wrong, "; ".join(wrong)
    assert watch.most == 1, f"{watch.most} worker processes at one instant"
    failover.never_two(target, worker_recorder, begun)
    assert locked and holder == new.id, f"{names.LOCK_PATH} is held by {holder if locked else 'nobody'}"
    told = worker_node.told_in_time(old, drained, heeded)
    over, leaving = worker_node.over(old), worker_node.leaving(old)
    assert leaving <= own.leaving, (
        f"the old allocation took {leaving:.1f} s to stop, its kill timeouts allow {own.leaving:.1f} s"
    )
    assert new.tasks[names.WORKER_TASK].started is not None and absence.first >= over, (
        f"the new worker began {over - absence.first:.3f} s before the old allocation was over"
    )
    starting = worker_node.started_in_time(absence.first, over, own)
    silence = egress.ingest_settings(target).idle
    ceiling = own.ceiling + silence + handover.REPORT
    assert pause.seconds <= ceiling, (
        f"the exchange heard nothing for {pause.seconds:.1f} s, the settings allow {ceiling:.1f} s"
    )
    measure(
        node=node.name,
        to=new.node_name,
        absence_seconds=round(absence.seconds, 3),
        absence_floor=round(over - absence.last, 3),
        absence_ceiling=round(own.ceiling, 3),
        unavoidable_seconds=round(over - absence.last, 3),
        told_seconds=round(told, 3),
        told_ceiling=round(heeded, 3),
        leaving_seconds=round(leaving, 3),
        leaving_ceiling=round(own.leaving, 3),
        starting_seconds=round(starting, 3),
        starting_ceiling=round(own.starting, 3),
        exchange_pause_seconds=round(pause.seconds, 3),
        exchange_pause_ceiling=round(ceiling, 3),
        emptied_seconds=round(emptied, 3),
        deadline_seconds=round(within, 3),
        looks=watch.looks,
        # What the same move costs when the node is lost instead, before anybody is placed anew.
        loss_detection_floor=loss.floor,
        loss_detection_ceiling=loss.ceiling,
    )


@pytest.mark.usefixtures("phase3")
@pytest.mark.rule("T7.3")
def test_the_worker_leaves_a_node_that_does_not_let_it_run(
    target: Target, faults: Journal, worker_recorder: AllocationRecorder, measure: Measure
) -> None:
    """Kills the worker's container whenever it runs on its node: the worker must move by itself."""
    held, seen, node, there = _steady(target)
    own = worker_node.bounds(target, node)
    job = target.nomad.job(names.WORKER_JOB)
    ceiling = handover.exhaustion(job, names.WORKER_TASK) + own.ceiling
    watch = Watch(target, there, node)
    patience = ceiling + own.unreleased + deadlines.MARGIN
    begun = time.time()
    try:
        with faults.applied(TaskHeldDown(node.name, names.WORKER_TASK, at_most=patience + deadlines.MARGIN)):
            arrival = watch.arrival(held.id, patience)
            new = worker_node.came(target, arrival, seen)
    finally:
        worker_node.back_to_work(target)
    assert new.node_id != node.id, f"the worker was placed anew on {node.name}, where it cannot run"
    assert watch.most == 1, f"{watch.most} worker processes at one instant"
    failover.never_two(target, worker_recorder, begun)
    assert arrival.elapsed <= ceiling, (
        f"the worker ran elsewhere after {arrival.elapsed:.1f} s, the settings allow {ceiling:.1f} s"
    )
    measure(
        held_down_on=node.name,
        moved_to=new.node_name,
        held_down_seconds=round(arrival.elapsed, 3),
        held_down_ceiling=round(ceiling, 3),
        unavoidable_seconds=round(handover.soonest_exhaustion(job, names.WORKER_TASK), 3),
        held_down_restarts=target.nomad.allocation(held.id).tasks[names.WORKER_TASK].restarts,
    )


@pytest.mark.usefixtures("phase3")
@pytest.mark.rule("T7.4")
def test_a_drain_with_nowhere_to_go_is_reported_and_strands_nothing(
    target: Target,
    faults: Journal,
    worker_recorder: AllocationRecorder,
    footprints: list[Footprint],
    measure: Measure,
) -> None:
    """Closes every other place of the worker and drains its node: told at once, and back when a place opens."""
    held, seen, node, there = _steady(target)
    own = worker_node.bounds(target, node)
    within = departures.deadline(target, seen, node)
    ceiling = handover.EVALUATED + own.ceiling
    watch = Watch(target, there, node)
    closed = [Ineligible(one.name, one.id) for one in there]
    begun = time.time()
    with surveys.footprint(target, footprints, f"drain of {node.name} with nowhere to go", seen):
        try:
            for one in closed:
                faults.begin(one)
            faults.begin(NodeDrain(node.name, node.id, within))
            found = worker_node.nowhere(target, seen, [node, *there])
            if found.elsewhere:
                raise Unknown("every other place of the worker", f"it went to {found.elsewhere}", "none")
            why = found.reported.proven()
            kept = len(worker.running(target))
            # A place opens while the drain stands: the worker has to come by itself.
            for one in closed:
                faults.end(one)
            opened = time.time()
            arrival = watch.arrival(held.id, ceiling + own.unreleased + deadlines.MARGIN)
            new = worker_node.came(target, arrival, seen)
        finally:
            faults.undo_all()
    assert new.node_id in {one.id for one in there}, f"the worker runs on {new.node_name}"
    assert watch.most <= 1, f"{watch.most} worker processes at one instant"
    failover.never_two(target, worker_recorder, begun)
    assert arrival.elapsed <= ceiling, (
        f"the worker was back {arrival.elapsed:.1f} s after a place opened, the settings allow {ceiling:.1f} s"
    )
    old = target.nomad.allocation(held.id)
    over, absence = worker_node.over(old), worker_node.absence(old, new)
    # Its predecessor may have been over before there was a place.
    starting = worker_node.started_in_time(absence.first, max(over, opened), own)
    measure(
        node=node.name,
        closed=[one.name for one in there],
        reported_seconds=round(found.reported.elapsed, 3),
        reported_ceiling=handover.EVALUATED,
        reason=why[0],
        workers_meanwhile=kept,
        back_seconds=round(arrival.elapsed, 3),
        back_ceiling=round(ceiling, 3),
        starting_seconds=round(starting, 3),
        starting_ceiling=round(own.starting, 3),
        absence_seconds=round(absence.seconds, 3),
        unavoidable_seconds=round(over - absence.last, 3),
        without_a_place_seconds=round(opened - begun, 3),
    )


# -- afterwards -------------------------------------------------------------------------------------------------


@pytest.mark.rule("T7.5")
def test_a_drain_leaves_nothing_behind(target: Target, footprints: list[Footprint], measure: Measure) -> None:
    """Compares nodes and jobs before and after each drain of this run, and before the first with what is there now."""
    if not footprints:
        raise Unknown("drains of this run", "none", "those of T7.1 to T7.4", "pytest acceptance -k test_7")
    problems: list[str] = []
    for one in footprints:
        if one.after is None:
            raise Unknown(f"what {one.what} left", "the cluster could not be surveyed", "a survey after it")
        problems += [f"{one.what}: {change}" for change in surveys.changes(one.before, one.after)]
    assert not problems, "; ".join(problems)
    # What somebody does a while after a drain stands before and after the next one.
    first = surveys.baseline(footprints)
    now = surveys.settled(target, first, first.jobs)
    problems = [f"since the first drain: {change}" for change in surveys.changes(first, now)]
    assert not problems, "; ".join(problems)
    measure(
        drains=[one.what for one in footprints],
        nodes=len(now.nodes),
        jobs=len(first.jobs),
        allocations=[len(one.before.allocations) for one in footprints],
    )
