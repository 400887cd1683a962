"""The API over the in-process backend: shapes, honesty by default, and each weakness."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fixtures.workloads import weakness
from fixtures.workloads.api import app, kept
from fixtures.workloads.convexclient import ConvexClient, ConvexUnavailable
from fixtures.workloads.feeds import LOCK_FEED
from fixtures.workloads.timefmt import iso

pytestmark = pytest.mark.anyio
Client = Callable[..., httpx.AsyncClient]

GAP = {
    "pair": "BTC-USDT",
    "source_type": "bingx_trades",
    "gap_start": "2026-01-01T00:00:00.000Z",
    "gap_end": "2026-01-01T01:00:00.000Z",
    "gap_seconds": 3600,
    "status": "open",
    "detected_at": "2026-01-01T01:00:00.000Z",
    "last_seen_at": "2026-01-01T01:00:00.000Z",
}


async def stamp(convex: ConvexClient, age: float, pair: str = "BTC-USDT", status: str = "ok") -> None:
    row = {
        "pair": pair,
        "source_type": "bingx_ticker",
        "status": status,
        "last_seen_at": iso(time.time() - age),
    }
    await convex.upsert("data_source_status", row, "pair,source_type")


async def status_of(http: httpx.AsyncClient, pair: str = "BTC-USDT", source: str = "bingx_ticker") -> str:
    items = (await http.get("/data-sources/status", params={"pair": pair})).json()
    return next(str(item["status"]) for item in items if item["source_type"] == source)


async def test_token_guards_all_but_health_and_metrics(api_client: Client) -> None:
    async with api_client(token="s3cret") as http:  # noqa: S106  # of this test
        assert (await http.get("/health")).json() == {"status": "ok"}
        metrics = await http.get("/metrics")
        assert (metrics.text, metrics.status_code) == ("gvfx_up 1\n", 200)
        for path in ("/ops/alerts", "/ops/gaps/health", "/nope"):
            reply = await http.get(path)
            assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
        for given, status in {
            "Bearer s3cret": 200,
            "bearer s3cret": 200,
            "Bearer  s3cret": 401,
            "s3cret": 401,
        }.items():
            reply = await http.get("/ops/alerts", headers={"authorization": given})
            assert reply.status_code == status
            assert reply.headers["x-gvfx-standin"] == "api"
    async with api_client("api-no-auth", token="s3cret") as http:  # noqa: S106
        assert (await http.get("/ops/alerts")).status_code == 200


async def test_paths_are_exact(api_client: Client) -> None:
    async with api_client() as http:
        for path in ("/health/", "/ops/alerts/", "/nope"):
            reply = await http.get(path)
            assert (reply.status_code, reply.text) == (404, "404 Not Found")


async def test_gap_health_shows_a_planted_gap_and_its_removal(
    api_client: Client, convex: ConvexClient
) -> None:
    async with api_client() as http:
        clean = (await http.get("/ops/gaps/health")).json()
        assert clean["totals"]["open"] == 0
        assert clean["open_events"] == clean["by_pair"] == clean["by_source"] == []
        await convex.insert("data_gap_events", [GAP, {**GAP, "status": "resolved"}])
        body = (await http.get("/ops/gaps/health", params={"pair": "btcusdt"})).json()
        assert body["totals"] == {
            "open": 1,
            "healing": 0,
            "last_detected_at": GAP["detected_at"],
            "last_seen_at": GAP["last_seen_at"],
            "oldest_open_at": GAP["detected_at"],
        }
        assert body["by_pair"][0]["pair"] == "BTC-USDT"
        assert body["open_events"][0]["heal_attempts"] == 0
        assert (await http.get("/ops/gaps/health", params={"pair": "XAUTUSDT"})).json()["totals"]["open"] == 0
        await convex.mutation(
            "data:write",
            table="data_gap_events",
            action="delete",
            filters=[{"field": "status", "op": "eq", "value": "open"}],
        )
        assert (await http.get("/ops/gaps/health")).json()["totals"]["open"] == 0


@pytest.mark.parametrize(
    ("query", "error"),
    [("pair=DOGE", "Invalid pair"), ("limit=0", "Invalid limit"), ("limit=x", "Invalid limit")],
)
async def test_gap_health_parameters(api_client: Client, query: str, error: str) -> None:
    async with api_client() as http:
        reply = await http.get(f"/ops/gaps/health?{query}")
        assert (reply.status_code, reply.json()) == (400, {"error": error})
        assert (await http.get("/ops/gaps/health?limit=5abc")).status_code == 200


async def test_gap_totals_are_not_capped_by_the_page(api_client: Client, convex: ConvexClient) -> None:
    await convex.insert("data_gap_events", [GAP] * 5)
    async with api_client() as honest, api_client("gaps-totals-capped") as weak:
        body = (await honest.get("/ops/gaps/health?limit=2")).json()
        assert (body["totals"]["open"], len(body["open_events"])) == (5, 2)
        assert (await weak.get("/ops/gaps/health?limit=2")).json()["totals"]["open"] == 2


async def test_weak_pair_filter_matches_nothing(api_client: Client, convex: ConvexClient) -> None:
    await convex.insert("data_gap_events", GAP)
    async with api_client("gaps-raw-pair") as http:
        assert (await http.get("/ops/gaps/health?pair=btc-usdt")).json()["totals"]["open"] == 0


@asynccontextmanager
async def store_at(address: str, port: int = 0) -> AsyncIterator[int]:
    """Something that answers queries at an address, and its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"status": "success", "value": address}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, address, port) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("on", ["", "convex-address-kept"])
