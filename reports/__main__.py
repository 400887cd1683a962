"""``python -m reports judge PATH [--json] [--picture FILE.svg]``: judge a saved history again, offline.

PATH is a history (``events.ndjson``) or the run directory that holds it.
Exit status: 0 GO, 1 NO-GO, 2 UNKNOWN (also: there is no history), 3 REFUSED.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fixtures.history.log import EVENTS, read_events
from reports import picture, render
from reports.verdict import compute


def main(argv: list[str]) -> int:
    """Run one command of the reports."""
    parser = argparse.ArgumentParser(
        prog="python -m reports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    judge = commands.add_parser("judge", help="judge a saved history again and exit with its verdict")
    judge.add_argument(
        "path", type=Path, metavar="PATH", help="a history, or the run directory that holds it"
    )
    judge.add_argument("--json", action="store_true", help="print verdict.json instead of the table")
    judge.add_argument("--picture", type=Path, metavar="FILE.svg", help="also draw the table")
    given = parser.parse_args(argv)
    path: Path = given.path / EVENTS if given.path.is_dir() else given.path
    if not path.is_file():
        print(f"verdict: UNKNOWN  (there is no history at {path})", file=sys.stderr)
        return 2
    verdict = compute(read_events(path))
    if given.picture:
        picture.write(verdict, given.picture)
    if given.json:
        print(json.dumps(render.to_json(verdict), indent=2))
    else:
        print("\n".join(render.lines(verdict)))
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
