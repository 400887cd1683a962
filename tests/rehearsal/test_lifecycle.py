"""Building and removing runs, with an engine that is only pretended: what is left when it goes wrong."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.errors import Refused, RehearsalError
from fixtures.faults import HostDown
from fixtures.faults.journal_file import JournalFile, journal_directory
from fixtures.rehearsal import attach, cluster, doctor, lifecycle, machines
from fixtures.rehearsal.progress import Progress
from fixtures.rehearsal.state import State, labels, runs_dir
from fixtures.rehearsal.topology import HOSTS
from fixtures.target.hiding import Hide


class Engine:
    """Run ids that carry labels, and what was asked to be removed."""

    def __init__(self) -> None:
        self.runs: dict[str, str] = {}
        self.removed: list[str] = []
        self.broken = False

    def runs_on_engine(self) -> dict[str, str]:
        return dict(self.runs)

    def remove(self, run_id: str) -> list[str]:
        if self.broken:
            raise RehearsalError("Docker engine", "does not answer", "a running engine")
        self.runs.pop(run_id, None)
        directory = runs_dir() / run_id
        for path in sorted(directory.rglob("*"), reverse=True):
            path.unlink()
        directory.rmdir() if directory.exists() else None
        self.removed.append(run_id)
        return [f"container of {run_id}"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setattr(machines, "runs_on_engine", found.runs_on_engine)
    monkeypatch.setattr(machines, "remove", found.remove)
    monkeypatch.setattr(doctor, "must_pass", lambda: None)
    return found


def building(monkeypatch: pytest.MonkeyPatch, end: Callable[[], None]) -> None:
    """A build that does nothing but end this way."""

    def build(state: State, progress: Progress, hide: Hide) -> None:
        hide("made while building")
        with progress.step("hosts"):
            end()

    monkeypatch.setattr(cluster, "build_cluster", build)


def fail(error: BaseException) -> Callable[[], None]:
    def end() -> None:
        raise error

    return end


def test_a_run_that_was_built_stands_and_knows_its_times(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    building(monkeypatch, lambda: None)
    told: list[str] = []
    state = lifecycle.build("short", keep=True, hide=told.append)
    assert told == ["made while building"]
    assert state.kept and set(state.seconds) == {"hosts"}
    assert engine.removed == []


@pytest.mark.parametrize("error", [RehearsalError("a", "b", "c"), OSError(28, "full"), KeyboardInterrupt()])
def test_what_failed_is_removed_whether_or_not_it_was_to_be_kept(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    building(monkeypatch, fail(error))
    with pytest.raises(type(error)):
        lifecycle.build("short", keep=True)
    assert len(engine.removed) == 1
    assert list(runs_dir().iterdir()) == []


def test_what_failed_stays_for_a_look_on_request(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    building(monkeypatch, fail(OSError()))
    with pytest.raises(OSError):
        lifecycle.build("short", keep=True, retain=True)
    (left,) = [path.name for path in runs_dir().iterdir()]
    assert lifecycle.kept() is None
    assert lifecycle.leftovers() == [left]


def test_the_first_error_is_the_one_that_is_said(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        engine.broken = True
        raise RehearsalError("Consul", "no leader", "a leader")

    building(monkeypatch, end)
    with pytest.raises(RehearsalError, match="no leader") as found:
        lifecycle.build("short", keep=False)
    assert "fixtures.rehearsal sweep" in found.value.__notes__[0]


def test_a_machine_that_lacks_something_is_left_as_it_was(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "must_pass", fail(RehearsalError("this machine", "no disk", "room")))
    with pytest.raises(RehearsalError, match="no disk"):
        lifecycle.build("short", keep=False)
    monkeypatch.setattr(doctor, "must_pass", lambda: None)
    with pytest.raises(Refused, match="job specs"):
        lifecycle.build("short", keep=False, deploy_dir=tmp_path / "nowhere")
    assert list(runs_dir().iterdir()) == []


def test_what_killed_runs_left_goes_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    engine.runs = {"0000aaaa": str(cache)}
    (runs_dir() / "1111bbbb").mkdir()
    unfinished = cache / "layers" / ".x.tar.999999999.work"
    unfinished.mkdir(parents=True)
    building(monkeypatch, lambda: None)
    lifecycle.build("short", keep=False)
    assert engine.removed == ["0000aaaa", "1111bbbb"]
    assert not unfinished.exists()


def test_a_run_of_another_cache_is_neither_swept_nor_built_beside(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in use: its lock lies in the other cache."""
    engine.runs = {"0000aaaa": "/home/some body/cache"}
    building(monkeypatch, lambda: None)
    assert lifecycle.sweep() == []
    with pytest.raises(Refused, match="0000aaaa") as refused:
        lifecycle.build("short", keep=False)
    words = shlex.split(refused.value.next_command)
    assert words[0] == "GVFX_CACHE=/home/some body/cache"
    assert engine.removed == []


def test_every_object_names_its_run_and_its_cache(cache: Path) -> None:
    assert labels("0000aaaa") == {"gvfx.run": "0000aaaa", "gvfx.cache": str(cache)}


# -- is it whole? ----------------------------------------------------------------------------------------


def hosts_are(monkeypatch: pytest.MonkeyPatch, states: dict[str, str]) -> None:
    monkeypatch.setattr(machines, "engine", lambda: None)
    monkeypatch.setattr(machines.Machines, "host_states", lambda self: states)


def test_hosts_that_do_not_run_are_named(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    running = {host.name: "running" for host in HOSTS}
    hosts_are(monkeypatch, running)
    attach._must_be_whole(state)
    broken = {name: how for name, how in running.items() if name != "s2"} | {"c1": "paused"}
    hosts_are(monkeypatch, broken)
    with pytest.raises(Refused) as refused:
        attach._must_be_whole(state)
    assert sorted(refused.value.observed.split(", ")) == ["c1 paused", "s2 missing"]


def test_a_host_that_a_dead_session_left_off_is_for_the_sweep(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's sweep comes after attaching, and brings the host back; a host that is gone it cannot."""
    running = {host.name: "running" for host in HOSTS}
    hosts_are(monkeypatch, running | {"c4": "exited"})
    with pytest.raises(Refused):
        attach._must_be_whole(state)
    journal = JournalFile.create(journal_directory(attach._label(state)))
    fault = HostDown("c4")
    journal.append("dead-run", "intent", fault.id, fault.describe())
    journal.close(keep=True)
    attach._must_be_whole(state)
    hosts_are(monkeypatch, {name: how for name, how in running.items() if name != "c4"})
    with pytest.raises(Refused):
        attach._must_be_whole(state)


def test_a_docker_that_does_not_answer_says_so(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    with pytest.raises(RehearsalError) as found:
        attach._must_be_whole(state)
    assert found.value.thing == "Docker engine at unix:///nonexistent"
    assert found.value.observed == "does not answer: No such file or directory"
    assert found.value.next_command == "env -u DOCKER_HOST docker info"
