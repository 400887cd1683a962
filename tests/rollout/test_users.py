"""What a user met, judged: by the name, at our instances, from a member of the tailnet that is no host."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.observe.user import Resolved, Visit
from fixtures.rollout import users
from fixtures.rollout.users import Tour
from fixtures.target.target import Target
from tests.journals import journal_for

NAME = "gvfx-frontend.service.consul"
OURS = {"100.64.0.1": "a1", "100.64.0.2": "a2"}
ALERT = {
    "id": "planted", "category": "ops", "severity": "low", "metric": "m", "value": 1, "threshold": None,
    "status": "open", "triggered_at": "2026-01-01T00:00:00.000Z", "metadata": {},
}  # fmt: skip


def page(address: str) -> Visit:
    return Visit(
        f"http://{NAME}:3000/", address, "100.64.0.9", 200, "text/html; charset=utf-8", "", "<html>", 0.01
    )


def call(address: str) -> Visit:
    upstream = "http://gvfx-api.service.consul:8787/ops/alerts"
    return Visit(
        f"http://{NAME}:3000{users.CALL}", address, "100.64.0.9", 200, "application/json", upstream,
        json.dumps([ALERT]), 0.02,
    )  # fmt: skip


def tour() -> Tour:
    addresses = tuple(OURS)
    return Tour(
        Resolved(NAME, addresses, "100.64.0.3:53"),
        tuple(page(one) for one in addresses),
        tuple(call(one) for one in addresses),
    )


def spoilt(which: str, **changes: Any) -> Tour:
    found = tour()
    first, *rest = getattr(found, which)
    parts: dict[str, Any] = {which: (dataclasses.replace(first, **changes), *rest)}
    return dataclasses.replace(found, **parts)


def test_a_sound_tour() -> None:
    assert users.served(tour(), OURS) == []
    assert users.shows(tour(), "planted") == []
    assert users.shows(tour(), "another") == list(OURS)
    assert tour().slowest == 0.02


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (spoilt("pages", status=502), "502"),
        (spoilt("pages", content_type="text/plain"), "text/plain"),
        (spoilt("calls", status=401, text='{"error":"Unauthorized"}'), "401"),
        (spoilt("calls", text="[1]"), "[0]"),
        (spoilt("calls", text="<html>"), "not a list"),
        (spoilt("calls", upstream=""), "nobody it names"),
        (spoilt("calls", upstream="http://100.64.0.1:8787/ops/alerts"), "not gvfx-api.service.consul"),
        (
            spoilt("calls", upstream="http://gvfx-api.service.consul:80/ops/alerts"),
            "not gvfx-api.service.consul",
        ),
    ],
)
def test_each_fault_is_told(found: Tour, word: str) -> None:
    problems = users.served(found, OURS)
    assert len(problems) == 1 and word in problems[0]


def test_the_name_leads_to_our_instances_and_to_all_of_them() -> None:
    assert "no allocation" in users.served(tour(), {"100.64.0.1": "a1"})[0]
    assert "does not lead to 100.64.0.7" in users.served(tour(), {**OURS, "100.64.0.7": "a3"})[0]


class FakeTarget:
    def __init__(self) -> None:
        self.config = SimpleNamespace(gvfx_tailnet_cidr="100.64.0.0/10")
        self.record = InMemory()
        self.sees = True
        self.nomad = SimpleNamespace(nodes=self._nodes)
        self.consul = SimpleNamespace(
            instances=lambda name: [Service("s1", name, "100.64.0.3", 8300, None, None)]
        )

    def _nodes(self) -> list[Any]:
        if not self.sees:
            raise ProbeError("Nomad", "away", "there")
        return [SimpleNamespace(address=one) for one in ("100.64.0.1", "100.64.0.2")]


def came_from(source: str) -> str:
    found = tour()
    moved = Tour(
        found.resolved,
        tuple(dataclasses.replace(one, source=source) for one in found.pages),
        tuple(dataclasses.replace(one, source=source) for one in found.calls),
    )
    return users.outside_the_cluster(cast("Target", FakeTarget()), moved)


def test_users_come_from_a_member_that_is_no_host_of_the_cluster() -> None:
    assert came_from("100.64.0.9") == "100.64.0.9"
    for source, word in (
        ("10.77.0.60", "an address of the tailnet"),
        ("100.64.0.1", "a host of the cluster"),
        ("100.64.0.3", "a host of the cluster"),
        ("", "one address"),
    ):
        with pytest.raises(Unknown, match=word):
            came_from(source)


def test_a_tour_asks_every_address_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked = FakeTarget(), list[str]()

    def resolve(name: str, servers: list[str], record: object) -> Resolved:
        assert (name, servers) == (NAME, ["100.64.0.3"])
        return Resolved(NAME, tuple(OURS), "100.64.0.3:53")

    def visit(address: str, port: int, name: str, path: str, record: object) -> Visit:
        asked.append(f"{address}:{port}{path}")
        return page(address) if path == "/" else call(address)

    monkeypatch.setattr("fixtures.observe.user.resolve", resolve)
    monkeypatch.setattr("fixtures.observe.user.visit", visit)
    assert users.tour(cast("Target", target)) == tour()
    assert asked == [f"{one}:3000{path}" for path in ("/", users.CALL) for one in OURS]

    def silent(*_: object) -> Visit:
        raise ProbeError("GET", "ConnectError", "an answer")

    monkeypatch.setattr("fixtures.observe.user.visit", silent)
    with pytest.raises(AssertionError, match="ConnectError"):
        users.tour(cast("Target", target))
    target.sees = False
    with pytest.raises(ProbeError, match="away"):
        users.tour(cast("Target", target))
    monkeypatch.setattr("fixtures.observe.user.resolve", lambda *_: Resolved(NAME, (), "s"))
    with pytest.raises(AssertionError, match="no address"):
        users.tour(cast("Target", target))


def test_a_planted_alert_is_taken_away_again() -> None:
    rows: dict[str, dict[str, Any]] = {}

    def insert(table: str, row: dict[str, Any]) -> None:
        assert table == "ops_alerts"
        rows[row["id"]] = row

    def delete(table: str, id: str) -> None:
        rows.pop(id, None)

    store = SimpleNamespace(
        insert=insert, delete=delete, rows=lambda table, id: [*filter(None, [rows.get(id)])]
    )
    target = SimpleNamespace(require_scratch=lambda: None, convex=lambda: store, record=InMemory())
    with (
        pytest.raises(ValueError, match="body"),
        users.planted_alert(cast("Target", target), journal_for(target)) as identity,
    ):
        assert list(rows) == [identity]
        raise ValueError("body")
    assert rows == {}
