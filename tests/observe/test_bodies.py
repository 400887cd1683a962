from __future__ import annotations

from typing import Any

import pytest

from fixtures.observe import ingest, schemas
from fixtures.observe.ledger import EgressLedger, difference

NOW = "2026-03-03T10:00:00.000Z"
ZERO = {"open": 0, "healing": 0, "last_detected_at": None, "last_seen_at": None, "oldest_open_at": None}
ALERT: dict[str, Any] = {
    "id": "1", "category": "slo", "severity": "high", "metric": "ingestion_lag_seconds", "value": 1.5,
    "threshold": 120, "status": "open", "triggered_at": NOW, "metadata": {}, "created_at": NOW,
    "updated_at": NOW,
}  # fmt: skip
EVENT = {
    "id": "1", "pair": "BTC-USDT", "source_type": "bingx_candles", "interval": None, "gap_start": NOW,
    "gap_end": NOW, "status": "open", "detected_at": NOW, "last_seen_at": NOW,
}  # fmt: skip


def body(**changes: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "generated_at": NOW, "totals": ZERO, "by_pair": [], "by_source": [], "open_events": [],
    }  # fmt: skip
    return {**empty, **changes}


def test_documented_bodies_have_no_problems() -> None:
    assert schemas.gaps_health(body()) == []
    full = body(
        by_pair=[{"pair": "BTC-USDT", **ZERO}],
        by_source=[{"source_type": "x", **ZERO}],
        open_events=[EVENT],
    )
    assert schemas.gaps_health(full) == []
    assert schemas.alerts([]) == []
    assert schemas.alerts([ALERT, {**ALERT, "triggered_at": "2026-03-03T09:00:00.000Z"}]) == []


@pytest.mark.parametrize(
    "broken",
    [
        None, [], body(generated_at="now"), body(totals=None), body(totals={**ZERO, "open": -1}),
        body(totals={**ZERO, "open": True}), body(totals={**ZERO, "last_seen_at": "x"}), body(by_pair=None),
        body(by_pair=[ZERO]), body(open_events=None), body(open_events=[{**EVENT, "status": "resolved"}]),
        body(open_events=[{**EVENT, "gap_end": None}]),
    ],
)  # fmt: skip
def test_broken_gap_bodies_are_seen(broken: Any) -> None:
    assert schemas.gaps_health(broken)


@pytest.mark.parametrize(
    "broken",
    [
        {}, [None], [{**ALERT, "severity": "dire"}], [{**ALERT, "value": None}],
        [{**ALERT, "metadata": None}], [{**ALERT, "triggered_at": "2026-03-03T09:00:00.000Z"}, ALERT],
    ],
)  # fmt: skip
def test_broken_alert_bodies_are_seen(broken: Any) -> None:
    assert schemas.alerts(broken)


def lock(second: int, holder: str = "a", trigger: str = "schedule") -> dict[str, Any]:
    stamp = f"2026-03-03T10:{second // 60:02}:{second % 60:02}.000Z"
    return {"feed": "lock", "trigger": trigger, "started_at": stamp, "holder": holder}


def test_one_scheduler_keeps_its_distance() -> None:
    rows = ingest.lock_rows([lock(10), lock(70), lock(130), lock(80, trigger="manual")], "lock", 0.0)
    assert rows.closest() == 60.0
    assert rows.holders == {"a"}


def test_two_schedulers_do_not() -> None:
    rows = ingest.lock_rows([lock(10), lock(70), lock(35, "b"), lock(95, "b")], "lock", 0.0)
    closest = rows.closest()
    assert closest is not None and closest < ingest.ONE_PHASE * 60
    assert rows.holders == {"a", "b"}


def test_rows_before_the_worker_and_of_other_feeds_do_not_count() -> None:
    since = ingest._unix(lock(60)["started_at"])
    rows = ingest.lock_rows([lock(10), lock(70), {**lock(80), "feed": "candles"}], "lock", since)
    assert len(rows.starts) == 1
    assert rows.closest() is None


class FarEnd:
    def __init__(self) -> None:
        self.now = {"exit1": 5, "exit2": 0, "wrong": 2, "legacy": 1, "other": 0}

    def counters(self) -> dict[str, int]:
        return dict(self.now)

    def sources(self) -> dict[str, str]:
        return {}

    def exchange_records(self, since: float) -> list[dict[str, Any]]:
        return []

    def exchange_admin(self, method: str, path: str, json: object | None = None) -> dict[str, Any]:
        return {}


def test_the_ledger_takes_off_what_was_sent_on_purpose() -> None:
    far_end = FarEnd()
    ledger = EgressLedger(far_end)
    before = far_end.counters()
    far_end.now["wrong"] += 7
    far_end.now["exit1"] += 3
    assert ledger.forbidden() == {"wrong": 7}
    ledger.allow("wrong", difference(before, far_end.counters())["wrong"])
    assert ledger.forbidden() == {}
    far_end.now["other"] += 1
    assert ledger.forbidden() == {"other": 1}
    far_end.now["legacy"] += 1
    assert ledger.forbidden() == {"other": 1}
