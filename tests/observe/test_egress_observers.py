"""Reading the guard's log, the exchange's records as flow, and a capture's listing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.errors import Unknown
from fixtures.observe import guardlog, ingested
from fixtures.observe.capture import by_source


def line(t: float, event: str, exit_: str = "", **more: Any) -> str:
    body = {"t": t, "event": event, "exit": exit_, "want": "", "got": "", "why": "", "code": 0, "alloc": "a"}
    return json.dumps({**body, **more}, separators=(",", ":"))


LOG = "\n".join(
    [
        'cut":"x"}',
        line(1.0, "exit-try", "e1"),
        line(1.5, "exit-active", "e1", got="203.0.113.11"),
        "tailscaled says something",
        '{"t":broken}',
        '{"t":2,"event":"x"}',
        line(5.25, "exit-lost", "e1", code=17, why="no answer to 2 probes"),
        line(5.5, "exit-active", "e2"),
    ]
)


def test_the_guards_lines_among_others() -> None:
    events = guardlog.parse(LOG)
    assert [one.event for one in events] == ["exit-try", "exit-active", "exit-lost", "exit-active"]
    assert (events[2].t, events[2].code, events[2].why) == (5.25, 17, "no answer to 2 probes")
    in_use = guardlog.active(events)
    assert in_use is not None and in_use.exit == "e2"
    assert guardlog.active(events[:3]) is None
    found = guardlog.first(events, "exit-active", 2.0)
    assert found is not None and found.exit == "e2"
    assert guardlog.first(events, "exit-active", 2.0, "e1") is None


@pytest.mark.parametrize("event", ["exits-none", "tailscaled-away", "watch-stopped", "exit-return"])
def test_after_which_no_exit_is_in_use(event: str) -> None:
    assert guardlog.active(guardlog.parse(line(1, "exit-active", "e1") + "\n" + line(2, event))) is None


def test_a_silent_task_is_no_evidence() -> None:
    class Silent:
        def logs(self, alloc: str, task: str) -> str:
            return "nothing of use"

    with pytest.raises(Unknown):
        guardlog.read(Silent(), "a1")  # type: ignore[arg-type]


OLD, NEW = "203.0.113.11", "203.0.113.12"
RECORDS: list[dict[str, Any]] = [
    {"kind": "rest", "t": 10.0, "peer": OLD},
    {"kind": "connections", "t": 11.0, "conns": [{"conn": 1, "peer": OLD, "heard": 10.9}]},
    {"kind": "sent", "t": 11.0},
    {"kind": "ws_close", "t": 14.0, "peer": OLD, "heard": 12.4, "conn": 1},
    {"kind": "rest", "t": 12.0, "peer": OLD},
    {"kind": "ws_open", "t": 16.0, "peer": NEW, "conn": 2},
    {"kind": "rest", "t": 16.5, "peer": NEW},
    {"kind": "ws_sub", "t": 17.0, "peer": NEW, "conn": 2, "topics": 4},
]


def test_flow_and_gap() -> None:
    old, new = ingested.flow(RECORDS, OLD), ingested.flow(RECORDS, NEW)
    assert old == ingested.Flow((10.0, 12.0), (10.9, 12.4), ())
    assert new == ingested.Flow((16.5,), (17.0,), (17.0,))
    assert ingested.gap(old.rest, new.rest, 13.0) == ingested.Gap(12.0, 16.5)
    assert ingested.gap(old.websocket, new.subscribed, 13.0).seconds == pytest.approx(4.6)
    assert ingested.gap(old.rest, (), 13.0).seconds is None
    assert ingested.resumed(RECORDS, NEW, 13.0)
    assert not ingested.resumed(RECORDS, NEW, 16.8)
    assert not ingested.resumed(RECORDS, OLD, 13.0)


def test_a_socket_without_subscriptions_is_no_ingest() -> None:
    records = [*RECORDS[:-1], {"kind": "ws_sub", "t": 17.0, "peer": NEW, "conn": 2, "topics": 0}]
    assert not ingested.resumed(records, NEW, 13.0)


def test_a_captures_sources() -> None:
    listing = (
        "10:00:00.1 eth0  In  IP 203.0.113.66.4711 > 198.51.100.80.80: Flags [S], seq 1\n"
        "10:00:00.2 eth0  In  IP 203.0.113.66 > 198.51.100.80: ICMP echo request\n"
        "10:00:00.3 eth0  In  IP6 2001:db8::2.53 > 2001:db8::1.53: UDP\n"
        "something else\n"
    )
    assert by_source(listing) == {"203.0.113.66": 2, "2001:db8::2": 1}
