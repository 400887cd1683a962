from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.shapes import Activity, Coverage, IngestionRun
from fixtures.observe.exchange import Session
from fixtures.observe.timeline import Interval
from fixtures.observe.witnesses import (
    IDLE,
    exchange_activity,
    exchange_coverage,
    fetches,
    ingestion_runs,
    looked,
    sampled,
    task_activity,
)

ROW: dict[str, Any] = {
    "id": "r1",
    "source_type": "bingx",
    "source_id": None,
    "feed": "candles",
    "trigger": "schedule",
    "status": "running",
    "started_at": "2026-03-03T10:00:00.500Z",
    "finished_at": None,
    "new_count": 0,
    "updated_count": 0,
    "error_summary": None,
    "holder": "w1",
}


def rest(at: float, conn: str, ms: float = 0.0) -> dict[str, Any]:
    return {
        "t": at,
        "kind": "rest",
        "conn": conn,
        "peer": "p",
        "path": "/k",
        "symbol": "S",
        "status": 200,
        "ms": ms,
    }


def test_a_row_becomes_a_sighting() -> None:
    (run,) = ingestion_runs([ROW], 7.0)
    assert run == IngestionRun(
        "r1", "bingx", None, "candles", "schedule", "running", 1772532000.5, None, 0, 0, None, 7.0, "w1"
    )
    (ended,) = ingestion_runs([{**ROW, "status": "failed", "finished_at": "2026-03-03T10:00:01Z"}], 7.0)
    assert (ended.status, ended.finished_at) == ("failed", 1772532001.0)


@pytest.mark.parametrize("wrong", [{"status": "lost"}, {"started_at": "soon"}, {"started_at": None}])
def test_a_row_that_is_none_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError, AttributeError)):
        ingestion_runs([{**ROW, **wrong}], 7.0)


def test_a_client_is_one_connection_for_its_whole_life() -> None:
    found = fetches(
        [
            rest(1.0, "a:1"),
            rest(2.0, "a:2"),
            rest(1.0 + IDLE, "a:1"),
            rest(1.0 + 2 * IDLE + 0.1, "a:1"),
            {"t": 30.0, "kind": "start"},
            rest(30.5, "a:1", 100.0),
            {"t": 31.0, "kind": "connections", "conns": []},
        ]
    )
    first, other, again, later, restarted = (one.client for one in found)
    assert first == again and len({first, other, later, restarted}) == 4
    assert found[-1].seconds == 0.1


def test_a_slow_call_is_no_idle_connection() -> None:
    found = fetches([rest(1.0, "a:1"), rest(30.0, "a:1", 25_000.0)])
    assert found[0].client == found[1].client


def test_silence_is_a_hole() -> None:
    beats = [{"t": float(at), "kind": "connections"} for at in (0, 2, 4, 20, 22)]
    assert exchange_coverage(beats) == [
        Coverage("exchange", 0.0, 4.0, 2.0),
        Coverage("exchange", 20.0, 22.0, 2.0),
    ]
    assert exchange_coverage([]) == []


@given(st.lists(st.integers(0, 200), max_size=30), st.integers(1, 20))
def test_every_covered_moment_lies_close_to_two_looks(times: list[int], gap: int) -> None:
    found = looked("x", map(float, times), float(gap))
    for one, following in zip(found, found[1:], strict=False):
        assert following.since - one.until > gap
    for one in found:
        assert {one.since, one.until} <= set(times) and 0 <= one.resolution_s <= gap


def test_a_single_look_covers_nothing() -> None:
    assert looked("x", [3.0], 5.0) == []


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c"])), max_size=20))
def test_stays_are_the_runs_of_consecutive_sightings(seen: list[set[str]]) -> None:
    found = sampled(
        "processes",
        [(float(at), [(who, f"clock of {who}") for who in one]) for at, one in enumerate(seen)],
        0.1,
    )
    for at, one in enumerate(seen):
        assert {stay.who for stay in found if stay.start <= at <= (stay.end or 0.0)} == one
    for stay in found:
        assert stay.clock == f"clock of {stay.who}" and stay.error_s == 0.1
        assert stay.end is not None and (stay.end + 1 >= len(seen) or stay.who not in seen[int(stay.end) + 1])


def test_sessions_last_up_to_the_last_sign_of_life() -> None:
    found = exchange_activity([Session(3, "exit1", 1.0, 5.0, True)], "inet", 0.2)
    assert found == [Activity("exchange", "exit1 #3", 1.0, 5.0, True, "inet", 0.2)]


def test_task_runs_stand_on_the_clock_of_their_node() -> None:
    runs = [Interval("abcdef0123", "c3", 1.0, None, True), Interval("fedcba9876", "c4", 0.0, 0.5, False)]
    assert task_activity(runs, 0.05) == [
        Activity("tasks", "abcdef01 on c3", 1.0, None, True, "c3", 0.05),
        Activity("tasks", "fedcba98 on c4", 0.0, 0.5, False, "c4", 0.05),
    ]
