"""A bench for worker-egress-guard.sh: the real script under busybox, with stand-ins for tailscale, nft, ip and curl.

The stand-ins keep their world in a directory: what each exit answers, whether tailscaled runs, what Nomad says to a
lock request, which gates are open until when.  A test changes the world and reads the script's JSON lines.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

SCRIPT = Path(__file__).parents[2] / "scripts/tailscale/worker-egress-guard.sh"
BUSYBOX = shutil.which("busybox") or "/bin/busybox"
CURL = shutil.which("curl") or "/usr/bin/curl"
EXIT1, EXIT2, EXIT3 = "100.64.0.1", "100.64.0.2", "100.64.0.3"
IP1, IP2, IP3 = "203.0.113.11", "203.0.113.12", "203.0.113.13"
KEY = "0123456789secretauthkey"
TOKEN = "lock-token-never-in-argv"  # noqa: S105  # a stand-in's
ACCEPT = "7smueHDRmlHw9/4O7S6Go6NmlwE="

T = TypeVar("T")

TAILSCALE = r"""
case "$*" in *" ping "*) [ ! -e "$W/no-ping" ]; exit ;; *" up "*)
  [ ! -s "$W/up-error" ] || { cat "$W/up-error"; exit 1; }
  echo Running > "$W/backend"; exit 0 ;;
esac
for word; do case "$word" in --exit-node=*) exit=${word#*=} ;; esac; done
[ ! -s "$W/refuse.$exit" ] || { cat "$W/refuse.$exit"; exit 1; }
echo "$exit" > "$W/selected"
"""

NFT = r"""
now() { read -r u _ < /proc/uptime; NOW=$((${u%.*} * 1000)); f=${u#*.}; NOW=$((NOW + (1$f - 100) * 10)); }
case "$*" in
  "list chain inet gvfx_ks outp")
    [ -e "$W/table" ] || exit 1
    [ -e "$W/half-table" ] || echo 'hook output priority 300; policy drop; jump flows @egress_ok @lock_ok' ;;
  "-j list set inet gvfx_ks "*)
    [ -e "$W/table" ] || exit 1
    until=0; [ ! -e "$W/gate.$6" ] || read -r until < "$W/gate.$6"
    now
    if [ "$until" -gt "$NOW" ]; then echo '{"nftables":[{"set":{"elem":["tailscale0"]}}]}'; else echo '{"nftables":[{"set":{}}]}'; fi ;;
  "-f -")
    [ -e "$W/table" ] || exit 1
    now
    name= until=0
    while read -r verb what _ _ set _ _ _ life rest; do
      case "$what $rest" in chain*) [ ! -e "$W/stuck-flows" ] || exit 1 ;; rule*return) rest=${rest% return}; flows=${rest##* }; continue ;; rule*) continue ;; esac
      name=$set
      case "$verb" in add) until=$((NOW + ${life%ms})) ;; *) until=0 ;; esac
    done
    if [ "$name" = flows ]; then echo "flows begin anew as $flows" >> "$W/argv.log"; exit 0; fi
    if [ "$name" = lock_ok ] && [ "$until" != 0 ] && [ -s "$W/freeze" ]; then
      # The life begins when the kernel hears of it.
      read -r pause < "$W/freeze"; rm "$W/freeze"; sleep "$pause"; until=$((until + pause * 1000))
    fi
    # One transaction: a set that is flushed and filled again was never empty for a packet.
    if [ "$until" = 0 ]; then echo "gate $name shut"; else echo "gate $name open"; fi >> "$W/argv.log"
    echo "$until" > "$W/.gate.$$" && mv "$W/.gate.$$" "$W/gate.$name" ;;
  "-f "*)
    [ ! -s "$W/nft-refuses" ] || { cat "$W/nft-refuses" >&2; exit 1; }
    cp "$2" "$W/loaded.nft"; : > "$W/table" ;;
esac
"""

IP = r"""
case "$*" in
  *"route show table main dev eth0") echo "172.26.64.0/20 proto kernel scope link src 172.26.64.5" ;;
  *"route show table main") [ -e "$W/no-route" ] || echo "default via 172.26.64.1 dev eth0" ;;
  "rule add"*) [ -e "$W/no-rule" ] || echo "5200: from all to 172.26.64.0/20 lookup main" > "$W/rule" ;;
  "rule show") cat "$W/rule" 2> /dev/null ;;
