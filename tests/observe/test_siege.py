"""The agent runs for real, in a namespace of its own, against a small echo."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.recording import InMemory
from fixtures.observe.siege import Attempts, Ends, Siege, ends
from fixtures.target.capabilities import Completed


class Here:
    """This machine as the host; the files of a siege in a directory of the test, namespaces not entered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "nsenter").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
        (directory / "nsenter").chmod(0o755)

    def names(self, role: str | None = None) -> list[str]:
        return ["here"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        argv = [word.replace("/run/gvfx-siege", f"{self.directory}/gvfx-siege") for word in argv]
        environment = {**os.environ, "PATH": f"{self.directory}:{os.environ['PATH']}"}
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment, timeout=timeout, check=False
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def tailnet_address(self, host: str) -> str | None:
        return None

    def underlay_address(self, host: str) -> str:
        return ""


@pytest.fixture
def echo() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "9")
            self.end_headers()
            self.wfile.write(b"127.0.0.1")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes the worker's user, which needs root")
def test_every_way_is_tried_and_told(tmp_path: Path, echo: int) -> None:
    tmp_path.chmod(0o755)
    here = Here(tmp_path)
    siege = Siege(here, "here", InMemory())
    closed = ("127.0.0.1", 9)
    siege.start(1, Ends(("127.0.0.1", echo), closed, "/ws"), seconds=30, device="no-such-device")
    found = siege.stop()
    assert set(found.counts) == {"tcp", "lingering", "websocket", "dns", "udp", "ipv6", "uplink"}
    assert found.total == sum(found.tried(way) for way in found.counts) >= 6
    assert found.saw == ("127.0.0.1",)
    assert set(found.counts["tcp"]) == {"answered"}
    assert set(found.counts["websocket"]) == {"ECONNREFUSED"}
    assert set(found.counts["uplink"]) == {"ENODEV"}
    assert set(found.counts["dns"]) == {"sent"}
    assert found.stopped("websocket") == found.tried("websocket")
    assert not list(tmp_path.glob("gvfx-siege*"))


def test_it_ends_by_itself(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("becomes the worker's user, which needs root")
    tmp_path.chmod(0o755)
    siege = Siege(Here(tmp_path), "here", InMemory())
    closed = ("127.0.0.1", 9)
    siege.start(1, Ends(closed, closed, "/"), seconds=0, device="")
    body = {"done": False}
    while not body["done"]:
        body = json.loads(next(tmp_path.glob("*.out")).read_text() or '{"done": false}')
    assert siege.stop().counts.keys() == {"tcp", "lingering", "websocket", "dns", "udp", "ipv6"}


def test_an_agent_that_never_tried_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.observe.siege.ENDS_WITHIN", 0.2)
    here = Here(tmp_path)
    (tmp_path / "nsenter").write_text("#!/bin/sh\necho no such namespace >&2; exit 1\n")
    with pytest.raises(ProbeError, match="no such namespace"):
        Siege(here, "here", InMemory()).start(1, Ends(("x", 1), ("x", 1), "/"), seconds=1)


def test_what_was_stopped() -> None:
    found = Attempts({"tcp": {"answered": 2, "silence": 1}, "dns": {"EPERM": 4, "sent": 1}}, (), 1.0)
    assert (found.total, found.stopped(), found.stopped("dns"), found.tried("ws")) == (8, 5, 4, 0)
    assert found.brief() == {"dns": "EPERM 4, sent 1", "tcp": "answered 2, silence 1"}


def test_where_to() -> None:
    assert ends("http://198.51.100.80/", "wss://x.test/ws") == Ends(
        ("198.51.100.80", 80), ("x.test", 443), "/ws"
    )
    with pytest.raises(Unknown):
        ends("http://198.51.100.80/", "")
