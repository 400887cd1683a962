"""Acceptance test 4: an exit fails, the next one takes over, and the same worker goes on."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

import pytest

from fixtures.errors import Unknown
from fixtures.faults import (
    ExitUnapproved,
    Fault,
    HostDown,
    Journal,
    LinkCut,
    NoWebSocket,
    ProcessFreeze,
    ProcessKill,
    WrongAddress,
)
from fixtures.observe import ingested
from fixtures.observe.capture import Capture
from fixtures.observe.eventually import eventually
from fixtures.observe.ledger import EgressLedger
from fixtures.observe.nomad_types import Allocation
from fixtures.observe.recorder import AllocationRecorder
from fixtures.rollout import egress, failover, worker
from fixtures.rollout.failover import Mode, fails_over
from fixtures.target import deadlines, names
from fixtures.target.capabilities import Exit
from fixtures.target.target import Target

pytestmark = [pytest.mark.disruptive, pytest.mark.usefixtures("phase3")]

Measure = Callable[..., None]
Ready = Callable[[], Allocation]
LIFETIME = 180.0
"""Seconds after which a fault here ends by itself, whatever becomes of the suite."""
TAILSCALED = "tailscaled"
PROPAGATION = 3.0
"""Seconds a change at the control server takes to reach a node, generously: measured are 0.9."""
ROUNDS = 2


@pytest.fixture
def working(target: Target) -> Ready:
    """Gives the one worker, with an exit in use: to be asked in the rule's own body."""
    return lambda: egress.ready(target)


def _stranger(exit_: Exit) -> str:
    """An address beside the exit's own that nobody has."""
    network = ipaddress.ip_network(f"{exit_.public}/24", strict=False)
    return str(network.network_address + 99)


def _unapproved(target: Target, exit_: Exit) -> Fault:
    host, cli = target.tailnet.cli()
    return ExitUnapproved(host, exit_.name, cli, at_most=LIFETIME)


def _no_websocket(target: Target, exit_: Exit) -> Fault:
    far, paths = egress.far_addresses(target), egress.websocket_paths(target)
    return NoWebSocket(exit_.name, far, paths=paths, at_most=LIFETIME)


