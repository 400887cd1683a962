"""Seeded defects of the control plane: what can be got wrong about it while it runs.

TLS, ACLs and gossip are settings of an agent: `agents`. What else sees them broken, and versions, is shown by the tests
of `fixtures/readiness` on recorded answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drills.defects.defect import Clean, Defect
from fixtures.errors import Refused, UndoError, Unknown
from fixtures.observe.eventually import eventually
from fixtures.readiness import leaving
from fixtures.readiness.tailnet import tags_of
from fixtures.target import hcl, names
from fixtures.target.change import JobChange, replace_once
from fixtures.target.target import Target

PROPAGATION = 20.0
"""Seconds until a client's new metadata is at the servers: it tells them every 5 to 10."""


def _tag(target: Target, name: str, tags: frozenset[str]) -> None:
    """Give a node exactly these tags, and see that it has them. Raises UndoError."""
    host, cli = target.tailnet.cli()
    found = [one for one in target.tailnet.nodes() if str(one["name"]) == name]
    if len(found) != 1:
        raise Refused(f"tags of {name}", f"{len(found)} nodes of that name", "one")
    argv = [*cli, "nodes", "tag", "-i", str(found[0]["id"]), "-t", ",".join(sorted(tags)), "-o", "json"]
    done = target.hosts.run(host, argv)
    now = {str(one["name"]): tags_of(one) for one in target.tailnet.nodes()}
    if done.returncode != 0 or now.get(name) != tags:
        raise UndoError(
            f"tags of {name}", f"{sorted(now.get(name, ()))} {done.stderr[:80]}", f"{sorted(tags)}"
        )


EVERYBODY = '.acls += [{"action": "accept", "src": ["*"], "dst": ["autogroup:internet:*"]}]'
# $1 is jq's change of the policy.
WIDEN = """
set -eu
jq -c "$1" /etc/host/policy.json >/run/gvfx-defect.policy
mount --bind /run/gvfx-defect.policy /etc/host/policy.json
kill -HUP "$(cat /run/headscale.pid)"
"""
NARROW = """
while grep -q ' /etc/host/policy.json ' /proc/mounts; do umount /etc/host/policy.json || exit 1; done
rm -f /run/gvfx-defect.policy
kill -HUP "$(cat /run/headscale.pid)"
"""


def _retagged(name: Callable[[Target], str], add: frozenset[str], take: frozenset[str]) -> Clean:
    """A clean-up that needs not know what the tags were."""

    def clean(target: Target) -> None:
        node = name(target)
        now = next((tags_of(one) for one in target.tailnet.nodes() if str(one["name"]) == node), None)
        if now is None:
            raise Refused(f"tags of {node}", "no such node", "one")
        if now != (now | add) - take:
            _tag(target, node, (now | add) - take)

    return clean


@contextmanager
def _with_tags(target: Target, name: str, add: frozenset[str], take: frozenset[str]) -> Iterator[None]:
    before = next((tags_of(one) for one in target.tailnet.nodes() if str(one["name"]) == name), None)
    if before is None:
        raise Refused(f"tags of {name}", "no such node", "one")
    try:
        _tag(target, name, (before | add) - take)
        yield
    finally:
        _tag(target, name, before)


CLIENT, WITNESS = frozenset({"tag:gvfx-client"}), frozenset({"tag:gvfx-witness"})


def _first_exit(target: Target) -> str:
    return target.tailnet.exits()[0].name


def _the_witness(target: Target) -> str:
    (witness,) = target.hosts.names("witness")
    return witness


@contextmanager
def _exit_is_a_client(target: Target) -> Iterator[None]:
    with _with_tags(target, _first_exit(target), CLIENT, frozenset()):
        yield


@contextmanager
def _witness_is_untagged(target: Target) -> Iterator[None]:
    with _with_tags(target, _the_witness(target), frozenset(), WITNESS):
        yield


def _somebody_may_leave(target: Target) -> bool:
    """Somebody but the worker. Raises Unknown where an exit does not say."""
    found, _ = leaving.inspect(target)
    if found.missing:
        raise Unknown("filters of the exits", found.missing[0], "those of all")
    return bool(found.broken)


@contextmanager
def _everybody_may_leave(target: Target) -> Iterator[None]:
    """The control server reads another policy: the file it is given is read-only on its host, so one lies over it."""
    try:
        problem = _turn(target, WIDEN, EVERYBODY, wanted=True)
        if problem:
            raise Unknown("policy of the tailnet", problem, "one that lets everybody out")
        yield
    finally:
        _only_the_worker_may_leave(target)


def _turn(target: Target, script: str, *words: str, wanted: bool) -> str:
    """Turn the policy of the control server; what is wrong with that, empty when the exits show it."""
    host, _ = target.tailnet.cli()
    done = target.hosts.run(host, ["sh", "-c", script, "sh", *words])
    outcome = eventually(
        f"exits let {'everybody' if wanted else 'only the worker'} out", lambda: _somebody_may_leave(target),
        lambda seen: seen is wanted, within=PROPAGATION, record=target.record,
    )  # fmt: skip
    return "" if done.returncode == 0 and outcome.met else f"{outcome.value} {done.stderr.strip()[-120:]}"


def _only_the_worker_may_leave(target: Target) -> None:
    """The control server's own policy again, whatever lies over it. Raises UndoError."""
    problem = _turn(target, NARROW, wanted=False)
    if problem:
        raise UndoError(
            "policy of the tailnet", problem, "its own policy", "python -m fixtures.rehearsal down"
        )


