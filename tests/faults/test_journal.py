from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import faults as faults_package
from fixtures.errors import FaultError, ProbeError, Refused, UndoError
from fixtures.faults import (
    REGISTRY as REAL,
)
from fixtures.faults import (
    AllocFreeze,
    DnsOnly,
    EchoLie,
    ExitCleared,
    ExitUnapproved,
    Fault,
    HostDown,
    HostFreeze,
    Ineligible,
    Journal,
    KillSwitchFlushed,
    LinkCut,
    NamespaceIpv6,
    NodeDrain,
    NoWebSocket,
    PairMuted,
    PortsCut,
    ProcessFreeze,
    ProcessKill,
    TaskHeldDown,
    TaskKill,
    WrongAddress,
    journal_directory,
    rebuild,
    sweep,
    sweep_all,
)
from fixtures.faults import journal as journal_module
from fixtures.faults.journal_file import read
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed
from reports.verdict import open_faults

from .conftest import FakeTime
from .world import HOSTS, REGISTRY, Toggle, World

CLEAN = {host: ["running"] for host in HOSTS}


def phases(record: InMemory) -> list[tuple[str, object]]:
    return [(event.name, event.data["phase"]) for event in record.events if event.kind == "fault"]


def test_a_fault_lasts_for_the_body_and_every_phase_is_on_record(
    faults: Journal, world: World, record: InMemory
) -> None:
    with faults.applied(Toggle("h1", "a", id="x1")) as fault:
        assert world.picture()["h1"] == ["running", "a.x1"]
        assert faults.open_faults == (fault,)
        assert open_faults(record.events) == ["toggle on h1 (x1)"]
    assert world.picture() == CLEAN
    order = ["intent", "applied", "undone", "verified"]
    assert phases(record) == [("toggle", phase) for phase in order]
    lines = [json.loads(line) for line in faults.path.read_text().splitlines()]
    assert [line["phase"] for line in lines] == order
    assert lines[0]["fault"] == {"kind": "toggle", "host": "h1", "id": "x1", "name": "a"}
    assert {line["run"] for line in lines} == {"run-1"}
    assert open_faults(record.events) == []


def test_the_intent_is_durable_before_anything_happens(
    faults: Journal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FaultError, match="full"):
            faults.begin(Toggle("h1", "a"))
    assert world.picture() == CLEAN
    assert faults.open_faults == ()


def test_a_failed_body_is_undone_and_keeps_its_error(faults: Journal, world: World) -> None:
    with (
        pytest.raises(AssertionError, match="rule"),
        faults.applied(Toggle("h1", "a")),
        faults.applied(HostDown("h1")),
    ):
        raise AssertionError("rule")
    assert world.picture() == CLEAN


def test_what_cannot_be_applied_is_undone_too(faults: Journal, world: World, record: InMemory) -> None:
    class HalfWay(Toggle):
        def apply(self, control: Any) -> None:
            super().apply(control)
            raise RuntimeError("cable")

    with pytest.raises(FaultError, match="RuntimeError: cable"):
        faults.begin(HalfWay("h1", "a"))
    assert world.picture() == CLEAN
    assert phases(record)[-1] == ("toggle", "verified")


def test_a_fault_without_a_trace_is_no_fault(faults: Journal, record: InMemory) -> None:
    class Vacuous(Toggle):
        def apply(self, control: Any) -> None:
            return

    with pytest.raises(FaultError, match="no trace"), faults.applied(Vacuous("h1", "a")):
        pytest.fail("the body must not run")
    assert faults.open_faults == () == tuple(open_faults(record.events))


def test_preflight_refuses_without_a_line(faults: Journal, world: World) -> None:
    world.kill_host("h1")
    with pytest.raises(FaultError, match="the host is stopped"):
        faults.begin(HostDown("h1"))
    with pytest.raises(FaultError, match="the host is stopped"):
        faults.begin(HostFreeze("h1"))
    assert world.host_state("h1") == "stopped", "somebody else's outage was taken back"
    assert faults.path.read_bytes() == b""


