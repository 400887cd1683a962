from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.observe import stored
from fixtures.observe.convex import ConvexProbe
from fixtures.observe.recording import InMemory


def probe(value: Any, asked: list[Any], **by_function: Any) -> ConvexProbe:
    """Answers every question alike, but for the functions that are named by their last word."""

    def answer(request: httpx.Request) -> httpx.Response:
        question = json.loads(request.content)
        asked.append(question["args"])
        own = by_function.get(question["path"].partition(":")[2], value)
        return httpx.Response(200, json={"status": "success", "value": own})

    return ConvexProbe("http://convex.test", InMemory(), httpx.MockTransport(answer))


def test_a_question_to_the_store() -> None:
    asked: list[Any] = []
    convex = probe({"data": [{"id": 1}]}, asked)
    assert stored.select(convex, "t", [("a", "gte", "x")], newest_by="at", limit=3) == [{"id": 1}]
    assert asked == [
        {
            "table": "t",
            "filters": [{"field": "a", "op": "gte", "value": "x"}],
            "order": {"field": "at", "direction": "desc"},
            "limit": 3,
        }
    ]
    with pytest.raises(ProbeError):
        stored.select(probe(None, []), "t")


def test_every_table_of_every_pair_is_read() -> None:
    asked: list[Any] = []
    rows = stored.market_rows(probe({"data": []}, asked, listByRange=[{"n": 1}]), ["P", "Q"], 5)
    assert len(asked) == 14 and {pair for table in rows.values() for pair in table} == {"P", "Q"}
    assert [one["pair"] for one in asked if one.get("interval") == "1m"] == ["P", "Q"]
    assert not [one for one in asked if one.get("table") == "bingx_candles"]
    assert stored.newest(rows, "P", "bingx_ticker") == (False, None)


def test_candles_are_read_by_their_range_newest_first() -> None:
    asked: list[Any] = []
    listed = [{"n": number} for number in range(8)]
    convex = probe({"data": []}, asked, listByRange=listed)
    rows = stored.market_rows(convex, ["P"], 5)["bingx_candles"]["P"]
    assert [row["n"] for row in rows] == [7, 6, 5, 4, 3]
    start = stored.unix(asked[0]["start"])
    assert start is not None and 0 <= time.time() - 5 * 60 - start < 10
    assert asked[0]["limit"] >= 6, "no candle of the range may be cut off"
    with pytest.raises(ProbeError, match="a list of rows"):
        stored.candles(probe({"data": []}, []), "P", 0.0)


def test_the_last_candles_of_a_silent_pair_are_sought_further_back() -> None:
    asked: list[Any] = []
    stored.market_rows(probe({"data": []}, asked, listByRange=[]), ["P"], 5)
    starts = [stored.unix(one["start"]) or 0.0 for one in asked if "start" in one]
    assert len(starts) == 2 and starts[0] - starts[1] == pytest.approx(stored.LONG_AGO - 5 * 60)


@given(st.floats(0, 2e9))
def test_times_survive_their_spelling_to_the_millisecond(moment: float) -> None:
    back = stored.unix(stored.stamp(moment))
    assert back is not None and abs(back - moment) <= 0.001


@pytest.mark.parametrize("value", [None, 5, "", "soon", "2026-13-01T00:00:00Z"])
def test_what_is_no_time(value: object) -> None:
    assert stored.unix(value) is None


def rows(feed: str, *found: dict[str, Any]) -> stored.Rows:
    return {stored.FEEDS[feed].name: {"P": found}}


def test_a_candle_was_last_heard_of_when_it_was_written_unless_it_had_closed() -> None:
    minute = {"open_time": stored.stamp(60), "close_time": stored.stamp(120)}
    for written, heard in ((90, 90.0), (120, 120.0), (500, 120.0)):
        found = rows("bingx_candles", {**minute, "updated_at": stored.stamp(written)})
        assert stored.newest(found, "P", "bingx_candles") == (True, heard)


def test_an_index_price_counts_only_where_it_was_fetched() -> None:
    repeated = {"captured_at": stored.stamp(100), "mark_price": 1, "index_price": 2, "source": "bingx_ws"}
    fetched = {**repeated, "captured_at": stored.stamp(50), "source": "bingx_rest"}
    found = rows("bingx_index_price", repeated, fetched)
    assert stored.newest(found, "P", "bingx_index_price") == (True, 50.0)
    assert stored.newest(found, "P", "bingx_mark_price") == (True, 100.0)
    assert stored.newest(found, "P", "bingx_mark_price", source="bingx_rest") == (True, 50.0)
    assert stored.newest(found, "Q", "bingx_mark_price") == (False, None)
