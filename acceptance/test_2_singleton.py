"""Acceptance test 2: exactly one worker works, by independent witnesses, and never two."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fixtures.observe import exchange, ingest, timeline
from fixtures.observe.eventually import eventually
from fixtures.observe.ledger import EgressLedger
from fixtures.observe.nomad import NomadNotFound, NomadRejected
from fixtures.observe.processes import Census, worker_processes
from fixtures.observe.recorder import AllocationRecorder
from fixtures.preflight.checks import IMMUTABLE
from fixtures.rollout import worker
from fixtures.target import deadlines, names
from fixtures.target.target import Target

pytestmark = [pytest.mark.phase3, pytest.mark.usefixtures("phase3")]

Measure = Callable[..., None]
SETTLED = 15.0
"""Seconds until the exchange has noticed that a client vanished: its pings, and one listing."""


def _census(target: Target) -> Census:
    return worker_processes(target.hosts, target.config.gvfx_worker_pattern, target.record)


@pytest.mark.rule("T2.1")
def test_exactly_one_worker_task_runs(target: Target, measure: Measure) -> None:
    """One task `worker` runs; its guard ended well; no other allocation of the job is alive."""
    one = worker.the_one(target)
    guard = one.tasks.get(names.GUARD_TASK)
    assert guard is not None, f"{one.id[:8]} has no task {names.GUARD_TASK}"
    assert guard.state == "dead" and not guard.failed, f"the guard is {guard.state}, failed={guard.failed}"
    assert guard.finished is not None and guard.finished <= (one.tasks[names.WORKER_TASK].started or 0.0), (
        "the worker started before its guard had ended"
    )
    others = [
        f"{other.id[:8]} {other.client} on {other.node_name}"
        for other in target.nomad.allocations(names.WORKER_JOB)
        if other.live and other.id != one.id
    ]
    assert not others, f"other allocations of the worker are alive: {others}"
    measure(running=1, node=one.node_name, restarts=one.tasks[names.WORKER_TASK].restarts)


@pytest.mark.rule("T2.2")
def test_never_two_workers_at_any_instant(worker_recorder: AllocationRecorder, measure: Measure) -> None:
    """No two runs of the worker task in the whole session shared an instant."""
    runs = worker.never_two(worker_recorder)
    measure(
        runs=len(runs),
        longest_gap_seconds=round(timeline.longest_gap(runs), 3),
        stream_reconnects=worker_recorder.reconnects,
    )


@pytest.mark.rule("T2.3")
def test_one_worker_process_over_all_hosts(target: Target, measure: Measure) -> None:
    """The process tables of all hosts hold one worker, on the node Nomad names, none on the legacy host."""
    one = worker.the_one(target)
    census = _census(target)
    where = [f"{found.host} pid {found.pid}" for found in census.workers]
    legacy = [found.host for name in target.hosts.names("legacy") for found in census.on(name)]
    assert not legacy, f"a worker runs on the legacy host: {where}"
    assert len(census.workers) == 1, f"{len(census.workers)} worker processes: {where}"
    assert census.workers[0].host == one.node_name, f"Nomad says {one.node_name}, the process is at {where}"
    measure(processes=len(census.workers), hosts=len(census.hosts))


@pytest.mark.rule("T2.4")
def test_one_holder_at_the_store(target: Target, measure: Measure) -> None:
    """The lock variable is held, and the ingestion lock rows come from one scheduler."""
    one = worker.the_one(target)
    try:
        variable = target.nomad.variable(names.LOCK_PATH)
    except NomadNotFound:
        variable = {}
    assert variable and target.nomad.lock_is_held(names.LOCK_PATH), f"nobody holds {names.LOCK_PATH}"
    holder = (variable.get("Items") or {}).get("holder")
    assert holder == one.id, f"{names.LOCK_PATH} is held by {holder}, the worker runs in {one.id}"
    job = target.nomad.job(names.WORKER_JOB)
    period = worker.scheduler_period(job)
    started = one.tasks[names.WORKER_TASK].started or 0.0
    convex = target.convex()

    def rows() -> ingest.LockRows:
        return ingest.lock_rows(convex.rows("ingestion_runs", feed=names.LOCK_FEED), names.LOCK_FEED, started)

    # Cycles still to come: those of before prove nothing about a second worker that has only just begun.
    seen = max(rows().starts, default=started)
    outcome = eventually(
        "three more scheduled ingestion cycles",
        rows,
        lambda found: sum(start > seen for start in found.starts) >= 3,
        within=4 * period + deadlines.MARGIN,
        record=target.record,
        every=1.0,
    )
    found = outcome.proven()
    closest = found.closest() or 0.0
    assert len(found.holders) <= 1, f"{len(found.holders)} holders wrote lock rows: {sorted(found.holders)}"
    assert closest >= ingest.ONE_PHASE * period, (
        f"two scheduled cycles started {closest:.1f} s apart, the period is {period:.0f} s: two schedulers"
    )
    measure(cycles=len(found.starts), closest_seconds=round(closest, 2), period_seconds=period)


@pytest.mark.rule("T2.5")
def test_one_client_at_the_exchange(target: Target, egress_ledger: EgressLedger, measure: Measure) -> None:
    """The exchange's own log shows one open connection now, and never two at a time in this run."""

    def connected() -> list[exchange.Session]:
        return exchange.connected_now(target.internet.exchange_records(time.time() - 60), time.time())

    outcome = eventually(
        "one open connection at the exchange",
        connected,
        lambda found: len(found) == 1,
        within=SETTLED,
        record=target.record,
    )
    now = outcome.proven()
    history = exchange.sessions(target.internet.exchange_records(egress_ledger.started))
    pair = exchange.simultaneous(history)
    assert pair is None, f"two clients at once: {pair}"
    measure(open=len(now), peer=now[0].peer, sessions=len(history))


