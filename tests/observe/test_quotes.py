"""What the exchange stand-in logs as sent, and what the worker stand-in makes of it, must be spelt alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.history.shapes import Quote, Stored
from fixtures.observe import quotes, stored
from fixtures.workloads.exchange import market
from fixtures.workloads.exchange.app import create_app
from fixtures.workloads.exchange.venue import Venue
from fixtures.workloads.jsonlog import Log, Ndjson
from fixtures.workloads.worker.config import Config
from fixtures.workloads.worker.frames import parse_frame
from fixtures.workloads.worker.rest import Rest

NOW = 1_770_000_123_456
PAIRS = {"XAUT-USDT": ("Gold-USDT", "XAUTUSDT")}
STREAMS = {
    "trade": "bingx_trades",
    "ticker": "bingx_ticker",
    "markPrice": "bingx_mark_price",
    "depth5": "bingx_orderbook",
    "kline_1m": "bingx_candles",
}


def rows_of(parsed: Any, pair: str) -> stored.Rows:
    written = stored.stamp(NOW / 1000)
    return {
        table.name: {
            pair: [
                {**row, "updated_at": written}
                for row in parsed.rows.get(table.name, ())
                if row["pair"] == pair
            ]
        }
        for table in stored.TABLES
    }


@given(st.sampled_from(sorted(STREAMS)), st.integers(1_600_000_000_000, 1_900_000_000_000))
def test_a_frame_and_its_row_are_spelt_alike(stream: str, moment: int) -> None:
    data = market.frame("XAUT-USDT", stream, moment)
    record = {"kind": "quote", "symbol": "XAUT-USDT", "stream": stream, "data": data}
    sent = quotes.sent([record, {"kind": "rest"}, record], PAIRS)
    assert [one.feed for one in sent] == [STREAMS[stream]] * 2 and {one.pair for one in sent} == {
        "Gold-USDT", "XAUTUSDT",
    }  # fmt: skip
    text = json.dumps({"dataType": f"XAUT-USDT@{stream}", "data": data})
    parsed = parse_frame(text, lambda symbol: ["XAUTUSDT"], moment / 1000, lambda pair: 1.0)
    found = quotes.stored(rows_of(parsed, "XAUTUSDT"), 0.0)
    assert [(one.feed, one.t_ms, one.value) for one in found] == [
        (one.feed, one.t_ms, one.value) for one in sent if one.pair == "XAUTUSDT"
    ]


@pytest.mark.anyio
async def test_every_rest_answer_is_told_and_is_what_its_rows_hold(tmp_path: Path) -> None:
    log = tmp_path / "log"
    venue = Venue(["XAUT-USDT"], Ndjson(str(log)), clock=lambda: NOW)
    app = create_app(venue, Log("exchange"), tick_s=1, ping_s=1, summary_s=60)
    rest = Rest(Config(http_retries=0), lambda pair, price: None, httpx.ASGITransport(app=app))
    await rest.ticker("XAUTUSDT")
    venue.quote(60)
    parsed = await rest.klines("XAUTUSDT", "1m", None)
    await rest.klines("XAUTUSDT", "5m", None)
    for call in (rest.orderbook, rest.trades, rest.funding, rest.open_interest, rest.mark_index, rest.ticker):
        parsed.merge(await call("XAUTUSDT"))
    await rest.close()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(one["kind"] == "quote" for one in records) == 7
    sent = quotes.sent(records, {"XAUT-USDT": ("XAUTUSDT",)})
    found = quotes.stored(rows_of(parsed, "XAUTUSDT"), 0.0)
    assert {(one.feed, one.t_ms, one.value) for one in found} == {
        (one.feed, one.t_ms, one.value) for one in sent
    }
    assert {one.feed for one in found} == set(stored.FEEDS)
    assert quotes.unmatched(found, sent, ["XAUTUSDT"]) == []
    assert quotes.matched(found, sent) == len(found)
    assert len(quotes.unmatched(found, sent, ["XAUTUSDT", "BTC-USDT"])) == len(stored.FEEDS)


def test_a_price_that_was_changed_is_another_price() -> None:
    sent = [Quote("P", "bingx_ticker", 1, quotes.number("65000.123456"))]
    assert quotes.matched([Stored("P", "bingx_ticker", 1, quotes.number(65000.123456))], sent) == 1
    assert quotes.matched([Stored("P", "bingx_ticker", 1, quotes.number(65000.0))], sent) == 0


def test_old_candles_and_repeated_index_prices_are_no_figures() -> None:
    at = stored.stamp(NOW / 1000)
    candle = {
        "open_time": at,
        "close_time": at,
        "updated_at": at,
        **dict.fromkeys(("open", "high", "low"), 1),
    }
    mark = {"captured_at": at, "mark_price": 2, "index_price": 1, "source": "bingx_ws", "updated_at": at}
    rows: dict[str, dict[str, list[dict[str, object]]]] = {table.name: {} for table in stored.TABLES}
    rows["bingx_candles"]["P"] = [{**candle, "close": 1, "volume": 1}]
    rows["bingx_mark_index_prices"]["P"] = [mark]
    late = quotes.stored(rows, NOW / 1000 + 1)
    assert [(one.feed, one.value) for one in late] == [("bingx_mark_price", "2.0")]
    assert len(quotes.stored(rows, NOW / 1000)) == 2


def test_a_row_that_cannot_be_read_is_not_what_was_sent() -> None:
    rows: dict[str, dict[str, list[dict[str, object]]]] = {table.name: {} for table in stored.TABLES}
    rows["bingx_tickers"]["P"] = [{"captured_at": stored.stamp(1.0), "last_price": None}]
    (one,) = quotes.stored(rows, 0.0)
    assert one.value.startswith("unreadable")


def test_a_strange_record_is_no_evidence() -> None:
    with pytest.raises(ProbeError, match="no quote"):
        quotes.sent([{"kind": "quote", "symbol": "X", "stream": "ticker", "data": {}}], {})
