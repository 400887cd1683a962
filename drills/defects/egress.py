"""Seeded defects of the way out: what a weaker guard, kill switch or tailnet would be, as changes of the spec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drills.defects.defect import Defect
from fixtures.errors import SuiteError
from fixtures.target import hcl, names
from fixtures.target.capabilities import Mutation
from fixtures.target.change import JobChange, chain, replace_once
from fixtures.target.target import Target

GUARD = "/usr/local/bin/worker-egress-guard.sh"
_WORDS = {names.KILLSWITCH_TASK: "killswitch", names.TAILSCALE_TASK: "tailscale", names.WATCH_TASK: "watch"}

FAILOVER = frozenset({*(f"T4.{number}" for number in range(1, 11)), "T8.8"})
MOVED = "T4.11"
DISTURBED = frozenset({"T3.15", *(f"T3.{number}" for number in range(19, 27))})
"""Rules about a worker that runs."""
REFUSED = frozenset(
    {"T3.2", "T3.3", "T3.6", "T3.7", "T3.8", "T3.9", "T3.11", "T3.12", "T3.13", "T3.14", "T3.16", "T3.17"}
)
"""Rules about a start that the guard must refuse once it has looked."""


def with_tool(task: str, variable: str, tool: str) -> Mutation:
    """Run a guard's task with a program of our own where the script would take the real one."""
    name = f"/tmp/defect-{task}"  # noqa: S108 - inside the container
    script = (
        f"cat >{name} <<'DEFECT'\n{tool.strip()}\nDEFECT\n"
        f"chmod 755 {name}; export {variable}={name}; exec {GUARD} {_WORDS[task]}"
    )
    return hcl.task_command(task, ["/bin/sh", "-c", script])


NO_KILL_SWITCH = """
#!/bin/sh
# Says that everything is loaded, keeps the gates as files, touches no packet.
case "$*" in
  *"list chain"*) echo "hook output priority 300; policy drop; jump flows @egress_ok @lock_ok" ;;
  *"list set"*) for set in "$@"; do :; done; [ ! -e /tmp/gate.$set ] || echo '"elem"' ;;
  "-f -") while read -r verb a b c set rest; do case $verb in flush) rm -f /tmp/gate.$set ;; add) : >/tmp/gate.$set ;; esac; done ;;
esac
exit 0
"""

IPV4_ONLY = """
#!/bin/sh
# The real one, which then lets all of IPv6 pass.
/usr/sbin/nft "$@" || exit
case "$*" in "-f /"*) exec /usr/sbin/nft insert rule inet gvfx_ks outp meta nfproto ipv6 accept ;; esac
"""

NO_CUT = """
#!/bin/sh
# Does all it is told but to end the connections of the exit before.
[ "$*" = "-f -" ] || exec /usr/sbin/nft "$@"
said=$(cat)
case $said in "flush chain"*) exit 0 ;; esac
printf '%s\n' "$said" | /usr/sbin/nft -f -
"""

LOOKS_ONCE = """
#!/bin/sh
# What the echo answered once it answers for ever.
[ "$1" = -sf ] || exec /usr/bin/curl "$@"
[ -s /tmp/seen ] || /usr/bin/curl "$@" >/tmp/seen || { rm -f /tmp/seen; exit 28; }
cat /tmp/seen
"""

TRUSTS_ONLINE = """
#!/bin/sh
# An exit that the control plane calls online shows what it should show.
[ "$1" = -sf ] || exec /usr/bin/curl "$@"
found=$(/usr/bin/curl -s --max-time 2 --unix-socket /alloc/gvfx/ts/tailscaled.sock http://local-tailscaled.sock/localapi/v0/status)
address=$(printf %s "$found" | jq -r '[.Peer[]? | select(.ExitNode and .Online)] | first | .TailscaleIPs[0] // empty')
[ -n "$address" ] || exit 28
echo "$TS_EGRESS_EXPECTED_IPS" | tr , '\\n' | sed -n "s/^$address=//p; /=/!p" | head -n 1
"""

UNKNOWN_FLAG = """
#!/bin/sh
case "$*" in *" up "*) exec tailscale "$@" --no-such-flag ;; esac
exec tailscale "$@"
"""

