"""P0.6 to P0.8: lists of nodes, connections and file systems, each with its seeded faults."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError
from fixtures.observe import listening
from fixtures.observe.nomad_types import Service
from fixtures.observe.reachability import ConnectState, states
from fixtures.observe.recording import InMemory
from fixtures.readiness import exposure, leaving, reach, tailnet, volumes
from fixtures.readiness.findings import Findings
from fixtures.readiness.plane import ControlPlane
from fixtures.readiness.reach import Attempt
from fixtures.readiness.reach import Path as Way
from fixtures.readiness.volumes import FileSystem
from fixtures.rehearsal import tailnet as policy
from fixtures.rehearsal.topology import HOSTS
from fixtures.target.capabilities import Completed
from tests.readiness.recorded import changed, node

NOTHING = Findings()


# -- tailnet ---------------------------------------------------------------------------------------------

ROLES = {"s1": "server", "s3": "witness", "c1": "app", "c3": "egress", "exit1": "exit"}
ADDRESSES: dict[str, str | None] = {name: f"100.64.0.{n}" for n, name in enumerate(ROLES, 1)}
REGISTERED: list[dict[str, Any]] = [
    {
        "id": n, "name": name, "ip_addresses": [ADDRESSES[name], f"fd7a:115c:a1e0::{n}"], "online": True,
        "forced_tags": sorted(tailnet.ROLES[role].needed), "valid_tags": [],
    }
    for n, (name, role) in enumerate(ROLES.items(), 1)
]  # fmt: skip
for _one in REGISTERED:
    if _one["name"] == "c1":
        _one["forced_tags"].append(tailnet.DB)


def judged(nodes: list[dict[str, Any]]) -> Findings:
    return tailnet.judge_nodes(ROLES, ADDRESSES, nodes, {"c1"})


def test_the_plan_of_tags_is_what_the_rehearsal_gives() -> None:
    kinds = {"exit": "exit", "legacy": "legacy", "operator": "ops"}
    for host in HOSTS:
        role = host.role or kinds.get(host.kind, "")
        if host.on_tailnet:
            wanted = tailnet.ROLES[role]
            assert wanted.needed <= set(host.tags) <= wanted.needed | wanted.allowed, host.name


def test_every_host_is_registered_as_planned() -> None:
    assert judged(REGISTERED) == NOTHING
    worker = {
        "id": 9,
        "name": "gvfx-worker-c3",
        "ip_addresses": ["100.64.0.9"],
        "forced_tags": ["tag:gvfx-worker"],
    }
    assert judged([*REGISTERED, worker]) == NOTHING


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("4.forced_tags", ["tag:gvfx-exit", "tag:gvfx-client"], "exit exit1 has tags"),
        ("1.forced_tags", ["tag:gvfx-server"], "witness s3 has tags"),
        ("2.forced_tags", ["tag:gvfx-client", "tag:gvfx-app"], "has not tag:gvfx-db"),
        ("0.forced_tags", [], "server s1 has tags"),
        ("0.ip_addresses", ["100.64.0.77"], "is registered as"),
        ("0.online", False, "is not online"),
        ("0.name", "s1-x7k2", "registered 0 times"),
    ],
)
def test_a_host_that_is_not(path: str, value: object, words: str) -> None:
    nodes = changed({"n": REGISTERED}, f"n.{path}", value)["n"]
    assert any(words in one for one in judged(nodes).broken), judged(nodes)


def test_registered_twice_and_a_stranger_with_rights() -> None:
    assert any("registered 2 times" in one for one in judged([*REGISTERED, REGISTERED[0]]).broken)
    stranger = {**REGISTERED[0], "name": "laptop"}
    assert any("laptop is no host" in one for one in judged([*REGISTERED, stranger]).broken)


def test_a_hosts_own_word() -> None:
    tags = frozenset({"tag:gvfx-server"})
    status = {
        "BackendState": "Running",
        "Self": {"TailscaleIPs": ["100.64.0.1"], "Tags": ["tag:gvfx-server"]},
    }
    assert tailnet.judge_status("s1", status, "100.64.0.1", tags) == NOTHING
    for path, value in (
        ("BackendState", "NeedsLogin"),
        ("Self.TailscaleIPs", ["100.64.0.2"]),
        ("Self.TailscaleIPs", None),
        ("Self.Tags", None),
    ):
        assert tailnet.judge_status("s1", changed(status, path, value), "100.64.0.1", tags).broken, path


def test_advertised_addresses() -> None:
    hosts: dict[str, str | None] = {"s1": "100.64.0.1"}
    cidr = "100.64.0.0/10"
    assert tailnet.judge_addresses({"nomad on s1": {"100.64.0.1"}}, cidr, hosts) == NOTHING
    assert tailnet.judge_addresses({"nomad on live7": {"100.99.0.1"}}, cidr, {}) == NOTHING
    for said in ("10.77.0.11", "100.64.0.2", "s1.example", ""):
        assert tailnet.judge_addresses({"nomad on s1": {said}}, cidr, hosts).broken, said


class Said:
    """A host that gives one answer to everything."""

    def __init__(self, answer: Completed) -> None:
        self.answer = answer

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        return self.answer


def test_a_daemon_that_does_not_answer_is_no_status() -> None:
    with pytest.raises(ProbeError, match="exit 7"):
        tailnet.own_status(Said(Completed(7, "", "Failed to connect")), "s1")  # type: ignore[arg-type]


# -- connections -----------------------------------------------------------------------------------------

BY_ROLE = {
    "server": ["s1"],
    "witness": ["s3"],
    "app": ["c1"],
    "egress": ["c3"],
    "exit": ["exit1"],
    "ops": ["ops"],
    "legacy": ["legacy"],
    "outsider": ["out"],
}
WHERE = {
    name: f"100.64.0.{n}" for n, name in enumerate(["s1", "s3", "c1", "c3", "exit1", "ops", "legacy"], 1)
}
NEEDED = reach.attempts(reach.NEEDED, BY_ROLE, WHERE, forbidden=False)
FORBIDDEN = reach.attempts(reach.FORBIDDEN, BY_ROLE, WHERE, forbidden=True)


def world() -> dict[str, dict[reach.End, ConnectState]]:
    """What is seen when the ACL does what it should, and no service is deployed."""
    seen: dict[str, dict[reach.End, ConnectState]] = {}
    for one in NEEDED:
        seen.setdefault(one.source, {})[one.end] = "refused" if "refused" in one.accepted else "open"
    for one in FORBIDDEN:
        seen.setdefault(one.source, {})[one.end] = "silent"
    return seen


def test_nothing_is_needed_and_forbidden_at_once_and_every_end_has_its_control() -> None:
    needed = {(one.source, one.end) for one in NEEDED}
    assert not needed & {(one.source, one.end) for one in FORBIDDEN}
    assert {one.end for one in FORBIDDEN} <= {one.end for one in NEEDED}
    assert all(WHERE.get(one.source) != one.end[0] for one in (*NEEDED, *FORBIDDEN))


def test_the_rehearsals_policy_says_the_same() -> None:
    """Each connection against the policy file that the rehearsal's control server is given."""
    tags = {
        host.name: set(host.tags)
        for host in HOSTS
        if host.name in {"s1", "s3", "c1", "c3", "exit1", "ops", "legacy"}
    }
    owners = {address: name for name, address in WHERE.items()}
    rules = policy.policy([tag for one in tags.values() for tag in one])["acls"]

    def allowed(source: str, end: reach.End) -> bool:
        have, port = tags[owners[end[0]]], end[1]
        for rule in rules:
            if not tags.get(source, set()) & set(rule["src"]):
                continue
            for target in rule["dst"]:
                tag, _, ports = target.rpartition(":")
                if tag in have and any(_within(port, one) for one in ports.split(",")):
                    return True
        return False

    wrong = [one for one in NEEDED if not allowed(one.source, one.end)]
    wrong += [one for one in FORBIDDEN if allowed(one.source, one.end)]
    assert not wrong


