from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fixtures import errors
from fixtures.history.results import CheckResult, Finding, worst
from fixtures.history.rules import BY_ID, RULES, TESTS

HISTORY = Path(__file__).resolve().parents[2] / "fixtures" / "history"


def test_ids_are_unique_and_belong_to_their_test() -> None:
    assert len(BY_ID) == len(RULES) >= 40
    for rule in RULES:
        assert rule.id.partition(".")[0] == rule.test
        assert rule.test in TESTS
        assert rule.title and rule.proves
        assert 0 <= rule.phase <= 4


@pytest.mark.parametrize(
    ("test", "phases", "count"),
    [
        ("P0", {0}, 10), ("P1", {1}, 5), ("P2", {2}, 4), ("P3", {3}, 4), ("P4", {4}, 3),
        ("T1", {2}, 15), ("T2", {3}, 8), ("T3", {3}, 26), ("T4", {3}, 11),
        ("T5", {1}, 6), ("T6", {3}, 5), ("T7", {2, 3}, 5), ("T8", {3}, 10),
    ],
)  # fmt: skip
def test_numbers_have_no_holes(test: str, phases: set[int], count: int) -> None:
    found = [rule for rule in RULES if rule.test == test]
    assert [rule.id for rule in found] == [f"{test}.{n}" for n in range(1, count + 1)]
    assert {rule.phase for rule in found} == phases


def test_nothing_at_all_is_unknown() -> None:
    assert worst([]) == "unknown"
    assert worst(["passed", "unknown", "passed"]) == "unknown"
    assert worst(["unknown", "failed", "passed"]) == "failed"
    assert CheckResult().outcome == "unknown"
    assert CheckResult(figures={"seen": 1}).outcome == "passed"
    assert CheckResult((Finding("failed", "x"), Finding("unknown", "y"))).outcome == "failed"


def test_history_imports_nothing_else_of_ours() -> None:
    ours = ("fixtures", "reports", "acceptance", "drills", "tests")
    for path in HISTORY.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path.name} imports from outside its package"
                assert (node.module or "").split(".")[0] not in ours or node.level == 1, path.name
            elif isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] not in ours for alias in node.names), path.name


def test_an_error_says_what_to_type_next() -> None:
    error = errors.ProbeError("GET /health of c1", "no answer in 2 s", "200", "nomad job status gvfx-api")
    assert str(error).splitlines() == [
        "probe failed: GET /health of c1",
        "  observed: no answer in 2 s",
        "  expected: 200",
        "  next:     nomad job status gvfx-api",
    ]
    assert isinstance(error, errors.Unknown)
    assert "next" not in str(errors.Refused("a", "b", "c"))


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.SuiteError)
        assert name in (errors.__doc__ or "")
        copy = kind("a", "b", "c", "d")
        assert type(copy)(*copy.args).__dict__ == copy.__dict__
