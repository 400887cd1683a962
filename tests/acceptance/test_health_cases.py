"""T1's tests against a small stack in memory: two APIs over one store, two frontends, and whoever else knows the token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from acceptance import test_1_health as t1
from fixtures.errors import ProbeError, UndoError, Unknown
from fixtures.faults import AllocFreeze, Journal
from fixtures.observe import schemas
from fixtures.observe.convex import ConvexSilent
from fixtures.observe.http import Sample
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.rollout import checks, planted
from fixtures.rollout.entries import ScratchRows
from fixtures.target import deadlines, names, pairs
from fixtures.target.target import Target
from fixtures.workloads.api.ops import ALERT_FIELDS, gap_health, shaped
from tests.journals import journal_for

TOKEN = "t"  # noqa: S105
BY_NAME = "http://gvfx-api.service.consul:8787"
Answer = tuple[int, Any]


@dataclass
class Store:
    """Rows by table, as Convex's functions show them."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    url: str = "http://convex.test"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def rows(self, table: str, **equal: Any) -> list[dict[str, Any]]:
        with self.lock:
            return [dict(one) for one in self.tables.get(table, []) if equal.items() <= one.items()]

    def insert(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.tables.setdefault(table, []).insert(0, dict(row))
        return row

    def delete(self, table: str, **equal: Any) -> int:
        with self.lock:
            kept = [one for one in self.tables.get(table, []) if not equal.items() <= one.items()]
            count, self.tables[table] = len(self.tables.get(table, [])) - len(kept), kept
        return count


def api(store: Store, path: str) -> Answer:
    """The API's answer to who knows the token."""
    if path == "/ops/alerts":
        return 200, [shaped(one, ALERT_FIELDS) for one in store.rows("ops_alerts")]
    rows = [one for one in store.rows("data_gap_events") if one["status"] in {"open", "healing"}]
    return 200, gap_health(rows, 250)


@dataclass
class World:
    """What a target shows, each part of it to be spoilt."""

    store: Store = field(default_factory=Store)
    asked: str = BY_NAME
    """Whom the frontends ask, by their own word."""
    behind: Store | None = None
    """The store of the API that the frontends ask, when it is another."""
    answer: Callable[[Store, str], Answer] = api
    frozen: bool = False
    answers_anyway: bool = False
    """Whether Convex answers our own call while it is frozen."""
    scratch: bool = True
    discovery: str = "consul"
    figures: dict[str, Any] = field(default_factory=dict)
    record: InMemory = field(default_factory=InMemory)

    @property
    def target(self) -> Target:
        return cast("Target", self)

    @property
    def config(self) -> Any:
        return SimpleNamespace(
            gvfx_discovery=self.discovery, gvfx_health_latency_seconds=2.0, supported_pairs=("BTC-USDT",)
        )

    @property
    def http(self) -> Any:
        return SimpleNamespace(get=self.get)

    @property
    def nomad(self) -> Any:
        running = [SimpleNamespace(id="a1", node_name="c1")]
        return SimpleNamespace(nodes=list, running=lambda job, task: running)

    @cached_property
    def entries(self) -> Journal:
        return journal_for(self)

    def measure(self, **figures: Any) -> None:
        self.figures |= figures

    def require(self, name: str) -> None:
        return

    def require_scratch(self) -> None:
        if not self.scratch:
            raise ProbeError("scratch writes", "not allowed", "allowed")

    def api_token(self) -> str:
        return TOKEN

    def convex(self) -> Any:
        return self.store

    def passing(self, one: Service) -> bool | None:
        return one.passing

    def instances(self, service: str) -> list[Service]:
        (job,) = (one for one in names.SERVICES if one.service == service)
        return [
            Service(f"i{n}", service, f"100.64.0.{n}", job.port, f"a{n}", True)
            for n in range(1, job.count + 1)
        ]

    @contextmanager
    def applied(self, fault: AllocFreeze) -> Iterator[AllocFreeze]:
        assert (fault.host, fault.container) == ("c1", "convex-a1")
        self.frozen = True
        try:
            yield fault
        finally:
            self.frozen = False

    def get(
        self, url: str, *, token: str | None = None, headers: Any = None, timeout: float = 10.0
    ) -> Sample:
        parts = urlsplit(url)
        said: dict[str, str] = {}
        if parts.port == names.FRONTEND.port and parts.path == "/":
            return Sample(url, 200, 0.01, "text/html", "<html>")
        if parts.port == names.FRONTEND.port:
            path = parts.path.removeprefix("/api/backend")
            said = {"x-upstream-url": f"{self.asked}{path}"}
            status, body = self.answer(self.behind or self.store, path)
        elif token == TOKEN:
            status, body = self.answer(self.store, parts.path)
        else:
            status, body = 401, {"error": "Unauthorized"}
        return Sample(url, status, 0.01, "application/json", json.dumps(body), said)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(t1, "VISIBLE", 0.1)
    return World()


# -- T1.6, T1.11: who is behind the frontends ------------------------------------------------------------------


def test_frontends_that_ask_the_api_by_its_name(world: World) -> None:
    t1.test_every_frontend_serves_and_reaches_the_api(world.target, world.measure)
    assert world.figures["instances"] == 2


@pytest.mark.parametrize("asked", ["http://100.64.0.1:8787", "http://legacy.test:8787", f"{BY_NAME}0"])
def test_another_api_that_knows_the_token_is_not_the_one(world: World, asked: str) -> None:
    world.asked = asked
    with pytest.raises(AssertionError, match="not gvfx-api.service.consul:8787"):
        t1.test_every_frontend_serves_and_reaches_the_api(world.target, world.measure)


def test_without_consul_a_registered_instance_is_the_api(world: World) -> None:
    world.discovery, world.asked = "nomad", "http://100.64.0.2:8787"
    t1.test_every_frontend_serves_and_reaches_the_api(world.target, world.measure)
    world.asked = "http://100.64.0.3:8787"
    with pytest.raises(AssertionError, match="not 100.64.0.1:8787, 100.64.0.2:8787"):
        t1.test_every_frontend_serves_and_reaches_the_api(world.target, world.measure)


def test_a_planted_alert_comes_and_goes_everywhere(world: World) -> None:
    t1.test_planted_alert_appears_and_disappears(world.target, world.entries, world.measure)
    assert {"appeared_seconds", "gone_seconds"} <= set(world.figures)
    assert not world.store.rows("ops_alerts")


def test_a_frontend_of_another_stack_never_shows_the_planted_alert(world: World) -> None:
    world.behind = Store()
    with pytest.raises(AssertionError, match="shown by everybody"):
        t1.test_planted_alert_appears_and_disappears(world.target, world.entries, world.measure)
    assert not world.store.rows("ops_alerts")


# -- T1.2, T1.10: zero equals zero ---------------------------------------------------------------------------


def gaps_of(*states: str) -> Callable[[Store, str], Answer]:
    """An API that knows of gaps in these states alone."""

    def answer(store: Store, path: str) -> Answer:
        rows = [one for one in store.rows(planted.GAPS) if one["status"] in states]
        return 200, gap_health(rows, 250)

    return answer


def stand(world: World, *states: Literal["open", "healing"]) -> list[planted.Row]:
    rows = [planted.gap(state) for state in states]
    for row in rows:
        world.store.insert(planted.GAPS, row)
    return rows


def test_gap_totals_are_compared_with_a_store_that_holds_both_kinds(world: World) -> None:
    t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)
    assert (world.figures["open"], world.figures["healing"]) == (1, 1)
    assert world.store.rows(planted.GAPS) == []


