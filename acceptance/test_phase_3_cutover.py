"""Phase 3 of the plan: preflight passed, legacy worker gone, one worker deployed and ingesting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fixtures.errors import Unknown
from fixtures.observe import exchange, guardlog, ingest
from fixtures.observe.eventually import eventually
from fixtures.observe.ledger import EgressLedger
from fixtures.observe.processes import worker_processes
from fixtures.rollout import checks, worker
from fixtures.rollout.rollout import Rollout
from fixtures.target import deadlines, names
from fixtures.target.target import Target

pytestmark = pytest.mark.phase3

CLOCK = 1.0
"""Seconds by which the clocks of the node, the exchange and the store may differ."""
INGEST_WITHIN = 60.0
"""Seconds from a running worker to its connection in the exchange's log: connect, subscribe, one record."""


@pytest.mark.rule("P3.1")
def test_the_egress_preflight_passed(
    target: Target, egress_ledger: EgressLedger, phase3: Rollout, measure: Callable[..., None]
) -> None:
    """The batch ran on every egress node, exited 0 everywhere, and each log names an approved address."""
    step = phase3.outcome("egress-check")
    step.proven()
    nomad = target.nomad
    version = nomad.job(names.EGRESS_CHECK_JOB)["Version"]
    runs = [one for one in nomad.allocations(names.EGRESS_CHECK_JOB) if one.job_version == version]
    if not runs:
        raise Unknown(
            names.EGRESS_CHECK_JOB,
            "no allocation of its present version",
            "a finished one on every egress node",
            f"nomad job status {names.EGRESS_CHECK_JOB}",
        )
    approved = checks.approved_addresses(target)
    seen: set[str] = set()
    for run in runs:
        where = f"{run.id[:8]} on {run.node_name}"
        state = run.tasks.get(names.EGRESS_CHECK_TASK)
        assert run.client == "complete", f"{where} is {run.client}"
        assert state is not None and not state.failed, f"{where}: task {names.EGRESS_CHECK_TASK} failed"
        codes = [event.exit_code for event in state.events if event.type == "Terminated"]
        assert codes and codes[-1] == 0, f"{where}: exit codes {codes}"
        # What it saw, not what it wanted: a refusal names the approved address too.
        proven = [
            one.got
            for one in guardlog.read(nomad, run.id, names.EGRESS_CHECK_TASK)
            if one.event == "check-ok"
        ]
        assert proven and set(proven) <= approved, (
            f"{where}: proven {proven}, approved are {sorted(approved)}"
        )
        seen |= set(proven)
    nodes = {run.node_id for run in runs}
    class_ = _class_of_the_worker(nomad.job(names.WORKER_JOB))
    wanted = {
        node.name
        for node in nomad.nodes()
        if node.node_class == class_ and node.status == "ready" and node.eligibility == "eligible"
    }
    missing = sorted(wanted - {run.node_name for run in runs})
    if not wanted:
        raise Unknown(f"nodes of class {class_}", "none is ready and eligible", "those the worker may run on")
    assert not missing, f"no preflight on {missing}"
    measure(seconds=step.seconds, done=step.done, addresses=sorted(seen), nodes=len(nodes))


def _class_of_the_worker(job: dict[str, Any]) -> str:
    """The node class the worker's job demands. AssertionError when it demands none."""
    constraints = [*(job.get("Constraints") or ()), *(job["TaskGroups"][0].get("Constraints") or ())]
    found = [
        one["RTarget"]
        for one in constraints
        if one.get("LTarget") == "${node.class}" and one["Operand"] == "="
    ]
    assert found, f"{names.WORKER_JOB} may run on nodes of any class"
    return str(found[0])


