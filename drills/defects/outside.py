"""Seeded defects at the cluster's edge: who is let in, who gets out, and whether anybody would notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from drills.defects.defect import Defect, During
from fixtures.errors import UndoError, Unknown
from fixtures.observe.eventually import eventually
from fixtures.observe.reachability import reachable
from fixtures.target import hcl, names
from fixtures.target.change import JobChange, Override
from fixtures.target.target import Target

PREFLIGHT_FAILED = frozenset({"P3.2", "P3.3", "P3.4", "P4.2", "P4.3"})
"""Rules about what the rollout does after the preflight, which is a gate."""
DOCKER = names.AGENT_PORTS["docker"]
EXPORTER = 9256
"""A port of no job and no agent."""
OPENS_WITHIN = 10.0
Chain: TypeAlias = tuple[str, str, str]
ARRIVING: Chain = ("inet", "gvfx_host", "arriving")
SEEN: Chain = ("ip", "gvfx_seen", "who")

# $1 family, $2 table, $3 chain; the rest is the rule.
_INSERT = 'f=$1 t=$2 c=$3; shift 3; nft insert rule "$f" "$t" "$c" "$@" comment gvfx-defect'
REMOVE = """
nft -a list chain "$1" "$2" "$3" | sed -n '/gvfx-defect/s/.*# handle \\([0-9]*\\)$/\\1/p' | while read -r handle; do
  nft delete rule "$1" "$2" "$3" handle "$handle"
done
! nft list chain "$1" "$2" "$3" | grep -q gvfx-defect
"""
_LISTEN = """
mkdir -p /run/gvfx-defect.d && cd /run/gvfx-defect.d || exit 1
setsid python3 -m http.server "$2" --bind "$1" >/dev/null 2>&1 </dev/null &
echo $! >/run/gvfx-defect.pid
"""
_SILENCE = "kill $(cat /run/gvfx-defect.pid) 2>/dev/null; rm -rf /run/gvfx-defect.pid /run/gvfx-defect.d"


@contextmanager
def _first_rule(target: Target, host: str, chain: Chain, *rule: str) -> Iterator[None]:
    """A rule before all others of a chain that stands on a host."""
    try:
        done = target.hosts.run(host, ["sh", "-c", _INSERT, "sh", *chain, *rule])
        if done.returncode != 0:
            raise Unknown(f"rule on {host}", done.stderr.strip()[-160:], "an inserted one")
        yield
    finally:
        _own_rules(target, host, chain)


def _own_rules(target: Target, host: str, chain: Chain) -> None:
    """No rule of a defect in a chain. Raises UndoError."""
    done = target.hosts.run(host, ["sh", "-c", REMOVE, "sh", *chain])
    if done.returncode != 0:
        raise UndoError(f"rule on {host}", done.stderr.strip()[-160:], "removed")


def _nothing_on_the_underlay(target: Target) -> None:
    host = target.hosts.names("app")[0]
    target.hosts.run(host, ["sh", "-c", _SILENCE])
    _own_rules(target, host, ARRIVING)


def _counter_sees(target: Target) -> None:
    (host,) = target.hosts.names("internet")
    _own_rules(target, host, SEEN)


def _on_the_underlay(port: int) -> During:
    """Something answers at a port of the first app node below the tailnet, and the host's firewall lets it."""

    @contextmanager
    def during(target: Target) -> Iterator[None]:
        host, outsider = target.hosts.names("app")[0], target.hosts.names("outsider")[0]
        end = (target.hosts.underlay_address(host), port)
        with _first_rule(target, host, ARRIVING, "tcp", "dport", str(port), "accept"):
            try:
                target.hosts.run(host, ["sh", "-c", _LISTEN, "sh", end[0], str(port)])
                eventually(
                    f"{outsider} reaches {host}:{port}",
                    lambda: reachable(target.hosts, outsider, {end}, target.record),
                    bool,
                    within=OPENS_WITHIN,
                    record=target.record,
                ).known()
                yield
            finally:
                target.hosts.run(host, ["sh", "-c", _SILENCE])

    return during


