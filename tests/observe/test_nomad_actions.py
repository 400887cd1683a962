"""What the probe asks of Nomad about periodic jobs and nodes, against a server that answers as Nomad does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from fixtures.observe import nomad
from fixtures.observe.recording import InMemory
from fixtures.target import config

CHILD = "gvfx-postgres-backup/periodic-1767225600"
ALLOCATION = {"ID": "a" * 36, "JobID": CHILD, "ClientStatus": "complete", "DesiredStatus": "run"}


class Server(BaseHTTPRequestHandler):
    """Keeps what was asked."""

    asked: ClassVar[list[tuple[str, str, Any]]] = []
    ANSWERS: ClassVar[dict[str, Any]] = {
        "/v1/job/gvfx-postgres-backup/periodic/force": {"EvalID": "e1", "Index": 7},
        "/v1/evaluation/e1": {"ID": "e1", "JobID": CHILD},
        f"/v1/job/{CHILD}/allocations": [ALLOCATION],
    }

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._answer(json.loads(self.rfile.read(length)) if length else None)

    def _answer(self, body: Any) -> None:
        path = urlsplit(self.path).path
        self.asked.append((self.command, path, body))
        text = json.dumps(self.ANSWERS.get(path, "not found"))
        self.send_response(200 if path in self.ANSWERS else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def probe() -> Iterator[nomad.NomadProbe]:
    Server.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings = config.described({"nomad_addr": f"http://127.0.0.1:{server.server_port}"})
    found = nomad.NomadProbe(settings, InMemory())
    yield found
    found.close()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_periodic_job_is_launched_and_its_child_found(probe: nomad.NomadProbe) -> None:
    assert probe.force_periodic("gvfx-postgres-backup") == CHILD
    (one,) = probe.allocations(CHILD)
    assert (one.job, one.client) == (CHILD, "complete")
