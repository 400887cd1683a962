"""Acceptance test 3: a worker without a valid way out never starts or is stopped, and nobody else goes out at all."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from fixtures.errors import Unknown
from fixtures.faults import (
    AllocFreeze,
    DnsOnly,
    EchoLie,
    ExitCleared,
    ExitUnapproved,
    Fault,
    Journal,
    KillSwitchFlushed,
    LinkCut,
    NamespaceIpv6,
    NoWebSocket,
    ProcessFreeze,
    ProcessKill,
    TaskHeldDown,
    TaskKill,
)
from fixtures.observe import exchange, inside, siege
from fixtures.observe.capture import Capture
from fixtures.observe.eventually import eventually
from fixtures.observe.ledger import EgressLedger, difference
from fixtures.observe.nomad_types import Allocation
from fixtures.observe.processes import worker_processes
from fixtures.observe.siege import Attempts, Siege
from fixtures.rollout import checks, egress, worker
from fixtures.rollout.refusal import Refusal, refused
from fixtures.rollout.undoing import if_red
from fixtures.rollout.worker import Direction
from fixtures.target import deadlines, hcl, names
from fixtures.target.capabilities import Exit, KeyState, Mutation
from fixtures.target.target import Target

pytestmark = pytest.mark.usefixtures("phase3")

Measure = Callable[..., None]
Ready = Callable[[], Allocation]
WRONG_ADDRESS = "192.0.2.77"
"""From a documentation range: the address of no exit."""
NO_SUCH_EXIT = "gvfx-no-such-exit"
NO_SUCH_ADDRESS = "100.64.255.254"
WINDOW = 5.0
"""Seconds between two readings of the far end; an ingesting worker sends several packets a second."""
QUICK, SLOW = 12, 18
"""Seconds the guard is given where its reason stands after one round, and where it must wait for silence first."""
LIFETIME = 180.0
"""Seconds after which a fault here ends by itself, whatever becomes of the suite."""
FRESH_NODE = "gvfx-acceptance-fresh"
MOVES = 3
CAPABILITIES = ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")
RIGHTS = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}
"""Capabilities by the number of their bit: any of them would open what the watch has shut."""


@pytest.fixture(scope="module")
def direction(target: Target) -> Iterator[Direction]:
    """The worker's settings; its own again when this module is over."""
    found = Direction(target)
    yield found
    found.restore()
    if target.can("tailnet"):
        target.tailnet.forget(FRESH_NODE)


@pytest.fixture
def working(target: Target, direction: Direction) -> Ready:
    """Gives the one worker, with its own settings and an exit in use: to be asked in the rule's own body."""
    return lambda: egress.ready(target, direction)


# -- the far end, and who may be seen there ---------------------------------------------------------------


@pytest.mark.rule("T3.5")
@pytest.mark.parametrize("how", ["request", "siege"])
def test_the_far_end_sees_the_wrong_address(
    target: Target, egress_ledger: EgressLedger, leak_capture: Capture, measure: Measure, how: str
) -> None:
    """Positive control of every zero below: what a node itself sends is counted as wrong, and captured."""
    host = target.hosts.names("egress")[0]
    before, seen = target.internet.counters(), sum(leak_capture.packets().values())
    address = _request(target, host) if how == "request" else _siege(target, host)
    counted = _settled(target, before)
    egress_ledger.allow("wrong", counted)
    captured = sum(leak_capture.packets().values()) - seen
    assert counted > 0, f"packets from {address} moved no counter"
    assert captured == counted, f"{counted} packets counted, {captured} captured"
    assert address not in checks.approved_addresses(target), f"{host} itself goes out by an exit: {address}"
    measure(how=how, address=address, packets=counted, captured=captured)


def _settled(target: Target, before: dict[str, int]) -> int:
    """Packets counted as wrong when no more of them come: a connection's last words are under way for a moment."""
    readings: list[int] = []

    def read() -> list[int]:
        readings.append(difference(before, target.internet.counters()).get("wrong", 0))
        return readings

    eventually(
        "the last packet sent on purpose has arrived",
        read,
        lambda seen: len(seen) > 1 and seen[-1] == seen[-2],
        within=WINDOW * 2,
        record=target.record,
        every=1.0,
    ).known()
    return readings[-1]


