from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import DeployError, ProbeError, SuiteError, Unknown
from fixtures.history.rules import BY_ID
from fixtures.observe.recording import InMemory
from fixtures.rollout import snapshot
from fixtures.rollout.plan import STEPS, steps
from fixtures.rollout.rollout import Rollout, rules_of_steps
from fixtures.target.capabilities import DeploymentResult
from fixtures.target.pairs import BINGX_THRESHOLDS_SECONDS
from fixtures.target.target import Target

JOB: dict[str, Any] = {"TaskGroups": [{"Count": 1, "Tasks": [{"Name": "x"}]}]}


class FakeDeploy:
    def __init__(self, broken: dict[str, SuiteError]) -> None:
        self.broken = broken
        self.submitted: list[str] = []

    def submit(self, job: str, variables: dict[str, object] | None = None) -> DeploymentResult:
        assert (variables is not None) == (job == "gvfx-worker-egress-check")
        self.submitted.append(job)
        return DeploymentResult(job, 1, True, f"digest of {job}")

    def wait_healthy(self, job: str, timeout: float) -> None:
        if job in self.broken:
            raise self.broken[job]


class FakeTarget:
    """Only what a rollout touches."""

    def __init__(self, *, can: bool = True, broken: dict[str, SuiteError] | None = None) -> None:
        self.record = InMemory()
        self.deploy = FakeDeploy(broken or {})
        self.nomad = SimpleNamespace(job=lambda name: JOB)
        self.config = SimpleNamespace(supported_pairs=("A", "B"))
        self.legacy_runs = True
        self.legacy = SimpleNamespace(running=lambda: self.legacy_runs, stop=self._stop)
        self.store = FakeConvex()
        self._can = can

    def can(self, name: str) -> bool:
        return self._can

    def convex(self) -> FakeConvex:
        return self.store

    def _stop(self) -> None:
        self.legacy_runs = False


class FakeConvex:
    url = "http://convex"

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def rows(self, table: str, **equal: Any) -> list[dict[str, Any]]:
        return self.tables.get(table, [])

    def insert(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        self.tables.setdefault(table, []).append(row)
        return row

    def mutation(self, path: str, args: dict[str, Any]) -> Any:
        self.tables.setdefault(args["table"], []).extend(args["payload"])


def rollout(target: FakeTarget) -> Rollout:
    return Rollout(cast("Target", target))


def test_the_steps_follow_the_plan() -> None:
    assert [step.job for step in STEPS if step.job] == [
        "gvfx-postgres", "gvfx-objectstore", "gvfx-convex", "gvfx-rl-service", "gvfx-api", "gvfx-frontend",
        "gvfx-worker-egress-check", "gvfx-worker",
    ]  # fmt: skip
    assert [step.id for step in steps(3)] == ["egress-check", "stop-legacy", "worker", "confirm"]
    phases = [step.phase for step in STEPS]
    assert phases == sorted(phases)


def test_every_phase_rule_has_its_step() -> None:
    wanted = {rule for rule in BY_ID if rule.startswith(("P1.", "P2.", "P3."))}
    assert set(rules_of_steps()) == wanted


def test_all_phases_once_in_order() -> None:
    target = FakeTarget()
    run = rollout(target)
    run.through(3)
    run.through(3)
    assert target.deploy.submitted == [step.job for step in STEPS if step.job]
    deployed = [step.job for step in STEPS if step.action == "deploy" and step.job]
    specs = [(one.data["job"], one.data["sha256"]) for one in target.record.events if one.name == "spec"]
    assert specs == [(job, f"digest of {job}") for job in deployed]
    assert not target.legacy_runs
    for step in STEPS:
        run.outcome(step.id).proven()


def test_a_failed_service_does_not_hide_the_rest() -> None:
    target = FakeTarget(broken={"gvfx-api": DeployError("gvfx-api", "unhealthy", "healthy")})
    run = rollout(target).through(3)
    with pytest.raises(AssertionError, match="unhealthy"):
        run.outcome("api").proven()
    run.outcome("worker").proven()


def test_a_failed_preflight_stops_the_cutover() -> None:
    job = "gvfx-worker-egress-check"
    target = FakeTarget(broken={job: DeployError(job, "exit 1", "exit 0")})
    run = rollout(target).through(3)
    assert "gvfx-worker" not in target.deploy.submitted
    assert target.legacy_runs
    with pytest.raises(AssertionError):
        run.outcome("egress-check").proven()
    for step in ("stop-legacy", "worker", "confirm"):
        with pytest.raises(Unknown, match="egress-check failed"):
            run.outcome(step).proven()


def test_an_unreadable_step_is_unknown_and_a_foreign_error_is_not_swallowed() -> None:
    target = FakeTarget(broken={"gvfx-rl-service": ProbeError("nomad", "timeout", "an answer")})
    with pytest.raises(ProbeError):
        rollout(target).through(2).outcome("rl-service").proven()
    with pytest.raises(Unknown, match="not carried out"):
        rollout(target).outcome("api")


def test_without_the_capability_nothing_is_done() -> None:
    target = FakeTarget(can=False)
    run = rollout(target).through(3)
    assert target.deploy.submitted == []
    assert target.legacy_runs
    assert {run.outcome(step.id).done for step in STEPS} == {"observed"}


def test_the_snapshot_is_imported_once() -> None:
    convex = FakeConvex()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert snapshot.import_snapshot(cast("Any", convex), ("A", "B"), moment) == 2 * len(
        BINGX_THRESHOLDS_SECONDS
    )
    assert snapshot.import_snapshot(cast("Any", convex), ("A", "B"), moment) == 0
    assert {row["last_seen_at"] for row in convex.tables["data_source_status"]} == {
        "2026-01-01T00:00:00.000Z"
    }