NO_TIMEOUT = """
#!/bin/sh
case "$*" in
  *" up "*) for word in "$@"; do shift; case $word in --timeout=*) ;; *) set -- "$@" "$word" ;; esac; done ;;
esac
exec tailscale "$@"
"""

# A probe that is not looked at proves nothing by WebSocket either.
_NO_WEBSOCKET_PROBE = hcl.replace_in(
    "net_env =", r"TS_EGRESS_CHECK_WS_URL(\s*)= var\.ts_egress_check_ws_url", r'TS_EGRESS_CHECK_WS_URL\1= ""'
)


def _shared_addresses(own: Mapping[str, Any]) -> Mapping[str, Any]:
    entries = str(own[names.EXPECTED_IPS_VARIABLE]).split(",")
    return {names.EXPECTED_IPS_VARIABLE: ",".join(one.rpartition("=")[2] for one in entries)}


def _no_fallbacks(own: Mapping[str, Any]) -> Mapping[str, Any]:
    primary = str(own[names.EXIT_PRIMARY_VARIABLE])
    entries = str(own[names.EXPECTED_IPS_VARIABLE]).split(",")
    return {
        names.EXIT_FALLBACKS_VARIABLE: "",
        names.EXPECTED_IPS_VARIABLE: ",".join(one for one in entries if one.startswith(f"{primary}=")),
    }


def _forget_piled_up(target: Target) -> None:
    """Remove the nodes that were registered beside those whose names have no suffix."""
    for node in target.tailnet.nodes():
        name = str(node["name"])
        if re.fullmatch(r"gvfx-worker-\w+-\w{8}", name):
            try:
                target.tailnet.forget(name)
            except SuiteError as error:
                target.record.append("note", "tailnet node not removed", name, error=str(error))


