from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.observe import processes
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed
from fixtures.target.config import WORKER_PATTERN


class OneHost:
    """A host that answers with a fixed listing, or by running the command here."""

    def __init__(self, listing: str | None = None, returncode: int = 0) -> None:
        self.listing = listing
        self.returncode = returncode

    def names(self, role: str | None = None) -> list[str]:
        return ["h1"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if self.listing is not None:
            return Completed(self.returncode, self.listing, "")
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout)
        return Completed(done.returncode, done.stdout, done.stderr)

    def tailnet_address(self, host: str) -> str | None:
        return None

    def underlay_address(self, host: str) -> str:
        return "127.0.0.1"


@pytest.mark.parametrize(
    "argv",
    [
        ("python3", "-m", "workloads.worker"),
        ("/usr/bin/python3.11", "-u", "-m", "workloads.worker"),
        ("bun", "run", "src/jobs/worker.ts"),
        ("/usr/local/bin/bun", "run", "/app/src/jobs/worker.ts"),
    ],
)
def test_the_worker_itself_counts(argv: tuple[str, ...]) -> None:
    assert processes.is_worker(argv, WORKER_PATTERN)


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("python3", "/local/supervise.py", "--", "python3", "-m", "workloads.worker"),
        ("/sbin/tini", "--", "python3", "-m", "workloads.worker"),
        ("sh", "-c", "exec python3 -m workloads.worker"),
        ("python3", "-c", "import workloads.worker ; run()"),
        ("python3", "-m", "workloads.worker_tools"),
        ("python3", "-m", "workloads.api"),
        ("grep", "workloads.worker"),
        ("bash", "/scripts/run", "bun", "run", "src/jobs/worker.ts"),
    ],
)
def test_what_only_carries_its_command_does_not(argv: tuple[str, ...]) -> None:
    assert not processes.is_worker(argv, WORKER_PATTERN)


arguments = st.lists(
    st.text(st.characters(min_codepoint=1, max_codepoint=0x24F), max_size=8), min_size=1, max_size=4
)


@given(st.dictionaries(st.integers(1, 99999), arguments, max_size=6))
def test_any_listing_is_read_back(table: dict[int, list[str]]) -> None:
    lines = []
    for pid, argv in table.items():
        text = "\0".join(argv) + "\0"
        lines += [f"/proc/{pid}/cmdline:{line}" for line in text.split("\n")]
    found = processes.parse("\n".join(lines))
    # Trailing empty arguments cannot be told from the terminator; no worker has any.
    assert {pid: "\0".join(argv).rstrip("\0") for pid, argv in found.items()} == {
        pid: "\0".join(argv).rstrip("\0") for pid, argv in table.items()
    }


def test_this_machine_can_be_listed() -> None:
    census = processes.worker_processes(OneHost(), WORKER_PATTERN, InMemory())
    assert census.hosts == ("h1",)


def listing(*lines: str) -> str:
    control = f"/proc/7/cmdline:sh\0-c\0script\0{processes.CONTROL}\0"
    return "\n".join(("/proc/1/cmdline:init\0", control, *lines))


def test_workers_are_found_with_their_host() -> None:
    host = OneHost(listing("/proc/9/cmdline:python3\0-m\0workloads.worker\0"))
    census = processes.worker_processes(host, WORKER_PATTERN, InMemory())
    assert [(one.host, one.pid) for one in census.workers] == [("h1", 9)]
    assert census.on("h1") == list(census.workers)


@pytest.mark.parametrize("text", ["", "/proc/1/cmdline:init\0", listing().replace("/proc/1/", "/proc/2/")])
def test_a_cut_listing_proves_nothing(text: str) -> None:
    with pytest.raises(ProbeError, match="whole table"):
        processes.worker_processes(OneHost(text), WORKER_PATTERN, InMemory())


def test_no_hosts_and_a_failing_host_prove_nothing() -> None:
    with pytest.raises(ProbeError):
        processes.worker_processes(OneHost(listing(), 1), WORKER_PATTERN, InMemory())
    with pytest.raises(ProbeError):
        processes.worker_processes(OneHost(), WORKER_PATTERN, InMemory(), [])
