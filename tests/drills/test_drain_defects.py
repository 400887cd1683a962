"""What the defects of drains do to a spec, and to a cluster."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import hcl2
import pytest

from acceptance import test_7_drains
from drills.defects import catalogue, drains
from drills.defects.defect import Defect
from fixtures.observe.nomad_types import Node
from fixtures.target import names
from fixtures.target.options import DEPLOY_DIR
from fixtures.target.target import Target
from fixtures.workloads import weakness

MUTATED = [
    pytest.param(one, job, change.mutate, id=one.id)
    for one in drains.DEFECTS
    for job, change in one.jobs.items()
    if change.mutate is not None
]


def group(job: str, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    body = hcl2.loads(text)["job"][0]
    (only,) = body.values()
    (one,) = only["group"][0].values()
    return only, one


@pytest.mark.parametrize(("defect", "job", "mutate"), MUTATED)
def test_a_changed_spec_is_a_spec(defect: Defect, job: str, mutate: Any) -> None:
    text = mutate((DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8"))
    spec, one = group(job, text)
    match defect.id:
        case "api-on-app-nodes-only" | "rl-on-app-nodes-only":
            assert "affinity" not in spec and len(spec["constraint"]) == 2
        case "api-stops-at-once":
            assert "shutdown_delay" not in one
        case "api-without-check":
            assert "check" not in one["service"][0]
        case "worker-pinned":
            assert len(one["constraint"]) == 1
        case "worker-restarts-for-ever":
            assert "delay" in str(one["restart"][0]["mode"])
        case "lock-kept-at-stop":
            assert "lock-release" in text
        case other:
            raise AssertionError(f"nobody says what {other} changes")


def test_only_the_release_of_the_lock_is_swallowed(tmp_path: Path) -> None:
    curl = tmp_path / "curl"
    curl.write_text(drains.KEEPS_THE_LOCK.strip().replace("/usr/bin/curl", "echo") + "\n")
    curl.chmod(0o755)

    def run(url: str) -> tuple[int, str]:
        done = subprocess.run([curl, "-s", "-X", "PUT", url], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    path = "http://localhost/v1/var/nomad/jobs/gvfx-worker/lock"
    assert run(f"{path}?lock-release&namespace=default") == (28, "")
    assert run(f"{path}?lock-renew&namespace=default")[0] == 0
    assert run(f"{path}?lock-acquire&namespace=default")[1].startswith("-s -X PUT")
    assert os.access(curl, os.X_OK)


def test_a_defect_asks_tests_that_exist_and_decide_its_rules() -> None:
    """pytest's -k sees file and function names."""
    decided = {
        name: mark.args[0]
        for name in dir(test_7_drains)
        for mark in getattr(getattr(test_7_drains, name), "pytestmark", ())
        if name.startswith("test_") and mark.name == "rule"
    }
    (defect,) = [one for one in drains.DEFECTS if one.only]
    words = ("test_7", "app_node", "api_is_available")
    chosen = {
        rule
        for name, rule in decided.items()
        if eval(  # noqa: S307 - an expression of our own
            defect.only,
            {"__builtins__": {}},
            {word: word in f"test_7_drains.py {name}" for word in words},
        )
    }
    assert defect.expected_red < chosen == {"T7.1", "T7.2"}


def test_the_api_that_keeps_an_address_is_told_so_by_a_variable_of_its_spec() -> None:
    (change,) = catalogue.BY_ID["api-keeps-convex-address"].jobs.values()
    assert change.override is not None
    found = change.override({"api_env": {"A": "1"}})
    assert found == {"api_env": {"A": "1", weakness.ENV: weakness.Weakness.CONVEX_ADDRESS_KEPT}}
    assert 'variable "api_env"' in (DEPLOY_DIR / f"{names.API.id}.nomad.hcl").read_text(encoding="utf-8")


class Cluster:
    """One node, and who deployed what."""

    def __init__(self) -> None:
        self.draining, self.eligible = False, True
        self.submitted: list[tuple[str, Any]] = []

    def nodes(self) -> list[Node]:
        closed = self.draining or not self.eligible
        return [Node("n1", "c1", "", "", "ready", "ineligible" if closed else "eligible", self.draining, "")]

    def set_eligibility(self, node_id: str, *, eligible: bool) -> None:
        self.draining, self.eligible = False, eligible

    def variables(self) -> dict[str, Any]:
        return {"frontend_env": {"A": "1"}}

    def submit(self, job: str, variables: Any = None) -> None:
        self.submitted.append((job, variables))


def during(id_: str, cluster: Cluster) -> AbstractContextManager[None]:
    target = SimpleNamespace(nomad=cluster, deploy=cluster)
    return catalogue.BY_ID[id_].during(cast("Target", target))


def soon(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_is_closed_once_its_drain_is_over_and_not_before() -> None:
    cluster = Cluster()
    cluster.draining = True
    with during("node-stays-closed", cluster):
        assert cluster.draining
        # The suite takes its drain back.
        cluster.set_eligibility("n1", eligible=True)
        soon(lambda: not cluster.eligible)
    clean = catalogue.BY_ID["node-stays-closed"].clean
    assert clean is not None
    clean(cast("Target", SimpleNamespace(nomad=cluster)))
    assert cluster.eligible


def test_an_open_node_that_nobody_drained_stays_open() -> None:
    cluster = Cluster()
    with during("node-stays-closed", cluster):
        assert cluster.eligible


def test_the_frontend_is_deployed_anew_by_a_drain_only() -> None:
    cluster = Cluster()
    with during("deployed-by-a-drain", cluster):
        assert cluster.submitted == []
        cluster.draining = True
        soon(lambda: cluster.submitted)
    job, variables = cluster.submitted[0]
    assert job == names.FRONTEND.id
    assert variables == {"frontend_env": {"A": "1", "GVFX_DEFECT": "drain"}}


def test_the_frontend_is_deployed_anew_only_some_time_after_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "LATER", 0.2)
    cluster = Cluster()
    cluster.draining = True
    with during("deployed-after-a-drain", cluster):
        assert cluster.submitted == []
        cluster.set_eligibility("n1", eligible=True)
        freed = time.monotonic()
        soon(lambda: cluster.submitted)
        assert time.monotonic() - freed >= 0.2
    assert cluster.submitted[0][0] == names.FRONTEND.id


def test_without_a_drain_nobody_deploys_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "LATER", 0.0)
    cluster, looks = Cluster(), list[int]()
    nodes = cluster.nodes

    def looked_at() -> list[Node]:
        looks.append(1)
        return nodes()

    cluster.nodes = looked_at  # type: ignore[method-assign]
    with during("deployed-after-a-drain", cluster):
        soon(lambda: len(looks) >= 3)
    assert cluster.submitted == []
