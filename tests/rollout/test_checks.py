"""Whether a job's version came through its rollout, also when Nomad has forgotten that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.rollout.checks import rollout_problem
from fixtures.target.target import Target


def rollout(version: int = 2, status: str = "successful") -> SimpleNamespace:
    return SimpleNamespace(job_version=version, status=status, description="it says")


@pytest.mark.parametrize(
    ("found", "stable", "problem"),
    [
        (rollout(), False, ""),
        (None, True, ""),
        (None, False, "not stable"),
        (rollout(version=1), True, "the last deployment was of version 1"),
        (rollout(status="failed"), True, "failed, it says"),
        (rollout(status="running"), True, "running"),
    ],
)
def test_a_rollout_is_judged_by_itself_or_by_what_is_left_of_it(
    found: Any, stable: bool, problem: str
) -> None:
    target = SimpleNamespace(nomad=SimpleNamespace(latest_deployment=lambda job: found))
    said = rollout_problem(cast("Target", target), {"ID": "j", "Version": 2, "Stable": stable})
    assert problem in said and bool(problem) == bool(said)
