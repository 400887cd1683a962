"""``python -m drills.killed_kept [--at MOMENT]``: as ``drills.killed``, on a kept rehearsal; the next run must heal it.

For each moment: start a run, kill it and its children when its history says that the moment has come, let the next run
sweep and ask whether everything is as it should be, and look for what was left: entries of the journal, kept dumps.

Exit status: 0 nothing was left at any moment, 1 something was, 2 a moment never came, 3 refused.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from drills.defects import matrix
from fixtures import console
from fixtures.faults.journal_file import SUFFIX
from fixtures.history.log import EVENTS, History, read_events
from fixtures.rehearsal import lifecycle
from fixtures.target.options import ROOT
from toolchain.build import cache_root

PATIENCE = 1200.0
"""Seconds for a moment to come: a rollout that does not stand yet, and the steps before it."""
HEALTHY = "P1.1,P1.2,P1.3,P2.1,P2.2,P2.3,P3.3,P0.6,P0.7,T1.1,T1.2,T1.3,T1.7,T1.9,T2.1,T2.3,T2.5"
"""Rules that say what a moment could have broken: jobs, both workers, rows, tags and the tailnet's policy."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The run dies `after` seconds behind the first time that a history of it holds `word`."""

    name: str
    word: str
    rules: str = ""
    defect: str = ""
    after: float = 0.0

    def argv(self, timers: str, directory: Path) -> list[str]:
        """The run: the tests of these rules, or one line of the matrix."""
        if self.defect:
            words = ["drills.defects", "--only", self.defect, "--own", "--clean", "0"]
            return [sys.executable, "-m", *words, "--timers", timers, "--run-dir", str(directory)]
        return asked(self.rules, timers, directory)


def asked(rules: str, timers: str, directory: Path) -> list[str]:
    """A run of the tests of these rules."""
    words = ["pytest", "acceptance", "--rules", rules, "--keep", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", *words, "--timers", timers, "--run-dir", str(directory)]


def _seeded(defect: str, after: float) -> Moment:
    return Moment(defect, f'"defect","source":"{defect}"', defect=defect, after=after)


MOMENTS = (
    Moment("planted", '"scratch-rows","source":"gvfx-convex"', rules="T1.10", after=0.3),
    Moment("writers-stopped", '"job-stopped","source":"gvfx-api"', rules="T5.6", after=0.5),
    Moment("wipe-announced", '"database-wiped","source":"gvfx-postgres"', rules="T5.6"),
    # The dump is kept and copied in less than a second, the restore takes some.
    Moment("wiped", '"database-wiped","source":"gvfx-postgres"', rules="T5.6", after=1.5),
    Moment("api-released", '"job-released","source":"gvfx-api"', rules="P4.3", after=0.5),
    Moment("worker-stopped", '"rollback stop-worker","source":"rollback"', rules="P4.3"),
    Moment("legacy-runs", '"rollback restore-legacy","source":"rollback"', rules="P4.3"),
    Moment("snapshot-restored", '"rollback restore-snapshot","source":"rollback"', rules="P4.3"),
    _seeded("everybody-may-leave", 15.0),
    _seeded("exits-gone-while-observed", 90.0),
    _seeded("second-worker-on-legacy", 15.0),
)


def die_at(moment: Moment, timers: str, directory: Path) -> bool:
    """Start the run and kill it, with every process it started, at the moment; False if it never came."""
    directory.mkdir(parents=True)
    log, run = directory / "output.log", directory / "run"
    with log.open("w", encoding="utf-8") as out:
        runner = subprocess.Popen(
            moment.argv(timers, run), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    deadline = time.monotonic() + PATIENCE

    def said() -> bool:
        return any(moment.word in path.read_text() for path in run.rglob("*.ndjson"))

    while (came := said()) is False and time.monotonic() < deadline and runner.poll() is None:
        time.sleep(0.02)  # the pause of a poll
    if came:
        time.sleep(moment.after)  # part of the moment, not a wait for anything
    came = came and runner.poll() is None
    try:
        os.killpg(runner.pid, signal.SIGKILL)
    except ProcessLookupError:
        came = False
    runner.wait()
    return came


def left_over() -> list[str]:
    """Journals and dumps of any target: nobody runs now."""
    found = cache_root() / "journal"
    return sorted(str(path) for kind in (SUFFIX, ".dump", ".new") for path in found.rglob(f"*{kind}"))


def judge(moment: Moment, timers: str, directory: Path) -> bool:
    """Let the next run heal and look; print one line; True when everything is as it should be."""
    dirty, start = left_over(), time.monotonic()
    with (directory / "healing.log").open("w", encoding="utf-8") as out:
        argv = asked(HEALTHY, timers, directory / "healing")
        subprocess.run(argv, cwd=ROOT, stdout=out, stderr=out, check=False)
    history = directory / "healing" / EVENTS
    found = matrix.outcomes((read_events(history) if history.exists() else History(())).events)
    wrong = [f"{rule} {found.get(rule, 'not decided')}" for rule in HEALTHY.split(",")]
    wrong = [line for line in wrong if not line.endswith(" passed")]
    wrong += [f"left {path}" for path in left_over()]
    if not dirty:
        wrong.append("there was nothing to sweep: the runner died too early, or too late, to prove anything")
    seconds = time.monotonic() - start
    print(f"{'BAD' if wrong else 'ok '} {moment.name:26} healed and asked in {seconds:4.0f} s", flush=True)
    for line in wrong:
        print(f"    {line}", flush=True)
    return not wrong


def main(argv: list[str]) -> int:
    """Run the moments in turn."""
    parser = argparse.ArgumentParser(
        prog="python -m drills.killed_kept", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--at", action="append", choices=[one.name for one in MOMENTS], help="repeatable")
    parser.add_argument("--run-dir", type=Path, help="where output and histories go")
    given = parser.parse_args(argv)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    runs: Path = (given.run_dir or ROOT / "reports" / "out" / f"killed-kept-{stamp}").resolve()
    lifecycle.must_be_root()
    state = lifecycle.kept()
    if state is None or left_over():
        observed = "no rehearsal stands" if state is None else f"not clean: {left_over()[0]}"
        print(f"{observed}; next: python -m fixtures.rehearsal up", file=sys.stderr)
        return 3
    clean = True
    for moment in MOMENTS:
        if given.at and moment.name not in given.at:
            continue
        if not die_at(moment, state.timers, runs / moment.name):
            print(
                f"moment {moment.name!r} ({moment.word!r}) never came; see {runs / moment.name}",
                file=sys.stderr,
            )
            return 2
        clean &= judge(moment, state.timers, runs / moment.name)
    return 0 if clean else 1


if __name__ == "__main__":
    console.run(main)
