"""The rounds and brackets of T6 against the API stand-in over a store in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from pydantic import SecretStr

from fixtures.errors import ProbeError, Unknown
from fixtures.observe import freshness, stored
from fixtures.observe.convex import ConvexProbe
from fixtures.observe.http import HttpProbe
from fixtures.observe.nomad_exec import ExecResult
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.rollout import agreement, notices
from fixtures.rollout.freshness import (
    MARKET_ROWS,
    STATUS_ROWS,
    TIMESCALE,
    Watch,
    in_convex,
    listed_pairs,
    wrong_symbols,
)
from fixtures.rollout.standing import Bounds, Standing, standing
from fixtures.target.cadence import CANDLE, PASS
from fixtures.target.pairs import BINGX_THRESHOLDS_SECONDS, SCALE_VARIABLE
from fixtures.workloads import feeds, weakness
from fixtures.workloads.api.app import create_app as create_api
from fixtures.workloads.api.core import Api
from fixtures.workloads.convex import functions
from fixtures.workloads.convexclient import ConvexClient
from fixtures.workloads.jsonlog import Log
from fixtures.workloads.pairs import Pairs

Build = Callable[..., Watch]
PAIR = "BTC-USDT"
REHEARSED = {
    "BINGX_MARKET_DATA_INTERVAL_MIN": "0.1",
    "DATA_SOURCE_MONITOR_INTERVAL_MIN": "0.1",
    "DATA_GAP_MONITOR_INTERVAL_MIN": "0.15",
    SCALE_VARIABLE: "0.5",
}


class Bridge(httpx.BaseTransport):
    """Asks an application that lives in another thread's loop."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._app, self._loop = httpx.ASGITransport(app=app), loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._app) as client:
                return await client.request(
                    request.method, request.url, headers=request.headers, content=request.read()
                )

        answer = asyncio.run_coroutine_threadsafe(ask(), self._loop).result(20)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


class Nomad:
    """One API and one worker, with these settings of their own."""

    def __init__(self, **environment: str) -> None:
        self._environment = environment

    def running(self, job: str, task: str) -> list[Any]:
        return [SimpleNamespace(id=f"{job}-0")]

    def exec(self, alloc: str, task: str, argv: list[str]) -> ExecResult:
        return ExecResult(0, "".join(f"{name}={value}\n" for name, value in self._environment.items()), "")

    def job(self, job: str) -> dict[str, Any]:
        tasks = [{"Name": name, "Env": self._environment} for name in ("api", "worker")]
        return {"ID": job, "TaskGroups": [{"Tasks": tasks}]}


