"""Phase 4 of the plan: users come by the Nomad frontend, 48 hours are observed, and the way back works."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fixtures.errors import Unknown
from fixtures.faults import Journal
from fixtures.observe.eventually import eventually
from fixtures.observe.recorder import AllocationRecorder
from fixtures.rollout import checks, looks, snapshot, users, worker
from fixtures.rollout.entries import ScratchRows
from fixtures.rollout.observation import Observation, observe
from fixtures.rollout.pytest_observation import ObservationOptions
from fixtures.rollout.rollback import Rollback
from fixtures.rollout.rollout import Rollout
from fixtures.rollout.triggers import MIN_CYCLES, PLAN_HOURS
from fixtures.rollout.undoing import if_red
from fixtures.target import names
from fixtures.target.target import Target

Measure = Callable[..., None]
VISIBLE = 10.0
"""Seconds until a row in the store shows in an answer that is read from it on every request."""
SCRATCH = "acceptance_rollback"
ROWS = 20


@pytest.mark.rule("P4.1")
def test_users_come_through_the_nomad_frontend(
    target: Target, entries: Journal, phase3: Rollout, measure: Measure
) -> None:
    """By the frontend's Consul name: its page, and a call through it that shows what stands in this stack's store."""
    phase3.outcome("frontend").proven()
    registered = checks.instances(target, names.FRONTEND)
    running = {one.id for one in target.nomad.running(names.FRONTEND.id, names.FRONTEND.task)}
    strangers = [f"{one.address} {one.alloc_id}" for one in registered if one.alloc_id not in running]
    assert not strangers, f"registered without a running allocation: {strangers}"
    ours = {one.address: one.alloc_id or "" for one in registered}
    with users.planted_alert(target, entries) as planted:
        outcome = eventually(
            "every frontend shows the planted alert",
            lambda: users.tour(target),
            lambda found: not users.shows(found, planted),
            within=VISIBLE,
            record=target.record,
        )
        found = outcome.value
        problems = users.served(found, ours) if found is not None else []
        assert not problems, "; ".join(problems)
        found = outcome.proven()
    source = users.outside_the_cluster(target, found)
    legacy = sorted(_legacy_addresses(target) & set(found.resolved.addresses))
    assert not legacy, f"{found.resolved.name} leads to the legacy host: {legacy}"
    measure(
        name=found.resolved.name,
        resolver=found.resolved.server,
        instances=len(found.pages),
        member=source,
        shown_after=round(outcome.elapsed, 3),
        slowest_seconds=found.slowest,
    )


def _legacy_addresses(target: Target) -> set[str]:
    """Every address of the legacy host; none where no host is known: then the allocations alone tell."""
    if not target.can("hosts"):
        return set()
    hosts = target.hosts
    found = {
        address
        for name in hosts.names("legacy")
        for address in (hosts.tailnet_address(name), hosts.underlay_address(name))
    }
    return {one for one in found if one}


@pytest.mark.rule("P4.2")
def test_no_rollback_trigger_fires(
    target: Target, entries: Journal, phase3: Rollout, observing: ObservationOptions, measure: Measure
) -> None:
    """Looks at duplicates, Convex writes, API and RL, and the guard until the plan's 48 hours (compressed) are seen."""
    phase3.outcome("worker").proven()
    cycle = worker.scheduler_period(target.nomad.job(names.WORKER_JOB))
    with observing.opened(target, cycle) as (found, observer):
        # Undone behind the test: a Convex that is away at the end is what the observation tells.
        entries.begin(ScratchRows(names.CONVEX.id, looks.TABLE, "observation", (found.header.id,)))
        observe(found, observer, None if observing.hours is None else observing.hours * 3600)
    _report(found, measure)
    fired = found.evaluation.fired.values()
    assert not fired, "; ".join(f"{one.trigger}, after {one.after:g} s: {one.sentence}" for one in fired)
    if not found.complete:
        seen, needed = found.evaluation.observed, found.header.required
        raise Unknown(
            f"observation in {found.directory}",
            f"{seen / 3600:.2f} h and {len(found.evaluation.cycles)} ingestion cycles seen, "
            f"none of them for {found.evaluation.longest_unfed:.0f} s at the longest",
            f"{needed / 3600:.2f} h and at least {MIN_CYCLES} cycles",
            f"pytest acceptance -k no_rollback_trigger --observe-dir {found.directory}",
        )


def _report(found: Observation, measure: Measure) -> None:
    measure(
        plan_hours=PLAN_HOURS,
        compression=found.header.compression,
        required_seconds=found.header.required,
        unavoidable_seconds=found.header.required,
        look_every_seconds=found.header.thresholds.period,
        cycle_seconds=found.header.thresholds.cycle,
        observation=found.header.id,
        looks_sha256=found.sha256(),
        **found.evaluation.figures(),
    )


@pytest.mark.disruptive
@pytest.mark.rule("P4.3")
def test_the_rollback_leaves_the_legacy_worker_ingesting(
    target: Target,
    faults: Journal,
    phase3: Rollout,
    worker_recorder: AllocationRecorder,
    measure: Measure,
) -> None:
    """Rolls back step by step (worker, legacy worker, API release, data), proves each, and cuts over again."""
    phase3.outcome("worker").proven()
    rollback = Rollback(target, worker_recorder, faults, (SCRATCH, snapshot.SENTINEL_TABLE))
    rollback.ready()
    with _scratch_rows(target, faults) as damage:
        with if_red(rollback.forward):
            rollback.prepare(damage)
            rollback.back()
            ended = rollback.legacy_alone()
        again = rollback.forward()
    together = rollback.never_two()
    measure(
        steps={one.step.action: {"seconds": one.seconds, **one.evidence} for one in rollback.done},
        ended_with=ended,
        forward=again,
        **together,
    )


@contextmanager
def _scratch_rows(target: Target, faults: Journal) -> Iterator[Callable[[], None]]:
    """Rows of our own, and what damages them: one changed, one lost, one that was never there."""
    convex, drill = target.convex(), uuid.uuid4().hex

    def row(number: int) -> dict[str, Any]:
        kept: dict[str, Any] = {
            "text": 'Grüße ✓ "quoted"',
            "none": None,
            "nested": {"list": [1, 2.5, "x", False]},
        }
        return {"id": str(uuid.uuid4()), "drill": drill, "number": number, **kept}

    def damage() -> None:
        rows = convex.rows(SCRATCH, drill=drill)
        filters = [{"field": "id", "op": "eq", "value": rows[0]["id"]}]
        convex.mutation(
            "data:write",
            {"table": SCRATCH, "action": "update", "filters": filters, "payload": {"text": "damaged"}},
        )
        convex.delete(SCRATCH, id=rows[1]["id"])
        convex.insert(SCRATCH, row(ROWS))

    with faults.applied(ScratchRows(names.CONVEX.id, SCRATCH, "drill", (drill,))):
        rows = [row(number) for number in range(ROWS)]
        convex.mutation("data:write", {"table": SCRATCH, "action": "insert", "payload": rows})
        yield damage
