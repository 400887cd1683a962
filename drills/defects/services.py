"""Seeded defects of the services: rollouts that never succeed, addresses that lead elsewhere, what a green check hides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from drills.defects.defect import NO_REVERT, WEAKNESS, Defect, extra_environment
from fixtures.errors import Unknown
from fixtures.target import names
from fixtures.target.capabilities import Mutation
from fixtures.target.change import JobChange, chain, replace_once
from fixtures.target.target import Target

DRAINED = frozenset({"T7.1", "T7.2"})
"""A node is only drained once Nomad knows everything on it to be healthy: by where an instance happens to be."""
USERS = frozenset({"P4.1", "P4.3", "T1.6", "T1.11"})
"""What calls the API through the frontend; the rollback brings its users back that way."""
ONE_API = "http://c1.node.consul:8787"
"""The API's port of one app node, under the node's own name."""

# Nomad gives a rollout 60 s by the rehearsal's settings: nothing has run for 59.9 s by then.
_NEVER_LONG_ENOUGH = replace_once(
    "    min_healthy_time  = var.min_healthy_time\n", '    min_healthy_time  = "59.9s"\n'
)
_AT_ITS_ALLOCATION = replace_once(
    '      name     = "gvfx-frontend"\n',
    '      name         = "gvfx-frontend"\n      address_mode = "alloc"\n',
)
_VERSION = r"(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$"
_MOVING = replace_once(
    "image      = var.frontend_image\n",
    f'image      = regex_replace(var.frontend_image, "{_VERSION}", ":stable")\n',
)
PULL = 120.0


def _rollout_fails(job: names.Job, *rules: str) -> Defect:
    """A job that must be healthy for longer than its deadline leaves it: it stands, and its rollout has failed."""
    mutate: Mutation = (
        chain(NO_REVERT, _NEVER_LONG_ENOUGH) if job in names.APP_SERVICES else _NEVER_LONG_ENOUGH
    )
    return Defect(
        id=f"{job.id.removeprefix('gvfx-')}-never-long-enough",
        title=f"{job.id} must be healthy for longer than its deadline leaves it",
        mutation=f"{job.id}: min_healthy_time 59.9s of update, below a healthy_deadline of 60s",
        why="every instance runs and passes its checks; the rollout has failed, and the next node that dies finds out",
        expected_red=frozenset(rules),
        tolerated=DRAINED,
        jobs={job.id: JobChange(mutate=mutate)},
    )


def _library_missing(own: Mapping[str, Any]) -> Mapping[str, Any]:
    weak = extra_environment("rl_service_env", **{WEAKNESS: "rl-ml-missing"}).override
    return {**(weak(own) if weak else {}), "rl_health_require_ml": "false"}


def _docker(target: Target, node: str, *words: str) -> None:
    done = target.hosts.run(node, ["docker", *words], timeout=PULL)
    if done.returncode != 0:
        raise Unknown(f"docker {words[0]} on {node}", done.stderr.strip()[-160:], "exit 0")


@contextmanager
def _moving_tag(target: Target) -> Iterator[None]:
    """Every node has the frontend's image under a tag that can move: the registry takes none."""
    image, moving, nodes = _images(target)
    try:
        for node in nodes:
            _docker(target, node, "pull", "-q", image)
            _docker(target, node, "tag", image, moving)
        yield
    finally:
        _no_moving_tag(target)


def _images(target: Target) -> tuple[str, str, list[str]]:
    """The frontend's image, its name by the tag that can move, and the nodes that have it."""
    image = str(target.deploy.variables()["frontend_image"])
    nodes = [*target.hosts.names("app"), *target.hosts.names("egress")]
    return image, re.sub(_VERSION, ":stable", image), nodes


def _no_moving_tag(target: Target) -> None:
    _, moving, nodes = _images(target)
    for node in nodes:
        # A tag that is left behind is no trouble to anybody.
        target.hosts.run(node, ["docker", "rmi", moving])


