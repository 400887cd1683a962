from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fixtures.errors import Refused
from fixtures.target.capabilities import DeploymentResult, Mutation
from fixtures.target.change import ChangedDeployer, DeploymentChange, JobChange, chain, replace_once

SPEC = "count = 2\nmode = 'bridge'\n"


class Recorder:
    """A deployer that keeps what it was asked to submit."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, Mapping[str, object] | None, str]] = []
        self.calls: list[tuple[object, ...]] = []

    def submit(
        self, job: str, variables: Mapping[str, object] | None = None, mutate: Mutation | None = None
    ) -> DeploymentResult:
        self.submitted.append((job, variables, mutate(SPEC) if mutate else SPEC))
        return DeploymentResult(job, 1, True, "0" * 64)

    def planned(
        self, job: str, variables: Mapping[str, object] | None = None, mutate: Mutation | None = None
    ) -> dict[str, Any]:
        return {"ID": job, "Text": mutate(SPEC) if mutate else SPEC, "Values": dict(variables or {})}

    def wait_healthy(self, job: str, timeout: float) -> None:
        self.calls.append(("wait", job, timeout))

    def stop(self, job: str, purge: bool = False) -> None:
        self.calls.append(("stop", job, purge))

    def revert(self, job: str, version: int) -> DeploymentResult:
        self.calls.append(("revert", job, version))
        return DeploymentResult(job, version + 1, True, "0" * 64)

    def spec_path(self, job: str) -> Path:
        return Path(job)

    def variables(self) -> dict[str, Any]:
        return {"api_env": {"A": "1"}}


def test_replacing_fits_exactly_once_or_is_refused() -> None:
    assert replace_once("count = 2", "count = 3")(SPEC).startswith("count = 3")
    for text in ("absent", "="):
        with pytest.raises(Refused, match="exactly once"):
            replace_once(text, "")(SPEC)


def test_the_change_comes_first_and_the_caller_on_top() -> None:
    inner = Recorder()
    change = JobChange(
        mutate=replace_once("count = 2", "count = 3"),
        override=lambda own: {"api_env": {**own["api_env"], "B": "2"}, "speed": "defect"},
    )
    deployer = ChangedDeployer(inner, DeploymentChange("name", {"gvfx-api": change}))

    deployer.submit("gvfx-api", {"speed": "caller"}, replace_once("count = 3", "count = 4"))
    deployer.submit("gvfx-frontend")

    job, variables, text = inner.submitted[0]
    assert (job, variables) == ("gvfx-api", {"api_env": {"A": "1", "B": "2"}, "speed": "caller"})
    assert "count = 4" in text
    assert inner.submitted[1] == ("gvfx-frontend", None, SPEC)


def test_everything_else_is_the_inner_deployer() -> None:
    inner = Recorder()
    deployer = ChangedDeployer(inner, DeploymentChange("name"))
    deployer.wait_healthy("a", 1.0)
    deployer.stop("b", purge=True)
    assert deployer.revert("b", 3).version == 4
    assert inner.calls == [("wait", "a", 1.0), ("stop", "b", True), ("revert", "b", 3)]
    assert deployer.spec_path("c") == Path("c")
    assert deployer.variables() == {"api_env": {"A": "1"}}


def test_chain_applies_in_order() -> None:
    assert chain(lambda text: text + "b", lambda text: text + "c")("a") == "abc"


def test_what_is_planned_is_what_would_be_submitted() -> None:
    change = DeploymentChange(
        "d", {"a": JobChange(replace_once("count = 2", "count = 3"), lambda own: {"x": "1"})}
    )
    deployer = ChangedDeployer(Recorder(), change)
    assert deployer.planned("a", {"y": "2"}) == {
        "ID": "a",
        "Text": SPEC.replace("2", "3"),
        "Values": {"x": "1", "y": "2"},
    }
    assert deployer.planned("b") == {"ID": "b", "Text": SPEC, "Values": {}}
