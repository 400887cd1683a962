from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.observe import runlog
from fixtures.observe.recording import InMemory
from fixtures.observe.runlog import RunLog


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def row(name: str, start: float, end: float | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "source_type": "bingx",
        "source_id": None,
        "feed": "candles",
        "trigger": "schedule",
        "status": "running" if end is None else "succeeded",
        "started_at": iso(start),
        "finished_at": None if end is None else iso(end),
        "new_count": 0,
        "updated_count": 0,
        "error_summary": None,
        **changes,
    }


class Store:
    """Answers pages as the application does, and the reader's clock."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.now = 1000.0
        self.pages = 0

    def put(self, *rows: dict[str, Any]) -> None:
        self.rows.update((one["id"], one) for one in rows)

    def ask(self, page: int, size: int) -> list[dict[str, Any]]:
        self.pages += 1
        ordered = sorted(self.rows.values(), key=lambda one: str(one.get("started_at")), reverse=True)
        return ordered[(page - 1) * size : page * size]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def record() -> InMemory:
    return InMemory()


@pytest.fixture
def log(store: Store, record: InMemory) -> RunLog:
    return RunLog(store.ask, record, lambda: store.now)


def sightings(record: InMemory) -> list[tuple[object, object]]:
    return [(one.data["run"], one.data["status"]) for one in record.events]


def test_what_is_new_changed_or_running_is_written_down(store: Store, log: RunLog, record: InMemory) -> None:
    store.put(row("a", 990.0, 995.0), row("b", 999.0))
    log.read()
    log.read()
    store.put(row("b", 999.0, 1001.0))
    log.read()
    store.put(row("a", 990.0, 995.0, new_count=3))
    log.read()
    assert sightings(record) == [
        ("a", "succeeded"), ("b", "running"), ("b", "running"), ("b", "succeeded"), ("a", "succeeded"),
    ]  # fmt: skip
    assert [one.run for one in log.runs()] == ["a", "b"]
    assert len(log.times) == 4


def test_a_run_that_still_runs_is_read_however_old_it_is(store: Store, log: RunLog, record: InMemory) -> None:
    store.put(row("old", 995.0))
    log.read()
    for number in range(4 * runlog.PAGE):
        store.put(row(f"r{number}", 1001.0 + number, 1001.5 + number))
    store.now = 2000.0
    log.read()
    assert sightings(record)[-1] != ("old", "running") and ("old", "running") in sightings(record)[1:]


def test_only_as_far_back_as_a_change_can_be(store: Store, log: RunLog) -> None:
    for number in range(10 * runlog.PAGE):
        store.put(row(f"r{number}", 1000.0 - number, 1000.5 - number))
    log.read()
    assert store.pages == 1
    store.pages = 0
    log.read(since=1000.0 - 3 * runlog.PAGE)
    assert store.pages == 4


@pytest.mark.parametrize("rows", [[], [{"id": "a"}], [row("a", 1.0, status="lost")]])
def test_an_empty_log_and_a_row_that_is_none_are_no_reading(
    store: Store, log: RunLog, rows: list[dict[str, Any]]
) -> None:
    store.put(*rows)
    with pytest.raises(ProbeError):
        log.read()
    assert not log.times


@given(st.data())
def test_the_last_sighting_is_what_the_store_holds(data: st.DataObject) -> None:
    store, record = Store(), InMemory()
    log = RunLog(store.ask, record, lambda: store.now)
    for number in range(data.draw(st.integers(1, 12))):
        store.now += data.draw(st.floats(0.1, 20.0))
        store.put(row(f"r{number}", store.now))
        for one in list(store.rows.values()):
            if one["status"] == "running" and data.draw(st.booleans()):
                store.put({**one, "status": "failed", "finished_at": iso(store.now)})
        log.read()
    latest = {one.data["run"]: one.data["status"] for one in record.events}
    assert latest == {name: one["status"] for name, one in store.rows.items()}
