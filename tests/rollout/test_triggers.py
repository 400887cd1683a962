"""The rollback triggers as properties: a sound observation fires none, a seeded violation fires exactly its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fixtures.history.shapes import IngestionRun
from fixtures.rollout import triggers
from fixtures.rollout.triggers import (
    DUPLICATES,
    GUARD,
    INSTABILITY,
    MIN_CYCLES,
    TRIGGERS,
    WRITES,
    Evaluation,
    Guard,
    Incident,
    Look,
    Runs,
    Service,
    Write,
    evaluated,
)

CYCLE = 60.0
TERMS = triggers.thresholds(CYCLE)
GOOD = Service(wanted=2, good=2)
PARTS = ("writes", "api", "rl", "guard")
BAD: dict[str, Any] = {
    "writes": Write(ok=False, why="refused"),
    "api": Service(wanted=2, good=1, why="503"),
    "rl": Service(wanted=2, good=0, why="silence"),
    "guard": Guard(active=False, why="exits-none"),
}
OWN = {"writes": WRITES, "api": INSTABILITY, "rl": INSTABILITY, "guard": GUARD}
EVERY = round(CYCLE / TERMS.period)


def look(number: int, start: float = 1000.0, session: str = "a", **changes: Any) -> Look:
    """The look of a sound target, at its place in a series of `TERMS.period`."""
    began = start + number * TERMS.period
    runs = Runs(cycles=(began,)) if number % EVERY == 0 else None
    sound: dict[str, Any] = {
        "writes": Write(ok=True), "api": GOOD, "rl": GOOD, "guard": Guard(active=True), "runs": runs,
    }  # fmt: skip
    return Look(session=session, at=began, began=began, ended=began + 0.2, **{**sound, **changes})


def series(count: int, bad: dict[str, set[int]] | None = None) -> list[Look]:
    found = bad or {}
    return [
        look(number, **{part: BAD[part] for part, where in found.items() if number in where})
        for number in range(count)
    ]


LOOKS = 40 * EVERY
Test = Callable[..., None]


def given(*strategies: SearchStrategy[Any]) -> Callable[[Test], Test]:
    """``hypothesis.given``, on a machine that may be busy: how long a draw takes says nothing about the code."""

    def decorate(test: Test) -> Test:
        decided: Test = hypothesis.settings(
            max_examples=25, suppress_health_check=[hypothesis.HealthCheck.too_slow]
        )(hypothesis.given(*strategies)(test))
        return decided

    return decorate


BOUND = round(TERMS.sustained / TERMS.period)
"""Looks in a row that make a state sustained."""


@st.composite
def short_troubles(draw: st.DrawFn) -> dict[str, set[int]]:
    """Outages of each part, in sum below the bound within any window of twice the bound."""
    found: dict[str, set[int]] = {}
    for part in PARTS:
        where: set[int] = set()
        at = draw(st.integers(0, 30))
        while at < LOOKS - BOUND:
            where |= set(range(at, at + draw(st.integers(1, BOUND - 1))))
            at += 3 * BOUND + draw(st.integers(0, 60))
        found[part] = where
    return found


@given(short_troubles())
def test_short_troubles_fire_nothing(bad: dict[str, set[int]]) -> None:
    found = evaluated(series(LOOKS, bad), TERMS)
    assert not found.fired, found.fired
    assert found.failed_writes == len(bad["writes"])


@given(short_troubles(), st.sampled_from(PARTS), st.integers(0, 100), st.integers(BOUND + 1, 60))
def test_a_long_outage_fires_its_own_trigger_alone(
    bad: dict[str, set[int]], part: str, start: int, length: int
) -> None:
    bad[part] |= set(range(start, start + length))
    assert set(evaluated(series(LOOKS, bad), TERMS).fired) == {OWN[part]}


@given(st.sampled_from(PARTS), st.integers(1, BOUND - 1), st.integers(0, 30))
def test_what_comes_and_goes_every_other_moment_is_as_bad(part: str, half: int, start: int) -> None:
    where = {one for one in range(start, LOOKS - 2) if (one - start) // half % 2 == 0}
    assert set(evaluated(series(LOOKS, {part: where}), TERMS).fired) == {OWN[part]}


@given(short_troubles(), st.integers(0, LOOKS - 1))
def test_a_lost_write_needs_no_repetition(bad: dict[str, set[int]], at: int) -> None:
    looks = series(LOOKS, bad)
    looks[at] = looks[at].model_copy(update={"writes": Write(ok=False, lost=True, why="row 7")})
    found = evaluated(looks, TERMS)
    assert set(found.fired) == {WRITES}
    assert "row 7" in found.fired[WRITES].sentence


def test_a_failure_at_the_end_was_never_resolved() -> None:
    looks = series(LOOKS, {"writes": {LOOKS - 1}})
    going_on = Evaluation(TERMS)
    for one in looks:
        going_on.feed(one)
    assert not going_on.fired
    going_on.conclude()
    assert set(going_on.fired) == {WRITES}


@given(st.lists(st.floats(1000.0, 3000.0), min_size=1, max_size=6), short_troubles())
def test_duplicates_fire_when_repeated_at_another_time(
    moments: list[float], bad: dict[str, set[int]]
) -> None:
    incidents = tuple(Incident(at=at, kind="overlap", sentence=f"two at {at}") for at in sorted(moments))
    looks = series(LOOKS, bad)
    looks[EVERY] = look(
        EVERY,
        **{part: getattr(looks[EVERY], part) for part in PARTS},
        runs=Runs(cycles=(), incidents=incidents),
    )
    # Read again and again, one incident stays one.
    looks[2 * EVERY] = looks[2 * EVERY].model_copy(update={"runs": Runs(cycles=(), incidents=incidents)})
    times, last = 0, float("-inf")
    for at in sorted(moments):
        if at - last > CYCLE:
            times, last = times + 1, at
    found = evaluated(looks, TERMS)
    assert set(found.fired) == ({DUPLICATES} if times >= triggers.REPEATED else set())
    assert len(found.duplicates) == times


def test_an_api_is_not_blamed_for_a_store_that_fails() -> None:
    api = Service(wanted=2, good=0, store_errors=2, why="500")
    span = range(20, 20 + 2 * BOUND)

    def judged(**also: Any) -> set[str]:
        return set(
            evaluated(
                [look(n, **({"api": api, **also} if n in span else {})) for n in range(LOOKS)], TERMS
            ).fired
        )

    assert judged(writes=BAD["writes"]) == {WRITES}
    assert judged() == {INSTABILITY}
    # What is not answered at all is nobody's excuse.
    silent = api.model_copy(update={"store_errors": 0})
    assert judged(writes=BAD["writes"], api=silent) == {WRITES, INSTABILITY}


# -- what counts as observed ------------------------------------------------------------------------------------


def test_a_sound_series_is_observed_up_to_its_last_reading_of_the_run_log() -> None:
    found = evaluated(series(LOOKS), TERMS)
    assert found.observed == pytest.approx((LOOKS - EVERY) * TERMS.period)
    assert len(found.cycles) == LOOKS // EVERY


@given(st.sets(st.integers(0, LOOKS - 1), max_size=60), st.sampled_from(PARTS))
def test_what_was_not_seen_is_not_observed(unseen: set[int], part: str) -> None:
    gone: dict[str, Any] = {part: None}
    looks = [look(n, **(gone if n in unseen else {})) for n in range(LOOKS)]
    lost = sum(one < LOOKS - EVERY for one in unseen)
    assert evaluated(looks, TERMS).observed == pytest.approx((LOOKS - EVERY - lost) * TERMS.period)


@given(st.lists(st.integers(2 * EVERY, 8 * EVERY), min_size=1, max_size=4), st.data())
def test_pieces_count_what_they_saw_and_nothing_between_them(counts: list[int], data: st.DataObject) -> None:
    looks: list[Look] = []
    expected, start = 0.0, 1000.0
    for piece, count in enumerate(counts):
        # Also a monotonic clock that begins anew, as after a boot.
        start = data.draw(st.sampled_from([5.0, start + 1e5]))
        looks += [look(n, start, session=str(piece)) for n in range(count)]
        expected += (count - 1) // EVERY * EVERY * TERMS.period
    found = evaluated(looks, TERMS)
    assert found.observed == pytest.approx(expected)
    assert len(found.sessions) == len(counts)
    assert not found.fired


def test_a_hole_longer_than_the_sampling_period_is_not_observed() -> None:
    whole = [look(n) for n in range(2 * EVERY + 1)]
    late = [
        *whole[:3],
        *(one.model_copy(update={"began": one.began + 1000, "ended": one.ended + 1000}) for one in whole[3:]),
    ]
    # Of the look before the hole only its own time counts; the run log was read too long ago.
    assert evaluated(whole, TERMS).observed == pytest.approx(2 * CYCLE)
    assert evaluated(late, TERMS).observed == pytest.approx(CYCLE)


@pytest.mark.parametrize(("late", "counts"), [(0.0, True), (TERMS.period / 4, False)])
def test_a_short_hole_counts_for_the_look_before_it_alone(late: float, counts: bool) -> None:
    """Also when the run log, read before and after it, tells what happened meanwhile."""
    whole = [look(n) for n in range(EVERY + 1)]
    gap = TERMS.period - (whole[1].began - whole[0].ended) + late
    looks = [
        one.model_copy(update={"began": one.began + gap, "ended": one.ended + gap}) if n > 2 else one
        for n, one in enumerate(whole)
    ]
    seen = CYCLE + gap if counts else CYCLE - TERMS.period + 0.2
    assert evaluated(looks, TERMS).observed == pytest.approx(seen)


def test_figures_tell_the_longest_outage_and_the_sum() -> None:
    found = evaluated(series(LOOKS, {"api": {10, 11, 12, 50, 51}}), TERMS).figures()
    assert (found["api_bad_seconds"], found["api_longest_bad_seconds"]) == (50.0, 30.0)
    assert found["rl_bad_seconds"] == 0.0


def test_a_look_that_waits_for_an_answer_observes_meanwhile() -> None:
    """A hanging service makes looks long; that must not hide its outage as holes between looks."""
    found, at = [], 0.0
    for number in range(30):
        hung = number >= 5
        seconds = 3 * TERMS.period if hung else 0.1
        change = {"api": BAD["api"]} if hung else {}
        one = look(0, **change).model_copy(update={"began": at, "ended": at + seconds})
        found.append(one)
        at += max(seconds, TERMS.period)
    assert set(evaluated(found, TERMS).fired) == {INSTABILITY}


@given(short_troubles(), st.integers(1, LOOKS - 1))
def test_evaluating_goes_on_where_it_stopped(bad: dict[str, set[int]], cut: int) -> None:
    looks = series(LOOKS, bad)
    once, twice = Evaluation(TERMS), Evaluation(TERMS)
    for one in looks:
        once.feed(one)
    for one in looks[:cut]:
        twice.feed(one)
    for one in looks[cut:]:
        twice.feed(one)
    assert once.figures() == twice.figures()


def test_a_look_survives_its_record() -> None:
    for one in (look(0), look(1, writes=None, api=BAD["api"]), look(3, guard=None, runs=Runs(cycles=(1.5,)))):
        assert Look.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize(
    ("compression", "cycle", "seconds"), [(1.0, 60.0, 172_800.0), (1440.0, 6.0, 120.0), (1e6, 60.0, 1200.0)]
)
def test_never_fewer_than_enough_cycles(compression: float, cycle: float, seconds: float) -> None:
    assert triggers.required_seconds(compression, cycle) == seconds >= MIN_CYCLES * cycle


def test_looks_are_a_second_to_ten_apart_and_six_for_a_cycle() -> None:
    assert [triggers.thresholds(cycle).period for cycle in (6.0, 60.0, 0.5, 900.0)] == [1.0, 10.0, 1.0, 10.0]
    assert len(set(TRIGGERS)) == 4


# -- duplicates in the run log, by the contract ------------------------------------------------------------------


def run(name: str, feed: str, start: float, end: float | None, **changes: Any) -> IngestionRun:
    sound = IngestionRun(
        run=name, source_type="bingx", source_id=None, feed=feed, trigger="schedule",
        status="running" if end is None else "succeeded", started_at=start, finished_at=end, new_count=1,
        updated_count=0, error_summary=None, seen=0.0,
    )  # fmt: skip
    return dataclasses.replace(sound, **changes)


def log(cycles: int, cycle: float = CYCLE) -> list[IngestionRun]:
    """One sound worker: the lock's lane and two feeds, each cycle."""
    return [
        run(f"{feed}-{number}", feed, number * cycle, number * cycle + cycle / 4)
        for number in range(cycles)
        for feed in ("__bingx_cycle_lock__", "candles", "ticker")
    ]


