"""A user's way: a name from a DNS server, then the page behind it, with the address one came from."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from fixtures.errors import ProbeError
from fixtures.observe import user
from fixtures.observe.recording import InMemory

NAME = "gvfx-frontend.service.consul"


class Dns:
    """Answers A questions over UDP on the loopback."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.names = {NAME: ["100.64.0.2", "100.64.0.1"]}
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        # An empty datagram: closing alone does not wake a thread that waits for one.
        self.socket.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join(timeout=5)
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, peer = self.socket.recvfrom(512)
            except OSError:
                return
            if not question:
                return
            asked = dns.message.from_wire(question)
            answer = dns.message.make_response(asked)
            answer.flags |= dns.flags.RA
            name = asked.question[0].name
            addresses = self.names.get(str(name).rstrip("."))
            if addresses is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif addresses:
                answer.answer.append(dns.rrset.from_text(name, 0, "IN", "A", *addresses))
            self.socket.sendto(answer.to_wire(), peer)


@pytest.fixture
def server() -> Iterator[Dns]:
    found = Dns()
    yield found

    found.stop()


def test_a_name_resolves_by_the_server_that_answers(server: Dns) -> None:
    record = InMemory()
    found = user.resolve(NAME, ["127.0.0.1"], record, ports=(server.port,))
    assert found == user.Resolved(NAME, ("100.64.0.1", "100.64.0.2"), f"127.0.0.1:{server.port}")
    assert record.events[-1].data["ok"] is True


def test_a_name_that_is_not_there_has_no_address(server: Dns) -> None:
    server.names["empty.service.consul"] = []
    for name in ("gone.service.consul", "empty.service.consul"):
        assert user.resolve(name, ["127.0.0.1"], InMemory(), ports=(server.port,)).addresses == ()


def test_a_silent_server_says_nothing_about_the_name(server: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "DNS_TIMEOUT", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = int(silent.getsockname()[1])
        with pytest.raises(ProbeError, match="LifetimeTimeout"):
            user.resolve(NAME, ["127.0.0.1"], InMemory(), ports=(port,))
        assert user.resolve(NAME, ["127.0.0.1"], InMemory(), ports=(port, server.port)).addresses
    with pytest.raises(ProbeError, match="no server"):
        user.resolve(NAME, [], InMemory())


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.headers['Host']} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Upstream-Url", "http://gvfx-api.service.consul:8787/x")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def test_a_visit_names_the_host_and_knows_where_it_came_from() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as served:
        thread = threading.Thread(target=served.handle_request)
        thread.start()
        port = served.server_port
        found = user.visit("127.0.0.1", port, NAME, "/page?x=1", InMemory())
        thread.join()
    assert (found.status, found.source, found.address) == (200, "127.0.0.1", "127.0.0.1")
    assert found.text == f"{NAME}:{port} /page?x=1"
    assert found.content_type.startswith("text/html")
    assert found.upstream == "http://gvfx-api.service.consul:8787/x"


def test_silence_is_no_answer() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    with pytest.raises(ProbeError, match="ConnectError"):
        user.visit("127.0.0.1", port, NAME, "/", InMemory())
