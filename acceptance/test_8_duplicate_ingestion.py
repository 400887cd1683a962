"""Acceptance test 8: whatever happens to the worker, no window is ingested twice, lost or left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.faults import HostDown, HostFreeze, Journal, LinkCut, PortsCut, ProcessKill, TaskKill
from fixtures.pytest_judged import Judged
from fixtures.rollout import egress, takeover, windows
from fixtures.rollout.takeover import Case, Scene
from fixtures.rollout.windows import WindowWatch
from fixtures.target import names
from fixtures.target.egress import THAWED
from fixtures.target.target import Target

pytestmark = pytest.mark.usefixtures("phase3")

Measure = Callable[..., None]
LIFETIME = 480.0
"""Seconds after which a fault here ends by itself, whatever becomes of the suite: takeover, run timeout and margins."""
NOMAD, TAILSCALED = "nomad", "tailscaled"
NOMAD_PORTS = tuple(names.AGENT_PORTS[f"nomad {name}"] for name in ("http", "rpc", "serf"))


def _servers(target: Target) -> tuple[str, ...]:
    """Where the servers' agents answer: on the tailnet, where the hosts are on one."""
    hosts = target.hosts
    servers = [*hosts.names("server"), *hosts.names("witness")]
    return tuple(hosts.tailnet_address(one) or hosts.underlay_address(one) for one in servers)


def _from_servers(scene: Scene) -> PortsCut:
    """Nomad's ports on the servers are gone for the node; Consul's on the same machines are not.

    So the zombie keeps everything it needs to write: names, the store, the exits. It even keeps its own way to the
    servers, which its watch asks when the agent hangs: that leads by the allocation's own tailnet device.
    """
    return PortsCut(scene.node, _servers(scene.target), ports=NOMAD_PORTS, at_most=LIFETIME)


def _primary(scene: Scene) -> str:
    target = scene.target
    return egress.exits_in_order(target, egress.settings(target))[0].name


def _on_primary(scene: Scene) -> None:
    egress.primary_in_use(scene.target, scene.faults, scene.one, egress.settings(scene.target))


def _worker_killed(scene: Scene) -> TaskKill:
    return TaskKill(scene.node, egress.container(names.WORKER_TASK, scene.one.id))


CASES = (
    Case("restart", "T8.1", takeover.restart, "restarted", takeover.restarted, killed=False, stands=False),
    Case("sigkill", "T8.2", takeover.fault(_worker_killed), "restarted", takeover.restarted, stands=False),
    Case(
        "node-loss", "T8.3", takeover.away(lambda scene: HostDown(scene.node), resumes=False),
        "moved", takeover.lost_node,
    ),
    Case(
        "node-freeze", "T8.4", takeover.away(lambda scene: HostFreeze(scene.node), resumes=True),
        "moved", takeover.lost_node,
        # Seen, with every gate shut: at the exchange and in the run log nothing is allowed.
        allowed={"processes": THAWED, "tasks": THAWED},
    ),
    Case(
        "cut-from-servers", "T8.5", takeover.fault(_from_servers), "moved", takeover.lost_node, zombie=True
    ),
    Case(
        "partition", "T8.6", takeover.fault(lambda scene: LinkCut(scene.node, at_most=LIFETIME)),
        "moved", takeover.lost_node, zombie=True,
    ),
    Case(
        "agent-killed", "T8.7", takeover.fault(lambda scene: ProcessKill(scene.node, NOMAD, at_most=LIFETIME)),
        "moved", takeover.lost_node, zombie=True,
    ),
    Case(
        "exit-failover", "T8.8",
        takeover.fault(lambda scene: ProcessKill(_primary(scene), TAILSCALED, at_most=LIFETIME)),
        "continued", takeover.next_exit, killed=False, prepare=_on_primary,
    ),
    Case("drain", "T8.9", takeover.drain, "moved", takeover.handed_over, killed=False, stands=False),
)  # fmt: skip


@pytest.mark.disruptive
@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.id, marks=pytest.mark.rule(one.rule)) for one in CASES]
)
def test_every_window_is_ingested_once(
    target: Target,
    faults: Journal,
    window_watch: WindowWatch,
    judged: Judged,
    measure: Measure,
    case: Case,
) -> None:
    """Strikes the worker in the middle of a cycle, in the way the case is named after, heals, and judges the span."""
    measure(**takeover.across(target, faults, window_watch, judged, case))


@pytest.mark.rule("T8.10")
def test_no_window_was_ingested_twice_in_the_whole_run(
    target: Target, window_watch: WindowWatch, judged: Judged, measure: Measure
) -> None:
    """Everything recorded since before the cutover, refused starts included: only what is lost has no bound here."""
    one = takeover.rested(target)
    own, since = windows.settings(target), window_watch.started
    within = own.run_timeout + own.steady()
    takeover.ingesting(target, window_watch, "in this run", lambda: since, within).known()
    until = window_watch.flush(since)
    takeover.lock_is_with(target, one)
    judged(
        takeover.window_terms(own, since, until, until - since + own.period),
        takeover.singleton_terms(
            since, until, {"processes": THAWED, "tasks": THAWED} if window_watch.thawed else {}
        ),
        since=window_watch.mono,
    )
    measure(
        seconds=round(until - since, 1),
        closest_cycles_seconds=window_watch.closest_cycles(since),
        clock_error_s=round(window_watch.clock_error_s, 3),
        coarsest_look_s=round(window_watch.coarsest_look_s, 3),
    )
