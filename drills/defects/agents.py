"""Seeded defects of the agents' settings: the witness, whose loss costs no quorum, restarted with one of them wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from drills.defects.defect import Clean, Defect, During
from fixtures.errors import UndoError, Unknown
from fixtures.observe.eventually import eventually
from fixtures.target.target import Target

Unit = Literal["consul", "nomad"]
BACK = 60.0
"""Seconds until a restarted server knows a leader and is known to the others: boot, gossip, an election."""
COMMAND = 30.0

# $1 is the unit, $2 jq's change of its settings. The secrets among them stay on the host.
RESTART = """
set -eu
umask 077
export PATH=/opt/gvfx/bin:$PATH
own=/run/gvfx-defect.$1
jq -c "$2" "/etc/host/$1.json" >"$own.json"
pid=$(cat "/run/$1.pid")
touch "/run/hold.$1"
kill "$pid"
for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$pid" 2>/dev/null; then echo "still running: $pid" >&2; exit 1; fi
setsid sh -c 'echo $$ >"$1.pid"; exec "$2" agent -config="$1.json"' sh "$own" "$1" >>"/var/log/host/$1.log" 2>&1 </dev/null &
"""
# The init starts the unit with its own settings as soon as nothing holds it down.
UNDO = """
own=/run/gvfx-defect.$1
if pid=$(cat "$own.pid" 2>/dev/null); then
  kill "$pid" 2>/dev/null
  for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  ! kill -0 "$pid" 2>/dev/null || exit 1
fi
rm -f "$own".* "/run/hold.$1"
"""
_LEADER = {
    "consul": "curl -s -m 2 http://127.0.0.1:8500/v1/status/leader",
    "nomad": 'curl -sk -m 2 "https://$1:4646/v1/status/leader"',
}


def _alive(target: Target, unit: Unit, host: str) -> bool:
    """True when the agent names a leader, and the servers call it alive."""
    address = str(target.hosts.tailnet_address(host))
    said = target.hosts.run(host, ["sh", "-c", _LEADER[unit], "sh", address]).stdout.strip()
    if unit == "consul":
        known = any(one["Name"] == host and one["Status"] == 1 for one in target.consul.members())
    else:
        names = {str(one["Name"]).partition(".")[0]: one["Status"] for one in target.nomad.members()}
        known = names.get(host) == "alive"
    return known and said not in ("", '""')


def _back(target: Target, unit: Unit, host: str) -> bool:
    return eventually(
        f"{unit} of {host} is back",
        lambda: _alive(target, unit, host),
        bool,
        within=BACK,
        record=target.record,
    ).met


def witness_with(unit: Unit, change: str) -> During:
    """The witness's agent with changed settings for the length of the body."""

    @contextmanager
    def during(target: Target) -> Iterator[None]:
        (host,) = target.hosts.names("witness")
        try:
            done = target.hosts.run(host, ["sh", "-c", RESTART, "sh", unit, change], timeout=COMMAND)
            if done.returncode != 0 or not _back(target, unit, host):
                raise Unknown(f"{unit} of {host}", f"{done.stderr[-160:]!r}", "restarted with other settings")
            yield
        finally:
            witness_again(unit)(target)

    return during


def witness_again(unit: Unit) -> Clean:
    """The witness's agent with its own settings, whichever it runs with. Raises UndoError."""

    def clean(target: Target) -> None:
        (host,) = target.hosts.names("witness")
        done = target.hosts.run(host, ["sh", "-c", UNDO, "sh", unit], timeout=COMMAND)
        if done.returncode != 0 or not _back(target, unit, host):
            raise UndoError(f"{unit} of {host}", f"{done.stderr[-160:]!r}", "its own settings again")

    return clean


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="nomad-takes-plain-text",
        title="a Nomad server still takes calls in plain text, as while TLS is brought in",
        mutation="Nomad on the witness: tls.rpc_upgrade_mode true, restarted",
        why="every agent speaks TLS, so nothing fails; whoever does not is answered all the same",
        expected_red=frozenset({"P0.1"}),
        during=witness_with("nomad", ".tls.rpc_upgrade_mode = true"),
        clean=witness_again("nomad"),
    ),
    Defect(
        id="consul-default-token-manages",
        title="a Consul agent lends its management token to whoever brings none",
        mutation="Consul on the witness: acl.tokens.default is the initial management token, restarted",
        why="ACLs are on and deny by default, at every other agent too; this one asks nobody",
        expected_red=frozenset({"P0.2"}),
        during=witness_with("consul", ".acl.tokens.default = .acl.tokens.initial_management"),
        clean=witness_again("consul"),
    ),
    Defect(
        id="consul-default-token-writes",
        title="a Consul agent lends its own agent's token to whoever brings none",
        mutation="Consul on the witness: acl.tokens.default is the agent's token, restarted",
        why=(
            "that token writes nodes and reads no agent, no policy and no peers: every read of a stranger is refused"
            " as before, and he can take a node out of the catalogue"
        ),
        expected_red=frozenset({"P0.2"}),
        during=witness_with("consul", ".acl.tokens.default = .acl.tokens.agent"),
        clean=witness_again("consul"),
    ),
    Defect(
        id="consul-takes-plain-gossip",
        title="a Consul agent takes gossip that is not encrypted, as while encryption is brought in",
        mutation="Consul on the witness: encrypt_verify_incoming false, restarted",
        why="all that is sent is encrypted, with one key; only the agent's own settings say what it would take",
        expected_red=frozenset({"P0.3"}),
        during=witness_with("consul", ".encrypt_verify_incoming = false"),
        clean=witness_again("consul"),
    ),
)
