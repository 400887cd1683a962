"""Faults of the way out, executed for real where a namespace will do, with stand-ins for Docker and headscale."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fixtures.errors import FaultError, ProbeError, UndoError
from fixtures.faults import (
    DnsOnly,
    EchoLie,
    ExitCleared,
    ExitUnapproved,
    Journal,
    KillSwitchFlushed,
    NamespaceIpv6,
    NoWebSocket,
    TaskHeldDown,
    TaskKill,
    WrongAddress,
)
from fixtures.faults.exits import TRACKED
from fixtures.observe.recording import InMemory

from .local import Local, await_, with_docker


def a_journal(tmp_path: Path, host: Local) -> Journal:
    return Journal(tmp_path / "journals", "run", host, InMemory())


def ruleset(host: Local) -> str:
    return host.run("here", ["nft", "list", "ruleset"]).stdout


# -- packets by what they say ------------------------------------------------------------------------------

EXCHANGE = """
import socket, sys
server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); server.bind(("10.9.0.1", 80)); server.listen()
for path in sys.argv[1:]:
    client = socket.create_connection(("10.9.0.1", 80)); client.settimeout(0.2)
    peer, _ = server.accept(); peer.settimeout(0.2)
    client.send(b"GET %s HTTP/1.1\\r\\n\\r\\n" % path.encode())
    try: print(peer.recv(20).decode().split()[1])
    except TimeoutError: print("silence")
"""


def hears(netns: Local, *paths: str) -> list[str]:
    return netns.run("here", [sys.executable, "-c", EXCHANGE, *paths]).stdout.split()


def test_requests_are_dropped_by_their_path_and_counted(netns: Local, tmp_path: Path) -> None:
    # Over the loopback, which the fault spares: here it must not.
    class Loop(NoWebSocket):
        def rules(self) -> str:
            return super().rules().replace('oifname != "lo" ', "")

    faults = a_journal(tmp_path, netns)
    before = ruleset(netns)
    with faults.applied(Loop("here", ("10.9.0.1",), paths=("/ws", "/swap-market"))) as fault:
        assert hears(netns, "/", "/ws", "/swap-market", "/wsx") == ["/", "silence", "silence", "/wsx"]
        assert fault.dropped(netns) >= 2
    assert hears(netns, "/ws") == ["/ws"]
    assert ruleset(netns) == before
    faults.close()


@pytest.mark.parametrize(
    "wrong", [{"paths": ()}, {"paths": ("ws",)}, {"paths": ("/ws",), "direction": "both"}]
)
def test_a_path_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="path"):
        NoWebSocket("exit1", ("10.9.0.1",), **wrong)  # type: ignore[arg-type]


SEND = """
import socket, sys
for kind, port in ((socket.SOCK_DGRAM, 53), (socket.SOCK_DGRAM, 54), (socket.SOCK_STREAM, 53), (socket.SOCK_STREAM, 80)):
    one = socket.socket(socket.AF_INET, kind); one.settimeout(0.15)
    try:
        one.connect(("10.9.0.2", port)); one.send(b"x")
        one.send(b"x"); one.recv(1)
    except ConnectionRefusedError: print("refused")
    except TimeoutError: print("cut")
    except OSError: print("cut")
