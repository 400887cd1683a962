"""Exchange and IP echo: deterministic data, the record of peers, administration on loopback only."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.workloads import intervals
from fixtures.workloads.exchange import market
from fixtures.workloads.exchange.app import create_app
from fixtures.workloads.exchange.venue import Venue
from fixtures.workloads.ip_echo.app import create_app as create_echo
from fixtures.workloads.jsonlog import Log, Ndjson

pytestmark = pytest.mark.anyio
NOW = 1_770_000_123_456
QUOTE = "/openApi/swap/v2/quote"
KLINES = "/openApi/swap/v3/quote/klines"


def client(app: Any, peer: str = "203.0.113.11") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, client=(peer, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://exchange.test")


@pytest.fixture
def venue(tmp_path: Path) -> Venue:
    return Venue(["BTC-USDT", "XAUT-USDT"], Ndjson(str(tmp_path / "log")), clock=lambda: NOW)


@pytest.fixture
def app(venue: Venue) -> Any:
    return create_app(venue, Log("exchange"), tick_s=1, ping_s=1, summary_s=60)


@pytest.fixture
def record(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


@given(st.sampled_from(["BTC-USDT", "XAUT-USDT"]), st.integers(10**12, 2 * 10**12))
def test_prices_depend_on_symbol_and_second_only(symbol: str, moment: int) -> None:
    assert market.price(symbol, moment) == market.price(symbol, moment // 1000 * 1000) > 0
    bar = market.candle(symbol, "1m", intervals.open_time("1m", moment), moment)
    assert bar["low"] <= bar["open"] <= bar["high"]
    assert bar["low"] <= bar["close"] <= bar["high"]


def test_history_does_not_change() -> None:
    early = market.candles("BTC-USDT", "5m", NOW, 10, None, None)
    late = market.candles("BTC-USDT", "5m", NOW + 300_000, 10, None, None)
    assert early[1:-1] == late[:-2]
    assert market.candles("BTC-USDT", "5m", NOW, 3, early[2]["time"], None) == early[2:5]


def test_unknown_streams_do_not_exist() -> None:
    assert market.frame("BTC-USDT", "nonsense", NOW) is None
    assert market.frame("BTC-USDT", "kline_7m", NOW) is None
    assert market.frame("BTC-USDT", "depth5@500ms", NOW) is not None


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{QUOTE}/ticker", "lastPrice"),
        (f"{QUOTE}/premiumIndex", "indexPrice"),
        (f"{QUOTE}/openInterest", "openInterest"),
        (f"{QUOTE}/depth", "bids"),
    ],
)
async def test_quotes(app: Any, path: str, field: str) -> None:
    async with client(app) as http:
        reply = await http.get(path, params={"symbol": "BTC-USDT"})
    assert reply.json()["code"] == 0
    assert field in reply.json()["data"]
    assert reply.headers["x-gvfx-standin"] == "exchange"


async def test_every_call_is_recorded_with_its_peer(app: Any, record: Any) -> None:
    async with client(app) as http:
        await http.get(f"{QUOTE}/ticker", params={"symbol": "BTC-USDT"})
        unknown = await http.get(KLINES, params={"symbol": "NO-USDT", "interval": "1m"})
        bad = await http.get(KLINES, params={"symbol": "BTC-USDT", "interval": "7m"})
    assert "not exist" in unknown.json()["msg"]
    assert bad.json()["code"] != 0
    lines = [line for line in record() if line["kind"] == "rest"]
    assert [line["peer"] for line in lines] == ["203.0.113.11"] * 3
    assert lines[0]["conn"] == "203.0.113.11:4711"


async def test_a_forwarded_header_does_not_change_the_peer(app: Any, record: Any) -> None:
    async with client(app) as http:
        headers = {"x-forwarded-for": "203.0.113.99"}
        await http.get(f"{QUOTE}/ticker", params={"symbol": "BTC-USDT"}, headers=headers)
    assert record()[-1]["peer"] == "203.0.113.11"


async def test_administration_is_for_loopback_only(app: Any, venue: Venue) -> None:
    async with client(app) as http:
        assert (await http.get("/_standin/status")).status_code == 403
        assert (await http.post("/_standin/mute", params={"pair": "BTC-USDT"})).status_code == 403
    assert venue.muted == {}
    async with client(app, "127.0.0.1") as http:
        assert (await http.get("/_standin/status")).json()["open"] == 0
        assert (await http.post("/_standin/mute", params={"pair": "DOGE"})).status_code == 400


async def test_a_muted_pair_is_frozen(app: Any, venue: Venue) -> None:
    async with client(app, "127.0.0.1") as http:
        reply = await http.post("/_standin/mute", params={"pair": "Gold-USDT"})
        assert reply.json()["result"] == "XAUT-USDT"
        venue.clock = lambda: NOW + 60_000
        frozen = await http.get(f"{QUOTE}/ticker", params={"symbol": "XAUT-USDT"})
        moving = await http.get(f"{QUOTE}/ticker", params={"symbol": "BTC-USDT"})
        assert frozen.json()["data"]["closeTime"] == NOW
        assert moving.json()["data"]["closeTime"] == NOW + 60_000
        await http.post("/_standin/unmute")
    assert venue.moment("XAUT-USDT") == NOW + 60_000


async def test_figures_are_recorded_while_that_is_asked_for(app: Any, venue: Venue, record: Any) -> None:
    async with client(app, "127.0.0.1") as http:
        ticker = {"symbol": "BTC-USDT"}
        await http.get(f"{QUOTE}/ticker", params=ticker)
        assert (await http.post("/_standin/quote", params={"seconds": "60"})).status_code == 200
        sent = await http.get(f"{QUOTE}/ticker", params=ticker)
        trades = await http.get(f"{QUOTE}/trades", params=ticker)
        await http.get(KLINES, params={"symbol": "BTC-USDT", "interval": "5m"})
        bars = await http.get(KLINES, params={"symbol": "BTC-USDT", "interval": "1m", "limit": "3"})
        none = await http.get(
            KLINES, params={"symbol": "BTC-USDT", "interval": "1m", "startTime": str(NOW + 60_000)}
        )
        assert none.json()["data"] == []
        await http.post("/_standin/quote", params={"seconds": "0"})
        await http.get(f"{QUOTE}/ticker", params=ticker)
    told = [(one["stream"], one["data"]) for one in record() if one["kind"] == "quote"]
    assert told == [
        ("ticker", sent.json()["data"]),
        ("trades", trades.json()["data"]),
        ("klines", bars.json()["data"]),
    ]
    assert venue.latest["BTC-USDT"]["klines"]["time"] == bars.json()["data"][-1]["time"]


async def test_error_rate_is_exact(app: Any) -> None:
    async with client(app, "127.0.0.1") as http:
        await http.post("/_standin/errors", params={"rate": "0.25", "status": "503"})
        replies = [await http.get(f"{QUOTE}/ticker", params={"symbol": "BTC-USDT"}) for _ in range(8)]
    assert [reply.status_code for reply in replies].count(503) == 2


async def test_connections_are_counted(venue: Venue, record: Any) -> None:
    one, two = venue.connect("203.0.113.11", "a"), venue.connect("203.0.113.12", "b")
    assert venue.subscribe(one, "BTC-USDT@trade", on=True)
    assert not venue.subscribe(one, "DOGE-USDT@trade", on=True)
    venue.disconnect(one, "gone")
    venue.summarise()
    assert [line["open"] for line in record()] == [1, 2, 1, 1]
    assert record()[2]["topics"] == 1
    assert two.number in venue.open


async def test_ip_echo_tells_the_peer(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    app = create_echo(Ndjson(str(path)), Log("ip_echo"))
    async with client(app) as http:
        reply = await http.get("/", headers={"x-forwarded-for": "192.0.2.9"})
        assert reply.content == b"203.0.113.11"
        assert (await http.post("/_standin/lie", params={"address": "192.0.2.7"})).status_code == 403
    async with client(app, "127.0.0.1") as http:
        await http.post("/_standin/lie", params={"address": "192.0.2.7"})
        assert (await http.get("/")).text == "192.0.2.7"
        assert (await http.get("/_standin/lie")).json() == {
            "lies": dict.fromkeys(("http", "ws"), "192.0.2.7")
        }
        await http.post("/_standin/truth")
        assert (await http.get("/")).text == "127.0.0.1"
        await http.post("/_standin/lie", params={"address": "192.0.2.7", "way": "ws"})
        assert (await http.get("/")).text == "127.0.0.1"
        assert (await http.get("/_standin/lie")).json() == {"lies": {"ws": "192.0.2.7"}}
        assert (await http.post("/_standin/lie", params={"way": "dns"})).status_code == 400
    first = json.loads(path.read_text().splitlines()[0])
    assert (first["kind"], first["peer"], first["answer"]) == ("http", "203.0.113.11", "203.0.113.11")


async def test_ip_echo_speaks_first_over_websocket() -> None:
    app = create_echo(Ndjson(""), Log("ip_echo"))
    sent: list[Any] = []
    incoming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "again"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/ws",
        "headers": [],
        "query_string": b"",
        "client": ("203.0.113.12", 1),
    }
    await app({**scope, "scheme": "ws", "subprotocols": [], "server": ("h", 80)}, receive, send)
    assert (b"x-gvfx-standin", b"ip_echo") in sent[0]["headers"]
    assert [message["text"] for message in sent[1:]] == ["203.0.113.12", "203.0.113.12"]
