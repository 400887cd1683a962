"""What tests of checkers share: frames from shapes, findings by kind, events of a history in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import hypothesis
import polars as pl
from hypothesis.strategies import SearchStrategy

from fixtures.history.events import JSON, Event, Kind
from fixtures.history.frames import rows
from fixtures.history.results import CheckResult, Finding
from fixtures.history.shapes import Shape, record

Test = Callable[..., None]


def given(*strategies: SearchStrategy[Any]) -> Callable[[Test], Test]:
    """``hypothesis.given`` with fewer examples: each one builds and judges a whole history."""

    def decorate(test: Test) -> Test:
        decided: Test = hypothesis.settings(max_examples=30)(hypothesis.given(*strategies)(test))
        return decided

    return decorate


class Memory:
    """A log whose clocks the test sets: ``now`` is both of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now = 0.0

    def append(self, kind: Kind, name: str, source: str, /, **data: JSON) -> Event:
        event = Event(kind, name, source, self.now, self.now, "memory", dict(data))
        self.events.append(event)
        return event


def events(shapes: Iterable[tuple[float, Shape]], name: str | None = None) -> list[Event]:
    """Events of shapes, each at its time."""
    memory = Memory()
    for at, shape in shapes:
        memory.now = at
        record(memory, shape, "test", name if shape.NAME is None else None)
    return memory.events


def frame(shape: type[Shape], *found: Shape) -> pl.DataFrame:
    return rows(shape, found)


def kinds(result: CheckResult, outcome: str = "") -> dict[str, Finding]:
    """The findings by kind; each kind is told once at most per thing judged, the first one counts here."""
    told: dict[str, Finding] = {}
    for finding in result.findings:
        if not outcome or finding.outcome == outcome:
            told.setdefault(finding.kind, finding)
    return told


def of(finding: Finding, name: str) -> list[JSON]:
    """One field over all rows of the evidence that have it."""
    return [row[name] for row in finding.evidence if name in row]
