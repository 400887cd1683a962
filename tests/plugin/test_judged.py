from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.errors import Unknown
from fixtures.history.events import JSON
from fixtures.history.judge import CLAIM
from fixtures.history.log import EventLog, read_events
from fixtures.history.shapes import Activity, Coverage, IngestionRun, record
from fixtures.history.singleton import SingletonTerms
from fixtures.history.windows import WindowTerms
from fixtures.pytest_judged import Judged

TERMS = SingletonTerms(since=0.0, until=10.0, witnesses=("tasks",))


def test_a_rule_is_decided_by_what_was_recorded(tmp_path: Path) -> None:
    figures: dict[str, JSON] = {}
    with EventLog(tmp_path / "events.ndjson", "r") as log:
        judged = Judged("T2.2", log, figures.update)
        with pytest.raises(Unknown, match="saw nobody"):
            judged(TERMS)
        record(log, Coverage("tasks", 0.0, 10.0), "recorder")
        record(log, Activity("tasks", "a", 0.0, 5.0, True, "c", 0.0), "recorder")
        assert judged(TERMS).outcome == "passed"
        assert figures == {"tasks": {"intervals": 1, "longest_overlap_s": 0.0, "longest_gap_s": 0.0}}
        record(log, Activity("tasks", "b", 4.0, 6.0, True, "c", 0.0), "recorder")
        with pytest.raises(AssertionError, match="a and b both ran"):
            judged(TERMS)
    claims = read_events(log.path).of("note", CLAIM)
    assert [one.data["rule"] for one in claims] == ["T2.2"] * 3


def test_a_rule_of_two_checkers_is_as_bad_as_the_worse(tmp_path: Path) -> None:
    figures: dict[str, JSON] = {}
    windows = WindowTerms(since=0.0, until=10.0, lanes=("bingx/-/f",), max_gap_s=10.0, exchange=False)
    with EventLog(tmp_path / "events.ndjson", "r") as log:
        judged = Judged("T8.1", log, figures.update)
        record(log, Coverage("tasks", 0.0, 10.0), "recorder")
        record(log, Activity("tasks", "a", 0.0, 5.0, True, "c", 0.0), "recorder")
        with pytest.raises(Unknown, match="no ingestion run was read"):
            judged(windows, TERMS)
        run = IngestionRun("r", "bingx", None, "f", "schedule", "succeeded", 1.0, 2.0, 1, 0, None, 9.0)
        record(log, run, "convex")
        record(log, Coverage("runs", 0.0, 10.0), "recorder")
        assert judged(windows, TERMS).outcome == "passed"
        assert figures["windows"] == 1 and "tasks" in figures
        record(log, Activity("tasks", "b", 4.0, 6.0, True, "c", 0.0), "recorder")
        with pytest.raises(AssertionError, match="a and b both ran"):
            judged(windows, TERMS)
        with pytest.raises(Unknown):
            judged()
    claims = [one.data["checker"] for one in read_events(log.path).of("note", CLAIM)]
    assert claims == ["windows", "singleton"] * 3


def test_a_damaged_history_decides_nothing(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.ndjson", "r") as log:
        record(log, Coverage("tasks", 0.0, 10.0), "recorder")
        record(log, Activity("tasks", "a", 0.0, 5.0, True, "c", 0.0), "recorder")
        with log.path.open("ab") as file:
            file.write(b"torn\n")
        with pytest.raises(Unknown, match="damaged"):
            Judged("T2.2", log, lambda **_: None)(TERMS)