def test_a_fault_cannot_stand_twice(faults: Journal) -> None:
    fault = Toggle("h1", "a")
    with faults.applied(fault), pytest.raises(FaultError, match="open already"):
        faults.begin(fault)
    faults.end(fault)  # and ending what is over is harmless


class Stubborn(Toggle):
    """Cannot be undone as long as ``forgiven`` is not set."""

    kind = "stubborn"
    settle = 1.0
    forgiven = False

    def undo(self, control: Any) -> None:
        if not Stubborn.forgiven:
            raise FaultError(self.title, "stuck", "undone")
        super().undo(control)


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> type[Stubborn]:
    monkeypatch.setattr(Stubborn, "forgiven", False)
    return Stubborn


def test_one_failed_undo_does_not_keep_the_others_from_theirs(
    faults: Journal, world: World, record: InMemory, stubborn: type[Stubborn]
) -> None:
    for fault in (Toggle("h1", "a"), stubborn("h2", "b", id="x2"), HostDown("h3")):
        faults.begin(fault)
    with pytest.raises(UndoError, match=r"stubborn b on h2 \(x2\)"):
        faults.undo_all()
    assert world.picture() == {**CLEAN, "h2": ["running", "b.x2"]}
    assert open_faults(record.events) == ["stubborn on h2 (x2)"]
    with pytest.raises(UndoError):
        faults.close()
    assert faults.path.exists(), "an unsettled journal must be found by the next session"

    stubborn.forgiven = True
    found = sweep_all(faults.path.parent, {**REGISTRY, "stubborn": stubborn}, world, record)
    assert [fault.id for fault in found] == ["x2"]
    assert world.picture() == CLEAN
    assert open_faults(record.events) == []


def test_several_failed_undos_are_one_error(faults: Journal, stubborn: type[Stubborn]) -> None:
    faults.begin(stubborn("h1", "a"))
    faults.begin(stubborn("h2", "b"))
    with pytest.raises(UndoError) as caught:
        faults.undo_all()
    assert "2 faults" in str(caught.value) and "on h1" in str(caught.value) and "on h2" in str(caught.value)


def test_the_end_of_some_leaves_the_others(faults: Journal, world: World, stubborn: type[Stubborn]) -> None:
    older, stuck, last = Toggle("h1", "a"), stubborn("h2", "b", id="x2"), HostDown("h3")
    for fault in (older, stuck, last):
        faults.begin(fault)
    with pytest.raises(UndoError, match="x2"):
        faults.end_all([stuck, last])
    assert faults.open_faults == (older, stuck)
    assert world.picture()["h3"] == CLEAN["h3"]
    faults.end_all([last])
    assert faults.open_faults == (older, stuck)


def test_a_body_that_failed_outlives_the_undo_that_failed(faults: Journal, stubborn: type[Stubborn]) -> None:
    with pytest.raises(AssertionError, match="rule") as caught, faults.applied(stubborn("h1", "a")):
        raise AssertionError("rule")
    assert any("stuck" in note for note in caught.value.__notes__)
    assert len(faults.open_faults) == 1
    with pytest.raises(UndoError), faults.applied(stubborn("h2", "b")):
        pass


def test_a_settled_journal_is_removed(faults: Journal) -> None:
    with faults.applied(Toggle("h1", "a")):
        pass
    faults.close()
    assert not faults.path.exists()


