"""Acceptance test 3: a worker without a valid way out never starts, and nobody else goes out at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe import exchange, inside
from fixtures.observe.eventually import eventually
from fixtures.observe.ledger import EgressLedger, difference
from fixtures.observe.nomad_types import Allocation
from fixtures.observe.processes import worker_processes
from fixtures.rollout import checks, worker
from fixtures.target import deadlines, names
from fixtures.target.target import Target

pytestmark = [pytest.mark.phase3, pytest.mark.usefixtures("phase3")]

Measure = Callable[..., None]
WRONG_ADDRESS = "192.0.2.77"
"""From a documentation range: the address of no exit."""
NO_SUCH_EXIT = "gvfx-no-such-exit"
WINDOW = 5.0
"""Seconds between two readings of the far end; an ingesting worker sends several packets a second."""


@pytest.mark.rule("T3.5")
def test_the_far_end_sees_the_wrong_address(
    target: Target, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Positive control of every zero below: one request from a node's own address is counted as wrong."""
    host = target.hosts.names("egress")[0]
    url = _echo(target)
    before = target.internet.counters()
    answer = target.hosts.run(host, ["curl", "-sS", "-m", "5", url], timeout=10.0)
    counted = difference(before, target.internet.counters())
    egress_ledger.allow("wrong", counted.get("wrong", 0))
    if answer.returncode != 0:
        raise Unknown(f"request from {host}", answer.stderr.strip()[:200], f"an answer of {url}")
    seen = answer.stdout.strip()
    assert counted.get("wrong", 0) > 0, f"a request from {seen} moved no counter: {counted}"
    assert seen not in checks.approved_addresses(target), f"{host} itself goes out by an exit: {seen}"
    measure(address=seen, packets=counted["wrong"])


@pytest.mark.parametrize(
    "moment", ["before", pytest.param("after", marks=pytest.mark.disruptive)], ids=["before", "after"]
)
@pytest.mark.rule("T3.1")
def test_worker_goes_out_by_an_approved_exit_only(
    target: Target, egress_ledger: EgressLedger, measure: Measure, moment: str
) -> None:
    """Repeats, when the blocking tests are over, that the worker runs and its packets leave by an exit."""
    one = worker.the_one(target)
    before = target.internet.counters()

    def traffic() -> dict[str, int]:
        return difference(before, target.internet.counters())

    sources = target.internet.sources()
    exits = {sources.get(address, "") for address in checks.approved_addresses(target)}
    if not exits or "" in exits:
        raise Unknown("approved exits", f"{sorted(exits)} at the far end", "a counter for each of them")
    outcome = eventually(
        "packets of the worker at the far end",
        traffic,
        lambda seen: sum(seen.get(name, 0) for name in exits) > 0,
        within=WINDOW * 4,
        record=target.record,
        every=WINDOW / 5,
    )
    seen = outcome.proven()
    leaked = egress_ledger.forbidden()
    assert not leaked, f"packets of this run from addresses that are no exit: {leaked}"
    measure(
        moment=moment,
        node=one.node_name,
        packets=sum(seen.get(name, 0) for name in exits),
        forbidden=sum(leaked.values()),
    )


