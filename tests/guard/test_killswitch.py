"""The kill switch: loaded as a whole and verified, or the allocation does not start."""

import shutil
import subprocess
import textwrap
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


def test_nobody_starts_without_the_table(bench: Bench) -> None:
    """tailscaled is not started and the watch does not probe while the kernel has no table."""
    for command in ("tailscale", "watch"):
        done = bench.run(command, TS_WAIT_SECONDS="0.3")
        assert done.returncode == 12
        assert "did not appear" in events_of(done.stdout)[-1]["why"]
    called = {line.split()[0] for line in bench.fact("argv.log").splitlines()}
    assert called == {"nft"}


PACKETS = textwrap.dedent("""
    import errno, json, socket, subprocess, sys, time

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
        subprocess.run(["nft", "flush set inet gvfx_ks egress_ok; flush set inet gvfx_ks lock_ok"], check=True)
        for name in names:
            add = f'add element inet gvfx_ks {name} {{ "tailscale0" timeout {life}ms }}'
            subprocess.run(["nft", add], check=True)

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
    said = {
        "uplink": send(("192.0.2.1", 9)), "uplink marked": send(("10.77.0.9", 41641), 0x80000),
        "uplink marked elsewhere": send(("192.0.2.1", 41641), 0x80000),
        "dns here": send(("172.26.64.1", 53)), "dns elsewhere": send(("192.0.2.53", 53)),
        "dns pod neighbour": send(("172.26.64.9", 53)),
        "v6 uplink": send(("2001:db8::1", 9), 0x80000, socket.AF_INET6),
        "tcp probe": connect(("198.51.100.80", 80)), "tcp server": connect(("100.64.0.1", 4646)),
        "tcp other port": connect(("100.64.0.1", 22)),
    }
    for label, names in (("closed", ()), ("egress", ["egress_ok"]), ("lock", ["lock_ok"]),
                         ("both", ["egress_ok", "lock_ok"])):
        gates(*names)
        said[f"net {label}"], said[f"store {label}"] = send(NET), send(STORE)
    gates("egress_ok", "lock_ok", life=100)
    first = send(NET)
    end = time.monotonic() + 3
    while send(NET) == "sent" and time.monotonic() < end:
        time.sleep(0.02)
    said["net fresh"], said["net expired"] = first, send(NET)
    print(json.dumps(said))
""")

NAMESPACE = """
set -e
ip link set lo up
for pair in "eth0 172.26.64.5/20" "tailscale0 100.64.0.9/32"; do
  set -- $pair
  ip link add $1 type veth peer name peer-$1
  ip addr add $2 dev $1
  ip -6 addr add fd00:$(printf %x ${#1})::5/64 dev $1 nodad
  ip link set $1 up
  ip link set peer-$1 up
done
ip neigh add 172.26.64.1 lladdr 02:00:00:00:00:01 dev eth0
ip neigh add 172.26.64.9 lladdr 02:00:00:00:00:09 dev eth0
ip route add default via 172.26.64.1
ip -6 route add default dev eth0
ip route add 100.64.0.0/10 dev tailscale0
ip route add 198.51.100.0/24 dev tailscale0
"BUSYBOX" sh "SCRIPT" killswitch >&2
exec /usr/bin/python3 packets.py
"""


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a real kernel says to each packet, in a network namespace of its own, no root needed."""
    import json

    root = tmp_path_factory.mktemp("netns")
    (root / "packets.py").write_text(PACKETS)
    (root / "resolv.conf").write_text("nameserver 172.26.64.1\nnameserver 192.0.2.53\n")
    (root / "shared").mkdir()
    real_ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "ip"
    done = subprocess.run(
        [
            *("unshare", "--map-root-user", "--net", "sh", "-c"),
            NAMESPACE.replace("BUSYBOX", BUSYBOX).replace("SCRIPT", str(SCRIPT)),
        ],
        cwd=root,
        env={
            "PATH": "/usr/sbin:/sbin:/usr/bin:/bin",
            "GVFX_SHARED": str(root / "shared"),
            "GVFX_RUN": str(root / "run"),
            "GVFX_RESOLV_CONF": str(root / "resolv.conf"),
            "GVFX_IP": real_ip,
            "TS_TRANSPORT_CIDRS": "10.77.0.0/24",
            "TS_NOMAD_SERVERS": "100.64.0.1:4646",
            "TS_EGRESS_CHECK_URLS": "http://198.51.100.80/",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


REFUSED = "EPERM", "EHOSTUNREACH", "EACCES"


@pytest.mark.parametrize(
    ("packet", "leaves"),
    [
        ("uplink", False),
        ("uplink marked", True),
        ("uplink marked elsewhere", False),
        ("dns here", True),
        ("dns elsewhere", False),
        ("dns pod neighbour", False),
        ("v6 uplink", False),
        ("tcp probe", True),
        ("tcp server", True),
        ("tcp other port", False),
        ("net closed", False),
        ("net egress", False),
        ("net lock", False),
        ("net both", True),
        ("store closed", False),
        ("store egress", False),
        ("store lock", True),
        ("store both", True),
        ("net fresh", True),
        ("net expired", False),
    ],
)
def test_the_kernel_lets_out_only_this(packets: dict[str, str], packet: str, leaves: bool) -> None:
    """Each class of packet against the loaded table."""
    if leaves:
        assert packets[packet] == "sent", packets
    else:
        assert packets[packet] in REFUSED, packets


def test_the_script_is_clean() -> None:
    """shellcheck has nothing to say."""
    done = subprocess.run(
        ["shellcheck", "-s", "sh", str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert Path(SCRIPT).stat().st_mode & 0o111
