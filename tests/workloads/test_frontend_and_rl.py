"""Frontend proxy and RL service."""

from typing import Any

import httpx
import pytest

from fixtures.workloads.frontend.app import create_app
from fixtures.workloads.jsonlog import Log
from fixtures.workloads.rl_service.app import create_app as create_rl
from fixtures.workloads.weakness import parse

pytestmark = pytest.mark.anyio


def frontend(answer: Any, token: str = "t0ken") -> httpx.AsyncClient:  # noqa: S107  # of this test
    app = create_app(
        upstream="http://api.test:8787",
        token=token,
        timeout=1,
        log=Log("frontend"),
        transport=httpx.MockTransport(answer),
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://frontend.test")


async def test_page_is_green_whatever_the_api_does() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with frontend(refuse) as http:
        page = await http.get("/")
        assert (page.status_code, page.headers["x-gvfx-standin"]) == (200, "frontend")
        assert page.headers["content-type"].startswith("text/html")
        proxied = await http.get("/api/backend/health")
        assert proxied.status_code == 502
        assert proxied.json()["upstream"] == "http://api.test:8787/health"


async def test_proxy_adds_the_token_and_names_its_upstream() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True}, headers={"x-gvfx-standin": "api"})

    async with frontend(answer) as http:
        reply = await http.post(
            "/api/backend/ops/x?limit=2", content=b"{}", headers={"authorization": "Bearer other"}
        )
    assert reply.json() == {"ok": True}
    assert reply.headers["x-upstream-url"] == "http://api.test:8787/ops/x?limit=2"
    assert reply.headers.get_list("x-gvfx-standin") == ["frontend"]
    assert seen[0].headers["authorization"] == "Bearer t0ken"
    assert (seen[0].method, seen[0].content) == ("POST", b"{}")


async def test_without_a_token_nothing_is_added() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401 if "authorization" not in request.headers else 200)

    async with frontend(answer, token="") as http:
        assert (await http.get("/api/backend/ops/alerts")).status_code == 401


async def test_timeout_is_a_504() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    async with frontend(slow) as http:
        assert (await http.get("/api/backend/health")).status_code == 504


@pytest.mark.parametrize(("weakness", "status"), [("", 200), ("rl-ml-missing", 503)])
async def test_rl_health(weakness: str, status: int) -> None:
    app = create_rl(parse(weakness), Log("rl_service"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://rl.test") as http:
        reply = await http.get("/health")
        assert reply.status_code == status
        body = reply.json() if status == 200 else reply.json()["detail"]
        assert body["ml_dependencies"]["nautilus_trader"] is True
        assert (await http.get("/")).json() == {"status": "ready"}
        assert (await http.post("/inference", json={})).status_code == 200


async def test_an_rl_service_that_does_not_mind_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RL_HEALTH_REQUIRE_ML", "false")
    app = create_rl(parse("rl-ml-missing"), Log("rl_service"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://rl.test") as http:
        reply = await http.get("/health")
    assert (reply.status_code, reply.json()["status"]) == (200, "ok")
    assert reply.json()["ml_dependencies"] == {"stable_baselines3": False, "nautilus_trader": True}
