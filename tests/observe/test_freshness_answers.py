from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.observe import freshness
from fixtures.observe.freshness import Item, MalformedAnswer, judged_status
from fixtures.observe.stored import stamp

NOW = "2026-03-03T10:00:00.000Z"
AT = 1_772_532_000.0
ITEM: dict[str, Any] = {
    "pair": "BTC-USDT", "source_type": "bingx_ticker", "enabled": True, "status": "ok", "last_seen_at": NOW,
    "freshness_threshold_seconds": 120, "updated_at": NOW,
}  # fmt: skip


def ingestion(*feeds: dict[str, Any]) -> dict[str, Any]:
    own = [{name: value for name, value in one.items() if name not in {"pair", "enabled"}} for one in feeds]
    return {"generated_at": NOW, "bingx": {"pairs": [{"pair": "BTC-USDT", "feeds": own}]}}


def test_both_shapes_tell_the_same() -> None:
    item = Item(AT, "ok", 120.0, True, AT)
    assert freshness.answered(freshness.DATA_SOURCES, [ITEM]) == {("BTC-USDT", "bingx_ticker"): item}
    told = freshness.answered(freshness.INGESTION, ingestion(ITEM))
    assert told == {("BTC-USDT", "bingx_ticker"): Item(AT, "ok", 120.0, None, AT)}


def test_what_never_was_is_called_ok_and_has_no_time() -> None:
    told = freshness.answered(freshness.MARKET_DATA, [{**ITEM, "last_seen_at": None, "updated_at": None}])
    assert told["BTC-USDT", "bingx_ticker"] == Item(None, "ok", 120.0, True, None)


@pytest.mark.parametrize(
    "broken",
    [
        None, {}, "x", [None], [{}], [ITEM, ITEM], [{**ITEM, "status": None}], [{**ITEM, "last_seen_at": "now"}],
        [{**ITEM, "freshness_threshold_seconds": "120"}], [{**ITEM, "freshness_threshold_seconds": True}],
        [{**ITEM, "enabled": "yes"}], [{**ITEM, "updated_at": 5}],
    ],
)  # fmt: skip
def test_another_shape_is_no_answer(broken: Any) -> None:
    with pytest.raises(MalformedAnswer):
        freshness.answered(freshness.DATA_SOURCES, broken)


@pytest.mark.parametrize("broken", [None, [], {}, {"bingx": {}}, {"bingx": {"pairs": [{"pair": "x"}]}}])
def test_ingestion_status_of_another_shape_is_no_answer(broken: Any) -> None:
    with pytest.raises(MalformedAnswer):
        freshness.answered(freshness.INGESTION, broken)


@given(st.floats(0, 1000), st.floats(0, 5), st.floats(1, 900))
def test_the_word_that_an_honest_endpoint_would_say_is_always_allowed(
    age: float, asked: float, threshold: float
) -> None:
    sent, received, last_seen = AT, AT + asked, AT - age
    for moment in (sent, (sent + received) / 2, received):
        word = "stale" if moment - last_seen > threshold else "ok"
        assert word in judged_status(last_seen, threshold, sent, received)
    if age > threshold:
        assert judged_status(last_seen, threshold, sent, received) == {"stale"}
    if age + asked < threshold - 0.001:
        assert judged_status(last_seen, threshold, sent, received) == {"ok"}


def test_nothing_is_unavailable_and_the_future_may_be_called_either() -> None:
    assert judged_status(None, 120, AT, AT) == {"unavailable"}
    assert judged_status(AT + 10, 120, AT, AT + 1) == {"ok", "unavailable"}


CANDLE = {
    "pair": "BTC-USDT", "interval": "1m", "open_time": NOW, "close_time": stamp(AT + 60), "open": "1", "high": 2,
    "low": 1, "close": 1.5, "volume": 3,
}  # fmt: skip


def test_candles_by_their_opening_whatever_the_spelling_of_numbers() -> None:
    told = freshness.candles({"data": [CANDLE]}, "btcusdt")
    assert told == {AT: (AT + 60, 1.0, 2.0, 1.0, 1.5, 3.0)}


@pytest.mark.parametrize(
    "broken",
    [
        None, [], {"data": None}, {"data": [{**CANDLE, "pair": "ETH-USDT"}]}, {"data": [CANDLE, CANDLE]},
        {"data": [CANDLE, {**CANDLE, "open_time": stamp(AT - 60)}]}, {"data": [{**CANDLE, "open_time": None}]},
        {"data": [{**CANDLE, "close": None}]}, {"data": [{"pair": "BTC-USDT"}]}, {"data": [None]},
    ],
)  # fmt: skip
def test_candles_of_another_shape_are_none(broken: Any) -> None:
    with pytest.raises(MalformedAnswer):
        freshness.candles(broken, "BTC-USDT")


@given(st.integers(0, 59), st.sets(st.integers(0, 9)))
def test_every_minute_that_is_missing_before_the_newest_is_found_and_no_other(
    second: int, gone: set[int]
) -> None:
    opened = [AT + 60 * number for number in range(-5, 10) if number not in gone]
    newest = max(opened)
    wanted = [AT + 60 * number for number in sorted(gone) if AT + 60 * number < newest]
    assert freshness.missing(opened, AT + second, 60.0) == wanted


def test_nothing_is_missing_of_nothing() -> None:
    assert freshness.missing([], AT, 60.0) == []
