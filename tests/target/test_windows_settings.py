from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import Unknown
from fixtures.rehearsal.agents import HEARTBEATS
from fixtures.rehearsal.cluster import WORKER_TEMPO
from fixtures.target import windows
from fixtures.target.deadlines import MARGIN
from fixtures.target.heartbeats import Heartbeats, heartbeats
from fixtures.target.windows import LockSettings, lost_node_takeover, window_settings

APPLICATION = window_settings({})
REHEARSAL = window_settings(WORKER_TEMPO)


def test_the_applications_defaults() -> None:
    assert (APPLICATION.period, APPLICATION.backoff, APPLICATION.run_timeout) == (60.0, 300.0, 1800.0)
    assert APPLICATION.apart == 30.0


def test_the_rehearsals_run_timeout_is_above_a_takeover_and_scales_the_rest() -> None:
    production = Heartbeats(10.0, 10.0)
    assert REHEARSAL.run_timeout == pytest.approx(66.0) and REHEARSAL.apart == pytest.approx(3.0)
    floor, ceiling = lost_node_takeover(production, LockSettings(10, 10, 18, 2))
    assert (floor, ceiling) == (28.0, 82.0)
    assert ceiling - MARGIN < REHEARSAL.run_timeout < REHEARSAL.orphan


def test_a_killed_worker_may_cost_the_run_timeout_and_a_stopped_one_may_not() -> None:
    assert REHEARSAL.gap(30.0, killed=True) == REHEARSAL.gap(REHEARSAL.run_timeout, killed=False)
    assert REHEARSAL.gap(30.0, killed=False) == 30 + 4 * 6 + 5 + 2


@given(st.floats(0, 500), st.booleans())
def test_no_gap_is_shorter_than_the_time_without_a_worker(down: float, killed: bool) -> None:
    assert REHEARSAL.gap(down, killed=killed) > down + 2 * REHEARSAL.period


def test_heartbeats_by_the_servers_own_word() -> None:
    said = {"config": {"Server": {"Enabled": True, "MinHeartbeatTTL": 2_000_000_000, "HeartbeatGrace": 12e9}}}
    assert heartbeats(said) == Heartbeats(2.0, 12.0)
    assert HEARTBEATS["short"]["min_heartbeat_ttl"] == "2s"
    assert heartbeats({"config": {"Server": {"Enabled": True}}}) == Heartbeats(10.0, 10.0)
    assert (Heartbeats(10.0, 10.0).floor, Heartbeats(10.0, 10.0).ceiling) == (10.0, 30.0)
    for other in ({}, {"config": {"Server": {"Enabled": False}}}, {"config": {"Server": None}}):
        with pytest.raises(Unknown):
            heartbeats(other)


def test_the_lock_by_the_watchs_environment() -> None:
    assert windows.lock_settings({}) == LockSettings(10, 10, 18, 2)
    assert windows.lock_settings({"LOCK_TTL_SECONDS": "12", "LOCK_DELAY_SECONDS": "1"}).freed() == 27.0
    with pytest.raises(Unknown):
        windows.lock_settings({"LOCK_HOLD_SECONDS": "long"})
    with pytest.raises(Unknown):
        window_settings({"INGESTION_RUN_TIMEOUT_MIN": "half"})


def test_an_orderly_stop_is_the_patience_of_all_that_run() -> None:
    tasks = [
        {"Name": "switch", "Lifecycle": {"Hook": "prestart", "Sidecar": False}, "KillTimeout": 9_000_000_000},
        {"Name": "watch", "Lifecycle": {"Hook": "prestart", "Sidecar": True}, "KillTimeout": 10_000_000_000},
        {"Name": "worker", "Lifecycle": None, "KillTimeout": 5_000_000_000},
        {"Name": "other"},
    ]
    assert windows.kill_timeouts({"TaskGroups": [{"Tasks": tasks}]}) == 20.0
