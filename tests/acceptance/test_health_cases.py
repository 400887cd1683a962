"""T1's tests against a small stack in memory: two APIs over one store, two frontends, and whoever else knows the token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import pytest

from acceptance import test_1_health as t1
from fixtures.errors import ProbeError, Unknown
from fixtures.observe import schemas
from fixtures.observe.http import Sample
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.rollout import planted
from fixtures.target import names, pairs
from fixtures.target.target import Target
from fixtures.workloads.api.ops import ALERT_FIELDS, gap_health, shaped

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
        return SimpleNamespace(nodes=list)

    def measure(self, **figures: Any) -> None:
        self.figures |= figures

    def require_scratch(self) -> None:
        if not self.scratch:
            raise ProbeError("scratch writes", "not allowed", "allowed")

    def api_token(self) -> str:
        return TOKEN

    def convex(self) -> Any:
        return self.store

    def instances(self, service: str) -> list[Service]:
        (job,) = (one for one in names.SERVICES if one.service == service)
        return [Service(f"i{n}", service, f"100.64.0.{n}", job.port, f"a{n}", True) for n in (1, 2)]

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
    t1.test_planted_alert_appears_and_disappears(world.target, world.measure)
    assert {"appeared_seconds", "gone_seconds"} <= set(world.figures)
    assert not world.store.rows("ops_alerts")


def test_a_frontend_of_another_stack_never_shows_the_planted_alert(world: World) -> None:
    world.behind = Store()
    with pytest.raises(AssertionError, match="shown by everybody"):
        t1.test_planted_alert_appears_and_disappears(world.target, world.measure)
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
    t1.test_gap_health_has_schema_and_truth(world.target, world.measure)
    assert (world.figures["open"], world.figures["healing"]) == (1, 1)
    assert world.store.rows(planted.GAPS) == []


@pytest.mark.parametrize("known", [(), ("open",), ("healing",)])
def test_zeros_are_a_lie_once_there_is_a_gap(world: World, known: tuple[str, ...]) -> None:
    world.answer = gaps_of(*known)
    with pytest.raises(AssertionError, match="the store has"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.measure)
    with pytest.raises(AssertionError, match="shown by everybody"):
        t1.test_planted_gap_appears_and_disappears(world.target, world.measure)
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
        t1.test_gap_health_has_schema_and_truth(world.target, world.measure)
    assert world.figures == {}


def test_where_nothing_may_be_planted_the_gaps_that_stand_there_do(world: World) -> None:
    world.scratch = False
    rows = stand(world, "open", "healing", "open")
    t1.test_gap_health_has_schema_and_truth(world.target, world.measure)
    assert (world.figures["open"], world.figures["healing"]) == (2, 1)
    assert len(world.store.rows(planted.GAPS)) == len(rows)
    world.answer = gaps_of("open")
    with pytest.raises(AssertionError, match="the store has"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.measure)


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
    t1.test_gap_health_has_schema_and_truth(world.target, world.measure)
    assert world.figures["open"] == 4


def test_a_planted_gap_comes_and_goes_in_both_states(world: World) -> None:
    t1.test_planted_gap_appears_and_disappears(world.target, world.measure)
    assert {"appeared_seconds", "gone_seconds"} <= set(world.figures)

    def flattering(store: Store, path: str) -> Answer:
        status, body = api(store, path)
        return status, {**body, "open_events": [{**one, "status": "healing"} for one in body["open_events"]]}

    world.answer = flattering
    with pytest.raises(AssertionError, match="shown by everybody"):
        t1.test_planted_gap_appears_and_disappears(world.target, world.measure)


def test_a_row_that_stays_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "GONE", 0.05)
    monkeypatch.setattr(world.store, "delete", lambda table, **equal: 1)
    with pytest.raises(Unknown, match="planted rows of data_gap_events are removed"):
        t1.test_gap_health_has_schema_and_truth(world.target, world.measure)


@pytest.mark.parametrize("row", [*map(planted.gap, planted.STATES)], ids=planted.STATES)
def test_a_planted_gap_is_one_by_the_contract_and_nobodys(row: planted.Row) -> None:
    assert schemas.gaps_health(gap_health([row], 100)) == []
    assert pairs.token(row["pair"]) not in {
        pairs.token(one) for one in (*pairs.PLAN_GOLD, *pairs.PLAN_CRYPTO)
    }
    assert row["source_type"] not in pairs.BINGX_THRESHOLDS_SECONDS


def test_a_planted_alert_is_one_by_the_contract() -> None:
    assert schemas.alerts([shaped(planted.alert(), ALERT_FIELDS)]) == []