def _within(port: int, ports: str) -> bool:
    first, _, last = ports.partition("-")
    return ports == "*" or int(first) <= port <= int(last or first)


def test_an_acl_that_does_what_it_should() -> None:
    assert reach.judge(NEEDED, FORBIDDEN, world(), {}) == NOTHING


@pytest.mark.parametrize("state", ["open", "refused"])
def test_an_answer_from_where_none_may_come(state: ConnectState) -> None:
    """Also where nobody listens: a refusal is an answer."""
    for one in FORBIDDEN[:3] + FORBIDDEN[-3:]:
        seen = world()
        seen[one.source][one.end] = state
        assert "forbidden" in reach.judge(NEEDED, FORBIDDEN, seen, {}).broken[0]


@pytest.mark.parametrize("state", ["silent", "unroutable"])
def test_no_answer_where_one_is_needed(state: ConnectState) -> None:
    for one in (NEEDED[0], NEEDED[-1]):
        seen = world()
        seen[one.source][one.end] = state
        assert "needed" in reach.judge(NEEDED, FORBIDDEN, seen, {}).broken[0]


def test_agents_must_listen_services_need_not() -> None:
    listened = next(one for one in NEEDED if one.accepted == {"open"})
    seen = world()
    seen[listened.source][listened.end] = "refused"
    assert reach.judge(NEEDED, FORBIDDEN, seen, {}).broken