def _request(target: Target, host: str) -> str:
    url = _echo(target)
    answer = target.hosts.run(host, ["curl", "-sS", "-m", "5", url], timeout=10.0)
    if answer.returncode != 0:
        raise Unknown(f"request from {host}", answer.stderr.strip()[:200], f"an answer of {url}")
    return answer.stdout.strip()


def _siege(target: Target, host: str) -> str:
    """The tries that the cases below make from an allocation, made from the node's own namespace."""
    web = egress.watch_environment(target).get("TS_EGRESS_CHECK_WS_URL", "")
    attack = Siege(target.hosts, host, target.record)
    attack.start(1, siege.ends(_echo(target), web), seconds=30.0, device="")
    found = attack.stop()
    for way in ("tcp", "lingering", "websocket", "dns", "udp"):
        if found.stopped(way):
            raise Unknown(f"tries of {way} from {host}", found.brief()[way], "all of them on their way")
    if len(found.saw) != 1:
        raise Unknown(f"tries from {host}", f"the echo saw {list(found.saw)}", "one address")
    return found.saw[0]


@pytest.mark.parametrize(
    "moment", ["before", pytest.param("after", marks=pytest.mark.disruptive)], ids=["before", "after"]
)
@pytest.mark.rule("T3.1")
def test_worker_goes_out_by_an_approved_exit_only(
    target: Target,
    egress_ledger: EgressLedger,
    leak_capture: Capture,
    working: Ready,
    measure: Measure,
    moment: str,
) -> None:
    """Repeats, when the blocking tests are over, that the worker runs and its packets leave by an exit."""
    one = working()
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
        captured=leak_capture.packets(),
        sent_on_purpose=egress_ledger.deliberate,
    )


# -- starts that must be refused ---------------------------------------------------------------------------


def _first(target: Target) -> Exit:
    """The exit configured first. Raises Unknown when the tailnet does not know it."""
    address = str(target.deploy.variables().get(names.EXIT_PRIMARY_VARIABLE, ""))
    for one in target.tailnet.exits():
        if one.tailnet == address:
            return one
    raise Unknown("the first exit", f"{address or 'none'} is not approved", "an approved exit")


def _one_exit(target: Target, **more: object) -> dict[str, object]:
    """One exit alone, right in itself: whatever is done to it leaves nothing to fall back on."""
    one = _first(target)
    return {
        names.EXIT_PRIMARY_VARIABLE: one.tailnet,
        names.EXIT_FALLBACKS_VARIABLE: "",
        names.EXPECTED_IPS_VARIABLE: f"{one.tailnet}={one.public}",
        names.WAIT_VARIABLE: str(QUICK),
        **more,
    }


def _silent_exit(target: Target) -> dict[str, object]:
    """One exit alone, with less patience for its silence."""
    return _one_exit(
        target,
        ts_probe_timeout_seconds="1",
        guard_env={"TS_SELECT_TRIES": "2"},
        **{names.WAIT_VARIABLE: str(SLOW)},
    )


def _exit_that_is_none(primary: str) -> Callable[[Target], dict[str, object]]:
    # Addresses stay right and shared, so that the exit is all that is wrong.
    return lambda target: {
        names.EXIT_PRIMARY_VARIABLE: primary,
        names.EXIT_FALLBACKS_VARIABLE: "",
        names.EXPECTED_IPS_VARIABLE: ",".join(sorted(checks.approved_addresses(target))),
        names.WAIT_VARIABLE: str(QUICK),
    }


def _expecting(addresses: str, **more: object) -> Callable[[Target], dict[str, object]]:
    return lambda target: {names.EXPECTED_IPS_VARIABLE: addresses, names.WAIT_VARIABLE: str(QUICK), **more}


def _own_address(target: Target) -> dict[str, object]:
    """What the exits show is said to be the node's own, and is not what they should show."""
    shown = ",".join(sorted(checks.approved_addresses(target)))
    return _expecting(WRONG_ADDRESS, ts_node_addresses=shown)(target)


