"""How fast histories are judged, beside what reading them costs and beside porcupine.

    python -m bench.checkers [--events N] [--keep]

Seconds are CPU seconds of the whole process (wall time beside it), so that a busy machine changes little.
The floor is decoding every line of the same file with the standard library, in the same run; ``all/floor`` is the
whole way from the file to the verdict over it.  Porcupine's own time, like ``check``, leaves out reading and pairing.
Porcupine is a Go module pinned in ``bench/porcupine``; without a Go toolchain its column stays empty.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench import histories
from fixtures import console
from fixtures.history.availability import AvailabilityTerms
from fixtures.history.convergence import ConvergenceTerms
from fixtures.history.durability import DurabilityTerms
from fixtures.history.egress import EgressTerms
from fixtures.history.frames import table
from fixtures.history.freshness import FreshnessTerms
from fixtures.history.judge import CHECKERS
from fixtures.history.log import read_events
from fixtures.history.register import RegisterTerms
from fixtures.history.singleton import SingletonTerms
from fixtures.history.terms import Terms
from fixtures.history.windows import WindowTerms, lane

HERE = Path(__file__).parent
FIGURES = HERE / "checkers.ndjson"
PORCUPINE_LIMIT = "120s"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One history judged by one checker; seconds of CPU unless they say wall."""

    checker: str
    events: int
    outcome: str
    floor_s: float
    read_s: float
    columns_s: float
    check_s: float
    wall_s: float
    porcupine: str = ""
    porcupine_s: float | None = None
    porcupine_wall_s: float | None = None

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        whole = self.read_s + self.columns_s + self.check_s
        ratio = "" if self.porcupine_s is None else f"{self.porcupine_s / self.check_s:.2f}"
        seconds = "" if self.porcupine_s is None else f"{self.porcupine_s:.3f}"
        return (
            self.checker,
            f"{self.events:,}",
            self.outcome,
            f"{self.floor_s:.2f}",
            f"{self.read_s:.2f}",
            f"{self.columns_s:.2f}",
            f"{self.check_s:.3f}",
            f"{self.wall_s:.2f}",
            f"{whole / self.floor_s:.2f}",
            f"{self.events / whole:,.0f}",
            f"{self.events / self.check_s:,.0f}",
            self.porcupine,
            seconds,
            ratio,
        )


HEAD = (
    "checker",
    "events",
    "outcome",
    "floor s",
    "read s",
    "columns s",
    "check s",
    "wall s",
    "all/floor",
    "events/s",
    "checked/s",
    "porcupine",
    "its s",
    "its/check",
)


