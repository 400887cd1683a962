from __future__ import annotations

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