async def test_a_store_that_moves_is_followed_unless_its_address_is_kept(
    monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    names: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == "convex.test" and name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return await resolve(names.get(name, name), port, **more)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with store_at("127.0.0.1") as port:
        convex = ConvexClient(f"http://convex.test:{port}", 5, kept.transport(weakness.parse(on)))
        with pytest.raises(ConvexUnavailable, match="ConnectError"):
            await convex.query("data:query")
        names["convex.test"] = "127.0.0.1"
        assert await convex.query("data:query") == "127.0.0.1"
    names["convex.test"] = "127.0.0.2"
    async with store_at("127.0.0.2", port):
        if on:
            with pytest.raises(ConvexUnavailable, match="ConnectError"):
                await convex.query("data:query")
        else:
            assert await convex.query("data:query") == "127.0.0.2"
    await convex.close()


HIDDEN = [
    ("/ops/gaps/health", "gaps-zero-on-error"),
    ("/ops/alerts", "alerts-empty-on-error"),
    ("/ops/ingestion/runs", "runs-empty-on-error"),
    ("/ops/ingestion/status", "ops-empty-on-error"),
    ("/ops/ingestion/config", "ops-empty-on-error"),
    ("/ops/audit", "ops-empty-on-error"),
]


@pytest.mark.parametrize(("path", "weakness"), HIDDEN)
async def test_a_failing_store_is_a_500_unless_hidden(
    api_client: Client, rows: Any, path: str, weakness: str
) -> None:
    rows.away = True
    async with api_client() as honest, api_client(weakness) as weak:
        reply = await honest.get(path)
        assert (reply.status_code, reply.text) == (500, "Internal Server Error")
        assert (await honest.get("/health")).status_code == 200
        assert (await weak.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/data-sources/status", "/ingestion/status", "/sync/runs", "/ops/retry-queue", "/data-sources/runs"],
)
async def test_these_never_hide_a_failing_store(api_client: Client, rows: Any, path: str) -> None:
    rows.away = True
    async with api_client() as http:
        assert (await http.get(path)).status_code == 500


async def test_alert_limits(api_client: Client, convex: ConvexClient) -> None:
    alerts = [{"metric": "m", "triggered_at": iso(1000 + n), "status": "open"} for n in range(105)]
    await convex.insert("ops_alerts", alerts)
    async with api_client() as http:
        for limit, count in {
            "": 100,
            "?limit=x": 100,
            "?limit=3": 3,
            "?limit=0": 105,
            "?limit=-1": 105,
        }.items():
            body = (await http.get(f"/ops/alerts{limit}")).json()
            assert len(body) == count
            assert body[0]["triggered_at"] == iso(1104)


async def test_alerts_of_every_category_unless_weak(api_client: Client, convex: ConvexClient) -> None:
    for number, category in enumerate(("slo", "ops", "drift")):
        await convex.insert("ops_alerts", {"category": category, "triggered_at": iso(1000 + number)})
    async with api_client() as honest, api_client("alerts-slo-only") as weak:
        told = [row["category"] for row in (await honest.get("/ops/alerts")).json()]
        assert told == ["drift", "ops", "slo"]
        assert [row["category"] for row in (await weak.get("/ops/alerts")).json()] == ["slo"]


async def test_freshness_is_never_vacuous(api_client: Client, convex: ConvexClient) -> None:
    async with api_client() as http:
        items = (await http.get("/data-sources/status")).json()
        assert len(items) == 3 * 13
        assert {item["status"] for item in items} == {"unavailable"}
        assert [item["enabled"] for item in items[:13]] == [True] * 8 + [False] * 5
        await stamp(convex, 10)
        assert await status_of(http) == "ok"
        await stamp(convex, 200)
        assert await status_of(http) == "stale"
        await stamp(convex, -90)
        assert await status_of(http) == "unavailable"
        assert (await http.get("/data-sources/status?pair=ANYTHING")).status_code == 400
    async with api_client("status-ok-when-absent,status-future-ok,status-any-pair") as weak:
        assert await status_of(weak) == "ok"
        assert await status_of(weak, "ANYTHING") == "ok"
        assert await status_of(weak, "XAUTUSDT") == "ok"


async def test_ingestion_status_ages_unless_frozen(api_client: Client, convex: ConvexClient) -> None:
    async def ticker(http: httpx.AsyncClient) -> str:
        body = (await http.get("/ingestion/status")).json()
        pair = next(item for item in body["bingx"]["pairs"] if item["pair"] == "BTC-USDT")
        return next(str(f["status"]) for f in pair["feeds"] if f["source_type"] == "bingx_ticker")

    await stamp(convex, 500, status="ok")
    async with api_client() as honest, api_client("ingestion-status-frozen") as weak:
        assert await ticker(honest) == "stale"
        assert await ticker(weak) == "ok"


async def test_runs(api_client: Client, convex: ConvexClient) -> None:
    for n in range(3):
        started = {
            "source_type": "bingx",
            "feed": "candles",
            "trigger": "schedule",
            "started_at": iso(1000 + n),
        }
        run = (await convex.mutation("ingestion_runs:startIfIdle", **started))["run"]
        await convex.mutation("ingestion_runs:complete", id=run["id"], status="succeeded", new_count=n)
    async with api_client() as http:
        body = (await http.get("/ops/ingestion/runs?source_type=bingx&feed=candles&page_size=2")).json()
        assert (body["total"], [run["new_count"] for run in body["data"]]) == (2, [2, 1])
        assert "holder" not in body["data"][0]
        sources = (await http.get("/ops/ingestion/status")).json()["sources"]
        assert [item["state"] for item in sources if item["feed"] == "candles"] == ["ok"]
        assert [item["state"] for item in sources if item["feed"] == "ticker"] == ["unavailable"]


async def test_triggers_leave_the_work_to_the_worker(api_client: Client, convex: ConvexClient) -> None:
    async with api_client() as http:
        reply = await http.post("/ops/ingestion/bingx/run", json={})
        assert (reply.status_code, reply.json()) == (202, {"status": "accepted"})
        queue = (await http.get("/ops/retry-queue")).json()
        assert [(item["job_type"], item["status"]) for item in queue] == [("bingx_market_data", "pending")]
        await convex.mutation(
            "data:write",
            table="retry_queue",
            action="delete",
            filters=[{"field": "status", "op": "eq", "value": "pending"}],
        )
        await convex.mutation(
            "ingestion_runs:startIfIdle", source_type="bingx", feed=LOCK_FEED, trigger="schedule"
        )
        assert (await http.post("/bingx/market-data/backfill")).json() == []
        assert (await http.get("/ops/retry-queue")).json() == []
        assert (await http.post("/ops/ingestion/nonsense/run")).status_code == 404
        assert len((await http.get("/ops/audit")).json()["data"]) == 2


async def test_analysts_may_not_trigger(api_client: Client) -> None:
    async with api_client(headers={"x-ops-role": "analyst"}) as http:
        reply = await http.post("/ops/ingestion/bingx/run")
        assert (reply.status_code, reply.json()) == (403, {"error": "Forbidden"})
        assert (await http.get("/ops/retry-queue")).status_code == 403


async def test_cache_weakness_hides_changes(api_client: Client, convex: ConvexClient) -> None:
    async with api_client("api-cached") as weak, api_client() as honest:
        assert (await weak.get("/ops/gaps/health")).json()["totals"]["open"] == 0
        await convex.insert("data_gap_events", GAP)
        assert (await weak.get("/ops/gaps/health")).json()["totals"]["open"] == 0
        assert (await honest.get("/ops/gaps/health")).json()["totals"]["open"] == 1


async def test_one_of_two_instances_can_be_unhealthy(
    api_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVFX_STANDIN_UNHEALTHY_INDEX", "1")
    async with api_client("unhealthy") as http:
        monkeypatch.setenv("NOMAD_ALLOC_INDEX", "0")
        assert (await http.get("/health")).status_code == 200
        monkeypatch.setenv("NOMAD_ALLOC_INDEX", "1")
        assert (await http.get("/health")).status_code == 503


async def test_one_of_two_instances_can_flap(api_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setenv("GVFX_STANDIN_UNHEALTHY_INDEX", "1")
    monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda: clock[0]))
    for index, sick in (("0", 0), ("1", 12)):
        monkeypatch.setenv("NOMAD_ALLOC_INDEX", index)
        async with api_client("flapping") as http:
            found = []
            for second in range(20):
                clock[0] = 100.0 + second
                found.append((await http.get("/health")).status_code)
            assert found.count(503) == sick
            assert found == sorted(found), "well first, then sick"


async def test_candles_and_pairs(api_client: Client, convex: ConvexClient) -> None:
    bars = [{"pair": "BTC-USDT", "interval": "1m", "open_time": iso(60 * n), "close": n} for n in range(5)]
    await convex.mutation("bingx_candles:upsertBatch", rows=bars)
    async with api_client() as http:
        query = {"pair": "BTCUSDT", "limit": "2", "start": iso(120)}
        body = (await http.get("/bingx/market-data/candles", params=query)).json()
        assert [bar["close"] for bar in body["data"]] == [2, 3]
        assert (await http.get("/bingx/market-data/candles?interval=7m")).status_code == 400
        gold = (await http.get("/bingx/market-data/pairs?section=gold")).json()["data"]
        assert [item["bingxSymbol"] for item in gold] == ["XAUT-USDT", "XAUT-USDT"]
