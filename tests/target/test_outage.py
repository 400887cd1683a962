from __future__ import annotations

import pytest

from fixtures.errors import FaultError, UndoError
from fixtures.observe.nomad_types import Allocation
from fixtures.observe.recording import InMemory
from fixtures.target import outage
from fixtures.target.capabilities import Completed

ALLOC = Allocation("a1", "gvfx-convex", "g", "n", "c1", "run", "running", 1, True, 0.0)


class Docker:
    """A host whose container can be paused."""

    def __init__(self, *, pausable: bool = True, thaws: bool = True) -> None:
        self.pausable, self.thaws = pausable, thaws
        self.state = "running"
        self.timers: list[str] = []

    def names(self, role: str | None = None) -> list[str]:
        return ["c1"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        assert host == "c1"
        assert "convex-a1" in argv
        if argv[0] == "sh":
            self.timers.append(argv[-1])
            if not self.pausable:
                return Completed(1, "", "No such container")
            self.state = "paused"
        elif argv[1] == "unpause" and self.thaws:
            self.state = "running"
        return Completed(0, self.state if argv[1] == "inspect" else "", "")

    def tailnet_address(self, host: str) -> str | None:
        return None

    def underlay_address(self, host: str) -> str:
        return ""


def test_paused_inside_and_running_afterwards_even_after_a_failure() -> None:
    docker, record = Docker(), InMemory()
    with (
        pytest.raises(AssertionError, match="body"),
        outage.paused(docker, ALLOC, "convex", record, at_most=20.0),
    ):
        assert docker.state == "paused"
        raise AssertionError("body")
    assert docker.state == "running"
    assert docker.timers == ["20"]
    phases = [event.data["phase"] for event in record.events if event.kind == "fault"]
    assert phases == ["intent", "applied", "undone", "verified"]


def test_the_timer_is_started_before_the_pause() -> None:
    assert outage._PAUSE.index("unpause") < outage._PAUSE.index("docker pause")


def test_a_container_that_cannot_be_paused() -> None:
    with (
        pytest.raises(FaultError, match="No such container"),
        outage.paused(Docker(pausable=False), ALLOC, "convex", InMemory(), at_most=20.0),
    ):
        pytest.fail("the body must not run")


def test_an_undo_that_is_not_seen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(UndoError),
        outage.paused(Docker(thaws=False), ALLOC, "convex", InMemory(), at_most=-5.0),
    ):
        pass
