from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.singleton import Interval, check_singleton, proven_overlaps

spans = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100)), min_size=1, max_size=40)


def series(lengths: list[tuple[int, int]]) -> list[Interval]:
    """Intervals one after the other: each of the given length, then the given pause."""
    now, found = 0, []
    for number, (length, pause) in enumerate(lengths):
        found.append(Interval(f"alloc-{number}", now, now + length))
        now += length + pause
    return found


def together(intervals: list[Interval]) -> bool:
    """The definition, by brute force: some interval is active at the start of another."""
    return any(
        a is not b and b.start <= a.start and (a.start < (math.inf if b.end is None else b.end))
        for a in intervals
        for b in intervals
    )


def test_nothing_is_unknown() -> None:
    assert check_singleton([]).outcome == "unknown"


@given(spans, st.randoms(use_true_random=False))
def test_a_series_passes_in_any_order(lengths: list[tuple[int, int]], random: object) -> None:
    intervals = series(lengths)
    random.shuffle(intervals)  # type: ignore[attr-defined]
    result = check_singleton(intervals)
    assert result.outcome == "passed"
    assert result.figures["overlaps"] == 0
    assert result.figures["longest_gap_s"] == max([0, *(pause for _, pause in lengths[:-1])])


@given(spans, st.data())
def test_any_seeded_second_one_is_found(lengths: list[tuple[int, int]], data: st.DataObject) -> None:
    intervals = series(lengths)
    victim = data.draw(st.sampled_from(intervals))
    assert victim.end is not None
    start = data.draw(st.floats(victim.start, victim.end, exclude_max=True))
    end = data.draw(st.none() | st.floats(start, start + 1000, exclude_min=True))
    intruder = Interval("intruder", start, end)
    result = check_singleton([*intervals, intruder])
    assert result.outcome == "failed"
    evidence = [Interval(**one) for one in result.findings[0].evidence]  # type: ignore[arg-type]
    assert len(evidence) == 2 and set(evidence) <= {*intervals, intruder}
    # The counter-example stands on its own: the two alone fail as well.
    assert check_singleton(evidence).outcome == "failed"


@given(
    st.lists(
        st.builds(
            lambda who, start, length: Interval(f"a{who}", start, None if length is None else start + length),
            st.integers(0, 99),
            st.integers(0, 30),
            st.none() | st.integers(1, 10),
        ),
        min_size=1,
        max_size=12,
        unique=True,
    )
)
def test_it_agrees_with_the_definition(intervals: list[Interval]) -> None:
    assert (check_singleton(intervals).outcome == "failed") == together(intervals)


def test_two_that_still_run_have_no_length() -> None:
    result = check_singleton([Interval("a", 1.0), Interval("b", 2.0)])
    assert result.outcome == "failed"
    assert result.figures["longest_overlap_s"] is None
    assert "still" in result.findings[0].sentence


def test_touching_is_not_overlapping() -> None:
    assert check_singleton([Interval("a", 0, 5), Interval("b", 5, 6)]).outcome == "passed"


def test_an_end_nobody_saw_is_unknown_if_another_follows() -> None:
    lost = Interval("a", 0, None, alive=False)
    assert check_singleton([lost, Interval("b", 5, 6)]).outcome == "unknown"
    assert check_singleton([Interval("b", -5, -1), lost]).outcome == "passed"


def test_a_lost_end_hides_no_overlap_of_two_others() -> None:
    found = [Interval("a", 0, None, alive=False), Interval("b", 5, 9), Interval("c", 7, 8)]
    assert check_singleton(found).outcome == "failed"
    # and it did run at its own start
    assert check_singleton([Interval("b", 0, 9), Interval("a", 4, None, alive=False)]).outcome == "failed"


@pytest.mark.parametrize(
    "bad",
    [Interval("a", 5, 4), Interval("a", math.nan, 4), Interval("a", 1, math.nan), Interval("a", -math.inf)],
)
def test_impossible_times_are_unknown(bad: Interval) -> None:
    assert check_singleton([bad]).outcome == "unknown"


def test_an_event_read_twice_is_one_event() -> None:
    assert check_singleton([Interval("a", 0, 5), Interval("a", 0, 5)]).outcome == "passed"


def test_the_counter_example_is_the_earliest_pair() -> None:
    found = proven_overlaps(
        [Interval("c", 10, 20), Interval("d", 15, 16), Interval("a", 0, 5), Interval("b", 4, 6)]
    )
    assert [(one.first.who, one.second.who, one.start, one.end) for one in found] == [
        ("a", "b", 4, 5),
        ("c", "d", 15, 16),
    ]


def test_a_hundred_thousand_intervals_are_judged_at_once() -> None:
    many = series([(1, 1)] * 100_000)
    assert check_singleton(many).outcome == "passed"
    assert check_singleton([*many, Interval("late", 150_000.5, 150_000.75)]).outcome == "failed"
