"""T1.12 against a small network: what is tried from outside is what is planned, registered or listened on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from acceptance import test_1_health as t1
from fixtures.errors import Unknown
from fixtures.observe import listening
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.readiness import exposure
from fixtures.target import names
from fixtures.target.capabilities import Completed
from fixtures.target.target import Target

End = tuple[str, int]
ROLES = {"server": ["s1"], "app": ["c1"], "outsider": ["out"], "ops": ["ops"]}
CONTROL = ("10.77.0.30", 8443)


class World:
    """One server and one app node, on both networks; `leaks` are open to the outsider."""

    def __init__(self) -> None:
        self.leaks: set[End] = {CONTROL}
        self.listing = "LISTEN 0 1 127.0.0.1:8500 0.0.0.0:*\nLISTEN 0 1 100.64.0.3:38001 0.0.0.0:*"
        self.tried: set[End] = set()
        self.hosts = self.consul = self
        self.record = InMemory()
        self.config = SimpleNamespace(gvfx_outside_control="10.77.0.30:8443", gvfx_discovery="consul")

    def names(self, role: str) -> list[str]:
        return ROLES.get(role, [])

    def tailnet_address(self, host: str) -> str:
        return {"s1": "100.64.0.1", "c1": "100.64.0.3"}[host]

    def underlay_address(self, host: str) -> str:
        return self.tailnet_address(host).replace("100.64.", "10.77.")

    def services(self) -> set[str]:
        return {*(job.service for job in names.SERVICES), "gvfx-convex-site", "gvfx-worker"}

    def instances(self, name: str) -> list[Service]:
        planned = {job.service: job.port for job in names.SERVICES}
        return [Service("id", name, "100.64.0.3", planned.get(name, 25001), None, True)]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if argv == listening.LIST:
            return Completed(0, self.listing, "")
        ends = [(address, int(port)) for address, _, port in (one.rpartition(":") for one in argv[4:])]
        if host == "out":
            self.tried |= set(ends)
        good = {end: host == "ops" or end in self.leaks for end in ends}
        lines = [f"{'open' if ok else 'closed'} {at}:{port}" for (at, port), ok in good.items()]
        return Completed(0, "\n".join(lines), "")


def tried(world: World) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    t1.test_nothing_answers_from_outside_the_tailnet(
        cast("Target", world), lambda **more: figures.update(more)
    )
    return figures


def test_every_port_of_every_source_is_tried_at_both_addresses() -> None:
    world = World()
    figures = tried(world)
    at = {address: {port for one, port in world.tried if one == address} for address, _ in world.tried}
    assert set(at) == {"100.64.0.1", "10.77.0.1", "100.64.0.3", "10.77.0.3", CONTROL[0]}
    assert {53, 3211, 25001, 38001} | exposure.PLANNED == at["10.77.0.3"] == at["100.64.0.3"]
    assert 8500 in at["10.77.0.1"], "planned, though it listens on loopback only"
    assert figures["endpoints"] == 4 * len(at["10.77.0.3"])


@pytest.mark.parametrize("port", [53, 3211, 9091, 25001, 38001])
def test_an_answer_at_any_of_them_is_one_too_many(port: int) -> None:
    world = World()
    world.leaks.add(("10.77.0.3", port))
    with pytest.raises(AssertionError, match=f"reachable from outside.*{port}"):
        tried(world)


def test_a_host_that_names_no_listener_leaves_it_open() -> None:
    world = World()
    world.listing = ""
    with pytest.raises(Unknown, match="none but on loopback"):
        tried(world)
