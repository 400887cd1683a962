"""Phase 3 of the plan: preflight passed, legacy worker gone, one worker deployed and ingesting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fixtures.errors import Unknown
from fixtures.observe import exchange
from fixtures.observe.eventually import eventually
from fixtures.observe.ledger import EgressLedger
from fixtures.observe.processes import worker_processes
from fixtures.rollout import checks
from fixtures.rollout.rollout import Rollout
from fixtures.target import deadlines, names
from fixtures.target.target import Target

pytestmark = pytest.mark.phase3

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
        log = nomad.logs(run.id, names.EGRESS_CHECK_TASK)
        named = {address for address in approved if address in log}
        assert named, f"{where}: its log names none of {sorted(approved)}"
        seen |= named
    nodes = {run.node_id for run in runs}
    classes = {node.node_class for node in nomad.nodes() if node.id in nodes}
    wanted = {
        node.name
        for node in nomad.nodes()
        if node.node_class in classes and node.status == "ready" and node.eligibility == "eligible"
    }
    missing = sorted(wanted - {run.node_name for run in runs})
    assert not missing, f"no preflight on {missing}"
    measure(seconds=step.seconds, done=step.done, addresses=sorted(seen), nodes=len(nodes))


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
        lambda: [one for one in target.instances(names.WORKER_JOB) if one.passing],
        lambda found: [one.alloc_id for one in found] == [running[0].id],
        within=deadlines.SERVICE_VISIBLE,
        record=target.record,
    )
    ready.proven()
    measure(seconds=step.seconds, done=step.done, node=running[0].node_name, ready_after=ready.elapsed)


@pytest.mark.rule("P3.4")
def test_one_worker_runs_and_ingests(target: Target, phase3: Rollout, measure: Callable[..., None]) -> None:
    """One allocation runs the worker, and the exchange's log shows a subscribed socket from an exit."""
    phase3.outcome("confirm").proven()
    running = target.nomad.running(names.WORKER_JOB, names.WORKER_TASK)
    assert len(running) == 1, f"the worker runs in {len(running)} allocations"
    approved = checks.approved_addresses(target)

    def subscribed() -> list[str]:
        records = target.internet.exchange_records(time.time() - 30)
        opened = {one.conn for one in exchange.connected_now(records, time.time()) if one.peer in approved}
        latest: dict[str, Any] = next((r for r in reversed(records) if r.get("kind") == "connections"), {})
        return [
            str(entry["peer"])
            for entry in latest.get("conns") or ()
            if entry["conn"] in opened and entry.get("topics")
        ]

    outcome = eventually(
        "a subscribed socket from an approved exit",
        subscribed,
        bool,
        within=INGEST_WITHIN,
        record=target.record,
    )
    measure(sockets=len(outcome.proven()), seconds=outcome.elapsed, node=running[0].node_name)
