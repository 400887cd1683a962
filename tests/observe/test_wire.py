"""Handshakes and calls against servers of our own that do and do not ask for a certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fixtures.errors import ProbeError
from fixtures.observe import wire
from fixtures.observe.wire import Call
from fixtures.rehearsal import pki

NAME = "server.global.nomad"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of a small cluster."""
    directory = tmp_path_factory.mktemp("pki")
    authority = pki.Authority("test")
    (directory / "ca.pem").write_bytes(authority.pem)
    for name, alternatives in (("server", [NAME]), ("client", ["client.global.nomad"])):
        issued = authority.issue(name, alternatives, ["127.0.0.1"])
        (directory / f"{name}.pem").write_bytes(issued.cert)
        (directory / f"{name}-key.pem").write_bytes(issued.key)
    return directory


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that gives each connection to `answer`; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    answer(connection)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def rpc(files: Path, *, plain: bool, certificate: bool) -> Callable[[socket.socket], None]:
    """A server of Nomad's kind: may take plain calls, may ask for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server-key.pem")
    if certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files / "ca.pem")

    def answer(connection: socket.socket) -> None:
        first = connection.recv(1)
        if first == wire.RPC["nomad"].tls:
            with context.wrap_socket(connection, server_side=True) as inner:
                if inner.recv(1) == wire.RPC["nomad"].call:
                    assert b"Status.Ping" in inner.recv(200)
                    inner.sendall(b"pong")
        elif plain:
            connection.recv(200)
            connection.sendall(b"pong")

    return answer


def test_who_has_no_certificate_is_told_so(files: Path) -> None:
    with serving(rpc(files, plain=False, certificate=True)) as port:
        bare = wire.trusting(files / "ca.pem")
        shown = wire.trusting(files / "ca.pem", files / "client.pem", files / "client-key.pem")
        refused = wire.call("127.0.0.1", port, "nomad", bare, NAME)
        assert refused.state == "refused" and "CERTIFICATE" in refused.reason
        assert wire.call("127.0.0.1", port, "nomad", shown, NAME).state == "answered"
        assert wire.call("127.0.0.1", port, "nomad", None).state == "refused"


def test_a_server_that_asks_for_nothing_answers(files: Path) -> None:
    with serving(rpc(files, plain=True, certificate=False)) as port:
        bare = wire.trusting(files / "ca.pem")
        assert wire.call("127.0.0.1", port, "nomad", bare, NAME) == Call("answered", "4 bytes")
        assert wire.call("127.0.0.1", port, "nomad", None) == Call("answered", "4 bytes")
        assert wire.call("127.0.0.1", port, "nomad", wire.trusting_a_stranger(), NAME).state == "unproven"


def test_a_server_without_tls_hangs_up(files: Path) -> None:
    with serving(lambda connection: None) as port:
        bare = wire.trusting(files / "ca.pem")
        assert wire.call("127.0.0.1", port, "nomad", bare, NAME).state == "refused"
        assert wire.call("127.0.0.1", port, "nomad", None).state == "refused"


def test_a_silent_server_is_neither(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "TIMEOUT", 0.2)

    def silent(connection: socket.socket) -> None:
        while connection.recv(999):
            pass

    with serving(silent) as port:
        assert wire.call("127.0.0.1", port, "nomad", None).state == "silent"
        with pytest.raises(ProbeError, match="nothing in"):
            wire.plain_http("127.0.0.1", port)


def https(files: Path) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server-key.pem")

    def answer(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == b"G":
            connection.recv(999)
            connection.sendall(
                b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
            )
            return
        with context.wrap_socket(connection, server_side=True) as inner:
            inner.recv(1)

    return answer


def test_handshakes(files: Path) -> None:
    with serving(https(files)) as port:
        mine = wire.trusting(files / "ca.pem")
        good = wire.handshake("127.0.0.1", port, mine, NAME)
        assert good.error is None and NAME in good.names and "127.0.0.1" in good.names
        assert "mismatch" in str(wire.handshake("127.0.0.1", port, mine, "server.other.nomad").error)
        assert "certificate" in str(wire.handshake("127.0.0.1", port, wire.trusting_a_stranger(), NAME).error)
        assert wire.plain_http("127.0.0.1", port).startswith("HTTP/1.0 400 Bad Request: Client sent an HTTP")


def test_nobody_there_is_no_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        for question in (
            lambda: wire.plain_http("127.0.0.1", port),
            lambda: wire.handshake("127.0.0.1", port, wire.trusting_a_stranger(), NAME),
            lambda: wire.call("127.0.0.1", port, "consul", None),
        ):
            with pytest.raises(ProbeError, match="ConnectionRefused"):
                question()
