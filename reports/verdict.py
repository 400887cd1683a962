"""The verdict over one history: a pure function, the same during a run and years later.

GO needs evidence for everything that was asked: an intact history with its end, every selected required rule
decided and passed with a measured figure, every fault proven undone.  A failed rule makes NO-GO; anything
missing makes UNKNOWN; when only refusals are missing, REFUSED.  A rule that a test decided by a checker is judged
again by that checker, over the events the test had: the worse answer counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fixtures.history import judge
from fixtures.history.events import JSON, Event
from fixtures.history.log import History
from fixtures.history.notes import FINISHED, LEAK, SELECTED
from fixtures.history.results import CheckResult, Outcome, worst
from fixtures.history.rules import BY_ID, RULES, Rule

from . import subject
from .subject import Subject

Word = Literal["GO", "NO-GO", "UNKNOWN", "REFUSED"]
EXIT_CODES: dict[Word, int] = {"GO": 0, "NO-GO": 1, "UNKNOWN": 2, "REFUSED": 3}

UNAVOIDABLE = "unavoidable_seconds"
"""Name of the figure by which a rule says how long the system's own timers made it wait: floors from the settings."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule over all its cases: the worst outcome, every figure, every message."""

    rule: Rule
    outcome: Outcome
    cases: int
    expected_cases: int
    figures: Mapping[str, JSON]
    messages: tuple[str, ...]
    duration_s: float
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, the rules behind it, the problems that belong to no rule, and what it is of."""

    word: Word
    rules: tuple[RuleResult, ...]
    problems: tuple[str, ...]
    run: str
    wall_s: float = 0.0
    """From the first event to the last."""
    subject: Subject = Subject()

    @property
    def unavoidable_s(self) -> float:
        """Seconds of it that the system's own timers took, as far as the rules measured them."""
        return sum(_unavoidable(result.figures) for result in self.rules)

    @property
    def exit_code(self) -> int:
        """0 GO, 1 NO-GO, 2 UNKNOWN, 3 REFUSED."""
        return EXIT_CODES[self.word]

    @property
    def release(self) -> bool:
        """True when every required rule of the catalogue was in scope, of one known target without a seeded defect."""
        covered = {result.rule.id for result in self.rules}
        whole = all(rule.id in covered for rule in RULES if rule.required)
        return whole and self.subject.stated and not self.subject.defect

    @property
    def scope(self) -> str:
        """How much of the catalogue this verdict speaks about."""
        text = f"scope: {len(self.rules)} of {len(RULES)} rules"
        return text if self.release else f"{text}; not a release verdict"


def compute(history: History, selected: Collection[str] | None = None) -> Verdict:
    """Judge a history; ``selected`` overrides the rule ids the run itself says it chose."""
    chosen = asked(history)
    ids = sorted(set(chosen) if selected is None else set(selected), key=_order)
    events: dict[str, list[Event]] = {}
    for event in history.of("rule"):
        events.setdefault(event.name, []).append(event)
    again = _judged_again(history, ids)
    results = tuple(
        _judge(_rule(one), events.get(one, []), chosen.get(one, frozenset()), again.get(one, []))
        for one in ids
    )
    found = subject.of(history)
    problems = (*_problems(history, ids, events), *subject.problems(found))
    required = [result for result in results if result.rule.required]
    run = history.events[0].run if history.events else ""
    walls = [event.wall for event in history.events]
    wall = max(walls) - min(walls) if walls else 0.0
    return Verdict(_word(required, problems), results, problems, run, round(wall, 1), found)


def _word(required: Collection[RuleResult], problems: Collection[str]) -> Word:
    outcomes = {result.outcome for result in required}
    if "failed" in outcomes:
        return "NO-GO"
    if outcomes == {"passed"} and not problems:
        return "GO"
    undecided = [result for result in required if result.outcome == "unknown"]
    if undecided and not problems and all(result.refused for result in undecided):
        return "REFUSED"
    return "UNKNOWN"


def _judge(
    rule: Rule, events: list[Event], expected: Collection[str], again: Iterable[tuple[str, CheckResult]]
) -> RuleResult:
    cases: dict[str, list[Event]] = {}
    for event in events:
        cases.setdefault(str(event.data.get("nodeid", "")), []).append(event)
    outcomes = [_outcome(event) for event in events]
    messages = [
        f"{_case(event)}{message}"
        for event in events
        if (message := str(event.data.get("message") or "")) and _outcome(event) != "passed"
    ]
    missing = sorted(set(expected) - set(cases))
    if not events or missing:
        outcomes.append("unknown")
        messages += [f"{nodeid}: never decided" for nodeid in missing] or ["no test decided this rule"]
    figures: dict[str, JSON] = {}
    for event in events:
        measured = event.data.get("figures")
        if isinstance(measured, dict) and measured:
            figures.update(measured if len(cases) == 1 else {_name(event): measured})
        elif _outcome(event) == "passed":
            outcomes.append("unknown")
            messages.append(f"{_case(event)}passed without a single measured figure")
    undecided = [event for event in events if _outcome(event) == "unknown"]
    for checker, result in again:
        # What the test found itself is said already.
        if worst([*outcomes, result.outcome]) != worst(outcomes):
            outcomes.append(result.outcome)
            messages += [f"judged again, {checker}: {finding.sentence}" for finding in result.findings]
    return RuleResult(
        rule=rule,
        outcome=worst(outcomes),
        cases=len(cases),
        expected_cases=max(len(expected), len(cases)),
        figures=figures,
        messages=tuple(messages),
        duration_s=round(sum(_seconds(event) for event in events), 3),
        refused=bool(undecided) and not missing and all(e.data.get("error") == "Refused" for e in undecided),
    )


