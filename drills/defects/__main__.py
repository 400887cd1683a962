"""``python -m drills.defects [--only ID] [--clean N] [--all] [--list]``

By itself the first defects, each asked the core: health, singleton and the ways in. With ``--only`` a defect is asked its
own rules as well, with ``--all`` every rule.

Exit status: 0 every line matches, 1 some line does not, 2 the matrix could not be finished.
"""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from drills.defects import matrix
from drills.defects.catalogue import BY_ID, CONTROLS, CORE, DEFECTS, FIRST
from drills.defects.defect import Defect
from drills.defects.runner import CLEAN, Runner, run_all
from drills.defects.seeded import REGISTRY
from fixtures import console
from fixtures.errors import SuiteError
from fixtures.faults import Journal, TargetControl, journal_directory
from fixtures.faults.healing import healed
from fixtures.history.log import EventLog
from fixtures.target.options import DEPLOY_DIR, ROOT, TargetOptions
from fixtures.target.rehearsal import ensure_target, held
from reports.redact import Redactor


def main(argv: list[str]) -> int:
    """Run the matrix on the rehearsal, building one if none stands."""
    parser = argparse.ArgumentParser(prog="python -m drills.defects", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(BY_ID), help="this defect; repeatable")
    parser.add_argument("--all", action="store_true", help="every defect, each asked every rule")
    parser.add_argument(
        "--own",
        action="store_true",
        help="ask only a defect's own rules and a few controls: quick, proves less",
    )
    parser.add_argument("--clean", type=int, default=1, metavar="N", help="clean runs before (1)")
    parser.add_argument("--list", action="store_true", help="print the catalogue and stop")
    parser.add_argument("--run-dir", type=Path, help="where the histories go")
    parser.add_argument("--timers", choices=("short", "production"), default="production")
    parser.add_argument("--deploy-dir", type=Path, default=DEPLOY_DIR)
    given = parser.parse_args(argv)
    if given.list:
        for defect in DEFECTS:
            print(f"{defect.id:26} {' '.join(sorted(defect.expected_red))}\n    {defect.mutation}")
        return 0
    chosen = [CLEAN] * given.clean + [BY_ID[one] for one in given.only or (BY_ID if given.all else FIRST)]
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    directory = (given.run_dir or ROOT / "reports" / "out" / f"defects-{stamp}").resolve()
    options = TargetOptions(keep=True, timers=given.timers, deploy_dir=given.deploy_dir.resolve())

    def say(line: str) -> None:
        print(line, flush=True)

    redactor = Redactor.from_environment(os.environ)
    with EventLog(directory / "matrix.ndjson", stamp, redact=redactor) as record:
        try:
            with held() as lock, closing(ensure_target(options, record, redactor.add)) as target:

                def rules(defect: Defect) -> frozenset[str] | None:
                    if given.own:
                        return CONTROLS | defect.own
                    if given.all:
                        return None
                    return CORE if defect.id in FIRST else CORE | defect.own

                healed(target, REGISTRY, record)
                journal = Journal(journal_directory(target.label), stamp, TargetControl(target), record)
                runner = Runner(target, journal, options, directory, say, lock, rules)
                with closing(journal):
                    rows = run_all(runner, chosen, say)
        except SuiteError as error:
            say(str(error))
            return 2
    say("")
    for one in rows:
        say(one.describe())
    if given.own:
        say(f"asked: each defect's own rules, and {' '.join(sorted(CONTROLS))}")
    say(matrix.summary(rows))
    return 0 if all(one.matches for one in rows) else 1


if __name__ == "__main__":
    console.run(main)
