"""The kill switch: loaded as a whole and verified, or the allocation does not start."""

import functools
import json
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guard.bench import BUSYBOX, SCRIPT, Bench, events_of


def test_it_installs_what_run_needs_and_removes_old_evidence(bench: Bench) -> None:
    """Leases and the selected exit of an earlier run are gone, busybox and the script are in /alloc."""
    shared = bench.root / "shared"
    stale = [shared / name for name in ("lease.lock", "lease.egress", "egress-selected", "login-error")]
    for path in stale:
        path.write_text("9999999999999\n")
    done = bench.run("killswitch")
    assert done.returncode == 0, done
    assert not [path for path in stale if path.exists()]
    assert (shared / "worker-egress-guard.sh").read_bytes() == SCRIPT.read_bytes()
    assert subprocess.run([shared / "busybox", "true"], check=False).returncode == 0
    assert (shared / "ts").stat().st_mode & 0o777 == 0o700


def test_old_evidence_goes_even_if_the_settings_are_wrong(bench: Bench) -> None:
    """A refused start must not leave the leases of the one before."""
    (bench.root / "shared/lease.lock").write_text("9999999999999\n")
    assert bench.run("killswitch", TS_TRANSPORT_CIDRS="x").returncode == 11
    assert not (bench.root / "shared/lease.lock").exists()


def test_only_resolvers_on_the_pod_network_are_allowed(bench: Bench) -> None:
    """A public resolver in resolv.conf would be a way out for names."""
    assert bench.run("killswitch").returncode == 0
    table = bench.fact("loaded.nft")
    assert "172.26.64.1 }" in table
    assert "192.0.2.53" not in table


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        ("nft-refuses", "nft refused the table"),
        ("half-table", "not there after loading"),
        ("no-rule", "ip rule is not there"),
        ("no-route", "no uplink"),
    ],
)
def test_what_cannot_be_verified_is_refused(bench: Bench, fact: str, why: str) -> None:
    """Code 12, and the worker's supervisor was not installed."""
    bench.world(fact, "syntax error")
    done = bench.run("killswitch")
    assert done.returncode == 12
    assert why in events_of(done.stdout)[-1]["why"]
    assert not (bench.root / "shared/busybox").exists()


def test_a_refusal_outlives_the_start_of_its_log(bench: Bench) -> None:
    """Nomad's Docker driver begins to forward a log when the container runs already, and ends with the container."""
    bench.world("nft-refuses", "syntax error")
    begun = time.monotonic()
    assert bench.run("killswitch", GVFX_LAST_WORDS_SECONDS="0.8").returncode == 12
    assert time.monotonic() - begun >= 0.8


def test_nobody_starts_without_the_table(bench: Bench) -> None:
    """tailscaled is not started and the watch does not probe while the kernel has no table."""
    for command in ("tailscale", "watch"):
        done = bench.run(command, TS_WAIT_SECONDS="0.3")
        assert done.returncode == 12
        assert "did not appear" in events_of(done.stdout)[-1]["why"]
    called = {line.split()[0] for line in bench.fact("argv.log").splitlines()}
    assert called == {"nft"}


def test_only_root_may_use_the_doors_beside_the_gates(bench: Bench) -> None:
    """Probes and Nomad's servers are open before anything is proven, so not to the worker's user."""
    assert bench.run("killswitch", TS_NOMAD_SERVERS="100.64.0.11:4646").returncode == 0
    doors = ("@probes", "@probe_ports", "@servers")
    rules = [line for line in bench.fact("loaded.nft").splitlines() if any(door in line for door in doors)]
    assert len(rules) == len(doors)
    assert all("meta skuid 0 " in rule for rule in rules)


# ------------------------------------------------------------------------------------------------ a real kernel

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"

