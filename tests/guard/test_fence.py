"""The fence of the services: loaded as a whole and verified, or the service does not start; and what the kernel then lets out."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.guard import bench
from tests.guard.bench import BUSYBOX, events_of
from tests.guard.test_killswitch import PATH, lacking

SCRIPT = Path(__file__).parents[2] / "scripts/network/service-fence.sh"
TAILNET = "100.64.0.0/10"

# ------------------------------------------------------------------------------------------------ with stand-ins

NFT = r"""
case "$*" in
  "-f -") [ ! -e "$W/nft-refuses" ] || { cat > /dev/null; echo 'syntax "error"' >&2; exit 1; }; cat > "$W/loaded.nft" ;;
  "list table inet gvfx_fence") [ -e "$W/loaded.nft" ] && [ ! -e "$W/half-table" ] && cat "$W/loaded.nft" ;;
  *) exit 2 ;;
esac
"""
IP = r"""
case "$*" in
  "-4 route show table main dev eth0") [ -e "$W/no-network" ] || echo "172.26.64.0/20 proto kernel scope link src 172.26.64.5" ;;
  "-4 route show table main") [ -e "$W/no-route" ] || echo "default via 172.26.64.1 dev eth0" ;;
  *) exit 2 ;;
esac
"""


def fenced(root: Path, *facts: str, words: tuple[str, ...] = (), **settings: str) -> tuple[int, str, str]:
    """Run it in a world with these facts; its exit code, what it says, and the table it has loaded."""
    for name, text in (("nft", NFT), ("ip", IP)):
        path = root / name
        path.write_text(f"#!{BUSYBOX} sh\nW={root}\n{text}")
        path.chmod(0o755)
    for fact in facts:
        (root / fact).touch()
    tools = {"GVFX_NFT": str(root / "nft"), "GVFX_IP": str(root / "ip")}
    done = subprocess.run(
        [BUSYBOX, "sh", str(SCRIPT), *words],
        env={"PATH": "/usr/bin:/bin", "GVFX_LAST_WORDS_SECONDS": "0", "NOMAD_ALLOC_ID": "a1", **tools, **settings},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )  # fmt: skip
    loaded = root / "loaded.nft"
    return done.returncode, done.stdout, loaded.read_text() if loaded.exists() else ""


def test_by_default_the_pod_network_and_the_tailnet(tmp_path: Path) -> None:
    code, said, table = fenced(tmp_path)
    (event,) = events_of(said)
    assert (code, event["event"], event["code"], event["alloc"]) == (0, "fence-loaded", 0, "a1")
    assert set(event) == {"t", "event", "why", "code", "alloc"}
    assert f"elements = {{ 172.26.64.0/20, {TAILNET} }}" in table


def test_further_networks_take_the_place_of_the_default(tmp_path: Path) -> None:
    code, _, table = fenced(tmp_path, FENCE_ALLOWED_CIDRS=f" {TAILNET} ,192.0.2.0/24,")
    assert code == 0
    assert f"elements = {{ 172.26.64.0/20, {TAILNET}, 192.0.2.0/24 }}" in table


@pytest.mark.parametrize(
    "value",
    ["", " , ", "100.64.0.0", "100.64.0.0/33", "100.64.0/10", "100.64.0.0/10/8", "0100.64.0.0/10", "100.64.0.0/010",
     "256.0.0.0/8", "fd7a::/16", "tailnet", f"{TAILNET};192.0.2.0/24", f"{TAILNET}, }} drop", f"{TAILNET},*"],
)  # fmt: skip
def test_what_is_no_list_of_networks_is_refused(tmp_path: Path, value: str) -> None:
    """Empty, too: that a service reaches nobody should not be found out by its failing."""
    code, said, table = fenced(tmp_path, FENCE_ALLOWED_CIDRS=value)
    (event,) = events_of(said)
    assert (code, event["code"], event["event"], table) == (11, 11, "fence-failed", "")
    assert "FENCE_ALLOWED_CIDRS" in event["why"]


@pytest.mark.parametrize(
    ("fact", "code", "why"),
    [
        ("nft-refuses", 12, 'nft refused the table: syntax "error"'),
        ("no-route", 13, "no uplink"),
        ("no-network", 13, "no network on eth0"),
        ("half-table", 14, "not there after loading"),
    ],
)
def test_what_cannot_be_loaded_and_looked_up_is_refused(
    tmp_path: Path, fact: str, code: int, why: str
) -> None:
    got, said, _ = fenced(tmp_path, fact)
    (event,) = events_of(said)
    assert (got, event["code"], event["event"]) == (code, code, "fence-failed")
    assert why in event["why"]


def test_it_has_one_command(tmp_path: Path) -> None:
    """A word that means something elsewhere must not be taken for a loaded table."""
    code, said, table = fenced(tmp_path, words=("killswitch",))
    assert (code, said, table) == (2, "", "")


def test_a_task_that_fails_lives_long_enough_to_be_heard(tmp_path: Path) -> None:
    begun = time.monotonic()
    code, _, _ = fenced(tmp_path, FENCE_ALLOWED_CIDRS="x", GVFX_LAST_WORDS_SECONDS="0.8")
    assert code == 11 and time.monotonic() - begun >= 0.8
    assert "GVFX_LAST_WORDS_SECONDS:-3}" in SCRIPT.read_text()


# ------------------------------------------------------------------------------------------------ a real kernel

# The pod's end of a link. At the other end: its gateway, which is also a neighbour, a member of the tailnet, the exchange.
NAMESPACE = """
set -e
ip link set lo up
ip link add eth0 type veth peer name peer-eth0
ip addr add 172.26.64.5/20 dev eth0
ip -6 addr add 2001:db8:a::5/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 172.26.64.1
exec "PYTHON" pod.py
"""
GATEWAY, MEMBER, FAR, FAR6 = "172.26.64.1", "100.64.0.7", "198.51.100.90", "2001:db8:b::90"

PEER = f"""
import socket, subprocess, sys, threading
print("here", flush=True)
input()
for words in ("link set lo up", "link set peer-eth0 up", "addr add {GATEWAY}/20 dev peer-eth0",
              "addr add {MEMBER}/32 dev peer-eth0", "addr add {FAR}/32 dev peer-eth0",
              "-6 addr add 2001:db8:a::1/64 dev peer-eth0 nodad", "-6 addr add {FAR6}/128 dev peer-eth0 nodad"):
    subprocess.run(["ip", *words.split()], check=True)

