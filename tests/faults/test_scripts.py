"""The commands the faults run, executed for real on this machine: processes, an nftables namespace, a timer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.errors import FaultError, ProbeError, UndoError
from fixtures.faults import AllocFreeze, Journal, LinkCut, PortsCut, ProcessFreeze, ProcessKill
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed

from .local import Local, await_, with_docker

INIT = """
cd "$1"
while :; do
  [ -e hold.unit ] && { sleep 0.02; continue; }
  sleep 1000 & echo $! >unit.pid; wait $!; rm -f unit.pid
done
"""
"""The rule of a rehearsal host's init, without the rest of it."""


@pytest.fixture
def unit(run: Path) -> Iterator[Callable[[], int]]:
    """A unit kept alive by an init; the function gives its process id."""
    init = subprocess.Popen(["sh", "-c", INIT, "init", run], start_new_session=True)
    await_(lambda: (run / "unit.pid").exists() and (run / "unit.pid").read_text().endswith("\n"))
    yield lambda: int((run / "unit.pid").read_text())
    os.killpg(init.pid, 9)
    init.wait()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journals", "run", Local(), InMemory())
    yield made
    made.close()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


# -- processes -------------------------------------------------------------------------------------------


def test_a_killed_unit_stays_down_until_the_undo_brings_it_back(
    journal: Journal, unit: Callable[[], int], run: Path
) -> None:
    first = unit()
    with journal.applied(ProcessKill("here", "unit", id="mine")):
        assert not Path(f"/proc/{first}").exists()
        assert (run / "hold.unit").read_text() == "mine\n"
    assert not (run / "hold.unit").exists()
    assert unit() != first and state(unit()) in "SR"
    assert [path.name for path in run.glob("gvfx-fault*")] == []


def test_a_unit_is_back_when_it_listens_again(journal: Journal, unit: Callable[[], int]) -> None:
    unit()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        fault = ProcessKill("here", "unit", port=server.getsockname()[1])
        assert fault.residue(journal.control) == f"not listening on {fault.port}"
        server.listen()
        assert fault.residue(journal.control) == ""


def test_a_unit_that_is_held_down_by_another_is_neither_killed_nor_let_go(
    journal: Journal, unit: Callable[[], int], run: Path
) -> None:
    pid = unit()
    (run / "hold.unit").touch()
    os.kill(pid, 9)
    await_(lambda: not (run / "unit.pid").exists())
    with pytest.raises(FaultError, match="held down already"):
        journal.begin(ProcessKill("here", "unit"))
    fault = ProcessKill("here", "unit")
    fault.undo(journal.control)
    assert (run / "hold.unit").exists()
    assert fault.residue(journal.control) == ""


def test_a_unit_that_does_not_run_cannot_be_disturbed(journal: Journal, run: Path) -> None:
    for fault in (ProcessKill("here", "unit"), ProcessFreeze("here", "unit")):
        with pytest.raises(FaultError, match="not running"):
            journal.begin(fault)
    assert fault.residue(journal.control) == ""
    assert ProcessKill("here", "unit").residue(journal.control) == "not running"


def test_a_frozen_unit_keeps_its_process_and_goes_on(journal: Journal, unit: Callable[[], int]) -> None:
    pid = unit()
    with journal.applied(ProcessFreeze("here", "unit")):
        assert state(pid) == "T"
        with pytest.raises(FaultError, match="state 'T'"):
            journal.begin(ProcessFreeze("here", "unit"))
    assert unit() == pid
    assert state(pid) in "SR"


def test_a_frozen_unit_that_was_killed_needs_no_thaw(journal: Journal, unit: Callable[[], int]) -> None:
    pid = unit()
    with journal.applied(ProcessFreeze("here", "unit")):
        os.kill(pid, 9)
        await_(lambda: unit_or_zero(unit) not in (0, pid))


def unit_or_zero(unit: Callable[[], int]) -> int:
    try:
        return unit()
    except (FileNotFoundError, ValueError):
        return 0


def test_without_its_host_a_process_is_not_frozen_but_may_be_held(run: Path) -> None:
    host = Local("false")  # no command gets through
    host.state = "stopped"
    assert ProcessFreeze("here", "unit").residue(host) == ""
    with pytest.raises(ProbeError):
        ProcessKill("here", "unit").residue(host)


# -- the timer on the host -------------------------------------------------------------------------------


