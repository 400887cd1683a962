"""This machine as the host that faults strike."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from fixtures.faults import Scheduler
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed, HostState
from fixtures.target.target import Target


class Local:
    """This machine as the one host, its commands behind a prefix."""

    def __init__(self, *prefix: str) -> None:
        self.prefix = prefix
        self.state: HostState = "running"

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        done = subprocess.run(
            [*self.prefix, *argv], capture_output=True, text=True, timeout=timeout, check=False
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    @property
    def scheduler(self) -> Scheduler:
        raise NotImplementedError

    @property
    def target(self) -> Target:
        raise NotImplementedError

    def host_state(self, host: str) -> HostState:
        return self.state

    def kill_host(self, host: str) -> None:
        raise NotImplementedError

    start_host = freeze_host = thaw_host = kill_host


def with_docker(run: Path, script: str) -> Local:
    """This machine with another engine, which knows one container: it runs."""
    (run / "docker").write_text(script)
    (run / "docker").chmod(0o755)
    (run / "state").write_text("running\n")
    return Local("env", f"PATH={run}:{os.environ['PATH']}")


def await_(condition: Callable[[], bool]) -> None:
    assert eventually("condition", condition, bool, within=10.0, record=InMemory(), every=0.01).met


CABLE = """
set -e
mkfifo "$1/fifo"
ip link add d0 type veth peer name d1
ip addr add 10.9.0.1/24 dev d0; ip link set d0 up; ip link set lo up
unshare -n sh -c 'echo >"$0"; exec sleep 1000' "$1/fifo" >&- & peer=$!  # else our reader waits for it too
read -r _ <"$1/fifo" || :
ip link set d1 netns $peer
nsenter -n -t $peer sh -ec 'ip addr add 10.9.0.2/24 dev d1; ip link set d1 up'
nft list tables
echo ready
wait
"""