def test_silence_towards_everybody_and_what_was_not_tried_prove_nothing() -> None:
    end = ("100.64.0.3", 5432)
    forbidden = [Attempt("exit1", end, frozenset({"silent", "unroutable"}))]
    assert reach.judge([], forbidden, {"exit1": {end: "silent"}}, {}).missing
    assert reach.judge([], forbidden, {}, {}).missing
    assert reach.judge([], forbidden, {"exit1": {end: "silent"}, "c3": {end: "refused"}}, {}) == NOTHING


def test_a_way_goes_to_every_host_but_itself() -> None:
    way = Way(("app", "egress"), ("app",), frozenset({1, 2}))
    found = reach.attempts([way], BY_ROLE, WHERE, forbidden=False)
    assert [(one.source, one.end[1]) for one in found] == [("c3", 1), ("c3", 2)]


LISTING = """\
LISTEN 0      4096   127.0.0.1:8500          0.0.0.0:*
LISTEN 0      4096   127.0.0.53%lo:53        0.0.0.0:*
LISTEN 0      128    [::1]:631                  [::]:*
LISTEN 0      128    [::ffff:127.0.0.1]:8600       *:*
LISTEN 0      4096   100.64.0.3:4646         0.0.0.0:*
LISTEN 0      4096   [fd7a:115c:a1e0::3]:38001  [::]:*
LISTEN 0      4096   172.26.64.1:53          0.0.0.0:*
LISTEN 0      128    0.0.0.0:22              0.0.0.0:*
LISTEN 0      128    [::]:22                    [::]:*
LISTEN 0      128          *:9256                  *:*
"""


def test_listeners_on_more_than_loopback() -> None:
    assert listening.parse(LISTING) == {
        ("100.64.0.3", 4646), ("fd7a:115c:a1e0::3", 38001), ("172.26.64.1", 53), ("*", 22), ("*", 9256),
    }  # fmt: skip
    for odd in ("LISTEN", "LISTEN 0 1 nowhere:5 *:*", "LISTEN 0 1 10.0.0.1:x *:*"):
        with pytest.raises(ProbeError):
            listening.parse(odd)


@pytest.mark.parametrize("answer", [Completed(127, "", "ss: not found"), Completed(0, "", "")])
def test_a_host_that_lists_nothing_is_not_one_that_is_closed(answer: Completed) -> None:
    with pytest.raises(ProbeError):
        listening.listeners(Said(answer), "c1", InMemory())  # type: ignore[arg-type]


