from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe import inside
from fixtures.observe.nomad_exec import ExecResult
from fixtures.observe.reachability import reachable
from fixtures.observe.recording import InMemory
from tests.observe.test_processes import OneHost


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        stop.set()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Here:
    """Runs what would run inside a task, here."""

    def __init__(self, *missing: str, env: dict[str, str] | None = None) -> None:
        self.missing = missing
        self.env = env

    def exec(self, alloc: str, task: str, argv: list[str], timeout: float = 10) -> ExecResult:
        if argv[0] in self.missing:
            raise ProbeError("exec", "executable file not found", "an exit code")
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=timeout, env=self.env
            )
        except FileNotFoundError:
            raise ProbeError("exec", "executable file not found", "an exit code") from None
        return ExecResult(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("missing", [(), ("python3",)])
def test_each_tool_tells_open_from_closed(missing: tuple[str, ...], listener: int, closed_port: int) -> None:
    end = f"127.0.0.1:{closed_port}"
    found = inside.reach(cast("Any", Here(*missing)), "alloc", "api", f"127.0.0.1:{listener}", [end])
    assert found == {end: False}
    control = f"127.0.0.1:{listener}"
    assert inside.reach(cast("Any", Here(*missing)), "alloc", "api", control, [control]) == {control: True}


def test_a_tool_that_misses_its_control_is_not_believed(closed_port: int) -> None:
    with pytest.raises(Unknown, match="control False"):
        inside.reach(cast("Any", Here()), "alloc", "api", f"127.0.0.1:{closed_port}", ["127.0.0.1:9"])


def test_no_tool_is_unknown() -> None:
    nothing = Here("python3", "bash", "sh")
    with pytest.raises(Unknown, match="not found"):
        inside.reach(cast("Any", nothing), "alloc", "api", "127.0.0.1:1", ["127.0.0.1:2"])


def test_only_the_named_variables_leave_a_task() -> None:
    env = {"PATH": "/usr/bin:/bin", "PAIRS": "A-B,C=D e", "EMPTY": "", "SECRET": "hunter2"}
    found = inside.environment(cast("Any", Here(env=env)), "alloc", "api", ("PAIRS", "EMPTY", "UNSET"))
    assert found == {"PAIRS": "A-B,C=D e", "EMPTY": ""}

    class Broken(Here):
        def exec(self, alloc: str, task: str, argv: list[str], timeout: float = 10) -> ExecResult:
            return ExecResult(126, "", "no sh")

    with pytest.raises(ProbeError, match="no sh"):
        inside.environment(cast("Any", Broken()), "alloc", "api", ("PAIRS",))


def test_reachability_of_many_ends(listener: int, closed_port: int) -> None:
    ends = {("127.0.0.1", listener), ("127.0.0.1", closed_port)}
    assert reachable(OneHost(), "h1", ends, InMemory()) == {("127.0.0.1", listener)}


def test_reachability_needs_an_answer_for_each_end() -> None:
    with pytest.raises(ProbeError, match="1 of 1 unanswered"):
        reachable(OneHost(""), "h1", {("127.0.0.1", 1)}, InMemory())
