from __future__ import annotations

from typing import Any

import pytest

from fixtures.errors import Unknown
from fixtures.observe import exchange


def opened(conn: int, peer: str, at: float) -> dict[str, Any]:
    return {"t": at, "kind": "ws_open", "conn": conn, "peer": peer}


def closed(conn: int, peer: str, start: float, heard: float, at: float) -> dict[str, Any]:
    return {"t": at, "kind": "ws_close", "conn": conn, "peer": peer, "opened": start, "heard": heard}


def listing(at: float, *sessions: tuple[int, str, float, float]) -> dict[str, Any]:
    conns = [
        {"conn": conn, "peer": peer, "opened": start, "heard": heard} for conn, peer, start, heard in sessions
    ]
    return {"t": at, "kind": "connections", "open": len(conns), "conns": conns}


def test_a_session_ends_when_its_client_was_last_heard() -> None:
    records = [
        opened(1, "exit1", 10.0),
        listing(12.0, (1, "exit1", 10.0, 11.9)),
        opened(2, "exit2", 15.0),
        closed(1, "exit1", 10.0, 13.0, 18.0),
        listing(20.0, (2, "exit2", 15.0, 19.0)),
    ]
    found = exchange.sessions(records)
    assert [(one.conn, one.opened, one.heard, one.open) for one in found] == [
        (1, 10.0, 13.0, False),
        (2, 15.0, 19.0, True),
    ]
    assert exchange.simultaneous(found) is None
    assert [one.conn for one in exchange.connected_now(records, 21.0)] == [2]


def test_two_at_once_are_found() -> None:
    records = [
        opened(1, "exit1", 10.0),
        opened(2, "legacy", 12.0),
        listing(20.0, (1, "exit1", 10.0, 19.0), (2, "legacy", 12.0, 19.5)),
    ]
    pair = exchange.simultaneous(exchange.sessions(records))
    assert pair is not None
    assert {pair[0].peer, pair[1].peer} == {"exit1", "legacy"}
    assert exchange.simultaneous(exchange.sessions(records), tolerance=8.0) is None


def test_a_long_session_spans_short_ones() -> None:
    records = [
        opened(1, "a", 0.0),
        closed(2, "b", 1.0, 2.0, 3.0),
        closed(3, "c", 5.0, 6.0, 7.0),
        listing(9.0, (1, "a", 0.0, 8.0)),
    ]
    pair = exchange.simultaneous(exchange.sessions(records))
    assert pair is not None and pair[0].conn == 1


def test_a_restarted_exchange_has_no_open_sessions() -> None:
    records = [opened(1, "a", 0.0), {"t": 5.0, "kind": "start"}, listing(6.0)]
    assert exchange.connected_now(records, 6.0) == []
    assert [one.open for one in exchange.sessions(records)] == [False]


@pytest.mark.parametrize("records", [[], [listing(1.0)]])
def test_silence_is_no_evidence(records: list[dict[str, Any]]) -> None:
    with pytest.raises(Unknown):
        exchange.connected_now(records, 100.0)


def test_peers_of_rest_and_sockets() -> None:
    records = [{"t": 1.0, "kind": "rest", "peer": "a"}, opened(1, "b", 2.0), listing(3.0, (9, "c", 1, 2))]
    assert exchange.peers(records) == {"a", "b"}