def _fresh(target: Target, **more: str) -> dict[str, object]:
    """A node without state has to log in; under a name of its own, and gone with its allocation."""
    environment = {"TS_STATE_DIR": "/local/ts-state", "TS_HOSTNAME": FRESH_NODE, **more}
    return {names.WAIT_VARIABLE: str(QUICK), names.GUARD_ENV_VARIABLE: environment}


def _key(state: KeyState) -> Callable[[Target], Mutation]:
    """The spec with a key in this state where it would read the variable."""
    return lambda target: hcl.replace_in(
        'task "tailscale"',
        r"\{\{- if nomadVarExists .*\{\{ end -\}\}",
        target.tailnet.auth_key(state),
    )


def _without_rights(target: Target) -> Mutation:
    """A kill switch task that may not touch the kernel's tables."""
    return hcl.replace_in('task "killswitch"', r'cap_add(\s*)=(\s*)\["net_admin"\]', r"cap_add\1=\2[]")


def _the(target: Target, role: str) -> str:
    """The one piece of equipment in this role. Raises Unknown without one."""
    found = target.hosts.names(role)
    if len(found) != 1:
        raise Unknown(f"host in the role {role}", f"{found}", "one")
    return found[0]


def _unapproved(target: Target) -> list[Fault]:
    host, cli = target.tailnet.cli()
    return [ExitUnapproved(host, _first(target).name, cli, at_most=LIFETIME)]


def _cut(kind: type[LinkCut]) -> Callable[[Target], list[Fault]]:
    return lambda target: [kind(_first(target).name, egress.far_addresses(target), at_most=LIFETIME)]


def _no_websocket(target: Target) -> list[Fault]:
    return [
        NoWebSocket(
            _first(target).name,
            egress.far_addresses(target),
            paths=egress.websocket_paths(target),
            at_most=LIFETIME,
        )
    ]


def _held_down(target: Target) -> list[Fault]:
    return [
        TaskHeldDown(host, names.TAILSCALE_TASK, at_most=LIFETIME) for host in target.hosts.names("egress")
    ]


def _approved(target: Target) -> tuple[str, ...]:
    return tuple(f"Observed egress IP {one} " for one in sorted(checks.approved_addresses(target)))


SILENCE = ("Could not determine egress public IP",)
LIST = names.EXPECTED_IPS_VARIABLE.upper()

