from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from fixtures.history.results import CheckResult
from fixtures.history.shapes import Coverage, Fetch, IngestionRun
from fixtures.history.windows import WindowTerms, check_windows, lane
from tests.history.made import frame, given, kinds, of

LOCK = "__lock__"
PERIOD = 60.0
TOLERANCE = 5.0


@dataclass
class World:
    """A history of windows; every list may be changed before it is judged."""

    runs: list[IngestionRun] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    terms: WindowTerms = field(
        default_factory=lambda: WindowTerms(since=0.0, until=1.0, lanes=("x",), max_gap_s=1.0)
    )

    def judge(self) -> CheckResult:
        return check_windows(
            frame(IngestionRun, *self.runs),
            frame(Fetch, *self.fetches),
            frame(Coverage, *self.coverage),
            self.terms,
        )

    def of(self, feed: str) -> list[IngestionRun]:
        """The last sighting of each run of a feed, by start."""
        last = {run.run: run for run in self.runs if run.feed == feed}
        return sorted(last.values(), key=lambda run: run.started_at)


def run(name: str, feed: str, start: float, end: float | None, **changes: object) -> IngestionRun:
    made = IngestionRun(
        run=name,
        source_type="bingx",
        source_id=None,
        feed=feed,
        trigger="schedule",
        status="running" if end is None else "succeeded",
        started_at=start,
        finished_at=end,
        new_count=1,
        updated_count=0,
        error_summary=None,
        seen=0.0,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A worker that keeps the rules: one window after the other in every lane, some failed, some timed out."""
    count = draw(st.integers(4, 9))
    feeds = draw(st.sampled_from([("candles",), ("candles", "ticker")]))
    until = count * PERIOD
    world = World(coverage=[Coverage("runs", 0.0, until + 1), Coverage("exchange", 0.0, until + 1)])
    for number in range(count):
        begin = number * PERIOD + draw(st.floats(0.0, 5.0))
        fetched = 0
        for feed in (LOCK, *feeds):
            length = draw(st.floats(10.0, 40.0))
            name = f"{feed}-{number}"
            status, error = draw(
                st.sampled_from([("succeeded", None)] * 4 + [("failed", "timeout"), ("failed", "x")])
            )
            world.runs.append(run(name, feed, begin, None, seen=begin + 1))
            world.runs.append(
                run(
                    name,
                    feed,
                    begin,
                    begin + length,
                    status=status,
                    error_summary=error,
                    seen=until,
                    new_count=draw(st.integers(0, 3)),
                    holder="w",
                )
            )
            for _ in range(2 if feed != LOCK else 0):
                fetched += 1
                world.fetches.append(
                    Fetch(begin + fetched, 0.5, f"peer#{number}", f"/{feed}", "BTC-USDT", 200)
                )
    world.terms = WindowTerms(
        since=0.0,
        until=until,
        lanes=tuple(lane("bingx", None, feed) for feed in feeds),
        max_gap_s=(count + 1) * PERIOD,
        tolerance_s=TOLERANCE,
        lock_lane=lane("bingx", None, LOCK),
        period_s=PERIOD,
    )
    world.runs = draw(st.permutations(world.runs[::2])) + draw(st.permutations(world.runs[1::2]))
    return world


@given(worlds())
def test_windows_one_after_the_other_pass(world: World) -> None:
    result = world.judge()
    assert result.outcome == "passed", result.findings
    assert result.figures["windows"] == len({one.run for one in world.runs})
    assert result.figures["overlaps"] == 0


@given(worlds(), st.data())
def test_any_seeded_overlap_is_found_with_its_two_windows(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.of("candles")))
    assert victim.finished_at is not None
    begin = data.draw(st.floats(victim.started_at + 0.001, victim.finished_at - TOLERANCE - 0.001))
    end = data.draw(st.floats(begin, begin + 3.0))
    world.runs.insert(
        data.draw(st.integers(0, len(world.runs))),
        run("intruder", "candles", begin, end, new_count=0, seen=world.terms.until),
    )
    result = world.judge()
    found = kinds(result, "failed")
    assert set(found) == {"overlap"}
    assert set(of(found["overlap"], "run")) == {victim.run, "intruder"}
    assert of(found["overlap"], "overlap_s") == [
        pytest.approx(min(end, victim.finished_at) - begin, abs=1e-5)
    ]
    assert result.figures["overlaps"] == 1


@given(worlds(), st.data())
def test_a_window_still_running_overlaps_everything_after_it(world: World, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(world.of("candles")) - 2))
    victim, after = world.of("candles")[index : index + 2]
    world.runs.append(
        dataclasses.replace(
            victim,
            run="open",
            started_at=after.started_at - 10,
            status="running",
            finished_at=None,
            new_count=0,
            error_summary=None,
        )
    )
    found = kinds(world.judge(), "failed")
    if victim.finished_at is not None and victim.finished_at - TOLERANCE > after.started_at - 10:
        assert set(of(found["overlap"], "run")) == {victim.run, "open"}
    else:
        assert set(of(found["overlap"], "run")) == {"open", after.run}
        assert of(found["overlap"], "overlap_s") == (
            [None] if after.finished_at is None else of(found["overlap"], "overlap_s")
        )


@given(worlds(), st.data())
def test_any_seeded_second_ingestion_is_found(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.of("candles")))
    assert victim.finished_at is not None
    world.runs = [
        dataclasses.replace(one, new_count=2) if one.run == victim.run and one.finished_at else one
        for one in world.runs
    ]
    latest = min(victim.started_at + 29.9, victim.finished_at + 10)
    earliest = max(victim.finished_at - TOLERANCE, victim.started_at)
    assume(latest > earliest)
    begin = data.draw(st.floats(earliest, latest))
    trigger = data.draw(st.sampled_from(["schedule", "retry", "manual"]))
    world.runs.append(run("again", "candles", begin, begin + 0.5, trigger=trigger, seen=world.terms.until))
    found = kinds(world.judge(), "failed")
    assert set(found) == {"twice"}
    assert set(of(found["twice"], "run")) == {victim.run, "again"}
    assert of(found["twice"], "apart_s") == [pytest.approx(begin - victim.started_at, abs=1e-5)]


@pytest.mark.parametrize(("trigger", "feed", "told"), [
    ("retry", "ticker", {"twice"}), ("retry", "funding", set()), ("schedule", "funding", {"schedulers", "twice"}),
])  # fmt: skip
def test_a_retried_feed_has_its_own_rows(trigger: str, feed: str, told: set[str]) -> None:
    """Between two cycles a feed that had failed is fetched: the lock's row of it is nobody's second window."""
    until = 4 * PERIOD
    world = World(coverage=[Coverage("runs", 0.0, until), Coverage("exchange", 0.0, until)])
    for number in range(4):
        begin = number * PERIOD
        world.runs += [run(f"{one}-{number}", one, begin, begin + 2, seen=until) for one in (LOCK, "ticker")]
        world.fetches.append(Fetch(begin + 1, 0.5, f"peer#{number}", "/ticker", "BTC-USDT", 200))
    begin = PERIOD + 5
    world.runs += [
        run(f"{one}-x", one, begin, begin + 1, trigger=trigger, seen=until) for one in (LOCK, feed)
    ]
    world.terms = WindowTerms(
        since=0.0, until=until, lanes=(lane("bingx", None, "ticker"),), max_gap_s=until, tolerance_s=TOLERANCE,
        lock_lane=lane("bingx", None, LOCK), period_s=PERIOD,
    )  # fmt: skip
    assert set(kinds(world.judge(), "failed")) == told


@given(worlds(), st.data())
def test_a_second_scheduler_is_found_by_its_phase(world: World, data: st.DataObject) -> None:
    ticks = world.of(LOCK)
    offset = data.draw(st.floats(-0.5 * PERIOD, 0.5 * PERIOD))
    number = data.draw(st.integers(1, len(ticks) - 2))
    begin = ticks[number].started_at + offset
    # It finds the lock held or brings nothing, and is over at once: no overlap tells of it.
    clear = all(not (one.started_at <= begin < (one.finished_at or 0) - TOLERANCE) for one in ticks)
    world.runs.append(run("other", LOCK, begin, begin, new_count=0, seen=world.terms.until))
    found = kinds(world.judge(), "failed")
    assert "schedulers" in found and ("overlap" in found) == (not clear)
    if clear:
        assert "other" in of(found["schedulers"], "run") and len(of(found["schedulers"], "run")) == 2


@given(worlds(), st.data())
def test_a_run_that_changes_after_its_end_is_a_zombies(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.of("candles")))
    changes = data.draw(
        st.sampled_from(
            [
                {"status": "failed" if victim.status == "succeeded" else "succeeded"},
                {"finished_at": (victim.finished_at or 0.0) + 0.5},
                {"new_count": victim.new_count + 1},
                {"updated_count": victim.updated_count + 1},
            ]
        )
    )
    world.runs.append(dataclasses.replace(victim, **changes))  # type: ignore[arg-type]
    found = kinds(world.judge(), "failed")
    assert set(found) == {"zombie"}
    assert of(found["zombie"], "run") == [victim.run]


@given(worlds(), st.floats(0.0, 100.0))
def test_a_run_that_nobody_finishes_is_an_orphan(world: World, over: float) -> None:
    until = world.terms.until
    world.terms = world.terms.model_copy(update={"orphan_after_s": 50.0})
    world.runs.append(run("left", "ticker-2", until - over, None, seen=until))
    found = kinds(world.judge(), "failed")
    assert set(found) == ({"orphan"} if over > 50.0 else set())
    if found:
        assert of(found["orphan"], "run") == ["left"]


@given(worlds(), st.data())
def test_any_seeded_gap_is_found_with_the_windows_around_it(world: World, data: st.DataObject) -> None:
    windows = world.of("candles")
    first = data.draw(st.integers(0, len(windows) - 1))
    last = data.draw(st.integers(first, len(windows) - 1))
    gone = {one.run for one in windows[first : last + 1]}
    world.runs = [one for one in world.runs if one.run not in gone]
    good = [one for one in world.of("candles") if one.status == "succeeded"]
    edges = [
        (0.0, 0.0),
        *((one.started_at, one.finished_at or 0.0) for one in good),
        (world.terms.until,) * 2,
    ]
    gaps = [(b[0] - a[1]) for a, b in zip(edges, edges[1:], strict=False)]
    bound = data.draw(st.floats(1.0, 400.0))
    world.terms = world.terms.model_copy(update={"max_gap_s": bound, "lanes": world.terms.lanes[:1]})
    result = world.judge()
    found = kinds(result, "failed")
    assert set(found) == ({"lost"} if max(gaps) > bound else set())
    assert result.figures["longest_gap_s"] == pytest.approx(max(gaps), abs=1e-5)
    if found:
        index = next(index for index, gap in enumerate(gaps) if gap > bound)
        expected = (
            [one.run for one in good[max(0, index - 1) : index + 1]]
            if index
            else [one.run for one in good[:1]]
        )
        assert of(found["lost"], "run") == expected
        assert of(found["lost"], "gap_s") == [pytest.approx(gaps[index], abs=1e-5)]


@given(worlds(), st.data())
def test_two_clients_at_the_exchange_are_found_by_its_own_log(world: World, data: st.DataObject) -> None:
    first, second = data.draw(
        st.sampled_from(
            [
                pair
                for pair in zip(world.fetches, world.fetches[1:], strict=False)
                if pair[0].path == pair[1].path and pair[0].client == pair[1].client
            ]
        )
    )
    within = st.floats(first.t - first.seconds + 0.001, second.t - second.seconds - 0.001)
    # At the very instant of another line the order of the two is nobody's knowledge.
    at = data.draw(within.filter(lambda t: t != first.t))
    world.fetches.append(dataclasses.replace(first, client="other", t=at, seconds=0.0))
    found = kinds(world.judge(), "failed")
    assert set(found) == {"clients"}
    assert set(of(found["clients"], "client")) == {first.client, "other"}
    (still,) = re.findall(r"still asked ([0-9.]+) s later", found["clients"].sentence)
    assert float(still) == pytest.approx(second.t - second.seconds - at, abs=1e-3)


@given(worlds(), st.data())
def test_a_retry_on_a_new_connection_is_no_second_client(world: World, data: st.DataObject) -> None:
    # The exchange still serves the call that its client has given up.
    victim = data.draw(st.sampled_from(world.fetches))
    last = [one for one in world.fetches if one.client == victim.client and one.path == victim.path][-1]
    world.fetches.remove(last)
    slow = dataclasses.replace(last, t=last.t + 20.0, seconds=last.seconds + 20.0)
    world.fetches += [slow, dataclasses.replace(last, client=f"{last.client}-again", t=last.t + 1.0)]
    assert world.judge().outcome == "passed"


def fetched(begin: float, client: str, symbols: str, step: float = 0.1) -> list[Fetch]:
    """One cycle of one feed, on a connection of its own: every symbol once."""
    return [
        Fetch(begin + number * step, 0.01, f"{client} since {begin:.3f}", "/depth", name, 200)
        for number, name in enumerate(symbols)
    ]


@given(worlds(), st.integers(2, 9), st.floats(0.5, 29.9))
def test_two_workers_whose_connections_end_with_their_cycles_are_found(
    world: World, count: int, apart: float
) -> None:
    symbols = "ABCDEFGHI"[:count]
    world.fetches += [
        *fetched(0.0, "one", symbols), *fetched(60.0, "one", symbols), *fetched(60.0 + apart, "two", symbols),
    ]  # fmt: skip
    found = kinds(world.judge(), "failed")
    assert set(found) == {"served"}
    assert {str(one).split()[0] for one in of(found["served"], "client")} == {"two"}
    assert len(found["served"].evidence) == max(2, count // 2 + 1)
    world.terms = world.terms.model_copy(update={"exchange": False})
    assert world.judge().outcome == "passed"


@given(worlds(), st.integers(2, 9), st.data())
def test_a_worker_that_repeats_a_call_or_follows_another_is_alone(
    world: World, count: int, data: st.DataObject
) -> None:
    symbols = "ABCDEFGHI"[:count]
    begin = 60.0 + data.draw(st.floats(33.0, 60.0))
    again = data.draw(st.sampled_from(symbols))
    world.fetches += [
        *fetched(60.0, "one", symbols), *fetched(begin, "two", symbols),
        # Its answer was lost with the exit it came by.
        Fetch(62.0, 0.01, "one again", "/depth", again, 200),
        # What failed is asked for again, however much of it.
        *(dataclasses.replace(one, status=500) for one in fetched(150.0, "one", symbols)),
        *fetched(150.5, "one anew", symbols),
    ]  # fmt: skip
    assert world.judge().outcome == "passed"


def test_an_exchange_that_answers_too_late_is_asked_again_by_the_same() -> None:
    """Every call was given up and repeated, and was served all the same: nobody took turns with anybody."""
    world = pair(40.0, 60.0)
    world.terms = world.terms.model_copy(update={"exchange": True})
    world.coverage.append(Coverage("exchange", 0.0, world.terms.until + 1))
    for number, name in enumerate("ABCD"):
        begin = 10.0 + 6.0 * number
        for attempt in range(2):
            end = begin + 2.5 * attempt + 5.0
            world.fetches.append(Fetch(end, 5.0, f"{name}{attempt}", "/depth", name, 200))
    assert "served" not in kinds(world.judge())


@given(worlds(), st.data())
def test_a_time_nobody_looked_at_is_never_a_pass(world: World, data: st.DataObject) -> None:
    what = data.draw(st.sampled_from(["runs", "exchange"]))
    cut = data.draw(st.floats(0.0, world.terms.until - 0.001))
    world.coverage = [one for one in world.coverage if one.what != what]
    if data.draw(st.booleans()):
        world.coverage += [Coverage(what, 0.0, cut), Coverage(what, cut + 0.001, world.terms.until)]
    result = world.judge()
    assert result.outcome == "unknown" and set(kinds(result)) == {"uncovered"}


@given(worlds())
def test_an_empty_list_is_what_a_broken_store_looks_like(world: World) -> None:
    world.runs = []
    assert world.judge().outcome == "unknown"


@given(worlds())
def test_the_exchange_must_have_spoken(world: World) -> None:
    world.fetches = []
    assert world.judge().outcome == "unknown"
    world.terms = world.terms.model_copy(update={"exchange": False})
    assert world.judge().outcome == "passed"


@given(worlds(), st.floats(TOLERANCE + 0.001, 1000.0))
def test_clocks_that_contradict_each_other_are_unknown(world: World, skew: float) -> None:
    world.runs.append(run("skewed", "aside", 50.0, 50.0 - skew, seen=world.terms.until))
    result = world.judge()
    assert result.outcome == "unknown" and set(kinds(result)) == {"skewed"}


def pair(first_end: float, second_start: float, **changes: object) -> World:
    """Two windows of one feed, judged without bounds of their own."""
    world = World(coverage=[Coverage("runs", 0.0, 100.0)])
    world.runs = [
        run("a", "f", 0.0, first_end, seen=100.0, **changes),
        run("b", "f", second_start, second_start + 1, seen=100.0),
    ]
    world.terms = WindowTerms(
        since=0.0, until=100.0, lanes=("bingx/-/f",), max_gap_s=1000.0, exchange=False, apart_s=0.0
    )
    return world


def test_the_tolerance_is_the_contracts() -> None:
    assert pair(50.0, 45.0).judge().outcome == "passed"
    assert pair(50.0, 44.999).judge().outcome == "failed"


def test_the_distance_is_the_contracts() -> None:
    for start, outcome in ((30.0, "passed"), (29.999, "failed")):
        world = pair(1.0, start)
        world.terms = world.terms.model_copy(update={"apart_s": 30.0})
        assert world.judge().outcome == outcome


def test_the_oldest_orphan_is_the_example() -> None:
    world = pair(1.0, 50.0)
    world.runs += [run(name, name, start, None, seen=100.0) for name, start in (("y", 20.0), ("x", 10.0))]
    world.terms = world.terms.model_copy(update={"orphan_after_s": 50.0})
    assert of(kinds(world.judge())["orphan"], "run") == ["x"]


def test_a_timed_out_run_and_its_successor_are_no_duplicate_until_the_zombie_returns() -> None:
    world = pair(50.0, 49.0, status="failed", error_summary="timeout")
    assert world.judge().outcome == "passed"
    world.runs.append(dataclasses.replace(world.runs[0], status="succeeded", finished_at=80.0, seen=100.0))
    assert set(kinds(world.judge(), "failed")) == {"zombie", "overlap"}


def test_lanes_do_not_disturb_each_other() -> None:
    world = pair(50.0, 10.0)
    for name, value in (("feed", "g"), ("source_id", "telegram"), ("source_type", "news"), ("feed", None)):
        changed = dataclasses.replace(world.runs[1], **{name: value})  # type: ignore[arg-type]
        assert dataclasses.replace(world, runs=[world.runs[0], changed]).judge().outcome == "passed"


def test_a_feed_that_was_never_ingested_is_lost_and_no_expectation_is_unknown() -> None:
    world = pair(1.0, 50.0)
    world.terms = world.terms.model_copy(update={"lanes": ("bingx/-/f", "bingx/-/never"), "max_gap_s": 99.0})
    found = kinds(world.judge(), "failed")
    assert of(found["lost"], "lane") == ["bingx/-/never"] and of(found["lost"], "gap_s") == [100.0]
    world.terms = world.terms.model_copy(update={"lanes": ()})
    assert world.judge().outcome == "unknown"


def test_a_run_that_vanished_from_the_list_is_unknown() -> None:
    world = pair(1.0, 50.0)
    world.runs.append(run("gone", "g", 60.0, None, seen=99.0))
    assert set(kinds(world.judge())) == {"unseen"}


def test_an_end_without_a_time_is_unknown() -> None:
    world = pair(1.0, 50.0)
    world.runs.append(run("odd", "g", 60.0, None, status="succeeded", seen=100.0))
    assert set(kinds(world.judge())) == {"endless"}


def test_a_scheduler_nobody_saw_is_unknown() -> None:
    world = pair(1.0, 50.0)
    world.terms = world.terms.model_copy(update={"lock_lane": "bingx/-/lock"})
    assert set(kinds(world.judge())) == {"schedulers"}


def test_no_time_is_unknown() -> None:
    world = pair(1.0, 50.0)
    world.terms = world.terms.model_copy(update={"since": 100.0})
    assert world.judge().outcome == "unknown"
