"""A rule decided by a checker is judged again by whoever reads the history."""

from __future__ import annotations

from fixtures.history.events import Event
from fixtures.history.judge import claim
from fixtures.history.shapes import Activity, Coverage, record
from fixtures.history.singleton import SingletonTerms
from reports.verdict import compute
from tests.history.made import Memory
from tests.reports.made import decided, finished, run, selected

TERMS = SingletonTerms(since=0.0, until=10.0, witnesses=("tasks",))


def observed(*spans: tuple[float, float], terms: SingletonTerms = TERMS, rule: str = "T2.2") -> list[Event]:
    log = Memory()
    record(log, Coverage("tasks", 0.0, 10.0), "recorder")
    for number, (start, end) in enumerate(spans):
        record(log, Activity("tasks", f"w{number}", start, end, True, "c", 0.0), "recorder")
    claim(log, rule, terms)
    return [Event(e.kind, e.name, e.source, e.wall, e.mono, "run-1", e.data) for e in log.events]


def word(events: list[Event], outcome: str = "passed") -> tuple[str, tuple[str, ...]]:
    chosen = selected(T2_2=["t.py::a"])
    verdict = compute(run(chosen, *events, decided("T2.2", outcome), finished()))
    return verdict.word, verdict.rules[0].messages


def test_a_claim_that_holds_changes_nothing() -> None:
    assert word(observed((0.0, 5.0), (5.0, 9.0))) == ("GO", ())


def test_a_pass_that_the_events_contradict_is_a_failure() -> None:
    verdict, messages = word(observed((0.0, 5.0), (4.0, 9.0)))
    assert verdict == "NO-GO"
    assert messages == ("judged again, singleton: tasks: w0 and w1 both ran at 4.000 for 1.000 s",)


def test_a_pass_without_its_evidence_is_unknown() -> None:
    assert word(observed())[0] == "UNKNOWN"
    assert word(observed((0.0, 5.0), terms=TERMS.model_copy(update={"until": 11.0})))[0] == "UNKNOWN"


def test_what_the_test_said_itself_is_not_said_again() -> None:
    verdict, messages = word(observed((0.0, 5.0), (4.0, 9.0)), "failed")
    assert (verdict, messages) == ("NO-GO", ("T2.2 is failed",))


def test_a_claim_never_mends_a_failure_and_never_decides_a_rule_alone() -> None:
    assert word(observed((0.0, 5.0)), "failed")[0] == "NO-GO"
    verdict = compute(run(selected(T2_2=["t.py::a"]), *observed((0.0, 5.0)), finished()))
    assert verdict.word == "UNKNOWN"


def test_a_claim_of_a_rule_out_of_scope_is_nobodys() -> None:
    assert word(observed((0.0, 5.0), (4.0, 9.0), rule="T2.3"))[0] == "GO"
