"""The rehearsal's hosts as data: nobody shares a name or an address, and the plan's roles are filled."""

from __future__ import annotations

import ipaddress
from collections import Counter

from fixtures.rehearsal import topology
from fixtures.rehearsal.capabilities import role
from fixtures.rehearsal.machines import _NETWORKS
from fixtures.rehearsal.topology import BY_NAME, HOSTS, SOURCES, VOLUMES, hosts_of

DOCUMENTATION = [ipaddress.ip_network(one) for one in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]


def test_names_and_addresses_are_unique() -> None:
    addresses = [one for host in HOSTS for one in (host.underlay, host.public) if one]
    addresses += [gateway for _, gateway in _NETWORKS.values()]
    assert not [one for one, count in Counter(addresses).items() if count > 1]
    assert len(BY_NAME) == len(HOSTS) == 16


def test_every_address_lies_in_its_network_and_the_internet_is_only_pretended() -> None:
    underlay, internet = ipaddress.ip_network(topology.UNDERLAY), ipaddress.ip_network(topology.INTERNET)
    assert underlay.is_private
    for host in HOSTS:
        assert host.underlay or host.public, host.name
        assert not host.underlay or ipaddress.ip_address(host.underlay) in underlay, host.name
        assert not host.public or ipaddress.ip_address(host.public) in internet, host.name
    for outside in (topology.ECHO, topology.EXCHANGE, topology.INTERNET_HOST, topology.WRONG_ADDRESS):
        assert any(ipaddress.ip_address(outside) in one for one in DOCUMENTATION), outside


def test_networks_do_not_overlap() -> None:
    names = (topology.UNDERLAY, topology.INTERNET, topology.TAILNET, topology.POD_CIDR)
    networks = [ipaddress.ip_network(one) for one in names]
    assert not [(a, b) for a in networks for b in networks if a is not b and a.overlaps(b)]
    assert ipaddress.ip_address(topology.POD_GATEWAY) in ipaddress.ip_network(topology.POD_CIDR)


def test_the_plans_roles_are_filled() -> None:
    assert Counter(filter(None, map(role, HOSTS))) == {
        "server": 2, "witness": 1, "app": 2, "egress": 2, "legacy": 1, "outsider": 1, "ops": 1,
    }  # fmt: skip
    assert {host.node_class for host in hosts_of("client")} == {"app", "egress-worker"}
    witness = [host for host in HOSTS if "tag:gvfx-witness" in host.tags]
    assert [(host.role, host.kind) for host in witness] == [("witness", "server")]


def test_every_cluster_host_is_on_the_tailnet_and_the_outsider_is_not() -> None:
    assert all(host.on_tailnet for host in HOSTS if host.in_cluster)
    assert not BY_NAME["outsider"].on_tailnet
    # Nothing of the cluster has a foot on the pretend internet; its way out is an exit or the wrong gateway.
    assert not [host.name for host in HOSTS if host.in_cluster and host.public]


def test_each_source_the_internet_tells_apart_is_another_address() -> None:
    assert sorted(SOURCES.values()) == ["exit1", "exit2", "legacy", "wrong"]
    assert len(SOURCES) == 4 and None not in SOURCES
    assert SOURCES[topology.WRONG_ADDRESS] == "wrong"


def test_a_stateful_volume_is_the_same_wherever_it_is() -> None:
    """Else a job that moves would come up empty."""
    for name in topology.STATEFUL_VOLUMES:
        where, together = VOLUMES[name]
        assert len(where) >= 2 and together, name
    assert all(BY_NAME[host].kind == "client" for where, _ in VOLUMES.values() for host in where)
