from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.events import Event
from fixtures.history.log import History
from fixtures.history.rules import BY_ID, RULES
from reports import verdict as verdict_module
from reports.verdict import EXIT_CODES, Verdict, compute, open_faults

from .made import GOOD, decided, event, fault, finished, opened, run, selected

GO = run(*GOOD)


def words(verdict: Verdict) -> tuple[str, int]:
    return verdict.word, verdict.exit_code


def test_everything_asked_and_answered_is_go() -> None:
    verdict = compute(GO)
    assert words(verdict) == ("GO", 0)
    assert verdict.problems == ()
    assert [(one.rule.id, one.outcome, one.figures) for one in verdict.rules] == [
        ("T1.1", "passed", {"n": 1})
    ]
    assert verdict.run == "run-1"
    assert "not a release verdict" in verdict.scope


def with_event(*more: Event) -> History:
    """The good run with more in it, before its end."""
    return run(*GOOD[:-1], *more, GOOD[-1])


BLOCKED: dict[str, tuple[History, str, str]] = {
    "empty": (run(), "UNKNOWN", "the history is empty"),
    "truncated": (run(*GOOD, truncated=True), "UNKNOWN", "cut short"),
    "damaged": (run(*GOOD, damaged=2), "UNKNOWN", "2 line(s) missing"),
    "two runs": (with_event(replace(event("note", "x"), run="run-2")), "UNKNOWN", "mixes several runs"),
    "nothing selected": (run(finished()), "UNKNOWN", "no rule was selected"),
    "decided, not selected": (
        run(selected(), *GOOD[1:]),
        "UNKNOWN",
        "no rule was selected",
    ),
    "another one decided": (with_event(decided("T1.2")), "UNKNOWN", "T1.2 was decided although"),
    "no end": (run(*GOOD[:-1]), "UNKNOWN", "did not finish"),
    "interrupted": (run(*GOOD[:-1], finished(2)), "UNKNOWN", "pytest ended with status 2"),
    "a status of nothing": (run(*GOOD[:-1], event("note", "finished")), "UNKNOWN", "status None"),
    "a loose failure": (run(*GOOD[:-1], finished(1, 3)), "UNKNOWN", "3 test(s) that decide no rule"),
    "open fault": (with_event(fault("intent"), fault("applied")), "UNKNOWN", "host-down on c1 (x1): begun"),
    "undone, not verified": (with_event(fault("intent"), fault("undone")), "UNKNOWN", "never verified"),
    "leak": (with_event(event("note", "leak", files=["a.txt"])), "UNKNOWN", "a secret was found"),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_what_forbids_go_although_every_rule_passed(name: str) -> None:
    history, word, problem = BLOCKED[name]
    verdict = compute(history)
    assert verdict.word == word
    assert any(problem in one for one in verdict.problems), verdict.problems
    failed = replace(GOOD[1], data={**GOOD[1].data, "outcome": "failed"})
    if GOOD[1] in history.events:
        worse = History(
            tuple(failed if one is GOOD[1] else one for one in history.events),
            history.truncated,
            history.damaged,
        )
        if name != "decided, not selected":
            assert compute(worse).word == "NO-GO", "a failure is certain, whatever else is missing"


def judged(*events: Event) -> tuple[str, str, tuple[str, ...]]:
    """The verdict, the outcome of T1.1 and its messages."""
    verdict = compute(run(*events, finished()))
    return verdict.word, verdict.rules[0].outcome, verdict.rules[0].messages


ASKED = selected(T1_1=["t.py::a[1]", "t.py::a[2]"])
FIRST, SECOND = decided("T1.1", nodeid="t.py::a[1]"), decided("T1.1", nodeid="t.py::a[2]")


def test_a_missing_case_is_unknown() -> None:
    assert judged(ASKED, FIRST, SECOND)[:2] == ("GO", "passed")
    assert judged(ASKED, FIRST) == ("UNKNOWN", "unknown", ("t.py::a[2]: never decided",))
    assert judged(ASKED)[2] == ("t.py::a[1]: never decided", "t.py::a[2]: never decided")
    broken = decided("T1.1", "failed", nodeid="t.py::a[1]")
    assert judged(ASKED, broken)[:2] == ("NO-GO", "failed")


def test_a_rule_without_a_single_case_is_unknown() -> None:
    verdict = compute(run(selected(T1_1=["t.py::a"]), finished()), selected={"T1.1", "T2.1"})
    assert {one.rule.id: one.messages for one in verdict.rules} == {
        "T1.1": ("t.py::a: never decided",),
        "T2.1": ("no test decided this rule",),
    }
    assert verdict.word == "UNKNOWN"


@pytest.mark.parametrize("figures", [{}, None, 5, []])
def test_a_pass_without_figures_is_unknown(figures: object) -> None:
    bare = decided("T1.1", figures=figures)  # type: ignore[arg-type]
    assert judged(GOOD[0], bare)[:2] == ("UNKNOWN", "unknown")
    assert "without a single measured figure" in judged(ASKED, FIRST, replace(SECOND, data=bare.data))[2][-1]


@pytest.mark.parametrize("outcome", ["unknown", "flaky", "", "PASSED", None, 1])
def test_only_passed_is_passed(outcome: object) -> None:
    assert judged(GOOD[0], decided("T1.1", outcome=outcome))[:2] == ("UNKNOWN", "unknown")  # type: ignore[arg-type]


def test_one_rule_decided_twice_keeps_its_worst() -> None:
    for first, second in (("failed", "passed"), ("passed", "failed")):
        assert judged(GOOD[0], decided("T1.1", first), decided("T1.1", second))[:2] == ("NO-GO", "failed")
    assert judged(GOOD[0], decided("T1.1", "unknown"), decided("T1.1"))[:2] == ("UNKNOWN", "unknown")


def test_refusals_alone_are_refused() -> None:
    refusal = decided("T1.1", "unknown", error="Refused")
    assert words(compute(run(GOOD[0], refusal, finished(1)))) == ("REFUSED", 3)
    both = selected(T1_1=["t.py::a"], T1_2=["t.py::b"])
    other = decided("T1.2", "unknown", "t.py::b", error="ProbeError")
    assert compute(run(both, refusal, other, finished(1))).word == "UNKNOWN"
    assert compute(run(both, refusal, finished(1))).word == "UNKNOWN"
    assert compute(run(both, refusal, decided("T1.2", nodeid="t.py::b"), finished(1))).word == "REFUSED"
    failed = decided("T1.2", "failed", nodeid="t.py::b")
    assert compute(run(both, refusal, failed, finished(1))).word == "NO-GO"
    assert compute(run(GOOD[0], refusal, fault("intent"), finished(1))).word == "UNKNOWN"


def test_a_rule_that_is_not_required_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = replace(RULES[0], id="T9.1", required=False)
    monkeypatch.setitem(BY_ID, "T9.1", optional)
    monkeypatch.setattr(verdict_module, "RULES", (*RULES, optional))
    both = selected(T1_1=["t.py::a"], T9_1=["t.py::b"])
    failed = decided("T9.1", "failed", "t.py::b")
    assert compute(run(both, GOOD[1], failed, finished(1))).word == "GO"
    alone = compute(run(selected(T9_1=["t.py::b"]), failed, finished(1)))
    assert alone.word == "UNKNOWN", "nothing required was looked at"


def test_a_rule_of_another_build_stays_required() -> None:
    verdict = compute(run(selected(X7_7=["t.py::a"]), decided("X7.7"), finished()))
    assert verdict.word == "GO" and verdict.rules[0].rule.title == "(not in this build's catalogue)"


def test_every_required_rule_makes_a_release_verdict() -> None:
    ids = [rule.id for rule in RULES]
    chosen = event("note", "selected", rules={one: [f"t.py::{one}"] for one in ids})
    events = [decided(one, nodeid=f"t.py::{one}") for one in reversed(ids)]
    verdict = compute(run(chosen, opened(), *events, finished()))
    assert verdict.release and verdict.word == "GO"
    assert [one.rule.id for one in verdict.rules] == ids, "not in the order of the catalogue"
    verdict = compute(run(chosen, opened(), *events[1:], finished()))
    assert verdict.release and verdict.word == "UNKNOWN"


def test_workers_of_one_run_select_together() -> None:
    one, two = selected(T1_1=["t.py::a"]), selected(T1_1=["t.py::b"], T1_2=["t.py::c"])
    verdict = compute(run(one, two, decided("T1.1"), finished()))
    assert [(each.rule.id, each.cases, each.expected_cases) for each in verdict.rules] == [
        ("T1.1", 1, 2),
        ("T1.2", 0, 1),
    ]


@pytest.mark.parametrize("rules", [None, [], {"T1.1": "t.py::a"}, {"T1.1": None}])
def test_a_selection_that_cannot_be_read_selects_nothing(rules: object) -> None:
    note = event("note", "selected", rules=rules)  # type: ignore[arg-type]
    assert compute(run(note, *GOOD[1:])).word == "UNKNOWN"


def test_messages_name_their_case() -> None:
    broken = decided("T1.1", "failed", nodeid="t.py::a[c1]", message="too slow")
    verdict = compute(run(selected(T1_1=["t.py::a[c1]"]), broken, finished(1)))
    assert verdict.rules[0].messages == ("[c1]: too slow",)


# -- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "stands"),
    [
        (["intent", "applied", "undone", "verified"], False),
        (["intent", "verified"], False),
        (["intent"], True),
        (["applied"], True),
        (["intent", "applied", "undone"], True),
        (["intent", "applied", "verified", "intent"], True),
        (["verified", "intent"], True),
        (["undone", "verified"], False),
        (["applied", "applied", "verified"], False),
    ],
)
def test_open_faults(phases: list[str], stands: bool) -> None:
    assert bool(open_faults(fault(phase) for phase in phases)) == stands


