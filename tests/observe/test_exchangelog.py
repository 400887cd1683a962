from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.shapes import Activity, Coverage, Fetch
from fixtures.observe.exchangelog import ExchangeLog
from fixtures.observe.witnesses import fetches


def rest(at: float, conn: str, path: str = "/quote/ticker") -> dict[str, Any]:
    return {"t": at, "kind": "rest", "conn": conn, "path": path, "symbol": "S", "status": 200, "ms": 1.0}


def listing(at: float, *conns: tuple[int, float, float]) -> dict[str, Any]:
    entries = [{"conn": n, "peer": "p", "opened": opened, "heard": heard} for n, opened, heard in conns]
    return {"t": at, "kind": "connections", "conns": entries}


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), max_size=40), st.data())
def test_in_pieces_it_says_what_it_says_at_once(found: list[tuple[int, str]], data: st.DataObject) -> None:
    records = [rest(float(at), conn) for at, conn in sorted(found)]
    have: list[dict[str, Any]] = []
    log = ExchangeLog(lambda since: [one for one in have if one["t"] >= since], -1.0)
    calls: list[Fetch] = []
    covered: list[Coverage] = []
    for one in records:
        have.append(one)
        if data.draw(st.booleans()):
            fresh, more = log.read()
            calls, covered = calls + fresh, covered + more
    fresh, more = log.read()
    calls, covered = calls + fresh, covered + more
    assert calls == fetches(records)
    reach = [one for one in covered if one.until > one.since]
    for at, later in zip(records, records[1:], strict=False):
        if 0 < later["t"] - at["t"] <= 6.0:
            assert any(one.since <= at["t"] and later["t"] <= one.until for one in reach)


def test_what_a_gap_monitor_fetches_beside_the_cycle_is_no_second_client() -> None:
    log = ExchangeLog(lambda _: [rest(1.0, "a", "/v3/quote/klines"), rest(2.0, "b")], 0.0)
    assert [one.client[0] for one in log.read()[0]] == ["b"]


def test_a_session_counts_from_when_it_is_listed() -> None:
    records: list[dict[str, Any]] = [{"t": 1.0004, "kind": "ws_open", "conn": 1, "peer": "p"}]
    log = ExchangeLog(lambda since: [one for one in records if one["t"] >= since], 0.0)
    log.read()
    assert log.activity("exchange", 0.1) == []
    records.append(listing(2.0, (1, 1.0, 1.9)))
    log.read()
    records.append({"t": 2.5, "kind": "ws_open", "conn": 2, "peer": "p"})
    log.read()
    assert log.activity("exchange", 0.1) == [Activity("exchange", "p #1", 1.0, 1.9, True, "exchange", 0.1)]
