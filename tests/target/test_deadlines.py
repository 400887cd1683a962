from __future__ import annotations

import math
from typing import Any

import pytest

from fixtures.target import deadlines

S = 1_000_000_000
JOB: dict[str, Any] = {
    "TaskGroups": [
        {
            "Count": 2,
            "ShutdownDelay": 5 * S,
            "Update": {"MaxParallel": 1, "HealthyDeadline": 60 * S, "ProgressDeadline": 90 * S},
            "ReschedulePolicy": {"Delay": 15 * S},
            "RestartPolicy": {"Delay": 4 * S},
            "Tasks": [{"Name": "a", "KillTimeout": 10 * S}, {"Name": "b", "KillTimeout": 30 * S}],
        }
    ]
}


def test_deadlines_follow_the_job() -> None:
    assert deadlines.deployment(JOB) == 2 * 90 + deadlines.MARGIN
    assert deadlines.replacement(JOB) == 5 + 30 + 15 + 60 + deadlines.MARGIN
    assert deadlines.task_restart(JOB, "a") == 10 + 5 + deadlines.MARGIN


def test_a_job_without_settings_still_gets_a_deadline() -> None:
    bare: dict[str, Any] = {"TaskGroups": [{"Count": 1, "Tasks": [{"Name": "a"}]}]}
    assert deadlines.deployment(bare) == deadlines.MARGIN
    assert deadlines.replacement(bare) == deadlines.MARGIN


@pytest.mark.parametrize(
    ("mode", "attempts", "interval", "expected"),
    [
        ("fail", 3, 120, 2 * 3 * (5 + 30 + 1.25) + deadlines.MARGIN),
        ("fail", 3, 105, math.inf),
        ("delay", 3, 120, math.inf),
    ],
)
def test_restarts_run_out_or_never_do(mode: str, attempts: int, interval: int, expected: float) -> None:
    """Within their interval only, and only where the policy gives up."""
    policy = {"Mode": mode, "Attempts": attempts, "Interval": interval * 1e9, "Delay": 1e9}
    job = {"TaskGroups": [{"RestartPolicy": policy, "Tasks": [{"Name": "x"}]}]}
    assert deadlines.given_up(job, "x", 30) == expected
