from __future__ import annotations

from typing import Any

import pytest

from fixtures.errors import Unknown
from fixtures.target import deadlines, recovery
from fixtures.target.recovery import Bounds

S = 1_000_000_000
JOB: dict[str, Any] = {
    "TaskGroups": [
        {
            "RestartPolicy": {"Delay": 4 * S},
            "Update": {"HealthyDeadline": 60 * S},
            "ReschedulePolicy": {"Delay": 5 * S},
            "Tasks": [{"Name": "a", "KillTimeout": 30 * S}, {"Name": "b", "RestartPolicy": {"Delay": 1 * S}}],
        }
    ]
}


def agent(**server: object) -> dict[str, Any]:
    return {"config": {"Server": {"Enabled": True, **server}}}


def test_bounds_come_from_the_spec() -> None:
    assert recovery.restart(JOB, "a") == Bounds(0.0, 30 + 5 + deadlines.MARGIN)
    assert recovery.kill(JOB, "a") == Bounds(4.0, 5 + deadlines.MARGIN)
    assert recovery.kill(JOB, "b").floor == 1.0
    assert recovery.move(JOB) == Bounds(0.0, 30 + 5 + 60 + deadlines.MARGIN)


@pytest.mark.parametrize(
    ("server", "floor", "detection"),
    [({}, 10.0, 30.0), ({"MinHeartbeatTTL": 2 * S, "HeartbeatGrace": 12 * S}, 12.0, 16.0)],
)
def test_a_lost_host_must_be_missed_first(server: dict[str, object], floor: float, detection: float) -> None:
    found = recovery.host_lost(JOB, agent(**server))
    assert found == Bounds(floor, detection + recovery.move(JOB).ceiling)


def test_an_agent_that_is_no_server_does_not_know() -> None:
    with pytest.raises(Unknown):
        recovery.host_lost(JOB, {"config": {"Server": {"Enabled": False}}})


def test_together_waits_for_the_slowest() -> None:
    assert recovery.together([Bounds(1.0, 9.0), Bounds(2.0, 3.0)]) == Bounds(2.0, 9.0)