def kinds(runs: Sequence[IngestionRun], cycle: float = CYCLE) -> list[tuple[float, str]]:
    return [(one.at, one.kind) for one in triggers.incidents(runs, triggers.thresholds(cycle).windows)]


@pytest.mark.parametrize("cycle", [6.0, 60.0])
def test_one_worker_makes_no_incident(cycle: float) -> None:
    assert kinds(log(40, cycle), cycle) == []


Spoil = Callable[[int], list[IngestionRun]]


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda n: [run(f"x{n}", "candles", n * CYCLE + 8, n * CYCLE + 20)], "overlap"),
        (lambda n: [run(f"x{n}", "candles", n * CYCLE + 20, n * CYCLE + 22)], "twice"),
        (lambda n: [run(f"x{n}", "__bingx_cycle_lock__", n * CYCLE + 30, n * CYCLE + 31, new_count=0)], "schedulers"),
        (lambda n: [run(f"candles-{n}", "candles", n * CYCLE, n * CYCLE + 40)], "zombie"),
    ],
    ids=["overlap", "twice", "schedulers", "zombie"],
)  # fmt: skip
def test_each_incident_is_told_once(spoil: Spoil, kind: str) -> None:
    for where in ([3], [3, 9], [3, 9, 20]):
        runs = log(30) + [one for number in where for one in spoil(number)]
        found = kinds(runs)
        assert [told for _, told in found] == [kind] * len(where)
        assert [round(at // CYCLE) for at, _ in found] == where
        assert all(later - earlier > CYCLE for (earlier, _), (later, _) in pairwise(found))


def test_a_long_run_is_overlapped_by_every_later_one() -> None:
    runs = [*log(3), run("stuck", "candles", 100.0, None), run("b", "candles", 400.0, 410.0)]
    runs += [run("c", "candles", 900.0, 910.0)]
    assert [kind for _, kind in kinds(runs)] == ["overlap"] * 3


def test_a_reclaimed_run_is_the_benign_look_alike() -> None:
    runs = [
        run("a", "candles", 0.0, 1800.0, status="failed", error_summary="timeout"),
        run("b", "candles", 1799.0, 1810.0),
    ]
    assert kinds(runs) == []
