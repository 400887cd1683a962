"""Where jobs may run: never on the witness, the worker on its own class only, state where its volume is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.deploy.spec import JOBS, README, Expression, Spec, labelled, mutated, spec


@dataclass(frozen=True)
class Node:
    """What a constraint can look at."""

    name: str
    node_class: str
    meta: dict[str, str] = field(default_factory=dict)
    volumes: frozenset[str] = frozenset()

    def attribute(self, name: str) -> str | None:
        """Value of `${node.class}`, `${meta.x}`; None if the node has none."""
        key = name.removeprefix("${").removesuffix("}")
        if key == "node.class":
            return self.node_class
        if key.startswith("meta."):
            return self.meta.get(key.removeprefix("meta."))
        raise AssertionError(f"no rule for the attribute {name}")


WITNESS = {"role": "witness"}
EVERY_VOLUME = frozenset({"gvfx-postgres", "gvfx-objectstore", "gvfx-tailscale"})
NODES = [
    Node("app-1", "app", volumes=EVERY_VOLUME),
    Node("app-2", "app"),
    Node("egress-1", "egress-worker", volumes=EVERY_VOLUME),
    Node("egress-2", "egress-worker", volumes=EVERY_VOLUME),
    # A witness that is everything else a job could ask for.
    Node("witness-app", "app", WITNESS, EVERY_VOLUME),
    Node("witness-egress", "egress-worker", WITNESS, EVERY_VOLUME),
    Node("unclassed", "", volumes=EVERY_VOLUME),
]


def satisfied(constraint: dict[str, Any], node: Node, one: Spec) -> bool:
    """Nomad's rule for one constraint; a missing attribute differs from every value."""
    if constraint.get("operator") == "distinct_hosts":
        return True
    value = one.value(constraint["value"])
    assert not isinstance(value, Expression)
    have = node.attribute(constraint["attribute"])
    match constraint.get("operator", "="):
        case "=" | "==" | "is":
            return bool(have == value)
        case "!=" | "not":
            return bool(have != value)
        case other:
            raise AssertionError(f"no rule for the operator {other}")


def eligible(one: Spec) -> set[str]:
    """Names of the nodes on which the job's group may be placed."""
    blocks = [one.job, one.group, *(task.body for task in one.tasks.values())]
    constraints = [constraint for block in blocks for constraint in block.get("constraint", [])]
    volumes = {one.value(body["source"]) for body in labelled(one.group, "volume").values()}
    return {
        node.name
        for node in NODES
        if volumes <= node.volumes and all(satisfied(constraint, node, one) for constraint in constraints)
    }


ANYWHERE = {"app-1", "app-2", "egress-1", "egress-2", "unclassed"}
PLACES = {
    "gvfx-api": ANYWHERE,
    "gvfx-frontend": ANYWHERE,
    "gvfx-rl-service": ANYWHERE,
    "gvfx-convex": ANYWHERE,
    "gvfx-postgres-backup": ANYWHERE,
    "gvfx-postgres": ANYWHERE - {"app-2"},
    "gvfx-objectstore": ANYWHERE - {"app-2"},
    "gvfx-worker": {"egress-1", "egress-2"},
    "gvfx-worker-egress-check": {"egress-1", "egress-2"},
}


@pytest.mark.parametrize("job", JOBS)
def test_eligible_nodes(job: str) -> None:
    """Exactly these of a cluster with two of each kind and witnesses that would fit otherwise."""
    assert eligible(spec(job)) == PLACES[job]


@pytest.mark.parametrize("job", JOBS)
def test_never_the_witness(job: str) -> None:
    """Even where class and volumes fit; the constraint stands on the job, so every group has it."""
    assert not [name for name in eligible(spec(job)) if name.startswith("witness")]
    assert {"attribute": "${meta.role}", "operator": "!=", "value": "witness"} in spec(job).job["constraint"]


def test_a_witness_that_is_let_in_is_seen() -> None:
    """The wrong key, the wrong operator, the wrong value."""
    for old, new in (("${meta.role}", "${meta.kind}"), ('"!="', '"="'), ('"witness"', '"Witness"')):
        assert eligible(mutated("gvfx-worker", old, new)) != PLACES["gvfx-worker"]


def test_a_worker_without_its_class_is_seen() -> None:
    """Any node would do, the app nodes included."""
    block = '  constraint {\n    attribute = "${node.class}"\n    value     = var.egress_node_class\n  }\n'
    assert "app-1" in eligible(mutated("gvfx-worker", block, ""))


