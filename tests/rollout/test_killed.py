"""The runner dies at every step of what a test does by itself; the next session's sweep brings the steady state back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.errors import UndoError
from fixtures.faults import Journal, TargetControl, sweep_all
from fixtures.faults import journal as journal_module
from fixtures.observe.recording import InMemory
from fixtures.rollout import backup, checks, wiped
from fixtures.rollout.backup import Dump
from fixtures.rollout.entries import JobReleased, JobStopped, LegacyStarted, ScratchContent, ScratchRows
from fixtures.rollout.undoable import EVERYTHING
from fixtures.rollout.wiped import DatabaseWiped
from fixtures.target import deadlines, names
from tests.faults.conftest import FakeTime
from tests.faults.test_crash import dies
from tests.faults.world import Death

from .plant import STEADY, Plant, PretendedServer

Play = Callable[[Plant, Journal, Path], None]
OWN = "own.dump"
LEGACY_ALONE = {**STEADY, "legacy": True, "jobs": {names.API.id: {}, names.CONVEX.id: {}}}


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "time", FakeTime())
    monkeypatch.setattr(wiped, "Server", PretendedServer)
    monkeypatch.setattr(deadlines, "deployment", lambda job: 1.0)
    monkeypatch.setattr(checks, "rollout_problem", lambda target, job: "")
    monkeypatch.setattr(backup, "convex_address", lambda target: "http://convex")


def rolled_back(plant: Plant, journal: Journal, directory: Path) -> None:
    """As P4.3: rows, a release, the worker away, the legacy worker in its place, and forward again."""
    with journal.applied(ScratchRows(names.CONVEX.id, "scratch", "drill", ("d",))):
        plant.insert("scratch", {"drill": "d"})
        release = JobReleased(names.API.id, "api_env", "GVFX_RELEASE", "1")
        stopped, legacy = JobStopped(names.WORKER_JOB, names.WORKER_TASK), LegacyStarted()
        for fault in (release, stopped, legacy):
            journal.begin(fault)
        plant.submit(names.API.id)  # as its revert
        plant.legacy.stop()
        journal.end(legacy)
        plant.submit(names.WORKER_JOB)
        journal.end(stopped)
        journal.end(release)


def digest_of(contents: dict[str, list[str]]) -> str:
    return wiped.digest(contents, ())


def restored(plant: Plant, journal: Journal, directory: Path) -> None:
    """As T5.6: nobody writes, Convex stands still, its database is wiped and restored."""
    target, server = plant.target, PretendedServer(plant.target)
    kept, dump = directory / "run.dump", Dump("key", "", b"own")
    with (
        backup.deployed(target, journal),
        backup.quiet(target, journal),
        journal.applied(ScratchContent(names.CONVEX.id, "content", "run")),
    ):
        plant.insert("content", {"run": "run"})
        with backup.convex_stopped(target, journal):
            before = plant.postgres().contents()
            server.receive(dump, "d")
        plant.change("behind the backup", database="changed")
        with backup.convex_stopped(target, journal, restored=True, unless=str(kept)):
            contents = (digest_of(before), digest_of(plant.postgres().contents()))
            with journal.applied(DatabaseWiped(names.POSTGRES.id, str(kept), OWN, contents)):
                wiped.keep(dump, kept)
                server.copy(OWN)
                server.wipe()
                server.restore("d")


def picture(plant: Plant) -> dict[str, Any]:
    """What must be as it was; either content of the drill is one of ours."""
    state = plant.state
    return {**state, "task": {}, "database": {"changed": "own"}.get(state["database"], state["database"])}


@pytest.mark.parametrize("steady", [STEADY, LEGACY_ALONE], ids=["worker", "legacy"])
@pytest.mark.parametrize("play", [rolled_back, restored])
def test_killed_after_each_step(play: Play, steady: dict[str, Any], memory: Path) -> None:
    if play is rolled_back and steady["legacy"]:
        pytest.skip("a rollback begins with a worker in Nomad")
    dirty = 0
    for at in itertools.count(1):
        directory = memory / f"{at}"
        directory.mkdir()
        state = directory / "plant.json"
        Plant(state, **steady)

        def act(death: Death, directory: Path = directory, state: Path = state) -> None:
            plant = Plant(state, death.step)
            journal = Journal(directory, "run", TargetControl(plant.target), InMemory())
            play(plant, journal, directory)
            journal.close()

        killed = dies(act, at)
        dirty += picture(Plant(state)) != steady
        swept = sweep_all(directory, EVERYTHING, TargetControl(Plant(state).target))
        assert picture(Plant(state)) == steady, f"killed at step {at}"
        assert not [*directory.glob("*.ndjson"), *directory.glob("*.dump")], f"killed at step {at}"
        if not killed:
            assert swept == []
            break
    assert at > 60 and dirty > 20, "the steps were not what this test believes"


# -- when it cannot be brought back -------------------------------------------------------------------------------


def wiped_and_left(directory: Path) -> tuple[Plant, Journal]:
    plant = Plant(directory / "plant.json")
    journal = Journal(directory, "run", TargetControl(plant.target), InMemory())
    kept = directory / "run.dump"
    journal.begin(JobStopped(names.CONVEX.id, names.CONVEX.task, unless=str(kept)))
    contents = (digest_of(plant.postgres().contents()),)
    journal.begin(DatabaseWiped(names.POSTGRES.id, str(kept), OWN, contents))
    wiped.keep(Dump("key", "", b"own"), kept)
    server = PretendedServer(plant.target)
    server.copy(OWN)
    server.wipe()
    return plant, journal


def test_the_copy_that_went_with_its_task_leaves_the_kept_dump(memory: Path) -> None:
    plant, journal = wiped_and_left(memory)
    plant.change("another allocation", task={})
    journal.close()
    assert plant.state["database"] == "own" and plant.state["jobs"] == STEADY["jobs"]


def test_a_database_that_does_not_come_back_keeps_convex_away_and_the_dump(memory: Path) -> None:
    plant, journal = wiped_and_left(memory)
    plant.change("another allocation", task={})
    plant.spoilt = f"{OWN}.kept"
    with pytest.raises(UndoError) as caught:
        journal.close()
    assert "another content after its restore" in str(caught.value)
    assert "a dump of it is" in str(caught.value) and (memory / "run.dump").exists()
    assert plant.state["jobs"][names.CONVEX.id] is None
    assert list(memory.glob("*.ndjson"))
    with pytest.raises(UndoError):  # so does every session that finds it
        again = Plant(memory / "plant.json")
        again.spoilt = plant.spoilt
        sweep_all(memory, EVERYTHING, TargetControl(again.target))


def test_a_convex_that_somebody_started_is_not_written_over(memory: Path) -> None:
    plant, journal = wiped_and_left(memory)
    plant.change("by hand", database="theirs", jobs={**plant.state["jobs"], names.CONVEX.id: {}})
    with pytest.raises(UndoError, match="Convex runs, on another content"):
        journal.close()
    assert plant.state["database"] == "theirs"


def test_a_worker_stays_away_while_the_legacy_worker_runs(memory: Path) -> None:
    plant = Plant(memory / "plant.json")
    journal = Journal(memory, "run", TargetControl(plant.target), InMemory())
    journal.begin(JobStopped(names.WORKER_JOB, names.WORKER_TASK))
    plant.legacy.start()  # by somebody who is in no journal
    with pytest.raises(UndoError, match="the legacy worker runs"):
        journal.undo_all()
    assert plant.state["jobs"][names.WORKER_JOB] is None and not plant.state["two"]
    plant.legacy.stop()
    journal.close()
    assert plant.state == STEADY


def test_two_workers_are_left_two_by_the_test_itself(memory: Path) -> None:
    plant = Plant(memory / "plant.json", legacy=True)
    journal = Journal(memory, "run", TargetControl(plant.target), InMemory())
    with backup.quiet(plant.target, journal) as stopped:
        assert stopped == [names.WORKER_JOB, names.API.id, "the legacy worker"]
        assert not plant.state["legacy"]
    assert plant.state["legacy"] and plant.state["jobs"] == STEADY["jobs"]
    assert journal.open_faults == ()