@pytest.fixture
def build(convex_app: Callable[..., Any], known_pairs: Pairs) -> Iterator[Build]:
    """A watch over two instances of an API with weaknesses, and a store in which everything is fresh."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def make(
        weaknesses: str = "", *, mistaken: tuple[str, ...] = (), weak_store: str = "", **environment: str
    ) -> Watch:
        client = ConvexClient("http://convex.test", 5, httpx.ASGITransport(app=convex_app(weak_store)))
        known = known_pairs.taken_for_gold(mistaken)
        api = Api(client, known, weakness.parse(weaknesses), Log("api"), feeds.thresholds(), "secret")
        record = InMemory()
        convex = ConvexProbe("http://convex.test", record, Bridge(convex_app(weak_store), loop))
        target = SimpleNamespace(
            config=SimpleNamespace(supported_pairs=known_pairs.supported),
            record=record,
            http=HttpProbe(record, Bridge(create_api(api), loop)),
            nomad=Nomad(**environment),
            convex=lambda: convex,
            api_token=lambda: SecretStr("secret"),
            instances=lambda service: [
                Service(f"i{n}", service, f"10.0.0.{n}", 8787, None, True) for n in (1, 2)
            ],
        )
        for pair in known_pairs.supported:
            seed(convex, pair, time.time())
        return Watch(cast("Any", target))

    yield make
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def seed(convex: ConvexProbe, pair: str, moment: float) -> None:
    """A row of every table and a stamp of every feed."""
    at, opened = stored.stamp(moment), moment // 60 * 60
    common = {"pair": pair, "source": "bingx_rest", "captured_at": at}
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.5)
    rows: dict[str, dict[str, Any]] = {
        "bingx_candles": {
            **common, **prices, "interval": "1m", "open_time": stored.stamp(opened),
            "close_time": stored.stamp(opened + 60), "updated_at": at,
        },
        "bingx_trades": {**common, "trade_id": at, "executed_at": at, "price": 1, "quantity": 1, "side": "buy"},
        "bingx_tickers": {**common, "last_price": 1},
        "bingx_mark_index_prices": {**common, "mark_price": 1, "index_price": 1},
        "bingx_open_interest": {**common, "open_interest": 1},
        "bingx_funding_rates": {**common, "funding_time": at, "funding_rate": 0},
        "bingx_orderbook_snapshots": {**common, "depth_level": 5, "bids": [], "asks": []},
    }  # fmt: skip
    for table, row in rows.items():
        convex.mutation("data:write", {"table": table, "action": "insert", "payload": row})
    stamps = [
        {"pair": pair, "source_type": feed, "status": "ok", "last_seen_at": at, "updated_at": at}
        for feed in BINGX_THRESHOLDS_SECONDS
    ]
    args = {"table": "data_source_status", "action": "upsert", "onConflict": "pair,source_type"}
    convex.mutation("data:write", {**args, "payload": stamps})


def contradictions(watch: Watch) -> dict[str, list[str]]:
    found = agreement.of_instance(watch, watch.instances[0], time.time() - 120)
    return {
        path.partition(" at ")[0]: one.contradictions for path, one in found.items() if one.contradictions
    }


def test_everything_is_fresh_and_everybody_agrees(build: Build) -> None:
    watch = build()
    found = watch.round()
    assert watch.not_fresh(found) == [] and watch.settings_problems(found) == []
    assert len(watch.not_stale(found, PAIR)) == len(watch.told) == 8
    assert found.items[STATUS_ROWS].keys() == found.items[MARKET_ROWS].keys()
    assert contradictions(watch) == {}
    assert agreement.stamps(watch).contradictions == []


@pytest.mark.parametrize(("mistaken", "said"), [((), 0), (("BTCUSDT",), 1)])
def test_a_pair_under_the_symbol_of_another_is_seen(
    build: Build, mistaken: tuple[str, ...], said: int
) -> None:
    watch = build(mistaken=mistaken)
    for one in watch.instances:
        problems = wrong_symbols(listed_pairs(watch.get(one, freshness.PAIRS)[0]))
        assert len(problems) == said
        assert not said or problems[0].startswith("BTC-USDT is called XAUT-USDT")


def test_a_pair_without_a_row_is_not_fresh_whatever_it_is_called(build: Build) -> None:
    watch = build("status-ok-when-absent")
    watch.convex.delete("data_source_status", pair=PAIR)
    found = watch.round()
    assert {one.partition(":")[0] for one in watch.not_fresh(found)} >= {STATUS_ROWS.partition(":")[0]}
    assert len(watch.not_fresh(found)) == 7 * len(BINGX_THRESHOLDS_SECONDS)
    lies = contradictions(watch)
    assert set(lies) == {freshness.DATA_SOURCES, freshness.MARKET_DATA}
    assert "called ok: without data" in lies[freshness.DATA_SOURCES][0]


def test_the_honest_endpoint_says_unavailable(build: Build) -> None:
    watch = build()
    watch.convex.delete("data_source_status", pair=PAIR)
    assert contradictions(watch) == {}


def test_an_old_pair_is_stale_everywhere(build: Build) -> None:
    watch = build()
    for table in (*(one.name for one in stored.TABLES), "data_source_status"):
        watch.convex.delete(table, pair=PAIR)
    seed(watch.convex, PAIR, time.time() - 300)
    found = watch.round()
    # The rows of the store still carry the word of their last writer.
    assert set(watch.not_stale(found, PAIR)) == {STATUS_ROWS}
    assert len(watch.not_fresh(found)) == 8 * len(watch.live)
    assert contradictions(watch) == {}


def test_a_stamp_without_its_row_is_a_lie(build: Build) -> None:
    watch = build()
    watch.convex.delete("bingx_funding_rates", pair=PAIR)
    (said,) = agreement.stamps(watch).contradictions
    assert said == "BTC-USDT bingx_funding is stamped as seen, and has no row"


@pytest.mark.parametrize(("weaknesses", "lies"), [("", False), ("gaps-static-zero", True)])
def test_false_zeros_are_seen_where_a_gap_stands(build: Build, weaknesses: str, lies: bool) -> None:
    watch = build(weaknesses)
    now = stored.stamp(time.time())
    gap = {"pair": PAIR, "source_type": "bingx_ticker", "interval": None, "status": "open"}
    gap |= dict.fromkeys(("gap_start", "gap_end", "detected_at", "last_seen_at"), now)
    alert = {"category": "slo", "severity": "low", "metric": notices.LAG, "value": 1, "status": "open"}
    labels = {"pair": PAIR, "source_type": "bingx_ticker"}
    watch.convex.insert("data_gap_events", gap)
    watch.convex.insert("ops_alerts", {**alert, "triggered_at": now, "metadata": labels})
    assert set(contradictions(watch)) == ({notices.GAPS} if lies else set())
    told = notices.notices(watch, time.time() - 60)
    assert len(told.missing(PAIR, ["bingx_ticker"])) == (2 if lies else 0)


def hold_against(watch: Watch, pair: str, moment: float) -> None:
    """A silent source's gap and a lag alert, both as of this moment."""
    at = stored.stamp(moment)
    gap = {"pair": pair, "source_type": "bingx_ticker", "interval": None, "status": "open"}
    gap |= dict.fromkeys(("gap_start", "gap_end", "detected_at", "last_seen_at"), at)
    watch.convex.insert("data_gap_events", gap)
    alert = {"category": "slo", "severity": "low", "metric": notices.LAG, "value": 130, "threshold": 120}
    alert |= {"status": "open", "triggered_at": at, "metadata": {"pair": pair, "source_type": "bingx_ticker"}}
    watch.convex.insert("ops_alerts", alert)


