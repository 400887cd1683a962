"""Answers of real agents (Nomad 1.11.2, Consul 1.22.2), cut to what is looked at; and nodes and jobs like theirs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fixtures.observe.agents import Agent

ADDRESSES = {"s1": "100.64.0.1", "s2": "100.64.0.2", "s3": "100.64.0.3"}


def server(name: str = "s1") -> Agent:
    """A Nomad server."""
    return Agent("nomad", name, ADDRESSES[name], 4646, True, 4647, "server.global.nomad")


def client(name: str = "c1", address: str = "100.64.0.5") -> Agent:
    """A Nomad client."""
    return Agent("nomad", name, address, 4646, False, None, "client.global.nomad")


def consul(name: str = "s1", *, is_server: bool = True) -> Agent:
    """A Consul agent."""
    return Agent(
        "consul", name, ADDRESSES.get(name, "100.64.0.5"), 8501, is_server, 8300 if is_server else None,
        "server.dc1.consul" if is_server else "",
    )  # fmt: skip


PEERS = " ".join(
    f"{{Suffrage:Voter ID:8b29de6f-41c5-27ee-9fe7-472c0853d34{n} Address:{address}:4647}}"
    for n, address in enumerate(ADDRESSES.values())
)

NOMAD: dict[str, Any] = {
    "config": {
        "Region": "global",
        "TLSConfig": {
            "CAFile": "/etc/host/tls/ca.pem",
            "EnableHTTP": True,
            "EnableRPC": True,
            "RPCUpgradeMode": False,
            "TLSMinVersion": "",
            "VerifyHTTPSClient": False,
            "VerifyServerHostname": True,
        },
        "AdvertiseAddrs": {"HTTP": "100.64.0.1:4646", "RPC": "100.64.0.1:4647", "Serf": "100.64.0.1:4648"},
        "Version": {"Version": "1.11.2", "VersionMetadata": "", "VersionPrerelease": ""},
    },
    "stats": {
        "nomad": {"server": "true", "leader": "true", "leader_addr": "100.64.0.1:4647", "known_regions": "1"},
        "serf": {"members": "3", "failed": "0", "encrypted": "true", "health_score": "0"},
        "raft": {"state": "Leader", "latest_configuration": f"[{PEERS}]", "num_peers": "2"},
    },
}

CONSUL: dict[str, Any] = {
    "Config": {"Datacenter": "dc1", "NodeName": "s1", "Server": True, "Version": "1.22.2"},
    "Stats": {"serf_lan": {"encrypted": "true"}, "serf_wan": {"encrypted": "true"}},
    "DebugConfig": {
        "HTTPAddrs": ["tcp://127.0.0.1:8500"],
        "HTTPSAddrs": ["tcp://100.64.0.1:8501"],
        "StaticRuntimeConfig": {"EncryptVerifyIncoming": True, "EncryptVerifyOutgoing": True},
        "TLS": {
            "InternalRPC": {
                "CAFile": "/etc/host/tls/ca.pem",
                "KeyFile": "hidden",
                "TLSMinVersion": "TLSv1_2",
                "VerifyIncoming": True,
                "VerifyOutgoing": True,
                "VerifyServerHostname": True,
            }
        },
    },
}

MEMBERS: list[dict[str, Any]] = [
    {
        "Name": f"{name}.global", "Addr": address, "Port": 4648, "Status": "alive",
        "Tags": {"port": "4647", "region": "global", "role": "nomad", "build": "1.11.2", "raft_vsn": "3"},
    }
    for name, address in ADDRESSES.items()
]  # fmt: skip

READING: dict[str, Any] = {
    "Agent": {"Policy": "read"},
    "ExtraKeysHCL": None,
    "HostVolumes": [{"Capabilities": ["mount-readonly"], "Name": "gvfx-*", "Policy": "read"}],
    "Namespaces": [
        {
            "Capabilities": [
                "list-jobs",
                "parse-job",
                "read-job",
                "read-logs",
                "read-fs",
                "host-volume-read",
            ],
            "Name": "default",
            "Policy": "read",
            "Variables": {"Paths": [{"Capabilities": ["list"], "PathSpec": "nomad/jobs/*"}]},
        }
    ],
    "Node": {"Policy": "read"},
    "NodePools": None,
    "Operator": {"Policy": "read"},
    "Plugin": {"Policy": "read"},
    "Quota": None,
    "Raw": 'capabilities = ["submit-job"] # text, not a right',
}
"""`RulesJSON` of the policy gvfx-suite."""


def changed(record: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value (path by dots) replaced."""
    found: dict[str, Any] = copy.deepcopy(dict(record))
    *steps, last = path.split(".")
    at: Any = found
    for step in steps:
        at = at[int(step)] if step.isdigit() else at[step]
    at[int(last) if last.isdigit() else last] = value
    return found


def node(name: str, address: str, **more: Any) -> dict[str, Any]:
    """A client as Nomad stores it."""
    record: dict[str, Any] = {
        "ID": f"{name:0>8}-0000-0000-0000-000000000000",
        "Name": name,
        "Datacenter": "dc1",
        "NodePool": "default",
        "NodeClass": "app",
        "HTTPAddr": f"{address}:4646",
        "Status": "ready",
        "SchedulingEligibility": "eligible",
        "DrainStrategy": None,
        "Attributes": {"consul.version": "1.22.2", "unique.consul.name": name, "nomad.version": "1.11.2"},
        "Meta": {"role": "app"},
        "Drivers": {"docker": {"Detected": True, "Healthy": True}},
        "HostVolumes": {},
        "NodeResources": {
            "Cpu": {"CpuShares": 6000},
            "Memory": {"MemoryMB": 6000},
            "Disk": {"DiskMB": 60000},
        },
        "ReservedResources": {"Cpu": {"CpuShares": 0}, "Memory": {"MemoryMB": 0}, "Disk": {"DiskMB": 0}},
    }
    return {**record, **more}
