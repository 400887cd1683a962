"""Which runs of the worker count: Nomad's events, and in doubt the supervisor's own words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError
from fixtures.observe.nomad import NomadProbe
from fixtures.observe.nomad_types import Allocation
from fixtures.observe.recorder import AllocationRecorder
from fixtures.observe.recording import InMemory
from fixtures.observe.timeline import Away
from fixtures.rollout import worker
from tests.observe.test_timeline import sighting

KILLED = (
    '{"t":18.2,"event":"worker-killed","exit":"","want":"","got":"lock","why":"over","code":75,"alloc":"a"}\n'
)
START = (
    '{"t":1.4,"event":"worker-start","exit":"","want":"","got":"","why":"after 3 ms","code":0,"alloc":"a"}\n'
)


def recorder(log: str | None, *found: Allocation) -> tuple[AllocationRecorder, list[str]]:
    asked: list[str] = []

    def logs(alloc: str, task: str, **more: Any) -> str:
        asked.append(alloc)
        if log is None:
            raise ProbeError("log", "gone", "a log")
        return log if alloc == "a" else ""

    nomad = SimpleNamespace(allocations=lambda job, all_versions: list(found), logs=logs)
    return AllocationRecorder(cast("NomadProbe", nomad), InMemory(), "job", "worker"), asked


OLD = sighting("a", ("Received", 0.0), ("Started", 1.0), ("Terminated", 90.0), state="dead", client="lost")
NEW = sighting("b", ("Received", 30.0), ("Started", 35.0))
LATER = sighting("b", ("Received", 90.5), ("Started", 91.0))


def test_nobody_is_asked_when_the_events_agree() -> None:
    made, asked = recorder(None, OLD, LATER)
    assert [one.start for one in worker.never_two(made)] == [1.0, 91.0]
    assert not asked


def test_an_end_that_came_late_is_told_by_the_supervisor_once() -> None:
    made, asked = recorder(START + KILLED, OLD, NEW)
    assert [(one.alloc, one.end) for one in worker.never_two(made)] == [("a", 18.2), ("b", None)]
    made.runs()
    assert asked.count("a") == 1


def test_two_that_worked_are_two() -> None:
    made, _ = recorder(START, OLD, NEW)
    with pytest.raises(AssertionError, match="two workers"):
        worker.never_two(made)


def test_a_log_that_is_gone_decides_nothing() -> None:
    made, _ = recorder(None, OLD, NEW)
    with pytest.raises(ProbeError):
        made.runs()


def test_a_dead_host_needs_no_words() -> None:
    made, asked = recorder(None, OLD, NEW)
    made.was_away(Away("c3", 12.0, 80.0, resumes=False))
    assert [one.end for one in made.runs()] == [12.0, None]
    assert not asked


@pytest.mark.parametrize(("thawed", "two"), [(80.0, False), (79.5, True)])
def test_a_thawed_worker_may_be_seen_until_its_supervisor_looks(thawed: float, two: bool) -> None:
    """For two seconds from the thaw on, and for no others: T8.4 judges that it can do nothing then."""
    old = sighting(
        "a", ("Received", 0.0), ("Started", 1.0), ("Terminated", 82.1), state="dead", client="lost"
    )
    made, _ = recorder(START, old, NEW)
    made.was_away(Away("c3", 12.0, thawed, resumes=True))
    if two:
        with pytest.raises(AssertionError, match="two workers"):
            worker.never_two(made)
    else:
        assert worker.never_two(made)