def bounds_of(watch: Watch, fresh: float) -> Bounds:
    return Bounds(fresh, watch.cadence, watch.hovering)


def test_nothing_stands_against_pairs_of_which_nobody_complains(build: Build) -> None:
    watch = build(**REHEARSED)
    assert standing(watch, bounds_of(watch, time.time())) == Standing((), (), ())
    hold_against(watch, "DOGE-USDT", time.time() + 30)
    assert standing(watch, bounds_of(watch, time.time())) == Standing((), (), ()), "not configured"


def test_a_gap_and_an_alert_since_the_fresh_round_are_seen_wherever_they_are_told(build: Build) -> None:
    watch = build(**REHEARSED)
    now = time.time()
    hold_against(watch, PAIR, now)
    found = standing(watch, bounds_of(watch, now - PASS - 1))
    assert len(found.wrong) == 5, "the store's gap, and both of two instances"
    assert not found.open and not found.older
    assert sum("silence of BTC-USDT bingx_ticker" in one for one in found.wrong) == 3


def test_what_the_last_pass_before_said_is_open_until_the_monitors_have_looked_again(build: Build) -> None:
    watch = build(**REHEARSED)
    now = time.time()
    hold_against(watch, PAIR, now - 1)
    found = standing(watch, bounds_of(watch, now))
    assert not found.wrong and len(found.open) == 5


def test_what_no_monitor_confirms_is_history(build: Build) -> None:
    watch = build(**REHEARSED)
    hold_against(watch, PAIR, time.time() - 3600)
    found = standing(watch, bounds_of(watch, time.time()))
    assert not found.wrong and not found.open and len(found.older) == 3


