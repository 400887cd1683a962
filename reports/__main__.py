"""A saved history, judged again offline.

    python -m reports judge PATH [--json] [--picture FILE.svg]    print the verdict and exit with it
    python -m reports html PATH [-o FILE]    write the page (report.html beside the history)

PATH is a history (``events.ndjson``) or the run directory that holds it.
Exit status of ``judge``: 0 GO, 1 NO-GO, 2 UNKNOWN (also: there is no history), 3 REFUSED.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fixtures import console
from fixtures.history.log import EVENTS, History, read_events
from reports import html, picture, render
from reports.verdict import Verdict, compute


def main(argv: list[str]) -> int:
    """Run one command of the reports."""
    parser = argparse.ArgumentParser(
        prog="python -m reports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    judge = commands.add_parser("judge", help="judge a saved history again and exit with its verdict")
    judge.add_argument("--json", action="store_true", help="print verdict.json instead of the table")
    judge.add_argument("--picture", type=Path, metavar="FILE.svg", help="also draw the table")
    page = commands.add_parser("html", help="write a saved history's verdict as one self-contained page")
    page.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (report.html beside the history)"
    )
    for command in (judge, page):
        command.add_argument(
            "path", type=Path, metavar="PATH", help="a history, or the run directory that holds it"
        )
    judge.set_defaults(act=_judge)
    page.set_defaults(act=_page)
    given = parser.parse_args(argv)
    path: Path = given.path / EVENTS if given.path.is_dir() else given.path
    if not path.is_file():
        print(f"verdict: UNKNOWN  (there is no history at {path})", file=sys.stderr)
        return 2
    history = read_events(path)
    status: int = given.act(given, path, history, compute(history))
    return status


def _judge(given: argparse.Namespace, path: Path, history: History, verdict: Verdict) -> int:
    if given.picture:
        picture.write(verdict, given.picture)
    if given.json:
        print(json.dumps(render.to_json(verdict), indent=2))
    else:
        print("\n".join(render.lines(verdict)))
    return verdict.exit_code


def _page(given: argparse.Namespace, path: Path, history: History, verdict: Verdict) -> int:
    written = html.write(verdict, history, given.output or path.with_name(html.REPORT))
    print(f"{verdict.word}: {written}")
    return 0


if __name__ == "__main__":
    console.run(main)
