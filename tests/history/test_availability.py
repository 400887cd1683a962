from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.availability import AvailabilityTerms, allowed, check_availability, outages
from fixtures.history.results import CheckResult
from fixtures.history.shapes import Sample
from fixtures.target import slo
from tests.history.made import frame, kinds


def samples(pattern: str) -> list[Sample]:
    """One sample a second: ``.`` good, ``x`` failed, blank none."""
    return [Sample("api", float(at), mark == ".") for at, mark in enumerate(pattern) if mark != " "]


def judge(
    found: list[Sample], at_least: float, longest_s: float, max_gap_s: float, **terms: object
) -> CheckResult:
    """Over the time from the first sample to the last, unless told otherwise."""
    times = [one.sent for one in found] or [0.0]
    asked = {
        "what": ("api",),
        "since": min(times),
        "until": max(times),
        "at_least": at_least,
        "longest_s": longest_s,
    }
    return check_availability(
        frame(Sample, *found), AvailabilityTerms.model_validate({**asked, "max_gap_s": max_gap_s, **terms})
    )


def check(pattern: str, at_least: float = 0.0, longest_s: float = 3.0) -> str:
    return judge(samples(pattern), at_least, longest_s, 1.5).outcome


def test_outages_have_a_floor_and_a_ceiling() -> None:
    assert outages(frame(Sample, *samples("..xxx.x"))).rows() == [
        (2.0, 4.0, 1.0, 5.0, 2.0, 4.0),
        (6.0, 6.0, 5.0, None, 0.0, None),
    ]


def test_verdicts() -> None:
    assert check("") == "unknown"
    assert check(".....") == "passed"
    assert check("..xx..") == "passed"
    assert check("..xxx..") == "failed"
    assert check("...x...", at_least=0.99) == "passed", "one is left to the network"
    assert check("...x..x.", at_least=0.99) == "failed"
    assert check("...x...", at_least=1.0) == "failed"
    assert check(".. ...") == "unknown", "an outage could hide between the samples"
    assert check("....x") == "unknown", "the outage may not be over"
    assert check("...xxxxxx") == "failed", "it is too long already"
    assert check("..xxx.. ..") == "failed", "failed beats unknown"


@pytest.mark.parametrize(
    ("bad", "samples", "outcome"),
    [
        (1, 500, "passed"),
        (2, 500, "failed"),
        (1, 1000, "passed"),
        (2, 1000, "failed"),
        (1, 2000, "passed"),
        (2, 2000, "passed"),
        (3, 2000, "failed"),
    ],
)
def test_one_call_in_a_thousand_is_left_to_the_network_and_one_of_fewer(
    bad: int, samples: int, outcome: str
) -> None:
    # Far apart, so that no outage is long.
    taken = [Sample("api", at / 10, at % 150 != 75 or at > 150 * bad) for at in range(samples)]
    assert sum(not one.ok for one in taken) == bad
    result = judge(taken, slo.API_AVAILABILITY, slo.API_LONGEST_OUTAGE, slo.API_SAMPLE_GAP)
    assert result.outcome == outcome
    assert {finding.kind for finding in result.findings} == ({"share"} if outcome == "failed" else set())


def test_a_lost_call_in_a_thousand_is_no_leave_for_an_outage() -> None:
    taken = [Sample("api", at * 0.6, at != 500) for at in range(1000)]
    assert set(kinds(judge(taken, slo.API_AVAILABILITY, slo.API_LONGEST_OUTAGE, slo.API_SAMPLE_GAP))) == {
        "outage"
    }


@pytest.mark.parametrize(
    ("samples", "at_least", "bad"), [(20, 0.9, 2), (10, 0.9, 1), (5, 0.9, 1), (7, 0.0, 7), (9, 1.0, 0)]
)
def test_how_many_may_be_bad(samples: int, at_least: float, bad: int) -> None:
    assert allowed(samples, at_least) == bad


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_every_failed_sample_lies_in_exactly_one_outage(marks: list[bool]) -> None:
    taken = [Sample("api", float(at), ok) for at, ok in enumerate(marks)]
    found = outages(frame(Sample, *taken)).select("first_failed", "last_failed").rows()
    for sample in taken:
        inside = [(first, last) for first, last in found if first <= sample.sent <= last]
        assert len(inside) == (0 if sample.ok else 1)


