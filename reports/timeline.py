"""What happened when: rollout steps, tests and faults of a history as bands over one axis, drawn as SVG."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fixtures.history.events import JSON, Event

Group = Literal["rollout", "tests", "faults"]
GROUPS: tuple[Group, ...] = ("rollout", "tests", "faults")

_WIDTH, _LEFT, _RIGHT = 1000, 70, 12
_LANE, _BAR, _AXIS = 18, 14, 22
_THINNEST = 2.0
_LETTER = 6.6  # width of a letter of a bar's label
_STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time with a label; ``tone`` is the class that colours it."""

    group: Group
    label: str
    start: float
    end: float
    tone: str
    hint: str


def spans(events: Sequence[Event]) -> list[Span]:
    """The spans of a history, by their start; a fault that was never undone lasts to the end."""
    found = [*_tests(events), *_steps(events), *_faults(events)]
    return sorted(found, key=lambda one: (one.start, one.label))


def svg(found: Sequence[Span]) -> str:
    """The drawing; empty when nothing has any length."""
    if not found:
        return ""
    start = min(one.start for one in found)
    length = max(one.end for one in found) - start
    if length <= 0:
        return ""
    scale = (_WIDTH - _LEFT - _RIGHT) / length
    parts: list[str] = []
    top = 0
    for group in GROUPS:
        lanes = _lanes([one for one in found if one.group == group])
        if not lanes:
            continue
        parts.append(f'<text class="group" x="0" y="{top + _BAR - 3}">{group}</text>')
        for lane in lanes:
            parts += [_bar(one, _LEFT + (one.start - start) * scale, scale, top) for one in lane]
            top += _LANE
        top += 6
    grid = list(_grid(length, scale, top))
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {top + _AXIS}" role="img" aria-label="timeline of the run">'
        f"{''.join(grid)}{''.join(parts)}</svg>"
    )


def clock(seconds: float) -> str:
    """Seconds as people write them: ``42 s``, ``3:05``, ``1:02:03``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


def _tests(events: Iterable[Event]) -> Iterable[Span]:
    for event in events:
        if event.kind == "rule":
            seconds = _number(event.data.get("duration_s"))
            outcome = str(event.data.get("outcome"))
            tone = outcome if outcome in ("passed", "failed") else "unknown"
            hint = f"{event.name} {outcome}, {clock(seconds)}: {event.data.get('nodeid')}"
            yield Span("tests", event.name, event.wall - seconds, event.wall, tone, hint)


def _steps(events: Iterable[Event]) -> Iterable[Span]:
    for event in events:
        if event.kind == "operation" and event.name.startswith("rollout "):
            seconds = _number(event.data.get("seconds"))
            tone = "failed" if event.data.get("error") else "step"
            label = event.name.removeprefix("rollout ")
            hint = f"{label} {event.data.get('done')}, {clock(seconds)}"
            yield Span("rollout", label, event.wall - seconds, event.wall, tone, hint)


def _faults(events: Sequence[Event]) -> Iterable[Span]:
    standing: dict[tuple[str, str, str], float] = {}
    for event in events:
        if event.kind != "fault":
            continue
        key = (event.name, event.source, str(event.data.get("id", "")))
        phase = event.data.get("phase")
        if phase in ("intent", "applied"):
            standing.setdefault(key, event.wall)
        elif phase == "verified" and key in standing:
            yield _fault(key, standing.pop(key), event.wall, undone=True)
    for key, start in standing.items():
        yield _fault(key, start, events[-1].wall, undone=False)


def _fault(key: tuple[str, str, str], start: float, end: float, *, undone: bool) -> Span:
    name, host, id_ = key
    state = f"{clock(end - start)}" if undone else "NEVER PROVEN UNDONE"
    tone = "fault" if undone else "failed"
    return Span("faults", f"{name} {host}", start, end, tone, f"{name} on {host} ({id_}), {state}")


def _lanes(found: Sequence[Span]) -> list[list[Span]]:
    """Spans on as few lanes as do not overlap."""
    lanes: list[list[Span]] = []
    for one in found:
        free = next((lane for lane in lanes if lane[-1].end <= one.start), None)
        if free is None:
            lanes.append([one])
        else:
            free.append(one)
    return lanes


def _bar(one: Span, left: float, scale: float, top: int) -> str:
    width = max(_THINNEST, (one.end - one.start) * scale)
    fits = width > len(one.label) * _LETTER + 4
    label = f'<text x="{left + 3:.1f}" y="{top + _BAR - 3}">{html.escape(one.label)}</text>' if fits else ""
    return (
        f'<g class="{one.tone}"><title>{html.escape(one.hint)}</title>'
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2"/>{label}</g>'
    )


def _grid(length: float, scale: float, bottom: int) -> Iterable[str]:
    step = next((one for one in _STEPS if length / one <= 12), _STEPS[-1])
    for number in range(int(length // step) + 1):
        x = _LEFT + number * step * scale
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 14}">{clock(number * step)}</text>'


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
