"""``python -m bench.rehearsal [RUN]``: where the time of a rehearsal went, from its history.

Build steps, each job until it is healthy, then the tests, as seconds and as shares of the whole run. Default RUN: the
newest under ``reports/out`` that built its own cluster. Exit status: 0, or 2 when there is no such history.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from fixtures import console
from fixtures.history.events import Event
from fixtures.history.log import EVENTS, read_events
from fixtures.target.options import ROOT

_DEPLOYING = ("P1.1", "P1.2", "P1.3", "P2.1", "P2.2", "P2.3", "P3.1", "P3.3")


def rows(events: Iterable[Event]) -> list[tuple[str, float]]:
    """(what, seconds) of a run's parts in the order they happened; the last one is the whole."""
    found: list[tuple[str, float]] = []
    first: float | None = None
    last = 0.0
    built = jobs = 0.0
    for event in events:
        first = event.mono if first is None else first
        last = event.mono
        if event.kind == "note" and event.name == "rehearsal":
            steps = event.data.get("seconds")
            for name, seconds in (steps if isinstance(steps, dict) else {}).items():
                found.append((f"build: {name}", _number(seconds)))
                built += _number(seconds)
        figures = event.data.get("figures")
        if (
            event.name in _DEPLOYING
            and isinstance(figures, dict)
            and figures.get("done") in ("deployed", "ran")
        ):
            found.append((f"healthy: {event.name}", _number(figures.get("seconds"))))
            jobs += _number(figures.get("seconds"))
    if first is None:
        return []
    whole = last - first
    return [
        *found,
        ("build", built),
        ("jobs healthy, in the plan's order", jobs),
        ("tests", whole - built - jobs),
        ("whole run", whole),
    ]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def main(argv: list[str]) -> int:
    """Print the table of one run."""
    given = [Path(one) for one in argv] or sorted((ROOT / "reports" / "out").glob("*-*"), reverse=True)
    for run in given:
        table = rows(read_events(run / EVENTS).events) if (run / EVENTS).is_file() else []
        if "healthy: P1.1" not in dict(table):
            continue
        whole = table[-1][1]
        sys.stdout.write(f"{run}\n")
        for what, seconds in table:
            sys.stdout.write(f"{seconds:8.1f} s  {seconds / whole:5.1%}  {what}\n")
        return 0
    sys.stderr.write("no run that built its own cluster; next: scripts/rehearse -m phase3\n")
    return 2


if __name__ == "__main__":
    console.run(main)
