"""The scripts that ask a task's dependencies, run for real: every interpreter of this machine, against loopback."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe import inside
from fixtures.observe.dependency_scripts import COMMANDS
from fixtures.observe.nomad_exec import ExecResult
from tests.observe.test_inside import Here, closed_port, listener

__all__ = ["closed_port", "listener"]

SHELLS: Mapping[str, Mapping[str, str]] = {
    # What an image with a shell may have: tools by the name they are called, and what they are here.
    "wget": {
        "sh": "sh",
        "getent": "getent",
        "wget": "wget",
        "bash": "bash",
        "timeout": "timeout",
        "true": "true",
    },
    "curl": {"sh": "sh", "getent": "getent", "curl": "curl", "bash": "bash"},
    "bash": {"sh": "bash", "getent": "getent", "bash": "bash", "timeout": "timeout", "true": "true"},
    "busybox": dict.fromkeys(("sh", "nc", "wget", "timeout", "true"), "busybox") | {"getent": "getent"},
    # busybox runs its own tools, wherever PATH leads: these are the ones that can be taken away.
    "nc": {
        "sh": "sh",
        "getent": "getent",
        "nc": "busybox",
        "wget": "busybox",
        "timeout": "timeout",
        "true": "true",
    },
}


def real(tool: str) -> str | None:
    """Where a tool is; of Python not a shim, which needs more than itself."""
    return sys.executable if tool == "python3" else shutil.which(tool)


FOUND = [one for one in ("python3", "bun", "node") if real(one)]
FOUND += [one for one, tools in SHELLS.items() if all(map(real, tools.values()))]
NSLOOKUP = """#!/bin/sh
echo "Server:		10.0.0.1"
echo "Address:	10.0.0.1:53"
echo
[ "$1" = localhost ] || { echo "** server can't find $1: NXDOMAIN"; exit 1; }
"""
OF_NOW = 'echo "Name:	$1"; echo "Address: 127.0.0.1"; echo; echo "Name:	$1"; echo "Address: ::1"\n'
OF_OLD = 'echo "Name:      $1"; echo "Address 1: 127.0.0.1 $1"; echo "Address 2: ::1 $1"\n'


class NotFound(BaseHTTPRequestHandler):
    """Answers, and has nothing at /."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def web() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def image(directory: Path, one: str) -> Path:
    """A PATH with the tools of one kind of image and no others."""
    tools = SHELLS.get(one, {one: one, "sh": "sh"})
    for name, tool in tools.items():
        found = real(tool)
        assert found, f"{tool} is not here"
        (directory / name).symlink_to(Path(found).resolve())
    return directory


def asked(path: Path, **urls: str) -> dict[str, inside.Dependency]:
    here = Here(env={"PATH": str(path), **urls})
    found = inside.dependencies(cast("Any", here), "alloc", "api", (*urls, "UNSET"))
    return {one.variable: one for one in found}


def test_every_family_of_interpreters_is_here() -> None:
    assert {"python3", *SHELLS} <= set(FOUND)
    assert {"bun", "node"} & set(FOUND)
    assert set(COMMANDS) == {"python3", "bun", "node", "sh"}


@pytest.mark.parametrize("one", FOUND)
def test_each_interpreter_tells_who_answers(
    one: str, tmp_path: Path, listener: int, closed_port: int, web: int
) -> None:
    found = asked(
        image(tmp_path, one),
        OPEN=f"postgresql://user:hunter2@localhost:{listener}",
        WEB=f"http://user:hunter2@localhost:{web}/some/path?query",
        # A database where a service belongs: the port is open, and nobody speaks HTTP.
        DEAF=f"http://127.0.0.1:{listener}",
        DOWN=f"http://127.0.0.1:{closed_port}",
        SHUT=f"postgres://127.0.0.1:{closed_port}/name",
        NOWHERE="http://no-such-name.invalid:1",
        NOTHING="hunter2",
    )
    assert {name for name, dependency in found.items() if dependency.ok} == {"OPEN", "WEB"}
    assert (found["OPEN"].host, found["OPEN"].port) == ("localhost", listener)
    assert (found["WEB"].host, found["WEB"].port) == ("localhost", web)
    assert "127.0.0.1" in found["OPEN"].addresses and "127.0.0.1" in found["WEB"].addresses
    for name in ("DEAF", "DOWN", "SHUT"):
        assert found[name].addresses == ("127.0.0.1",) and found[name].error
    assert found["NOWHERE"].addresses == () and found["NOWHERE"].host == "no-such-name.invalid"
    assert "not set" in found["UNSET"].error
    assert "hunter2" not in repr(found)


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    """All at once: each of them takes its whole time."""
    with socket.create_server(("127.0.0.1", 0)) as mute, ThreadPoolExecutor(len(FOUND)) as pool:
        end = f"127.0.0.1:{mute.getsockname()[1]}"

        def ask(one: str) -> dict[str, bool]:
            (tmp_path / one).mkdir()
            found = asked(image(tmp_path / one, one), MUTE=f"http://{end}", HELD=f"postgres://{end}")
            return {name: dependency.ok for name, dependency in found.items()}

        assert list(pool.map(ask, FOUND)) == [{"MUTE": False, "HELD": True, "UNSET": False}] * len(FOUND)


