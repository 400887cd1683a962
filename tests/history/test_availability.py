from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.availability import Outage, Sample, check_availability, outages


def samples(pattern: str) -> list[Sample]:
    """One sample a second: ``.`` good, ``x`` failed, blank none."""
    return [Sample(float(at), mark == ".") for at, mark in enumerate(pattern) if mark != " "]


def check(pattern: str, at_least: float = 0.0, longest_s: float = 3.0) -> str:
    return check_availability(samples(pattern), at_least=at_least, longest_s=longest_s, max_gap_s=1.5).outcome


def test_outages_have_a_floor_and_a_ceiling() -> None:
    found = outages(samples("..xxx.x"))
    assert found == [Outage(2, 4, 1, 5), Outage(6, 6, 5, None)]
    assert (found[0].floor_s, found[0].ceiling_s) == (2, 4)
    assert found[1].ceiling_s is None


def test_verdicts() -> None:
    assert check("") == "unknown"
    assert check(".....") == "passed"
    assert check("..xx..") == "passed"
    assert check("..xxx..") == "failed"
    assert check("...x...", at_least=0.99) == "failed"
    assert check(".. ...") == "unknown", "an outage could hide between the samples"
    assert check("....x") == "unknown", "the outage may not be over"
    assert check("...xxxxxx") == "failed", "it is too long already"
    assert check("..xxx.. ..") == "failed", "failed beats unknown"


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_every_failed_sample_lies_in_exactly_one_outage(marks: list[bool]) -> None:
    taken = [Sample(float(at), ok) for at, ok in enumerate(marks)]
    found = outages(reversed(taken))
    for sample in taken:
        inside = [one for one in found if one.first_failed <= sample.at <= one.last_failed]
        assert len(inside) == (0 if sample.ok else 1)


def test_only_good_samples_all_the_time_pass_with_figures() -> None:
    result = check_availability(samples("....."), at_least=1.0, longest_s=0.0, max_gap_s=1.0)
    assert result.outcome == "passed"
    assert result.figures == {"samples": 5, "availability": 1.0, "outages": 0, "longest_outage_s": 0.0}


steady = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=60)


def taken(pauses: list[float]) -> list[Sample]:
    """Good samples, each so many seconds after the one before."""
    now, found = 0.0, [Sample(0.0, True)]
    for pause in pauses:
        now += pause
        found.append(Sample(now, True))
    return found


@given(steady, st.randoms(use_true_random=False))
def test_a_steady_service_passes_whatever_the_order_of_the_samples(
    pauses: list[float], random: object
) -> None:
    found = taken(pauses)
    random.shuffle(found)  # type: ignore[attr-defined]
    assert check_availability(found, at_least=1.0, longest_s=0.0, max_gap_s=1.01).outcome == "passed"


@given(steady, st.data())
def test_any_seeded_outage_that_is_too_long_is_found(pauses: list[float], data: st.DataObject) -> None:
    found = taken(pauses)
    first = data.draw(st.integers(0, len(found) - 1))
    last = data.draw(st.integers(first, len(found) - 1))
    broken = [Sample(one.at, not first <= index <= last) for index, one in enumerate(found)]
    known = first > 0 and last < len(found) - 1
    ceiling = broken[last + 1].at - broken[first - 1].at if known else math.inf
    floor = broken[last].at - broken[first].at
    allowed = data.draw(st.floats(0.0, 30.0))
    result = check_availability(broken, at_least=0.0, longest_s=allowed, max_gap_s=1.01)
    if (ceiling if known else floor) > allowed:
        assert result.outcome == "failed"
        evidence = result.findings[0].evidence[0]
        assert (evidence["first_failed"], evidence["last_failed"]) == (broken[first].at, broken[last].at)
    else:
        assert result.outcome == ("passed" if known else "unknown")


@given(steady, st.data())
def test_any_seeded_hole_in_the_samples_is_never_a_pass(pauses: list[float], data: st.DataObject) -> None:
    found = taken(pauses)
    after = data.draw(st.integers(1, len(found) - 1))
    hole = data.draw(st.floats(2.0, 100.0))
    gapped = [Sample(one.at + (hole if index >= after else 0.0), one.ok) for index, one in enumerate(found)]
    assert check_availability(gapped, at_least=1.0, longest_s=0.0, max_gap_s=1.01).outcome == "unknown"


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf])
def test_a_sample_without_a_time_is_unknown(at: float) -> None:
    found = [Sample(0.0, True), Sample(at, True)]
    assert check_availability(found, at_least=0.0, longest_s=9.0, max_gap_s=9.0).outcome == "unknown"


def test_the_share_is_of_all_samples_and_the_first_bad_outage_is_the_example() -> None:
    result = check_availability(samples("..xx...xxxx.."), at_least=0.6, longest_s=2.0, max_gap_s=1.5)
    assert [finding.outcome for finding in result.findings] == ["failed", "failed"]
    assert result.figures == {"samples": 13, "availability": 0.538462, "outages": 2, "longest_outage_s": 5.0}
    assert result.findings[1].evidence[0]["first_failed"] == 2.0


def test_two_hundred_thousand_samples_are_judged_at_once() -> None:
    many = [Sample(at / 10, at % 100_000 != 7) for at in range(200_000)]
    result = check_availability(many, at_least=0.9999, longest_s=0.2001, max_gap_s=0.11)
    assert result.outcome == "passed" and result.figures["outages"] == 2
