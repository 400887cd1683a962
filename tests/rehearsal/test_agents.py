"""Configuration of the agents on every host: encrypted, denying by default, silent towards the outside."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fixtures.rehearsal import agents, credentials, tailnet
from fixtures.rehearsal.agents import Timers
from fixtures.rehearsal.cluster import CLIENTS, CLUSTER, SERVERS
from fixtures.rehearsal.topology import CONTROL, HOSTS, REGISTRY, VOLUMES, Host

ADDRESSES = {host.name: f"100.64.0.{number}" for number, host in enumerate(CLUSTER, 1)}
JOIN = [ADDRESSES[host.name] for host in SERVERS]
SECRETS = credentials.for_agents(credentials.generate())
HOST_NAME = re.compile(r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|io|net|org|dev)\b")
each_host = pytest.mark.parametrize("host", CLUSTER, ids=lambda host: host.name)


def consul(host: Host) -> dict[str, Any]:
    """As the agent reads it."""
    written = json.dumps(agents.consul(host, ADDRESSES[host.name], JOIN, SECRETS))
    found: dict[str, Any] = json.loads(written)
    return found


def nomad(host: Host, timers: Timers = "production") -> dict[str, Any]:
    """As the agent reads it."""
    written = json.dumps(agents.nomad(host, ADDRESSES[host.name], JOIN, SECRETS, timers, "pause:1"))
    found: dict[str, Any] = json.loads(written)
    return found


@each_host
def test_consul_is_encrypted_and_denies_by_default(host: Host) -> None:
    found = consul(host)
    assert found["encrypt"] == SECRETS.consul_gossip
    assert found["acl"]["enabled"] and found["acl"]["default_policy"] == "deny"
    tls = found["tls"]
    assert tls["defaults"]["verify_outgoing"]
    assert tls["internal_rpc"] == {"verify_incoming": True, "verify_server_hostname": True}
    assert found["bind_addr"] == found["advertise_addr"] == ADDRESSES[host.name]
    # Without TLS it answers its own host only.
    assert found["addresses"]["http"] == "127.0.0.1"


@each_host
def test_nomad_is_encrypted_and_asks_for_tokens(host: Host) -> None:
    found = nomad(host)
    assert found["acl"] == {"enabled": True}
    assert found["tls"]["http"] and found["tls"]["rpc"] and found["tls"]["verify_server_hostname"]
    assert set(found["advertise"].values()) == {found["bind_addr"]} == {ADDRESSES[host.name]}
    if host.kind == "server":
        assert found["server"]["encrypt"] == SECRETS.nomad_gossip
        assert found["server"]["bootstrap_expect"] == 3
        assert "client" not in found
    else:
        assert found["client"]["network_interface"] == "tailscale0"
        assert found["client"]["node_class"] == host.node_class
        assert not found["plugin"]["docker"]["config"]["allow_privileged"]
        assert set(found["client"]["host_volume"]) == {
            name for name, (where, _) in VOLUMES.items() if host.name in where
        }


@each_host
def test_the_role_is_the_hosts(host: Host) -> None:
    assert consul(host)["node_meta"] == {"role": host.role}
    if host.kind == "client":
        assert nomad(host)["client"]["meta"] == {"role": host.role}


@each_host
def test_nothing_calls_home(host: Host) -> None:
    both = (consul(host), nomad(host))
    for found in both:
        assert found["disable_update_check"] is True
        assert not HOST_NAME.findall(json.dumps(found))
    assert consul(host)["disable_remote_exec"] is True
    if host.kind == "client":
        denied = nomad(host)["client"]["options"]["fingerprint.denylist"].split(",")
        assert {"env_aws", "env_gce", "env_azure", "env_digitalocean"} <= set(denied)


def test_only_servers_know_the_management_token() -> None:
    for host in CLUSTER:
        text = json.dumps([consul(host), nomad(host)])
        assert (SECRETS.consul["management"] in text) == (host.kind == "server"), host.name


def test_production_timers_are_nomads_own() -> None:
    server = nomad(SERVERS[0])["server"]
    assert (server["heartbeat_grace"], server["min_heartbeat_ttl"]) == ("10s", "10s")
    short = nomad(SERVERS[0], "short")["server"]
    # A client may hang for 12 s on a dead server and must not be taken for dead meanwhile.
    assert int(short["heartbeat_grace"][:-1]) + int(short["min_heartbeat_ttl"][:-1]) > 12
    assert nomad(CLIENTS[0]) == nomad(CLIENTS[0], "short")


def test_every_consul_policy_has_a_token_and_no_policy_writes_keys() -> None:
    assert set(SECRETS.consul) == {"management", *agents.CONSUL_POLICIES}
    for name, rules in agents.CONSUL_POLICIES.items():
        assert rules.count("{") == rules.count("}"), name
        assert "key" not in rules.replace("keyring", ""), name
    assert "write" not in agents.CONSUL_POLICIES["suite"]


def test_the_inner_engine_pulls_from_the_rehearsals_registry_only() -> None:
    found = agents.docker_daemon()
    assert found["insecure-registries"] == [f"{REGISTRY}:5000"]
    assert "registry-mirrors" not in found
    assert found["bridge"] == "none"


def test_secrets_do_not_show() -> None:
    shown = repr(SECRETS)
    for secret in (SECRETS.nomad_gossip, SECRETS.consul_gossip, *SECRETS.consul.values()):
        assert secret not in shown


# -- the tailnet's control server ------------------------------------------------------------------------


def test_headscale_has_its_own_derp_map_and_calls_nobody() -> None:
    found = tailnet.headscale_config()
    derp = found["derp"]
    assert derp["urls"] == [] and derp["paths"] == [] and derp["auto_update_enabled"] is False
    assert derp["server"]["enabled"] and derp["server"]["verify_clients"]
    assert derp["server"]["automatically_add_embedded_derp_region"]
    assert found["disable_check_updates"] is True
    assert found["logtail"] == {"enabled": False}
    assert found["dns"]["nameservers"] == {"global": []} and not found["dns"]["override_local_dns"]
    assert found["server_url"].startswith(f"https://{CONTROL}:")
    assert found["tls_cert_path"] and found["tls_key_path"]
    assert not HOST_NAME.findall(json.dumps(found))


def test_the_policy_lets_only_the_worker_out() -> None:
    found = tailnet.policy(tag for host in HOSTS for tag in host.tags)
    rules = found["acls"]
    assert {rule["action"] for rule in rules} == {"accept"}
    outside = [rule for rule in rules if any("internet" in one or "exit" in one for one in rule["dst"])]
    assert [rule["src"] for rule in outside] == [[tailnet.WORKER_TAG]]
    assert found["autoApprovers"] == {"exitNode": ["tag:gvfx-exit"]}


def test_the_policy_names_no_unknown_tag_and_no_wildcard() -> None:
    found = tailnet.policy(tag for host in HOSTS for tag in host.tags)
    known = set(found["tagOwners"])
    assert tailnet.WORKER_TAG in known
    for rule in found["acls"]:
        assert set(rule["src"]) <= known
        for one in rule["dst"]:
            who, _, ports = one.rpartition(":")
            assert who in known | {"autogroup:internet"}
            assert ports != "*" or rule["src"] == [tailnet.WORKER_TAG]


@pytest.mark.parametrize(
    ("text", "names"), [("", []), ("null\n", []), ("[]", []), ('[{"name": "c1"}]', ["c1"])]
)
def test_nodes_of_an_empty_tailnet(text: str, names: list[str]) -> None:
    assert [one["name"] for one in tailnet.parse_nodes(text)] == names
