"""The pairs a browser gets, of the stand-in as it was built, and of what a bundler makes of the application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from fixtures.errors import Unknown
from fixtures.observe.http import HttpProbe
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.rehearsal import images
from fixtures.rollout import bundle
from fixtures.target.pairs import PLAN_CRYPTO, PLAN_GOLD
from fixtures.workloads.frontend import bundle as built
from fixtures.workloads.frontend.app import create_app
from fixtures.workloads.jsonlog import Log

EVERY = (*PLAN_GOLD, *PLAN_CRYPTO)
INSTANCE = Service("f1", "gvfx-frontend", "10.0.0.1", 3000, None, True)
BASE = "http://10.0.0.1:3000/"


def target(pages: httpx.MockTransport) -> Any:
    return cast("Any", SimpleNamespace(http=HttpProbe(InMemory(), pages)))


def standin(scripts: Mapping[str, str]) -> Any:
    app = create_app(upstream=None, token="", timeout=1, log=Log("frontend"), scripts=scripts)

    async def ask(url: httpx.URL) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            return await client.get(url)

    def answer(request: httpx.Request) -> httpx.Response:
        found = asyncio.run(ask(request.url))
        return httpx.Response(found.status_code, text=found.text)

    return target(httpx.MockTransport(answer))


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    """What the image of the frontend holds."""
    images._fill_bundle(tmp_path)
    return tmp_path / built.BAKED.relative_to("/")


def test_the_page_of_the_image_has_the_plans_pairs_whatever_the_job_sets(
    baked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXT_PUBLIC_MARKET_GOLD_PAIRS", "XAUTUSDT")
    assert bundle.problem(standin(built.scripts(baked)), INSTANCE, EVERY) == ""


def test_an_image_built_without_a_pair_is_seen(baked: Path) -> None:
    served = standin(built.scripts(baked, lacking=["paxg-usdt"]))
    assert bundle.problem(served, INSTANCE, EVERY).endswith("has ['PAXGUSDT']")


def test_a_page_without_scripts_tells_nothing(tmp_path: Path) -> None:
    nothing = built.scripts(tmp_path / "none")
    assert nothing == {}
    with pytest.raises(Unknown, match="loads no script"):
        bundle.problem(standin(nothing), INSTANCE, EVERY)


def test_a_script_that_is_not_served_is_a_fault() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        page = '<script src="/_next/static/chunks/gone.js"></script>'
        return httpx.Response(200, text=page) if request.url.path == "/" else httpx.Response(404)

    with pytest.raises(AssertionError, match=r"gone\.js: 404"):
        bundle.problem(target(httpx.MockTransport(answer)), INSTANCE, EVERY)


def test_scripts_of_a_page_are_those_it_loads_and_those_its_data_names() -> None:
    page = (
        '<head><script src="/_next/static/chunks/main-1.js" async=""></script><script src="https://cdn.test/a.js">'
        '</script><link href="/_next/static/chunks/linked.js"></head><body>text "LINK-USDT"<script>'
        'self.__next_f.push([1,"3:I[9,[\\"931\\",\\"static/chunks/app/(site)/page-2.js\\"],\\"\\"]"])</script>'
        '<script src="/_next/static/chunks/main-1.js"></script></body>'
    )
    addresses, inline = bundle.scripts(page, BASE)
    own = [f"{BASE}_next/static/chunks/{name}" for name in ("main-1.js", "app/(site)/page-2.js")]
    assert addresses == own
    assert "__next_f" in inline and "LINK-USDT" not in inline


@pytest.mark.parametrize(
    "text",
    [
        'a="Gold-USDT,XAUTUSDT,PAXGUSDT"', "a=['Gold-USDT', 'XAUTUSDT', 'PAXGUSDT']",
        "a=`Gold-USDT, XAUTUSDT,PAXGUSDT`", r'push("x:{\"gold\":\"Gold-USDT,XAUTUSDT,PAXGUSDT\"}")',
    ],
)  # fmt: skip
def test_a_pair_stands_in_a_string_alone_or_among_others(text: str) -> None:
    assert bundle.lacking(text, PLAN_GOLD) == []
    for pair in PLAN_GOLD:
        assert bundle.lacking(text.replace(pair, "DOGE-USDT"), PLAN_GOLD) == [pair]


@pytest.mark.parametrize(
    "text", ["", "a.BTC-USDT", '"XBTC-USDT"', '"BTC-USDT2"', '"btc-usdt"', '"/BTC-USDT/"']
)
def test_anything_else_is_not_the_pair(text: str) -> None:
    assert bundle.lacking(text, ["BTC-USDT"]) == ["BTC-USDT"]