def cases(events: int) -> list[tuple[str, histories.Timed, Terms]]:
    """The histories and the terms each is judged by."""
    cycles = events // (2 * len(histories.FEEDS))
    lanes = tuple(lane("bingx", None, feed) for feed in histories.FEEDS)
    part = events // 5
    fresh = FreshnessTerms(
        endpoints=("/data-sources/status", "store"),
        pairs=histories.PAIRS,
        threshold_s=dict.fromkeys(histories.FEEDS, histories.THRESHOLD_S),
        advancing=("ticker",),
        compared=("ticker",),
        advance_s=10.0,
    )
    up = {"what": ("api",), "since": 0.0, "until": part / 10 - 0.1, "at_least": 0.99, "longest_s": 0.3}
    return [
        (
            "windows",
            histories.windows(events),
            WindowTerms(since=0.0, until=cycles * 60.0 - 30, lanes=lanes, max_gap_s=41.0),
        ),
        ("durability", histories.durability(part // 4), DurabilityTerms(settled=1500.0)),
        (
            "singleton",
            histories.activities(part),
            SingletonTerms(since=0.0, until=part / 4 * 10.0),
        ),
        ("freshness", histories.freshness(part), fresh),
        ("availability", histories.samples(part), AvailabilityTerms.model_validate({**up, "max_gap_s": 0.2})),
        (
            "convergence",
            histories.samples(part),
            ConvergenceTerms(what=("api",), within_s=10.0, hold_s=10.0, max_gap_s=0.2),
        ),
        (
            "egress",
            histories.counters(part),
            EgressTerms(since=0.0, until=part / 5 - 1.0, forbidden=("wrong", "other"), counting=("exit1",)),
        ),
        # The same operations spread thin and thick: many keys, few keys, and many clients on each.
        ("register 1000x3", histories.registers(part // 2, 1000, 3), RegisterTerms()),
        ("register 10x3", histories.registers(part // 2, 10, 3), RegisterTerms()),
        ("register 1000x10", histories.registers(part // 2, 1000, 10), RegisterTerms()),
        ("register 1000x20", histories.registers(part // 2, 1000, 20), RegisterTerms()),
    ]


def measure(name: str, path: Path, events: int, terms: Terms, porcupine: Path | None) -> Figure:
    """Judge one file, and let porcupine judge it too if it is a history of registers."""
    checker = next(one for one in CHECKERS.values() if one.terms is type(terms))
    floor_s, _, _ = _timed(lambda: _decode(path))
    read_s, read_wall, history = _timed(lambda: read_events(path))
    columns_s, columns_wall, tables = _timed(
        lambda: [table(history.events, shape) for shape in checker.shapes]
    )
    check_s, check_wall, result = _timed(lambda: checker.check(*(one.rows for one in tables), terms))
    theirs: dict[str, Any] = {}
    if porcupine and isinstance(terms, RegisterTerms):
        done = subprocess.run(
            [str(porcupine), str(path), PORCUPINE_LIMIT], capture_output=True, text=True, check=True
        )
        theirs = json.loads(done.stdout)
    return Figure(
        checker=name,
        events=events,
        outcome=result.outcome,
        floor_s=floor_s,
        read_s=read_s,
        columns_s=columns_s,
        check_s=check_s,
        wall_s=read_wall + columns_wall + check_wall,
        porcupine=str(theirs.get("result", "")),
        porcupine_s=theirs.get("check_cpu"),
        porcupine_wall_s=theirs.get("check_s"),
    )


def build_porcupine(directory: Path) -> Path | None:
    """The comparison's binary, or None without a Go toolchain."""
    out = directory / "porcupine"
    try:
        subprocess.run(
            ["go", "build", "-trimpath", "-mod=readonly", "-o", str(out), "."],
            cwd=HERE / "porcupine",
            check=True,
            env={**os.environ, "GOFLAGS": ""},
        )
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"bench: no porcupine: {error}\n")
        return None
    return out


def main(argv: list[str]) -> int:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.checkers", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, metavar="N", help="window events (1000000)")
    parser.add_argument("--keep", action="store_true", help=f"append the figures to {FIGURES.name}")
    given = parser.parse_args(argv)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="gvfx-bench-") as scratch:
        porcupine = build_porcupine(Path(scratch))
        path = Path(scratch) / "events.ndjson"
        for name, timed, terms in cases(given.events):
            sys.stderr.write(f"bench: {name}\n")
            events = histories.write(path, timed)
            figures.append(measure(name, path, events, terms, porcupine))
    sys.stdout.write("\n".join(lines([HEAD, *(figure.row for figure in figures)])) + "\n")
    if given.keep:
        stamp = {"at": round(time.time()), "load": os.getloadavg()[0], "cpus": os.cpu_count()}
        with FIGURES.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**stamp, **asdict(figure)}) + "\n" for figure in figures)
    return 0 if all(figure.outcome == "passed" for figure in figures) else 1


def lines(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows under each other, numbers to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _decode(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        for line in file:
            json.loads(line)
            count += 1
    return count


def _timed(work: Callable[[], T]) -> tuple[float, float, T]:
    """CPU seconds of every thread, wall seconds, and what came out."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return time.process_time() - cpu, time.perf_counter() - wall, found


if __name__ == "__main__":
    console.run(main)
