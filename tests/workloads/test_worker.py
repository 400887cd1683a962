"""The worker's parts: parsing, buffering, cycles under the lock, monitors, retry queue."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from fixtures.workloads import weakness
from fixtures.workloads.convexclient import ConvexClient, ConvexUnavailable, where
from fixtures.workloads.exchange import market
from fixtures.workloads.exchange.app import create_app as create_exchange
from fixtures.workloads.exchange.venue import Venue
from fixtures.workloads.feeds import BINGX_THRESHOLDS, FEEDS, LOCK_FEED
from fixtures.workloads.jsonlog import Log, Ndjson
from fixtures.workloads.pairs import Pairs
from fixtures.workloads.timefmt import iso, unix
from fixtures.workloads.worker.config import Config
from fixtures.workloads.worker.cycle import Cycle, next_allowed
from fixtures.workloads.worker.frames import CandleFreshness, Parsed, parse_frame
from fixtures.workloads.worker.monitors import Monitors, candle_gaps, severity
from fixtures.workloads.worker.rest import Rest
from fixtures.workloads.worker.retry import RetryQueue
from fixtures.workloads.worker.runs import Runs
from fixtures.workloads.worker.store import Store
from fixtures.workloads.worker.stream import Stream

pytestmark = pytest.mark.anyio
NOW = 1_770_000_030.0


def frame(stream: str, symbol: str = "BTC-USDT", moment: float = NOW) -> str:
    data = market.frame(symbol, stream, int(moment * 1000))
    return json.dumps({"code": 0, "dataType": f"{symbol}@{stream}", "data": data})


class Rig:
    """A worker without its timers, over in-process backend and exchange."""

    def __init__(
        self, convex: ConvexClient, pairs: Pairs, weaknesses: str = "", instance: str = "w1"
    ) -> None:
        self.config = Config(
            pairs=pairs,
            weaknesses=weakness.parse(weaknesses),
            instance=instance,
            intervals=("1m", "15m"),
            http_retries=0,
            feed_interval=0,
            backoff_base=0,
            heal_cooldown=0,
        )
        log = Log("worker")
        self.venue = Venue(pairs.symbols(), Ndjson(""))
        exchange = create_exchange(self.venue, log, tick_s=1, ping_s=1, summary_s=60)
        self.convex = convex
        self.store = Store(self.config, convex, log)
        self.stream = Stream(self.config, self.store, log)
        self.rest = Rest(self.config, self.stream.note_index, httpx.ASGITransport(app=exchange))
        self.runs = Runs(self.config, convex, log)
        self.cycle = Cycle(self.config, convex, self.store, self.rest, self.stream, self.runs, log)
        self.monitors = Monitors(self.config, convex, self.store, self.rest, log)
        self.retry = RetryQueue(self.config, convex, self.cycle, log)


@pytest.fixture
def rig(convex: ConvexClient, known_pairs: Pairs) -> Callable[..., Rig]:
    return lambda weaknesses="", instance="w1": Rig(convex, known_pairs, weaknesses, instance)


@pytest.mark.parametrize(
    ("stream", "table", "source"),
    [
        ("trade", "bingx_trades", "bingx_trades"),
        ("ticker", "bingx_tickers", "bingx_ticker"),
        ("markPrice", "bingx_mark_index_prices", "bingx_mark_price"),
        ("depth5@500ms", "bingx_orderbook_snapshots", "bingx_orderbook"),
        ("kline_1m", "bingx_candles", "bingx_candles"),
    ],
)
def test_frames_become_rows_and_stamps(stream: str, table: str, source: str) -> None:
    parsed = parse_frame(frame(stream), lambda symbol: ["BTC-USDT"], NOW, lambda pair: 1.5)
    assert list(parsed.rows) == [table]
    assert parsed.rows[table][0]["source"] == "bingx_ws"
    assert list(parsed.seen) == [("BTC-USDT", source)]
    assert abs(parsed.seen["BTC-USDT", source] - NOW) < 1


def test_only_the_shortest_candle_proves_freshness() -> None:
    def seen(stream: str, **options: Any) -> Parsed:
        return parse_frame(
            frame(stream), lambda symbol: ["P"], NOW, lambda pair: None, CandleFreshness(**options)
        )

    assert seen("kline_1d").seen == {}
    assert seen("kline_1M").rows["bingx_candles"][0]["interval"] == "1M"
    assert seen("kline_1d", future=True).seen["P", "bingx_candles"] > NOW


@pytest.mark.parametrize("text", ['{"code":0,"id":"1"}', '{"dataType":"X-USDT@trade","data":{}}', "[]"])
def test_answers_and_unknown_symbols_give_nothing(text: str) -> None:
    parsed = parse_frame(text, lambda symbol: [], NOW, lambda pair: None)
    assert (parsed.rows, parsed.seen) == ({}, {})


async def test_a_full_cycle_makes_every_source_fresh_and_logs_windows(rig: Callable[..., Rig]) -> None:
    worker = rig()
    assert await worker.cycle.run("schedule") == "succeeded"
    status = await worker.convex.rows("data_source_status")
    assert {(row["pair"], row["source_type"]) for row in status} == {
        (pair, source) for pair in worker.config.pairs.supported for source in BINGX_THRESHOLDS
    }
    assert {row["status"] for row in status} == {"ok"}
    runs = await worker.convex.rows("ingestion_runs")
    assert sorted(run["feed"] for run in runs) == sorted([*FEEDS, LOCK_FEED])
    assert {run["status"] for run in runs} == {"succeeded"}
    assert len({run["started_at"] for run in runs}) == 1
    assert {run["holder"] for run in runs} == {"w1"}
    assert worker.runs.open == {}
    tickers = await worker.convex.rows("bingx_tickers")
    for row in tickers:
        if row["pair"] == "BTC-USDT":
            assert row["last_price"] == market.price("BTC-USDT", int((unix(row["captured_at"]) or 0) * 1000))


async def test_the_lock_admits_one_worker(rig: Callable[..., Rig]) -> None:
    one, two = rig(instance="w1"), rig(instance="w2")
    held = await one.runs.start(LOCK_FEED, "schedule", iso(NOW))
    assert held is not None
    assert await two.cycle.run("schedule") == "skipped"
    await one.runs.complete(held, status="succeeded")
    outcomes = await asyncio.gather(one.cycle.run("schedule"), one.cycle.run("schedule"))
    assert sorted(outcomes) == ["skipped", "succeeded"]


async def test_double_cycle_weakness_overlaps(rig: Callable[..., Rig]) -> None:
    worker = rig("double-cycle")
    await worker.cycle.run("schedule")
    runs = await worker.convex.rows("ingestion_runs")
    assert len([run for run in runs if run["feed"] == LOCK_FEED]) == 2


async def test_a_start_whose_answer_was_lost_does_not_freeze_ingest(rig: Callable[..., Rig]) -> None:
    worker = rig()
    await worker.runs.start(LOCK_FEED, "schedule", iso(NOW))
    worker.runs.open.clear()
    assert await worker.cycle.run("schedule") == "succeeded"
    runs = await worker.convex.rows("ingestion_runs")
    assert [run["status"] for run in runs if run["error_summary"] == "start lost"] == ["failed"]


async def test_exchange_outage_fails_the_feeds_and_gives_up_early(rig: Callable[..., Rig]) -> None:
    worker = rig()
    worker.venue.error_rate = 1.0
    assert await worker.cycle.run("schedule") == "failed"
    runs = await worker.convex.rows("ingestion_runs")
    assert {run["status"] for run in runs} == {"failed"}
    assert {run["error_count"] for run in runs} == {1}
    worker.venue.error_rate = 0.0
    assert await worker.cycle.run("schedule") == "succeeded"


async def test_store_outage_leaves_a_debt_that_is_paid(rig: Callable[..., Rig], rows: Any) -> None:
    worker = rig()
    run = await worker.runs.start("candles", "schedule", iso(NOW))
    assert run is not None
    rows.away = True
    await worker.runs.complete(run, status="succeeded")
    assert list(worker.runs.owed) == [run]
    with pytest.raises(ConvexUnavailable):
        await worker.runs.pay()
    rows.away = False
    await worker.runs.pay()
    assert (worker.runs.owed, worker.runs.open) == ({}, {})
    assert (await worker.convex.rows("ingestion_runs"))[0]["status"] == "succeeded"


async def test_abandoned_runs_stay_running(rig: Callable[..., Rig], rows: Any) -> None:
    worker = rig("abandon-runs")
    run = await worker.runs.start("candles", "schedule", iso(NOW))
    assert run is not None
    rows.away = True
    await worker.runs.complete(run, status="succeeded")
    rows.away = False
    assert worker.runs.owed == {}
    assert (await worker.convex.rows("ingestion_runs"))[0]["status"] == "running"


async def test_shutdown_closes_open_runs(rig: Callable[..., Rig]) -> None:
    worker = rig()
    await worker.runs.start("candles", "schedule", iso(NOW))
    await worker.cycle.shutdown()
    run = (await worker.convex.rows("ingestion_runs"))[0]
    assert (run["status"], run["error_summary"]) == ("failed", "shutdown")


async def test_cancelled_start_is_still_known(rig: Callable[..., Rig]) -> None:
    worker = rig()
    task = asyncio.create_task(worker.runs.start("candles", "schedule", iso(NOW)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await worker.cycle.shutdown()
    assert {run["status"] for run in await worker.convex.rows("ingestion_runs")} == {"failed"}


def test_next_allowed(known_pairs: Pairs) -> None:
    config = Config(pairs=known_pairs, feed_interval=60, backoff_base=300, backoff_max=3600)
    done = {"finished_at": iso(NOW), "status": "succeeded"}
    assert next_allowed({**done, "started_at": iso(NOW - 5)}, config) == NOW - 5 + 45
    late = replace(config, weaknesses=weakness.parse("late-feeds"))
    assert next_allowed(done, late) == NOW + 60
    assert next_allowed({**done, "status": "failed", "error_count": 2}, config) == NOW + 600
    assert next_allowed({**done, "status": "failed", "error_count": 9}, config) == NOW + 3600
    assert next_allowed({**done, "status": "failed", "error_summary": "shutdown"}, late) == NOW + 60
    assert next_allowed({"finished_at": None, "status": "running"}, config) == 0


async def test_flush_keeps_what_it_could_not_write(rig: Callable[..., Rig], rows: Any) -> None:
    worker = rig()
    moment = time.time()
    worker.store.accept(
        parse_frame(frame("trade", moment=moment), lambda s: ["BTC-USDT"], moment, lambda p: None)
    )
    rows.away = True
    with pytest.raises(ConvexUnavailable):
        await worker.store.flush()
    rows.away = False
    await worker.store.flush()
    assert len(await worker.convex.rows("bingx_trades")) == 1
    assert [row["status"] for row in await worker.convex.rows("data_source_status")] == ["ok"]


async def test_freshness_never_steps_back(rig: Callable[..., Rig]) -> None:
    worker = rig()
    for age in (5, 50):
        worker.store.accept(Parsed({}, {("BTC-USDT", "bingx_ticker"): time.time() - age}))
        await worker.store.flush()
    row = (await worker.convex.rows("data_source_status"))[0]
    assert time.time() - (unix(row["last_seen_at"]) or 0) < 10


@pytest.mark.parametrize(("weaknesses", "expected"), [("", 1), ("mute-pair:BTCUSDT", 0)])
async def test_muted_pair_weakness(rig: Callable[..., Rig], weaknesses: str, expected: int) -> None:
    worker = rig(weaknesses)
    worker.store.accept(parse_frame(frame("trade"), lambda s: ["BTC-USDT"], NOW, lambda p: None))
    await worker.store.flush()
    assert len(await worker.convex.rows("bingx_trades")) == expected


@pytest.mark.parametrize(("weaknesses", "changed"), [("", False), ("rounded-prices", True)])
async def test_rounded_prices_weakness(rig: Callable[..., Rig], weaknesses: str, changed: bool) -> None:
    worker = rig(weaknesses)
    parsed = parse_frame(frame("ticker"), lambda s: ["BTC-USDT"], NOW, lambda p: None)
    worker.store.accept(parsed)
    await worker.store.flush()
    (row,) = await worker.convex.rows("bingx_tickers")
    price = parsed.rows["bingx_tickers"][0]["last_price"]
    assert (row["last_price"] != price) is changed and abs(row["last_price"] / price - 1) < 0.01


def test_candle_gaps_are_interior_only() -> None:
    assert candle_gaps([], "1m", 1) == []
    assert candle_gaps([0, 60, 120], "1m", 1) == []
    assert candle_gaps([0, 60, 240, 300], "1m", 1) == [(120, 180, 2)]
    assert candle_gaps([0, 10**9], "1M", 1) == []


def test_severity() -> None:
    assert [severity(value, 100) for value in (101, 125, 200)] == ["low", "medium", "high"]


async def test_a_silent_source_is_one_gap_until_it_returns(rig: Callable[..., Rig]) -> None:
    worker = rig()
    assert await worker.cycle.run("schedule") == "succeeded"
    await worker.monitors.gaps()
    assert await worker.convex.rows("data_gap_events") == []
    old = {"pair": "BTC-USDT", "source_type": "bingx_ticker", "last_seen_at": iso(time.time() - 300)}
    await worker.convex.upsert("data_source_status", old, "pair,source_type")
    for _ in range(3):
        await worker.monitors.gaps()
    gaps = await worker.convex.rows("data_gap_events")
    assert [(gap["status"], gap["interval"], gap["details"]["status"]) for gap in gaps] == [
        ("open", None, "stale")
    ]
    await worker.monitors.sources()
    alerts = await worker.convex.rows("ops_alerts")
    assert [(a["metric"], a["severity"]) for a in alerts] == [("ingestion_lag_seconds", "high")]
    await worker.convex.upsert(
        "data_source_status", {**old, "last_seen_at": iso(time.time())}, "pair,source_type"
    )
    await worker.monitors.gaps()
    assert [gap["status"] for gap in await worker.convex.rows("data_gap_events")] == ["resolved"]


async def test_row_per_pass_weakness(rig: Callable[..., Rig]) -> None:
    worker = rig("gap-row-per-pass")
    old = {"pair": "BTC-USDT", "source_type": "bingx_ticker", "last_seen_at": iso(time.time() - 300)}
    await worker.convex.upsert("data_source_status", old, "pair,source_type")
    for _ in range(2):
        await worker.monitors.gaps()
    mine = [
        gap for gap in await worker.convex.rows("data_gap_events") if gap["source_type"] == "bingx_ticker"
    ]
    btc = [gap["status"] for gap in mine if gap["pair"] == "BTC-USDT"]
    assert sorted(btc) == ["open", "resolved"]


async def test_a_planted_gap_is_left_alone(rig: Callable[..., Rig]) -> None:
    worker = rig()
    await worker.cycle.run("schedule")
    planted = {"pair": "BTC-USDT", "source_type": "bingx_trades", "status": "open", "gap_start": iso(0)}
    await worker.convex.insert("data_gap_events", planted)
    await worker.monitors.gaps()
    assert [gap["status"] for gap in await worker.convex.rows("data_gap_events")] == ["open"]


async def test_candle_hole_is_found_healed_and_resolved(rig: Callable[..., Rig], rows: Any) -> None:
    worker = rig()
    await worker.cycle.run("schedule")
    candles = rows.tables["bingx_candles"]
    btc = sorted(
        (row["open_time"], key)
        for key, row in candles.items()
        if (row["pair"], row["interval"]) == ("BTC-USDT", "1m")
    )
    del candles[btc[10][1]]
    await worker.monitors.gaps()
    gap = (await worker.convex.rows("data_gap_events"))[0]
    assert (gap["interval"], gap["missing_points"], gap["gap_start"]) == ("1m", 1, btc[10][0])
    for _ in range(2):
        await worker.monitors.gaps()
    assert (await worker.convex.rows("data_gap_events"))[0]["status"] == "resolved"


async def test_retry_item_skipped_by_the_lock_stays_pending(rig: Callable[..., Rig]) -> None:
    worker, other = rig(), rig(instance="w2")
    held = await other.runs.start(LOCK_FEED, "schedule", iso(NOW))
    item = {
        "job_type": "bingx_market_data",
        "dedupe_key": "k",
        "status": "pending",
        "next_attempt_at": iso(0),
    }
    await worker.convex.insert("retry_queue", item)
    await worker.retry.work()
    assert (await worker.convex.rows("retry_queue"))[0]["status"] == "pending"
    assert held is not None
    await other.runs.complete(held, status="succeeded")
    await worker.convex.upsert("retry_queue", {**item, "next_attempt_at": iso(0)}, "job_type,dedupe_key")
    await worker.retry.work()
    assert (await worker.convex.rows("retry_queue"))[0]["status"] == "succeeded"


async def test_paused_ingestion_runs_nothing(rig: Callable[..., Rig]) -> None:
    worker = rig()
    await worker.convex.insert("ingestion_configs", {"source_type": "bingx", "feed": None, "enabled": False})
    assert await worker.cycle.run("schedule") == "skipped"
    assert await worker.convex.rows("ingestion_runs") == []


def test_topics_cover_every_symbol_and_interval(known_pairs: Pairs) -> None:
    topics = replace(Config(pairs=known_pairs), ws_depth_speed=500).topics()
    assert len(topics) == 2 * (4 + 14)
    assert "BTC-USDT@depth5@500ms" in topics


async def test_a_retry_takes_only_what_is_due(rig: Callable[..., Rig]) -> None:
    """The schedule has been here meanwhile: a second window within seconds would be a duplicate by the rule."""
    worker = rig()
    worker.cycle._config = replace(worker.config, feed_interval=60)
    await worker.cycle.run("schedule")
    for trigger, more in (("retry", 0), ("manual", 1)):
        before = len(await worker.convex.rows("ingestion_runs", [where("feed", "eq", "candles")]))
        await worker.cycle.run(trigger)
        now = len(await worker.convex.rows("ingestion_runs", [where("feed", "eq", "candles")]))
        assert now - before == more, trigger
