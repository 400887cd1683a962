"""When a component counts as away: never a moment before it was, never a moment after it is back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fixtures.errors import ProbeError, Unknown
from fixtures.rollout import absence
from fixtures.rollout.absence import Answer, Watch, knock
from fixtures.target import names
from fixtures.target.capabilities import Completed
from fixtures.target.target import Target


def test_a_knock() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert knock("127.0.0.1", port) == "refused"
        server.listen()
        assert knock("127.0.0.1", port) == "listening"


@pytest.mark.parametrize("error", [TimeoutError(), OSError(113, "No route to host"), ConnectionResetError()])
def test_silence_is_no_refusal(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def connect(place: object, timeout: float) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", connect)
    assert knock("a", 1) == "unclear"


class Clock:
    """Time that passes only in the calls that take some."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@settings(max_examples=200)
@given(
    down=st.floats(1.0, 5.0),
    length=st.floats(0.1, 6.0),
    lag=st.floats(0.0, 2.0),
    takes=st.lists(st.floats(0.001, 0.6), min_size=40, max_size=120),
    dull=st.sets(st.integers(0, 60)),
)
def test_an_absence_lies_within_the_true_one(
    down: float, length: float, lag: float, takes: Sequence[float], dull: set[int]
) -> None:
    """Listens until `down`, refuses for `length`, and listens again; its old container ends `lag` after `down`."""
    clock = Clock()
    asked = iter(range(10_000))
    rounds = iter(takes)

    def knocks() -> Sequence[Answer]:
        took = next(rounds)
        clock.now += took / 2
        gone = down <= clock.now < down + length
        clock.now += took / 2
        if next(asked) in dull:
            return ["unclear"]
        return ["refused", "refused"] if gone else ["refused", "listening"]

    def ended() -> float | None:
        # Somebody else waits for it, and tells it a moment late.
        return down + lag + 0.02 if clock.now >= down + lag + 0.02 else None

    watch = Watch("postgres", knocks, ended)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fixtures.rollout.absence.time.monotonic", clock.monotonic)
        for _ in takes:
            watch.look()
            clock.now += 0.01
    if watch.start is not None and watch.end is not None:
        assert down + lag <= watch.start
        assert watch.end <= down + length
    assert not (watch.over and watch.start is None)


def test_a_second_absence_is_nobodys() -> None:
    refused: list[Answer] = ["refused"]
    listening: list[Answer] = ["listening"]
    told = iter([*[refused] * 5, listening, *[refused] * 5])
    watch = Watch("convex", lambda: next(told), lambda: 0.0)
    for _ in range(6):
        watch.look()
    end = watch.end
    assert watch.over
    for _ in range(5):
        watch.look()
    assert watch.end == end


def test_a_container_that_runs_on_makes_no_absence() -> None:
    watch = Watch("convex", lambda: ["refused"], lambda: None)
    for _ in range(10):
        watch.look()
    assert watch.start is None and not watch.over


def test_a_watch_that_breaks_says_so_and_a_silent_host_does_not_break_it() -> None:
    seen = threading.Event()

    def silent() -> Sequence[Answer]:
        seen.set()
        raise ProbeError("host", "silent", "an answer")

    watch = Watch("convex", silent, lambda: 0.0)
    watch.begin()
    assert seen.wait(5)
    assert watch.finish() is None

    def broken() -> Sequence[Answer]:
        seen.set()
        raise ZeroDivisionError

    watch = Watch("convex", broken, lambda: 0.0)
    seen.clear()
    watch.begin()
    assert seen.wait(5)
    with pytest.raises(Unknown, match="ZeroDivisionError"):
        watch.finish()


@pytest.mark.parametrize(
    ("done", "state"),
    [
        (Completed(0, "running abc\n", ""), ("running", "abc")),
        (Completed(1, "", "Error: No such object: postgres-1"), ("gone", "")),
        (Completed(1, "", "Error response: No such container: x"), ("gone", "")),
    ],
)
def test_the_state_of_a_container(done: Completed, state: tuple[str, str]) -> None:
    assert absence._inspect(_target(done), _instance("abc")) == state


def test_a_daemon_that_fails_has_not_said_that_a_container_is_gone() -> None:
    with pytest.raises(ProbeError, match="Cannot connect"):
        absence._inspect(_target(Completed(1, "", "Cannot connect to the Docker daemon")), _instance("abc"))


@pytest.mark.parametrize(
    "done",
    [Completed(0, "137\n", ""), Completed(1, "", "Error response from daemon: No such container: abc")],
)
def test_the_end_of_the_old_container(done: Completed) -> None:
    assert absence._outlived(_target(done), _instance("abc"))


def test_a_host_that_does_not_say_has_shown_no_end() -> None:
    """It is asked again; the daemon that came back knows."""
    answers = iter([Completed(1, "", "Cannot connect to the Docker daemon"), Completed(0, "0\n", "")])
    target = cast("Target", SimpleNamespace(hosts=SimpleNamespace(run=lambda *asked: next(answers))))
    with pytest.raises(ProbeError, match="Cannot connect"):
        absence._outlived(target, _instance("abc"))
    asked: list[bool] = []
    known = threading.Event()

    def outlived() -> bool:
        asked.append(True)
        if len(asked) == 1:
            raise ProbeError("host", "silent", "an answer")
        known.set()
        return True

    ending = absence.Ending(outlived)
    before = time.monotonic()
    ending.begin()
    assert known.wait(5)
    while ending.at is None:
        assert time.monotonic() < before + 5
        time.sleep(0.001)
    assert ending.at >= before


def test_an_absence_of_a_moment_is_seen() -> None:
    """0.4 s, of which the old container takes the first 0.05 to end."""
    began = time.monotonic()

    def knocks() -> Sequence[Answer]:
        return ["refused"] if 0.1 <= time.monotonic() - began < 0.5 else ["listening"]

    watch = Watch("postgres", knocks, lambda: began + 0.15 if time.monotonic() - began >= 0.15 else None)
    watch.begin()
    while not watch.over:
        assert time.monotonic() < began + 5
        time.sleep(0.01)
    away = watch.finish()
    assert away is not None and away.start >= began + 0.15 and away.end <= began + 0.5


def test_a_host_without_power_needs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    target = _target(Completed(1, "", "Cannot connect"), power="stopped")
    ending = absence.Ending(lambda: False)
    assert absence._ended(target, _instance("abc"), "n1", ending) is not None
    assert absence._ended(target, _instance("abc"), "", ending) is None
    monkeypatch.setattr(absence, "knock", lambda address, port: "unclear" if address == "a1" else "refused")
    places = {"n1": "a1", "n2": "a2"}
    assert absence._knocks(target, places, 5432, "n1") == ["refused", "refused"]
    assert absence._knocks(target, places, 5432, "") == ["unclear"]


def _instance(container: str) -> absence.Instance:
    allocation = SimpleNamespace(id="1", node_name="n1")
    return absence.Instance(names.POSTGRES, cast("Any", allocation), container)


def _target(done: Completed, power: str = "running") -> Target:
    hosts = SimpleNamespace(run=lambda host, argv, timeout=10.0: done)
    return cast("Target", SimpleNamespace(hosts=hosts, power=SimpleNamespace(host_state=lambda host: power)))
