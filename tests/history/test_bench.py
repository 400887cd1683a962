"""The histories that the bench times are valid and are judged whole: a fast answer to nothing is worth nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.checkers import HEAD, cases, lines, measure
from bench.histories import Timed, write
from fixtures.history.judge import CHECKERS
from fixtures.history.terms import Terms

CASES = cases(5000)


@pytest.mark.parametrize(("name", "timed", "terms"), CASES, ids=[name for name, _, _ in CASES])
def test_what_is_timed_passes(tmp_path: Path, name: str, timed: Timed, terms: Terms) -> None:
    path = tmp_path / "events.ndjson"
    figure = measure(name, path, write(path, timed), terms, None)
    assert figure.outcome == "passed" and figure.events > 900
    assert len(figure.row) == len(HEAD) and len(lines([HEAD, figure.row])) == 2


def test_every_checker_is_timed() -> None:
    assert {type(terms) for _, _, terms in CASES} == {checker.terms for checker in CHECKERS.values()}
