"""Seeded defects that a drain brings to light: nowhere to go, gone too soon, back too late, not as it was.

Not here, because nothing could see them. A `migrate` block that is left out: Nomad then fills in the very same values.
Both instances of the API on one node: they want one static port. A worker that stays where its node's way out is broken:
its supervisor waits there with every restart mode, and a lock that it holds keeps the other node out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drills.defects.defect import WEAKNESS, Defect, deployed, extra_environment, repeatedly
from drills.defects.egress import with_tool
from fixtures.errors import Refused
from fixtures.target import deadlines, hcl, names
from fixtures.target.capabilities import Mutation
from fixtures.target.change import JobChange, replace_once
from fixtures.target.target import Target

APP_NODE = "test_7 and (app_node or api_is_available)"
"""Tests of a drain of an app node, as pytest's -k."""

KEEPS_THE_LOCK = """
#!/bin/sh
# Everything but giving back.
case "$*" in *"?lock-release&"*) exit 28 ;; esac
exec /usr/bin/curl "$@"
"""

_APP_NODES_PREFERRED = """  affinity {
    attribute = "${node.class}"
    value     = var.app_node_class
    weight    = 80
  }
"""
_APP_NODES_ONLY = """  constraint {
    attribute = "${node.class}"
    value     = var.app_node_class
  }
"""
_PINNED = """group "worker" {
    constraint {
      attribute = "${node.unique.name}"
      value     = "c3"
    }
"""
LATER = 5.0
"""Seconds: longer than it takes to look at what a drain has left."""
_RESTARTS = "delay    = var.restart_delay\n      mode     = "


def _without(header: str) -> Mutation:
    """The spec without the one block of this name."""

    def mutate(text: str) -> str:
        start, end = hcl.block(text, re.escape(header))
        if start == end:
            raise Refused(f"block {header!r}", "empty", "a block")
        return text[:start] + text[end:].lstrip("\n")

    return mutate


@contextmanager
def _stays_closed(target: Target) -> Iterator[None]:
    """A helpful tool closes every node that was drained, as soon as it takes work again."""
    seen: set[str] = set()

    def close() -> None:
        for node in target.nomad.nodes():
            if node.draining:
                seen.add(node.id)
            elif node.id in seen and node.eligibility == "eligible":
                target.nomad.set_eligibility(node.id, eligible=False)

    with repeatedly(close, 1.0):
        yield


def _open_all(target: Target) -> None:
    for node in target.nomad.nodes():
        if node.draining or node.eligibility != "eligible":
            target.nomad.set_eligibility(node.id, eligible=True)


def _other_frontend(target: Target) -> Callable[[], None]:
    """Deploys the frontend with another environment; the second time nothing is new."""
    own = dict(target.deploy.variables().get("frontend_env") or {})

    def deploy() -> None:
        target.deploy.submit(names.FRONTEND.id, variables={"frontend_env": {**own, "GVFX_DEFECT": "drain"}})

    return deploy


@contextmanager
def _redeploys(target: Target) -> Iterator[None]:
    """Another tool deploys the frontend anew whenever it sees a drain."""
    deploy = _other_frontend(target)

    def look() -> None:
        if any(node.draining for node in target.nomad.nodes()):
            deploy()

    with repeatedly(look, 0.5):
        yield


@contextmanager
def _redeploys_later(target: Target) -> Iterator[None]:
    """Another tool deploys the frontend anew a while after it saw a drained node take work again."""
    deploy = _other_frontend(target)
    drained: set[str] = set()
    due: list[float] = []

    def look() -> None:
        for node in target.nomad.nodes():
            if node.draining:
                drained.add(node.id)
            elif not due and node.id in drained and node.eligibility == "eligible":
                due.append(time.monotonic() + LATER)
        if due and time.monotonic() >= due[0]:
            deploy()

    with repeatedly(look, 0.5):
        yield


