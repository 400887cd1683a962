from __future__ import annotations

from fixtures.rollout.notices import LAG, STORE, Notice, Notices, _alerts, _gaps

AT = 1_772_532_000.0
STAMP = "2026-03-03T10:00:00.000Z"
EARLY = "2026-03-03T09:59:59.000Z"
FEEDS = ("bingx_ticker", "bingx_candles")


def silent(pair: str = "BTC-USDT", feed: str = "bingx_ticker", at: float = AT) -> Notice:
    return Notice(pair, feed, at)


def made(gaps: dict[str, tuple[Notice, ...]], alerts: dict[str, tuple[Notice, ...]]) -> Notices:
    return Notices({STORE: (), **gaps}, {STORE: (), **alerts})


def test_each_place_must_have_each_feed() -> None:
    every = tuple(silent(feed=feed) for feed in FEEDS)
    whole = made({STORE: every, "a": every}, {STORE: every, "a": every})
    assert whole.missing("btcusdt", FEEDS) == []
    assert len(made({}, {}).missing("BTC-USDT", FEEDS)) == 4
    lacking = made({STORE: every, "a": every[:1]}, {STORE: every, "a": every})
    assert lacking.missing("BTC-USDT", FEEDS) == ["a: no gap for bingx_candles"]
    assert len(whole.missing("ETH-USDT", FEEDS)) == 8


def test_a_hole_in_the_candles_is_no_silent_source() -> None:
    hole = Notice("BTC-USDT", "bingx_candles", AT, "1m")
    found = made({STORE: (hole,)}, {STORE: (silent(feed="bingx_candles"),)})
    assert found.missing("BTC-USDT", ["bingx_candles"]) == ["store: no gap for bingx_candles"]
    assert found.open_of("BTC-USDT") == ["store: bingx_candles 1m"]
    assert found.first(found.gaps, "BTC-USDT", "bingx_candles") is None


def test_others_first_and_last() -> None:
    found = made({}, {STORE: (silent(at=AT + 5), silent(at=AT), silent("ETH-USDT", at=AT + 7))})
    assert found.first(found.alerts, "BTC-USDT", "bingx_ticker") == AT
    assert found.last_alert("BTC-USDT") == AT + 5
    assert found.alerts_of_others("BTC-USDT", AT + 7) == ["ETH-USDT bingx_ticker"]
    assert found.alerts_of_others("BTC-USDT", AT + 6) == []


def test_rows_of_before_and_of_other_kinds_are_left_out() -> None:
    row = {"pair": "P", "source_type": "bingx_ticker", "interval": None, "detected_at": STAMP}
    assert _gaps([row, {**row, "detected_at": EARLY}, {**row, "detected_at": None}], AT) == (
        Notice("P", "bingx_ticker", AT),
    )
    alert: dict[str, object] = {
        "metric": LAG,
        "triggered_at": STAMP,
        "metadata": {"pair": "P", "source_type": "bingx_ticker"},
    }
    others = [
        {**alert, "metric": "slippage_bps"},
        {**alert, "triggered_at": EARLY},
        {**alert, "metadata": None},
    ]
    assert _alerts([alert, *others], AT) == (Notice("P", "bingx_ticker", AT),)
