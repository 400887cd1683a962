from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.faults import Journal, base, journal
from fixtures.observe.recording import InMemory

from .local import CABLE, Local
from .world import World


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The journal's clock."""
    fake = FakeTime()
    monkeypatch.setattr(journal, "time", fake)
    return fake


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory where fsync costs nothing; what a dead process wrote stays there just the same."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="gvfx-tests-") as directory:
        yield Path(directory)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def record() -> InMemory:
    return InMemory()


@pytest.fixture
def faults(tmp_path: Path, world: World, record: InMemory, clock: FakeTime) -> Journal:
    return Journal(tmp_path / "journals", "run-1", world, record)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(base, "RUN", str(tmp_path))
    return tmp_path


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Local]:
    """A namespace of our own with 10.9.0.1 and a cable to 10.9.0.2; skipped where that is not allowed."""
    with subprocess.Popen(
        ["unshare", "-rn", "sh", "-c", CABLE, "sh", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as holder:
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip("no user namespaces or no nft here")
            yield Local("nsenter", "--preserve-credentials", "-U", "-n", "-t", str(holder.pid))
        finally:
            os.killpg(holder.pid, 9)