def test_this_machines_own_listener_is_found() -> None:
    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))  # noqa: S104 - for a moment, and nobody is answered
        one.listen(1)
        found = listening.listeners(ThisMachine(), "here", InMemory())  # type: ignore[arg-type]
        assert ("*", one.getsockname()[1]) in found


def test_what_is_tried_of_a_host_is_planned_registered_or_listens() -> None:
    assert {53, 3211, 9091, 2375, 5432, 4646} <= exposure.PLANNED
    assert exposure.ports({8300}, {("*", 9256)}) == exposure.PLANNED | {8300, 9256}
    at = exposure.listened({"c1": "100.64.0.3"}, {"c1": listening.parse(LISTING)})
    assert at == {"c1": {22, 4646, 9256}}


def registry(discovery: str) -> Any:
    def instances(name: str) -> list[Service]:
        return [
            Service(
                "id",
                name,
                "100.64.0.3",
                {"gvfx-convex-site": 3211, "nowhere": 0}.get(name, 25001),
                None,
                True,
            )
        ]

    consul = SimpleNamespace(
        services=lambda: {"gvfx-convex-site", "nowhere", "gvfx-worker"}, instances=instances
    )
    return SimpleNamespace(
        config=SimpleNamespace(gvfx_discovery=discovery), consul=consul, instances=instances
    )


def test_every_service_of_the_catalogue_counts_not_only_the_plans() -> None:
    assert exposure.registered_ports(registry("consul")) == {3211, 25001}
    assert exposure.registered_ports(registry("nomad")) == {25001}


class Network:
    """Hosts of every role; what is open, to whom, and what each says that it listens on."""

    def __init__(self) -> None:
        self.open: dict[reach.End, set[str]] = {}
        self.listing: dict[str, str] = {}
        self.deaf: set[str] = set()
        self.filter: object = None
        self.tried: dict[str, set[reach.End]] = {}
        self._needed = {(one.source, one.end) for one in NEEDED}

    def _answer(self, host: str, end: reach.End) -> ConnectState:
        if end == ("10.77.0.30", 8443) or host in self.open.get(end, set()) or (host, end) in self._needed:
            return "open"
        return "refused" if end[0] in self.deaf else "silent"

    def names(self, role: str | None = None) -> list[str]:
        return BY_ROLE[str(role)]

    def tailnet_address(self, host: str) -> str | None:
        return WHERE.get(host)

    def underlay_address(self, host: str) -> str:
        return f"10.77.0.{list(WHERE).index(host) + 1}"

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if argv == listening.LIST:
            said = self.listing.get(host, f"LISTEN 0 1 {WHERE[host]}:4646 0.0.0.0:*")
            return Completed(0 if said else 1, said, "")
        if argv[0] == "curl":
            rules = argv[-1].endswith("/debug-packet-filter-rules")
            return Completed(0, json.dumps(self.filter if rules else {"BackendState": "Running"}), "")
        ends = [(end.rpartition(":")[0], int(end.rpartition(":")[2])) for end in argv[5:]]
        self.tried.setdefault(host, set()).update(ends)
        return Completed(0, "\n".join(f"{self._answer(host, end)} {end[0]}:{end[1]}" for end in ends), "")


def reached(network: Network) -> Findings:
    target = registry("consul")
    target.hosts, target.record = network, InMemory()
    target.tailnet = SimpleNamespace(nodes=lambda: REGISTERED)
    target.config.gvfx_outside_control = "10.77.0.30:8443"
    target.config.gvfx_tailnet_cidr = "100.64.0.0/10"
    found, _ = reach.inspect(cast("ControlPlane", SimpleNamespace(target=target)))
    return found