@pytest.mark.rule("P3.2")
def test_the_legacy_worker_is_stopped(target: Target, phase3: Rollout, measure: Callable[..., None]) -> None:
    """No worker process on the legacy host, and no connection of it in the exchange's log."""
    phase3.outcome("stop-legacy").proven()
    hosts = target.hosts.names("legacy")
    census = worker_processes(target.hosts, target.config.gvfx_worker_pattern, target.record, hosts)
    assert not census.workers, f"still running: {[f'{one.host} pid {one.pid}' for one in census.workers]}"
    sources = target.internet.sources()
    records = target.internet.exchange_records(time.time() - 30)
    connected = exchange.connected_now(records, time.time())
    legacy = [one.peer for one in connected if sources.get(one.peer) == "legacy"]
    assert not legacy, f"connected from the legacy host: {legacy}"
    assert not target.legacy.running(), "the legacy worker says it runs"
    measure(hosts=len(hosts), connections=len(legacy))


@pytest.mark.rule("P3.3")
def test_the_worker_is_deployed(target: Target, phase3: Rollout, measure: Callable[..., None]) -> None:
    """The rollout of gvfx-worker succeeded and its watch says ready, for the allocation that runs."""
    step = phase3.outcome("worker")
    step.proven()
    running = checks.deployed(target, names.WORKER_JOB, names.WORKER_TASK, 1)
    ready = eventually(
        "gvfx-worker is registered and passing",
        lambda: [one for one in target.instances(names.WORKER_JOB) if target.passing(one)],
        lambda found: [one.alloc_id for one in found] == [running[0].id],
        within=deadlines.SERVICE_VISIBLE,
        record=target.record,
    )
    ready.proven()
    measure(seconds=step.seconds, done=step.done, node=running[0].node_name, ready_after=ready.elapsed)


@pytest.mark.rule("P3.4")
def test_one_worker_runs_and_ingests(target: Target, phase3: Rollout, measure: Callable[..., None]) -> None:
    """One allocation runs the worker; since it began the exchange knows one client, and the store a cycle."""
    phase3.outcome("confirm").proven()
    one = worker.the_one(target)
    began = one.tasks[names.WORKER_TASK].started
    if began is None:
        raise Unknown(f"start of the worker in {one.id[:8]}", "no time", "when its task began")
    approved, sources = checks.approved_addresses(target), target.internet.sources()

    def subscribed() -> list[exchange.Session]:
        now = time.time()
        records = target.internet.exchange_records(now - 30)
        latest: dict[str, Any] = next((r for r in reversed(records) if r.get("kind") == "connections"), {})
        topics = {entry["conn"] for entry in latest.get("conns") or () if entry.get("topics")}
        # The legacy worker is judged by a rule of its own.
        return [
            found
            for found in exchange.connected_now(records, now)
            if sources.get(found.peer) != "legacy" and found.conn in topics
        ]

    def its_own(found: list[exchange.Session]) -> bool:
        return len(found) == 1 and found[0].peer in approved and found[0].opened >= began - CLOCK

    sockets = eventually(
        "one subscribed socket, from an approved exit and opened since the worker began",
        subscribed,
        its_own,
        within=INGEST_WITHIN,
        record=target.record,
    )
    sockets.proven()
    job, convex = target.nomad.job(names.WORKER_JOB), target.convex()
    asked = {"source_type": "bingx", "feed": names.LOCK_FEED, "page_size": 25}

    def cycles() -> int:
        rows = convex.query("ingestion_runs:list", asked).get("data") or []
        done = [row for row in rows if row.get("status") == "succeeded" and row.get("trigger") == "schedule"]
        return len(ingest.lock_rows(done, names.LOCK_FEED, began - CLOCK).starts)

    stored = eventually(
        "a scheduled cycle that began with this worker has succeeded",
        cycles,
        bool,
        within=INGEST_WITHIN + 2 * worker.scheduler_period(job),
        record=target.record,
    )
    measure(
        sockets=len(sockets.proven()),
        cycles=stored.proven(),
        seconds=[round(sockets.elapsed, 3), round(stored.elapsed, 3)],
        node=one.node_name,
    )
