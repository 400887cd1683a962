from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fixtures.observe.nomad_types import Allocation, TaskEvent, TaskState
from fixtures.observe.timeline import Interval, TaskTimeline, longest_gap, overlaps


def sighting(
    alloc: str, *events: tuple[str, float], state: str = "running", client: str = "running"
) -> Allocation:
    started = [at for kind, at in events if kind == "Started"]
    finished = events[-1][1] if state == "dead" and events else None
    task = TaskState(
        "worker",
        state,
        False,
        0,
        started[-1] if started else None,
        finished,
        tuple(TaskEvent(kind, at, "", None) for kind, at in events),
    )
    return Allocation(alloc, "gvfx-worker", "worker", "", "c3", "run", client, 1, None, 0.0, {"worker": task})


def test_restarts_and_replacement() -> None:
    line = TaskTimeline("worker")
    line.feed(
        sighting(
            "a",
            ("Received", 0.0), ("Started", 1.0), ("Terminated", 5.0), ("Restarting", 5.1), ("Started", 6.0),
            ("Killing", 8.0), ("Terminated", 9.0), ("Killed", 9.1),
            state="dead", client="complete",
        )
    )  # fmt: skip
    line.feed(sighting("b", ("Received", 9.0), ("Started", 10.0)))
    assert [(one.alloc, one.start, one.end, one.current) for one in line.intervals()] == [
        ("a", 1.0, 5.0, False),
        ("a", 6.0, 9.0, False),
        ("b", 10.0, None, True),
    ]
    assert overlaps(line.intervals()) == []
    assert longest_gap(line.intervals()) == 1.0


def test_a_sighting_twice_or_late_changes_nothing() -> None:
    line = TaskTimeline("worker")
    newer = sighting("a", ("Received", 0.0), ("Started", 1.0), ("Terminated", 2.0), state="dead")
    assert len(line.feed(newer)) == 3
    assert line.feed(newer) == []
    assert line.feed(sighting("a", ("Received", 0.0), ("Started", 1.0))) == []
    assert [one.end for one in line.intervals()] == [2.0]


def test_overlap_is_found_with_its_length() -> None:
    line = TaskTimeline("worker")
    line.feed(sighting("a", ("Received", 0.0), ("Started", 1.0), ("Terminated", 12.0), state="dead"))
    line.feed(sighting("b", ("Received", 9.0), ("Started", 10.0), ("Terminated", 20.0), state="dead"))
    (found,) = overlaps(line.intervals())
    assert (found.first.alloc, found.second.alloc, found.proven) == ("a", "b", True)
    assert found.seconds == 2.0


def test_a_lost_allocation_leaves_an_open_question() -> None:
    line = TaskTimeline("worker")
    line.feed(sighting("a", ("Received", 0.0), ("Started", 1.0), client="lost"))
    line.feed(sighting("b", ("Received", 9.0), ("Started", 10.0)))
    (found,) = overlaps(line.intervals())
    assert not found.proven


def test_two_current_workers_are_proven() -> None:
    line = TaskTimeline("worker")
    line.feed(sighting("a", ("Received", 0.0), ("Started", 1.0)))
    line.feed(sighting("b", ("Received", 9.0), ("Started", 10.0)))
    (found,) = overlaps(line.intervals())
    assert found.proven
    assert found.seconds is None


def test_discarded_events_are_a_gap_unless_the_sightings_join() -> None:
    many = [("Received", 0.0)]
    for at in range(1, 12, 2):
        many += [("Started", float(at)), ("Terminated", at + 0.5)]
    joined, torn = TaskTimeline("worker"), TaskTimeline("worker")
    for cut in range(1, len(many) + 1):
        joined.feed(sighting("a", *many[max(0, cut - 10) : cut]))
    assert joined.gaps == []
    torn.feed(sighting("a", *many[:1]))
    torn.feed(sighting("a", *many[-10:]))
    assert len(torn.gaps) == 1
    unseen = TaskTimeline("worker")
    unseen.feed(sighting("a", *many[-10:]))
    assert len(unseen.gaps) == 1


moments = st.lists(st.floats(0, 1000, allow_nan=False), min_size=2, max_size=24, unique=True).map(sorted)


@given(moments)
def test_runs_one_after_the_other_never_overlap(times: list[float]) -> None:
    runs = [
        Interval(str(number), "n", start, end, False)
        for number, (start, end) in enumerate(zip(times[::2], times[1::2], strict=False))
    ]
    assert overlaps(runs) == []


@given(moments, st.data())
def test_any_seeded_overlap_is_found(times: list[float], data: st.DataObject) -> None:
    runs = [Interval("a", "n", start, end, False) for start, end in pairwise(times)]
    inside = data.draw(st.sampled_from(runs))
    start = math.nextafter(inside.start, math.inf)
    if inside.end is None or start >= inside.end:
        return
    found = overlaps([*runs, Interval("second", "n", start, inside.end, False)])
    assert any("second" in (one.first.alloc, one.second.alloc) for one in found)