def test_nothing_that_listens_answers_a_stranger() -> None:
    network = Network()
    network.listing["c1"] = "LISTEN 0 1 100.64.0.3:38001 0.0.0.0:*\nLISTEN 0 1 *:9256 *:*"
    assert reached(network) == NOTHING
    # Exits try it by the tailnet, where its own host's word is the control; the outsider below it as well.
    for port in (38001, 9256):
        assert ("100.64.0.3", port) in network.tried["exit1"] & network.tried["out"]
    below = {port for address, port in network.tried["out"] if address == network.underlay_address("c1")}
    assert below == exposure.PLANNED | {3211, 25001, 38001, 9256}
    assert not [end for end in network.tried["legacy"] if end[1] == 38001], (
        "tailscale itself answers its peers"
    )


def test_an_unplanned_listener_that_answers_is_seen_by_its_hosts_word_alone() -> None:
    for end, who, words in (
        (("10.77.0.3", 9256), "out", "out -> c1 below the tailnet:9256 is open, forbidden"),
        (("100.64.0.3", 9256), "exit1", "exit1 -> c1:9256 is open, forbidden"),
        (("10.77.0.3", 2375), "out", "out -> c1 below the tailnet:2375 is open, forbidden"),
        (("10.77.0.3", 25001), "out", "out -> c1 below the tailnet:25001 is open, forbidden"),
    ):
        network = Network()
        network.open[end] = {who}
        network.listing["c1"] = "LISTEN 0 1 *:9256 *:*"
        assert words in reached(network).broken
    # Nobody listens there: below the tailnet a host may say so.
    network = Network()
    network.deaf = {"10.77.0.3"}
    assert reached(network) == NOTHING


def test_a_host_that_does_not_say_where_it_listens_leaves_the_rule_open() -> None:
    network = Network()
    network.listing["c1"] = ""
    found = reached(network)
    assert not found.broken and any("listeners of c1" in one for one in found.missing)


# -- leaving by exits ------------------------------------------------------------------------------------

TAILNET = (ipaddress.ip_network("100.64.0.0/10"), leaving.TAILNET_V6)
INTERNET = ["0.0.0.0/5", "8.0.0.0/7", "203.0.113.0/24", "2000::/3"]
MEMBER = {"id": 9, "name": "gvfx-worker-c3", "forced_tags": [tailnet.WORKER], "ip_addresses": ["100.64.0.9"]}


def rule(*who: str, to: Sequence[str] = INTERNET) -> dict[str, Any]:
    """A rule as headscale sends it and tailscaled shows it."""
    return {
        "SrcIPs": list(who),
        "DstPorts": [{"IP": one, "Ports": {"First": 0, "Last": 65535}} for one in to],
    }


def left(rules: list[dict[str, Any]] | None, nodes: list[dict[str, Any]]) -> Findings:
    return leaving.judge("exit1", leaving.sources(rules or (), TAILNET), nodes)


def test_only_the_worker_may_leave() -> None:
    to_the_exit = rule("100.64.0.9/32", to=["100.64.0.5/32", "fd7a:115c:a1e0::5/128"])
    assert (
        left([to_the_exit, rule("100.64.0.9/32", "fd7a:115c:a1e0::9/128")], [*REGISTERED, MEMBER]) == NOTHING
    )
    # Who may talk to the exit itself may not therefore go on.
    assert left([rule("*", to=["100.64.0.5"]), rule("100.64.0.9")], [*REGISTERED, MEMBER]) == NOTHING
    # No worker has come yet: the filter is empty, which lets nobody out.
    assert left([], REGISTERED) == left(None, REGISTERED) == NOTHING


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ([rule("0.0.0.0/0", "::/0")], {"s1", "s3", "c1", "c3", "exit1"}),
        ([rule("*", to=["*"])], {"s1", "s3", "c1", "c3", "exit1"}),
        ([rule("100.64.0.3/32", to=["198.51.100.80/32"])], {"c1"}),
        ([rule("100.64.0.1-100.64.0.3", to=["0.0.0.0-9.255.255.255"])], {"s1", "s3", "c1"}),
        ([rule("fd7a:115c:a1e0::4/128", to=["2000::/3"])], {"c3"}),
        # In one rule with the worker, and also when an inner address is among the ends.
        ([rule("100.64.0.8/31", "100.64.0.4", to=["100.64.0.5/32", "10.0.0.0/8"])], {"c3"}),
    ],
)
def test_anybody_else_who_may(rules: list[dict[str, Any]], names: set[str]) -> None:
    found = left([*rules, rule("100.64.0.9")], [*REGISTERED, MEMBER])
    assert {one.split()[0] for one in found.broken} == names
    assert not found.missing


