from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fixtures.history.log import History, read_events

from .opened import Run

ROOT = Path(__file__).resolve().parents[2]


class Session:
    """One inner pytest session with our plugin, in a directory of its own."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.run_dir = pytester.path / "evidence"
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        # On a CI machine pytest would repeat every message in full in its short summary.
        for name in ("CI", "BUILD_NUMBER"):
            monkeypatch.delenv(name, raising=False)
        # Each process would read, and under PYTHONDONTWRITEBYTECODE rewrite, plugins that no test here is about.
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
        markers = "".join(f"    {line}\n" for line in settings["markers"])
        pytester.makeini(f"[pytest]\naddopts = --strict-markers -p fixtures.plugin\nmarkers =\n{markers}")

    def run(self, source: str, *args: str, in_process: bool = True, allure: bool = False) -> pytest.RunResult:
        """Run one file; Allure is off in process, where its registry is shared with the outer session."""
        self.pytester.makepyfile(test_inner="import pytest\n" + source)
        options = ["--run-dir", str(self.run_dir), *args]
        if allure:
            options = ["-p", "allure_pytest", *options]
        if "-n" in args:
            options = ["-p", "xdist", *options]
        if in_process:
            return self.pytester.runpytest_inprocess(*options)
        return self.pytester.runpytest_subprocess(*options)

    @property
    def history(self) -> History:
        return read_events(self.run_dir / "events.ndjson")

    @property
    def outcomes(self) -> dict[str, Any]:
        return {event.name: event.data["outcome"] for event in self.history.of("rule")}

    @property
    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "verdict.json").read_text())
        return found


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Session:
    return Session(pytester, monkeypatch)


@pytest.fixture
def run(inner: Session) -> Run:
    """Sessions with a pretended target, each a process of its own."""
    return Run(inner)