def serve(one):
    while heard := one.recv(9):
        one.sendall(heard)

def listen(server):
    while True:
        threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

server = socket.create_server(("::", 9), family=socket.AF_INET6, dualstack_ipv6=True)
threading.Thread(target=listen, args=(server,), daemon=True).start()
print("up", flush=True)
for line in sys.stdin:
    source, where, port = line.split()
    try:
        with socket.create_connection((where, int(port)), 1.5, source_address=(source, 0)) as one:
            one.sendall(b"x")
            print("answered" if one.recv(9) == b"x" else "closed", flush=True)
    except OSError as problem:
        print(type(problem).__name__, flush=True)
"""

POD = f"""
import errno, json, os, socket, subprocess, sys, threading, time

peer = subprocess.Popen(["unshare", "--net", sys.executable, "peer.py"], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
peer.stdout.readline()
subprocess.run(["ip", "link", "set", "peer-eth0", "netns", str(peer.pid)], check=True)
print("moved", file=peer.stdin, flush=True)
peer.stdout.readline()
subprocess.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:a::1"], check=True)

def name(problem):
    return "silence" if isinstance(problem, TimeoutError) else errno.errorcode.get(problem.errno, "?")

def connect(where, port=9):
    begun = time.monotonic()
    try:
        socket.create_connection((where, port), 1.5).close()
        return "open"
    except OSError as problem:
        return name(problem) if time.monotonic() - begun < 1 or isinstance(problem, TimeoutError) else "late"

def udp(where):
    with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(b"x", (where, 9))
            return "open"
        except OSError as problem:
            return name(problem)

def icmp6(where):
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as one:
        try:
            one.sendto(bytes([128, 0, 0, 0, 0, 1, 0, 1]), (where, 0, 0, socket.if_nametoindex("eth0")))
            return "open"
        except OSError as problem:
            return name(problem)

def called(source, where="172.26.64.5"):
    print(source, where, 8000, file=peer.stdin, flush=True)
    return peer.stdout.readline().strip()

def go_on(one):
    try:
        one.settimeout(1.5)
        one.sendall(b"y")
        return "open" if one.recv(9) == b"y" else "closed"
    except OSError as problem:
        return name(problem)

def tries():
    return {{
        "loopback": connect("127.0.0.1", 8000), "itself": connect("172.26.64.5", 8000), "loopback v6": connect("::1", 8000),
        "gateway": connect("{GATEWAY}"), "member": connect("{MEMBER}"), "member udp": udp("{MEMBER}"),
        "exchange": connect("{FAR}"), "exchange udp": udp("{FAR}"), "exchange v6": connect("{FAR6}"),
        "exchange v6 udp": udp("{FAR6}"), "neighbour v6": connect("2001:db8:a::1"),
        "link v6": icmp6("ff02::1"), "icmp v6 beyond": icmp6("{FAR6}"),
        "called by a member": called("{MEMBER}"), "called by a stranger": called("{FAR}"),
        "called by a stranger v6": called("{FAR6}", "2001:db8:a::5"),
    }}

def serve(server):
    while True:
        one, _ = server.accept()
        with one:
            while heard := one.recv(9):
                one.sendall(heard)

server = socket.create_server(("::", 8000), family=socket.AF_INET6, dualstack_ipv6=True)
threading.Thread(target=serve, args=(server,), daemon=True).start()

def fence(**settings):
    done = subprocess.run([os.environ["GVFX_BUSYBOX"], "sh", os.environ["FENCE"]], env={{**os.environ, **settings}},
                          capture_output=True, text=True)
    return {{"code": done.returncode, "said": [json.loads(line) for line in done.stdout.splitlines()]}}

def ruleset():
    return subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

def refused():
    done = subprocess.run(["nft", "list", "counter", "inet", "gvfx_fence", "refused"], capture_output=True, text=True)
    words = done.stdout.split()
    return int(words[words.index("packets") + 1])
"""

THE_TABLE = (
    POD
    + f"""
said = {{"before": tries()}}
before = socket.create_connection(("{FAR}", 9), 3)
kept = socket.create_connection(("{MEMBER}", 9), 3)
said["first"] = fence()
one = ruleset()
said["refused at first"] = refused()
said["after"] = tries()
said["begun before"], said["kept"] = go_on(before), go_on(kept)
said["refused"] = refused()
said["second"], said["same"] = fence(), ruleset() == one
said["again"] = tries()
print(json.dumps(said))
"""
)

# A tool that spoils the table on its way to the kernel: the real nft refuses it, with the table's beginning already read.
SPOILS = '#!/bin/sh\ncase "$1" in -f) sed "s/ct direction reply/ct nonsense/" | exec nft "$@" ;; *) exec nft "$@" ;; esac\n'

REFUSALS = (
    POD
    + """
said = {"malformed": fence(FENCE_ALLOWED_CIDRS="100.64.0.0/33"), "nothing": ruleset()}
said["refused"] = fence(GVFX_NFT=os.path.abspath("spoils"))
said["still nothing"] = ruleset()
said["loaded"] = fence()
one = ruleset()
said["refused later"] = fence(GVFX_NFT=os.path.abspath("spoils"), FENCE_ALLOWED_CIDRS="0.0.0.0/0")
said["malformed later"] = fence(FENCE_ALLOWED_CIDRS="")
said["stands"] = ruleset() == one
said["overlapping"] = fence(FENCE_ALLOWED_CIDRS="100.64.0.0/10,100.64.0.0/16,172.26.0.0/16,198.51.100.90/32")
said["exchange"], said["other"] = connect("198.51.100.90"), udp("198.51.100.91")
said["all"] = fence(FENCE_ALLOWED_CIDRS="0.0.0.0/0")
said["other by all"] = udp("198.51.100.91")
print(json.dumps(said))
"""
)


def in_a_namespace(root: Path, program: str, script: Path = SCRIPT, ip: bool = True) -> dict[str, Any]:
    """What a program says in a pod's namespace of its own. Needs no root."""
    if why := lacking():
        pytest.skip(why)
    (root / "pod.py").write_text(program)
    (root / "peer.py").write_text(PEER)
    (root / "spoils").write_text(SPOILS)
    (root / "spoils").chmod(0o755)
    tool = {"GVFX_IP": "/usr/sbin/ip" if os.path.exists("/usr/sbin/ip") else "/sbin/ip"} if ip else {}
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", NAMESPACE.replace("PYTHON", sys.executable)],
        cwd=root,
        env={
            "PATH": PATH, "GVFX_BUSYBOX": BUSYBOX, "FENCE": str(script), "GVFX_LAST_WORDS_SECONDS": "0",
            "NOMAD_ALLOC_ID": "a1", **tool,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The table as it is; busybox' own `ip`, where it has one, reads the routes."""
    return in_a_namespace(tmp_path_factory.mktemp("fence"), THE_TABLE, ip=False)


LETS_OUT = {
    "loopback": True,
    "itself": True,
    "loopback v6": True,
    "gateway": True,
    "member": True,
    "member udp": True,
    "exchange": False,
    "exchange udp": False,
    "exchange v6": False,
    "exchange v6 udp": False,
    "neighbour v6": False,
    "link v6": True,
    "icmp v6 beyond": False,
    "called by a member": True,
    "called by a stranger": True,
    "called by a stranger v6": False,
}
OUT = {"open", "answered"}
REFUSED = {"EPERM", "EHOSTUNREACH", "ECONNREFUSED"}


def test_before_the_fence_everything_goes_out(said: dict[str, Any]) -> None:
    """Positive control of each refusal below."""
    assert said["before"].keys() == LETS_OUT.keys()
    assert not {what: answer for what, answer in said["before"].items() if answer not in OUT}


@pytest.mark.parametrize("when", ["after", "again"])
def test_the_kernel_lets_out_only_this(said: dict[str, Any], when: str) -> None:
    """At once, whatever is refused; the stranger that calls by IPv6 hears nothing, having no answer to wait for."""
    assert {what: answer in OUT for what, answer in said[when].items()} == LETS_OUT
    slow = {what: answer for what, answer in said[when].items() if answer not in OUT | REFUSED}
    assert slow.keys() <= {"called by a stranger v6"}


def test_what_is_refused_is_counted(said: dict[str, Any]) -> None:
    """Five tries at least; the last words of a connection from before may be among those at first."""
    assert said["refused"] - said["refused at first"] >= 5


def test_a_connection_from_before_does_not_go_on(said: dict[str, Any]) -> None:
    """Only where it could begin now."""
    assert said["begun before"] not in OUT
    assert said["kept"] == "open"


def test_it_may_run_again(said: dict[str, Any]) -> None:
    """Nothing is added, nothing is lost."""
    assert [said[run]["code"] for run in ("first", "second")] == [0, 0]
    assert [one["event"] for one in said["second"]["said"]] == ["fence-loaded"]
    assert said["same"]


def test_a_refused_table_leaves_nothing_half_loaded(tmp_path: Path) -> None:
    """Neither of the first, nor of one that is to take another's place."""
    said = in_a_namespace(tmp_path, REFUSALS)
    codes = {name: one["code"] for name, one in said.items() if isinstance(one, dict)}
    assert codes == {
        "malformed": 11, "refused": 12, "loaded": 0, "refused later": 12, "malformed later": 11, "overlapping": 0,
        "all": 0,
    }  # fmt: skip
    assert said["nothing"] == said["still nothing"] == ""
    assert said["stands"]
    assert said["exchange"] == "open" and said["other"] in REFUSED
    assert said["other by all"] == "open"


@dataclass(frozen=True)
class Hole:
    """A rule changed in the table, and what must then be otherwise: so it was decided by that rule."""

    old: str
    new: str
    differs: frozenset[str]


HOLES = {
    "the last rule accepts": Hole(
        "    counter name refused reject with icmpx type admin-prohibited\n",
        "    accept comment \"refused reject with icmpx\"\n",
        frozenset({"exchange", "exchange udp", "exchange v6 udp", "icmp v6 beyond"}),
    ),
    "IPv6 is accepted": Hole(
        "meta l4proto 6 counter name refused reject with tcp reset", "accept",
        frozenset({"exchange v6", "exchange v6 udp", "neighbour v6", "icmp v6 beyond", "called by a stranger v6"}),
    ),
    "no answers": Hole(
        "    meta nfproto ipv4 ct state established,related ct direction reply accept\n", "",
        frozenset({"called by a stranger"}),
    ),
    "the tailnet alone": Hole(
        "elements = { $POD_CIDR, $ALLOWED }", "elements = { $ALLOWED }", frozenset({"gateway"})
    ),
    "no loopback": Hole(
        '    oifname "lo" accept\n', "", frozenset({"loopback", "loopback v6"})
    ),
    "a link without its own words": Hole(
        "    ip6 daddr { fe80::/10, ff02::/16 } meta l4proto 58 accept\n", "", frozenset({"link v6"})
    ),
}  # fmt: skip


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES.keys())
def test_each_rule_is_for_something(tmp_path: Path, hole: Hole) -> None:
    text = SCRIPT.read_text()
    assert text.count(hole.old) == 1
    script = tmp_path / "mutant.sh"
    script.write_text(text.replace(hole.old, hole.new))
    program = POD + 'print(json.dumps({"loaded": fence(), "after": tries()}))\n'
    said = in_a_namespace(tmp_path, program, script)
    assert said["loaded"]["code"] == 0, said
    differs = {what for what, answer in said["after"].items() if (answer in OUT) is not LETS_OUT[what]}
    assert differs == hole.differs


@pytest.mark.parametrize("function", ["is_ipv4", "is_cidr"])
def test_both_scripts_read_a_network_alike(function: str) -> None:
    """Each stands alone, so what they share stands in both."""

    def text(script: Path) -> str:
        found = re.search(rf"^{function}\(\) \{{\n.*?^\}}\n", script.read_text(), re.MULTILINE | re.DOTALL)
        assert found, f"{script.name} has no {function}"
        return found[0]

    assert text(SCRIPT) == text(bench.SCRIPT)