SLEEP = """#!/bin/sh
[ "$1" = 77 ] || exec /bin/sleep "$1"
read -r _ <"$(dirname "$0")/bell"
"""


@pytest.fixture
def timed(run: Path) -> Local:
    """This machine, where a timer of 77 seconds is over when the bell is rung."""
    os.mkfifo(run / "bell")
    (run / "sleep").write_text(SLEEP)
    (run / "sleep").chmod(0o755)
    return Local("env", f"PATH={run}:{os.environ['PATH']}")


def ring(run: Path, id_: str) -> None:
    """Let the timer of this fault go off and come to its end."""
    with (run / "bell").open("w") as bell:
        bell.write("\n")
    await_(lambda: not _timers(id_))


def test_the_timer_undoes_without_us(timed: Local, run: Path, unit: Callable[[], int]) -> None:
    fault = ProcessFreeze("here", "unit", at_most=77)
    fault.apply(timed)
    assert fault.residue(timed) == "stopped"
    ring(run, fault.id)
    assert fault.residue(timed) == ""
    assert not list(run.glob("gvfx-fault.*"))
    fault.undo(timed)


def test_a_late_timer_spares_the_next_fault(timed: Local, run: Path, unit: Callable[[], int]) -> None:
    first = ProcessFreeze("here", "unit", at_most=77)
    first.apply(timed)
    first.undo(timed)
    second = ProcessFreeze("here", "unit")
    second.apply(timed)
    ring(run, first.id)
    assert second.residue(timed) == "stopped"
    second.undo(timed)


