"""In-process stand-ins: the convex application over memory, reached through httpx without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.workloads import feeds, weakness
from fixtures.workloads.api.app import create_app as create_api
from fixtures.workloads.api.core import Api
from fixtures.workloads.convex.app import create_app as create_convex
from fixtures.workloads.convex.backend import Backend
from fixtures.workloads.convex.files import DiskFiles
from fixtures.workloads.convex.rows import MemoryStore, StoreUnavailable
from fixtures.workloads.convexclient import ConvexClient
from fixtures.workloads.jsonlog import Log
from fixtures.workloads.pairs import Pairs

SECRET = "0badc0de"  # noqa: S105  # of the in-process instance


@pytest.fixture
def anyio_backend() -> str:
    """All stand-ins run on asyncio."""
    return "asyncio"


class Switchable(MemoryStore):
    """A row store that can be taken away."""

    away = False

    def run(self, work: Any, *, write: bool, timeout: float) -> Any:
        """Fail loudly while away."""
        if self.away:
            raise StoreUnavailable("postgres: away")
        return super().run(work, write=write, timeout=timeout)


@pytest.fixture
def rows() -> Switchable:
    """The row store behind everything."""
    return Switchable()


@pytest.fixture
def convex_app(rows: Switchable, tmp_path: Path) -> Callable[..., Any]:
    """Builds the convex application with weaknesses."""

    def build(weaknesses: str = "") -> Any:
        backend = Backend(
            rows,
            DiskFiles(tmp_path),
            timeout=5,
            origin="http://convex.test",
            log=Log("convex"),
            weaknesses=weakness.parse(weaknesses),
        )
        return create_convex(backend, instance_name="test-instance", secret=SECRET, log=Log("convex"))

    return build


@pytest.fixture
def convex(convex_app: Callable[..., Any]) -> ConvexClient:
    """A client of the correct backend."""
    return ConvexClient("http://convex.test", 5, httpx.ASGITransport(app=convex_app()))


@pytest.fixture
def known_pairs() -> Pairs:
    """Two gold and one crypto pair; the gold ones share a symbol."""
    return Pairs(("Gold-USDT", "XAUTUSDT"), ("BTC-USDT",), ("Gold-USDT", "XAUTUSDT", "BTC-USDT"))


@pytest.fixture
def api_client(convex: ConvexClient, known_pairs: Pairs) -> Callable[..., httpx.AsyncClient]:
    """Builds an API over the in-process backend and a client of it."""

    def build(
        weaknesses: str = "", token: str = "", headers: dict[str, str] | None = None
    ) -> httpx.AsyncClient:
        api = Api(convex, known_pairs, weakness.parse(weaknesses), Log("api"), feeds.thresholds(), token)
        transport = httpx.ASGITransport(app=create_api(api), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers)

    return build


@pytest.fixture
def upload_secret() -> str:
    """The instance secret of the in-process backend."""
    return SECRET


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stand-in setting of the surrounding shell reaches a test."""
    for name in (weakness.ENV, "BINGX_MARKET_DATA_PAIRS", "MARKET_GOLD_PAIRS", "MARKET_CRYPTO_PAIRS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GVFX_FRESHNESS_SCALE", raising=False)