@pytest.mark.disruptive
@pytest.mark.rule("T3.2")
def test_wrong_address_blocks_the_worker(
    target: Target, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Deploys the worker expecting an address no exit has: it must never start; then restores it."""
    exits = checks.approved_addresses(target)
    variables = {names.EXPECTED_IPS_VARIABLE: WRONG_ADDRESS}
    # The reason must name what was seen: the address of an exit that was really tried.
    _refused(target, egress_ledger, measure, variables, reason=exits, must_try=True)


@pytest.mark.disruptive
@pytest.mark.rule("T3.3")
def test_unknown_exit_blocks_the_worker(
    target: Target, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Deploys the worker with an exit that does not exist: it must never start; then restores it."""
    # Addresses stay right and shared, so that the exit is all that is wrong.
    variables = {
        names.EXIT_PRIMARY_VARIABLE: NO_SUCH_EXIT,
        names.EXIT_FALLBACKS_VARIABLE: "",
        names.EXPECTED_IPS_VARIABLE: ",".join(sorted(checks.approved_addresses(target))),
    }
    _refused(target, egress_ledger, measure, variables, reason={NO_SUCH_EXIT}, must_try=False)


def _refused(
    target: Target,
    ledger: EgressLedger,
    measure: Measure,
    variables: Mapping[str, object],
    *,
    reason: set[str],
    must_try: bool,
) -> None:
    """The guard refuses, says why, the worker never starts, and nothing leaves by a forbidden address."""
    within = deadlines.deployment(target.nomad.job(names.WORKER_JOB))
    pattern = target.config.gvfx_worker_pattern
    # The legacy host is judged by rules of its own.
    cluster = sorted(set(target.hosts.names()) - set(target.hosts.names("legacy")))
    before = target.internet.counters()
    start = time.monotonic()
    with worker.misdirected(target, variables) as result:
        outcome = eventually(
            "the guard refuses",
            lambda: worker.versions(target, result.version),
            lambda found: any(_guard_refused(one) for one in found) or any(map(_started, found)),
            within=within,
            record=target.record,
        )
        found = outcome.proven()
        seconds = time.monotonic() - start
        assert not any(map(_started, found)), "the worker started without a valid way out"
        refusing = next(one for one in found if _guard_refused(one))
        guard = refusing.tasks[names.GUARD_TASK]
        # Nomad also fails a task that never ran, with its siblings: blocked, but not by the guard.
        assert guard.ever_started, f"the guard never ran: {[event.type for event in guard.events]}"
        log = _guard_log(target, refusing)
        census = worker_processes(target.hosts, pattern, target.record, cluster)
        where = [f"{one.host} pid {one.pid}" for one in census.workers]
        assert not census.workers, f"worker processes while none may run: {where}"
        # Read again at the end: a later allocation of this version must not have started either.
        found = worker.versions(target, result.version)
        assert not any(map(_started, found)), "the worker started in a later attempt"
        counted = difference(before, target.internet.counters())
    leaked = ledger.forbidden()
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    codes = _exit_codes(refusing)
    assert codes and all(codes), f"the guard ended with exit codes {codes}"
    assert any(word in log for word in reason), f"the guard's log names none of {sorted(reason)}"
    tried = sum(counted.get(name, 0) for name in counted if name.startswith("exit"))
    if must_try and not tried:
        raise Unknown("attempts of the guard", "no packet reached the far end by an exit", "its probes")
    measure(
        refused_seconds=round(seconds, 3),
        attempts=len(found),
        exit_code=codes[-1],
        packets_by_exit=tried,
        forbidden=sum(leaked.values()),
    )


def _guard_refused(allocation: Allocation) -> bool:
    guard = allocation.tasks.get(names.GUARD_TASK)
    return guard is not None and guard.state == "dead" and guard.failed


def _started(allocation: Allocation) -> bool:
    # Not by state: a task that never ran ends as dead and not failed.
    state = allocation.tasks.get(names.WORKER_TASK)
    return state is not None and state.ever_started


def _exit_codes(allocation: Allocation) -> list[int]:
    events = allocation.tasks[names.GUARD_TASK].events
    return [event.exit_code for event in events if event.exit_code is not None]


def _guard_log(target: Target, allocation: Allocation) -> str:
    """What guard and watch wrote; the reason may be in either. ProbeError if neither can be read."""
    texts: list[str] = []
    errors: list[ProbeError] = []
    for task in (names.GUARD_TASK, names.WATCH_TASK):
        for stream in ("stdout", "stderr"):
            try:
                texts.append(target.nomad.logs(allocation.id, task, stream))
            except ProbeError as error:
                errors.append(error)
    if not texts:
        raise errors[0]
    return "\n".join(texts)


@pytest.mark.rule("T3.4")
def test_no_other_task_reaches_the_exchange(
    target: Target, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """From inside every other task, no connection to the exchange or the echo; none in their logs either."""
    ends = _far_ends(target)
    reached: list[str] = []
    tried = 0
    for job in names.SERVICES:
        running = target.nomad.running(job.id, job.task)
        if not running:
            raise Unknown(f"{job.id}", f"task {job.task} runs nowhere", "a running task to try from")
        for alloc in running:
            control = f"127.0.0.1:{job.port}"
            found = inside.reach(target.nomad, alloc.id, job.task, control, ends)
            tried += len(found)
            reached += [
                f"{job.id} on {alloc.node_name} reaches {end}" for end, open_ in found.items() if open_
            ]
    assert not reached, "; ".join(reached)
    sources = target.internet.sources()
    approved = checks.approved_addresses(target)
    records = target.internet.exchange_records(egress_ledger.started)
    if not records:
        raise Unknown("exchange log", "no records in this run", "at least its periodic listing")
    # The legacy worker is no task of the stack; rules P3.2 and T2.5 are about it.
    strangers = sorted(
        peer for peer in exchange.peers(records) if peer not in approved and sources.get(peer) != "legacy"
    )
    assert not strangers, f"the exchange was called from {strangers}"
    measure(connections_tried=tried, ends=len(ends), records=len(records), strangers=len(strangers))


def _far_ends(target: Target) -> list[str]:
    ends = []
    urls = [target.config.bingx_base_url, target.config.bingx_ws_url, *target.config.ts_egress_check_urls]
    for url in urls:
        parts = urlsplit(url or "")
        if parts.hostname:
            port = parts.port or (443 if parts.scheme in {"https", "wss"} else 80)
            ends.append(f"{parts.hostname}:{port}")
    if not ends:
        raise Unknown("the exchange", "BINGX_BASE_URL, BINGX_WS_URL are not set", "its address")
    return sorted(set(ends))


def _echo(target: Target) -> str:
    for url in target.config.ts_egress_check_urls:
        if urlsplit(url).scheme in {"http", "https"}:
            return url
    raise Unknown(
        "IP echo", "TS_EGRESS_CHECK_URLS names no http URL", "an address that answers with the caller's"
    )