def _timers(id_: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if id_.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


# -- containers ------------------------------------------------------------------------------------------

DOCKER = """#!/bin/sh
cd "$(dirname "$0")"
[ -e dead ] && { echo "Cannot connect to the Docker daemon at unix:///x: no such file or directory" >&2; exit 1; }
[ -e state ] || { echo "Error: No such object: $2" >&2; exit 1; }
case $1 in
  inspect) cat state;;
  pause) [ "$(cat state)" = running ] && echo paused >state;;
  unpause) [ -e stuck ] || { [ "$(cat state)" = paused ] && echo running >state; };;
esac
"""


@pytest.fixture
def docker(run: Path) -> Local:
    """A host with an engine that knows one container."""
    return with_docker(run, DOCKER)


@pytest.fixture
def engine(docker: Local, tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journals", "run", docker, InMemory())


def test_a_container_is_paused_for_the_body_even_if_it_fails(engine: Journal, run: Path) -> None:
    with (
        pytest.raises(AssertionError, match="body"),
        engine.applied(AllocFreeze("c1", "convex-a1", at_most=20)),
    ):
        assert (run / "state").read_text() == "paused\n"
        raise AssertionError("body")
    assert (run / "state").read_text() == "running\n"


def test_the_timer_of_a_pause_is_started_before_it() -> None:
    script: list[str] = []

    class Reader(Local):
        def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
            script.append(argv[-1])
            return Completed(0, "", "")

    AllocFreeze("c1", "convex-a1", at_most=20).apply(Reader())
    assert script[0].index("unpause convex-a1") < script[0].index("docker pause convex-a1")
    assert "sleep 20;" in script[0]


@pytest.mark.parametrize("found", ["paused", "exited", ""])
def test_only_a_running_container_can_be_paused(engine: Journal, run: Path, found: str) -> None:
    (run / "state").write_text(found + "\n")
    if not found:
        (run / "state").unlink()
    with pytest.raises(FaultError, match=found or "No such object"):
        engine.begin(AllocFreeze("c1", "convex-a1"))
    assert not found or (run / "state").read_text() == found + "\n", "another's pause was taken back"


def test_a_container_that_is_gone_is_not_paused_and_a_silent_engine_is_no_proof(
    docker: Local, run: Path
) -> None:
    fault = AllocFreeze("c1", "convex-a1")
    fault.apply(docker)
    (run / "state").unlink()
    fault.undo(docker)
    assert fault.residue(docker) == ""
    (run / "dead").touch()
    with pytest.raises(ProbeError, match="Cannot connect"):
        fault.residue(docker)


def test_a_pause_that_does_not_end_is_an_error(
    engine: Journal, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AllocFreeze, "settle", 0.0)
    (run / "stuck").touch()
    with pytest.raises(UndoError, match="paused"), engine.applied(AllocFreeze("c1", "convex-a1")):
        pass
    (run / "stuck").unlink()
    engine.close()


# -- the network -----------------------------------------------------------------------------------------


CONNECT = """
import socket
try:
    socket.create_connection(("{}", 9), 0.15)
except ConnectionRefusedError: print("refused")
except OSError: print("cut")
"""


def asks(netns: Local, address: str) -> str:
    """refused: a packet went there and one came back; cut: not so."""
    return netns.run("here", [sys.executable, "-c", CONNECT.format(address)]).stdout.strip()


@pytest.mark.parametrize(
    ("peers", "direction", "answer"),
    [
        ((), "both", "cut"),
        ((), "in", "cut"),
        ((), "out", "cut"),
        (("10.9.0.2",), "in", "cut"),
        (("10.9.0.2",), "out", "cut"),
        (("10.9.0.0/24", "fd00::1"), "both", "cut"),
        (("10.8.0.0/24",), "both", "refused"),
        (("fd00::/8",), "out", "refused"),
    ],
)
def test_a_cut_link_drops_what_it_says_counts_it_and_leaves_nothing(
    netns: Local, tmp_path: Path, peers: tuple[str, ...], direction: str, answer: str
) -> None:
    faults = Journal(tmp_path / "journals", "run", netns, InMemory())
    assert asks(netns, "10.9.0.2") == "refused"
    before = netns.run("here", ["nft", "list", "ruleset"]).stdout
    fault = LinkCut("here", peers, direction)  # type: ignore[arg-type]
    with faults.applied(fault) as cut:
        assert asks(netns, "10.9.0.2") == answer
        assert asks(netns, "127.0.0.1") == "refused"
        if peers:  # else the kernel's own packets count, too
            assert (cut.dropped(netns) > 0) == (answer == "cut")
        # A cut whose name begins alike is another one.
        assert LinkCut("here", id=fault.id[:-1]).residue(netns) == ""
    assert asks(netns, "10.9.0.2") == "refused"
    assert netns.run("here", ["nft", "list", "ruleset"]).stdout == before
    with pytest.raises(ProbeError):
        fault.dropped(netns)
    faults.close()


@pytest.mark.parametrize(("ports", "answer"), [((9, 4647), "cut"), ((10, 4647), "refused")])
@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_a_cut_of_ports_leaves_the_others(
    netns: Local, tmp_path: Path, ports: tuple[int, ...], direction: str, answer: str
) -> None:
    faults = Journal(tmp_path / "journals", "run", netns, InMemory())
    fault = PortsCut("here", ("10.9.0.2", "fd00::2"), direction, ports=ports)  # type: ignore[arg-type]
    with faults.applied(fault) as cut:
        assert asks(netns, "10.9.0.2") == answer
        assert (cut.dropped(netns) > 0) == (answer == "cut")
    assert asks(netns, "10.9.0.2") == "refused"
    faults.close()


@pytest.mark.parametrize("ports", [(), (0,), (65536,), ("9",), (True,)])
def test_a_cut_of_no_port_is_refused(ports: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ports"):
        PortsCut("here", ports=ports)


def test_two_cuts_are_lifted_one_by_one(netns: Local, tmp_path: Path) -> None:
    faults = Journal(tmp_path / "journals", "run", netns, InMemory())
    first, second = LinkCut("here", ("10.9.0.2",), at_most=60), LinkCut("here", ("10.9.0.3",))
    faults.begin(first)
    faults.begin(second)
    faults.end(first)
    assert (first.residue(netns), second.residue(netns)) == ("", f"table {second.table}")
    faults.close()


@pytest.mark.parametrize(
    ("direction", "hooks"),
    [("in", {"prerouting"}), ("out", {"postrouting"}), ("both", {"prerouting", "postrouting"})],
)
def test_one_way_is_one_way(direction: str, hooks: set[str]) -> None:
    rules = LinkCut("here", ("10.9.0.2",), direction).rules()  # type: ignore[arg-type]
    assert {hook for hook in ("prerouting", "postrouting") if hook in rules} == hooks


def test_tables_that_cannot_be_listed_are_no_proof(run: Path) -> None:
    (run / "nft").write_text("#!/bin/sh\nexit 1\n")
    (run / "nft").chmod(0o755)
    with pytest.raises(ProbeError):
        LinkCut("here").residue(Local("env", f"PATH={run}:{os.environ['PATH']}"))
