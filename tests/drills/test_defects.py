from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from drills.defects import catalogue, matrix, runner
from drills.defects.defect import Defect, extra_environment, repeatedly
from fixtures.errors import ProbeError, Refused
from fixtures.history.events import Event
from fixtures.history.rules import BY_ID
from fixtures.target.options import DEFECT, DEPLOY_DIR, TargetOptions
from fixtures.target.target import Target

CHANGES = [
    pytest.param(defect.id, job, id=f"{defect.id}-{job}")
    for defect in catalogue.DEFECTS
    for job, change in defect.jobs.items()
    if change.mutate is not None
]


@pytest.mark.parametrize(("defect", "job"), CHANGES)
def test_each_mutation_fits_the_real_spec_exactly_once(defect: str, job: str) -> None:
    text = Path(DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8")
    mutate = catalogue.BY_ID[defect].jobs[job].mutate
    assert mutate is not None
    changed = mutate(text)
    assert changed != text
    with pytest.raises(Refused):
        # What it looks for stands once: twice the text is too much.
        mutate(text + text)


def test_the_catalogue_names_real_rules_and_is_never_empty() -> None:
    assert len(catalogue.BY_ID) == len(catalogue.DEFECTS) >= 8
    for defect in catalogue.DEFECTS:
        assert defect.expected_red, f"{defect.id} breaks nothing"
        assert defect.expected_red | defect.expected_unknown <= set(BY_ID)
        assert not defect.expected_red & defect.expected_unknown
        assert defect.jobs or defect.during({}) is not None  # type: ignore[arg-type]


def test_every_rule_is_broken_by_a_defect_or_says_why_not() -> None:
    broken = frozenset[str]().union(*(defect.expected_red for defect in catalogue.DEFECTS))
    assert set(catalogue.UNSEEDED) <= set(BY_ID)
    assert all(catalogue.UNSEEDED.values())
    assert not broken & set(catalogue.UNSEEDED)
    assert broken | set(catalogue.UNSEEDED) == set(BY_ID)


def test_the_core_finds_the_first_by_itself() -> None:
    assert len(catalogue.FIRST) == 8
    for name in catalogue.FIRST:
        assert catalogue.BY_ID[name].expected_red & catalogue.CORE


def test_a_defect_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEFECT, raising=False)
    assert catalogue.change_from_environment() is None
    monkeypatch.setenv(DEFECT, "gaps-false-zero")
    change = catalogue.change_from_environment()
    assert change is not None and set(change.jobs) == {"gvfx-api"}
    monkeypatch.setenv(DEFECT, "second-worker-on-legacy")
    assert catalogue.change_from_environment() is None
    monkeypatch.setenv(DEFECT, "typo")
    with pytest.raises(Refused, match="no such defect"):
        catalogue.change_from_environment()


@pytest.mark.parametrize(
    ("defect", "named"),
    [
        (runner.CLEAN, ""),
        (catalogue.BY_ID["gaps-false-zero"], "gaps-false-zero"),
        (catalogue.BY_ID["second-worker-on-legacy"], "second-worker-on-legacy"),
    ],
    ids=lambda one: getattr(one, "id", one),
)
def test_a_run_knows_its_defect_whether_or_not_it_changes_a_job(
    defect: Defect, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEFECT, "of-somebody-else")
    ran: list[dict[str, str]] = []

    def run(argv: list[str], *, env: dict[str, str], **more: Any) -> None:
        ran.append(env)

    monkeypatch.setattr(subprocess, "run", run)
    found = runner.Runner(
        cast("Target", None), cast("Any", None), TargetOptions(), tmp_path, lambda line: None, 0
    )
    found._pytest(defect, tmp_path)
    assert [one[DEFECT] for one in ran] == [named]


def test_extra_environment_keeps_what_is_there() -> None:
    override = extra_environment("api_env", B="2").override
    assert override is not None
    assert override({"api_env": {"A": "1"}, "x": 1}) == {"api_env": {"A": "1", "B": "2"}}
    assert override({}) == {"api_env": {"B": "2"}}


def test_repetition_survives_a_failing_probe() -> None:
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ProbeError("x", "away", "there")

    with repeatedly(action, 0.01):
        while len(calls) < 4:
            pass
    done = len(calls)
    assert done >= 4


def event(rule: str, outcome: str) -> Event:
    return Event("rule", rule, "pytest", 0.0, 0.0, "run", {"outcome": outcome})


def test_the_worst_case_of_a_rule_counts() -> None:
    events = [event("T1.1", "passed"), event("T1.1", "failed"), event("T1.1", "unknown")]
    events += [event("T1.2", "passed"), event("T1.3", "odd"), Event("note", "x", "y", 0, 0, "run")]
    assert matrix.outcomes(events) == {"T1.1": "failed", "T1.2": "passed", "T1.3": "unknown"}


@pytest.mark.parametrize(
    ("found", "matches", "words"),
    [
        ({"T1.4": "failed", "T1.1": "passed"}, True, "ok"),
        ({"T1.4": "passed", "T1.1": "passed"}, False, "missed: T1.4"),
        ({"T1.4": "failed", "T1.1": "failed"}, False, "false red: T1.1"),
        ({"T1.4": "failed", "T1.1": "unknown"}, False, "unexpectedly unknown: T1.1"),
        ({}, False, "no rule was decided"),
    ],
)
def test_a_line_matches_exactly_or_not(found: dict[str, str], matches: bool, words: str) -> None:
    line = matrix.row("d", found, frozenset({"T1.4"}), frozenset(), 1.0)
    assert line.matches is matches
    assert words in line.describe()


@pytest.mark.parametrize(
    ("asked", "found", "matches", "words"),
    [
        ({"T1.4"}, {"T1.4": "failed"}, True, "not asked: T3.6"),
        ({"T1.4", "T3.6"}, {"T1.4": "failed"}, False, "missed: T3.6"),
        ({"T1.4", "T3.6"}, {"T1.4": "failed", "T3.6": "passed"}, False, "missed: T3.6"),
        ({"T1.1"}, {"T1.1": "passed"}, False, "not asked: T1.4 T3.6"),
    ],
)
def test_only_what_a_run_asked_can_be_missed_and_nothing_asked_is_not_caught(
    asked: set[str], found: dict[str, str], matches: bool, words: str
) -> None:
    expected = frozenset({"T1.4", "T3.6"})
    line = matrix.row("d", found, expected, frozenset(), 1.0, asked=frozenset(asked))
    assert line.matches is matches
    assert words in line.describe()


def test_a_tolerated_rule_decides_nothing() -> None:
    for outcome in ("passed", "failed", "unknown"):
        found = {"T1.4": "failed", "T2.2": outcome}
        line = matrix.row("d", found, frozenset({"T1.4"}), frozenset(), 1.0, frozenset({"T2.2"}))
        assert line.matches, line.describe()


def test_summary_names_its_denominators() -> None:
    caught = matrix.row("a", {"T1.4": "failed"}, frozenset({"T1.4"}), frozenset(), 1.0)
    missed = matrix.row("b", {"T1.4": "passed"}, frozenset({"T1.4"}), frozenset(), 1.0)
    clean = matrix.row("clean", {"T1.4": "passed"}, frozenset(), frozenset(), 1.0)
    assert clean.matches
    assert (
        matrix.summary([caught, missed, clean]) == "killed 1 of 2 defects; false alarms in 0 of 1 clean runs"
    )
