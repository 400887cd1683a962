"""P0.1 to P0.5 and P0.10 on recorded answers: good ones pass, each seeded fault turns its rule red, silence is unknown."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import Unknown
from fixtures.observe.agents import Agent, Answer, Product
from fixtures.observe.nomad_types import Allocation, Service
from fixtures.observe.wire import Call, Handshake
from fixtures.readiness import acl, gossip, integration, placement, quorum, tls, versions
from fixtures.readiness.findings import Findings
from fixtures.readiness.plane import ControlPlane
from tests.readiness.recorded import (
    ADDRESSES,
    CONSUL,
    MEMBERS,
    NOMAD,
    READING,
    changed,
    client,
    consul,
    node,
    server,
)

NOTHING = Findings()


# -- deciding --------------------------------------------------------------------------------------------


def test_a_broken_rule_is_broken_whatever_else_is_missing() -> None:
    with pytest.raises(AssertionError, match="it is broken"):
        Findings(["it is broken"], ["not seen"]).decide("x", "y")
    with pytest.raises(Unknown, match="not seen"):
        Findings([], ["not seen"]).decide("x", "y")
    Findings().decide("x", "y")


def test_a_long_list_is_cut_and_counted() -> None:
    with pytest.raises(AssertionError, match="fault 5; and 2 more"):
        Findings([f"fault {n}" for n in range(8)] + ["fault 0"]).decide("x", "y")


# -- TLS -------------------------------------------------------------------------------------------------

HTTPS = "HTTP/1.0 400 Bad Request: Client sent an HTTP request to an HTTPS server."
GOOD = tls.Api(
    Handshake(None, ("server.global.nomad", "localhost")), Handshake("unable to get issuer"), HTTPS
)
DEMANDED = Call("refused", "TLSV13_ALERT_CERTIFICATE_REQUIRED")
HUNG_UP = Call("refused", "the server hung up")


def test_an_agent_that_proves_itself() -> None:
    assert tls.judge_api(server(), GOOD) == NOTHING
    assert tls.judge_api(server(), tls.Api(GOOD.trusted, GOOD.stranger, "")) == NOTHING
    assert tls.judge_rpc(server(), tls.Rpc(HUNG_UP, DEMANDED)) == NOTHING
    assert tls.judge_nomad_settings(server(), NOMAD) == NOTHING
    assert tls.judge_consul_settings(consul(), CONSUL) == NOTHING


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (tls.Api(Handshake("Hostname mismatch"), GOOD.stranger, HTTPS), "Hostname mismatch"),
        (tls.Api(Handshake(None, ("client.global.nomad",)), GOOD.stranger, HTTPS), "not server.global.nomad"),
        (tls.Api(GOOD.trusted, Handshake(None, ()), HTTPS), "trusts only another CA"),
        (tls.Api(GOOD.trusted, GOOD.stranger, 'HTTP/1.1 200 OK: "x"'), "answers plain HTTP"),
        (tls.Api(GOOD.trusted, GOOD.stranger, "HTTP/1.1 400 Bad Request: no such path"), "answers plain HTTP"),
        (tls.Api(GOOD.trusted, GOOD.stranger, "HTTP/1.1 403 Forbidden: Permission denied"), "answers plain"),
    ],
)  # fmt: skip
def test_an_agent_that_does_not(seen: tls.Api, words: str) -> None:
    found = tls.judge_api(server(), seen)
    assert any(words in one for one in found.broken), found


@pytest.mark.parametrize(
    ("plain", "bare", "broken", "missing"),
    [
        (Call("answered", "40 bytes"), DEMANDED, 1, 0),
        (HUNG_UP, Call("answered", "40 bytes"), 1, 0),
        (HUNG_UP, Call("unproven", "self-signed"), 1, 0),
        # The connection ended, but nobody said that a certificate was missing.
        (HUNG_UP, HUNG_UP, 0, 1),
        (Call("silent", "nothing"), DEMANDED, 0, 1),
        (HUNG_UP, Call("silent", "nothing"), 0, 1),
    ],
)
def test_calls_without_a_certificate(plain: Call, bare: Call, broken: int, missing: int) -> None:
    found = tls.judge_rpc(server(), tls.Rpc(plain, bare))
    assert (len(found.broken), len(found.missing)) == (broken, missing)


@pytest.mark.parametrize("name", ["EnableHTTP", "EnableRPC", "VerifyServerHostname", "RPCUpgradeMode"])
def test_each_setting_of_nomad_counts(name: str) -> None:
    said = changed(NOMAD, f"config.TLSConfig.{name}", name == "RPCUpgradeMode")
    assert name in tls.judge_nomad_settings(server(), said).broken[0]


def test_no_tls_at_all_is_seen_in_the_settings() -> None:
    assert tls.judge_nomad_settings(server(), changed(NOMAD, "config.TLSConfig", None)).broken


def test_each_setting_of_consul_counts() -> None:
    rpc = "DebugConfig.TLS.InternalRPC"
    for name in ("VerifyIncoming", "VerifyOutgoing", "VerifyServerHostname"):
        assert name in tls.judge_consul_settings(consul(), changed(CONSUL, f"{rpc}.{name}", False)).broken[0]
    # A client agent takes no RPC from anybody.
    a_client = consul("c1", is_server=False)
    assert tls.judge_consul_settings(a_client, changed(CONSUL, f"{rpc}.VerifyIncoming", False)) == NOTHING
    for listener in ("tcp://100.64.0.1:8500", "tcp://0.0.0.0:8500", "tcp://[::]:8500"):
        said = changed(CONSUL, "DebugConfig.HTTPAddrs", [listener])
        assert "plain HTTP" in tls.judge_consul_settings(consul(), said).broken[0]
    said = changed(CONSUL, "DebugConfig.HTTPAddrs", ["unix:///run/consul.sock", "tcp://[::1]:8500"])
    assert tls.judge_consul_settings(consul(), said) == NOTHING
    assert tls.judge_consul_settings(consul(), changed(CONSUL, "DebugConfig", None)).missing


# -- ACLs ------------------------------------------------------------------------------------------------

OK, DENIED, UNFOUND = Answer(200, {}), Answer(403, "Permission denied"), Answer(403, "ACL token not found")
OFF = Answer(401, "ACL support disabled")


@pytest.mark.parametrize(
    ("own", "none", "unknown", "broken", "missing"),
    [
        (OK, DENIED, UNFOUND, 0, 0),
        (OK, OK, UNFOUND, 1, 0),
        (OK, DENIED, OK, 1, 0),
        (OK, DENIED, Answer(500, "oops"), 0, 1),
        # Refused to everybody: nothing is learnt.
        (DENIED, DENIED, UNFOUND, 0, 1),
        # Without ACLs Consul's own status says Unauthorized.
        (OFF, OFF, OFF, 0, 3),
    ],
)
def test_reads(own: Answer, none: Answer, unknown: Answer, broken: int, missing: int) -> None:
    found = acl.judge_reads(server(), "/v1/jobs", own, {"without": none, "with one nobody has": unknown})
    assert (len(found.broken), len(found.missing)) == (broken, missing), found


def test_writes() -> None:
    write = acl.WRITES["nomad"][0]
    assert acl.judge_write(server(), write, DENIED, []) == NOTHING
    # Let through, and only then refused for what it says.
    assert acl.judge_write(server(), write, Answer(404, "job not found"), []).broken
    assert acl.judge_write(server(), write, Answer(200, {}), []).broken
    assert acl.judge_write(server(), write, OFF, []).broken
    assert acl.judge_write(server(), write, Answer(404, "job not found"), ["submit-job"]).missing


class Agents:
    """A probe of agents that refuse whoever may not; `lent` may be written by anybody at the named agents."""

    def __init__(self, lent: str = "", at: tuple[str, ...] = ()) -> None:
        self._lent, self._at = lent, at
        self.asked: list[tuple[str, str, str | None]] = []

    def own_token(self, product: Product) -> str:
        return "own"

    def ask(self, agent: Agent, path: str, *, token: str | None, method: str = "GET", **more: Any) -> Answer:
        if method == "GET":
            policy = {"Type": "client", "Policies": []}
            return Answer(200, policy) if token == "own" else DENIED  # noqa: S105
        self.asked.append((agent.name, path, token))
        if token is None and agent.name in self._at and path == self._lent:
            return Answer(500, "invalid scheduling eligibility")
        return DENIED if token in (None, "own") else UNFOUND


def inspected(probe: Agents) -> tuple[Findings, dict[str, int]]:
    plane = SimpleNamespace(
        probe=probe,
        nomad=[server("s1"), server("s3"), client()],
        consul=[consul("s1"), consul("s3")],
        target=SimpleNamespace(config=SimpleNamespace(gvfx_nomad_read_token=None)),
    )
    return acl.inspect(cast("ControlPlane", plane))


def test_a_stranger_tries_every_write_at_every_agent() -> None:
    probe = Agents()
    found, figures = inspected(probe)
    assert found == NOTHING
    assert figures["nomad_strange_writes_refused"] == 2 * 3 * len(acl.WRITES["nomad"])
    assert figures["consul_strange_writes_refused"] == 2 * 2 * len(acl.WRITES["consul"])
    for write in acl.WRITES["consul"]:
        tokens = [token for name, path, token in probe.asked if (name, path) == ("s3", write.path)]
        assert None in tokens and len(tokens) == 2 and "own" not in tokens


@pytest.mark.parametrize("write", [*acl.WRITES["nomad"], *acl.WRITES["consul"]], ids=lambda one: one.path)
def test_a_write_that_one_agent_lets_a_stranger_try_is_seen(write: acl.Write) -> None:
    """Reads are refused to him as before: an anonymous policy may allow the one without the other."""
    found, _ = inspected(Agents(write.path, at=("s3",)))
    assert found.broken == [
        f"{'nomad' if write in acl.WRITES['nomad'] else 'consul'} on s3: {write.method} {write.path} "
        "without a token: 500 invalid scheduling eligibility, not refused"
    ]


def test_rights_of_a_nomad_token() -> None:
    token = {"Type": "client", "Policies": ["gvfx-suite"]}
    assert acl.nomad_rights(token, {"gvfx-suite": READING}) == []
    assert acl.nomad_rights({"Type": "management"}, {}) == ["management token"]
    assert acl.nomad_rights(token, {"gvfx-suite": None}) == ["gvfx-suite: not readable"]
    for path, value in (
        ("Node.Policy", "write"),
        ("Namespaces.0.Policy", "write"),
        ("Namespaces.0.Capabilities", ["submit-job"]),
        ("Namespaces.0.Variables.Paths.0.Capabilities", ["list", "destroy"]),
        ("HostVolumes.0.Capabilities", ["mount-readwrite"]),
    ):
        assert acl.nomad_rights(token, {"p": changed(READING, path, value)}), path


def test_rights_of_a_consul_token() -> None:
    reading = 'agent_prefix "" { policy = "read" } operator = "read" keyring = "read"'
    assert acl.consul_rights({"suite": reading}) == []
    for rules in ('service_prefix "" { policy = "write" }', 'acl = "write"', '{"operator": "write"}'):
        assert acl.consul_rights({"p": rules}) == ["p: write"], rules
    assert acl.consul_rights({"p": None}) == ["p: not readable"]


def test_no_write_that_is_tried_could_change_anything() -> None:
    scale, eligibility, policy = acl.WRITES["nomad"]
    assert "gvfx-refusal-probe" in scale.path
    assert "00000000-0000" in eligibility.path and eligibility.body == {"Eligibility": "none"}
    assert isinstance(policy.body, dict) and "_" in policy.body["Name"], "an allowed name would be stored"
    key, nameless, nowhere = acl.WRITES["consul"]
    assert int(key.params["cas"]) > 2**62
    assert nameless.body == {"Name": "", "Rules": ""}
    assert nowhere.body == {"Node": "gvfx-refusal-probe"}


# -- gossip ----------------------------------------------------------------------------------------------


def test_gossip() -> None:
    assert gossip.judge_nomad(server(), NOMAD) == NOTHING
    assert gossip.judge_nomad(server(), changed(NOMAD, "stats.serf.encrypted", "false")).broken
    assert gossip.judge_nomad(server(), changed(NOMAD, "stats.serf", {})).missing
    assert gossip.judge_consul(consul(), CONSUL) == NOTHING
    for pool in ("serf_lan", "serf_wan"):
        assert gossip.judge_consul(consul(), changed(CONSUL, f"Stats.{pool}.encrypted", "false")).broken
    for name in ("EncryptVerifyIncoming", "EncryptVerifyOutgoing"):
        loose = changed(CONSUL, f"DebugConfig.StaticRuntimeConfig.{name}", False)
        assert name in gossip.judge_consul(consul(), loose).broken[0]
        silent = changed(CONSUL, f"DebugConfig.StaticRuntimeConfig.{name}", None)
        found = gossip.judge_consul(consul(), silent)
        assert not found.broken and name in found.missing[0]
    for absent in ("DebugConfig", "DebugConfig.StaticRuntimeConfig"):
        found = gossip.judge_consul(consul(), changed(CONSUL, absent, None))
        assert not found.broken and len(found.missing) == 2
    lan_only = changed(CONSUL, "Stats", {"serf_lan": {"encrypted": "true"}})
    assert gossip.judge_consul(consul("c1", is_server=False), lan_only) == NOTHING
    assert gossip.judge_consul(consul(), changed(CONSUL, "Stats", {})).missing


def test_one_primary_key_everywhere() -> None:
    assert gossip.judge_keyrings([("LAN dc1", 7, [7]), ("WAN dc1", 3, [3])]) == NOTHING
    for counts in ([6], [4, 3], []):
        assert gossip.judge_keyrings([("LAN dc1", 7, counts)]).broken


# -- integration -----------------------------------------------------------------------------------------

CONSUL_MEMBERS: list[dict[str, Any]] = [
    {"Name": name, "Addr": address, "Status": 1, "Tags": {"build": "1.22.2:abc", "role": "consul"}}
    for name, address in (*ADDRESSES.items(), ("c1", "100.64.0.5"))
]


def service(address: str, port: int, *, passing: bool | None = True) -> Service:
    return Service("id", "nomad", address, port, None, passing)


def test_every_agent_has_its_consul() -> None:
    alive = integration.members(CONSUL_MEMBERS)
    agents = [server("s1"), server("s2"), server("s3"), client()]
    assert integration.judge_members(agents, alive) == NOTHING
    dead = changed({"m": CONSUL_MEMBERS}, "m.3.Status", 4)["m"]
    assert "nomad on c1" in integration.judge_members(agents, integration.members(dead)).broken[0]
    moved = changed({"m": CONSUL_MEMBERS}, "m.3.Addr", "10.77.0.21")["m"]
    assert integration.judge_members(agents, integration.members(moved)).broken


def test_every_agent_is_registered() -> None:
    clients = [client(), client("c2", "100.64.0.6")]
    good = [service("100.64.0.5", 4646), service("100.64.0.6", 4646, passing=None)]
    assert integration.judge_services(clients, good, "nomad-client") == NOTHING
    for bad, words in (
        (good[:1], "not registered"),
        ([good[0], service("100.64.0.6", 4646, passing=False)], "not passing"),
        ([good[0], service("100.64.0.6", 4647)], "not registered"),
        ([*good, service("100.64.0.9", 4646)], "is no Nomad agent"),
        ([*good, service("100.64.0.5", 9101, passing=None)], "is no Nomad agent"),
        ([], "not registered"),
    ):
        found = integration.judge_services(clients, bad, "nomad-client")
        assert any(words in one for one in found.broken), (bad, found)
    servers = [service("100.64.0.1", port) for port in (4646, 4647, 4648)]
    assert integration.judge_services([server()], servers, "nomad", {4647, 4648}) == NOTHING
    # What is critical and belongs to nobody is a dead entry that nobody is sent to.
    gone = service("100.64.0.9", 4646, passing=False)
    assert integration.judge_services(clients, [*good, gone], "nomad-client") == NOTHING


def test_fingerprints_name_the_consul_beside_them() -> None:
    alive = integration.members(CONSUL_MEMBERS)
    mine = node("c1", "100.64.0.5")
    assert integration.judge_node(mine, alive) == NOTHING
    for key, value in (("consul.version", "1.21.0"), ("unique.consul.name", "s1")):
        other = {**mine, "Attributes": {**mine["Attributes"], key: value}}
        assert integration.judge_node(other, alive).broken
    assert integration.judge_node({**mine, "Attributes": {}}, alive).broken


# -- quorum ----------------------------------------------------------------------------------------------


def views(**more: dict[str, Any]) -> dict[Any, quorum.View]:
    """Of three servers that agree; `more` replaces the word of some."""
    found = {}
    for name in ADDRESSES:
        state = "Leader" if name == "s1" else "Follower"
        word = more.get(name) or changed(NOMAD, "stats.raft.state", state)
        found[server(name)] = quorum.view(word, MEMBERS)
    return found


def test_three_servers_that_agree() -> None:
    assert quorum.judge_servers(MEMBERS, views()) == NOTHING


FOLLOWER = changed(NOMAD, "stats.raft.state", "Follower")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        (changed(FOLLOWER, "stats.nomad.leader_addr", ""), "knows no leader"),
        (changed(FOLLOWER, "stats.nomad.leader_addr", "100.64.0.2:4647"), "different leaders"),
        (NOMAD, "2 servers say that they lead"),
        (
            changed(
                FOLLOWER, "stats.raft.latest_configuration",
                NOMAD["stats"]["raft"]["latest_configuration"].replace("Voter", "Nonvoter", 1),
            ),
            "voters",
        ),
        (
            changed(FOLLOWER, "stats.raft.latest_configuration", "[{Suffrage:Voter ID:x Address:100.64.0.1:4647}]"),
            "voters",
        ),
    ],
)  # fmt: skip
def test_a_server_of_another_mind(word: dict[str, Any], words: str) -> None:
    found = quorum.judge_servers(MEMBERS, views(s3=word))
    assert any(words in one for one in found.broken), found


def test_two_servers_a_dead_one_and_a_silent_one() -> None:
    assert "2 Nomad servers" in quorum.judge_servers(MEMBERS[:2], {}).broken[0]
    dead = changed({"m": MEMBERS}, "m.2.Status", "failed")["m"]
    assert any("s3.global is failed" in one for one in quorum.judge_servers(dead, views()).broken)
    assert quorum.judge_servers(MEMBERS, views(s2=changed(FOLLOWER, "stats.raft", {}))).missing
    alone = {server("s2"): quorum.view(FOLLOWER, dead)}
    assert any("sees members" in one for one in quorum.judge_servers(MEMBERS, alone).broken)


def test_a_leader_that_others_do_not_name() -> None:
    lone = changed(NOMAD, "stats.nomad.leader_addr", "")
    found = quorum.judge_servers(MEMBERS, views(s1=FOLLOWER, s2=lone))
    assert any("leads, others name" in one for one in found.broken), found


def test_autopilot() -> None:
    body = {"Healthy": True, "Servers": [{"Name": "s1.global", "Healthy": True, "Voter": True}]}
    assert quorum.judge_autopilot(Answer(200, body)) == NOTHING
    assert quorum.judge_autopilot(Answer(403, "Permission denied")) == NOTHING
    assert quorum.judge_autopilot(Answer(429, {"Healthy": False, "Servers": []})).broken
    sick = copy.deepcopy(body)
    sick["Servers"][0]["Voter"] = False  # type: ignore[index]
    assert quorum.judge_autopilot(Answer(200, sick)).broken


def allocation(node_id: str, name: str) -> Allocation:
    return Allocation("a" * 8, "gvfx-api", "api", node_id, name, "stop", "complete", 0, None, 0.0)


def test_the_witness_runs_nothing() -> None:
    servers = [server("s1"), server("s2"), server("s3")]
    nodes = [node("c1", "100.64.0.5"), node("c2", "100.64.0.6")]
    work = [allocation(nodes[0]["ID"], "c1")]
    assert quorum.judge_witness("s3", servers, nodes, work) == NOTHING
    assert "is no living Nomad server" in quorum.judge_witness("s9", servers, nodes, work).broken[0]
    marked = [{**nodes[0], "Meta": {"role": "witness"}}, nodes[1]]
    found = quorum.judge_witness("s3", servers, marked, work)
    assert "carries the role witness" in found.broken[0] and "allocation" in found.broken[1]
    for stands in (node("other", "100.64.0.3"), node("s3", "100.64.0.9")):
        found = quorum.judge_witness("s3", servers, [*nodes, stands], work)
        assert "stands on the witness" in found.broken[0], found
    # An allocation of a client that was purged since.
    assert quorum.judge_witness("s3", servers, nodes, [allocation("gone", "s3")]).broken


# -- versions --------------------------------------------------------------------------------------------


def test_one_supported_version() -> None:
    assert versions.judge("nomad", {"s1": "1.11.2", "c1": "1.11.2+ent"}) == NOTHING
    assert versions.judge("consul", {"s1": "1.22.2", "c1": "1.22.2"}) == NOTHING
    assert versions.nomad_version(NOMAD) == "1.11.2"
    assert (
        versions.nomad_version(changed(NOMAD, "config.Version.VersionPrerelease", "beta.1"))
        == "1.11.2-beta.1"
    )


def test_versions_that_differ_are_too_old_too_new_or_missing() -> None:
    assert "2 versions" in versions.judge("nomad", {"s1": "1.11.2", "c1": "1.11.1"}).broken[0]
    assert any("not supported" in one for one in versions.judge("nomad", {"s1": "1.9.7"}).broken)
    assert versions.judge("nomad", {"s1": "1.12.0"}).missing
    assert versions.judge("nomad", {"s1": ""}).missing
    assert any("not supported" in one for one in versions.judge("consul", {"s1": "1.11.2"}).broken)


@pytest.mark.parametrize(
    ("version", "issues"),
    [
        ("1.11.2", set()),
        ("1.10.4", set()),
        ("1.10.3", {"GH-26424"}),
        ("1.10.1", {"GH-25799", "GH-25923", "GH-25946", "GH-26424"}),
        ("1.10.0", {"GH-25698", "GH-25799", "GH-25923", "GH-25946", "GH-26424"}),
        ("1.9.0", {"GH-24165", "GH-24241", "GH-25698", "GH-25799", "GH-25923", "GH-25946", "GH-26424"}),
    ],
)
def test_known_bugs(version: str, issues: set[str]) -> None:
    said = versions.judge("nomad", {"s1": version}).broken
    assert {
        word for one in said for word in one.replace(":", " ").split() if word.startswith("GH-")
    } == issues


@given(st.tuples(st.integers(8, 11), st.integers(0, 20)), st.sampled_from(versions.BUGS))
def test_a_bug_that_was_mended_does_not_come_back_in_its_series(
    found: tuple[int, int], bug: versions.Bug
) -> None:
    minor, patch = found
    here, next_ = (placement.in_range(f"1.{minor}.{one}", bug.affected) for one in (patch, patch + 1))
    assert here or not next_
