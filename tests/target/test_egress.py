from __future__ import annotations

import re

import pytest

from fixtures.errors import Unknown
from fixtures.target import egress
from tests.guard.bench import SCRIPT

ENV = {
    "TS_EXIT_NODE_PRIMARY": "100.64.0.1",
    "TS_EXIT_NODE_FALLBACKS": "100.64.0.2, 100.64.0.3,100.64.0.1",
    "TS_EGRESS_EXPECTED_IPS": "100.64.0.1=203.0.113.11|203.0.113.21,100.64.0.2=203.0.113.12,203.0.113.13",
    "TS_EGRESS_CHECK_URLS": "http://198.51.100.80/",
    "TS_EGRESS_CHECK_WS_URL": "ws://198.51.100.80/ws",
    "TS_PROBE_INTERVAL_SECONDS": "1",
    "TS_WS_PROBE_SECONDS": "5",
}


def test_exits_in_order_each_with_its_own_addresses() -> None:
    found = egress.settings(ENV)
    assert found.exits == ("100.64.0.1", "100.64.0.2", "100.64.0.3")
    assert found.expected == {
        "100.64.0.1": ("203.0.113.11", "203.0.113.21"),
        "100.64.0.2": ("203.0.113.12",),
        "100.64.0.3": ("203.0.113.13",),
    }
    assert found.shared == ("203.0.113.13",)


def test_bounds_follow_the_settings() -> None:
    found = egress.settings(ENV)
    assert found.detection() == 1 + 2 + 2 * 2 + egress.BUSY
    assert found.detection(wrong_answer=True) == 1 + 2 + 2 + egress.BUSY
    assert found.fastest_detection() == 2
    assert found.websocket_detection() == 5 + 2 * (1 + 2 + 2) + egress.BUSY
    assert found.switch() < found.switch(1) < found.recovery()
    assert found.stopped() == 30 + egress.RESTART + egress.STOP_GRACE + egress.BUSY
    slower = egress.settings({**ENV, "TS_PROBE_FAILS": "3"})
    assert slower.detection() - found.detection() == 2
    plain = egress.settings({**ENV, "TS_EGRESS_CHECK_WS_URL": ""})
    assert plain.detection() == found.detection() - 2
    assert plain.fastest_detection() == 4


def test_settings_that_never_look_are_wrong_not_slow() -> None:
    blind = egress.settings({**ENV, "TS_PROBE_INTERVAL_SECONDS": "3600"})
    with pytest.raises(AssertionError, match="allow"):
        blind.detection()


@pytest.mark.parametrize("change", [{"TS_EXIT_NODE_PRIMARY": ""}, {"TS_GATE_SECONDS": "soon"}])
def test_what_cannot_be_told_is_unknown(change: dict[str, str]) -> None:
    with pytest.raises(Unknown):
        egress.settings({**ENV, **change})


def test_defaults_are_the_scripts() -> None:
    """The head of the script lists each default; a bound from another one would be a lie."""
    head = SCRIPT.read_text().split("set -uf", 1)[0]
    listed = dict(re.findall(r"\b(TS_[A-Z_]+) (\d+)\b", head))
    found = egress.settings({"TS_EXIT_NODE_PRIMARY": "x"})
    for name, value in (
        ("TS_PROBE_INTERVAL_SECONDS", found.interval),
        ("TS_PROBE_TIMEOUT_SECONDS", found.timeout),
        ("TS_PROBE_FAILS", found.fails),
        ("TS_SELECT_TRIES", found.tries),
        ("TS_GATE_SECONDS", found.gate),
        ("TS_WS_PROBE_SECONDS", found.ws_period),
        ("TS_BLOCKED_STOP_SECONDS", found.blocked_stop),
        ("TS_RETURN_SECONDS", found.back),
    ):
        assert float(listed[name]) == value, name


def test_ingest_gaps_grow_with_the_outage() -> None:
    own = egress.ingest(
        {"BINGX_MARKET_DATA_INTERVAL_MIN": "0.1", "INGESTION_DEFAULT_BACKOFF_BASE_SECONDS": "5"}
    )
    assert (own.idle, own.reconnect, own.cycle, own.backoff) == (3, 1, 6, 5)
    assert own.websocket_gap(0.5) == 0.5 + 3 + 1 + egress.BUSY
    assert own.websocket_gap(6) == 6 + 3 + 6 + egress.BUSY
    assert own.rest_gap(6) == 12 + 6 + 5 + egress.BUSY
    assert egress.ingest({}).cycle == 60
