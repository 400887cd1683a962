from __future__ import annotations

import pytest

from fixtures.errors import Unknown
from fixtures.target import pairs
from fixtures.target.cadence import PASS, cadence
from fixtures.target.egress import BUSY
from fixtures.workloads import feeds


def test_bounds_follow_the_workers_own_periods() -> None:
    found = cadence(
        {
            "BINGX_MARKET_DATA_INTERVAL_MIN": "0.1",
            "DATA_SOURCE_MONITOR_INTERVAL_MIN": "0.1",
            "DATA_GAP_MONITOR_INTERVAL_MIN": "0.15",
        }
    )
    assert (found.cycle, found.sources, found.gaps) == (6.0, 6.0, 9.0)
    assert found.advance() == 3 * 6 + BUSY
    assert found.rows() == 2 * 6
    assert found.noticed() == 2 * 6 + PASS
    assert found.gap_noticed() == 2 * 9 + PASS


def test_defaults_are_the_applications() -> None:
    assert cadence({}) == cadence({"DATA_GAP_MONITOR_INTERVAL_MIN": "15"})
    assert (cadence({}).cycle, cadence({}).sources, cadence({}).gaps) == (60, 300, 900)


def test_a_period_that_is_no_number_is_unknown() -> None:
    with pytest.raises(Unknown, match="DATA_GAP_MONITOR"):
        cadence({"DATA_GAP_MONITOR_INTERVAL_MIN": "soon"})


@pytest.mark.parametrize("scale", ["1", "0.5", "0.1", "0.001", "0.33", "2"])
def test_thresholds_are_those_that_the_stand_ins_hold(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pairs.SCALE_VARIABLE, scale)
    held = feeds.thresholds()
    assert pairs.thresholds(float(scale)) == {feed: held[feed] for feed in feeds.BINGX_THRESHOLDS}
