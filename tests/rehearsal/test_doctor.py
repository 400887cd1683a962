"""What a machine lacks is said all at once, each with what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.errors import RehearsalError
from fixtures.rehearsal import doctor, machines, rootfs
from fixtures.rehearsal.doctor import GIB, Line
from toolchain.build import RECIPES


class Machine:
    """What the doctor looks at, all well at first."""

    def __init__(self) -> None:
        self.uid = 0
        self.missing: set[str] = set()
        self.free = 100 * GIB
        self.engine = True

    def which(self, tool: str) -> str | None:
        return None if tool in self.missing else f"/usr/bin/{tool}"

    def disk_usage(self, path: Path) -> SimpleNamespace:
        assert path.exists()
        return SimpleNamespace(free=self.free)

    def findings(self) -> Iterator[Line]:
        if not self.engine:
            yield Line("FAIL", "Docker engine", "does not answer", "scripts/setup")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(os, "geteuid", lambda: found.uid)
    monkeypatch.setattr(shutil, "which", found.which)
    monkeypatch.setattr(shutil, "disk_usage", found.disk_usage)
    monkeypatch.setattr(doctor, "_engine", found.findings)
    monkeypatch.setattr(doctor, "DEVICES", ("/dev/null",))
    return found


def failed() -> dict[str, Line]:
    return {line.what: line for line in doctor.examine() if line.grade == "FAIL"}


def test_a_good_machine_passes(machine: Machine) -> None:
    assert failed() == {}
    doctor.must_pass()


def test_everything_that_is_wrong_is_said_at_once(machine: Machine, cache: Path) -> None:
    machine.uid, machine.engine, machine.free = 65534, False, GIB
    machine.missing = {"iptables", "debootstrap"}
    found = failed()
    assert list(found) == ["user", "tool iptables", "tool debootstrap", "Docker engine", f"disk for {cache}"]
    assert all(line.next for line in found.values())
    with pytest.raises(RehearsalError) as error:
        doctor.must_pass()
    for what in found:
        assert what in error.value.observed
    assert error.value.next_command == "python -m fixtures.rehearsal doctor"


def test_a_single_problem_brings_its_own_next_command(machine: Machine) -> None:
    machine.engine = False
    with pytest.raises(RehearsalError, match="Docker engine: does not answer") as error:
        doctor.must_pass()
    assert error.value.next_command == "scripts/setup"


def test_what_the_cache_holds_need_not_be_made_again(machine: Machine, cache: Path) -> None:
    machine.missing, machine.free = {"debootstrap"}, 4 * GIB
    assert set(failed()) == {"tool debootstrap", f"disk for {cache}"}
    rootfs.tree_path().mkdir(parents=True)
    for recipe in RECIPES:
        recipe.out.mkdir(parents=True)
    assert failed() == {}


@pytest.mark.parametrize("place", ["/etc/hostname", "/etc/hostname/deeper"])
def test_a_cache_that_cannot_be_written_is_named(
    machine: Machine, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVFX_CACHE", place)
    assert "GVFX_CACHE" in failed()[f"cache {place}"].next


def test_the_engine_is_examined_where_it_keeps_its_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = {"ServerVersion": "1", "Driver": "overlay2", "CgroupVersion": "2", "DockerRootDir": str(tmp_path)}
    monkeypatch.setattr(machines, "engine", lambda: SimpleNamespace(info=lambda: info, close=lambda: None))
    monkeypatch.setattr(machines, "runs_on_engine", lambda: {"0123abcd": "/cache"})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=GIB))
    lines = {line.what: line for line in doctor._engine()}
    assert lines["Docker engine"].observed == "1, overlay2, cgroup v2"
    assert lines[f"disk for {tmp_path}"].grade == "FAIL"
    assert lines["runs on the engine"].observed == "0123abcd"