PACKETS = textwrap.dedent("""
    import errno, json, os, socket, subprocess, sys, time

    def send(where, mark=0, family=socket.AF_INET):
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            if mark:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            try:
                one.sendto(b"x", where)
                return "sent"
            except OSError as problem:
                return errno.errorcode[problem.errno]

    def gates(*names, life=60000):
        text = "flush set inet gvfx_ks egress_ok; flush set inet gvfx_ks lock_ok"
        for name in names:
            text += f'; add element inet gvfx_ks {name} {{ "tailscale0" timeout {life}ms }}'
        subprocess.run(["nft", text], check=True)

    def connect(where):
        with socket.socket() as one:
            one.settimeout(0.2)
            try:
                one.connect(where)
            except TimeoutError:
                return "sent"
            except OSError as problem:
                return errno.errorcode.get(problem.errno, "?")

    NET, STORE = ("198.51.100.90", 9), ("100.64.0.7", 3210)
    V6_UPLINK, V6_TUNNEL = ("2001:db8:a::1", 9), ("2001:db8:b::1", 9)
    said = {
        "uplink": send(("192.0.2.1", 9)),
        "uplink marked": send(("10.77.0.9", 41641), 0x80000),
        "uplink marked elsewhere": send(("192.0.2.1", 41641), 0x80000),
        "uplink other mark": send(("10.77.0.9", 41641), 0x40000),
        "dns here": send(("172.26.64.1", 53)),
        "dns elsewhere": send(("192.0.2.53", 53)),
        "dns pod neighbour": send(("172.26.64.9", 53)),
        "v6 uplink": send(V6_UPLINK, 0x80000, socket.AF_INET6),
        "tcp probe": connect(("198.51.100.80", 80)),
        "tcp probe other port": connect(("198.51.100.80", 81)),
        "tcp server": connect(("100.64.0.1", 4646)),
        "tcp server other port": connect(("100.64.0.1", 22)),
    }
    for label, names in (("closed", ()), ("egress", ["egress_ok"]), ("lock", ["lock_ok"]),
                         ("both", ["egress_ok", "lock_ok"])):
        gates(*names)
        said[f"net {label}"], said[f"store {label}"] = send(NET), send(STORE)
    said["v6 tunnel both"] = send(V6_TUNNEL, 0, socket.AF_INET6)
    gates("egress_ok", "lock_ok", life=200)
    said["net fresh"] = send(NET)
    end = time.monotonic() + 1.5
    # The two elements were made one after the other, and end so.
    while "sent" in (send(NET), send(STORE)) and time.monotonic() < end:
        time.sleep(0.02)
    said["net expired"], said["store expired"] = send(NET), send(STORE)

    # A peer beyond the tunnel: it answers what it hears, and says goodbye to whoever hangs up.
    peer = subprocess.Popen(["unshare", "--net", sys.executable, "peer.py"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    peer.stdout.readline()
    subprocess.run(["ip", "link", "set", "peer-tailscale0", "netns", str(peer.pid)], check=True)
    print("moved", file=peer.stdin, flush=True)
    peer.stdout.readline()
    gates("egress_ok", "lock_ok")

    def begun():
        one = socket.create_connection(("198.51.100.95", 9), timeout=5)
        one.sendall(b"x")
        assert one.recv(9) == b"x"
        return one

    def go_on(one, how):
        try:
            how(one)
            return "sent" if one.recv(9) else "closed"
        except OSError as problem:
            return errno.errorcode.get(problem.errno, "silence")

    def word(one):
        one.sendall(b"y")

    def end(one):
        one.shutdown(socket.SHUT_WR)

    first, second = begun(), begun()
    said["tcp begun"] = go_on(first, word)
    subprocess.run([os.environ["GVFX_BUSYBOX"], "sh", "cut.sh"], check=True)
    said["tcp begun before the cut"], said["tcp ended after the cut"] = go_on(first, word), go_on(second, end)
    said["tcp begun after the cut"] = go_on(begun(), end)
    peer.kill()
    print(json.dumps(said))
""")

PEER = """
import socket, subprocess, threading
print("here", flush=True)
input()
for words in ("link set lo up", "link set peer-tailscale0 up", "addr add 198.51.100.95/32 dev peer-tailscale0",
              "route add 100.64.0.9/32 dev peer-tailscale0"):
    subprocess.run(["ip", *words.split()], check=True)

def serve(one):
    while heard := one.recv(9):
        one.sendall(heard)
    one.sendall(b"bye")
    one.close()

server = socket.create_server(("198.51.100.95", 9))
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
"""