def test_only_good_samples_all_the_time_pass_with_figures() -> None:
    result = judge(samples("....."), 1.0, 0.0, 1.0)
    assert result.outcome == "passed"
    assert result.figures == {
        "api": {"samples": 5, "availability": 1.0, "outages": 0, "longest_outage_s": 0.0}
    }


steady = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=60)


def taken(pauses: list[float]) -> list[Sample]:
    """Good samples, each so many seconds after the one before."""
    now, found = 0.0, [Sample("api", 0.0, True)]
    for pause in pauses:
        now += pause
        found.append(Sample("api", now, True))
    return found


@given(steady, st.randoms(use_true_random=False))
def test_a_steady_service_passes_whatever_the_order_of_the_samples(
    pauses: list[float], random: object
) -> None:
    found = taken(pauses)
    random.shuffle(found)  # type: ignore[attr-defined]
    assert judge(found, 1.0, 0.0, 1.01).outcome == "passed"


@given(steady, st.data())
def test_any_seeded_outage_that_is_too_long_is_found(pauses: list[float], data: st.DataObject) -> None:
    found = taken(pauses)
    first = data.draw(st.integers(0, len(found) - 1))
    last = data.draw(st.integers(first, len(found) - 1))
    broken = [Sample("api", one.sent, not first <= index <= last) for index, one in enumerate(found)]
    known = first > 0 and last < len(found) - 1
    ceiling = broken[last + 1].sent - broken[first - 1].sent if known else math.inf
    floor = broken[last].sent - broken[first].sent
    allowed = data.draw(st.floats(0.0, 30.0))
    result = judge(broken, 0.0, allowed, 1.01)
    if (ceiling if known else floor) > allowed:
        assert result.outcome == "failed"
        evidence = result.findings[0].evidence[0]
        assert (evidence["first_failed"], evidence["last_failed"]) == (broken[first].sent, broken[last].sent)
    else:
        assert result.outcome == ("passed" if known else "unknown")


@given(steady, st.data())
def test_any_seeded_hole_in_the_samples_is_never_a_pass(pauses: list[float], data: st.DataObject) -> None:
    found = taken(pauses)
    after = data.draw(st.integers(1, len(found) - 1))
    hole = data.draw(st.floats(2.0, 100.0))
    gapped = [
        Sample("api", one.sent + (hole if index >= after else 0.0), one.ok) for index, one in enumerate(found)
    ]
    assert judge(gapped, 1.0, 0.0, 1.01).outcome == "unknown"


def test_the_edges_of_the_judged_time_need_samples_too() -> None:
    assert set(kinds(judge(samples("....."), 1.0, 0.0, 1.5, since=-2.0))) == {"gap"}
    assert set(kinds(judge(samples("....."), 1.0, 0.0, 1.5, until=6.0))) == {"gap"}
    assert judge(samples("....."), 1.0, 0.0, 1.5, since=-1.0, until=5.0).outcome == "passed"


def test_each_thing_asked_for_is_judged_and_one_never_sampled_is_unknown() -> None:
    both = [*samples("....."), *(Sample("frontend", one.sent, one.ok) for one in samples("..xxxx."))]
    told = judge(both, 0.0, 1.0, 1.5, what=("api", "frontend", "rl"), until=4.0)
    assert set(kinds(told, "failed")) == {"outage"} and set(kinds(told, "unknown")) == {"silent"}
    assert judge(both, 0.0, 1.0, 1.5, what=()).outcome == "unknown"


def test_the_share_is_of_all_samples_and_the_first_bad_outage_is_the_example() -> None:
    result = judge(samples("..xx...xxxx.."), 0.6, 2.0, 1.5)
    assert [finding.outcome for finding in result.findings] == ["failed", "failed"]
    assert result.figures["api"] == {
        "samples": 13,
        "availability": 0.538462,
        "outages": 2,
        "longest_outage_s": 5.0,
    }
    assert result.findings[1].evidence[0]["first_failed"] == 2.0 and result.findings[1].kind == "outage"


def test_two_hundred_thousand_samples_are_judged_at_once() -> None:
    many = [Sample("api", at / 10, at % 100_000 != 7) for at in range(200_000)]
    result = judge(many, 0.9999, 0.2001, 0.11)
    assert result.outcome == "passed" and "'outages': 2" in str(result.figures)
