from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from fixtures.history.durability import DurabilityTerms, check_durability
from fixtures.history.frames import table
from fixtures.history.results import CheckResult, Finding
from fixtures.history.shapes import Away, Identity, Operation, Phase, Shape
from tests.history.made import events, frame, given, kinds, of

COMPONENTS = ("convex", "postgres", "objectstore")
NEEDS = {"row": ("convex", "postgres"), "file": COMPONENTS}
SETTLED = 10_000.0


@dataclass
class Write:
    """A write of its own key, and what is read of it at the end: its content unless ``found`` says otherwise."""

    key: str
    item: str
    start: float
    end: float | None
    phase: Phase = "ok"
    sentinel: bool = False
    found: str | None = "whole"
    read_at: float | None = SETTLED + 1

    def events(self) -> list[tuple[float, Shape]]:
        item: Literal["row", "file"] = "file" if self.item == "file" else "row"
        sent = Operation(
            f"w-{self.key}", "invoke", "write", item, self.key, f"sha-{self.key}", 9, self.sentinel
        )
        told: list[tuple[float, Shape]] = [(self.start, sent)]
        if self.end is not None:
            told.append((self.end, dataclasses.replace(sent, phase=self.phase)))
        if self.read_at is not None:
            asked = Operation(f"r-{self.key}", "invoke", "read", item, self.key, None)
            value = f"sha-{self.key}" if self.found == "whole" else self.found
            size = None if value is None else 9 if self.found == "whole" else 4
            answer = dataclasses.replace(asked, phase="ok", value=value, size=size)
            told += [(self.read_at, asked), (self.read_at + 0.5, answer)]
        return told