DEFECTS: tuple[Defect, ...] = (
    _rollout_fails(names.POSTGRES, "P1.1"),
    _rollout_fails(names.OBJECTSTORE, "P1.2"),
    # A restore is only tried on a Convex that was deployed well.
    _rollout_fails(names.CONVEX, "P1.3", "T5.6"),
    _rollout_fails(names.RL, "P2.1"),
    _rollout_fails(names.FRONTEND, "P2.3"),
    Defect(
        id="browser-calls-itself",
        title="the frontend gives browsers an address of the machine it was developed on",
        mutation="gvfx-frontend: NEXT_PUBLIC_API_BASE_URL http://127.0.0.1:3000",
        why="something answers there, and calls through the proxy go the other way; a browser finds only itself",
        expected_red=frozenset({"P2.4"}),
        jobs={
            names.FRONTEND.id: extra_environment(
                "frontend_env", NEXT_PUBLIC_API_BASE_URL="http://127.0.0.1:3000"
            )
        },
    ),
    Defect(
        id="rl-address-of-postgres",
        title="the API is given the database's address where the RL service's belongs",
        mutation="gvfx-api: RL_SERVICE_URL names gvfx-postgres.service.consul:5432",
        why="the name is a Consul name, it resolves, and the port is open: only a request shows who is there",
        expected_red=frozenset({"T1.8"}),
        jobs={
            names.API.id: extra_environment(
                "api_env", RL_SERVICE_URL="http://gvfx-postgres.service.consul:5432"
            )
        },
    ),
    Defect(
        id="rl-library-missing",
        title="the RL service lacks a library and is told not to mind",
        mutation="gvfx-rl-service: stand-in weakness rl-ml-missing, RL_HEALTH_REQUIRE_ML false",
        why="it answers 200 and says ok; its own list says what it cannot do",
        expected_red=frozenset({"T1.5"}),
        jobs={names.RL.id: JobChange(override=_library_missing)},
    ),
    Defect(
        id="frontend-without-token",
        title="the frontend calls the API without its token",
        mutation="gvfx-frontend: stand-in weakness frontend-no-token",
        why="its page is served and its check passes; every call through it is answered with 401",
        expected_red=USERS,
        jobs={names.FRONTEND.id: extra_environment("frontend_env", **{WEAKNESS: "frontend-no-token"})},
    ),
    Defect(
        id="frontend-calls-one-node",
        title="every frontend calls the API of one node, past its service",
        mutation=f"gvfx-frontend: API_BASE_URL {ONE_API}",
        why=(
            "it knows the token and answers with what stands in the store, as an API outside Nomad could: only the"
            " address that was asked tells. Users and the rollback's way back look at it as well"
        ),
        expected_red=USERS - {"T1.11"},
        # Drains of earlier lines may have left no API on that node: then no call is answered at all.
        tolerated=frozenset({"T1.11"}),
        jobs={names.FRONTEND.id: extra_environment("frontend_env", API_BASE_URL=ONE_API)},
    ),
    Defect(
        id="frontend-registered-by-allocation",
        title="the frontend is registered at the addresses of its allocations",
        mutation='gvfx-frontend: address_mode "alloc" of its service',
        why="it runs, and its check, made on its node, passes; nobody on another machine can go there",
        expected_red=USERS | {"P2.3", "T1.14"},
        # That nobody outside gets in proves nothing where nobody inside does.
        expected_unknown=frozenset({"T1.12"}),
        jobs={names.FRONTEND.id: JobChange(mutate=_AT_ITS_ALLOCATION)},
    ),
    Defect(
        id="frontend-image-can-move",
        title="the frontend's image is named by a tag that can move",
        mutation="gvfx-frontend: its image by the tag stable; every node has it under that tag",
        why="today it is the very same image",
        expected_red=frozenset({"T2.8"}),
        jobs={names.FRONTEND.id: JobChange(mutate=_MOVING)},
        during=_moving_tag,
        clean=_no_moving_tag,
    ),
    Defect(
        id="worker-scales-to-two",
        title="the worker may be scaled to two",
        mutation="gvfx-worker: max = 2 in its scaling block",
        why="one runs; the second is one request away",
        expected_red=frozenset({"T2.6"}),
        jobs={names.WORKER_JOB: JobChange(mutate=replace_once("      max     = 1\n", "      max     = 2\n"))},
    ),
)
