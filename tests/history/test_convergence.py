from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from hypothesis import strategies as st

from fixtures.history.convergence import ConvergenceTerms, check_convergence
from fixtures.history.frames import table
from fixtures.history.results import CheckResult
from fixtures.history.shapes import FaultPhase, Sample, Surface
from tests.history.made import events, frame, given, kinds, of

TERMS = ConvergenceTerms(what=("api", "worker"), within_s=30.0, hold_s=20.0, max_gap_s=2.0)


@dataclass
class World:
    """Faults, samples and the fault surface; every list may be changed before it is judged."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[tuple[float, FaultPhase]] = field(default_factory=list)
    surface: list[Surface] = field(default_factory=list)
    terms: ConvergenceTerms = TERMS

    def judge(self) -> CheckResult:
        faults = table(events(self.faults, name="host-down"), FaultPhase).rows
        return check_convergence(
            frame(Sample, *self.samples), faults, frame(Surface, *self.surface), self.terms
        )

    @property
    def end(self) -> float:
        return max(at for at, one in self.faults if one.phase == "verified")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A system that comes back in time and stays; while the faults last, anything goes."""
    world = World()
    now = 10.0
    for number in range(draw(st.integers(1, 3))):
        for phase in ("intent", "applied", "undone", "verified"):
            now += draw(st.integers(1, 5))
            world.faults.append((now, FaultPhase(f"f{number}", phase)))
    for what in TERMS.what:
        back = now + draw(st.integers(0, 29))
        until = back + 21 + draw(st.integers(0, 20))
        at = 5.0
        while at <= until:
            good = at > back or (at < now and draw(st.booleans()))
            world.samples.append(Sample(what, at, good))
            at += 1.0
    items = draw(
        st.lists(st.sampled_from(["rules", "eligibility", "clock", "disk"]), min_size=1, unique=True)
    )
    world.surface = [
        Surface(moment, "c1", item, f"{item} as ever") for moment in ("before", "after") for item in items
    ]
    return world


@given(worlds(), st.randoms(use_true_random=False))
def test_a_system_that_returns_and_stays_passes(world: World, random: object) -> None:
    random.shuffle(world.samples)  # type: ignore[attr-defined]
    result = world.judge()
    assert result.outcome == "passed", result.findings
    for what in TERMS.what:
        mine = [one for one in world.samples if one.what == what and one.sent > world.end]
        back = min(one.sent for one in mine if one.ok)
        last = max(one.sent for one in mine)
        assert result.figures[what] == {
            "samples": len(mine),
            "steady_after_s": back - world.end,
            "steady_for_s": last - back,
        }


@given(worlds(), st.sampled_from(TERMS.what), st.data())
def test_any_bad_sample_after_the_bound_is_found(world: World, what: str, data: st.DataObject) -> None:
    last = max(one.sent for one in world.samples if one.what == what)
    for at in range(int(last) + 1, int(world.end) + 60):
        world.samples.append(Sample(what, float(at), True))
    late = data.draw(
        st.sampled_from([s for s in world.samples if s.what == what and s.sent > world.end + 30.0])
    )
    world.samples = [dataclasses.replace(one, ok=False) if one is late else one for one in world.samples]
    told = kinds(world.judge(), "failed")
    assert set(told) == {"unsteady"}
    assert of(told["unsteady"], "sent") == [late.sent] and of(told["unsteady"], "fault_ended") == [world.end]
    assert of(told["unsteady"], "what") == [what]
    assert told["unsteady"].sentence.startswith(f"{what} was still bad {late.sent - world.end:.3f} s after")


@given(worlds(), st.data())
def test_anything_that_is_left_is_found(world: World, data: st.DataObject) -> None:
    after = data.draw(st.sampled_from([one for one in world.surface if one.moment == "after"]))
    world.surface[world.surface.index(after)] = dataclasses.replace(after, value="changed")
    told = kinds(world.judge(), "failed")
    assert set(told) == {"residue"}
    assert of(told["residue"], "item") == [after.item] and of(told["residue"], "after") == ["changed"]


@given(worlds(), st.data())
def test_a_surface_seen_on_one_side_only_is_unknown(world: World, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(world.surface))
    world.surface.remove(gone)
    result = world.judge()
    assert result.outcome == "unknown" and set(kinds(result)) == {"unseen"}
    assert f"looked at {gone.moment} the faults" in result.findings[0].sentence
    world.surface = []
    assert set(kinds(world.judge())) == {"unseen"}
    world.terms = TERMS.model_copy(update={"surface": False})
    assert world.judge().outcome == "passed"


@given(worlds(), st.sampled_from(TERMS.what), st.data())
def test_a_hole_in_the_samples_is_never_a_pass(world: World, what: str, data: st.DataObject) -> None:
    after = [one for one in world.samples if one.what == what and one.sent > world.end]
    index = data.draw(st.integers(0, len(after) - 4))
    gone = after[index : index + 3]
    world.samples = [one for one in world.samples if one not in gone]
    assert "gap" in kinds(world.judge(), "unknown")


@given(worlds(), st.sampled_from(TERMS.what), st.floats(0.0, 19.0))
def test_a_history_that_ends_too_soon_is_never_a_pass(world: World, what: str, kept: float) -> None:
    mine = [one for one in world.samples if one.what == what and one.sent > world.end]
    back = next(one.sent for one in mine if one.ok)
    world.samples = [one for one in world.samples if one.what != what or one.sent <= back + kept]
    assert set(kinds(world.judge())) == {"short"}
    world.samples = [one for one in world.samples if one.what != what or one.sent <= world.end]
    assert set(kinds(world.judge())) == {"silent"}


@given(worlds(), st.data())
def test_the_first_look_before_and_the_last_look_after_count(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.surface))
    passing = dataclasses.replace(one, value="in passing")
    # Something seen while the faults lasted is neither: it stands after the one, and before the other.
    index = world.surface.index(one) + (one.moment == "before")
    world.surface.insert(index, passing)
    assert world.judge().outcome == "passed"


@given(worlds())
def test_a_fault_that_still_stands_is_unknown(world: World) -> None:
    world.faults.append((world.end - 0.5, FaultPhase("open", "intent")))
    assert set(kinds(world.judge())) == {"standing"} and world.judge().outcome == "unknown"


def test_without_a_fault_there_is_nothing_to_return_from() -> None:
    assert World().judge().outcome == "unknown"
    assert World(faults=[(1.0, FaultPhase("f", "intent"))]).judge().outcome == "unknown"
