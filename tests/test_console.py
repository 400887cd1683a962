"""Command lines in a pipe whose reader has seen enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MANY = "from fixtures import console; console.run(lambda argv: [print('x' * 99) for _ in range(9999)] and 5)"
FEW = "from fixtures import console; console.run(lambda argv: print('x') or 5)"


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["-c", MANY], 141),
        (["-c", FEW], 141),
        (["-m", "drills.defects", "--list"], 141),
        (["-m", "fixtures.rehearsal", "doctor"], 141),
    ],
    ids=["many lines", "few lines", "defects", "doctor"],
)
def test_a_reader_that_left_is_no_error(argv: list[str], status: int, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env={**os.environ, "GVFX_CACHE": str(tmp_path)},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.stderr, done.returncode) == ("", status)


def test_the_status_is_mains() -> None:
    done = subprocess.run([sys.executable, "-c", FEW], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("x\n", "", 5)