esac
"""

CURL_STANDIN = r"""
case "$*" in
  *tailscaled.sock*)
    [ -s "$W/backend" ] || exit 7
    # A ping's answer goes to /dev/null.
    case "$*" in */ping*) exit 0 ;; esac
    read -r backend < "$W/backend"; selected=; [ ! -s "$W/selected" ] || read -r selected < "$W/selected"
    read -r tags < "$W/tags"
    printf '{"BackendState":"%s","Self":{"Tags":["%s"],"Addrs":["192.0.2.7:41641"]},"Peer":{' "$backend" "$tags"
    n=0
    for pair in ex1=100.64.0.1 ex2=100.64.0.2 ex3=100.64.0.3; do
      [ $n = 0 ] || printf ,
      n=1; on=false; [ "$selected" != "${pair#*=}" ] || on=true
      approved=true; [ ! -e "$W/unapproved.${pair#*=}" ] || approved=false
      printf '"%s":{"HostName":"%s","DNSName":"%s.t.net.","TailscaleIPs":["%s"],"ExitNode":%s,"ExitNodeOption":%s}' \
        "${pair%=*}" "${pair%=*}" "${pair%=*}" "${pair#*=}" $on $approved
    done
    echo '}}'; exit 0 ;;
  *api.sock*)
    read -r mode < "$W/nomad"
    echo "$mode $*" >> "$W/lock.log"
    case "$mode" in refused) exit 7 ;; hang) exit 28 ;; esac
    for word; do case "$word" in @*) cat "${word#@}" >> "$W/token.log" ;; esac; done
    [ ! -e "$W/no-lock-id" ] || { printf '{}\n%s' "$mode"; exit 0; }
    printf '{"Lock":{"ID":"lock-1"}}\n%s' "$mode"; exit 0 ;;
  *--connect-to*)
    read -r mode < "$W/direct"
    [ "$mode" != none ] || exit 28
    printf '{"Lock":{"ID":"lock-1"}}\n%s' "$mode"; exit 0 ;;
  *http://127.0.0.1:*) exec CURL "$@" ;;
esac
selected=; [ ! -s "$W/selected" ] || read -r selected < "$W/selected"
said=; [ ! -s "$W/says.$selected" ] || read -r said < "$W/says.$selected"
[ -n "$said" ] || exit 28
if [ -s "$W/mute-url" ]; then
  read -r muted < "$W/mute-url"
  case "$*" in *"$muted"*) exit 28 ;; esac
