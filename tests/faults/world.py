"""A world of pretend hosts in a directory: it outlives the process that disturbs it.

``python -m tests.faults.world WORLD JOURNALS STEP`` plays a scenario and kills itself at the given step.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fixtures.errors import FaultError, ProbeError
from fixtures.faults import (
    Fault,
    HostControl,
    HostDown,
    HostFreeze,
    Ineligible,
    Journal,
    NodeDrain,
    Scheduler,
    registry_of,
)
from fixtures.faults import journal_file as journal_file_module
from fixtures.observe.nomad_types import Node
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed, HostState
from fixtures.target.target import Target

HOSTS = ("h1", "h2", "h3")


@dataclass(frozen=True)
class Toggle(Fault):
    """A file that exists on a host while the fault stands."""

    kind: ClassVar[str] = "toggle"

    name: str

    def apply(self, control: HostControl) -> None:
        self._must(control, "on")

    def undo(self, control: HostControl) -> None:
        self._must(control, "off")

    def residue(self, control: HostControl) -> str:
        return self._must(control, "see")

    def _must(self, control: HostControl, verb: str) -> str:
        done = control.run(self.host, [verb, f"{self.name}.{self.id}"])
        if done.returncode:
            raise FaultError(self.title, done.stderr, "exit 0")
        return done.stdout


REGISTRY = registry_of(Toggle, HostDown, HostFreeze, NodeDrain, Ineligible)


class World:
    """Hosts that are running, paused or stopped, and files on them; ``step`` is called around every change."""

    def __init__(self, directory: Path, step: Callable[[str], None] = lambda what: None) -> None:
        self._directory = directory
        self._step = step
        for host in HOSTS:
            if not (directory / host).exists():
                (directory / host).mkdir(parents=True)
                (directory / f"{host}.state").write_text("running")

    def picture(self) -> dict[str, list[str]]:
        """Everything there is."""
        return {host: [self.host_state(host), *sorted(os.listdir(self._directory / host))] for host in HOSTS}

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if self.host_state(host) != "running":
            raise ProbeError(f"command on {host}", self.host_state(host), "running")
        verb, name = argv
        path = self._directory / host / name
        if verb == "see":
            return Completed(0, name if path.exists() else "", "")
        self._step(f"{verb} {host} {name}")
        path.touch() if verb == "on" else path.unlink(missing_ok=True)
        self._step(f"{verb} {host} {name} done")
        return Completed(0, "", "")

    @property
    def scheduler(self) -> Scheduler:
        return Nodes(self)

    @property
    def target(self) -> Target:
        raise NotImplementedError

    def marked(self, host: str, mark: str) -> bool:
        return (self._directory / host / mark).exists()

    def mark(self, host: str, mark: str, on: bool) -> None:
        self._step(f"{mark} {host}")
        path = self._directory / host / mark
        path.touch() if on else path.unlink(missing_ok=True)
        self._step(f"{mark} {host} done")

    def kill_host(self, host: str) -> None:
        self._set(host, "stopped")

    def start_host(self, host: str) -> None:
        self._set(host, "running")

    def freeze_host(self, host: str) -> None:
        self._set(host, "paused")

    def thaw_host(self, host: str) -> None:
        self._set(host, "running")

    def host_state(self, host: str) -> HostState:
        text = (self._directory / f"{host}.state").read_text()
        return "paused" if text == "paused" else "stopped" if text == "stopped" else "running"

    def _set(self, host: str, state: HostState) -> None:
        self._step(f"{state} {host}")
        written = self._directory / f"{host}.new"
        written.write_text(state)
        written.rename(self._directory / f"{host}.state")
        self._step(f"{state} {host} done")


@dataclass(frozen=True)
class Nodes:
    """What a scheduler thinks of the hosts: it needs none of them alive. ``h1`` is the node ``n-h1``."""

    world: World

    def nodes(self) -> list[Node]:
        return [self.node(f"n-{host}") for host in HOSTS]

    def node(self, node_id: str) -> Node:
        host = node_id.removeprefix("n-")
        draining = self.world.marked(host, "draining")
        closed = draining or self.world.marked(host, "closed")
        eligibility = "ineligible" if closed else "eligible"
        return Node(node_id, host, "", "", "ready", eligibility, draining, "")

    def drain(self, node_id: str, deadline: float) -> None:
        self.world.mark(node_id.removeprefix("n-"), "draining", True)

    def set_eligibility(self, node_id: str, *, eligible: bool) -> None:
        host = node_id.removeprefix("n-")
        self.world.mark(host, "closed", not eligible)
        if eligible:
            self.world.mark(host, "draining", False)


class Death:
    """Kills this very process when the given step is reached; the steps include those of the journal's disk."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = itertools.count(1)

    def step(self, what: str) -> None:
        if next(self._count) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def haunt_the_disk(self) -> None:
        """From now on a line of the journal may also be lost, torn, or written and not yet durable."""
        death = self

        class Haunted:
            def __getattr__(self, name: str) -> Any:
                return getattr(os, name)

            def write(self, fd: int, data: bytes) -> int:
                death.step("write")
                if next(death._count) == death._at:
                    os.write(fd, data[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                written = os.write(fd, data)
                death.step("written")
                return written

            def fsync(self, fd: int) -> None:
                os.fsync(fd)
                death.step("durable")

        vars(journal_file_module)["os"] = Haunted()


def play(world: World, journals: Path) -> None:
    """Faults one after the other, inside one another, and left to the end."""
    journal = Journal(journals, "run-1", world, InMemory())
    with journal.applied(Toggle("h1", "a")), journal.applied(HostFreeze("h2")):
        pass
    journal.begin(Toggle("h1", "b"))
    journal.begin(Toggle("h2", "c"))
    journal.begin(HostDown("h2"))
    journal.end(journal.open_faults[0])
    journal.begin(HostDown("h3"))
    journal.begin(Ineligible("h1", "n-h1"))
    journal.begin(NodeDrain("h3", "n-h3", 30.0))
    journal.close()


def main(world: str, journals: str, at: str) -> None:
    death = Death(int(at))
    death.haunt_the_disk()
    play(World(Path(world), death.step), Path(journals))


if __name__ == "__main__":
    main(*sys.argv[1:])
