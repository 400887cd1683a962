from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from fixtures.history.results import CheckResult
from fixtures.history.shapes import Activity, Coverage
from fixtures.history.singleton import WITNESSES, SingletonTerms, check_singleton
from tests.history.made import frame, kinds, of

END = 1e6
spans = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100)), min_size=1, max_size=30)


def active(
    who: str,
    start: float,
    end: float | None = None,
    alive: bool = True,
    clock: str = "one",
    error_s: float = 0.0,
    witness: str = "tasks",
) -> Activity:
    return Activity(witness, who, start, end, alive, clock, error_s)


def series(lengths: list[tuple[int, int]], witness: str = "tasks") -> list[Activity]:
    """Intervals one after the other: each of the given length, then the given pause."""
    now, found = 0, []
    for number, (length, pause) in enumerate(lengths):
        found.append(active(f"alloc-{number}", now, now + length, witness=witness))
        now += length + pause
    return found


def judge(*found: Activity, coverage: list[Coverage] | None = None, **terms: object) -> CheckResult:
    witnesses = terms.setdefault("witnesses", ("tasks",))
    looked = [Coverage(one, -END, END) for one in witnesses] if coverage is None else coverage  # type: ignore[attr-defined]
    asked = SingletonTerms.model_validate({"since": -END, "until": END, **terms})
    return check_singleton(frame(Activity, *found), frame(Coverage, *looked), asked)


def together(intervals: list[Activity]) -> bool:
    """The definition, by brute force: some interval is active at the start of another."""
    return any(
        a is not b and b.start <= a.start and (a.start < (math.inf if b.end is None else b.end))
        for a in intervals
        for b in intervals
    )


def test_no_witness_and_a_silent_witness_are_unknown() -> None:
    assert judge(witnesses=()).outcome == "unknown"
    assert set(kinds(judge())) == {"silent"}
    assert set(kinds(judge(active("a", 0, 1), witnesses=("tasks", "store")))) == {"silent"}


@given(spans, st.randoms(use_true_random=False))
def test_a_series_passes_in_any_order_by_every_witness(
    lengths: list[tuple[int, int]], random: object
) -> None:
    found = [one for witness in WITNESSES for one in series(lengths, witness)]
    random.shuffle(found)  # type: ignore[attr-defined]
    result = judge(*found, witnesses=WITNESSES)
    assert result.outcome == "passed"
    for witness in WITNESSES:
        assert result.figures[witness] == {
            "intervals": len(lengths),
            "longest_overlap_s": 0.0,
            "longest_gap_s": max([0, *(pause for _, pause in lengths[:-1])]),
        }


@given(spans, st.sampled_from(WITNESSES), st.data())
def test_any_seeded_second_one_is_found_by_its_witness(
    lengths: list[tuple[int, int]], witness: str, data: st.DataObject
) -> None:
    found = [one for each in WITNESSES for one in series(lengths, each)]
    victim = data.draw(st.sampled_from([one for one in found if one.witness == witness]))
    assert victim.end is not None
    start = data.draw(st.floats(victim.start, victim.end - 0.01))
    # It ends before the next one starts: the counter-example can only be the seeded pair.
    end = data.draw(st.floats(start, victim.end))
    result = judge(*found, active("intruder", start, end, witness=witness), witnesses=WITNESSES)
    told = kinds(result)
    assert set(told) == {"overlap"} and told["overlap"].sentence.startswith(witness)
    assert set(of(told["overlap"], "who")) == {victim.who, "intruder"}
    others = [result.figures[each] for each in WITNESSES if each != witness]
    assert all(one == others[0] for one in others)


@given(
    st.lists(
        st.builds(
            lambda who, start, length: active(f"a{who}", start, None if length is None else start + length),
            st.integers(0, 99),
            st.integers(0, 30),
            st.none() | st.integers(1, 10),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda one: (one.who, one.start),
    )
)
def test_it_agrees_with_the_definition(intervals: list[Activity]) -> None:
    assert (judge(*intervals).outcome == "failed") == together(intervals)


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0.1, 5), st.sampled_from(["one", "two", "three"])),
        min_size=2,
        max_size=8,
    ),
    st.data(),
)
def test_no_clock_error_within_its_bound_makes_two_of_one(
    found: list[tuple[float, float, str]], data: st.DataObject
) -> None:
    """Clocks that are off by no more than they admit never turn a series into a failure, nor an overlap into a pass."""
    truth = [
        active(f"a{n}", start, start + length, clock=clock) for n, (start, length, clock) in enumerate(found)
    ]
    errors = {clock: data.draw(st.floats(0, 2), label=clock) for clock in ("one", "two", "three")}
    shifts = {clock: data.draw(st.floats(-error, error)) for clock, error in errors.items()}
    told = [
        active(
            one.who,
            one.start + shifts[one.clock],
            (one.end or 0) + shifts[one.clock],
            clock=one.clock,
            error_s=errors[one.clock] + 1e-9,
        )
        for one in truth
    ]
    # An instant shared on paper within rounding is neither here nor there.
    depth = [b.start - a.start for a in truth for b in truth if a is not b and a.start <= b.start]
    assume(not any(abs(one - (a.end or 0) + a.start) < 1e-6 for one in depth for a in truth))
    outcome = judge(*told).outcome
    assert outcome != ("passed" if together(truth) else "failed")