NAMESPACE = """
set -e
ip link set lo up
add() {
  ip link add $1 type veth peer name peer-$1
  ip addr add $2 dev $1
  ip -6 addr add $3 dev $1 nodad
  ip link set $1 up
  ip link set peer-$1 up
}
add eth0 172.26.64.5/20 2001:db8:a::5/64
add tailscale0 100.64.0.9/32 2001:db8:b::5/64
for neighbour in 1 9; do ip neigh add 172.26.64.$neighbour lladdr 02:00:00:00:00:0$neighbour dev eth0; done
ip route add default via 172.26.64.1
ip route add 100.64.0.0/10 dev tailscale0
ip route add 198.51.100.0/24 dev tailscale0
"""

# Once more over opened gates: a reload must shut them.
LOAD = """
"BUSYBOX" sh "SCRIPT" killswitch >&2
nft 'add element inet gvfx_ks egress_ok { "tailscale0" }; add element inet gvfx_ks lock_ok { "tailscale0" }'
"BUSYBOX" sh "SCRIPT" killswitch >&2
nft list set inet gvfx_ks egress_ok >&2
exec "PYTHON" packets.py
"""


@functools.cache
def lacking() -> str:
    """Why there can be no private namespace here; empty if there can be."""
    if missing := [tool for tool in ("unshare", "nft", "ip") if not shutil.which(tool, path=PATH)]:
        return f"not installed: {', '.join(missing)}"
    trial = "ip link add gvfx0 type veth peer name gvfx1 && nft add table inet t"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", trial],
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return "" if done.returncode == 0 else f"no private network namespace without root: {done.stderr.strip()}"


