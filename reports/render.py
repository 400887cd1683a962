"""The verdict as people and machines read it: a terminal table, JSON, one page of Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fixtures.history.events import JSON

from .verdict import RuleResult, Verdict

_LONGEST = 60  # characters of figures on one line of the terminal table
_CASE = re.compile(r"^\[[^]]*\]: ")
_MARKS = {"passed": "pass", "failed": "FAIL", "unknown": "????"}


def lines(verdict: Verdict) -> list[str]:
    """A seeded defect, one line per rule, its messages, the problems, target and scope, and the verdict last."""
    found = [verdict.subject.warning] if verdict.subject.warning else []
    said: dict[str, str] = {}
    for result in verdict.rules:
        required = "" if result.rule.required else " (not required)"
        found.append(f"{_MARKS[result.outcome]}  {result.rule.id:<6} {result.rule.title}{required}")
        measured = short_figures(result.figures)
        if measured:
            found.append(f"             {measured}")
        for message in result.messages:
            found += [f"             {line}" for line in _once(message, result.rule.id, said).splitlines()]
    found += [f"problem: {problem}" for problem in verdict.problems]
    found += [verdict.subject.line, verdict.scope]
    if verdict.wall_s:
        share = verdict.unavoidable_s / verdict.wall_s
        found.append(
            f"time: {verdict.wall_s:.0f} s, of which the system's own timers took {verdict.unavoidable_s:.0f} s"
            f" ({share:.0%}), by the floors that the rules state"
        )
    found.append(f"verdict: {verdict.word}  ({counts(verdict.rules)})")
    return found


def _once(message: str, rule: str, said: dict[str, str]) -> str:
    """The message, or where it was already said: what every rule lacks is read once. Cases may differ."""
    bare = _CASE.sub("", message)
    first = said.setdefault(bare, rule)
    return message if first == rule or "\n" not in bare else message.replace(bare, f"as {first}")


def short_figures(figures: Mapping[str, JSON], longest: int = _LONGEST) -> str:
    """Figures as ``name=value``, cut where the line is full; floats with four significant digits."""
    parts = [f"{name}={short(value)}" for name, value in figures.items()]
    text = " ".join(parts)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def to_json(verdict: Verdict) -> dict[str, JSON]:
    """The verdict as a JSON object."""
    rules: list[JSON] = [
        {
            "id": result.rule.id,
            "title": result.rule.title,
            "phase": result.rule.phase,
            "required": result.rule.required,
            "outcome": result.outcome,
            "cases": result.cases,
            "expected_cases": result.expected_cases,
            "figures": dict(result.figures),
            "messages": list(result.messages),
            "duration_s": result.duration_s,
        }
        for result in verdict.rules
    ]
    return {
        "seeded_defect": verdict.subject.defect or None,
        "verdict": verdict.word,
        "exit_code": verdict.exit_code,
        "release": verdict.release,
        "subject": verdict.subject.to_json(),
        "scope": verdict.scope,
        "wall_s": verdict.wall_s,
        "unavoidable_s": round(verdict.unavoidable_s, 1),
        "run": verdict.run,
        "problems": list(verdict.problems),
        "rules": rules,
    }


def to_markdown(verdict: Verdict) -> str:
    """One page: the verdict first, then what stands in its way, then every rule."""
    parts = [f"**{_cell(verdict.subject.warning)}**", ""] if verdict.subject.warning else []
    parts += [f"# {verdict.word}", "", f"{_cell(verdict.subject.line)}", ""]
    parts += [f"Run `{verdict.run}`, {verdict.scope}. {counts(verdict.rules)}.", ""]
    if verdict.problems:
        parts += ["## Problems", "", *(f"- {_cell(problem)}" for problem in verdict.problems), ""]
    parts += ["| rule | outcome | statement | measured | seconds |", "|---|---|---|---|---|"]
    for result in verdict.rules:
        outcome = result.outcome if result.outcome == "passed" else f"**{result.outcome}**"
        measured = _cell(short_figures(result.figures, 200))
        seconds = f"{result.duration_s:.1f}"
        parts.append(
            f"| {result.rule.id} | {outcome} | {_cell(result.rule.title)} | {measured} | {seconds} |"
        )
    if verdict.subject.specs:
        parts += ["", "| job | digest of its spec |", "|---|---|"]
        parts += [f"| {_cell(job)} | `{sha256}` |" for job, sha256 in verdict.subject.specs.items()]
    troubled = [result for result in verdict.rules if result.messages]
    for result in troubled:
        body = "\n\n".join(result.messages).replace("```", "'''")
        parts += ["", f"## {result.rule.id} {result.rule.title}", "", "```text", body, "```"]
    return "\n".join(parts) + "\n"


def write(verdict: Verdict, directory: Path) -> list[Path]:
    """Write ``verdict.json`` and ``verdict.md`` into a run directory."""
    as_json, as_markdown = directory / "verdict.json", directory / "verdict.md"
    as_json.write_text(json.dumps(to_json(verdict), indent=2) + "\n", encoding="utf-8")
    as_markdown.write_text(to_markdown(verdict), encoding="utf-8")
    return [as_json, as_markdown]


def counts(rules: Iterable[RuleResult]) -> str:
    """How many rules came to which outcome."""
    outcomes = [result.outcome for result in rules]
    return ", ".join(f"{outcomes.count(one)} {one}" for one in ("passed", "failed", "unknown"))


def short(value: JSON) -> str:
    """One figure's value: floats with four significant digits, nothing quoted."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ",".join(short(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={short(one)}" for name, one in value.items()) + "}"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