@contextmanager
def _counter_is_blind(target: Target) -> Iterator[None]:
    """The far end passes packets from the wrong address by its counter."""
    (host,) = target.hosts.names("internet")
    wrong = next(address for address, name in target.internet.sources().items() if name == "wrong")
    with _first_rule(target, host, SEEN, "ip", "saddr", wrong, "return"):
        yield


def _on_egress_nodes(**more: object) -> Override:
    """Nodes without a firewall that would keep its pods in."""
    return lambda own: {"app_node_class": "egress-worker", **more}


def swapped(own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Each exit is expected to show what the next one shows."""
    exits, shown = zip(
        *(entry.split("=", 1) for entry in str(own[names.EXPECTED_IPS_VARIABLE]).split(",")), strict=True
    )
    turned = (*shown[1:], shown[0])
    pairs = zip(exits, turned, strict=True)
    return {names.EXPECTED_IPS_VARIABLE: ",".join(f"{exit_}={address}" for exit_, address in pairs)}


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="preflight-expects-others",
        title="the preflight is given the exits' addresses in the wrong order",
        mutation="gvfx-worker-egress-check: the addresses in ts_egress_expected_ips are swapped",
        why="the worker's own list is right, and it works; the gate before it must not be passed",
        expected_red=frozenset({"P3.1"}),
        expected_unknown=PREFLIGHT_FAILED,
        jobs={names.EGRESS_CHECK_JOB: JobChange(override=swapped)},
    ),
    Defect(
        id="docker-on-the-underlay",
        title="an app node answers at Docker's port on the network below the tailnet",
        mutation=f"first app node: a listener at its underlay address, port {DOCKER}; its firewall lets it",
        why="nobody in the cluster goes there; anybody outside it can",
        expected_red=frozenset({"P0.7", "T1.12"}),
        during=_on_the_underlay(DOCKER),
        clean=_nothing_on_the_underlay,
    ),
    Defect(
        id="exporter-on-the-underlay",
        title="an exporter of metrics that nobody planned answers on the network below the tailnet",
        mutation=f"first app node: a listener at its underlay address, port {EXPORTER}; its firewall lets it",
        why="no list of ours has its port, and nobody registered it: only the host itself knows that it listens",
        expected_red=frozenset({"P0.7", "T1.12"}),
        during=_on_the_underlay(EXPORTER),
        clean=_nothing_on_the_underlay,
    ),
    Defect(
        id="frontend-on-egress-nodes",
        title="the frontend runs on the nodes of the worker, without its fence",
        mutation="gvfx-frontend: app_node_class egress-worker; task fence runs true",
        why=(
            "it is healthy and has two nodes; those have a way to the internet, and only the worker's namespace a kill"
            " switch. The tries that show it are packets from the wrong address themselves"
        ),
        expected_red=frozenset({"T3.1", "T3.4"}),
        jobs={
            names.FRONTEND.id: JobChange(
                mutate=hcl.task_command(names.FENCE_TASK, ["/bin/sh", "-c", "true"]),
                override=_on_egress_nodes(),
            ),
        },
    ),
    Defect(
        id="fence-lets-all-out",
        title="the frontend's fence stands and lets everything out",
        mutation="gvfx-frontend: fence_allowed_cidrs 0.0.0.0/0, app_node_class egress-worker",
        why=(
            "its task succeeds and the table is in the kernel, right in every rule but for one set: only a try from"
            " inside tells, and only on a node without a firewall of its own"
        ),
        expected_red=frozenset({"T3.1", "T3.4"}),
        jobs={
            names.FRONTEND.id: JobChange(override=_on_egress_nodes(fence_allowed_cidrs="0.0.0.0/0")),
        },
    ),
    Defect(
        id="far-end-blind",
        title="the far end does not count what comes from the wrong address",
        mutation="internet: a rule before its counters passes packets of the gateway's address by",
        why="zero is what a stack without leaks shows as well: only a packet sent on purpose tells the two apart",
        expected_red=frozenset({"T3.5"}),
        during=_counter_is_blind,
        clean=_counter_sees,
    ),
)
