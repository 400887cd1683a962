from __future__ import annotations

import pytest

from fixtures.errors import ProbeError
from fixtures.observe import containers
from fixtures.observe.containers import Container
from fixtures.observe.processes import CONTROL
from fixtures.observe.recording import InMemory
from fixtures.target.capabilities import Completed

ID = "a" * 64
ALLOC = "11111111-2222-3333-4444-555555555555"


class Host:
    """Answers a listing."""

    def __init__(self, listing: str, code: int = 0) -> None:
        self.listing, self.code = listing, code

    def names(self, role: str | None = None) -> list[str]:
        return ["c1"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        return Completed(self.code, self.listing, "no engine" if self.code else "")

    def tailnet_address(self, host: str) -> str | None:
        return None

    def underlay_address(self, host: str) -> str:
        return ""


def test_the_engines_listing() -> None:
    host = Host(f"{ID} {ALLOC} api-{ALLOC}\n{'b' * 64} {ALLOC} nomad_init_{ALLOC}\n")
    found = containers.running(host, "c1", InMemory())
    assert found[0] == Container(ID, ALLOC, f"api-{ALLOC}")
    assert len(found) == 2
    assert containers.running(Host(""), "c1", InMemory()) == ()


@pytest.mark.parametrize(
    "host", [Host("", 1), Host("Cannot connect to the Docker daemon"), Host(f"{ID}  api")]
)
def test_an_engine_that_does_not_say_is_no_empty_engine(host: Host) -> None:
    with pytest.raises(ProbeError):
        containers.running(host, "c1", InMemory())


def listing(*argv: tuple[str, ...]) -> str:
    own = ("sh", "-c", "x", CONTROL)
    return "".join(
        f"/proc/{pid}/cmdline:" + "\0".join(words) + "\0\n"
        for pid, words in enumerate([("init",), own, *argv], 1)
    )


def test_the_process_table_shows_who_holds_containers() -> None:
    shim = ("/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", ID, "-address", "/run/x")
    cheat = ("python3", "containerd-shim-runc-v2", "-id", "b" * 64)
    cut = ("containerd-shim-runc-v2", "-id")
    assert containers.held(Host(listing(shim, cheat, cut)), "c1") == {ID}
    assert containers.held(Host(listing()), "c1") == frozenset()
    with pytest.raises(ProbeError, match="without the probe's own"):
        containers.held(Host("/proc/1/cmdline:init\0\n"), "c1")
