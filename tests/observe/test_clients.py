from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from fixtures.errors import ProbeError
from fixtures.observe.consul import ConsulProbe, dns_end, service
from fixtures.observe.convex import (
    ConvexError,
    ConvexFunctionError,
    ConvexGone,
    ConvexProbe,
    ConvexSilent,
)
from fixtures.observe.http import HttpProbe
from fixtures.observe.recording import InMemory
from fixtures.target import config

ALLOC = "11111111-2222-3333-4444-555555555555"
ENTRY: dict[str, Any] = {
    "Node": {"Node": "c1", "Address": "100.64.0.9"},
    "Service": {
        "ID": f"_nomad-task-{ALLOC}-group-api-gvfx-api-http",
        "Service": "gvfx-api",
        "Address": "100.64.0.1",
        "Port": 8787,
    },
    "Checks": [{"ServiceID": "", "Status": "passing"}, {"ServiceID": "x", "Status": "passing"}],
}


def test_a_catalogue_entry() -> None:
    found = service(ENTRY)
    assert (found.alloc_id, found.address, found.port, found.passing) == (ALLOC, "100.64.0.1", 8787, True)


@pytest.mark.parametrize(
    ("checks", "passing"),
    [
        ([{"ServiceID": "x", "Status": "warning"}], False),
        ([{"ServiceID": "", "Status": "critical"}, {"ServiceID": "x", "Status": "passing"}], False),
        ([{"ServiceID": "", "Status": "passing"}], None),
        ([], None),
    ],
)
def test_passing_needs_a_check_of_its_own(checks: list[dict[str, str]], passing: bool | None) -> None:
    assert service({**ENTRY, "Checks": checks}).passing is passing


@pytest.mark.parametrize(
    ("addresses", "host", "end"),
    [
        (
            ["tcp://100.64.0.1:53", "udp://127.0.0.1:53", "udp://100.64.0.1:53"],
            "100.64.0.1",
            ("100.64.0.1", 53),
        ),
        (["udp://127.0.0.1:8600"], "127.0.0.1", ("127.0.0.1", 8600)),
        (["udp://[::]:8600"], "100.64.0.1", ("100.64.0.1", 8600)),
        (["udp://0.0.0.0:8600"], "127.0.0.1", ("127.0.0.1", 8600)),
        (["udp://127.0.0.1:8600"], "100.64.0.1", None),
        (["tcp://100.64.0.1:53", "unix:///run/dns"], "100.64.0.1", None),
        ([], "100.64.0.1", None),
    ],
)
def test_where_an_agent_answers_dns(addresses: list[str], host: str, end: tuple[str, int] | None) -> None:
    assert dns_end(addresses, host) == end


def test_an_agent_without_dns_in_reach_is_unknown() -> None:
    settings = config.described({"nomad_addr": "http://n:1", "consul_http_addr": "http://100.64.0.1:1"})
    body = {"DebugConfig": {"DNSAddrs": ["udp://127.0.0.1:8600"]}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    with pytest.raises(ProbeError, match="in our reach"):
        ConsulProbe(settings, InMemory(), transport).dns()


def test_consul_refusals_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.described({"nomad_addr": "http://n:1", "consul_http_addr": "http://c:1"})
    transport = httpx.MockTransport(lambda request: httpx.Response(403, text="denied"))
    with pytest.raises(ProbeError, match="403"):
        ConsulProbe(settings, InMemory(), transport).services()


def convex(answer: Callable[[dict[str, Any]], httpx.Response]) -> tuple[ConvexProbe, InMemory]:
    record = InMemory()
    transport = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    return ConvexProbe("http://convex:3210/", record, transport), record


def success(value: Any) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "value": value, "logLines": []})


def test_convex_rows_and_writes() -> None:
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        asked.append(body)
        return success({"data": [{"id": "1", "marker": "m"}], "count": 1})

    probe, record = convex(answer)
    assert probe.rows("t", marker="m") == [{"id": "1", "marker": "m"}]
    assert probe.insert("t", {"marker": "m"})["id"] == "1"
    assert probe.delete("t", marker="m") == 1
    assert [body["path"] for body in asked] == ["data:query", "data:write", "data:write"]
    assert asked[0]["args"]["filters"] == [{"field": "marker", "op": "eq", "value": "m"}]
    assert [(e.kind, e.data.get("phase")) for e in record.events] == [
        ("probe", None), ("operation", "invoke"), ("operation", "ok"), ("operation", "invoke"),
        ("operation", "ok"),
    ]  # fmt: skip


def test_convex_failures_are_told_apart() -> None:
    probe, record = convex(
        lambda body: httpx.Response(200, json={"status": "error", "errorMessage": "no such function"})
    )
    with pytest.raises(ConvexFunctionError, match="no such function"):
        probe.mutation("x:y", {})
    assert record.events[-1].data["phase"] == "fail"
    probe, record = convex(lambda body: httpx.Response(503, text="away"))
    with pytest.raises(ConvexError, match="503"):
        probe.mutation("x:y", {})
    assert record.events[-1].data["phase"] == "unknown"


def test_convex_silence_is_told_from_an_answer() -> None:
    def silent(body: dict[str, Any]) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    probe, _ = convex(silent)
    with pytest.raises(ConvexSilent):
        probe.mutation("x:y", {})
    probe, _ = convex(lambda body: httpx.Response(503, text="away"))
    with pytest.raises(ConvexError) as caught:
        probe.mutation("x:y", {})
    assert not isinstance(caught.value, ConvexSilent)
    probe, _ = convex(lambda body: httpx.Response(200, text="no JSON"))
    with pytest.raises(ConvexError) as caught:
        probe.mutation("x:y", {})
    assert not isinstance(caught.value, ConvexSilent)


def test_convex_bytes_go_in_the_official_clients_format() -> None:
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        asked.append(body)
        return success({"storageId": "s"})

    probe, _ = convex(answer)
    assert probe.store_binary(b"\x00\xff") == "s"
    (body,) = asked
    assert body["path"] == "storage:storeBinaryFile" and body["format"] == "convex_encoded_json"
    assert body["args"] == [{"data": {"$bytes": "AP8="}, "contentType": "application/octet-stream"}]


@pytest.mark.parametrize(
    ("url", "status", "error"),
    [(None, 200, ConvexGone), ("http://c/f", 404, ConvexGone), ("http://c/f", 500, ConvexError)],
)
def test_a_file_that_is_gone_is_told_from_one_that_cannot_be_had(
    url: str | None, status: int, error: type[ConvexError]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return success(url) if request.method == "POST" else httpx.Response(status)

    probe = ConvexProbe("http://convex", InMemory(), httpx.MockTransport(answer))
    with pytest.raises(ConvexError) as caught:
        probe.fetch("s")
    assert type(caught.value) is error


def test_a_status_is_an_answer_and_silence_is_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/dead":
            raise httpx.ConnectError("refused")
        return httpx.Response(500, text="Internal Server Error")

    record = InMemory()
    probe = HttpProbe(record, httpx.MockTransport(answer))
    sample = probe.get("http://api/x", token=SecretStr("t"))
    assert (sample.status, sample.text) == (500, "Internal Server Error")
    with pytest.raises(ProbeError):
        sample.json()
    with pytest.raises(ProbeError, match="ConnectError"):
        probe.get("http://api/dead")
    assert [event.data["ok"] for event in record.events] == [True, False]