@pytest.mark.parametrize("known", [(), ("open",), ("healing",)])
def test_zeros_are_a_lie_once_there_is_a_gap(world: World, known: tuple[str, ...]) -> None:
    world.answer = gaps_of(*known)
    with pytest.raises(AssertionError, match="the store has"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)
    with pytest.raises(AssertionError, match="shown by everybody"):
        t1.test_planted_gap_appears_and_disappears(world.target, world.entries, world.measure)
    assert world.store.rows(planted.GAPS) == []


@pytest.mark.parametrize(
    ("standing", "lacking"), [((), "open or healing"), (("open",), "healing"), (("healing",), "open")]
)
def test_where_nothing_may_be_planted_a_store_without_gaps_proves_nothing(
    world: World, standing: tuple[Literal["open", "healing"], ...], lacking: str
) -> None:
    world.scratch = False
    stand(world, *standing)
    with pytest.raises(Unknown, match=rf"none is {lacking}\n"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)
    assert world.figures == {}


def test_where_nothing_may_be_planted_the_gaps_that_stand_there_do(world: World) -> None:
    world.scratch = False
    rows = stand(world, "open", "healing", "open")
    t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)
    assert (world.figures["open"], world.figures["healing"]) == (2, 1)
    assert len(world.store.rows(planted.GAPS)) == len(rows)
    world.answer = gaps_of("open")
    with pytest.raises(AssertionError, match="the store has"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)


def test_rows_that_others_plant_meanwhile_are_no_contradiction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t1, "VISIBLE", 5.0)
    late = iter(range(3))

    def answer(store: Store, path: str) -> Answer:
        said = api(store, path)
        # T1.10 in another process, between the answer and the reading of the store.
        if next(late, None) is not None:
            stand(world, "open")
        return said

    world.answer = answer
    t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)
    assert world.figures["open"] == 4


def test_a_planted_gap_comes_and_goes_in_both_states(world: World) -> None:
    t1.test_planted_gap_appears_and_disappears(world.target, world.entries, world.measure)
    assert {"appeared_seconds", "gone_seconds"} <= set(world.figures)

    def flattering(store: Store, path: str) -> Answer:
        status, body = api(store, path)
        return status, {**body, "open_events": [{**one, "status": "healing"} for one in body["open_events"]]}

    world.answer = flattering
    with pytest.raises(AssertionError, match="shown by everybody"):
        t1.test_planted_gap_appears_and_disappears(world.target, world.entries, world.measure)