def _own_frontend(target: Target) -> None:
    if not deployed(target, names.FRONTEND.id):
        return
    target.deploy.submit(names.FRONTEND.id)
    within = deadlines.deployment(target.nomad.job(names.FRONTEND.id))
    target.deploy.wait_healthy(names.FRONTEND.id, within)


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="api-on-app-nodes-only",
        title="the API may run on app nodes only, and there are no more of them than instances",
        mutation="gvfx-api: the affinity to the app class is a constraint",
        why="two nodes hold two instances; drain one of them and its instance has nowhere to go. The other serves on",
        expected_red=frozenset({"T7.1"}),
        jobs={names.API.id: JobChange(mutate=replace_once(_APP_NODES_PREFERRED, _APP_NODES_ONLY))},
    ),
    Defect(
        id="rl-on-app-nodes-only",
        title="the RL service may run on app nodes only",
        mutation="gvfx-rl-service: the affinity to the app class is a constraint",
        why="as with the API; nobody who calls the API notices",
        expected_red=frozenset({"T7.1"}),
        jobs={names.RL.id: JobChange(mutate=replace_once(_APP_NODES_PREFERRED, _APP_NODES_ONLY))},
    ),
    Defect(
        id="api-stops-at-once",
        title="the API stops serving in the moment it leaves Consul",
        mutation="gvfx-api: no shutdown_delay",
        why=(
            "who resolves for each call hardly ever meets it; who uses an answer half a second later is refused until"
            " he asks again"
        ),
        expected_red=frozenset({"T7.2"}),
        jobs={names.API.id: JobChange(mutate=replace_once("    shutdown_delay = var.shutdown_delay\n", ""))},
    ),
    Defect(
        id="api-without-check",
        title="the API is registered without a check",
        mutation="gvfx-api: no check block",
        why="a new instance has the name before it listens; the catalogue shows no check either",
        expected_red=frozenset({"T1.9", "T7.2"}),
        jobs={names.API.id: JobChange(mutate=_without("check"))},
    ),
    Defect(
        id="api-keeps-convex-address",
        title="the API asks for Convex's address once and never again",
        mutation="gvfx-api: stand-in weakness convex-address-kept",
        why=(
            "its health needs no store, and every answer is right until Convex moves; from then on an instance that"
            " stayed has none, in tests of the other endpoints, of users and of the observation as well. Only a drain"
            " is asked, before anything else has moved Convex: a store that is away already is no drain's doing"
        ),
        expected_red=frozenset({"T7.1"}),
        jobs={names.API.id: extra_environment("api_env", **{WEAKNESS: "convex-address-kept"})},
        only=APP_NODE,
    ),
    Defect(
        id="worker-pinned",
        title="the worker may run on one node only",
        mutation="gvfx-worker: a constraint to node c3",
        why=(
            "it starts and restarts; whatever takes that node away leaves it without a place, with another node open"
            " beside it. Where it is sent to the other node on purpose, it never arrives"
        ),
        expected_red=frozenset({"T7.3", "T7.4", "T8.3", "T8.9"}),
        expected_unknown=frozenset({"T3.23"}),
        # How long the node is away in these, and whether the worker is back in time with it, is theirs to say.
        tolerated=frozenset({"T8.4", "T8.5", "T8.6", "T8.7"}),
        jobs={names.WORKER_JOB: JobChange(mutate=replace_once('group "worker" {\n', _PINNED))},
    ),
    Defect(
        id="worker-restarts-for-ever",
        title="a worker that cannot run is tried again on the same node for ever",
        mutation='gvfx-worker: restart mode "delay" for the group',
        why="one restart looks the same in both modes; only a node on which none succeeds shows that it never leaves",
        expected_red=frozenset({"T7.3"}),
        jobs={
            names.WORKER_JOB: JobChange(mutate=replace_once(f'{_RESTARTS}"fail"\n', f'{_RESTARTS}"delay"\n'))
        },
    ),
    Defect(
        id="lock-kept-at-stop",
        title="the watch ends without giving the lock back",
        mutation="gvfx-worker: the watch's curl swallows lock-release",
        why="safe, and slow: the successor waits until the servers free the lock, twice its life and its delay",
        expected_red=frozenset({"T7.3", "T7.4"}),
        # Whether a longer pause still is within what may be lost.
        tolerated=frozenset({"T8.9"}),
        jobs={names.WORKER_JOB: JobChange(mutate=with_tool(names.WATCH_TASK, "GVFX_CURL", KEEPS_THE_LOCK))},
    ),
    Defect(
        id="node-stays-closed",
        title="a node that was drained is closed again by somebody else",
        mutation="a loop beside the run makes every node ineligible that it saw draining",
        why="the drain itself is flawless; with a node closed the next drains cannot be judged",
        expected_red=frozenset({"T7.5"}),
        expected_unknown=frozenset({"T7.3", "T7.4"}),
        during=_stays_closed,
        clean=_open_all,
    ),
    Defect(
        id="deployed-by-a-drain",
        title="a drain makes somebody deploy the frontend anew",
        mutation="a loop beside the run submits gvfx-frontend with another environment while a node drains",
        why="everything runs and answers; the version is another one afterwards",
        expected_red=frozenset({"T7.5"}),
        during=_redeploys,
        clean=_own_frontend,
    ),
    Defect(
        id="deployed-after-a-drain",
        title="somebody deploys the frontend anew a while after a drain",
        mutation=f"a loop beside the run submits gvfx-frontend with another environment {LATER:g} s after a drain",
        why="each drain ends with what it began with, the next one too: only who remembers the first sees the change",
        expected_red=frozenset({"T7.5"}),
        # They may begin, or not, while its instances are replaced.
        tolerated=frozenset({"T7.3", "T7.4"}),
        during=_redeploys_later,
        clean=_own_frontend,
    ),
)