def _role(target: Target, node: str, role: str) -> None:
    """Set a client's role as its operator may at any time, and wait until the servers know."""
    target.nomad.set_metadata(node, {"role": role})

    def read() -> str:
        return str((target.nomad.node_record(node).get("Meta") or {}).get("role"))

    outcome = eventually(
        f"role of {node[:8]}", read, lambda seen: seen == role, within=PROPAGATION, record=target.record
    )
    if not outcome.met:
        raise UndoError(f"role of node {node[:8]}", f"{outcome.value}", role, "nomad node meta read")


@contextmanager
def _client_is_the_witness(target: Target) -> Iterator[None]:
    """The last app node says it is the witness; its allocations stay where they are."""
    node = _last_app_node(target)
    try:
        _role(target, node, "witness")
        yield
    finally:
        _role(target, node, "app")


def _last_app_node(target: Target) -> str:
    name = target.hosts.names("app")[-1]
    node = next((one.id for one in target.nomad.nodes() if one.name == name), None)
    if node is None:
        raise Unknown(f"client {name}", "not registered", "a client", "nomad node status")
    return node


def _client_is_a_client(target: Target) -> None:
    _role(target, _last_app_node(target), "app")


_STRANGER = """    service {
      name     = "nomad-client"
      port     = "http"
      provider = "consul"
    }

"""

DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="exit-is-a-client",
        title="an exit node carries the tag of a cluster client as well",
        mutation="tailnet: tag:gvfx-client is added to the first exit",
        why="the exit does its work as before; it could also talk to every server and database",
        expected_red=frozenset({"P0.6", "P0.7"}),
        during=_exit_is_a_client,
        clean=_retagged(_first_exit, frozenset(), CLIENT),
    ),
    Defect(
        id="witness-untagged",
        title="the witness is tagged like any server",
        mutation="tailnet: tag:gvfx-witness is taken from the witness",
        why="no right hangs on that tag today: only the list of nodes shows that it is gone",
        expected_red=frozenset({"P0.6"}),
        during=_witness_is_untagged,
        clean=_retagged(_the_witness, WITNESS, frozenset()),
    ),
    Defect(
        id="everybody-may-leave",
        title="the tailnet's policy lets every node use the exits",
        mutation="headscale: a rule * -> autogroup:internet:*, reloaded",
        why="nobody else has chosen an exit, so nothing leaves by one; only the exits' filters say that it could",
        expected_red=frozenset({"P0.7"}),
        during=_everybody_may_leave,
        clean=_only_the_worker_may_leave,
    ),
    Defect(
        id="client-is-the-witness",
        title="an app node carries the role of the witness",
        mutation="Nomad: metadata role=witness on the last app node",
        why="what runs there goes on; nothing is ever placed there again, and the stores have one node left",
        expected_red=frozenset({"P0.5", "P0.9"}),
        # What is moved off the other app node may find no place: then there is nothing to try the exchange from.
        tolerated=frozenset({"T3.4", *(f"T5.{n}" for n in range(1, 7)), *(f"T7.{n}" for n in range(1, 6))}),
        during=_client_is_the_witness,
        clean=_client_is_a_client,
    ),
    Defect(
        id="stranger-as-nomad-client",
        title="a job registers itself under the name of Nomad's own clients",
        mutation='gvfx-rl-service: a second service "nomad-client"',
        why="it is healthy and answers; whoever looks for a Nomad client finds it",
        expected_red=frozenset({"P0.4"}),
        jobs={names.RL.id: JobChange(mutate=replace_once("    service {\n", f"{_STRANGER}    service {{\n"))},
    ),
    Defect(
        id="backup-volume-nowhere",
        title="a job asks for a volume that no node has",
        mutation="gvfx-postgres-backup: a host volume gvfx-backups",
        why="a periodic job fails at night, long after everybody has looked",
        expected_red=frozenset({"P0.8", "P0.9"}),
        jobs={
            names.BACKUP_JOB: JobChange(
                mutate=hcl.replace_in(
                    'group "backup"',
                    r"    count = 1\n",
                    '    count = 1\n\n    volume "away" {\n      type   = "host"\n      source = "gvfx-backups"\n    }\n',
                )
            )
        },
    ),
    Defect(
        id="backup-on-one-node",
        title="a job is tied to a single node",
        mutation="gvfx-postgres-backup: constraint on one node's name",
        why="it is placed and runs, until that node is the one that is gone",
        expected_red=frozenset({"P0.9"}),
        jobs={
            names.BACKUP_JOB: JobChange(
                mutate=hcl.replace_in(
                    'group "backup"',
                    r"    count = 1\n",
                    "    count = 1\n\n    constraint {\n"
                    '      attribute = "${node.unique.name}"\n      operator  = "regexp"\n      value     = "1$"\n    }\n',
                )
            )
        },
    ),
    Defect(
        id="backup-fills-a-node",
        title="a job asks for more memory than the nodes have left",
        mutation="gvfx-postgres-backup: its first task asks for 1 TiB of memory",
        why="every node is eligible by its constraints; none has room",
        expected_red=frozenset({"P0.9"}),
        jobs={names.BACKUP_JOB: JobChange(mutate=replace_once("memory = 256", f"memory = {1 << 20}"))},
    ),
)
"""Jobs that the rollout does not deploy are looked at by phase 0 all the same: these defects disturb nothing else."""