def test_a_hole_in_the_minute_candles_is_found_at_every_instance(build: Build) -> None:
    watch = build(**REHEARSED)
    first = watch.round()
    minute = first.at // CANDLE * CANDLE
    seed_candles(watch.convex, PAIR, minute - 2 * CANDLE, minute + CANDLE, minute + 2 * CANDLE)
    assert watch.holes([first, watch.round()]) == {}, "what is missing from before the first round is history"
    seed_candles(watch.convex, PAIR, minute + 4 * CANDLE)
    holes = watch.holes([first, watch.round()])
    assert holes == {(PAIR, minute + 3 * CANDLE): list(watch.endpoints(freshness.CANDLES))}


def seed_candles(convex: ConvexProbe, pair: str, *opened: float) -> None:
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.5)
    rows = [
        {**prices, "pair": pair, "interval": "1m", "source": "bingx_ws", "open_time": stored.stamp(at),
         "close_time": stored.stamp(at + CANDLE)}
        for at in opened
    ]  # fmt: skip
    convex.mutation("bingx_candles:upsertBatch", {"rows": rows})


def test_candles_are_told_whatever_else_the_store_holds(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = build(**REHEARSED, weak_store="full-collect-cap")
    monkeypatch.setattr(functions, "READ_CAP", 0)
    since = time.time() - 120
    with pytest.raises(ProbeError, match="documents read in one function"):
        stored.select(watch.convex, "bingx_candles")
    assert [len(stored.candles(watch.convex, pair, since)) for pair in watch.pairs] == [1, 1, 1]
    found = agreement.candles(watch, watch.instances[0], since)
    assert len(found.agreed) == 3 and not found.contradictions and not found.open
    with pytest.raises(ProbeError, match="data:query collects it whole"):
        watch.newest_rows()


@pytest.mark.parametrize("value", ["true", "1", "On", "false", ""])
@pytest.mark.parametrize("variable", TIMESCALE)
def test_rows_outside_convex_are_unknown_and_not_missing(variable: str, value: str) -> None:
    target = cast("Any", SimpleNamespace(nomad=Nomad(**{variable: value})))
    if value in {"false", ""}:
        in_convex(target)
    else:
        with pytest.raises(Unknown, match=f"external Timescale: {variable}"):
            in_convex(target)


def test_a_cached_answer_is_no_truth(build: Build) -> None:
    watch = build("api-cached")
    assert contradictions(watch) == {}
    watch.convex.delete("bingx_candles", pair=PAIR)
    seed(watch.convex, PAIR, time.time() + 1)
    assert set(contradictions(watch)) >= {freshness.DATA_SOURCES, freshness.MARKET_DATA}


def test_on_the_rehearsals_settings_nothing_hovers(build: Build) -> None:
    watch = build(**REHEARSED)
    assert watch.hovering == {} and watch.limits == watch.thresholds
    assert watch.thresholds["bingx_open_interest"] == 60
    assert watch.span == watch.cadence.advance() and watch.pace == watch.span / 4
    assert watch.fetched_terms().period_s == {} == watch.terms().period_s


def test_on_the_applications_settings_what_is_fetched_hovers_and_nothing_else(build: Build) -> None:
    watch = build()
    assert watch.hovering == {"bingx_open_interest": 120.0, "bingx_index_price": 120.0}
    assert watch.span == 240 and watch.pace == 60
    grown = {feed for feed, limit in watch.limits.items() if limit > watch.thresholds[feed]}
    assert grown == set(watch.hovering)
    terms = watch.fetched_terms()
    assert terms.period_s == watch.hovering and terms.threshold_s["bingx_open_interest"] == 120
    assert watch.terms().period_s == {}, "what is streamed has no period"


@pytest.mark.parametrize(("minutes", "hovers"), [("0.99", False), ("1", True)])
def test_what_hovers_is_by_the_settings(build: Build, minutes: str, hovers: bool) -> None:
    assert bool(build(BINGX_MARKET_DATA_INTERVAL_MIN=minutes).hovering) is hovers