def test_the_check_goes_wherever_the_worker_may_go() -> None:
    """A node that was never tried fails when it is needed: same places, and one per node."""
    assert PLACES["gvfx-worker-egress-check"] == PLACES["gvfx-worker"]
    assert spec("gvfx-worker-egress-check").job["type"] == "sysbatch"


@pytest.mark.parametrize("job", ["gvfx-api", "gvfx-frontend", "gvfx-rl-service"])
def test_two_copies_never_share_a_host(job: str) -> None:
    """They would die together."""
    assert {"operator": "distinct_hosts", "value": "true"} in spec(job).group["constraint"]


@pytest.mark.parametrize("job", [job for job in JOBS if not job.startswith("gvfx-worker")])
def test_the_others_prefer_app_nodes(job: str) -> None:
    """Prefer, not demand: with one app node left the second copy still has a place."""
    (affinity,) = spec(job).job["affinity"]
    assert (affinity["attribute"], spec(job).value(affinity["value"])) == ("${node.class}", "app")
    assert 0 < affinity["weight"] <= 100


VOLUMES = {
    ("gvfx-postgres", "data"): ("var.postgres_volume", "gvfx-postgres"),
    ("gvfx-objectstore", "data"): ("var.objectstore_volume", "gvfx-objectstore"),
    ("gvfx-worker", "tailscale"): ("var.ts_state_volume", "gvfx-tailscale"),
    ("gvfx-worker-egress-check", "tailscale"): ("var.ts_state_volume", "gvfx-tailscale"),
}


def test_state_is_on_host_volumes() -> None:
    """These and no others; writable; by a name that the README provisions."""
    found = {
        (job, name): (str(body["source"]), spec(job).value(body["source"]))
        for job in JOBS
        for name, body in labelled(spec(job).group, "volume").items()
    }
    assert found == VOLUMES
    for job, name in found:
        body = labelled(spec(job).group, "volume")[name]
        assert (body["type"], body["read_only"]) == ("host", False)
        assert f'host_volume "{spec(job).value(body["source"])}"' in README.read_text()


MOUNTS = {
    "gvfx-postgres": {
        "volume-check": "/volume",
        "postgres": "/var/lib/postgresql/data",
        "bootstrap": "/volume",
    },
    "gvfx-objectstore": {"volume-check": "/volume", "objectstore": "/data", "bootstrap": "/volume"},
    "gvfx-worker": {"tailscale": "/var/lib/gvfx-tailscale"},
    "gvfx-worker-egress-check": {"tailscale": "/var/lib/gvfx-tailscale"},
}


@pytest.mark.parametrize("job", JOBS)
def test_a_volume_is_mounted_only_where_it_is_needed(job: str) -> None:
    """The tailnet's node key is no business of the worker's."""
    one = spec(job)
    mounts = {
        task.name: mount["destination"]
        for task in one.tasks.values()
        for mount in task.body.get("volume_mount", [])
    }
    assert mounts == MOUNTS.get(job, {})


def test_the_stores_keep_their_data_on_the_volume() -> None:
    """Not beside it: PGDATA and the object store's directory lie below the mount."""
    postgres = spec("gvfx-postgres")
    env = postgres.environment(postgres.tasks["postgres"])
    assert env["PGDATA"] == "/var/lib/postgresql/data/pgdata"
    # The lock that keeps a second server off lies on the volume, too: beside it, it would lock nothing.
    for job, task in (("gvfx-postgres", "postgres"), ("gvfx-objectstore", "objectstore")):
        store = spec(job)
        assert store.environment(store.tasks[task])["GVFX_VOLUME"] == MOUNTS[job][task]
    assert "-dir=/data/store" in spec("gvfx-objectstore").variables["objectstore_command"]["default"]
    # What volume-check looks at is the same directory, seen from its own mount.
    for job, directory in (("gvfx-postgres", "pgdata"), ("gvfx-objectstore", "store")):
        assert (
            f"\ndata=/volume/{directory}\n"
            in spec(job).tasks["volume-check"].templates["local/volume-check.sh"]["data"]
        )


def test_each_job_has_a_tailscale_state_of_its_own() -> None:
    """One node key used by two daemons at once would throw each other out; restarts keep the node."""
    states = {}
    for job in ("gvfx-worker", "gvfx-worker-egress-check"):
        env = spec(job).environment(spec(job).tasks["tailscale"])
        states[job] = (env["TS_STATE_DIR"], env["TS_HOSTNAME"])
        assert env["TS_STATE_DIR"].startswith(MOUNTS[job]["tailscale"] + "/")
        assert "${node.unique.name}" in env["TS_HOSTNAME"]
    first, second = states.values()
    assert first[0] != second[0] and first[1] != second[1]
