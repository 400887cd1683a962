"""Which gap and which alert speaks against a fresh pair, by its times alone."""

from __future__ import annotations

import pytest

from fixtures.observe.stored import stamp
from fixtures.rollout.standing import Bounds, Row
from fixtures.target.cadence import PASS, Cadence

FRESH = 1_772_532_000.0
CADENCE = Cadence(cycle=6.0, sources=6.0, gaps=9.0)
BOUNDS = Bounds(FRESH, CADENCE, {})
TAKEN_BACK = CADENCE.gap_noticed()
NEXT_LOOK = TAKEN_BACK + CADENCE.gaps + PASS


def gap(end: float, seen: float, *, start: float = -600.0, interval: str | None = None) -> Row:
    times = {"gap_start": start, "gap_end": end, "last_seen_at": seen}
    spelt = {name: stamp(FRESH + at) for name, at in times.items()}
    return {"source_type": "bingx_open_interest", "interval": interval, **spelt}


def alert(at: float, lag: float = 130.0) -> Row:
    labels = {"pair": "P", "source_type": "bingx_open_interest"}
    return {"value": lag, "threshold": 120, "triggered_at": stamp(FRESH + at), "metadata": labels}


@pytest.mark.parametrize("interval", [None, "1m"])
@pytest.mark.parametrize(
    ("end", "seen", "kind"),
    [
        # It speaks of a time at which the pair was seen fresh.
        (PASS + 1, PASS + 1, "wrong"),
        (PASS + 1, -500, "wrong"),
        # The pass had looked before.
        (PASS - 1, PASS - 1, "open"),
        # Of before, and in the monitor's hands: it may still be taken back, or be confirmed.
        (-300, -1, "open"),
        (-300, TAKEN_BACK - 1, "open"),
        (-300, TAKEN_BACK + 1, "wrong"),
        # The last pass did not see it any more, or somebody else wrote it.
        (-300, -CADENCE.gaps - PASS - 1, "older"),
        (-86_400, -86_400, "older"),
    ],
)
def test_a_gap_is_judged_by_the_time_it_speaks_of(
    end: float, seen: float, kind: str, interval: str | None
) -> None:
    assert BOUNDS.gap(gap(end, seen, start=end - 60, interval=interval), FRESH + 10) == kind


def test_nothing_is_open_once_the_monitor_has_looked_after_all_its_time() -> None:
    assert BOUNDS.decided == FRESH + NEXT_LOOK
    row = gap(-300, -1)
    assert BOUNDS.gap(row, BOUNDS.decided - 1) == "open" and BOUNDS.gap(row, BOUNDS.decided) == "older"


def test_a_gap_without_times_says_nothing_of_the_present() -> None:
    assert BOUNDS.gap({"source_type": "bingx_ticker", "gap_end": "soon"}, FRESH) == "older"


def test_an_alert_is_judged_by_when_it_was_raised() -> None:
    assert BOUNDS.alert(alert(PASS + 0.1), FRESH + 10) == "wrong"
    assert BOUNDS.alert(alert(PASS - 0.1), FRESH + 10) == "open"
    assert BOUNDS.alert(alert(-1), FRESH + 10) == "open"
    assert BOUNDS.alert(alert(-1), FRESH + CADENCE.noticed()) == "older"
    assert BOUNDS.alert(alert(-CADENCE.sources - PASS - 1), FRESH + 10) == "older"


def test_a_feed_that_hovers_may_be_late_by_its_period_and_no_more() -> None:
    hovers = Bounds(FRESH, CADENCE, {"bingx_open_interest": 120.0})
    for late, kind in ((119.0, "older"), (121.0, "wrong")):
        end = PASS + 1
        assert hovers.gap(gap(end, end, start=end - late), FRESH + 10) == kind
        assert hovers.alert(alert(end, 120.0 + late), FRESH + 10) == kind
    hole = gap(PASS + 1, PASS + 1, start=PASS, interval="1m")
    assert hovers.gap(hole, FRESH + 10) == "wrong", "a hole in the candles is not lateness"