REFUSALS = (
    # The reason must name what was seen: the address of an exit that was really tried.
    Refusal("wrong-address", "T3.2", 18, _approved, _expecting(WRONG_ADDRESS), by_exit=True),
    Refusal("unknown-exit-name", "T3.3", 15, (NO_SUCH_EXIT,), _exit_that_is_none(NO_SUCH_EXIT)),
    Refusal("unknown-exit-address", "T3.3", 15, (NO_SUCH_ADDRESS,), _exit_that_is_none(NO_SUCH_ADDRESS)),
    Refusal("exit-not-approved", "T3.6", 16, ("not advertising",), _one_exit, faults=_unapproved),
    Refusal(
        "exit-down", "T3.7", 17, SILENCE, _silent_exit,
        faults=lambda target: [ProcessKill(_first(target).name, "tailscaled", at_most=LIFETIME)],
    ),
    Refusal("exit-without-internet", "T3.8", 17, SILENCE, _silent_exit, faults=_cut(LinkCut)),
    Refusal("own-address", "T3.9", 19, ("the node's own",), _own_address, by_exit=True),
    Refusal("address-list-empty", "T3.10", 10, (LIST,), _expecting(""), waits=False),
    Refusal("address-list-malformed", "T3.10", 11, (LIST,), _expecting("203.0.113.300"), waits=False),
    Refusal(
        "address-list-of-another-exit", "T3.10", 11, ("is not configured",),
        _expecting(f"{NO_SUCH_ADDRESS}={WRONG_ADDRESS}"), waits=False,
    ),
    Refusal(
        "control-plane-hangs", "T3.11", 14, ("login failed: timeout", "login failed: context deadline"),
        lambda target: _fresh(target, TS_UP_TIMEOUT_SECONDS="3"), _key("good"),
        lambda target: [ProcessFreeze(_the(target, "control"), "headscale", at_most=60.0)],
    ),
    Refusal("key-unknown", "T3.12", 14, ("not found", "invalid key"), _fresh, _key("unknown")),
    Refusal("key-expired", "T3.12", 14, ("expired",), _fresh, _key("expired")),
    Refusal("key-used", "T3.12", 14, ("already",), _fresh, _key("used")),
    Refusal(
        "sidecar-killed-before", "T3.13", 13, ("tailscaled is not ready", "tailscaled did not become ready"),
        lambda target: {names.WAIT_VARIABLE: str(QUICK), "restart_attempts": 60}, faults=_held_down,
        restarts=names.TAILSCALE_TASK,
    ),
    Refusal(
        "echo-down", "T3.14", 17, SILENCE, _silent_exit,
        faults=lambda target: [ProcessKill(_the(target, "internet"), "ip-echo", port=80, at_most=LIFETIME)],
    ),
    Refusal(
        "echo-lying", "T3.14", 18, (WRONG_ADDRESS,), _one_exit, by_exit=True,
        faults=lambda target: [EchoLie(_the(target, "internet"), WRONG_ADDRESS, at_most=LIFETIME)],
    ),
    Refusal(
        "ipv6-only", "T3.15", 11, ("malformed probe URL",),
        lambda target: {names.CHECK_URLS_VARIABLE: "http://[2001:db8::80]/"},
        task=names.KILLSWITCH_TASK, waits=False,
    ),
    Refusal("dns-only", "T3.16", 17, SILENCE, _silent_exit, faults=_cut(DnsOnly)),
    Refusal(
        "websocket-elsewhere", "T3.17", 19, ("(WebSocket, ",),
        lambda target: _one_exit(target, ts_node_addresses=WRONG_ADDRESS), by_exit=True,
        faults=lambda target: [EchoLie(_the(target, "internet"), WRONG_ADDRESS, "ws", at_most=LIFETIME)],
    ),
    Refusal("websocket-silent", "T3.17", 17, ("over WebSocket",), _silent_exit, faults=_no_websocket),
    Refusal(
        "kill-switch-not-loaded", "T3.18", 12, ("nft refused the table",), mutate=_without_rights,
        task=names.KILLSWITCH_TASK, waits=False,
    ),
)  # fmt: skip


@pytest.mark.disruptive
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            one,
            id=one.id,
            marks=pytest.mark.rule(one.rule),
        )
        for one in REFUSALS
    ],
)
def test_the_worker_never_starts(
    target: Target,
    direction: Direction,
    faults: Journal,
    egress_ledger: EgressLedger,
    measure: Measure,
    case: Refusal,
) -> None:
    """Deploys the worker with its path wrong in the way the case is named after: it must be refused."""
    measure(**refused(target, direction, faults, egress_ledger, case))