"""


def test_only_dns_passes(netns: Local, tmp_path: Path) -> None:
    faults = a_journal(tmp_path, netns)
    assert netns.run("here", [sys.executable, "-c", SEND]).stdout.split()[2:] == ["refused", "refused"]
    with faults.applied(DnsOnly("here", ("10.9.0.2",))) as fault:
        dns, other, stream, http = netns.run("here", [sys.executable, "-c", SEND]).stdout.split()
        assert (stream, http) == ("refused", "cut")
        assert other == "cut"
        assert dns == "cut" or dns == "refused"  # an ICMP error has no port to be known by
        assert fault.dropped(netns) > 0
    faults.close()


# -- the exit's address -----------------------------------------------------------------------------------


def test_another_address_is_shown_and_taken_back(netns: Local, tmp_path: Path) -> None:
    faults = a_journal(tmp_path, netns)
    before = ruleset(netns), netns.run("here", ["ip", "-4", "-o", "address"]).stdout
    fault = WrongAddress("here", "10.9.0.1", "10.9.0.99")
    with faults.applied(fault):
        assert "snat to 10.9.0.99" in ruleset(netns)
        assert "10.9.0.99/32" in netns.run("here", ["ip", "-4", "-o", "address"]).stdout
        with pytest.raises(FaultError, match="there already"):
            faults.begin(WrongAddress("here", "10.9.0.1", "10.9.0.99"))
    assert (ruleset(netns), netns.run("here", ["ip", "-4", "-o", "address"]).stdout) == before
    with pytest.raises(FaultError, match=r"no device has 10\.8\.0\.1"):
        faults.begin(WrongAddress("here", "10.8.0.1", "10.9.0.99"))
    fault.undo(netns)
    faults.close()


TALK = """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.9.0.7", 80))
"""


@pytest.mark.skipif(not Path(TRACKED).exists(), reason="this kernel does not list what it tracks")
def test_no_connection_keeps_the_other_address(netns: Local, tmp_path: Path) -> None:
    """What the kernel still tracks would show it again, to whoever comes by the same ports, for days."""
    faults = a_journal(tmp_path, netns)
    fault = WrongAddress("here", "10.9.0.1", "10.9.0.99")
    with faults.applied(fault):
        netns.run("here", [sys.executable, "-c", TALK])
        assert "connections by 10.9.0.99" in fault.residue(netns)
    assert fault.residue(netns) == ""
    faults.close()


def test_half_of_it_is_undone_as_well(netns: Local) -> None:
    fault = WrongAddress("here", "10.9.0.1", "10.9.0.99")
    netns.run("here", ["ip", "address", "add", "10.9.0.99/32", "dev", "d0"])
    assert fault.residue(netns) == "address 10.9.0.99"
    fault.undo(netns)
    assert fault.residue(netns) == ""


@pytest.mark.parametrize(
    ("public", "address"), [("x", "10.9.0.2"), ("::1", "10.9.0.2"), ("10.9.0.2", "10.9.0.2")]
)
def test_an_address_that_is_none_is_refused(public: str, address: str) -> None:
    with pytest.raises(ValueError):
        WrongAddress("exit1", public, address)


# -- the exit's approval -----------------------------------------------------------------------------------

HEADSCALE = """#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
  "-c h.json nodes list -o json") [ ! -e dead ] && cat nodes.json ;;
  "-c h.json nodes approve-routes -i 7 -r "*) jq --arg r "$8" \
     '(.[] | select(.id == 7)) |= (if $r == "" then del(.approved_routes) else .approved_routes = ($r | split(",")) end)' \
     nodes.json >new.json && mv new.json nodes.json ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def headscale(tmp_path: Path) -> tuple[Local, ExitUnapproved]:
    """A control server with two exits."""
    (tmp_path / "headscale").write_text(HEADSCALE)
    (tmp_path / "headscale").chmod(0o755)
    routes = ["0.0.0.0/0", "::/0"]
    nodes = [
        {"id": 6, "name": "exit2", "approved_routes": routes},
        {"id": 7, "name": "exit1", "approved_routes": routes},
    ]
    (tmp_path / "nodes.json").write_text(json.dumps(nodes))
    return Local(), ExitUnapproved("ctl", "exit1", (str(tmp_path / "headscale"), "-c", "h.json"))


def approved(tmp_path: Path) -> list[str]:
    nodes = json.loads((tmp_path / "nodes.json").read_text())
    return [one["name"] for one in nodes if one.get("approved_routes")]


def test_an_approval_is_taken_and_given_back(headscale: tuple[Local, ExitUnapproved], tmp_path: Path) -> None:
    host, fault = headscale
    faults = a_journal(tmp_path, host)
    with faults.applied(fault):
        assert approved(tmp_path) == ["exit2"]
        with pytest.raises(FaultError, match="not approved"):
            faults.begin(ExitUnapproved("ctl", "exit1", fault.cli))
    assert approved(tmp_path) == ["exit2", "exit1"]
    fault.undo(host)
    faults.close()


def test_a_control_server_that_is_silent_proves_nothing(
    headscale: tuple[Local, ExitUnapproved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, fault = headscale
    monkeypatch.setattr(ExitUnapproved, "settle", 0.0)
    faults = a_journal(tmp_path, host)
    faults.begin(fault)
    (tmp_path / "dead").touch()
    with pytest.raises(ProbeError):
        fault.residue(host)
    with pytest.raises(UndoError):
        faults.end(fault)
    (tmp_path / "dead").unlink()
    faults.close()
    with pytest.raises(FaultError, match="no node exit9"):
        ExitUnapproved("ctl", "exit9", fault.cli).preflight(host)


# -- the echo ---------------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[HTTPServer]:
    """The echo's administration."""
    lies: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"lies": lies}).encode())

        def do_POST(self) -> None:
            asked = urlsplit(self.path)
            lies.clear()
            if asked.path.endswith("/lie"):
                query = parse_qs(asked.query)
                lies[query["way"][0]] = query["address"][0]
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_lie_is_told_and_taken_back(echo: HTTPServer, tmp_path: Path) -> None:
    host, port = Local(), echo.server_address[1]
    faults = a_journal(tmp_path, host)
    fault = EchoLie("inet", "192.0.2.77", "ws", int(port))
    with faults.applied(fault):
        assert fault.residue(host) == "ws: 192.0.2.77"
        with pytest.raises(FaultError, match=r"192\.0\.2\.77"):
            faults.begin(EchoLie("inet", "192.0.2.78", "all", int(port)))
    assert fault.residue(host) == ""
    faults.close()


