"""What a run leaves on disk, and the lock that keeps a second run away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.errors import Refused
from fixtures.rehearsal import state as states
from fixtures.rehearsal.lifecycle import kept
from fixtures.rehearsal.state import State, UseLock
from fixtures.target.rehearsal import held

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_saved_is_loaded(state: State) -> None:
    state.seconds = {"hosts and networks": 1.25}
    state.save()
    assert states.load(state.run_id) == state
    assert states.known() == [state]
    assert [path.name for path in state.directory.glob("*.tmp")] == []


def test_runs_are_for_this_user_only(state: State) -> None:
    assert states.runs_dir().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("version", ["a newer one", "an older one", "no object", "truncated", "empty"])
def test_a_state_that_this_version_did_not_write_is_none(state: State, version: str) -> None:
    path = state.directory / "state.json"
    body = json.loads(path.read_text())
    path.write_text(
        {
            "a newer one": json.dumps({**body, "zones": 3}),
            "an older one": json.dumps({name: body[name] for name in list(body)[:-1]}),
            "no object": "[]",
            "truncated": path.read_text()[:100],
            "empty": "",
        }[version]
    )
    assert states.load(state.run_id) is None
    assert states.known() == []


def test_a_broken_run_does_not_hide_the_kept_one(state: State) -> None:
    """Else the next sweep would take the kept one for a leftover."""
    state.kept = state.ready = True
    state.save()
    for broken in ("00000000", "ffffffff"):
        (states.runs_dir() / broken).mkdir()
        (states.runs_dir() / broken / "state.json").write_text("{")
    (states.runs_dir() / "a file").write_text("")
    assert kept() == state


def test_without_a_run_there_is_none() -> None:
    assert states.load("nowhere") is None
    assert states.known() == []
    assert kept() is None


@pytest.mark.parametrize(("is_kept", "is_ready"), [(True, False), (False, True), (False, False)])
def test_only_a_finished_run_that_was_kept_is_attached_to(
    state: State, is_kept: bool, is_ready: bool
) -> None:
    state.kept, state.ready = is_kept, is_ready
    state.save()
    assert kept() is None


# -- the lock --------------------------------------------------------------------------------------------


@contextmanager
def another_process(*, shared: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is told to end."""
    source = (
        "import sys; from fixtures.rehearsal.state import UseLock; lock = UseLock();"
        f"lock.acquire(shared={shared}); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_by_name_and_let_in_when_the_first_is_killed() -> None:
    lock = UseLock()
    with another_process(shared=False) as other:
        for shared in (False, True):
            with pytest.raises(Refused) as refused:
                lock.acquire(shared=shared)
            assert f"in use by process {other.pid}: " in refused.value.observed
            assert "import UseLock" in refused.value.observed
            assert refused.value.next_command.startswith(f"ps -fp {other.pid} ")
    # Nobody released it: the kernel did when the process died.
    lock.acquire()
    lock.release()


def test_readers_share_and_keep_a_builder_out() -> None:
    one, two, builder = UseLock(), UseLock(), UseLock()
    with another_process(shared=True):
        one.acquire(shared=True)
        two.acquire(shared=True)
        with pytest.raises(Refused, match=str(os.getpid())):
            builder.acquire()
        one.release()
        two.release()
        # The one that noted its name is gone, and still the lock is held.
        with pytest.raises(Refused, match="in use by"):
            builder.acquire()
    builder.acquire()
    builder.release()
    builder.release()


def test_a_holder_without_a_name_is_still_said(cache: Path) -> None:
    lock = UseLock()
    lock.acquire()
    (cache / "rehearsal.lock").write_text("")
    with pytest.raises(Refused, match="process unknown"):
        UseLock().acquire()
    lock.release()


def test_a_child_uses_the_rehearsal_on_behalf_of_its_parent() -> None:
    """And holds it after the parent let go: a killed runner leaves no run without its lock."""
    source = (
        "import sys; from fixtures.rehearsal.state import UseLock; lock = UseLock(); lock.acquire();"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", source]
    with held() as descriptor:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(descriptor,),
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        beside = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert "in use by process" in beside.stderr, "the variable alone is not the lock"
        mine = UseLock()
        mine.acquire()
        mine.release()
    with child, pytest.raises(Refused):
        UseLock().acquire()
    lock = UseLock()
    lock.acquire()
    lock.release()
