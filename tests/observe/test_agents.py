"""Agents asked at their own addresses: whose token is sent, what is recorded, and what never leaves a function."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.agents import Agent, AgentProbe
from fixtures.observe.consul import ConsulProbe
from fixtures.observe.recording import InMemory
from fixtures.readiness.plane import ControlPlane, each, known, port_of
from fixtures.target import config
from fixtures.target.capabilities import CAPABILITIES
from fixtures.target.target import Target

SETTINGS = config.described(
    {
        "nomad_addr": "https://n:4646", "nomad_token": "own-nomad-token", "consul_http_addr": "https://c:8501",
        "consul_http_token": "own-consul-token",
    }
)  # fmt: skip
SERVER = Agent("nomad", "s1", "100.64.0.1", 4646, True, 4647, "server.global.nomad")
NAMELESS = Agent("consul", "c1", "100.64.0.5", 8501, False)


def test_each_agent_at_its_own_address_with_the_token_that_is_meant() -> None:
    seen: list[tuple[str, str | None, str | None, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(
            (
                str(request.url),
                request.headers.get("X-Nomad-Token"),
                request.headers.get("X-Consul-Token"),
                request.extensions.get("sni_hostname"),
            )
        )
        return httpx.Response(200, json={"secret": "of the agent"})

    record = InMemory()
    probe = AgentProbe(SETTINGS, record, httpx.MockTransport(answer))
    assert probe.get(SERVER, "/v1/agent/self") == {"secret": "of the agent"}
    probe.ask(SERVER, "/v1/jobs", token=None)
    probe.get(NAMELESS, "/v1/agent/self")
    assert seen == [
        ("https://100.64.0.1:4646/v1/agent/self", "own-nomad-token", None, "server.global.nomad"),
        ("https://100.64.0.1:4646/v1/jobs", None, None, "server.global.nomad"),
        ("https://100.64.0.5:8501/v1/agent/self", None, "own-consul-token", None),
    ]
    assert "of the agent" not in repr(record.events) and "token" not in repr(record.events)
    probe.close()


def test_a_refusal_is_an_answer_and_silence_is_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs":
            return httpx.Response(403, text="Permission denied\n")
        raise httpx.ConnectError("nobody there")

    probe = AgentProbe(SETTINGS, InMemory(), httpx.MockTransport(answer))
    assert probe.ask(SERVER, "/v1/jobs", token=None).said == "403 Permission denied"
    with pytest.raises(ProbeError, match="HTTP 403"):
        probe.get(SERVER, "/v1/jobs")
    with pytest.raises(ProbeError, match="nobody there"):
        probe.get(SERVER, "/v1/nodes")
    probe.close()


def test_keys_of_gossip_stay_where_they_are() -> None:
    body = [
        {"WAN": False, "Datacenter": "dc1", "NumNodes": 7, "Keys": {"kEy+one=": 7, "kEy+two=": 6}, "PrimaryKeys": {"kEy+one=": 7}},
        {"WAN": True, "Datacenter": "dc1", "NumNodes": 3, "Keys": {"kEy+one=": 3}, "PrimaryKeys": None},
    ]  # fmt: skip
    record = InMemory()
    probe = ConsulProbe(SETTINGS, record, httpx.MockTransport(lambda request: httpx.Response(200, json=body)))
    assert probe.keyrings() == [("LAN dc1", 7, [7]), ("WAN dc1", 3, [])]
    assert "kEy" not in repr(record.events)
    probe.close()


def test_questions_are_asked_at_once_and_those_without_answer_are_named() -> None:
    together = threading.Barrier(3, timeout=5)

    def question(number: int) -> int:
        together.wait()
        if number == 2:
            raise Unknown("agent 2", "away", "there")
        return number * number

    missing: list[str] = []
    assert known(each([1, 2, 3], question), missing) == [(1, 1), (3, 9)]
    assert missing == ["agent 2: away"]


def test_ports_of_urls() -> None:
    assert [port_of(one) for one in ("https://n:4646", "https://n", "http://n/")] == [4646, 443, 80]


MEMBERS: list[dict[str, Any]] = [
    {
        "Name": "s1.global",
        "Addr": "100.64.0.1",
        "Status": "alive",
        "Tags": {"port": "4647", "region": "global"},
    },
    {
        "Name": "s2.global",
        "Addr": "100.64.0.2",
        "Status": "failed",
        "Tags": {"port": "4647", "region": "global"},
    },
    {
        "Name": "s0.global",
        "Addr": "100.64.0.9",
        "Status": "left",
        "Tags": {"port": "4647", "region": "global"},
    },
    {"Name": "s1.away", "Addr": "100.64.9.1", "Status": "alive", "Tags": {"port": "4647", "region": "away"}},
]
CONSUL: list[dict[str, Any]] = [
    {"Name": "s1", "Addr": "100.64.0.1", "Status": 1, "Tags": {"role": "consul", "port": "8300"}},
    {"Name": "c1", "Addr": "100.64.0.5", "Status": 1, "Tags": {"role": "node"}},
    {"Name": "c2", "Addr": "100.64.0.6", "Status": 4, "Tags": {"role": "node"}},
    {"Name": "c3", "Addr": "100.64.0.7", "Status": 3, "Tags": {"role": "node"}},
]
NODES = [
    {"ID": "1", "Name": "c1", "HTTPAddr": "100.64.0.5:4646", "Status": "ready"},
    {"ID": "2", "Name": "s1", "HTTPAddr": "100.64.0.1:4646", "Status": "ready"},
    {"ID": "3", "Name": "c9", "HTTPAddr": "100.64.0.8:4646", "Status": "down"},
]


def test_who_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(SETTINGS, InMemory(), dict.fromkeys(CAPABILITIES, "none"), scratch=False, label="t")
    answers: dict[str, Any] = {
        "/v1/agent/self": {"config": {"Region": "global"}, "Config": {"Datacenter": "dc1"}},
        "/v1/agent/members": {"Members": MEMBERS},
    }
    monkeypatch.setattr(target.nomad, "_get", lambda path, **params: json.loads(json.dumps(answers[path])))
    monkeypatch.setattr(
        target.consul, "_get", lambda path: CONSUL if path.endswith("members") else answers[path]
    )
    monkeypatch.setattr(target.nomad._api.nodes, "get_nodes", lambda: NODES)
    monkeypatch.setattr(target.nomad._api.node, "get_node", lambda id_: NODES[int(id_) - 1])
    plane = ControlPlane(target)
    assert plane.servers == [SERVER]
    assert [one["Name"] for one in plane.members] == ["s1.global", "s2.global"]
    assert [(one.name, one.tls_name) for one in plane.clients] == [
        ("c1", "client.global.nomad"),
        ("s1", "client.global.nomad"),
    ]
    assert [(one.name, one.server) for one in plane.nomad] == [("s1", True), ("c1", False)]
    assert [(one.name, one.rpc_port, one.tls_name) for one in plane.consul] == [
        ("s1", 8300, "server.dc1.consul"),
        ("c1", None, ""),
    ]
    assert [one["Name"] for one in plane.consul_members] == ["s1", "c1", "c2"]
    plane.close()
    target.close()