fi
skip=0; [ ! -s "$W/skip" ] || read -r skip < "$W/skip"
if [ "$skip" -gt 0 ]; then echo $((skip - 1)) > "$W/.skip" && mv "$W/.skip" "$W/skip"; exit 28; fi
case "$*" in
  *Sec-WebSocket-Key*)
    [ ! -e "$W/ws-silent" ] || exit 28
    while [ $# -gt 0 ]; do case "$1" in -D) head=$2 ;; -o) body=$2 ;; esac; shift; done
    printf 'HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n' > "$head"
    if [ -e "$W/ws-plain" ]; then printf 'HTTP/1.1 200 OK\r\n\r\n' > "$head"; fi
    if [ -e "$W/ws-bytes" ]; then cat "$W/ws-bytes" > "$body"; else printf '\201\014%s' "$said" > "$body"; fi
    exit 28 ;;
esac
printf '%s\n' "$said"
"""

TAILSCALED = r"""
echo Running > "$W/unused"; echo "${START:-NeedsLogin}" > "$W/backend"
trap 'rm -f "$W/backend"; exit 0' TERM
while :; do sleep 0.05; done
"""


@dataclass
class Bench:
    """One allocation's worth of directories and stand-ins."""

    root: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    logs: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("world", "bin", "shared", "local", "secrets"):
            (self.root / name).mkdir()
        fakes = {
            "tailscale": TAILSCALE,
            "tailscaled": TAILSCALED,
            "nft": NFT,
            "ip": IP,
            "curl": CURL_STANDIN.replace("CURL", CURL).replace("ACCEPT", ACCEPT),
        }
        for name, text in fakes.items():
            # Every call is written down with all its arguments: what is not in there was never on a command line.
            path = self.root / "bin" / name
            path.write_text(
                f'#!{BUSYBOX} sh\nW={self.root}/world\nprintf "%s\\n" "{name} $*" >> "$W/argv.log"\n{text}'
            )
            path.chmod(0o755)
        self.world("argv.log", "")
        self.world("backend", "Running")
        self.world("tags", "tag:gvfx-worker")
        self.world("nomad", "200")
        self.world("direct", "none")
        for exit_node, address in ((EXIT1, IP1), (EXIT2, IP2), (EXIT3, IP3)):
            self.world(f"says.{exit_node}", address)
        (self.root / "secrets/ts-authkey").write_text(KEY)
        (self.root / "resolv.conf").write_text("search x\nnameserver 172.26.64.1\nnameserver 192.0.2.53\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    # -------------------------------------------------------------------------------------------- the world

    def world(self, name: str, text: str) -> None:
        """Set one fact."""
        path = self.root / "world" / name
        path.with_name(f".{name}").write_text(f"{text}\n" if text else "")
        path.with_name(f".{name}").rename(path)

    def fact(self, name: str) -> str:
        """Read one fact, empty if there is none."""
        path = self.root / "world" / name
        return path.read_text().strip() if path.exists() else ""

    def silence(self, *exits: str) -> None:
        """These exits give no answer any more."""
        for exit_node in exits:
            self.world(f"says.{exit_node}", "")

    def gate(self, name: str) -> bool:
        """Is this kernel gate open now?"""
        return int(self.fact(f"gate.{name}") or 0) > uptime_ms()

    def lease(self, name: str) -> int:
        """Milliseconds of life the lease still has."""
        path = self.root / "shared" / f"lease.{name}"
        return (int(path.read_text()) if path.exists() else 0) - uptime_ms()

    # -------------------------------------------------------------------------------------------- the script

    def environment(self, changes: Mapping[str, str | None]) -> dict[str, str]:
        """A working configuration with quick probes and patient gates; None removes a setting."""
        tools = {
            f"GVFX_{name.upper()}": str(self.root / "bin" / name)
            for name in ("nft", "ip", "curl", "tailscale", "tailscaled")
        }
        values: dict[str, str | None] = {
            **tools,
            "PATH": "/usr/bin:/bin",
            "GVFX_SHARED": str(self.root / "shared"),
            "GVFX_RUN": str(self.root / "run"),
            "GVFX_PORT": str(self.port),
            "GVFX_BUSYBOX": BUSYBOX,
            "GVFX_RESOLV_CONF": str(self.root / "resolv.conf"),
            "GVFX_LAST_WORDS_SECONDS": "0",
            "NOMAD_ALLOC_ID": "alloc-1",
            "NOMAD_TASK_DIR": str(self.root / "local"),
            "NOMAD_SECRETS_DIR": str(self.root / "secrets"),
            "NOMAD_TOKEN": TOKEN,
            "TS_EXIT_NODE_PRIMARY": EXIT1,
            "TS_EXIT_NODE_FALLBACKS": f"{EXIT2},{EXIT3}",
            "TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP1},{EXIT2}={IP2},{EXIT3}={IP3}",
            "TS_EGRESS_CHECK_URLS": "http://198.51.100.80/",
            "TS_EGRESS_CHECK_WS_URL": "ws://198.51.100.80/ws",
            "TS_PROBE_INTERVAL_SECONDS": "0.1",
            "TS_PROBE_TIMEOUT_SECONDS": "0.2",
            "TS_PROBE_FAILS": "2",
            "TS_SELECT_TRIES": "2",
            "TS_GATE_SECONDS": "4",
            "TS_BLOCKED_STOP_SECONDS": "5",
            "TS_WAIT_SECONDS": "6",
            "TS_HOSTNAME": "gvfx-worker-c3",
            "TS_STATE_DIR": str(self.root / "state"),
            "LOCK_RENEW_SECONDS": "0.2",
            **changes,
        }
        return {name: value for name, value in values.items() if value is not None}

    def run(self, *words: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Run a subcommand to its end."""
        return subprocess.run(
            [BUSYBOX, "sh", str(SCRIPT), *words],
            env=self.environment(changes),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def start(self, *words: str, **changes: str | None) -> subprocess.Popen[str]:
        """Run a subcommand in the background; its lines are read with :meth:`events`."""
        self.logs[words[0]] = self.root / f"{words[0]}.log"
        with self.logs[words[0]].open("a") as out:
            process = subprocess.Popen(
                [BUSYBOX, "sh", str(SCRIPT), *words],
                env=self.environment(changes),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def start_watch(self, **changes: str | None) -> subprocess.Popen[str]:
        """The kill switch is there, the watch is started."""
        self.world("table", "")
        return self.start("watch", **changes)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a background subcommand so far."""
        lines = self.logs[name].read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def calls(self, *texts: str) -> list[str]:
        """What was called and which gate was moved, in order; only lines that hold one of the texts."""
        lines = self.fact("argv.log").splitlines()
        return [line for line in lines if not texts or any(text in line for text in texts)]

    def seen(self, name: str, event: str, **fields: object) -> list[dict[str, Any]]:
        """Events of that name whose fields have these values."""
        return [
            one
            for one in self.events(name)
            if one["event"] == event and all(one[key] == value for key, value in fields.items())
        ]

    def ask(self, query: str) -> tuple[int, dict[str, Any]]:
        """What the watch answers on its port: status and body."""
        done = subprocess.run(
            [CURL, "-s", "-m", "2", "-w", "\n%{http_code}", f"http://127.0.0.1:{self.port}/cgi-bin/{query}"],
            capture_output=True,
            text=True,
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), json.loads(body) if body.strip() else {}

    def close(self) -> None:
        """End what was started, with all its children."""
        for process in self.running:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()


def uptime_ms() -> int:
    """The script's clock."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) * 1000)


def until(what: str, poll: Callable[[], T], within: float = 8.0) -> T:
    """Poll until the answer is true and return it."""
    end = time.monotonic() + within
    while True:
        answer = poll()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.02)


def events_of(text: str) -> list[dict[str, Any]]:
    """The JSON lines in some output."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