def test_open_faults_are_told_apart_by_host_and_id() -> None:
    events = [fault("intent"), fault("intent", "c2"), fault("intent", "c1", "x2"), fault("verified", "c1")]
    assert open_faults(events) == ["host-down on c2 (x1)", "host-down on c1 (x2)"]


# -- any history -----------------------------------------------------------------------------------------

some_rules = st.sampled_from(["T1.1", "T1.2", "T2.1"])
nodes = st.sampled_from(["t.py::a", "t.py::b[1]"])
anything = st.one_of(
    st.builds(lambda rule, node: event("note", "selected", rules={rule: [node]}), some_rules, nodes),
    st.builds(
        decided,
        some_rules,
        st.sampled_from(["passed", "failed", "unknown"]),
        nodes,
        figures=st.sampled_from([{}, {"n": 1}]),
        error=st.sampled_from(["", "Refused", "AssertionError"]),
    ),
    st.builds(fault, st.sampled_from(["intent", "applied", "undone", "verified"])),
    st.builds(finished, st.integers(0, 3), st.integers(0, 1)),
    st.just(event("note", "leak", files=["x"])),
)


@given(st.lists(anything, max_size=12), st.booleans())
def test_go_is_never_said_without_reason(events: list[Event], truncated: bool) -> None:
    verdict = compute(run(*events, truncated=truncated))
    assert verdict.exit_code == EXIT_CODES[verdict.word]
    outcomes = [str(one.data["outcome"]) for one in events if one.kind == "rule"]
    chosen = {rule for one in events if one.name == "selected" for rule in one.data["rules"]}  # type: ignore[union-attr]
    assert {one.rule.id for one in verdict.rules} == chosen
    if verdict.word == "GO":
        assert set(outcomes) == {"passed"} and not truncated
        assert not open_faults(events)
        assert any(one.name == "finished" for one in events)
        assert not any(one.name == "leak" for one in events)
        assert all(one.data["figures"] for one in events if one.kind == "rule")
    chosen_outcomes = [
        str(one.data["outcome"]) for one in events if one.kind == "rule" and one.name in chosen
    ]
    assert (verdict.word == "NO-GO") == ("failed" in chosen_outcomes)
