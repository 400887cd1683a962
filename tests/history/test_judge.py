from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.history.events import JSON
from fixtures.history.judge import CHECKERS, CLAIM, answer, claim, judge
from fixtures.history.log import EventLog, read_events
from fixtures.history.register import RegisterTerms
from fixtures.history.shapes import Activity, Coverage, Sample, record
from fixtures.history.singleton import SingletonTerms
from fixtures.history.terms import Terms
from tests.history.made import Memory, kinds

TERMS = SingletonTerms(since=0.0, until=10.0, witnesses=("tasks",))


def worker(log: Memory, who: str, start: float, end: float) -> None:
    log.now = end
    record(log, Activity("tasks", who, start, end, True, "c", 0.0), "recorder")


def covered() -> Memory:
    log = Memory()
    record(log, Coverage("tasks", 0.0, 10.0), "recorder")
    worker(log, "a", 0.0, 5.0)
    return log


@pytest.mark.parametrize("name", CHECKERS)
def test_every_checker_takes_its_shapes_and_says_its_complexity(name: str) -> None:
    checker = CHECKERS[name]
    assert len(inspect.signature(checker.check).parameters) == len(checker.shapes) + 1
    assert "O(n" in (checker.check.__doc__ or "")
    assert checker.terms.__doc__ and issubclass(checker.terms, Terms)


def least(kind: type[Terms]) -> Terms:
    """Terms with every field that has no default filled in."""
    samples = {"float": 1.0, "tuple[str, ...]": ["x"], "Mapping[str, float]": {"x": 1.0}}
    given: dict[str, Any] = {
        name: samples[str(kind.__annotations__[name])]
        for name, field in kind.model_fields.items()
        if field.is_required()
    }
    return kind.model_validate_json(json.dumps(given))


@pytest.mark.parametrize("name", CHECKERS)
def test_an_empty_history_is_unknown_to_every_checker(name: str) -> None:
    assert judge([], least(CHECKERS[name].terms)).outcome == "unknown"


@pytest.mark.parametrize("name", CHECKERS)
def test_terms_survive_the_history(name: str) -> None:
    log = Memory()
    terms = least(CHECKERS[name].terms)
    asked = claim(log, "T8.1", terms)
    assert asked.data["checker"] == name
    assert CHECKERS[name].terms.model_validate_json(json.dumps(asked.data["terms"])) == terms


def test_a_claim_is_answered_from_a_saved_history(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    with EventLog(path, "r") as log:
        record(log, Coverage("tasks", 0.0, 10.0), "recorder")
        record(log, Activity("tasks", "a", 0.0, 5.0, True, "c", 0.0), "recorder")
        record(log, Activity("tasks", "b", 4.0, 6.0, True, "c", 0.0), "recorder")
        claim(log, "T2.2", TERMS)
    history = read_events(path)
    result = answer(history.events, history.of("note", CLAIM)[0])
    assert set(kinds(result)) == {"overlap"}


def test_a_claim_is_about_the_events_written_before_it_and_since_its_beginning() -> None:
    log = covered()
    log.now = 6.0
    first = claim(log, "T2.2", TERMS)
    worker(log, "b", 4.0, 7.0)
    assert answer(log.events, first).outcome == "passed"
    assert answer(log.events, claim(log, "T2.2", TERMS)).outcome == "failed"
    assert answer(log.events, claim(log, "T2.2", TERMS, since=6.5)).outcome == "unknown", "coverage is older"


def test_an_event_that_only_looks_like_one_is_never_a_pass() -> None:
    log = covered()
    assert judge(log.events, TERMS).outcome == "passed"
    log.append("probe", "activity", "t", witness="tasks", who="b")
    assert set(kinds(judge(log.events, TERMS))) == {"malformed"}
    log.append("probe", "sample", "t", what="api", sent=True, ok=True)
    assert judge(log.events, TERMS).findings[0].sentence == "1 events are no Activity"


@pytest.mark.parametrize(
    "change",
    [
        {"checker": "gossip"},
        {"checker": None},
        {"terms": None},
        {"terms": {"since": 0.0}},
        {"terms": {**json.loads(TERMS.model_dump_json()), "extra": 1}},
        {"terms": {**json.loads(TERMS.model_dump_json()), "since": "0"}},
        {"terms": {**json.loads(TERMS.model_dump_json()), "since": float("nan")}},
        {"since": "yesterday"},
        {"since": True},
    ],
)
def test_a_claim_that_cannot_be_read_is_unknown(change: dict[str, JSON]) -> None:
    log = covered()
    claim(log, "T2.2", TERMS)
    spoilt = log.append("note", CLAIM, "judge", **{**log.events[-1].data, **change})
    assert answer(log.events, spoilt).outcome == "unknown"


def test_terms_do_not_change_and_hold_no_nonsense() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TERMS.since = 1.0
    for wrong in ({"minimum_reads": "1"}, {"minimum_reads": 1.5}, {"more": 1}):
        with pytest.raises(ValueError, match="validation error"):
            RegisterTerms.model_validate(wrong)


def test_samples_serve_two_checkers() -> None:
    assert Sample in CHECKERS["availability"].shapes and Sample in CHECKERS["convergence"].shapes