def test_a_filter_that_names_not_even_the_worker_proves_nothing() -> None:
    for rules in ([], None, [rule("100.64.0.9", to=["100.64.0.5"])]):
        found = left(rules, [*REGISTERED, MEMBER])
        assert not found.broken and "lets no worker out" in found.missing[0]


@pytest.mark.parametrize(
    "answer",
    ['[{"DstPorts": [{"IP": "0.0.0.0/0"}]}]', '[{"SrcIPs": ["cap:x"], "DstPorts": [{"IP": "*"}]}]',
     '[{"SrcIPs": ["*"], "DstPorts": [{}]}]', '["x"]', "7", "{}", "debug access denied", ""],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_is_not_an_empty_one(answer: str) -> None:
    with pytest.raises(ProbeError):
        leaving.allowed(Said(Completed(0, answer, "")), "exit1", "100.64.0.0/10")  # type: ignore[arg-type]


def test_the_reach_of_the_tailnet_includes_who_may_leave() -> None:
    network = Network()
    network.filter = [rule("100.64.0.1/32")]
    assert "s1 may leave the tailnet by exit1" in reached(network).broken
    network.filter = "denied"
    assert any("filter of exit1" in one for one in reached(network).missing)


class ThisMachine:
    """Runs what a host would."""

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ports() -> Iterator[dict[ConnectState, int]]:
    """A port on which somebody listens, one on which nobody does, and one whose queue is full."""
    with socket.socket() as listening, socket.socket() as full, socket.socket() as free:
        for one in (listening, full, free):
            one.bind(("127.0.0.1", 0))
        listening.listen(8)
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield {
            "open": listening.getsockname()[1],
            "refused": free.getsockname()[1],
            "silent": full.getsockname()[1],
        }
        for one in waiting:
            one.close()


def test_what_becomes_of_a_connection(ports: dict[ConnectState, int]) -> None:
    ends = {("127.0.0.1", port): state for state, port in ports.items()}
    found = states(ThisMachine(), "here", ends, InMemory(), 0.5)  # type: ignore[arg-type]
    assert found == ends


def test_an_answer_about_every_end_or_none() -> None:
    with pytest.raises(ProbeError, match="1 of 2 unanswered"):
        states(
            Said(Completed(0, "open 127.0.0.1:1\nodd 127.0.0.1:2\n", "")),  # type: ignore[arg-type]
            "here", [("127.0.0.1", 1), ("127.0.0.1", 2)], InMemory(), 0.1,
        )  # fmt: skip


# -- volumes ---------------------------------------------------------------------------------------------


def job(name: str, *sources: str, role: str = "") -> dict[str, Any]:
    group = {
        "Name": "g", "Count": 1, "Tasks": [],
        "Volumes": {one: {"Type": "host", "Source": one, "ReadOnly": False} for one in sources},
    }  # fmt: skip
    constraint = {"LTarget": "${meta.role}", "Operand": "=", "RTarget": role}
    return {"ID": name, "TaskGroups": [group], "Constraints": [constraint] if role else None}


def volume(*names: str, read_only: bool = False) -> dict[str, Any]:
    return {name: {"Path": f"/srv/gvfx/{name}", "ReadOnly": read_only} for name in names}


def test_volumes_on_the_nodes_that_need_them() -> None:
    data = node("c1", "100.64.0.5", HostVolumes=volume(*volumes.DATA))
    other = node("c2", "100.64.0.6")
    one, two = (
        node(name, f"100.64.0.{n}", Meta={"role": "egress"}, HostVolumes=volume("gvfx-tailscale"))
        for n, name in enumerate(("c3", "c4"), 7)
    )
    jobs = [job("gvfx-postgres", "gvfx-postgres"), job("gvfx-worker", "gvfx-tailscale", role="egress")]
    assert volumes.judge_nodes(jobs, [data, other, one, two]) == NOTHING
    without = {**two, "HostVolumes": {}}
    assert "['c4']" in volumes.judge_nodes(jobs, [data, one, without]).broken[0]
    assert "on no node" in volumes.judge_nodes(jobs, [other, one, two]).broken[0]
    sealed = {**data, "HostVolumes": volume(*volumes.DATA, read_only=True)}
    assert "on no node" in volumes.judge_nodes(jobs, [sealed, one, two]).broken[0]
    # It is there, and its job may not go there.
    assert volumes.judge_nodes([job("x", "gvfx-postgres", role="egress")], [data, one]).broken


GB = 10**9
GOOD_DISK = FileSystem(100 * GB, 60 * GB, "a1", "initialised 5f6e")
CAPACITIES = {"gvfx-postgres": 20.0 * GB, "gvfx-objectstore": 50.0 * GB}


def test_file_systems() -> None:
    seen = {("c1", name): GOOD_DISK for name in (*volumes.DATA, "gvfx-tailscale")}
    assert volumes.judge_file_systems(seen, CAPACITIES) == NOTHING
    for bad, words in (
        (replace(GOOD_DISK, marker="-"), "carries no marker"),
        (replace(GOOD_DISK, marker=""), "carries no marker"),
        (replace(GOOD_DISK, marker="rubbish new"), "carries no marker"),
        (replace(GOOD_DISK, free=5 * GB), "5.0 % free"),
        (replace(GOOD_DISK, size=0, free=0), "0.0 % free"),
    ):
        found = volumes.judge_file_systems({("c1", "gvfx-objectstore"): bad}, CAPACITIES)
        assert any(words in one for one in found.broken), (bad, found)
    # A volume without data needs no marker and no capacity, but room.
    state = {("c3", "gvfx-tailscale"): FileSystem(GB, GB // 2, "b", "-")}
    assert volumes.judge_file_systems(state, CAPACITIES) == NOTHING


def test_volumes_on_one_file_system_share_its_size() -> None:
    disk = FileSystem(60 * GB, 50 * GB, "a1", "new")
    apart = {("c1", "gvfx-postgres"): disk, ("c1", "gvfx-objectstore"): replace(disk, id="a2")}
    assert volumes.judge_file_systems(apart, CAPACITIES) == NOTHING
    together = dict.fromkeys(apart, disk)
    assert "needs 70 GB" in volumes.judge_file_systems(together, CAPACITIES).broken[0]


@pytest.mark.parametrize("marker", ["initialised 5f6e\n", "new\n", None])
def test_a_real_file_system(tmp_path: Path, marker: str | None) -> None:
    if marker is not None:
        (tmp_path / volumes.MARKER).write_text(marker)
    found = volumes.file_system(ThisMachine(), "here", str(tmp_path))  # type: ignore[arg-type]
    assert found.size > found.free > 0
    assert found.marker == (marker or "-").strip()
    with pytest.raises(ProbeError):
        volumes.file_system(ThisMachine(), "here", str(tmp_path / "absent"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("end", "host"),
    [
        ("100.64.0.4:4646", "100.64.0.4"),
        ("100.64.0.4", "100.64.0.4"),
        ("[fd7a::1]:4648", "fd7a::1"),
        ("fd7a::1", "fd7a::1"),
        ("c1.test:4646", "c1.test"),
    ],
)
def test_an_end_is_a_host_with_or_without_its_port(end: str, host: str) -> None:
    """A client's gossip address has none."""
    assert tailnet._host(end) == host
