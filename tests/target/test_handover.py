from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import Unknown
from fixtures.target import egress, handover
from fixtures.target.deadlines import MARGIN
from fixtures.target.durations import seconds
from fixtures.target.heartbeats import heartbeats

S = 1_000_000_000


def job(**group: Any) -> dict[str, Any]:
    tasks = [
        {"Name": "tailscale", "KillTimeout": 10 * S, "Lifecycle": {"Hook": "prestart", "Sidecar": True}},
        {"Name": "egress-guard", "Lifecycle": {"Hook": "prestart", "Sidecar": False}},
        {"Name": "worker", "KillTimeout": 20 * S, "Lifecycle": None},
    ]
    return {"TaskGroups": [{"Count": 1, "Tasks": tasks, **group}]}


def test_an_allocation_stops_its_main_tasks_and_then_its_sidecars() -> None:
    assert handover.stop(job(ShutdownDelay=5 * S), 120.0) == 5 + 20 + 10
    # The node's own cap wins over what a job asks for.
    assert handover.stop(job(), 8.0) == 8 + 8
    # Nomad's default where a task says nothing, and no sidecar is no wait.
    assert handover.stop({"TaskGroups": [{"Tasks": [{"Name": "a"}]}]}, 120.0) == 5


def test_a_drain_goes_by_the_migrate_block() -> None:
    both = job(Migrate={"MaxParallel": 1, "HealthyDeadline": 60 * S})
    assert handover.leave(both, 0, 120.0) == 0
    assert handover.leave(both, 1, 120.0) == 30
    assert handover.leave(both, 2, 120.0) == 2 * 30 + 60
    assert handover.leave(job(Migrate={"MaxParallel": 2, "HealthyDeadline": 60 * S}), 2, 120.0) == 30
    assert handover.leave(job(), 1, 120.0) == 30
    assert handover.drain([(both, 1), (both, 2)], 120.0) == 1 + 120 + MARGIN
    assert handover.drain([], 120.0) == 1 + MARGIN
    assert handover.soonest([job(ShutdownDelay=5 * S), job()]) == 6


def test_a_drained_allocation_is_told_after_the_evaluation_and_its_own_wait() -> None:
    assert handover.told(job()) == handover.EVALUATED
    assert handover.told(job(ShutdownDelay=5 * S)) == handover.EVALUATED + 5


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 300), st.floats(1, 120))
def test_more_to_move_never_takes_less(here: int, at_once: int, healthy: float, cap: float) -> None:
    one = job(Migrate={"MaxParallel": at_once, "HealthyDeadline": int(healthy * S)})
    assert handover.leave(one, here, cap) >= handover.stop(one, cap)
    assert handover.leave(one, here + 1, cap) >= handover.leave(one, here, cap)


WATCH = {
    "TS_EXIT_NODE_PRIMARY": "100.64.0.1",
    "TS_EGRESS_CHECK_URLS": "http://198.51.100.80/",
    "TS_PROBE_TIMEOUT_SECONDS": "2",
    "TS_SELECT_TRIES": "4",
}
LOCK = {"LOCK_TTL_SECONDS": "10", "LOCK_DELAY_SECONDS": "10"}


def test_a_handover_shows_a_lock_that_nobody_gave_back() -> None:
    own = handover.handover(job(), egress.settings(WATCH), LOCK, 120.0)
    assert own.leaving == 30
    assert own.unreleased == 30
    assert own.starting < own.unreleased
    assert own.ceiling == own.leaving + own.starting


def test_restarts_end_when_the_policy_says_so() -> None:
    policy = {"RestartPolicy": {"Attempts": 3, "Delay": 4 * S}, "ReschedulePolicy": {"Delay": 15 * S}}
    assert handover.exhaustion(job(**policy), "worker") == 4 * (2 + 5) + 15
    assert handover.soonest_exhaustion(job(**policy), "worker") == 3 * 4 + 15


def test_settings_of_agents_and_their_defaults() -> None:
    assert handover.longest_kill({"config": {"Client": {"MaxKillTimeout": "2m"}}}) == 120
    assert handover.longest_kill({"config": {"Client": None}}) == 30
    server = {"Enabled": True, "MinHeartbeatTTL": 2 * S, "HeartbeatGrace": 12 * S}
    beats = heartbeats({"config": {"Server": server}})
    assert (beats.floor, beats.ceiling) == (12, 16)
    plain = heartbeats({"config": {"Server": {"Enabled": True, "MinHeartbeatTTL": 0, "HeartbeatGrace": 0}}})
    assert (plain.floor, plain.ceiling) == (10, 30)
    with pytest.raises(Unknown, match="no server"):
        heartbeats({"config": {"Server": {"Enabled": False}}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30.0), ("1m30s", 90.0), ("250ms", 0.25), ("1h", 3600.0), (5 * S, 5.0), ("", 7.0), (None, 7.0)],
)
def test_durations(text: str | int | None, expected: float) -> None:
    assert seconds(text, 7.0) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["soon", "10", "s", "1d"])
def test_what_is_no_duration_is_unknown(text: str) -> None:
    with pytest.raises(Unknown, match="duration"):
        seconds(text, 7.0)