def test_two_that_still_run_have_no_length() -> None:
    result = judge(active("a", 1.0), active("b", 2.0))
    assert result.outcome == "failed"
    assert result.figures["tasks"] == {"intervals": 2, "longest_overlap_s": None, "longest_gap_s": 0.0}
    assert "still" in result.findings[0].sentence


def test_touching_is_not_overlapping_on_one_clock_and_doubtful_on_two() -> None:
    assert judge(active("a", 0, 5), active("b", 5, 6)).outcome == "passed"
    two = (active("a", 0, 5, clock="x", error_s=0.01), active("b", 5.005, 6, clock="y", error_s=0.01))
    assert set(kinds(judge(*two))) == {"doubtful"}
    assert judge(two[0], active("b", 5.021, 6, clock="y", error_s=0.01)).outcome == "passed"
    assert judge(two[0], active("b", 4.979, 6, clock="y", error_s=0.01)).outcome == "failed"
    assert judge(*(active(one.who, one.start, one.end, error_s=0.01) for one in two)).outcome == "passed"


def test_an_interval_without_length_shares_its_instant() -> None:
    assert judge(active("a", 0, 5), active("b", 3, 3)).outcome == "failed"
    assert judge(active("a", 0, 0), active("b", 0, 5)).outcome == "failed"


def test_a_stated_bound_is_allowed_and_no_more() -> None:
    pair = (active("a", 0, 10), active("b", 8, 20))
    result = judge(*pair)
    assert result.outcome == "failed" and "for 2.000 s" in result.findings[0].sentence
    assert result.figures["tasks"] == {"intervals": 2, "longest_overlap_s": 2.0, "longest_gap_s": 0.0}
    assert "for 3.000 s" in judge(pair[0], active("b", 5, 8)).findings[0].sentence
    assert judge(*pair, allowed_s={"tasks": 2.0}).outcome == "passed"
    assert judge(*pair, allowed_s={"tasks": 1.9}).outcome == "failed"
    assert judge(*pair, allowed_s={"store": 9.0}).outcome == "failed"
    other = active("b", 8, 20, clock="two", error_s=0.2)
    assert set(kinds(judge(pair[0], other, allowed_s={"tasks": 1.9}))) == {"doubtful"}
    assert judge(pair[0], other, allowed_s={"tasks": 2.2}).outcome == "passed"


def test_an_end_nobody_saw_is_unknown_if_another_follows() -> None:
    lost = active("a", 0, None, alive=False)
    assert set(kinds(judge(lost, active("b", 5, 6)))) == {"lost"}
    assert judge(active("b", -5, -1), lost).outcome == "passed"
    assert judge(active("a", 0, 5, alive=False), active("b", 5, 6)).outcome == "passed"


def test_a_lost_end_hides_no_overlap_of_two_others() -> None:
    assert judge(active("a", 0, None, alive=False), active("b", 5, 9), active("c", 7, 8)).outcome == "failed"
    assert judge(active("b", 0, 9), active("a", 4, None, alive=False)).outcome == "failed"


def test_impossible_times_are_unknown() -> None:
    assert set(kinds(judge(active("a", 5, 4)))) == {"impossible"}


def test_the_last_sighting_counts() -> None:
    assert judge(active("a", 0), active("a", 0, 5), active("b", 5, 6)).outcome == "passed"
    assert judge(active("a", 0, 3), active("a", 0, 6), active("b", 5, 6)).outcome == "failed"


def test_the_counter_example_is_the_earliest_pair() -> None:
    result = judge(active("c", 10, 20), active("d", 15, 16), active("a", 0, 5), active("b", 4, 6))
    assert of(result.findings[0], "who") == ["a", "b"]


@given(spans, st.data())
def test_a_time_nobody_looked_at_is_never_a_pass(lengths: list[tuple[int, int]], data: st.DataObject) -> None:
    cut = data.draw(st.floats(-1000, 1000))
    looked = [Coverage("tasks", -END, cut), Coverage("tasks", cut + 0.5, END)]
    assert set(kinds(judge(*series(lengths), coverage=looked))) == {"uncovered"}
    assert (
        judge(*series(lengths), coverage=[*looked, Coverage("tasks", cut - 1, cut + 1)]).outcome == "passed"
    )
    rare = [Coverage("tasks", -END, END, resolution_s=5.0)]
    assert set(kinds(judge(*series(lengths), coverage=rare))) == {"uncovered"}
    assert judge(*series(lengths), coverage=rare, max_resolution_s=5.0).outcome == "passed"


def test_only_the_judged_time_counts() -> None:
    pair = (active("a", 0, 5), active("b", 4, 6), active("c", 50, 60))
    assert judge(*pair, since=10.0, until=100.0).outcome == "passed"
    assert judge(*pair, since=4.5, until=100.0).outcome == "failed"


def test_fifty_thousand_intervals_are_judged_at_once() -> None:
    many = series([(1, 1)] * 50_000)
    assert judge(*many).outcome == "passed"
    assert judge(*many, active("late", 50_000.5, 50_000.75)).outcome == "failed"
