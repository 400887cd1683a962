from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fixtures import errors
from reports import allure_files
from reports.verdict import compute

from .made import GOOD, run

VERDICT = compute(run(*GOOD))


def test_three_files_beside_the_results(tmp_path: Path) -> None:
    settings = {"target": "rehearsal", "note": "two\nlines\\x"}
    allure_files.write(tmp_path / "results", VERDICT, settings, {})
    properties = (tmp_path / "results" / "environment.properties").read_text().splitlines()
    assert "verdict=GO" in properties and "run=run-1" in properties and "target=rehearsal" in properties
    assert "note=two lines\\\\x" in properties
    executor = json.loads((tmp_path / "results" / "executor.json").read_text())
    assert executor["type"] == "local" and executor["buildName"] == "run-1"
    assert json.loads((tmp_path / "results" / "categories.json").read_text()) == allure_files.CATEGORIES


def test_github_is_named_with_a_link(tmp_path: Path) -> None:
    environment = {
        "GITHUB_RUN_ID": "77",
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_REPOSITORY": "gvfx/suite",
        "GITHUB_WORKFLOW": "nightly",
    }
    allure_files.write(tmp_path, VERDICT, {}, environment)
    executor = json.loads((tmp_path / "executor.json").read_text())
    assert executor["buildUrl"] == "https://git.example/gvfx/suite/actions/runs/77"
    assert executor["buildName"] == "nightly 77"


def category(status: str, message: str) -> str:
    """What Allure would choose: the first category that matches."""
    for one in allure_files.CATEGORIES:
        if status in one["matchedStatuses"] and re.fullmatch(str(one.get("messageRegex", "(?s).*")), message):
            return str(one["name"]).partition(":")[0]
    return ""


@pytest.mark.parametrize(
    ("status", "message", "name"),
    [
        ("failed", "AssertionError: two workers", "product"),
        ("broken", f"x\n{errors.UndoError('a', 'b', 'c')}", "leak"),
        ("failed", f"{errors.UndoError('a', 'b', 'c')}", "leak"),
        ("broken", f"{errors.ProbeError('a', 'b', 'c')}", "environment"),
        ("broken", f"{errors.Unknown('a', 'b', 'c')}", "environment"),
        ("skipped", f"{errors.Refused('a', 'b', 'c')}", "environment"),
        ("broken", f"{errors.RehearsalError('a', 'b', 'c')}", "environment"),
        ("broken", f"{errors.DeployError('a', 'b', 'c')}", "environment"),
        ("broken", f"{errors.FaultError('a', 'b', 'c')}", "environment"),
        ("broken", "KeyError: 'x'", "suite defect"),
        ("skipped", "no reason", "suite defect"),
    ],
)
def test_every_kind_of_failure_has_its_category(status: str, message: str, name: str) -> None:
    assert category(status, message) == name