def _judged_again(history: History, ids: Collection[str]) -> dict[str, list[tuple[str, CheckResult]]]:
    """The answers to every claim of the chosen rules, each with its checker's name."""
    found: dict[str, list[tuple[str, CheckResult]]] = {}
    for event in history.of("note", judge.CLAIM):
        rule = str(event.data.get("rule"))
        if rule in ids:
            result = judge.answer(history.events, event)
            found.setdefault(rule, []).append((str(event.data.get("checker")), result))
    return found


def _outcome(event: Event) -> Outcome:
    found = event.data.get("outcome")
    if found == "passed":
        return "passed"
    return "failed" if found == "failed" else "unknown"


def _unavoidable(figures: Mapping[str, JSON]) -> float:
    """The figure of that name, of every case where a rule has several."""
    found = figures.get(UNAVOIDABLE)
    own = float(found) if isinstance(found, int | float) else 0.0
    return own + sum(_unavoidable(one) for one in figures.values() if isinstance(one, dict))


def _seconds(event: Event) -> float:
    seconds = event.data.get("duration_s")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _case(event: Event) -> str:
    """The parameters of a parametrised test, as ``[c1]: ``; nothing for a test without."""
    nodeid = str(event.data.get("nodeid", ""))
    return f"{nodeid[nodeid.index('[') :]}: " if "[" in nodeid else ""


def _name(event: Event) -> str:
    """What tells a case from the others of its rule: its parameters, or the name of a test without."""
    return _case(event).rstrip(": ") or str(event.data.get("nodeid", "")).rpartition("::")[2]


def asked(history: History) -> dict[str, frozenset[str]]:
    """Rule id to the node ids chosen to decide it, over all notes (each xdist worker writes its own)."""
    found: dict[str, frozenset[str]] = {}
    for event in history.of("note", SELECTED):
        rules = event.data.get("rules")
        for rule, nodeids in rules.items() if isinstance(rules, dict) else ():
            if isinstance(nodeids, list):
                found[rule] = found.get(rule, frozenset()) | {str(nodeid) for nodeid in nodeids}
    return found


def _problems(history: History, ids: Collection[str], decided: Collection[str]) -> Iterable[str]:
    if not history.events:
        yield "the history is empty"
    if history.truncated:
        yield "the history was cut short: its writer never finished"
    if history.damaged:
        yield f"the history is damaged: {history.damaged} line(s) missing or unreadable"
    if len({event.run for event in history.events}) > 1:
        yield "the history mixes several runs"
    if not ids:
        yield "no rule was selected: there is nothing to judge"
    for rule in sorted(set(decided) - set(ids), key=_order):
        yield f"{rule} was decided although it was not selected"
    yield from _ending(history)
    for fault in open_faults(history.events):
        yield f"{fault}: begun, and never verified undone"
    for event in history.of("note", LEAK):
        yield f"a secret was found (and removed) in {event.data.get('files')}"


def _ending(history: History) -> Iterable[str]:
    ends = history.of("note", FINISHED)
    if not ends:
        yield "the run did not finish"
    for event in ends:
        status, loose = event.data.get("pytest_exit"), event.data.get("failed_without_rule")
        if status not in (0, 1):
            yield f"pytest ended with status {status}, not with decided tests"
        if loose != 0:
            yield f"{loose} test(s) that decide no rule failed"


def open_faults(events: Iterable[Event]) -> list[str]:
    """Faults begun (``intent`` or ``applied``) without a later ``verified``, as ``kind on host``."""
    standing: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.kind != "fault":
            continue
        key = (event.name, event.source, str(event.data.get("id", "")))
        phase = event.data.get("phase")
        if phase == "intent":
            standing[key] += 1
        elif phase == "applied":
            standing[key] = max(1, standing[key])
        elif phase == "verified":
            standing[key] -= standing[key] > 0
    return [f"{name} on {source}" + (f" ({id_})" if id_ else "") for name, source, id_ in +standing]


def _rule(id_: str) -> Rule:
    # A history of another build may name a rule this one does not know: it stays required.
    known = BY_ID.get(id_)
    return known or Rule(id_, id_.partition(".")[0], 0, "(not in this build's catalogue)", "")


def _order(id_: str) -> tuple[int, str]:
    known = BY_ID.get(id_)
    return (RULES.index(known) if known else len(RULES), id_)
