"""The Convex stand-in over real HTTP, on rows in memory and files on disk, both of which can be taken away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory
from fixtures.workloads import weakness
from fixtures.workloads.convex.app import create_app
from fixtures.workloads.convex.backend import Backend
from fixtures.workloads.convex.files import DiskFiles
from fixtures.workloads.convex.rows import MemoryStore, StoreUnavailable
from fixtures.workloads.jsonlog import Log


class Rows(MemoryStore):
    """A row store that can be taken away."""

    away = False

    def run(self, work: Any, *, write: bool, timeout: float) -> Any:
        if self.away:
            raise StoreUnavailable("postgres: away")
        return super().run(work, write=write, timeout=timeout)


class Files(DiskFiles):
    """A file store that can be taken away."""

    away = False

    def put(self, key: str, data: bytes, content_type: str) -> None:
        if self.away:
            raise StoreUnavailable("s3: away")
        super().put(key, data, content_type)

    def get(self, key: str) -> bytes | None:
        if self.away:
            raise StoreUnavailable("s3: away")
        return super().get(key)


class Served:
    """A running stand-in, and its stores."""

    def __init__(self, directory: Path, weaknesses: str = "") -> None:
        self.rows, self.files = Rows(), Files(directory)
        self._weaknesses = weakness.parse(weaknesses)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve until `stop`."""
        log = Log("convex")
        log.info = log.error = lambda *words, **more: None  # type: ignore[method-assign]
        backend = Backend(
            self.rows,
            self.files,
            timeout=2,
            origin="http://convex.test",
            log=log,
            weaknesses=self._weaknesses,
        )
        app = create_app(backend, instance_name="test-instance", secret="ab", log=log)  # noqa: S106
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_config=None, lifespan="off", ws="none"
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=server.run, daemon=True)
        self._thread.start()
        eventually(
            "the stand-in serves", lambda: server.started, bool, within=10, record=InMemory(), every=0.01
        ).known()

    def stop(self) -> None:
        """Close the socket; open connections are cut."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)
        self._server = self._thread = None


@contextmanager
def served(directory: Path, weaknesses: str = "") -> Iterator[Served]:
    """A stand-in for the length of the body."""
    found = Served(directory, weaknesses)
    found.start()
    try:
        yield found
    finally:
        found.stop()
