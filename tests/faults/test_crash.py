"""The runner dies by SIGKILL at every step there is; the next one leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.faults import sweep_all
from fixtures.faults.journal_file import JournalFile, read

from .world import REGISTRY, Death, World, play

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {"h1": ["running"], "h2": ["running"], "h3": ["running"]}


def dies(act: Callable[[Death], None], at: int) -> bool:
    """Run in a child that is killed at this step; False when it came to its end before."""
    pid = os.fork()
    if pid == 0:
        try:
            death = Death(at)
            death.haunt_the_disk()
            act(death)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) != 0


def test_a_runner_killed_at_any_step_leaves_nothing_that_a_sweep_does_not_undo(memory: Path) -> None:
    at, dirty = 0, 0
    while True:
        at += 1
        world, journals = memory / f"world{at}", memory / f"journals{at}"
        World(world)
        killed = dies(lambda death: play(World(world, death.step), journals), at)  # noqa: B023
        dirty += World(world).picture() != CLEAN
        swept = sweep_all(journals, REGISTRY, World(world))
        assert World(world).picture() == CLEAN, f"killed at step {at}"
        assert list(journals.glob("*.ndjson")) == []
        assert sweep_all(journals, REGISTRY, World(world)) == []
        if not killed:
            assert swept == []
            break
    assert at > 100 and dirty > 50, "the steps were not what this test believes"


def test_a_sweep_killed_at_any_step_is_finished_by_the_next(memory: Path) -> None:
    at = 0
    while True:
        at += 1
        world, journals = memory / f"world{at}", memory / f"journals{at}"
        World(world)
        # The richest moment: two hosts without power and a file on one of them.
        assert dies(lambda death: play(World(world, death.step), journals), 90)  # noqa: B023
        assert World(world).picture() != CLEAN
        killed = dies(
            lambda death: (sweep_all(journals, REGISTRY, World(world, death.step)), None)[1],  # noqa: B023
            at,
        )
        sweep_all(journals, REGISTRY, World(world))
        assert World(world).picture() == CLEAN, f"sweep killed at step {at}"
        if not killed:
            break
    assert at > 10


@pytest.mark.parametrize("at", [5, 40, 75])
def test_a_killed_program_of_its_own(tmp_path: Path, at: int) -> None:
    world, journals = tmp_path / "world", tmp_path / "journals"
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.world", world, journals, str(at)],
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    sweep_all(journals, REGISTRY, World(world))
    assert World(world).picture() == CLEAN


def test_a_torn_line_frees_its_number_and_a_lost_one_shows(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path)
    for id_ in ("a", "b", "c"):
        file.append("run", "intent", id_, {"kind": "toggle", "host": "h1", "name": "n", "id": id_})
    file.close(keep=True)
    content = file.path.read_bytes()
    lines = content.splitlines(keepends=True)
    for cut in range(1, len(lines[-1])):
        file.path.write_bytes(content[:-cut])
        assert read(file.path).missing == 0
        assert [line.id for line in read(file.path).open] == (["a", "b"] if cut > 1 else ["a", "b", "c"])
        again = JournalFile.take(file.path)
        again.append("run", "verified", "b")
        again.close(keep=True)
        assert "b" not in [line.id for line in read(file.path).open]
        assert read(file.path).missing == 0
    file.path.write_bytes(lines[0] + lines[2])
    assert read(file.path).missing == 1
