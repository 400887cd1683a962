from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fixtures.observe.guardlog import GuardEvent
from fixtures.observe.nomad_types import Allocation, TaskEvent, TaskState
from fixtures.observe.timeline import (
    Away,
    Gap,
    Interval,
    TaskTimeline,
    longest_gap,
    overlaps,
    retold,
    working,
)


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


def test_what_was_discarded_before_anybody_looked_is_no_gap() -> None:
    """Nor is a run that goes on lost with its start; what is discarded afterwards is a gap as ever."""
    old = [("Terminated", float(at)) for at in range(10)]
    line = TaskTimeline("worker")
    line.feed(sighting("a", *old, state="dead"), baseline=True)
    signals = [("Signaling", float(at)) for at in range(20, 30)]
    running = sighting("b", *signals)
    task = replace(running.tasks["worker"], started=15.0)
    line.feed(replace(running, tasks={"worker": task}), baseline=True)
    assert line.gaps == []
    assert [(one.alloc, one.start, one.current) for one in line.intervals()] == [("b", 15.0, True)]
    line.feed(sighting("a", *[("Terminated", float(at)) for at in range(50, 60)], state="dead"))
    assert len(line.gaps) == 1


def word(t: float, event: str) -> GuardEvent:
    return GuardEvent(t, event, "", "", "", "", 0)


CUT_OFF = (
    word(1.4, "worker-start"), word(40.0, "worker-killed"), word(42.0, "worker-waiting"), word(75.0, "worker-gives-up"),
    word(90.0, "worker-start"), word(95.0, "worker-term"), word(99.0, "worker-exit"),
)  # fmt: skip


def test_a_gap_is_closed_by_the_supervisors_own_words() -> None:
    """Nomad's start where it is known, the supervisor's where it is not; the end of what was killed without a word."""
    gap = Gap("a", 1.0, 80.0)
    told = [Interval("a", "c3", 1.0, 99.5, False), Interval("b", "c4", 50.0, None, True)]
    runs = retold(told, gap, CUT_OFF, "c3", whole=True)
    assert runs == [Interval("a", "c3", 1.0, 40.0, False), Interval("a", "c3", 90.0, 99.0, False)]
    killed = (word(1.4, "worker-start"), word(42.0, "worker-waiting"), word(60.0, "worker-start"))
    runs = retold([Interval("a", "c3", 1.0, None, True)], gap, killed, "c3", whole=True)
    assert runs == [Interval("a", "c3", 1.0, 42.0, False), Interval("a", "c3", 60.0, None, True)]


def test_a_log_that_does_not_reach_back_to_a_gap_closes_nothing() -> None:
    gap = Gap("a", 1.0, 80.0)
    assert retold([], gap, CUT_OFF[2:], "c3", whole=False) is None
    assert retold([], gap, (), "c3", whole=True) is None
    assert retold([], gap, (word(0.5, "worker-waiting"), *CUT_OFF), "c3", whole=False) is not None


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


def said(*events: tuple[str, float]) -> list[GuardEvent]:
    return [GuardEvent(at, name, "", "", "", "", 0) for name, at in events]


def run_of(alloc: str, start: float, end: float | None, node: str = "c3") -> Interval:
    return Interval(alloc, node, start, end, end is None)


def test_a_zombies_task_that_waits_for_its_leases_is_no_run() -> None:
    """Cut off: stopped by its own supervisor, restarted by its agent in vain, stopped for good after the heal."""
    old, waiting, new = run_of("a", 0.0, 21.0), run_of("a", 22.0, 90.0), run_of("b", 35.0, None, "c4")
    words = {
        "a": said(("worker-start", 0.4), ("worker-killed", 20.5), ("worker-waiting", 52.0)),
        "b": said(("worker-start", 35.3)),
    }
    assert working([old, waiting, new], words) == [replace(old, end=20.5), new]
    assert overlaps(working([old, waiting, new], words)) == []


def test_an_agent_that_was_dead_says_too_late_that_a_task_has_ended() -> None:
    old, new = run_of("a", 0.0, 90.0), run_of("b", 35.0, None, "c4")
    words = {"a": said(("worker-start", 0.4), ("worker-killed", 18.2))}
    assert working([old, new], words) == [replace(old, end=18.2), new]


def test_who_works_on_is_not_talked_away() -> None:
    old, new = run_of("a", 0.0, 90.0), run_of("b", 35.0, None, "c4")
    for words in ({}, {"a": said(("worker-start", 0.4))}, {"a": said(("worker-waiting", 95.0))}):
        assert working([old, new], words) == [old, new]
    # A log that begins in the middle tells the end of what it did not see begin.
    late = {"a": said(("worker-killed", 17.0), ("worker-waiting", 19.0))}
    assert working([old, new], late) == [replace(old, end=17.0), new]
    # And knows nothing of what was before.
    assert working([old], {"a": said(("worker-exit", 200.0))}) == [old]


def test_a_host_without_power_has_ended_everything_and_a_frozen_one_goes_on() -> None:
    old, new = run_of("a", 0.0, 90.0), run_of("b", 35.0, None, "c4")
    off = Away("c3", 10.0, 80.0, resumes=False)
    assert working([old, new], {}, [off]) == [replace(old, end=10.0), new]
    frozen = Away("c3", 10.0, 80.0, resumes=True)
    before, after = replace(old, end=10.0), replace(old, start=80.0)
    assert working([old, new], {}, [frozen]) == [before, new, after]
    assert working([replace(old, end=70.0)], {}, [frozen]) == [before]
    assert working([new], {}, [off, frozen]) == [new]


@given(st.floats(1, 5), st.floats(6, 9), st.floats(0.1, 0.9), st.booleans())
def test_what_is_left_of_a_run_lies_in_it_and_its_start_stays(
    start: float, end: float, part: float, resumes: bool
) -> None:
    one = run_of("a", start, end)
    middle = start + part * (end - start)
    found = working([one], {}, [Away("c3", middle, middle + 0.5, resumes)])
    assert found[0].start == start
    assert all(start <= left.start <= (left.end or 0.0) <= end for left in found)
    assert len(found) <= 1 + resumes
