"""The agent runs for real on this machine, its file in a directory of the test."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.history.shapes import Coverage
from fixtures.observe.census import FILES, Censuses, HostCensus, Look, everywhere, parse
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed, HostState
from fixtures.target.config import WORKER_PATTERN


class Here:
    """This machine as the host `here`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.alive = True

    def names(self, role: str | None = None) -> list[str]:
        return ["here"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if not self.alive:
            raise ProbeError(f"host {host}", "stopped", "running")
        argv = [word.replace(FILES, f"{self.directory}/census") for word in argv]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)

    def tailnet_address(self, host: str) -> str | None:
        return None

    def underlay_address(self, host: str) -> str:
        return ""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def worker(directory: Path) -> subprocess.Popen[bytes]:
    script = directory / "workloads.worker"
    script.write_text("import time\ntime.sleep(60)\n")
    return subprocess.Popen([sys.executable, "-u", script])


def test_a_worker_is_seen_come_and_go_and_the_agent_goes_with_its_file(tmp_path: Path) -> None:
    states: dict[str, HostState] = {"here": "running"}
    censuses = Censuses(Here(tmp_path), WORKER_PATTERN, InMemory(), lambda host: states[host])
    process = worker(tmp_path)
    try:
        censuses.start()

        def ours() -> list[float]:
            # This machine may carry other workers.
            censuses.read()
            return [one.end or 0.0 for one in censuses.activity() if one.who == f"here pid {process.pid}"]

        until(ours)
    finally:
        process.kill()
        process.wait()
    killed = time.time()
    censuses.look_at_power()
    until(lambda: not ours() or any(one.until > killed + 1.5 for one in censuses.coverage(10.0)))
    assert max(ours()) <= killed
    assert censuses.error_s["here"] < 1.0
    assert not list(censuses.stop())
    assert not list(tmp_path.glob("census*"))


def test_a_host_back_from_the_dead_gets_a_new_agent(tmp_path: Path) -> None:
    here = Here(tmp_path)
    census = HostCensus(here, "here", WORKER_PATTERN, InMemory())
    census.start()
    census.stop()
    until(lambda: not list(tmp_path.glob("census*")))
    census.saw("stopped", 5.0)
    here.alive = False
    with pytest.raises(ProbeError):
        census.saw("running", 6.0)
    here.alive = True
    census._read = 0
    census.saw("running", 7.0)
    until(lambda: list(tmp_path.glob("census*")))
    assert census.still == [5.0]
    census.stop()


def line(at: float, *pids: int, one: bool = True, all_: int = 9) -> str:
    found = [[pid, ["python3", "-m", "workloads.worker"]] for pid in pids]
    return json.dumps({"t": at, "all": all_, "one": one, "found": found})


def test_only_who_is_the_worker_counts() -> None:
    supervisor = ["/alloc/gvfx/busybox", "sh", "guard.sh", "run", "--", "python3", "-m", "workloads.worker"]
    text = json.dumps({"t": 1.0, "all": 3, "one": True, "found": [[7, supervisor]]}) + "\n" + line(2.0, 9, 8)
    assert parse("h", text, WORKER_PATTERN) == [Look(1.0, ()), Look(2.0, (8, 9))]


@pytest.mark.parametrize("text", [line(1.0, one=False), line(1.0, all_=1), "{", '{"t": 1}', "[]"])
def test_half_a_table_is_none(text: str) -> None:
    with pytest.raises(ProbeError):
        parse("h", text, WORKER_PATTERN)


def test_a_frozen_host_has_nobody_at_work_and_is_looked_at_all_the_same() -> None:
    census = HostCensus(Here(Path()), "c3", WORKER_PATTERN, InMemory(), error_s=0.1)
    census.looks = [Look(float(at), (7,)) for at in (0, 1, 2, 60, 61)]
    for at in range(3, 60, 2):
        census.saw("paused", float(at))
    assert [(one.start, one.end, one.clock) for one in census.activity()] == [(0, 2, "c3"), (60, 61, "c3")]
    assert census.coverage(3.0) == [Coverage("processes", 0, 61, 2)]
    assert len(census.coverage(1.5)) == 2


spans = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=6)


@given(st.lists(spans, min_size=1, max_size=4))
def test_everywhere_is_where_all_are(hosts: list[list[tuple[int, int]]]) -> None:
    made: list[list[Coverage]] = []
    for found in hosts:
        at, stretches = 0, []
        for pause, length in found:
            stretches.append(Coverage("x", at + pause, at + pause + length, float(length)))
            at += pause + length + 1
        made.append(stretches)
    together = everywhere(made)
    for moment in range(150):
        instant = moment + 0.5
        every = all(any(one.since < instant < one.until for one in found) for found in made)
        assert any(one.since < instant < one.until for one in together) == every


def test_a_state_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    """It was waited for while a reading held the lock, and the host has gone on meanwhile."""
    censuses = Censuses(Here(tmp_path), WORKER_PATTERN, InMemory(), lambda host: "paused")
    with censuses._lock:
        looking = threading.Thread(target=censuses.look_at_power)
        looking.start()
        time.sleep(0.3)
        thawed = time.time()
    looking.join()
    assert censuses._censuses[0].still[0] < thawed


def test_a_host_whose_state_nobody_tells_hides_no_other(tmp_path: Path) -> None:
    def state(host: str) -> HostState:
        if host == "dumb":
            raise ProbeError("power of dumb", "no answer", "a state")
        return "stopped"

    hosts = Here(tmp_path)
    hosts.names = lambda role=None: ["dumb", "here"]  # type: ignore[method-assign]
    censuses = Censuses(hosts, WORKER_PATTERN, InMemory(), state)
    with pytest.raises(ProbeError, match="power of dumb"):
        censuses.look_at_power()
    assert [len(one.still) for one in censuses._censuses] == [0, 1]