@pytest.mark.disruptive
@pytest.mark.rule("T3.12")
def test_a_good_key_joins(
    target: Target, direction: Direction, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Positive control of the keys: a node without state and with a good key joins, and the worker starts."""
    booked = egress_ledger.since_start()
    begun = time.monotonic()
    result = direction.deploy({**_fresh(target), names.WAIT_VARIABLE: "30"}, _key("good")(target))
    outcome = eventually(
        "the worker of this version runs",
        lambda: [one for one in worker.running(target) if one.job_version == result.version],
        lambda found: len(found) == 1,
        within=deadlines.deployment(target.nomad.job(names.WORKER_JOB)),
        record=target.record,
    )
    one = outcome.proven()[0]
    joined = [str(node["name"]) for node in target.tailnet.nodes()]
    assert any(name.startswith(FRESH_NODE) for name in joined), f"no node {FRESH_NODE} among {sorted(joined)}"
    leaked = egress_ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    measure(started_seconds=round(time.monotonic() - begun, 3), node=one.node_name, forbidden=0)


# -- a worker that runs, and loses its way -----------------------------------------------------------------


def _only_by_exits(target: Target, ledger: EgressLedger, booked: dict[str, int], tries: Attempts) -> None:
    """Not one packet from elsewhere, and not one answer to it."""
    leaked = ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    strange = set(tries.saw) - checks.approved_addresses(target)
    assert not strange, f"the echo saw the worker as {sorted(strange)}"
    if not tries.stopped():
        raise Unknown("tries during the fault", f"none of {tries.total} was stopped", "tries while blocked")


@pytest.mark.disruptive
@pytest.mark.rule("T3.19")
def test_sidecar_killed_while_the_worker_runs(
    target: Target, working: Ready, faults: Journal, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Kills the tailscale container under a running worker: blocked until it is back, in the same allocation."""
    one = working()
    own, booked = egress.settings(target), egress_ledger.since_start()
    job = target.nomad.job(names.WORKER_JOB)
    restarts = one.tasks[names.TAILSCALE_TASK].restarts
    sidecar = egress.container(names.TAILSCALE_TASK, one.id)
    within = deadlines.task_restart(job, names.TAILSCALE_TASK) + own.recovery()
    with egress.besieged(target, one, within + deadlines.MARGIN) as attack:
        struck = time.time()
        with faults.applied(TaskKill(one.node_name, sidecar)):
            eventually(
                "Nomad has started the sidecar again",
                lambda: worker.the_one(target).tasks[names.TAILSCALE_TASK],
                lambda state: state.restarts > restarts and state.running,
                within=deadlines.task_restart(job, names.TAILSCALE_TASK),
                record=target.record,
            ).proven()
        back = _answered_again(target, one, struck, within)
    egress.same_worker(target, one)
    _only_by_exits(target, egress_ledger, booked, attack.tries())
    measure(
        back_seconds=round(back, 3), tries=attack.tries().total, stopped=attack.tries().stopped(), forbidden=0
    )


def _answered_again(target: Target, one: Allocation, since: float, within: float) -> float:
    """Seconds until the exchange has heard the worker anew, from an approved exit."""
    approved = checks.approved_addresses(target)

    def calls() -> list[float]:
        records = target.internet.exchange_records(since)
        return [
            float(record["t"])
            for record in records
            if record.get("kind") == "rest" and record.get("peer") in approved
        ]

    # The guard restarts nothing: a cycle of the worker has to come round.
    cycle = egress.ingest_settings(target).rest_gap(within)
    outcome = eventually(
        "the worker calls the exchange again", calls, bool, within=within + cycle, record=target.record
    )
    found = outcome.proven()
    eventually(
        "an exit is in use", lambda: egress.in_use(target, one), bool, within=within, record=target.record
    ).proven()
    return found[0] - since


@pytest.mark.disruptive
@pytest.mark.rule("T3.20")
def test_frozen_sidecar_stops_the_worker_in_time(
    target: Target, working: Ready, faults: Journal, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Freezes the tailscale container: the gate shuts, the worker is stopped in time, and comes back afterwards."""
    one = working()
    own, booked = egress.settings(target), egress_ledger.since_start()
    sidecar = egress.container(names.TAILSCALE_TASK, one.id)
    with egress.besieged(target, one, own.stopped() + own.detection() + LIFETIME) as attack:
        struck = time.time()
        with faults.applied(AllocFreeze(one.node_name, sidecar, at_most=LIFETIME)):
            # Its own tailscaled has to be asked as well, which costs another two seconds of silence.
            shut = egress.said(target, one, "tailscaled-away", struck, within=own.detection() + 4.0)
            egress.said(target, one, "blocked-stop", struck, within=own.stopped() + deadlines.MARGIN)
            gone = egress.worker_stopped(target, one, struck, within=own.stopped())
        eventually(
            "the worker is back",
            lambda: egress.workers_at(target, one),
            lambda found: found == 1,
            within=own.recovery()
            + deadlines.task_restart(target.nomad.job(names.WORKER_JOB), names.WORKER_TASK),
            record=target.record,
        ).proven()
    egress.same_worker(target, one)
    _only_by_exits(target, egress_ledger, booked, attack.tries())
    stopped = gone - struck
    assert stopped <= own.stopped(), (
        f"the worker went on for {stopped:.1f} s, allowed are {own.stopped():.1f} s"
    )
    measure(
        detection_seconds=round(shut.t - struck, 3),
        stopped_seconds=round(stopped, 3),
        ceiling_seconds=own.stopped(),
        tries=attack.tries().total,
        refused=attack.tries().stopped(),
        forbidden=0,
    )


@pytest.mark.disruptive
@pytest.mark.rule("T3.21")
def test_exit_cleared_behind_the_guards_back(
    target: Target, working: Ready, faults: Journal, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Clears the selected exit in the worker's namespace: blocked, named, and selected anew by the guard."""
    one = working()
    own, booked = egress.settings(target), egress_ledger.since_start()
    sidecar = egress.container(names.TAILSCALE_TASK, one.id)
    bound = own.detection() + own.switch()
    # A guard that does not see it leaves a worker without a way out, and every later rule undecided.
    repaired = if_red(lambda: egress.replace(target, one))
    with repaired, egress.besieged(target, one, bound + LIFETIME) as attack:
        struck = time.time()
        with faults.applied(ExitCleared(one.node_name, sidecar)):
            lost = egress.said(target, one, "exit-lost", struck, within=own.detection())
            active = egress.said(target, one, "exit-active", lost.t, within=own.switch() + own.recovery())
    egress.same_worker(target, one)
    _only_by_exits(target, egress_ledger, booked, attack.tries())
    assert "no exit node is selected" in lost.why, f"the guard says: {lost.why}"
    measure(
        detection_seconds=round(lost.t - struck, 3),
        switch_seconds=round(active.t - lost.t, 3),
        ceiling_seconds=bound,
        tries=attack.tries().total,
        stopped=attack.tries().stopped(),
        forbidden=0,
    )


@pytest.mark.disruptive
@pytest.mark.rule("T3.22")
def test_kill_switch_flushed_behind_the_guards_back(
    target: Target, working: Ready, faults: Journal, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Deletes the kill switch in the worker's namespace: it is back before anything could leave."""
    one = working()
    own, booked = egress.settings(target), egress_ledger.since_start()
    watch = egress.container(names.WATCH_TASK, one.id)
    # Not by the uplink's name: while there is no kill switch only routes hold, and the worker follows them.
    with egress.besieged(target, one, own.detection() + LIFETIME, device="") as attack:
        struck = time.time()
        with faults.applied(KillSwitchFlushed(one.node_name, watch)):
            missing = egress.said(target, one, "killswitch-missing", struck, within=own.detection())
            eventually(
                "the kill switch is there again",
                lambda: _table(target, one),
                lambda text: "policy drop" in text,
                within=own.detection(),
                record=target.record,
            ).proven()
            eventually(
                "an exit is in use",
                lambda: egress.in_use(target, one),
                bool,
                within=own.recovery(),
                record=target.record,
            ).proven()
    egress.same_worker(target, one)
    leaked = egress_ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    strange = set(attack.tries().saw) - checks.approved_addresses(target)
    assert not strange, f"the echo saw the worker as {sorted(strange)}"
    measure(
        restored_seconds=round(missing.t - struck, 3),
        ceiling_seconds=own.detection(),
        tries=attack.tries().total,
        forbidden=0,
    )


def _table(target: Target, one: Allocation) -> str:
    argv = [
        "nsenter",
        "-n",
        "-t",
        str(egress.namespace(target, one)),
        "nft",
        "list",
        "table",
        "inet",
        "gvfx_ks",
    ]
    return target.hosts.run(one.node_name, argv).stdout


@pytest.mark.disruptive
@pytest.mark.rule("T3.15")
def test_nothing_leaves_by_ipv6(
    target: Target, working: Ready, faults: Journal, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """Gives the worker's namespace IPv6 and a way out by the node: the node must not see one packet."""
    one = working()
    booked = egress_ledger.since_start()
    road = NamespaceIpv6(one.node_name, egress.container(names.WATCH_TASK, one.id), at_most=LIFETIME)
    with faults.applied(road) as open_:
        with egress.besieged(target, one, LIFETIME) as attack:
            eventually(
                "the worker's user has tried IPv6 again and again",
                lambda: attack.tries().tried("ipv6"),
                lambda number: number >= 10,
                within=2 * WINDOW,
                record=target.record,
            ).known()
        seen = open_.seen(faults.control)
        tried = attack.tries().tried("ipv6")
        if not tried or "ENETUNREACH" in attack.tries().counts["ipv6"]:
            raise Unknown(
                "tries by IPv6", attack.tries().brief().get("ipv6", "none"), "tries that had a route"
            )
        assert seen == 0, f"{seen} IPv6 packets of the worker reached the node in {tried} tries"
        open_.send_one(faults.control)
        counted = eventually(
            "the node counts an IPv6 packet that was slipped past the kill switch",
            lambda: open_.seen(faults.control),
            lambda number: number > 0,
            within=WINDOW,
            record=target.record,
        ).known()
    leaked = egress_ledger.forbidden_since(booked)
    assert not leaked, f"packets from addresses that are no exit: {leaked}"
    measure(tries=tried, outcome=attack.tries().brief()["ipv6"], at_the_node=seen, control=counted)


# -- the tailnet stays tidy ---------------------------------------------------------------------------------


def _pinned(node: str) -> Mutation:
    """The spec with one node allowed only."""
    block = f'group "worker" {{\n    constraint {{\n      attribute = "$${{node.unique.name}}"\n      value     = "{node}"\n    }}\n'
    return hcl.replace_in('group "worker"', r'group "worker" \{\n', block.replace("$$", "$"))


@pytest.mark.disruptive
@pytest.mark.rule("T3.23")
def test_tailnet_nodes_do_not_pile_up(
    target: Target, working: Ready, direction: Direction, measure: Measure
) -> None:
    """Moves the worker to and fro between the egress nodes and restarts its sidecar: no new tailnet node."""
    one = working()
    nodes = target.hosts.names("egress")
    if len(nodes) < 2:
        raise Unknown("egress nodes", f"{nodes}", "two to move between")
    job = target.nomad.job(names.WORKER_JOB)
    at = nodes.index(one.node_name)
    # The first move may register the other node for the first time; from then on nothing may come.
    visited: list[str] = []
    counts: list[int] = []
    for step in range(1, MOVES + 1):
        node = nodes[(at + step) % len(nodes)]
        result = direction.deploy({}, _pinned(node))
        eventually(
            f"the worker runs on {node}",
            lambda version=result.version: [  # type: ignore[misc]
                one for one in worker.running(target) if one.job_version == version
            ],
            lambda found, node=node: len(found) == 1 and found[0].node_name == node,  # type: ignore[misc]
            within=deadlines.deployment(job),
            record=target.record,
        ).known()
        visited.append(node)
        counts.append(len(_registered(target)))
    before = _registered(target)
    one = worker.the_one(target)
    restarts = one.tasks[names.TAILSCALE_TASK].restarts
    target.nomad.restart_task(one.id, names.TAILSCALE_TASK)
    eventually(
        "the sidecar runs again and an exit is in use",
        lambda: (worker.the_one(target).tasks[names.TAILSCALE_TASK], egress.in_use(target, one)),
        lambda pair: pair[0].running and pair[0].restarts > restarts and bool(pair[1]),
        within=deadlines.task_restart(job, names.TAILSCALE_TASK) + egress.settings(target).recovery(),
        record=target.record,
    ).known()
    after = _registered(target)
    assert len(set(counts[1:])) == 1, f"registered nodes after each move: {counts}"
    assert before == after, f"registered by a restart: {sorted(after - before)}"
    ours = [name for _, name in after if name.startswith("gvfx-worker-")]
    if not ours:
        raise Unknown(
            "tailnet nodes of the worker", f"none among {len(after)}", "one for each node it visited"
        )
    assert len(ours) <= len(nodes), f"more tailnet nodes than egress nodes: {sorted(ours)}"
    measure(moves=visited, registered=counts, after_restart=len(after), of_the_worker=sorted(ours))


def _registered(target: Target) -> set[tuple[str, str]]:
    return {(str(one["id"]), str(one["name"])) for one in target.tailnet.nodes()}


# -- what holds while all is well ----------------------------------------------------------------------------


@pytest.mark.rule("T3.24")
def test_internal_dependencies_answer_with_an_exit_in_use(
    target: Target, working: Ready, measure: Measure
) -> None:
    """From inside the worker: Convex and the RL service resolve and answer; Consul's check from outside passes."""
    one = working()
    found = inside.dependencies(target.nomad, one.id, names.WORKER_TASK, names.WORKER_ADDRESSES)
    dead = [f"{one.variable} ({one.host}:{one.port}): {one.error}" for one in found if not one.ok]
    assert not dead, f"unreachable from the worker: {dead}"
    # An agent passes its registrations on to Consul's servers a moment after it answered for them itself.
    checked = eventually(
        "the worker's check from outside passes",
        lambda: [seen for seen in target.instances(names.WORKER_JOB) if seen.alloc_id == one.id],
        lambda seen: bool(seen) and all(map(target.passing, seen)),
        within=deadlines.MARGIN,
        record=target.record,
    ).proven()
    exit_ = egress.in_use(target, one)
    measure(
        exit=exit_, dependencies={one.variable: list(one.addresses) for one in found}, checks=len(checked)
    )


@pytest.mark.rule("T3.25")
def test_each_exit_is_held_to_its_own_addresses(target: Target, working: Ready, measure: Measure) -> None:
    """What the watch expects of each exit is what the tailnet's owner says it shows, and of no other."""
    one = working()
    own = egress.settings(target)
    public = {one.tailnet: one.public for one in target.tailnet.exits()}
    wrong = {
        one: sorted(own.expected[one]) for one in own.exits if set(own.expected[one]) != {public.get(one)}
    }
    assert not wrong, f"expected of each exit: {wrong}, they show: {public}"
    active = [one for one in egress.events(target, one) if one.event == "exit-active"]
    loose = [(one.exit, one.want) for one in active if set(one.want.split()) != {public.get(one.exit)}]
    assert not loose, f"proven against more than the exit's own address: {loose}"
    if not active:
        raise Unknown("exits proven by the watch", "none in its log", "at least the one in use")
    measure(exits=len(own.exits), proven=len(active), in_use=active[-1].exit)


@pytest.mark.rule("T3.26")
def test_kill_switch_is_out_of_the_workers_reach(target: Target, working: Ready, measure: Measure) -> None:
    """The worker's process is nobody and can never gain a right over the network, as the kernel says."""
    one = working()
    pattern = target.config.gvfx_worker_pattern
    census = worker_processes(target.hosts, pattern, target.record, [one.node_name])
    if len(census.workers) != 1:
        raise Unknown(f"worker process on {one.node_name}", f"{len(census.workers)} found", "one")
    done = target.hosts.run(one.node_name, ["cat", f"/proc/{census.workers[0].pid}/status"])
    fields = dict(re.findall(r"(?m)^(\w+):\s*(.*)$", done.stdout))
    missing = {*CAPABILITIES, "Uid"} - fields.keys()
    if missing:
        raise Unknown(
            "the worker's status", done.stderr.strip()[:160] or f"nothing of {sorted(missing)}", "all of them"
        )
    held = {
        name: sorted(field for field in CAPABILITIES if int(fields[field], 16) >> bit & 1)
        for name, bit in RIGHTS.items()
    }
    assert not any(held.values()), f"the worker has rights over the network: {held}"
    users = set(fields["Uid"].split())
    assert "0" not in users, f"the worker runs as user {sorted(users)}"
    measure(uid=fields["Uid"].split()[0], bounding=fields["CapBnd"], rights=0)


# -- everybody else ---------------------------------------------------------------------------------------------


@pytest.mark.rule("T3.4")
def test_no_other_task_reaches_the_exchange(
    target: Target, egress_ledger: EgressLedger, measure: Measure
) -> None:
    """From inside every other task, no connection to the exchange or the echo; none in their logs either."""
    ends = _far_ends(target)
    reached: list[str] = []
    nodes: set[str] = set()
    tried = 0
    for job in names.SERVICES:
        running = target.nomad.running(job.id, job.task)
        if not running:
            raise Unknown(f"{job.id}", f"task {job.task} runs nowhere", "a running task to try from")
        for alloc in running:
            control = f"127.0.0.1:{job.port}"
            found = inside.reach(target.nomad, alloc.id, job.task, control, ends)
            tried += len(found)
            nodes.add(alloc.node_name)
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
    measure(
        connections_tried=tried,
        # An app node may have a firewall of its own that keeps its pods in; a node of the worker has none.
        nodes=sorted(nodes),
        ends=len(ends),
        records=len(records),
        strangers=len(strangers),
    )


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
