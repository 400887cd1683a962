"""Runs the acceptance tests once per defect, on a standing rehearsal, and compares."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from drills.defects import matrix
from drills.defects.defect import Defect
from drills.defects.seeded import DefectSeeded
from fixtures.errors import SuiteError, Unknown
from fixtures.faults import Journal
from fixtures.history.log import EVENTS, History, read_events
from fixtures.target.options import DEFECT, ROOT, TargetOptions
from fixtures.target.target import Target
from reports.verdict import asked

CLEAN = Defect("clean", "nothing is wrong", "none", "every rule must pass", frozenset())


class Runner:
    """One matrix run.

    `say` prints a line of progress, `lock` is the descriptor of the rehearsal's lock, `rules` those that a
    defect is asked; None asks all.
    """

    def __init__(
        self,
        target: Target,
        journal: Journal,
        options: TargetOptions,
        directory: Path,
        say: Callable[[str], None],
        lock: int,
        rules: Callable[[Defect], frozenset[str] | None] = lambda defect: None,
    ) -> None:
        self._target = target
        self._journal = journal
        self._options = options
        self._directory = directory
        self._say = say
        self._lock = lock
        self._rules = rules

    def run(self, defect: Defect, name: str) -> matrix.Row:
        """Apply, test, undo. An error while undoing is raised: the next line would be judged wrongly."""
        start = time.monotonic()
        directory = self._directory / name
        self._say(f"{defect.id}: {defect.mutation}")
        with self._entry(defect), defect.during(self._target):
            self._pytest(defect, directory)
        history = directory / EVENTS
        found = read_events(history) if history.exists() else History(())
        return matrix.row(
            defect.id,
            matrix.outcomes(found.events),
            defect.expected_red,
            defect.expected_unknown,
            time.monotonic() - start,
            defect.tolerated,
            frozenset(asked(found)),
        )

    def _entry(self, defect: Defect) -> AbstractContextManager[object]:
        return nullcontext() if defect is CLEAN else self._journal.applied(DefectSeeded(defect.id))

    def _pytest(self, defect: Defect, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Also one that changes no job: the run's own verdict must not pass for one about a sound target.
        environment = {**os.environ, DEFECT: "" if defect is CLEAN else defect.id}
        argv = [
            sys.executable, "-m", "pytest", "acceptance", "--target", "rehearsal", "--keep",
            "--timers", self._options.timers, "--deploy-dir", str(self._options.deploy_dir),
            "--run-dir", str(directory), *(("-k", defect.only) if defect.only else ()),
        ]  # fmt: skip
        rules = self._rules(defect)
        if rules is not None:
            argv += ["--rules", ",".join(sorted(rules))]
        with (directory / "pytest.log").open("w", encoding="utf-8") as log:
            subprocess.run(
                argv, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False, pass_fds=(self._lock,)
            )


def run_all(runner: Runner, defects: list[Defect], say: Callable[[str], None]) -> list[matrix.Row]:
    """Every defect in turn; stops at the first one that cannot be undone."""
    rows: list[matrix.Row] = []
    for number, defect in enumerate(defects):
        try:
            rows.append(runner.run(defect, f"{number:02}-{defect.id}"))
        except SuiteError as error:
            say(f"stopped at {defect.id}: the target is not known to be clean\n{error}")
            raise Unknown(
                f"defect matrix after {defect.id}", "its undo was not verified", "a clean target",
                "python -m fixtures.rehearsal down",
            ) from error  # fmt: skip
        say(rows[-1].describe())
    return rows
