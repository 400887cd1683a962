"""The three files that Allure reads beside its results: environment, categories, executor."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path

from .verdict import Verdict

CATEGORIES = [
    {
        "name": "leak: the target was not left clean, or a secret escaped",
        "matchedStatuses": ["failed", "broken"],
        "messageRegex": "(?s).*(undo failed:|a secret was found).*",
    },
    {"name": "product: a rule is broken", "matchedStatuses": ["failed"]},
    {
        "name": "environment: evidence is missing or the target is not usable",
        "matchedStatuses": ["broken", "skipped"],
        "messageRegex": "(?s).*(unknown|probe failed|refused|rehearsal failed|deploy failed|fault failed):.*",
    },
    {"name": "suite defect", "matchedStatuses": ["broken", "skipped"]},
]
"""Allure takes the first category that matches, so the order is part of the meaning."""


def write(
    directory: Path, verdict: Verdict, settings: Mapping[str, str], environment: Mapping[str, str]
) -> None:
    """Write the three files; ``settings`` describe the run, ``environment`` is searched for the CI's names."""
    directory.mkdir(parents=True, exist_ok=True)
    facts = {
        "verdict": verdict.word,
        "of": verdict.subject.line,
        "scope": verdict.scope,
        "run": verdict.run,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **settings,
    }
    properties = "".join(f"{name}={_property(value)}\n" for name, value in facts.items())
    (directory / "environment.properties").write_text(properties, encoding="utf-8")
    (directory / "categories.json").write_text(json.dumps(CATEGORIES, indent=2) + "\n", encoding="utf-8")
    (directory / "executor.json").write_text(
        json.dumps(_executor(verdict, environment), indent=2) + "\n", encoding="utf-8"
    )


def _executor(verdict: Verdict, environment: Mapping[str, str]) -> dict[str, str]:
    if "GITHUB_RUN_ID" not in environment:
        return {"name": platform.node(), "type": "local", "buildName": verdict.run}
    server, repository = environment.get("GITHUB_SERVER_URL", ""), environment.get("GITHUB_REPOSITORY", "")
    number = environment["GITHUB_RUN_ID"]
    return {
        "name": "GitHub Actions",
        "type": "github",
        "buildName": f"{environment.get('GITHUB_WORKFLOW', '')} {number}".strip(),
        "buildUrl": f"{server}/{repository}/actions/runs/{number}",
    }


def _property(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", " ")