def test_a_full_disk_does_not_keep_the_undo_from_happening(
    faults: Journal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.begin(Toggle("h1", "a"))
    with monkeypatch.context() as patch:

        def full(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(os, "write", full)
        with pytest.raises(UndoError, match="journal cannot be written"):
            faults.undo_all()
        assert world.picture() == CLEAN
    faults.close()


# -- the sweep -------------------------------------------------------------------------------------------


def abandon(journal: Journal) -> Path:
    """As a killed process leaves it: the lock is gone, the file stays."""
    os.close(journal._file._fd)
    return journal.path


def test_the_journal_of_a_living_session_is_left_alone(
    faults: Journal, world: World, record: InMemory
) -> None:
    faults.begin(Toggle("h1", "a"))
    with pytest.raises(Refused, match="alive"):
        sweep(faults.path, REGISTRY, world)
    assert sweep_all(faults.path.parent, REGISTRY, world, record) == []
    assert world.picture() != CLEAN
    faults.close()


def test_a_sweep_is_idempotent_and_on_record(faults: Journal, world: World) -> None:
    faults.begin(Toggle("h1", "a", id="x1"))
    faults.begin(HostDown("h1", id="x2"))
    path, record = abandon(faults), InMemory()
    assert [fault.id for fault in sweep(path, REGISTRY, world, record)] == ["x2", "x1"]
    assert world.picture() == CLEAN
    assert phases(record) == [
        (kind, phase) for kind in ("host-down", "toggle") for phase in ("applied", "undone", "verified")
    ]
    assert sweep(path, REGISTRY, world, record) == []


def test_a_fault_of_another_build_is_left_open_and_said(
    faults: Journal, world: World, record: InMemory
) -> None:
    faults.begin(Toggle("h1", "a"))
    faults.begin(HostDown("h2"))
    path = abandon(faults)
    with pytest.raises(UndoError, match="unknown kind of fault: 'toggle'"):
        sweep_all(path.parent, {"host-down": HostDown}, world, record)
    assert world.host_state("h2") == "running", "one unknown fault kept the others from being undone"
    assert len(read(path).open) == 1
    sweep_all(path.parent, REGISTRY, world, record)
    assert world.picture() == CLEAN


def test_a_journal_that_lost_a_line_is_said(faults: Journal, world: World) -> None:
    for name in ("a", "b", "c"):
        faults.begin(Toggle("h1", name))
    path = abandon(faults)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(UndoError, match=r"1 line\(s\) lost"):
        sweep_all(path.parent, REGISTRY, world)
    assert world.picture() == CLEAN
    assert path.exists()


def test_no_directory_is_nothing_to_sweep(tmp_path: Path, world: World) -> None:
    assert sweep_all(tmp_path / "nowhere", REGISTRY, world) == []


def test_journals_of_one_target_lie_together_whatever_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVFX_CACHE", "/var/cache/gvfx")
    assert journal_directory("rehearsal a1 (short timers)") == Path(
        "/var/cache/gvfx/journal/rehearsal-a1-short-timers"
    )
    assert journal_directory("../..") == Path("/var/cache/gvfx/journal/target")


# -- faults as data --------------------------------------------------------------------------------------


EXAMPLES: list[Fault] = [
    ProcessKill("c1", "nomad", at_most=60),
    ProcessFreeze("c1", "tailnet.once"),
    AllocFreeze("c1", "convex-0a1b", at_most=20),
    HostDown("c1"),
    HostFreeze("c1"),
    LinkCut("c1"),
    LinkCut("c1", ("10.77.0.11", "fd00::/8"), "in", at_most=30),
    DnsOnly("exit1", ("198.51.100.80",)),
    NoWebSocket("exit1", ("198.51.100.80",), paths=("/ws", "/swap-market")),
    PortsCut("c3", ("100.64.0.1",), ports=(4646, 4647), at_most=60),
    PairMuted("inet", "PAXG-USDT", 8080, at_most=60),
    ExitUnapproved("ctl", "exit1", ("headscale", "-c", "/etc/h.json"), at_most=60),
    WrongAddress("exit1", "203.0.113.11", "203.0.113.99", at_most=60),
    EchoLie("inet", "192.0.2.77", "ws"),
    TaskKill("c3", "tailscale-0a1b"),
    TaskHeldDown("c3", "tailscale", at_most=60),
    ExitCleared("c3", "tailscale-0a1b"),
    KillSwitchFlushed("c3", "egress-watch-0a1b"),
    NamespaceIpv6("c3", "egress-watch-0a1b", at_most=60),
    NodeDrain("c3", "11111111-2222-3333-4444-555555555555", 90.5),
    Ineligible("c4", "11111111-2222-3333-4444-555555555555"),
]


@pytest.mark.parametrize("fault", EXAMPLES, ids=lambda fault: fault.kind)
def test_a_fault_comes_back_from_its_description(fault: Fault) -> None:
    assert rebuild(json.loads(json.dumps(fault.describe())), REAL) == fault


def test_every_fault_of_the_build_can_be_swept() -> None:
    assert {type(fault) for fault in EXAMPLES} == set(REAL.values())
    assert {kind.__name__ for kind in REAL.values()} <= set(faults_package.__all__)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {},
        {"kind": "meteor", "host": "c1"},
        {"kind": ["host-down"], "host": "c1"},
        {"kind": "host-down"},
        {"kind": "host-down", "host": "c1", "colour": "red"},
        {"kind": "host-down", "host": "c1", "id": "a; reboot"},
        {"kind": "process-kill", "host": "c1", "unit": "../x"},
        {"kind": "process-kill", "host": "c1", "unit": 5},
        {"kind": "alloc-freeze", "host": "c1", "container": "$(reboot)"},
        {"kind": "link-cut", "host": "c1", "peers": ["example.org"]},
        {"kind": "link-cut", "host": "c1", "direction": "up"},
        {"kind": "link-cut", "host": "c1", "id": "a-b"},
    ],
)
def test_what_is_no_fault_of_ours_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError):
        rebuild(bad, REAL)