MODES = (
    Mode("killed", "T4.1", lambda target, one: ProcessKill(one.name, TAILSCALED, at_most=LIFETIME)),
    Mode("frozen", "T4.2", lambda target, one: ProcessFreeze(one.name, TAILSCALED, at_most=LIFETIME)),
    Mode("link-cut", "T4.3", lambda target, one: LinkCut(one.name, at_most=LIFETIME)),
    Mode(
        "one-way-loss", "T4.4",
        # To every host below the tailnet: otherwise the answers would find their way by the relay.
        lambda target, one: LinkCut(
            one.name, egress.underlay_of_others(target, one.name), "out", at_most=LIFETIME
        ),
    ),
    Mode(
        "wrong-address", "T4.5",
        lambda target, one: WrongAddress(one.name, one.public, _stranger(one), at_most=LIFETIME),
        shows=_stranger, reason="is not in TS_EGRESS_EXPECTED_IPS",
    ),
    Mode("unapproved", "T4.6", _unapproved, notice=PROPAGATION, reason="it is no longer approved"),
    Mode("host-down", "T4.7", lambda target, one: HostDown(one.name)),
    Mode(
        "websocket-silent", "T4.10", _no_websocket, ceiling=lambda own: own.websocket_detection(),
        reason="WebSocket probes, while HTTP answers",
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    "mode", [pytest.param(one, id=one.id, marks=pytest.mark.rule(one.rule)) for one in MODES]
)
def test_the_next_exit_takes_over(
    target: Target,
    working: Ready,
    faults: Journal,
    worker_recorder: AllocationRecorder,
    egress_ledger: EgressLedger,
    leak_capture: Capture,
    measure: Measure,
    mode: Mode,
) -> None:
    """Lets the primary exit fail in the way the case is named after: the worker must go on by the next one."""
    measure(**fails_over(target, faults, worker_recorder, egress_ledger, leak_capture, working(), mode))


@pytest.mark.rule("T4.8")
def test_the_primarys_return_causes_no_flapping(
    target: Target, working: Ready, faults: Journal, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Kills the primary, lets it return, kills it again and lets it return again: one change of exit in all."""
    held = working()
    own = egress.settings(target)
    if own.back:
        raise Unknown(
            "flapping",
            f"the worker is told to return after {own.back:g} s",
            "ts_return_seconds = 0, as planned",
        )
    primary, fallback, *_ = egress.exits_in_order(target, own)
    egress.primary_in_use(target, faults, held, own)
    booked, begun = egress_ledger.since_start(), time.time()
    watched: list[float] = []
    settled, lingering = begun, 0
    with egress.besieged(target, held, failover.SIEGE) as attack:
        for round_ in range(ROUNDS):
            with faults.applied(ProcessKill(primary.name, TAILSCALED, at_most=LIFETIME)):
                if round_ == 0:
                    lost = egress.said(
                        target, held, "exit-lost", begun, within=own.detection() + deadlines.LOG_DELAY
                    )
                    active = egress.said(
                        target, held, "exit-active", lost.t, within=own.switch() + deadlines.LOG_DELAY
                    )
                    assert active.exit == fallback.tailnet, f"{active.exit} took over"
                    # The very line of the switch is no change after it.
                    settled = active.t + 0.001
                    lingering = failover.outlived(target, attack)
                else:
                    watched.append(failover.unchanged(target, held, settled, own.detection()))
            egress.exit_is_up(target, primary)
            watched.append(failover.unchanged(target, held, settled, own.quiet()))
    assert egress.in_use(target, held) == fallback.tailnet, "the worker is on another exit"
    egress.same_worker(target, held)
    leaked = egress_ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    measure(
        returns=ROUNDS,
        changes=1,
        watched_seconds=[round(one, 1) for one in watched],
        unavoidable_seconds=len(watched) * own.fastest_detection(),
        lingering=lingering,
        forbidden=0,
    )


@pytest.mark.rule("T4.9")
def test_all_exits_dead_blocks_and_the_first_back_recovers(
    target: Target,
    working: Ready,
    faults: Journal,
    worker_recorder: AllocationRecorder,
    egress_ledger: EgressLedger,
    measure: Measure,
) -> None:
    """Cuts every exit off: blocked, stopped in time; then gives the last one back: the same allocation works on."""
    held = working()
    own, clocks = egress.settings(target), egress.ingest_settings(target)
    exits = egress.exits_in_order(target, own)
    restarts = held.tasks[names.WORKER_TASK].restarts
    booked, begun = egress_ledger.since_start(), time.time()
    all_tried = own.detection() + own.switch(len(exits))
    with egress.besieged(target, held, LIFETIME + own.stopped() + own.recovery()) as attack:
        cuts = [
            LinkCut(one.name, egress.underlay_of_others(target, one.name), at_most=LIFETIME) for one in exits
        ]
        for cut in cuts:
            faults.begin(cut)
        struck = time.time()
        none = egress.said(target, held, "exits-none", begun, within=all_tried + deadlines.LOG_DELAY)
        gone = egress.worker_stopped(target, held, begun, within=own.stopped() + deadlines.LOG_DELAY)
        egress.said(target, held, "blocked-stop", begun, within=deadlines.LOG_DELAY + own.switch(len(exits)))
        blocked = attack.tries()
        faults.end(cuts[-1])
        freed = time.time()
        active = egress.said(target, held, "exit-active", gone, within=own.recovery() + deadlines.LOG_DELAY)
        eventually(
            f"REST and WebSocket ingest through {exits[-1].name}",
            lambda: ingested.resumed(target.internet.exchange_records(freed), exits[-1].public, freed),
            bool,
            within=own.recovery()
            + deadlines.replacement(target.nomad.job(names.WORKER_JOB))
            + clocks.rest_gap(0),
            record=target.record,
        ).proven()
        faults.undo_all()
    assert active.exit == exits[-1].tailnet, (
        f"{active.exit} is in use, {exits[-1].tailnet} is the one that is back"
    )
    now = egress.same_worker(target, held).tasks[names.WORKER_TASK]
    # Once for the stop; and once more each time it had waited in vain for as long as it may.
    most = 1 + int((active.t - gone) // egress.patience(target))
    assert 1 <= now.restarts - restarts <= most, (
        f"the worker was started {now.restarts - restarts} times, not 1 to {most}"
    )
    failover.never_two(target, worker_recorder, begun)
    sources = target.internet.sources()
    records = target.internet.exchange_records(none.t + failover.IN_FLIGHT)
    early = [
        one
        for one in records
        if one.get("kind") in {"rest", "ws_open"}
        and float(one["t"]) < freed
        and sources.get(str(one.get("peer"))) != "legacy"
    ]
    assert not early, f"{len(early)} calls at the exchange while every exit was dead"
    leaked = egress_ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    if not blocked.stopped():
        raise Unknown("tries while blocked", f"none of {blocked.total} was stopped", "tries that failed")
    assert gone - struck <= own.stopped(), (
        f"stopped after {gone - struck:.1f} s, allowed are {own.stopped():.1f} s"
    )
    assert active.t - freed <= own.recovery(), (
        f"recovered after {active.t - freed:.1f} s of {own.recovery():.1f} s"
    )
    for one in exits:
        egress.exit_is_up(target, one)
    measure(
        blocked_seconds=round(none.t - struck, 3),
        stopped_seconds=round(gone - struck, 3),
        stopped_ceiling=own.stopped(),
        unavoidable_seconds=own.blocked_stop,
        recovery_seconds=round(active.t - freed, 3),
        recovery_ceiling=own.recovery(),
        tries=blocked.total,
        stopped_tries=blocked.stopped(),
        forbidden=0,
    )


@pytest.mark.rule("T4.11")
def test_another_node_starts_a_worker_whose_node_has_no_way_out(
    target: Target,
    working: Ready,
    faults: Journal,
    worker_recorder: AllocationRecorder,
    egress_ledger: EgressLedger,
    measure: Measure,
) -> None:
    """Cuts the worker's node alone off from every exit, relays included: the worker must move, and no exit is to blame."""
    held = working()
    own, job = egress.settings(target), target.nomad.job(names.WORKER_JOB)
    nodes = set(target.hosts.names("egress")) - {held.node_name}
    if not nodes:
        raise Unknown("egress nodes", f"{held.node_name} alone", "another one")
    exhausted = deadlines.given_up(job, names.WORKER_TASK, egress.patience(target))
    assert math.isfinite(exhausted), (
        f"restarts of {names.WORKER_JOB} never run out: it would stay on a dead node"
    )
    within = own.detection() + own.stopped() + exhausted + deadlines.replacement(job)
    far = [*(one.name for one in egress.exits_in_order(target, own)), *target.hosts.names("control")]
    peers = tuple(sorted(target.hosts.underlay_address(one) for one in far))
    booked, begun = egress_ledger.since_start(), time.time()
    with faults.applied(LinkCut(held.node_name, peers, at_most=within + LIFETIME)) as cut:
        moved, seconds = worker.one_again(target, within=within, not_alloc=held.id)
        dropped = cut.dropped(faults.control)
    assert moved.node_name in nodes, f"started again on {moved.node_name}, which has no way out"
    if not dropped:
        raise Unknown(cut.title, "it dropped no packet", "packets of somebody who tried")
    failover.never_two(target, worker_recorder, begun)
    leaked = egress_ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    measure(
        moved_seconds=round(seconds, 1),
        ceiling_seconds=round(within, 1),
        restarts_run_out_ceiling=round(exhausted - deadlines.MARGIN, 1),
        unavoidable_seconds=own.blocked_stop
        + deadlines.restarts(job, names.WORKER_TASK) * egress.patience(target),
        dropped_by_fault=dropped,
        forbidden=0,
    )
