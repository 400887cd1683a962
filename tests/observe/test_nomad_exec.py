"""Nomad's exec protocol, spoken by a small server that runs the commands for real and has Nomad's races."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve

from fixtures.errors import ProbeError
from fixtures.observe import nomad_exec
from fixtures.observe.nomad_exec import Agent, ExecResult, Frames, alloc_exec


def _data(text: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(text).decode()}


def _exited(code: int) -> str:
    return json.dumps({"exited": True, "result": {"exit_code": code}})


@contextmanager
def nomad(loses: int = 0, error: str | None = None) -> Iterator[Agent]:
    """A server; the first `loses` executions end at once, with exit 0 and no output."""
    left = [loses]

    async def answer(socket: ServerConnection) -> None:
        assert socket.request is not None
        command = json.loads(parse_qs(urlsplit(socket.request.path).query)["command"][0])
        if error:
            await socket.send(json.dumps({"error": error}))
            return
        if left[0]:
            left[0] -= 1
            await socket.send(_exited(0))
            return
        pipe = subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin and process.stdout and process.stderr
        feeding = asyncio.create_task(_fed(socket, process.stdin))
        while chunk := await process.stdout.read(7):  # small: the closing word arrives in pieces
            await socket.send(json.dumps({"stdout": _data(chunk)}))
        feeding.cancel()
        if said := await process.stderr.read():
            await socket.send(json.dumps({"stderr": _data(said)}))
        await socket.send(_exited(await process.wait()))

    ports: queue.Queue[int] = queue.Queue()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with serve(answer, "127.0.0.1", 0) as server:
            ports.put(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    try:
        yield Agent(f"http://127.0.0.1:{ports.get(timeout=5)}", "token", None, {"namespace": "default"})
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


async def _fed(socket: ServerConnection, stdin: asyncio.StreamWriter) -> None:
    async for message in socket:
        frame = json.loads(message)["stdin"]
        if frame.get("close"):
            stdin.close()
            return
        with suppress(ConnectionError):
            stdin.write(base64.b64decode(frame["data"]))
            await stdin.drain()


def run(agent: Agent, *argv: str, within: float = 10, stdin: bytes = b"") -> ExecResult:
    return alloc_exec(agent, "0" * 36, "task", list(argv), what="exec", timeout=within, stdin=stdin)


def test_a_command_is_read_whole_and_its_own_exit_code_counts() -> None:
    with nomad() as agent:
        found = run(agent, "sh", "-c", "printf 'a b\\nc'; echo oops >&2; exit 3")
    assert found == ExecResult(3, "a b\nc", "oops\n")


def test_an_input_arrives_whole() -> None:
    content = bytes(range(256)) * 2000  # several frames, and every byte
    with nomad() as agent:
        found = run(agent, "sh", "-c", f"head -c {len(content)} | sha256sum", stdin=content)
    assert found.stdout.split()[0] == hashlib.sha256(content).hexdigest()


def test_an_input_that_is_not_read_hinders_nobody() -> None:
    with nomad() as agent:
        assert run(agent, "sh", "-c", "exit 5", stdin=b"x" * 300_000).exit_code == 5


def test_without_an_input_there_is_none() -> None:
    with nomad() as agent:
        assert run(agent, "sh", "-c", "cat | wc -c").stdout.strip() == "0"


def test_arguments_arrive_as_they_are() -> None:
    with nomad() as agent:
        assert run(agent, "printf", "%s|", "x y", "$HOME", "'", '"').stdout == "x y|$HOME|'|\"|"


def test_an_end_that_nomad_reports_before_the_command_began_is_not_its_end() -> None:
    with nomad(loses=2) as agent:
        assert run(agent, "echo", "here").stdout == "here\n"


def test_a_command_that_never_reports_its_end_is_no_answer() -> None:
    with (
        nomad(loses=nomad_exec.ATTEMPTS) as agent,
        pytest.raises(ProbeError, match="without its closing word"),
    ):
        run(agent, "echo", "here")


def test_a_refusal_is_named() -> None:
    with nomad(error="task is not running") as agent, pytest.raises(ProbeError, match="task is not running"):
        run(agent, "true")


def test_a_command_that_goes_on_is_named() -> None:
    with nomad() as agent, pytest.raises(ProbeError, match="still running after"):
        run(agent, "sleep", "1", within=0.4)


def test_no_shell_in_the_image_is_no_answer() -> None:
    frames = Frames("end-1")
    frames.feed(json.dumps({"stdout": _data(b"OCI runtime exec failed")}))
    assert frames.feed(_exited(126))
    assert frames.result() is None and frames.nomads_code == 126


def test_only_the_right_closing_word_at_the_very_end_counts() -> None:
    frames = Frames("end-1")
    frames.stdout.extend(b"\nend-1 0\nmore")
    assert frames.result() is None
    frames.stdout.extend(b"\nend-1 7\n")
    assert frames.result() == ExecResult(7, "\nend-1 0\nmore", "")


def test_too_much_output_is_refused() -> None:
    frames = Frames("end-1")
    with pytest.raises(ValueError, match="bytes of stdout"):
        frames.feed(json.dumps({"stdout": _data(b"x" * (nomad_exec.MAX_OUTPUT + 1))}))


def test_exec_url() -> None:
    url = nomad_exec.exec_url("https://h:4646", "a/b", "t", ["x", "y z"], {"namespace": "default"})
    assert url.startswith("wss://h:4646/v1/client/allocation/a/b/exec?command=%5B%22x%22%2C+%22y+z%22%5D")
    assert url.endswith("&task=t&tty=false&namespace=default")