@pytest.mark.disruptive
@pytest.mark.rule("T2.6")
def test_worker_cannot_be_scaled_above_one(target: Target, measure: Measure) -> None:
    """Asks Nomad for two workers: the stored job must forbid it, and the request must be refused."""
    job = target.nomad.job(names.WORKER_JOB)
    assert job["Type"] == "service", f"job type {job['Type']} is not bound to a count"
    groups = [g for g in job["TaskGroups"] if any(t["Name"] == names.WORKER_TASK for t in g["Tasks"])]
    assert len(groups) == 1 and groups[0]["Count"] == 1, "the worker is not in one group of count 1"
    limit = (groups[0].get("Scaling") or {}).get("Max")
    # Only asked when the spec already says no: an accepted request would start a second worker.
    assert limit == 1, f"the group's scaling limit is {limit}, not 1"
    target.require("deploy")
    try:
        target.nomad.scale(names.WORKER_JOB, groups[0]["Name"], 2)
    except NomadRejected as refusal:
        answer = refusal.observed
    else:
        target.nomad.scale(names.WORKER_JOB, groups[0]["Name"], 1)
        raise AssertionError("Nomad accepted a count of 2")
    after = target.nomad.job(names.WORKER_JOB)["TaskGroups"]
    assert [group["Count"] for group in after if group["Name"] == groups[0]["Name"]] == [1]
    measure(limit=limit, answer=answer[:120])


@pytest.mark.disruptive
@pytest.mark.rule("T2.7")
def test_one_worker_after_restart_and_reschedule(
    target: Target, worker_recorder: AllocationRecorder, measure: Measure
) -> None:
    """Restarts the worker task, then stops its allocation: one worker after each, never two."""
    target.require("deploy")
    job = target.nomad.job(names.WORKER_JOB)
    before = worker.the_one(target)
    started = before.tasks[names.WORKER_TASK].started
    target.nomad.restart_task(before.id, names.WORKER_TASK)
    restarted = eventually(
        "the restarted worker runs",
        lambda: worker.running(target),
        lambda found: len(found) == 1 and found[0].tasks[names.WORKER_TASK].started != started,
        within=deadlines.task_restart(job, names.WORKER_TASK) + deadlines.replacement(job),
        record=target.record,
    )
    again = restarted.proven()[0]
    target.nomad.stop_allocation(again.id)
    moved, seconds = worker.one_again(target, within=deadlines.replacement(job), not_alloc=again.id)
    census = _census(target)
    where = [f"{found.host} pid {found.pid}" for found in census.workers]
    assert len(census.workers) == 1, f"{len(census.workers)} worker processes afterwards: {where}"
    runs = worker.never_two(worker_recorder)
    measure(
        restart_seconds=round(restarted.elapsed, 3),
        reschedule_seconds=round(seconds, 3),
        node=moved.node_name,
        runs=len(runs),
        longest_gap_seconds=round(timeline.longest_gap(runs), 3),
    )


@pytest.mark.rule("T2.8")
def test_images_are_immutable(target: Target, measure: Measure) -> None:
    """Every task of every job of the plan names its image by git SHA or digest."""
    images = 0
    mutable: list[str] = []
    for job_id in (*names.ALL_JOBS, names.EGRESS_CHECK_JOB):
        for group in target.nomad.job(job_id)["TaskGroups"]:
            for task in group["Tasks"]:
                images += 1
                image = str((task.get("Config") or {}).get("image", ""))
                if not IMMUTABLE.match(image):
                    mutable.append(f"{job_id}/{task['Name']}: {image or 'no image'}")
    assert not mutable, f"mutable images: {mutable}"
    measure(images=images)