@pytest.mark.parametrize("one", [one for one in FOUND if one not in SHELLS])
def test_an_interpreter_is_the_one_that_was_asked(one: str, tmp_path: Path, listener: int) -> None:
    """Else the shell would have stood in for it above."""
    here = Here(env={"PATH": str(image(tmp_path, one)), "OPEN": f"postgres://127.0.0.1:{listener}"})
    done = here.exec("alloc", "api", COMMANDS[one](["OPEN"]))
    assert [found.ok for found in inside.parse_dependencies(done.stdout)] == [True]


@pytest.mark.parametrize("lines", [OF_NOW, OF_OLD])
def test_names_by_nslookup_where_there_is_no_getent(lines: str, tmp_path: Path, web: int) -> None:
    path = image(tmp_path, "nc")
    (path / "getent").unlink()
    (path / "nslookup").write_text(NSLOOKUP + lines)
    (path / "nslookup").chmod(0o755)
    found = asked(path, WEB=f"http://localhost:{web}", NOWHERE="http://no-such-name.invalid:1")
    assert found["WEB"].ok and found["WEB"].addresses == ("127.0.0.1", "::1")
    assert not found["NOWHERE"].ok and found["NOWHERE"].addresses == ()


@pytest.mark.parametrize("scheme", ["http", "postgres"])
@pytest.mark.parametrize("missing", ["resolver", "caller", "broken caller"])
def test_a_shell_that_cannot_tell_says_nothing(
    scheme: str, missing: str, tmp_path: Path, listener: int
) -> None:
    path = image(tmp_path, "nc")
    gone = {"resolver": ["getent"], "caller": ["wget", "nc"], "broken caller": ["wget", "nc"]}[missing]
    for tool in gone:
        (path / tool).unlink()
        if missing == "broken caller":
            (path / tool).write_text("#!/bin/sh\nkill -SEGV $$\n")
            (path / tool).chmod(0o755)
    with pytest.raises(Unknown, match="python3: .*; bun: .*; node: .*; sh: exit 69, 0 answers"):
        asked(path, ONE=f"{scheme}://localhost:{listener}")


def test_an_image_without_python_is_asked_by_what_it_has() -> None:
    said: list[str] = []

    class Image(Here):
        def exec(self, alloc: str, task: str, argv: list[str], timeout: float = 10) -> ExecResult:
            said.append(argv[0])
            if argv[0] == "python3":
                raise ProbeError("exec", "executable file not found", "an exit code")
            if argv[0] == "bun":
                return ExecResult(127, "", "sh: bun: not found")
            line = '{"variable": "X", "host": "h", "port": 1, "addresses": ["b", "a"], "ok": true}'
            return ExecResult(0, f"a line of somebody else's\n7\n{line}\n", "")

    (found,) = inside.dependencies(cast("Any", Image()), "alloc", "api", ("X",))
    assert said == ["python3", "bun", "node"]
    assert found == inside.Dependency("X", "h", 1, ("a", "b"), True, "")


def test_dependencies_without_answers_are_unknown() -> None:
    class Silent(Here):
        def exec(self, alloc: str, task: str, argv: list[str], timeout: float = 10) -> ExecResult:
            return ExecResult(127, "", f"{argv[0]}: not found")

    with pytest.raises(Unknown, match="node: not found"):
        inside.dependencies(cast("Any", Silent()), "alloc", "api", ("X",))
