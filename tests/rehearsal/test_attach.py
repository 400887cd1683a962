"""Attaching to a rehearsal or building one: what is refused first, and what is left when it fails afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import Refused
from fixtures.observe.recording import InMemory
from fixtures.rehearsal import attach, cluster, lifecycle, specs
from fixtures.rehearsal.capabilities import RehearsalTailnet
from fixtures.rehearsal.machines import Machines
from fixtures.rehearsal.progress import Progress
from fixtures.rehearsal.state import State, UseLock
from fixtures.rehearsal.topology import HOSTS
from fixtures.target.capabilities import KeyState
from fixtures.target.options import TargetOptions

RUNNING = {host.name: "running" for host in HOSTS}


class Rehearsals:
    """What was done, instead of doing it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.calls: list[str] = []

    def build(self, timers: str, *, keep: bool, **more: object) -> State:
        self.calls.append("build")
        self.state.kept = keep
        return self.state

    def does(self, name: str, answer: Any = None) -> Callable[..., Any]:
        def call(*words: object, **more: object) -> Any:
            self.calls.append(name)
            return answer

        return call


@pytest.fixture
def rehearsals(state: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsals]:
    found = Rehearsals(state)
    before = dict(os.environ)
    for variable in ("PYTEST_XDIST_WORKER", "DOCKER_HOST"):
        os.environ.pop(variable, None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(lifecycle, "build", found.build)
    monkeypatch.setattr(lifecycle, "enter", found.does("enter"))
    monkeypatch.setattr(lifecycle, "down", found.does("down"))
    monkeypatch.setattr(lifecycle, "hosts", found.does("hosts", RUNNING))
    monkeypatch.setattr(specs, "check", found.does("specs"))
    monkeypatch.setattr(attach, "_target", found.does("target", "the target"))
    yield found
    os.environ.clear()
    os.environ.update(before)


def ensure(**options: Any) -> object:
    return attach.ensure_target(TargetOptions(**options), InMemory())


def the_lock_is_free() -> bool:
    lock = UseLock()
    try:
        lock.acquire()
    except Refused:
        return False
    lock.release()
    return True


def test_without_one_it_is_built(rehearsals: Rehearsals) -> None:
    assert ensure() == "the target"
    assert rehearsals.calls == ["build", "target"]
    assert not the_lock_is_free(), "the target holds it until it is closed"


@pytest.mark.parametrize("kept", [True, False])
def test_every_secret_is_told_before_anything_is_done_with_it(
    rehearsals: Rehearsals, state: State, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    told: list[str] = []

    def target(*words: object) -> object:
        assert words[-1] == told.append, "keys made later are told by the target"
        assert set(told) == set(strings(state.secrets()))
        return "the target"

    monkeypatch.setattr(attach, "_target", target)
    state.kept = state.ready = kept
    state.save()
    attach.ensure_target(TargetOptions(timers="short"), InMemory(), told.append)
    assert len(set(told)) > 15


def strings(values: Any) -> list[str]:
    if isinstance(values, str):
        return [values] if values else []
    return [
        one for inner in (values.values() if isinstance(values, dict) else values) for one in strings(inner)
    ]


def test_keys_made_later_are_told(state: State) -> None:
    told: list[str] = []
    machines = SimpleNamespace(
        run=lambda *words, **more: SimpleNamespace(returncode=0, stdout='{"key": "hskey-1"}')
    )
    tailnet = RehearsalTailnet(state, cast("Machines", machines), told.append)
    kinds: tuple[KeyState, ...] = ("good", "used", "expired")
    for kind in kinds:
        assert tailnet.auth_key(kind) == told.pop() == "hskey-1"
    assert tailnet.auth_key("unknown") == told.pop()


def test_a_builder_tells_what_it_makes(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(cluster, "Machines", lambda state: SimpleNamespace())
    builder = cluster.Builder(state, Progress({}), told.append)
    builder._secrets()
    assert set(told) == set(strings(state.secrets())) and len(set(told)) > 12


@pytest.mark.parametrize(("keep", "calls"), [(False, ["build", "down"]), (True, ["build"])])
def test_what_fails_after_building_leaves_only_what_was_to_be_kept(
    rehearsals: Rehearsals, monkeypatch: pytest.MonkeyPatch, keep: bool, calls: list[str]
) -> None:
    def fail(*words: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(attach, "_target", fail)
    with pytest.raises(KeyboardInterrupt):
        ensure(keep=keep)
    assert rehearsals.calls == calls
    assert the_lock_is_free()


def test_a_kept_one_is_looked_at_and_entered(rehearsals: Rehearsals, state: State) -> None:
    state.kept = state.ready = True
    state.save()
    assert ensure(timers="short") == "the target"
    assert rehearsals.calls == ["hosts", "specs", "enter", "target"]


def test_a_kept_one_of_other_clocks_is_refused_and_stays(rehearsals: Rehearsals, state: State) -> None:
    state.kept = state.ready = True
    state.save()
    with pytest.raises(Refused, match="built with short timers"):
        ensure(timers="production")
    assert "down" not in rehearsals.calls
    assert the_lock_is_free()


def test_several_processes_build_none(rehearsals: Rehearsals) -> None:
    os.environ["PYTEST_XDIST_WORKER"] = "gw0"
    with pytest.raises(Refused, match="no rehearsal stands"):
        ensure()
    assert rehearsals.calls == []


def test_a_file_about_a_cluster_is_refused_before_anything_is_built(
    rehearsals: Rehearsals, tmp_path: Path
) -> None:
    file = tmp_path / "live.toml"
    file.write_text('nomad_addr = "https://live:4646"\n')
    with pytest.raises(Refused, match="nomad_addr describes a cluster"):
        ensure(config_file=file)
    assert rehearsals.calls == []