@dataclass
class World:
    """A history of durability; every list may be changed before it is judged."""

    writes: list[Write] = field(default_factory=list)
    away: list[Away] = field(default_factory=list)
    identity: list[tuple[float, Identity]] = field(default_factory=list)
    terms: DurabilityTerms = field(default_factory=lambda: DurabilityTerms(settled=SETTLED))

    def judge(self) -> CheckResult:
        told = sorted((one for write in self.writes for one in write.events()), key=lambda one: one[0])
        return check_durability(
            table(events(told), Operation).rows,
            frame(Away, *self.away),
            table(events(self.identity), Identity).rows,
            self.terms,
        )

    def acknowledged(self) -> list[Write]:
        return [write for write in self.writes if write.phase == "ok" and write.end is not None]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A store that keeps its word while its parts go away in turn, or in pairs."""
    world = World()
    world.writes.append(Write("sentinel", "file", 0.0, 1.0, sentinel=True))
    now = 10.0
    for number in range(draw(st.integers(3, 6))):
        parts = draw(st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=2, unique=True))
        if number < len(COMPONENTS):
            parts = [COMPONENTS[number]]
        length = draw(st.floats(1.0, 20.0))
        away = [Away(part, now, now + length) for part in parts]
        world.away += away
        # While it is away every write fails, hangs until it is back, or is never answered.
        for item in ("row", "file"):
            begun = now + draw(st.floats(0.0, 1.0)) * length
            key = f"{item}-{number}-during"
            phase: Phase = draw(st.sampled_from(["ok", "fail", "unknown"]))
            needed = bool(set(parts) & set(NEEDS[item]))
            end = (
                draw(st.floats(now + length + 0.01, now + length + 5))
                if needed or phase != "ok"
                else begun + 0.1
            )
            there = phase == "ok" or draw(st.booleans())
            # Of each component that was away some write is told something.
            end_or_never = None if phase == "unknown" and item == "row" and draw(st.booleans()) else end
            world.writes.append(
                Write(key, item, begun, end_or_never, phase, found="whole" if there else None)
            )
            world.writes.append(Write(f"{item}-{number}-after", item, now + length + 6, now + length + 7))
        now += length + 10
    world.identity = [
        (at, Identity(store, f"id of {store}")) for at in (5.0, SETTLED + 5) for store in COMPONENTS
    ]
    world.writes = draw(st.permutations(world.writes))
    return world


def seconds(result: CheckResult) -> dict[str, float | None]:
    """The recovery times of a result, by component."""
    found = result.figures["rto_s"]
    assert isinstance(found, dict)
    return {name: value if isinstance(value, float) else None for name, value in found.items()}


@given(worlds())
def test_a_store_that_keeps_its_word_passes(world: World) -> None:
    result = world.judge()
    assert result.outcome == "passed", result.findings
    assert result.figures["writes"] == len(world.writes)
    assert result.figures["acknowledged"] == len(world.acknowledged())
    there = [write for write in world.writes if write not in world.acknowledged() and write.found == "whole"]
    assert result.figures["unacknowledged_but_there"] == len(there)
    assert result.figures["files"] == sum(write.item == "file" for write in world.writes)
    assert result.figures["lost"] == 0 and result.figures["rpo_s"] == dict.fromkeys(sorted(COMPONENTS), 0.0)
    longest = {
        part: max(
            min(w.end or 0 for w in world.acknowledged() if part in NEEDS[w.item] and (w.end or 0) > one.end)
            - one.start
            for one in world.away
            if one.component == part
        )
        for part in COMPONENTS
    }
    assert result.figures["rto_s"] == pytest.approx({part: longest[part] for part in COMPONENTS}, abs=1e-5)


@given(worlds(), st.data())
def test_any_lost_write_is_found_with_its_reading_and_its_age(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.acknowledged()))
    victim.found = None
    result = world.judge()
    told = kinds(result, "failed")
    assert set(told) == {"lost"}
    assert of(told["lost"], "op") == [f"w-{victim.key}", f"r-{victim.key}"]
    assert result.figures["lost"] == 1
    after = [
        one for one in world.away if one.component in NEEDS[victim.item] and one.end >= (victim.end or 0)
    ]
    ages = result.figures["rpo_s"]
    assert isinstance(ages, dict)
    if after:
        first = min(after, key=lambda one: one.end)
        same = [one.component for one in after if one.end == first.end]
        expected = max(0.0, first.start - (victim.end or 0))
        assert [ages[part] for part in same if ages[part] == pytest.approx(expected, abs=1e-5)]
    else:
        assert ages["unexplained"] is None


@given(worlds(), st.data())
def test_any_changed_or_torn_content_is_found(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.writes))
    victim.found = "other"
    kind = "changed" if victim.phase == "ok" and victim.end is not None else "torn"
    told = kinds(world.judge(), "failed")
    assert set(told) == {kind}
    assert of(told[kind], "op") == [f"w-{victim.key}", f"r-{victim.key}"]
    assert "4 of 9 bytes" in told[kind].sentence


@given(worlds(), st.data(), st.booleans())
def test_a_write_that_comes_and_goes_is_lost(world: World, data: st.DataObject, early: bool) -> None:
    victim = data.draw(st.sampled_from(world.acknowledged()))
    told = sorted((one for write in world.writes for one in write.events()), key=lambda one: one[0])
    at = SETTLED + (0.5 if early else 3.0)
    asked = Operation("blink", "invoke", "read", "row", victim.key, None)
    told += [(at, asked), (at + 0.1, dataclasses.replace(asked, phase="ok"))]
    result = check_durability(
        table(events(sorted(told, key=lambda one: one[0])), Operation).rows,
        frame(Away, *world.away),
        table(events(world.identity), Identity).rows,
        world.terms,
    )
    assert of(kinds(result, "failed")["lost"], "op") == [f"w-{victim.key}", "blink"]
    assert result.figures["lost"] == 1 and result.figures["acknowledged"] == len(world.acknowledged())


@given(worlds())
def test_the_example_says_how_many_more_there_are(world: World) -> None:
    for write in world.acknowledged()[:3]:
        write.found = None
    assert kinds(world.judge())["lost"].sentence.endswith("absent at the end, and 2 more")


@given(worlds(), st.data())
def test_any_write_acknowledged_while_its_backend_was_away_is_found(
    world: World, data: st.DataObject
) -> None:
    absence = data.draw(st.sampled_from(world.away))
    item = data.draw(st.sampled_from([item for item, needs in NEEDS.items() if absence.component in needs]))
    begun = data.draw(st.floats(absence.start, absence.end))
    quiet = Write("quiet", item, begun, data.draw(st.floats(begun, absence.end)))
    world.writes.append(quiet)
    told = kinds(world.judge(), "failed")
    assert set(told) == {"quiet"}
    assert of(told["quiet"], "op") == ["w-quiet"]
    absent = Away(**told["quiet"].evidence[-1])  # type: ignore[arg-type]
    assert absent in world.away and absent.component in NEEDS[item]
    assert absent.start <= begun and quiet.end is not None and quiet.end <= absent.end


@given(worlds(), st.sampled_from(["postgres", "objectstore"]))
def test_a_component_that_hangs_without_a_word_has_not_failed_loudly(world: World, component: str) -> None:
    def during(write: Write, part: str) -> bool:
        return any(one.component == part and one.start <= write.start <= one.end for one in world.away)

    hung = [w for w in world.writes if component in NEEDS[w.item] and during(w, component)]
    for write in hung:
        write.phase, write.end = "unknown", None
    assert "unanswered" in kinds(world.judge(), "unknown")
    # A lost connection is a word, too.
    one = next(write for write in hung if not during(write, "convex"))
    one.end = one.start + 0.1
    assert not any(component in said.sentence for said in unanswered(world))
    one.end = None
    # Nobody speaks for a Convex that is away itself.
    world.away += [Away("convex", one.start, one.end) for one in world.away]
    assert not unanswered(world)


def unanswered(world: World) -> list[Finding]:
    return [one for one in world.judge().findings if one.kind == "unanswered"]


@given(worlds(), st.data())
def test_a_write_that_outlasts_the_absence_is_none(world: World, data: st.DataObject) -> None:
    absence = data.draw(st.sampled_from(world.away))
    world.writes.append(Write("before", "file", absence.start - 0.5, absence.start + 0.5))
    world.writes.append(Write("after", "file", absence.end - 0.5, absence.end + 0.5))
    assert world.judge().outcome == "passed"


@given(worlds(), st.data())
def test_a_write_that_nobody_read_at_the_end_is_never_a_pass(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.writes))
    # Read, but before the last disturbance was over: that says nothing about the end.
    victim.read_at = data.draw(st.sampled_from([None, 1.5, SETTLED - 1]))
    assume(victim.read_at is None or victim.read_at > victim.start)
    result = world.judge()
    assert result.outcome == "unknown" and set(kinds(result)) == {"unread"}


@given(worlds(), st.sampled_from(COMPONENTS))
def test_another_store_in_the_same_place_is_found(world: World, store: str) -> None:
    world.identity.append((SETTLED + 6, Identity(store, "blank")))
    told = kinds(world.judge(), "failed")
    assert set(told) == {"identity"} and of(told["identity"], "value") == [f"id of {store}", "blank"]


@given(worlds(), st.sampled_from(COMPONENTS), st.booleans())
def test_an_identity_not_read_on_both_sides_is_unknown(world: World, store: str, early: bool) -> None:
    world.identity = [one for one in world.identity if one[1].store != store or (one[0] < SETTLED) == early]
    # Reading it twice on one side does not help.
    world.identity += [one for one in world.identity if one[1].store == store]
    assert set(kinds(world.judge())) == {"identity"} and world.judge().outcome == "unknown"


@given(worlds(), st.sampled_from(COMPONENTS))
def test_a_component_that_never_went_away_survived_nothing(world: World, component: str) -> None:
    world.away = [one for one in world.away if one.component != component]
    assert {"undisturbed"} <= set(kinds(world.judge(), "unknown"))


@given(worlds(), st.data())
def test_an_absence_during_which_nothing_was_tried_is_unknown(world: World, data: st.DataObject) -> None:
    absence = data.draw(st.sampled_from(world.away))
    world.writes = [one for one in world.writes if not absence.start <= one.start <= absence.end]
    assert set(kinds(world.judge())) == {"untried"}


@given(worlds())
def test_a_component_that_never_came_back_is_unknown(world: World) -> None:
    last = max(one.end for one in world.away)
    for write in world.writes:
        write.end = None if (write.end or 0.0) > last else write.end
    result = world.judge()
    assert result.outcome == "unknown" and "unrecovered" in kinds(result)
    assert set(kinds(result)) <= {"unrecovered", "unanswered"}
    assert None in seconds(result).values()


@given(worlds(), st.sampled_from(COMPONENTS), st.floats(0.0, 60.0))
def test_a_recovery_above_its_bound_is_found(world: World, component: str, bound: float) -> None:
    measured = seconds(world.judge())[component]
    assert measured is not None
    assume(abs(measured - bound) > 1e-3)
    world.terms = world.terms.model_copy(update={"rto_s": {component: bound}})
    assert set(kinds(world.judge())) == ({"slow"} if measured > bound else set())


@given(worlds())
def test_sentinels_must_be_older_than_the_first_disturbance(world: World) -> None:
    (sentinel,) = (one for one in world.writes if one.sentinel)
    sentinel.end = 10.5
    assert set(kinds(world.judge())) == {"sentinels"}
    sentinel.end, sentinel.sentinel = 1.0, False
    assert set(kinds(world.judge())) == {"sentinels"}


@given(worlds(), st.data())
def test_a_key_written_twice_cannot_be_judged(world: World, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(world.writes))
    told = sorted((one for write in world.writes for one in write.events()), key=lambda one: one[0])
    told += [(SETTLED - 2, Operation("again", "invoke", "write", "row", victim.key, f"sha-{victim.key}"))]
    result = check_durability(
        table(events(told), Operation).rows,
        frame(Away, *world.away),
        table(events(world.identity), Identity).rows,
        world.terms,
    )
    assert result.outcome == "unknown" and "rewritten" in kinds(result)


@given(worlds())
def test_a_history_that_contradicts_itself_is_unknown(world: World) -> None:
    told = sorted((one for write in world.writes for one in write.events()), key=lambda one: one[0])
    told.append((SETTLED + 9, Operation("stray", "ok", "write", "row", "stray", "sha-stray")))
    result = check_durability(
        table(events(told), Operation).rows,
        frame(Away, *world.away),
        table(events(world.identity), Identity).rows,
        world.terms,
    )
    assert result.outcome == "unknown" and set(kinds(result)) == {"unsound"}


def test_nothing_written_is_unknown() -> None:
    assert World().judge().outcome == "unknown"


def test_a_history_cut_short_anywhere_is_never_a_pass() -> None:
    world = World(
        writes=[
            Write("s", "file", 0.0, 1.0, sentinel=True),
            Write("during", "row", 11.0, 12.0, "fail", found=None),
            Write("after", "row", 25.0, 26.0),
        ],
        away=[Away("postgres", 10.0, 20.0)],
        identity=[(5.0, Identity("postgres", "x")), (SETTLED + 9, Identity("postgres", "x"))],
        terms=DurabilityTerms(settled=SETTLED, disturbed=("postgres",), stores=("postgres",)),
    )
    assert world.judge().outcome == "passed"
    told = sorted((one for write in world.writes for one in write.events()), key=lambda one: one[0])
    # What is missing from the end of the file: readings, answers, then the writes themselves.
    for length in range(len(told)):
        result = check_durability(
            table(events(told[:length]), Operation).rows,
            frame(Away, *world.away),
            table(events(world.identity), Identity).rows,
            world.terms,
        )
        assert result.outcome == "unknown", length
