from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from fixtures.errors import ProbeError
from fixtures.observe import nomad
from fixtures.observe.recording import InMemory
from fixtures.target import config

ANSWERS = {
    "held": (409, "attempting to modify locked variable"),
    "free": (409, "variable doesn't hold a lock"),
    "denied": (403, "Permission denied"),
}


class Server(BaseHTTPRequestHandler):
    """Answers a renewal by the variable's name, and anything else as Nomad answers a write without items."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        parts = urlsplit(self.path)
        status, text = ANSWERS[parts.path.rpartition("/")[2]]
        if "lock-renew" not in parse_qs(parts.query, keep_blank_values=True):
            status, text = 400, "variable missing required Items object"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def probe() -> Iterator[nomad.NomadProbe]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found = nomad.NomadProbe(
        config.described({"nomad_addr": f"http://127.0.0.1:{server.server_port}"}), InMemory()
    )
    yield found
    found.close()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_held_lock_is_told_from_a_free_one_by_a_renewal_that_cannot_succeed(
    probe: nomad.NomadProbe,
) -> None:
    assert probe.lock_is_held("nomad/jobs/held")
    assert not probe.lock_is_held("nomad/jobs/free")


def test_a_refused_question_is_no_answer(probe: nomad.NomadProbe) -> None:
    with pytest.raises(ProbeError):
        probe.lock_is_held("nomad/jobs/denied")
