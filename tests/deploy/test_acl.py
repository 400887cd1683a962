"""ACL policies: they parse, and each allows its job and nothing beside it."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

import hcl2
import pytest

from tests.deploy.spec import DEPLOY, README, labelled, plain

POLICIES = sorted(path.name.removesuffix(".policy.hcl") for path in (DEPLOY / "acl").glob("*.policy.hcl"))

# What Nomad makes of `policy = "read"` on a namespace.
NAMESPACE_READ = {
    *("list-jobs", "parse-job", "read-job", "csi-list-volume", "csi-read-volume", "host-volume-read"),
    *("read-job-scaling", "list-scaling-policies", "read-scaling-policy"),
}
SECRETS = [
    "nomad/jobs/gvfx-api",
    "nomad/jobs/gvfx-postgres",
    "nomad/jobs/gvfx-worker",
    "nomad/jobs/gvfx-worker/worker/tailscale",
]
LOCK = "nomad/jobs/gvfx-worker/lock"


@dataclass(frozen=True)
class Policy:
    """What a policy file grants."""

    tree: dict[str, Any]

    @property
    def namespaces(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return labelled(self.tree, "namespace")

    @property
    def capabilities(self) -> set[str]:
        """On jobs, in any namespace, what a coarse `policy` stands for included."""
        found: set[str] = set()
        for body in self.namespaces.values():
            found |= set(body.get("capabilities", []))
            match body.get("policy"):
                case None:
                    pass
                case "read":
                    found |= NAMESPACE_READ
                case coarse:
                    found.add(f"policy {coarse}")
        return found

    def variable(self, path: str) -> set[str]:
        """What may be done to a variable: the longest matching path decides, as in Nomad."""
        rules = {
            pattern: set(body["capabilities"])
            for namespace in self.namespaces.values()
            for block in namespace.get("variables", [])
            for pattern, body in labelled(block, "path").items()
        }
        matching = [pattern for pattern in rules if fnmatch.fnmatchcase(path, pattern)]
        return rules[max(matching, key=len)] if matching else set()

    def coarse(self, name: str) -> str:
        """`read`, `write` or nothing on node, agent, operator, quota, plugin."""
        blocks = self.tree.get(name, [])
        return str(blocks[0]["policy"]) if blocks else ""


def parse(text: str) -> Policy:
    """A policy from its text."""
    return Policy(plain(hcl2.loads(text)))


def text_of(name: str) -> str:
    """A policy file."""
    return (DEPLOY / f"acl/{name}.policy.hcl").read_text()


COARSE = ("node", "agent", "operator", "quota", "plugin")
WRITING = {
    *("submit-job", "dispatch-job", "scale-job", "alloc-lifecycle", "alloc-exec", "alloc-node-exec"),
    *("submit-recommendation", "sentinel-override", "csi-write-volume", "csi-register-plugin"),
}


@dataclass(frozen=True)
class Grant:
    """All that a policy may allow."""

    capabilities: frozenset[str]
    coarse: dict[str, str]
    volumes: str
    secrets: frozenset[str]
    lock: frozenset[str]


DEPLOYING = frozenset({"submit-job", "dispatch-job", "scale-job", "alloc-lifecycle", "read-logs", "read-fs"})
GRANTS = {
    # Looks and plans, which changes nothing; reads no secret, and of variables nothing but who holds the lock.
    "suite-read-only": Grant(
        frozenset({"plan-job", "read-logs", "read-fs"}),
        {"node": "read", "agent": "read", "operator": "read", "plugin": "read"},
        "read",
        frozenset({"list"}),
        frozenset({"list", "read"}),
    ),
    # Submits and restarts; no drain, no exec, no variable.
    "deployer": Grant(
        DEPLOYING, {"node": "read", "agent": "read"}, "write", frozenset({"list"}), frozenset({"list"})
    ),
    # Writes secrets without being able to read them; drains; may break the lock.
    "operator": Grant(
        DEPLOYING | {"alloc-exec"},
        {"node": "write", "agent": "read", "operator": "read"},
        "write",
        frozenset({"list", "write", "destroy"}),
        frozenset({"list", "read", "write", "destroy"}),
    ),
    # One task's right to one variable.
    "worker-lock": Grant(frozenset(), {}, "", frozenset(), frozenset({"read", "write", "destroy"})),
}


def granted(policy: Policy) -> Grant:
    """What it allows, in the terms of the table above."""
    volumes = labelled(policy.tree, "host_volume")
    assert set(volumes) <= {"gvfx-*"}
    return Grant(
        frozenset(policy.capabilities - NAMESPACE_READ),
        {name: policy.coarse(name) for name in COARSE if policy.coarse(name)},
        volumes["gvfx-*"]["policy"] if volumes else "",
        frozenset(word for path in SECRETS for word in policy.variable(path)),
        frozenset(policy.variable(LOCK)),
    )


def test_there_is_a_table_for_each() -> None:
    """A new policy needs a decision."""
    assert set(POLICIES) == set(GRANTS)


@pytest.mark.parametrize("name", POLICIES)
def test_least_privilege(name: str) -> None:
    """Exactly this."""
    assert granted(parse(text_of(name))) == GRANTS[name]


@pytest.mark.parametrize("name", POLICIES)
def test_one_namespace_and_no_other_kind_of_block(name: str) -> None:
    """No wildcard; nothing granted in a block that the table does not look at."""
    policy = parse(text_of(name))
    assert set(policy.namespaces) == {"default"}
    assert policy.tree.keys() <= {"namespace", "host_volume", *COARSE}
    for body in policy.namespaces.values():
        assert body.keys() <= {"policy", "capabilities", "variables"}


@pytest.mark.parametrize("name", POLICIES)
def test_nobody_reads_a_secret(name: str) -> None:
    """Not even the operator; and nobody touches a variable outside of nomad/jobs."""
    policy = parse(text_of(name))
    assert not [path for path in SECRETS if "read" in policy.variable(path)]
    assert policy.variable("other/path") == set()
    assert policy.variable("nomad/jobs/another-job") <= {"list"}


def test_the_suite_cannot_change_anything() -> None:
    """Read-only by every measure."""
    policy = parse(text_of("suite-read-only"))
    assert not policy.capabilities & WRITING
    assert "write" not in {policy.coarse(name) for name in COARSE}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("suite-read-only", 'capabilities = ["list"]', 'capabilities = ["list", "read"]'),
        ("suite-read-only", '"read-fs"]', '"read-fs", "alloc-exec"]'),
        ("suite-read-only", 'node {\n  policy = "read"', 'node {\n  policy = "write"'),
        ("deployer", 'namespace "default" {\n  policy = "read"', 'namespace "default" {\n  policy = "write"'),
        (
            "operator",
            'capabilities = ["list", "write", "destroy"]',
            'capabilities = ["list", "read", "write"]',
        ),
        ("worker-lock", 'path "nomad/jobs/gvfx-worker/lock"', 'path "nomad/jobs/gvfx-worker*"'),
    ],
)
def test_a_right_too_many_is_seen(name: str, old: str, new: str) -> None:
    """Each by itself."""
    text = text_of(name)
    assert text.count(old) == 1
    assert granted(parse(text.replace(old, new))) != GRANTS[name]


def test_the_lock_is_not_the_secrets_path() -> None:
    """A held lock makes its variable unwritable for everybody: rotation would be blocked."""
    assert parse(text_of("worker-lock")).variable("nomad/jobs/gvfx-worker") == set()


def test_the_readme_applies_each_policy() -> None:
    """With its file; the lock's to one task, not to a token."""
    text = README.read_text()
    for name in POLICIES:
        assert f"acl/{name}.policy.hcl" in text
    attach = "-namespace default -job gvfx-worker -group worker -task egress-watch gvfx-worker-lock"
    assert f"{attach} acl/worker-lock.policy.hcl" in text
    assert attach in text_of("worker-lock")