def _worker(mutate: Mutation) -> dict[str, JobChange]:
    return {names.WORKER_JOB: JobChange(mutate=mutate)}


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="kill-switch-removed",
        title="the worker's namespace has no kill switch",
        mutation="gvfx-worker: killswitch, tailscale and egress-watch get an nft that loads nothing and says it did",
        why=(
            "with a healthy exit all is well; before it is proven, and when tailscaled is away, the node's own route"
            " is open; between two exits it is for an instant, and a connection outlives its exit, as the moment will"
            " have it. A table that is not there cannot be deleted either, so that fault does not take hold"
        ),
        expected_red=REFUSED | {"T3.1", "T3.15", "T3.18", "T3.19", "T3.20", "T3.21", "T4.9"},
        expected_unknown=frozenset({"T3.22"}),
        tolerated=FAILOVER - {"T4.9"},
        jobs=_worker(chain(*(with_tool(task, "GVFX_NFT", NO_KILL_SWITCH) for task in _WORDS))),
    ),
    Defect(
        id="kill-switch-ipv4-only",
        title="the kill switch lets IPv6 pass",
        mutation="gvfx-worker: nft lets all of IPv6 pass in front of the table's other rules",
        why="nothing of the stack speaks IPv6, so only a road laid for it shows the open door",
        expected_red=frozenset({"T3.15"}),
        jobs=_worker(
            chain(
                with_tool(names.KILLSWITCH_TASK, "GVFX_NFT", IPV4_ONLY),
                with_tool(names.WATCH_TASK, "GVFX_NFT", IPV4_ONLY),
            )
        ),
    ),
    Defect(
        id="connections-outlive-exit",
        title="connections are not cut when another exit is selected",
        mutation="gvfx-worker: the watch's nft leaves the numbering of connections as it is",
        why=(
            "the next exit has not seen them begin, and sends their last packets on with the worker's tailnet address;"
            " with all exits dead most of them are given up before one is back"
        ),
        expected_red=FAILOVER - {"T4.9", "T8.8"},
        tolerated=frozenset({"T4.9"}),
        jobs=_worker(with_tool(names.WATCH_TASK, "GVFX_NFT", NO_CUT)),
    ),
    Defect(
        id="guard-without-watch",
        title="the guard looks at the start and never again",
        mutation="gvfx-worker: the watch's probes repeat the first answer; no WebSocket probe",
        why=(
            "every start is judged rightly, but for the WebSocket; no failure later is ever noticed; what the worker"
            " still sends through a sidecar that was frozen and thawed may leave the exit untranslated"
        ),
        expected_red=FAILOVER | {MOVED, "T3.17", "T3.20", "T3.21"},
        tolerated=frozenset({"T3.1"}),
        jobs=_worker(chain(with_tool(names.WATCH_TASK, "GVFX_CURL", LOOKS_ONCE), _NO_WEBSOCKET_PROBE)),
    ),
    Defect(
        id="guard-trusts-online",
        title="the guard believes the control plane's Online instead of asking through the exit",
        mutation="gvfx-worker: a probe answers the expected address while the exit is Online; no WebSocket probe",
        why=(
            "Online knows nothing of addresses, internet and cut cables; it notices a killed tailscaled after ten"
            " seconds, in time for a bound without figures or not"
        ),
        expected_red=(FAILOVER - {"T4.8", "T8.8"})
        | {MOVED, "T3.2", "T3.8", "T3.9", "T3.14", "T3.16", "T3.17"},
        tolerated=frozenset({"T3.7", "T4.8", "T8.8"}),
        jobs=_worker(chain(with_tool(names.WATCH_TASK, "GVFX_CURL", TRUSTS_ONLINE), _NO_WEBSOCKET_PROBE)),
    ),
    Defect(
        id="addresses-shared",
        title="all exits are held to one shared list of addresses",
        mutation="gvfx-worker: ts_egress_expected_ips without the exits' names",
        why="each exit shows an address of the list; that it might be another's shows in the settings only",
        expected_red=frozenset({"T3.25"}),
        jobs={names.WORKER_JOB: JobChange(override=_shared_addresses)},
    ),
    Defect(
        id="state-in-allocation",
        title="tailscale's state lies in the allocation's directory",
        mutation="gvfx-worker: TS_STATE_DIR under /alloc",
        why="the worker works; each move registers one more tailnet node",
        expected_red=frozenset({"T3.23"}),
        jobs=_worker(replace_once('"/var/lib/gvfx-tailscale/gvfx-worker"', '"/alloc/tailscale"')),
        clean=_forget_piled_up,
    ),
    Defect(
        id="up-unknown-flag",
        title="the guard's `tailscale up` has a flag that does not exist",
        mutation="gvfx-worker: the sidecar's tailscale gets --no-such-flag behind every up",
        why="a node with kept state never says up: only a fresh one cannot log in, for a reason that is not the key",
        expected_red=frozenset({"T3.11", "T3.12"}),
        jobs=_worker(with_tool(names.TAILSCALE_TASK, "GVFX_TAILSCALE", UNKNOWN_FLAG)),
    ),
    Defect(
        id="up-without-timeout",
        title="`tailscale up` has no timeout",
        mutation="gvfx-worker: --timeout is taken out of the sidecar's up",
        why="a control plane that hangs is refused all the same, but nobody says what the reason is",
        expected_red=frozenset({"T3.11"}),
        jobs=_worker(with_tool(names.TAILSCALE_TASK, "GVFX_TAILSCALE", NO_TIMEOUT)),
    ),
    Defect(
        id="fallbacks-empty",
        title="no fallback exit is configured",
        mutation="gvfx-worker: ts_exit_node_fallbacks empty",
        why="the guard accepts it, as an operator may mean it; nothing can take over",
        expected_red=FAILOVER | {MOVED},
        jobs={names.WORKER_JOB: JobChange(override=_no_fallbacks)},
    ),
    Defect(
        id="worker-net-admin",
        title="the worker's container has NET_ADMIN",
        mutation='gvfx-worker: cap_add = ["net_admin"] for task worker',
        why="a worker that behaves makes no use of it; the kernel says that it could",
        expected_red=frozenset({"T3.26"}),
        jobs=_worker(
            hcl.replace_in(
                'task "worker"',
                r'cap_drop(\s*)= \["all"\]\n',
                r'cap_drop\1= ["all"]\n        cap_add = ["net_admin"]\n',
            )
        ),
    ),
)