def in_a_namespace(root: Path, script: Path) -> dict[str, str]:
    """What the kernel says to each packet once this script has loaded its table. Needs no root."""
    if why := lacking():
        pytest.skip(why)
    (root / "packets.py").write_text(PACKETS)
    (root / "peer.py").write_text(PEER)
    functions = re.findall(
        r"^(?:flow_rules|new_flows)\(\) \{\n.*?^\}\n", script.read_text(), re.MULTILINE | re.DOTALL
    )
    (root / "cut.sh").write_text("".join(["set -e\nNFT=nft FLOWS=1\n", *functions, "new_flows\n"]))
    (root / "resolv.conf").write_text("nameserver 172.26.64.1\nnameserver 192.0.2.53\n")
    (root / "shared").mkdir()
    load = LOAD.replace("BUSYBOX", BUSYBOX).replace("SCRIPT", str(script)).replace("PYTHON", sys.executable)
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", NAMESPACE + load],
        cwd=root,
        env={
            "PATH": PATH,
            "GVFX_BUSYBOX": BUSYBOX,
            "GVFX_SHARED": str(root / "shared"),
            "GVFX_RUN": str(root / "run"),
            "GVFX_RESOLV_CONF": str(root / "resolv.conf"),
            "GVFX_IP": str(shutil.which("ip", path=PATH)),
            # Overlapping networks and one target twice: neither may make nft refuse the table.
            "TS_TRANSPORT_CIDRS": "10.77.0.0/24,10.77.0.0/16",
            "TS_NOMAD_SERVERS": "100.64.0.1:4646,100.64.0.2:4646",
            "TS_EGRESS_CHECK_URLS": "http://198.51.100.80/,http://198.51.100.80/ip,https://echo.test/",
            "TS_EGRESS_CHECK_WS_URL": "ws://198.51.100.80/ws",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The table as it is."""
    return in_a_namespace(tmp_path_factory.mktemp("netns"), SCRIPT)


REFUSED = "EPERM", "EHOSTUNREACH", "EACCES", "ECONNRESET"
LEAVES = {
    "uplink": False,
    "uplink marked": True,
    "uplink marked elsewhere": False,
    "uplink other mark": False,
    "dns here": True,
    "dns elsewhere": False,
    "dns pod neighbour": False,
    "v6 uplink": False,
    "tcp probe": True,
    "tcp probe other port": False,
    "tcp server": True,
    "tcp server other port": False,
    "net closed": False,
    "net egress": False,
    "net lock": False,
    "net both": True,
    "store closed": False,
    "store egress": False,
    "store lock": True,
    "store both": True,
    "v6 tunnel both": False,
    "net fresh": True,
    "net expired": False,
    "store expired": False,
    "tcp begun": True,
    "tcp begun before the cut": False,
    "tcp ended after the cut": False,
    "tcp begun after the cut": True,
}


@pytest.mark.parametrize(("packet", "leaves"), LEAVES.items())
def test_the_kernel_lets_out_only_this(packets: dict[str, str], packet: str, leaves: bool) -> None:
    """Each class of packet against the loaded table."""
    if leaves:
        assert packets[packet] == "sent", packets
    else:
        assert packets[packet] in REFUSED, packets


def test_no_class_of_packet_is_left_unjudged(packets: dict[str, str]) -> None:
    """What is sent above is what is expected above."""
    assert packets.keys() == LEAVES.keys()


@dataclass(frozen=True)
class Hole:
    """A rule taken out of the table, and the packets that must then get out: so each was stopped by that rule."""

    old: str
    new: str
    lets_out: frozenset[str]


REJECT = "reject with icmpx type admin-prohibited"
HOLES = {
    "last rule accepts": Hole(
        f"    counter name blocked {REJECT}\n  }}\n  chain flows",
        "    accept\n  }\n  chain flows",
        frozenset(
            {"uplink", "uplink marked elsewhere", "uplink other mark", "dns elsewhere", "dns pod neighbour"}
        ),
    ),
    "shut gate accepts": Hole(
        f'    oifname "$TS_IF" counter name gated {REJECT}',
        '    oifname "$TS_IF" accept',
        frozenset({"tcp probe other port", "net closed", "net egress", "net lock", "net expired"}),
    ),
    "shut store accepts": Hole(
        f"    oifname @lock_ok accept\n    counter name gated {REJECT}",
        "    accept",
        frozenset({"tcp server other port", "store closed", "store egress", "store expired"}),
    ),
    "no lock for the internet": Hole(
        "oifname @egress_ok oifname @lock_ok", "oifname @egress_ok", frozenset({"net egress"})
    ),
    "no egress for the internet": Hole(
        "oifname @egress_ok oifname @lock_ok", "oifname @lock_ok", frozenset({"net lock"})
    ),
    "IPv6 in the tunnel": Hole(
        'oifname "$TS_IF" meta nfproto ipv6',
        'oifname "none" meta nfproto ipv6',
        frozenset({"v6 tunnel both"}),
    ),
    "connections outlive their exit": Hole(
        '    oifname "$TS_IF" meta l4proto tcp jump flows\n',
        "",
        frozenset({"tcp begun before the cut", "tcp ended after the cut"}),
    ),
    "any resolver": Hole("ip daddr @resolvers ", "", frozenset({"dns elsewhere", "dns pod neighbour"})),
    "any place for tailscaled": Hole("ip daddr @transport ", "", frozenset({"uplink marked elsewhere"})),
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES.keys())
def test_each_rule_stops_what_it_is_for(tmp_path: Path, hole: Hole) -> None:
    """Positive control: with the rule gone, exactly its packets leave."""
    text = SCRIPT.read_text()
    assert hole.old in text
    # The script looks for both gates in what it has loaded; here it shall not.
    script = tmp_path / "mutant.sh"
    script.write_text(text.replace(hole.old, hole.new).replace('*"jump flows"*"@egress_ok"*"@lock_ok"*', "*"))
    said = in_a_namespace(tmp_path, script)
    got_out = {packet for packet, answer in said.items() if answer == "sent"}
    assert got_out - {packet for packet, leaves in LEAVES.items() if leaves} == hole.lets_out
