"""A mute of the exchange, against the stand-in's own administration."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fixtures.errors import FaultError
from fixtures.faults import REGISTRY, Journal, PairMuted, rebuild
from fixtures.observe.recording import InMemory
from fixtures.workloads.exchange.venue import Venue
from fixtures.workloads.jsonlog import Ndjson

from .local import Local, await_


@pytest.fixture
def venue() -> Venue:
    return Venue(["BTC-USDT", "PAXG-USDT"], Ndjson(""))


@pytest.fixture
def port(venue: Venue) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(venue.status()).encode())

        def do_POST(self) -> None:
            asked = urlsplit(self.path)
            (pair,) = parse_qs(asked.query)["pair"]
            (venue.unmute if asked.path.endswith("/unmute") else venue.mute)(pair)
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


def test_a_symbol_is_muted_and_speaks_again(venue: Venue, port: int, tmp_path: Path) -> None:
    host = Local()
    faults = Journal(tmp_path / "journals", "run", host, InMemory())
    before = time.time() * 1000
    fault = PairMuted("inet", "PAXG-USDT", port)
    with faults.applied(fault):
        assert list(venue.muted) == ["PAXG-USDT"]
        assert before - 1 <= int(fault.residue(host)) <= time.time() * 1000
        with pytest.raises(FaultError):
            faults.begin(PairMuted("inet", "PAXG-USDT", port))
        with faults.applied(PairMuted("inet", "BTC-USDT", port)):
            assert len(venue.muted) == 2
        assert list(venue.muted) == ["PAXG-USDT"]
    assert venue.muted == {} and fault.residue(host) == ""
    fault.undo(host)
    faults.close()


def test_it_comes_back_although_nobody_asks_for_it(venue: Venue, port: int, run: Path) -> None:
    PairMuted("inet", "PAXG-USDT", port, at_most=0.2).apply(Local())
    assert venue.muted
    await_(lambda: not venue.muted)


def test_an_unknown_symbol_and_a_dead_exchange_are_refused(port: int) -> None:
    with pytest.raises(FaultError, match="no symbol DOGE-USDT"):
        PairMuted("inet", "DOGE-USDT", port).preflight(Local())
    dead = PairMuted("inet", "PAXG-USDT", 9)
    with pytest.raises(FaultError, match="down"):
        dead.preflight(Local())
    dead.undo(Local())
    assert dead.residue(Local()) == ""


def test_it_can_be_rebuilt_and_takes_no_shell() -> None:
    fault = PairMuted("inet", "PAXG-USDT", 8080, at_most=5.0)
    assert rebuild(fault.describe(), REGISTRY) == fault
    with pytest.raises(ValueError):
        PairMuted("inet", "x'; reboot", 8080)
