from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from hypothesis import strategies as st

from fixtures.history.egress import EgressTerms, check_egress
from fixtures.history.results import CheckResult
from fixtures.history.shapes import Counter, Deliberate
from tests.history.made import frame, given, kinds, of

SOURCES = ("exit1", "exit2", "wrong", "other")
SINCE, UNTIL = 100.0, 200.0
TERMS = EgressTerms(since=SINCE, until=UNTIL, forbidden=("wrong", "other"), counting=("exit1",))


@dataclass
class World:
    """Counters that are read now and then; every list may be changed before it is judged."""

    counters: list[Counter] = field(default_factory=list)
    deliberate: list[Deliberate] = field(default_factory=list)
    terms: EgressTerms = TERMS

    def judge(self) -> CheckResult:
        return check_egress(frame(Counter, *self.counters), frame(Deliberate, *self.deliberate), self.terms)

    def of(self, source: str) -> list[Counter]:
        return [one for one in self.counters if one.source == source]

    def add(self, source: str, after: float, packets: int) -> None:
        """Packets counted after a moment."""
        self.counters = [
            dataclasses.replace(one, packets=one.packets + packets)
            if one.source == source and one.at > after
            else one
            for one in self.counters
        ]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A gate that holds: approved exits count, forbidden sources only when somebody sends on purpose."""
    inner = draw(st.lists(st.integers(1, 98), min_size=1, max_size=8, unique=True))
    times = [SINCE - 1.0, SINCE, *(SINCE + at for at in sorted(inner)), UNTIL, UNTIL + 1.0]
    start = {source: draw(st.integers(0, 1000)) for source in SOURCES}
    world = World(
        [Counter("inet", source, "boot-1", start[source], at) for at in times for source in SOURCES]
    )
    world.add("exit1", draw(st.sampled_from(times[1:-2])), draw(st.integers(1, 50)))
    world.add("exit2", draw(st.sampled_from(times)), draw(st.integers(0, 50)))
    if draw(st.booleans()):
        # Before and after the judged time anything may happen.
        world.add("wrong", UNTIL, 3)
    index = draw(st.integers(1, len(times) - 3))
    if draw(st.booleans()):
        world.deliberate.append(Deliberate("wrong", times[index], times[index + 1]))
        world.add("wrong", times[index], draw(st.integers(1, 9)))
    world.counters = draw(st.permutations(world.counters))
    return world


@given(worlds())
def test_a_gate_that_holds_passes(world: World) -> None:
    result = world.judge()
    assert result.outcome == "passed", result.findings
    assert (result.figures["deliberate"] != 0) == bool(world.deliberate)
    packets = result.figures["packets"]
    assert isinstance(packets, dict)
    for source in ("exit1", "wrong", "other"):
        inside = [one.packets for one in world.of(source) if SINCE <= one.at <= UNTIL]
        assert packets[source] == max(inside) - min(inside)


@given(worlds(), st.sampled_from(TERMS.forbidden), st.data())
def test_any_leak_is_found_between_its_two_readings(world: World, source: str, data: st.DataObject) -> None:
    times = sorted({one.at for one in world.counters})
    free = [
        (a, b)
        for a, b in zip(times, times[1:], strict=False)
        if a < UNTIL
        and b > SINCE
        and not any(d.source == source and d.start <= a and b <= d.end for d in world.deliberate)
    ]
    before, after = data.draw(st.sampled_from(free))
    packets = data.draw(st.integers(1, 5))
    world.add(source, before, packets)
    told = kinds(world.judge(), "failed")
    assert set(told) == {"leak"}
    assert of(told["leak"], "since") == [before] and of(told["leak"], "at") == [after]
    assert told["leak"].sentence.startswith(f"{packets} packets from {source}")


@given(worlds(), st.sampled_from(SOURCES[:1] + SOURCES[2:]), st.data())
def test_a_counter_that_begins_again_is_unknown(world: World, source: str, data: st.DataObject) -> None:
    times = sorted({one.at for one in world.counters})
    since = data.draw(st.sampled_from(times[2:-1]))
    if data.draw(st.booleans()):
        world.counters = [
            dataclasses.replace(one, epoch="boot-2") if one.at >= since else one for one in world.counters
        ]
    else:
        world.add(source, since - 0.5, -2000)
    result = world.judge()
    assert result.outcome == "unknown" and "reset" in kinds(result)


@given(worlds(), st.sampled_from(SOURCES[:1] + SOURCES[2:]), st.booleans())
def test_a_counter_not_read_on_both_sides_is_unknown(world: World, source: str, early: bool) -> None:
    world.counters = [
        one for one in world.counters if one.source != source or (one.at > SINCE if early else one.at < UNTIL)
    ]
    result = world.judge()
    assert result.outcome == "unknown" and "unread" in kinds(result)


@given(worlds(), st.sampled_from(SOURCES[:1] + SOURCES[2:]))
def test_a_counter_never_read_is_unknown(world: World, source: str) -> None:
    world.counters = [one for one in world.counters if one.source != source]
    assert "unread" in kinds(world.judge(), "unknown")


@given(worlds())
def test_a_control_that_does_not_count_is_unknown(world: World) -> None:
    exits = world.of("exit1")
    dead = [dataclasses.replace(one, packets=exits[0].packets) for one in exits]
    world.counters = [one for one in world.counters if one.source != "exit1"] + dead
    assert set(kinds(world.judge())) == {"control"} and world.judge().outcome == "unknown"


@given(worlds())
def test_packets_sent_on_purpose_must_be_counted(world: World) -> None:
    times = sorted({one.at for one in world.counters})
    world.deliberate.append(Deliberate("other", times[1], times[2]))
    assert set(kinds(world.judge())) == {"control"} and world.judge().outcome == "unknown"


def test_nothing_asked_is_unknown() -> None:
    assert World(terms=TERMS.model_copy(update={"forbidden": ()})).judge().outcome == "unknown"
    world = World([Counter("p", "wrong", "e", 0, at) for at in (SINCE, UNTIL)])
    world.terms = EgressTerms(since=SINCE, until=UNTIL, forbidden=("wrong",), counting=())
    assert set(kinds(world.judge())) == {"control"}
    assert World().judge().outcome == "unknown"


def test_each_point_is_a_counter_of_its_own() -> None:
    found = [
        Counter(point, "exit1", "e", 5 if at > SINCE else 0, at) for point in "ab" for at in (SINCE, UNTIL)
    ]
    found += [
        Counter(point, "wrong", "e", 7 if point == "b" else 0, at) for point in "ab" for at in (SINCE, UNTIL)
    ]
    terms = EgressTerms(since=SINCE, until=UNTIL, forbidden=("wrong",), counting=("exit1",))
    assert World(found, terms=terms).judge().outcome == "passed"
    found[-1] = dataclasses.replace(found[-1], packets=8)
    assert of(kinds(World(found, terms=terms).judge())["leak"], "point") == ["b"]
