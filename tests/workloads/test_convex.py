"""The Convex-compatible backend over HTTP, on the in-memory row store."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from fixtures.workloads.convex.backend import upload_token
from fixtures.workloads.convex.postgres import PostgresTx, compile_where
from fixtures.workloads.convex.rows import Query, Where
from fixtures.workloads.convexclient import ConvexClient, ConvexRefused, ConvexUnavailable, where

pytestmark = pytest.mark.anyio
Build = Callable[..., Any]


def http(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://convex.test")


async def call(client: httpx.AsyncClient, kind: str, path: str, args: Any, encoded: bool = False) -> Any:
    format_ = "convex_encoded_json" if encoded else "json"
    reply = await client.post(f"/api/{kind}", json={"path": path, "args": args, "format": format_})
    assert reply.status_code == 200
    return reply.json()


async def test_static_probes_and_identity(convex_app: Build) -> None:
    async with http(convex_app()) as client:
        for path in ("/version", "/instance_name", "/"):
            reply = await client.get(path)
            assert reply.status_code == 200
            assert reply.headers["x-gvfx-standin"] == "convex"
        assert (await client.get("/instance_name")).text == "test-instance"
        assert (await client.get("/nope")).text == "404 Not Found"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_write_then_query(convex_app: Build, wrapped: bool) -> None:
    def args(value: Any) -> Any:
        return [value] if wrapped else value

    async with http(convex_app()) as client:
        row = {"marker": "m", "big": {"$integer": "AQAAAAAAAAA="}}
        reply = await call(
            client, "mutation", "data:write", args({"table": "t", "action": "insert", "payload": row}), True
        )
        assert reply["value"]["count"] == 1
        query = {"table": "t", "filters": [where("marker", "eq", "m")], "includeCount": True}
        found = (await call(client, "query", "data:query", args(query), True))["value"]
        assert found["count"] == 1
        assert found["data"][0]["big"] == row["big"]
        assert {"id", "created_at", "updated_at"} <= set(found["data"][0])
        plain = (await call(client, "query", "data:query", args(query)))["value"]
        assert plain["data"][0]["big"] == "1"


@pytest.mark.parametrize(
    ("kind", "path", "args", "message"),
    [
        ("query", "no:such", {}, "Could not find public function"),
        ("query", "data:write", {}, "is a mutation"),
        ("query", "ingestion_runs:list", {"status": "running"}, "ArgumentValidationError: unknown"),
        ("mutation", "data:write", {"table": "t"}, "ArgumentValidationError: missing"),
        ("mutation", "data:write", {"table": "_storage", "action": "insert"}, "not a table"),
        ("mutation", "data:write", {"table": "t", "action": "delete"}, "without filters"),
        ("mutation", "e2e:reset", {"token": "local-e2e"}, "Could not find public function"),
        ("query", "data:query", {"table": "t", "filters": [{"field": "a", "op": "like"}]}, "filter"),
        ("mutation", "data:write", [{"a": 1}, {"b": 2}], "one argument object"),
    ],
)
async def test_function_errors_are_200_with_status_error(
    convex_app: Build, kind: str, path: str, args: Any, message: str
) -> None:
    async with http(convex_app()) as client:
        reply = await call(client, kind, path, args)
    assert reply["status"] == "error"
    assert message in reply["errorMessage"]


async def test_store_failure_is_loud(convex: ConvexClient, rows: Any) -> None:
    rows.away = True
    with pytest.raises(ConvexUnavailable, match="503"):
        await convex.insert("t", {"a": 1})
    with pytest.raises(ConvexUnavailable):
        await convex.rows("t")
    assert (await convex.query("e2e:ping"))["ok"] is True
    rows.away = False
    assert await convex.rows("t") == []


async def test_update_delete_and_unique_upsert(convex: ConvexClient) -> None:
    status = {"pair": "BTC-USDT", "source_type": "bingx_ticker", "status": "ok"}
    await convex.upsert("data_source_status", [status, {**status, "status": "stale"}], "pair,source_type")
    await convex.upsert("data_source_status", {**status, "last_seen_at": "x"}, "pair,source_type")
    found = await convex.rows("data_source_status")
    assert [(row["status"], row["last_seen_at"]) for row in found] == [("ok", "x")]
    first = found[0]["id"]
    assert await convex.update("data_source_status", [where("id", "eq", first)], {"status": "stale"}) == 1
    assert (await convex.rows("data_source_status"))[0]["id"] == first
    with pytest.raises(ConvexRefused):
        await convex.insert("data_source_status", status)
    await convex.upsert("free", {"key": 1, "v": 1}, "key")
    await convex.upsert("free", {"key": 1, "v": 2}, "key")
    assert [row["v"] for row in await convex.rows("free")] == [2]


async def test_order_range_limit_select(convex: ConvexClient) -> None:
    await convex.insert("t", [{"n": n, "even": n % 2 == 0} for n in range(6)])
    assert [row["n"] for row in await convex.rows("t", newest_by="n", limit=2)] == [5, 4]
    reply = await convex.query(
        "data:query",
        table="t",
        order={"field": "n", "direction": "asc"},
        range={"from": 1, "to": 2},
        select="n",
    )
    assert reply["data"] == [{"n": 1}, {"n": 2}]
    reply = await convex.query("data:query", table="t", orFilters=[where("n", "eq", 1), where("n", "gte", 5)])
    assert sorted(row["n"] for row in reply["data"]) == [1, 5]


async def test_files_round_trip(convex_app: Build) -> None:
    async with http(convex_app()) as client:
        text = "x" * 6_000_000
        stored = await call(
            client, "action", "storage:storeTextFile", {"content": text, "contentType": "text/plain"}
        )
        identity = stored["value"]["storageId"]
        url = (await call(client, "query", "storage:getFileUrl", {"storageId": identity}))["value"]
        assert url == f"http://convex.test/api/storage/{identity}"
        assert (await client.get(url)).text == text
        gone = await call(client, "mutation", "storage:deleteFile", {"storageId": identity})
        assert gone["value"] == {"deleted": True}
        assert (await client.get(url)).status_code == 404
        missing = await call(client, "query", "storage:getFileUrl", {"storageId": identity})
        assert missing["value"] is None


async def test_upload_needs_a_signed_token(convex_app: Build, upload_secret: str) -> None:
    async with http(convex_app()) as client:
        for bad in ("", "1.2", upload_token("other", int(time.time()) + 60), upload_token(upload_secret, 1)):
            assert (
                await client.post("/api/storage/upload", params={"token": bad}, content=b"a")
            ).status_code == 403
        good = upload_token(upload_secret, int(time.time()) + 60)
        reply = await client.post("/api/storage/upload", params={"token": good}, content=b"\x00\xff")
        identity = reply.json()["storageId"]
        assert (await client.get(f"/api/storage/{identity}")).content == b"\x00\xff"


async def test_damaged_object_is_not_served(convex_app: Build, tmp_path: Any) -> None:
    async with http(convex_app()) as client:
        stored = await call(client, "action", "storage:storeTextFile", {"content": "a", "contentType": "t"})
        identity = stored["value"]["storageId"]
        (tmp_path / identity).write_bytes(b"b")
        assert (await client.get(f"/api/storage/{identity}")).status_code == 503


async def start(convex: ConvexClient, **more: Any) -> Any:
    args = {"source_type": "bingx", "feed": "candles", "trigger": "schedule"} | more
    return await convex.mutation("ingestion_runs:startIfIdle", **args)


async def test_lock_refuses_then_reclaims(convex: ConvexClient, rows: Any) -> None:
    first = await start(convex)
    assert (first["created"], first["reason"]) == (True, "started")
    assert (await start(convex))["reason"] == "running"
    assert (await start(convex, feed="trades"))["created"] is True
    rows.tables["ingestion_runs"][first["run"]["id"]]["created_at"] = "2020-01-01T00:00:00.000Z"
    again = await start(convex)
    assert (again["reason"], again["timed_out_run_id"]) == ("timeout_reclaimed", first["run"]["id"])
    old = rows.tables["ingestion_runs"][first["run"]["id"]]
    assert (old["status"], old["error_summary"]) == ("failed", "timeout")


async def test_complete_is_fenced(convex: ConvexClient, convex_app: Build, rows: Any) -> None:
    run = (await start(convex))["run"]["id"]
    done = await convex.mutation("ingestion_runs:complete", id=run, status="succeeded", new_count=3)
    assert (done["status"], done["new_count"]) == ("succeeded", 3)
    with pytest.raises(ConvexRefused, match="fenced"):
        await convex.mutation("ingestion_runs:complete", id=run, status="failed")
    async with http(convex_app("unfenced-complete")) as client:
        args = {"id": run, "status": "failed"}
        assert (await call(client, "mutation", "ingestion_runs:complete", args))["status"] == "success"
    assert rows.tables["ingestion_runs"][run]["status"] == "failed"


async def test_weak_lock_starts_twice(convex_app: Build) -> None:
    async with http(convex_app("start-ignores-lock")) as client:
        args = {"source_type": "bingx", "feed": "candles", "trigger": "schedule"}
        replies = [await call(client, "mutation", "ingestion_runs:startIfIdle", args) for _ in range(2)]
    assert [reply["value"]["created"] for reply in replies] == [True, True]


async def test_dropped_writes_are_acknowledged(convex_app: Build, rows: Any) -> None:
    async with http(convex_app("drop-writes")) as client:
        for n in range(20):
            args = {"table": "t", "action": "insert", "payload": {"n": n}}
            assert (await call(client, "mutation", "data:write", args))["status"] == "success"
    assert len(rows.tables["t"]) == 19


async def test_early_acknowledgement_hides_a_lost_store(convex_app: Build, rows: Any) -> None:
    rows.away = True
    async with http(convex_app("ack-before-commit")) as client:
        args = {"table": "t", "action": "insert", "payload": {"n": 1}}
        assert (await call(client, "mutation", "data:write", args))["status"] == "success"


async def test_market_batches_are_idempotent(convex: ConvexClient) -> None:
    bar = {"pair": "BTC-USDT", "interval": "1m", "open_time": "2026-01-01T00:00:00.000Z", "close": 1}
    first = await convex.mutation("bingx_candles:upsertBatch", rows=[bar])
    again = await convex.mutation("bingx_candles:upsertBatch", rows=[{**bar, "close": 2}])
    assert (first, again) == ({"inserted": 1, "updated": 0}, {"inserted": 0, "updated": 1})
    assert await convex.query("bingx_candles:latestTime", pair="BTC-USDT", interval="1m") == bar["open_time"]
    times = await convex.query("bingx_candles:listOpenTimesByRange", pair="BTC-USDT", interval="1m")
    assert times == [bar["open_time"]]


def test_sql_quotes_what_callers_send() -> None:
    text = compile_where(Where("a'b", "eq", "x'y")).as_string(None)
    assert "'a''b'" in text
    assert "'x''y'" in text
    assert compile_where(Where("a", "in", [])).as_string(None) == "false"


def test_rows_of_one_time_have_an_order_of_their_own() -> None:
    """All runs of a cycle start together: without one, a row at the edge of two pages may be on neither."""
    asked: list[str] = []

    def execute(statement: Any) -> Any:
        asked.append(statement.as_string(None))
        return SimpleNamespace(fetchall=list)

    tx = PostgresTx(cast("Any", SimpleNamespace(execute=execute)))
    tx.find("ingestion_runs", Query(order="started_at", descending=True, offset=50, limit=50))
    assert asked[0].endswith("order by doc->>'started_at' collate \"C\" desc, seq limit 50 offset 50")