def test_a_row_that_stays_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScratchRows, "settle", 0.05)
    monkeypatch.setattr(world.store, "delete", lambda table, **equal: 1)
    with pytest.raises(UndoError, match="2 rows of data_gap_events"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.entries, world.measure)


@pytest.mark.parametrize("row", [*map(planted.gap, planted.STATES)], ids=planted.STATES)
def test_a_planted_gap_is_one_by_the_contract_and_nobodys(row: planted.Row) -> None:
    assert schemas.gaps_health(gap_health([row], 100)) == []
    assert pairs.token(row["pair"]) not in {
        pairs.token(one) for one in (*pairs.PLAN_GOLD, *pairs.PLAN_CRYPTO)
    }
    assert row["source_type"] not in pairs.BINGX_THRESHOLDS_SECONDS


def test_a_planted_alert_is_one_by_the_contract() -> None:
    assert schemas.alerts([shaped(planted.alert(), ALERT_FIELDS)]) == []


# -- T1.15: the store is away --------------------------------------------------------------------------------


LOUD: Answer = (500, "Internal Server Error")
Judge = Callable[[], None]


def by_path(world: World, gaps: Answer | None, alerts: Answer | None) -> Callable[[Store, str], Answer]:
    """An API that says this while its store is away; None: what it says when all is well."""

    def answer(store: Store, path: str) -> Answer:
        said = alerts if path == "/ops/alerts" else gaps
        return said if world.frozen and said is not None else api(store, path)

    return answer


@pytest.fixture
def judge(world: World, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """T1.15, with a Convex that is silent while it is frozen."""
    monkeypatch.setattr(deadlines, "SERVICE_VISIBLE", 0.1)

    class Probe:
        def __init__(self, url: str, record: object, *, timeout: float) -> None:
            assert (url, timeout) == (world.store.url, t1.SILENCE)

        def rows(self, table: str) -> list[Any]:
            if world.frozen and not world.answers_anyway:
                raise ConvexSilent("query", "ReadTimeout", "an answer")
            return []

        def close(self) -> None:
            return

    monkeypatch.setattr(t1, "ConvexProbe", Probe)
    world.answer = by_path(world, LOUD, LOUD)
    faults = cast("Journal", world)
    return lambda: t1.test_api_fails_loudly_without_its_store(world.target, faults, world.measure)


def test_an_api_that_fails_loudly_and_recovers(world: World, judge: Judge) -> None:
    judge()
    assert world.figures["statuses"] == [500]
    assert not world.frozen


@pytest.mark.parametrize(("gaps", "alerts"), [(None, LOUD), (LOUD, None), (None, None)])
def test_a_200_without_a_store_is_a_lie_also_when_both_endpoints_tell_it(
    world: World, judge: Judge, gaps: Answer | None, alerts: Answer | None
) -> None:
    world.answer = by_path(world, gaps, alerts)
    with pytest.raises(AssertionError, match="healthy answers without a store"):
        judge()


@pytest.mark.parametrize("status", [401, 500])
def test_who_fails_all_the_time_was_not_asked(world: World, judge: Judge, status: int) -> None:
    world.answer = lambda store, path: (status, "")
    with pytest.raises(Unknown, match=f"before the outage(.|\n)*: {status}"):
        judge()


def test_a_store_that_answers_our_own_call_was_not_away(world: World, judge: Judge) -> None:
    world.answers_anyway = True
    with pytest.raises(Unknown, match="answers a call of our own"):
        judge()


def test_an_outage_that_may_have_ended_meanwhile_decides_nothing(
    world: World, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t1, "OUTAGE", 1.0)
    with pytest.raises(Unknown, match="answers took"):
        judge()


@pytest.mark.parametrize("after", [LOUD, None])
def test_an_api_that_does_not_come_back_is_broken(world: World, judge: Judge, after: Answer | None) -> None:
    seen: list[bool] = []

    def answer(store: Store, path: str) -> Answer:
        seen.append(world.frozen)
        if not world.frozen and any(seen):
            if after is None:
                raise ProbeError("GET", "ReadTimeout after 6.7 s", "an answer")
            return after
        return by_path(world, LOUD, LOUD)(store, path)

    world.answer = answer
    with pytest.raises(AssertionError, match="answered again after the outage"):
        judge()


def test_silence_is_nobodys_fault_while_this_machine_sees_nobody(world: World) -> None:
    def silent(*_: object, **__: object) -> Sample:
        raise ProbeError("GET", "ConnectError", "an answer")

    def away() -> list[Any]:
        raise ProbeError("Nomad", "away", "there")

    target = SimpleNamespace(http=SimpleNamespace(get=silent), nomad=SimpleNamespace(nodes=list))
    address = "http://100.64.0.1:8787/ops/alerts"
    assert checks.unanswered(cast("Target", target), [address], SecretStr(TOKEN), 1.0) == [
        f"{address}: ConnectError"
    ]
    target.nomad.nodes = away
    with pytest.raises(ProbeError, match="away"):
        checks.unanswered(cast("Target", target), [address], SecretStr(TOKEN), 1.0)
