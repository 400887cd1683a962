from __future__ import annotations

from typing import Any

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
