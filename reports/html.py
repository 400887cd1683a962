"""The verdict as one self-contained page: no script, nothing loaded from anywhere, readable on paper."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from fixtures.history.events import JSON
from fixtures.history.log import History
from fixtures.history.notes import SELECTED
from fixtures.history.rules import TESTS

from .render import counts, short
from .style import STYLE
from .timeline import clock, spans, svg
from .verdict import RuleResult, Verdict

REPORT = "report.html"
"""The page's file name inside a run directory."""

_SENTENCES = {
    "GO": "Every rule that was asked is proven.",
    "NO-GO": "At least one rule is broken.",
    "UNKNOWN": "Evidence is missing: this blocks a release as a failure does.",
    "REFUSED": "The suite declined to act; nothing was decided.",
}
_MOST_NAMES = 12  # figures shown before the rest is folded away


def to_html(verdict: Verdict, history: History) -> str:
    """The page: verdict, problems, what went wrong, every rule with its figures, and the timeline."""
    body = "\n".join(
        [
            _banner(verdict),
            _facts(verdict, history),
            _problems(verdict),
            _troubles(verdict.rules),
            _timeline(history),
            *_tables(verdict.rules),
            "<footer>Rules, figures and messages come from the run's own history (events.ndjson); "
            "<code>python -m reports judge</code> comes to the same verdict from it.</footer>",
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Whatever a message may hold, this page runs and loads nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(verdict.word)} · {escape(verdict.run)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def write(verdict: Verdict, history: History, path: Path) -> Path:
    """Write the page to a file."""
    path.write_text(to_html(verdict, history), encoding="utf-8")
    return path


def _banner(verdict: Verdict) -> str:
    warning = f"<p><strong>{escape(verdict.subject.warning)}</strong></p>" if verdict.subject.warning else ""
    return (
        f'<header class="{verdict.word.lower()}">{warning}<h1>{escape(verdict.word)}</h1>'
        f"<p>{_SENTENCES[verdict.word]}</p><p>{escape(counts(verdict.rules))}</p></header>"
    )


def _facts(verdict: Verdict, history: History) -> str:
    facts = {
        "of": verdict.subject.line.removeprefix("target: "),
        "run": verdict.run,
        "scope": verdict.scope.removeprefix("scope: "),
    }
    if history.events:
        first, last = history.events[0].wall, history.events[-1].wall
        facts["began"] = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        facts["lasted"] = clock(last - first)
        facts["events"] = str(len(history.events))
    for event in history.of("note", SELECTED)[:1]:
        settings = event.data.get("settings")
        if isinstance(settings, dict):
            facts.update({name: str(value) for name, value in settings.items()})
    pairs = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _problems(verdict: Verdict) -> str:
    if not verdict.problems:
        return ""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in verdict.problems)
    return f"<section><h2>Problems</h2><ul class=problems>{items}</ul></section>"


def _troubles(rules: Iterable[RuleResult]) -> str:
    parts = [
        f'<details open class="{result.outcome}"><summary>{_pill(result)} {escape(result.rule.id)} '
        f"{escape(result.rule.title)}</summary>"
        f"<p>Proven by: {escape(result.rule.proves)}.</p>"
        + "".join(f"<pre>{escape(message)}</pre>" for message in result.messages)
        + "</details>"
        for result in rules
        if result.messages
    ]
    return f"<section><h2>What stands in the way</h2>{''.join(parts)}</section>" if parts else ""


def _timeline(history: History) -> str:
    drawing = svg(spans(history.events))
    return f"<section><h2>Timeline</h2>{drawing}</section>" if drawing else ""


def _tables(rules: Iterable[RuleResult]) -> Iterable[str]:
    groups: dict[str, list[RuleResult]] = {}
    for result in rules:
        groups.setdefault(result.rule.test, []).append(result)
    for test, results in groups.items():
        rows = "".join(_row(result) for result in results)
        yield (
            f"<section><h2>{escape(test)} {escape(TESTS.get(test, ''))}</h2><table>"
            "<thead><tr><th>rule</th><th>outcome</th><th>statement</th><th>measured</th><th>seconds</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></section>"
        )


def _row(result: RuleResult) -> str:
    required = "" if result.rule.required else ' <span class="note">not required</span>'
    several = result.expected_cases > 1
    cases = f' <span class="note">{result.cases} of {result.expected_cases} cases</span>' if several else ""
    return (
        f'<tr><td class="id">{escape(result.rule.id)}</td><td>{_pill(result)}</td>'
        f"<td>{escape(result.rule.title)}{required}{cases}</td><td>{_figures(result)}</td>"
        f'<td class="number">{result.duration_s:.1f}</td></tr>'
    )


def _figures(result: RuleResult) -> str:
    chips = [_chip(name, value) for name, value in result.figures.items()]
    if len(chips) <= _MOST_NAMES:
        return "".join(chips)
    rest = chips[_MOST_NAMES:]
    more = f"<details><summary>{len(rest)} more</summary>{''.join(rest)}</details>"
    return "".join(chips[:_MOST_NAMES]) + more


def _chip(name: str, value: JSON) -> str:
    return f'<span class="figure">{escape(name)} <b>{escape(short(value))}</b></span>'


def _pill(result: RuleResult) -> str:
    return f'<span class="pill {result.outcome}">{result.outcome}</span>'