def test_an_echo_that_is_down_tells_no_lies() -> None:
    fault = EchoLie("inet", "192.0.2.77", port=9)
    fault.undo(Local())
    assert fault.residue(Local()) == ""
    with pytest.raises(FaultError, match="down"):
        fault.preflight(Local())


# -- inside the allocation ----------------------------------------------------------------------------------

DOCKER = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >>calls
case $1 in
  inspect) [ -e state ] || { echo "Error: No such object: $4" >&2; exit 1; }
    case $3 in (*Pid*) cat pid;; (*) cat state;; esac;;
  ps) [ ! -e up ] || echo c0ffee;;
  kill) rm -f up;;
esac
"""


@pytest.fixture
def docker(run: Path) -> Local:
    """A host with an engine that knows one container."""
    return with_docker(run, DOCKER)


def test_a_task_is_killed_once(docker: Local, run: Path, tmp_path: Path) -> None:
    faults = a_journal(tmp_path, docker)
    with faults.applied(TaskKill("c3", "tailscale-a1")):
        assert (run / "calls").read_text().split("\n").count("kill tailscale-a1") == 1
    assert not list(run.glob("gvfx-fault*"))
    (run / "state").write_text("exited\n")
    with pytest.raises(FaultError, match="exited"):
        faults.begin(TaskKill("c3", "tailscale-a1"))
    faults.close()


def test_an_exit_is_cleared_by_its_own_tailscaled(docker: Local, run: Path, tmp_path: Path) -> None:
    faults = a_journal(tmp_path, docker)
    with faults.applied(ExitCleared("c3", "tailscale-a1")):
        pass
    wanted = "exec tailscale-a1 tailscale --socket=/alloc/gvfx/ts/tailscaled.sock set --exit-node="
    assert wanted in (run / "calls").read_text().splitlines()
    faults.close()


def test_a_task_is_held_down_until_the_undo(docker: Local, run: Path, tmp_path: Path) -> None:
    faults = a_journal(tmp_path, docker)
    (run / "up").touch()
    with faults.applied(TaskHeldDown("c3", "tailscale", at_most=60)):
        await_(lambda: not (run / "up").exists())
        (run / "up").touch()
        await_(lambda: not (run / "up").exists())
        assert "ps -q --filter name=^tailscale-" in (run / "calls").read_text()
    calls = run / "calls"
    seen = 0

    def still() -> bool:
        nonlocal seen
        before, seen = seen, calls.stat().st_size
        return before == seen

    await_(still)
    faults.close()


def test_a_loop_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="at_most"):
        TaskHeldDown("c3", "tailscale")


@pytest.fixture
def inside(netns: Local, run: Path) -> tuple[Local, Local]:
    """A host in the namespace ``netns`` whose one container is in the same; the namespace itself."""
    (run / "docker").write_text(DOCKER)
    (run / "docker").chmod(0o755)
    (run / "state").write_text("running\n")
    # The namespace is entered already: entering it once more would need its owner's rights.
    (run / "pid").write_text("self\n")
    (run / "nsenter").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
    (run / "nsenter").chmod(0o755)
    return Local(*netns.prefix, "env", f"PATH={run}:{os.environ['PATH']}"), netns


def test_a_kill_switch_is_flushed(inside: tuple[Local, Local], tmp_path: Path) -> None:
    host, netns = inside
    faults = a_journal(tmp_path, host)
    fault = KillSwitchFlushed("c3", "egress-watch-a1")
    with pytest.raises(FaultError, match="No such file"):
        faults.begin(KillSwitchFlushed("c3", "egress-watch-a1"))
    netns.run("here", ["nft", "add table inet gvfx_ks"])
    with faults.applied(fault):
        assert "gvfx_ks" not in ruleset(netns)
    faults.close()


def test_ipv6_is_invited_counted_and_taken_back(inside: tuple[Local, Local], tmp_path: Path) -> None:
    host, netns = inside
    faults = a_journal(tmp_path, host)
    fault = NamespaceIpv6("c3", "egress-watch-a1", bridge="d0", device="d0")
    before = ruleset(netns)
    try:
        faults.begin(fault)
    except FaultError as error:
        if "netdev" in error.observed or "Operation not" in error.observed:
            pytest.skip(f"no netdev tables here: {error.observed}")
        raise
    assert "2001:db8:a::2" in netns.run("here", ["ip", "-6", "address"]).stdout
    assert fault.seen(host) == 0
    fault.send_one(host)
    faults.end(fault)
    assert ruleset(netns) == before
    assert "2001:db8:a::2" not in netns.run("here", ["ip", "-6", "address"]).stdout
    with pytest.raises(ProbeError):
        fault.seen(host)
    faults.close()


def test_a_namespace_that_is_gone_took_everything_along(inside: tuple[Local, Local], run: Path) -> None:
    host, _ = inside
    (run / "state").unlink()
    fault = NamespaceIpv6("c3", "egress-watch-a1")
    fault.undo(host)
    assert fault.residue(host) == ""
    with pytest.raises(FaultError, match="gone"):
        fault.preflight(host)