# -- any sequence ----------------------------------------------------------------------------------------


class Flaky(World):
    """A world in which some calls fail, before or after they did what they were asked."""

    def __init__(self, directory: Path, before: set[int], after: set[int]) -> None:
        super().__init__(directory)
        self._before, self._after, self._calls = before, after, 0

    def _call(self, act: Any, *args: Any) -> Any:
        self._calls += 1
        if self._calls in self._before:
            raise ProbeError("call", f"lost before it ran: {args}", "an answer")
        answer = act(*args)
        if self._calls in self._after:
            raise OSError(f"lost after it ran: {args}")
        return answer

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        done: Completed = self._call(super().run, host, argv, timeout)
        return done

    def mark(self, host: str, mark: str, on: bool) -> None:
        self._call(super().mark, host, mark, on)

    def kill_host(self, host: str) -> None:
        self._call(super().kill_host, host)

    def start_host(self, host: str) -> None:
        self._call(super().start_host, host)

    def freeze_host(self, host: str) -> None:
        self._call(super().freeze_host, host)

    def thaw_host(self, host: str) -> None:
        self._call(super().thaw_host, host)


hosts = st.sampled_from(HOSTS)
actions = st.one_of(
    st.builds(Toggle, hosts, st.sampled_from(["a", "b"])),
    st.builds(HostDown, hosts),
    st.builds(HostFreeze, hosts),
    st.builds(lambda host: NodeDrain(host, f"n-{host}", 30.0), hosts),
    st.builds(lambda host: Ineligible(host, f"n-{host}"), hosts),
    st.integers(0, 5),  # end the fault at this place among the open ones
)
calls = st.sets(st.integers(1, 60), max_size=15)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(actions, max_size=12), calls, calls)
def test_any_sequence_with_any_failures_ends_with_everything_undone(
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[Fault | int],
    before: set[int],
    after: set[int],
) -> None:
    monkeypatch.setattr(journal_module, "time", FakeTime())
    directory, record = Path(tempfile.mkdtemp(dir=memory)), InMemory()
    world = Flaky(directory / "world", before, after)
    journal = Journal(directory / "journals", "run", world, record)
    for step in steps:
        try:
            if isinstance(step, Fault):
                journal.begin(step)
            elif step < len(journal.open_faults):
                journal.end(journal.open_faults[step])
        except (FaultError, ProbeError, OSError):
            pass  # refused, or hidden behind a host that is down: the end counts
        assert len(read(journal.path).open) == len(journal.open_faults) == len(open_faults(record.events))
    journal.close()
    assert world.picture() == CLEAN
    assert open_faults(record.events) == []
    assert not journal.path.exists()
