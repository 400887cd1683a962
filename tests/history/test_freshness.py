from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from hypothesis import assume
from hypothesis import strategies as st

from fixtures.history.freshness import FreshnessTerms, check_freshness
from fixtures.history.results import CheckResult
from fixtures.history.shapes import Freshness, Muted, Quote, Stored
from tests.history.made import frame, given, kinds, of

ENDPOINTS = ("/data-sources/status", "store")
PAIRS = ("BTC-USDT", "XAUTUSDT")
TERMS = FreshnessTerms(
    endpoints=ENDPOINTS,
    pairs=PAIRS,
    threshold_s={"ticker": 20.0, "funding": 5000.0},
    advancing=("ticker",),
    compared=("ticker",),
    advance_s=10.0,
    agree_s=2.0,
    future_s=6.0,
    clock_error_s=0.1,
    muted_endpoints=ENDPOINTS[:1],
    grace_s=5.0,
    recovery_s=10.0,
)
BASE = 1_000_000.0


@dataclass
class World:
    """What every endpoint says in every round; every list may be changed before it is judged."""

    samples: list[Freshness] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    muted: list[Muted] = field(default_factory=list)
    terms: FreshnessTerms = TERMS

    def judge(self) -> CheckResult:
        return check_freshness(
            frame(Freshness, *self.samples),
            frame(Stored, *self.stored),
            frame(Quote, *self.quotes),
            frame(Muted, *self.muted),
            self.terms,
        )

    def change(self, one: Freshness, **changes: object) -> None:
        self.samples[self.samples.index(one)] = dataclasses.replace(one, **changes)  # type: ignore[arg-type]

    def plain(self) -> list[Freshness]:
        """Samples that no mute touches."""
        return [
            one
            for one in self.samples
            if not any(
                m.pair == one.pair and m.start <= one.at <= m.end + TERMS.recovery_s for m in self.muted
            )
        ]

    def tickers(self) -> list[Freshness]:
        return [one for one in self.plain() if one.feed == "ticker"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Data that flows, and a pair that was muted and shown as stale meanwhile."""
    # Its recovery ends between two rounds: no round is half excused, which would leave nobody to disagree with.
    world = World(muted=[Muted("BTC-USDT", BASE + 30, BASE + 75)])
    for number in range(14):
        for endpoint in ENDPOINTS:
            at = BASE + number * 10 + draw(st.floats(0.0, 1.0))
            for pair in PAIRS:
                quiet = pair == "BTC-USDT" and BASE + 30 <= at <= BASE + 75
                seen = BASE + 30 if quiet else BASE + number * 10 - draw(st.floats(0.0, 1.0))
                status = "stale" if at - seen > 20.0 else "ok"
                world.samples.append(Freshness(number, endpoint, pair, "ticker", at, True, seen, status))
                world.samples.append(Freshness(number, endpoint, pair, "funding", at, True, BASE - 900, "ok"))
    for pair in PAIRS:
        for second in range(20):
            value = str(draw(st.integers(1, 99)))
            world.quotes.append(Quote(pair, "ticker", second * 1000, value))
            if draw(st.booleans()) or second == 3:
                world.stored.append(Stored(pair, "ticker", second * 1000, value))
    world.samples = draw(st.permutations(world.samples))
    return world


@given(worlds())
def test_data_that_flows_passes(world: World) -> None:
    result = world.judge()
    assert result.outcome == "passed", result.findings
    assert result.figures["rounds"] == 14 and result.figures["muted"] == 1


@given(worlds(), st.data())
def test_any_single_wrong_sample_is_found(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.tickers()))
    cases: list[tuple[str, dict[str, object]]] = [
        ("absent", {"present": False, "last_seen": None, "status": None}),
        ("null", {"last_seen": None}),
        ("stale", {"last_seen": one.at - 20.11}),
        ("future", {"last_seen": one.at + 6.11}),
    ]
    kind, changes = data.draw(st.sampled_from(cases))
    world.change(one, **changes)
    told = kinds(world.judge(), "failed")
    # Data that far off disagrees with the other endpoint as well.
    assert kind in told and set(told) <= {kind, "disagree"}
    assert [(row["round"], row["endpoint"], row["pair"]) for row in told[kind].evidence] == [
        (one.round, one.endpoint, one.pair)
    ]


@given(worlds(), st.data())
def test_the_clock_error_leaves_an_edge_that_is_unknown(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.tickers()))
    off = data.draw(st.floats(-0.09, 0.09))
    world.terms = TERMS.model_copy(update={"agree_s": 100.0})
    world.change(one, last_seen=one.at - 20.0 + off)
    result = world.judge()
    assert result.outcome == "unknown" and set(kinds(result)) == {"edge"}


@given(worlds(), st.sampled_from(ENDPOINTS))
def test_a_feed_that_does_not_move_is_found(world: World, endpoint: str) -> None:
    world.terms = TERMS.model_copy(
        update={"agree_s": 1000.0, "threshold_s": {"ticker": 900.0, "funding": 5000.0}, "muted_endpoints": ()}
    )
    world.muted = []
    for one in [
        one for one in world.samples if (one.endpoint, one.pair, one.feed) == (endpoint, PAIRS[1], "ticker")
    ]:
        world.change(one, last_seen=BASE - 5)
    told = kinds(world.judge(), "failed")
    assert set(told) == {"stuck"}
    assert of(told["stuck"], "endpoint") == [endpoint] and of(told["stuck"], "pair") == [PAIRS[1]]


@given(worlds(), st.data())
def test_endpoints_that_disagree_are_found(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.tickers()))
    assert one.last_seen is not None
    world.change(one, last_seen=one.last_seen - data.draw(st.floats(5.0, 10.0)))
    told = kinds(world.judge(), "failed")
    assert set(told) == {"disagree"}
    assert set(of(told["disagree"], "endpoint")) == set(ENDPOINTS)
    assert {row["round"] for row in told["disagree"].evidence} == {one.round}


@given(worlds(), st.data())
def test_anything_stored_that_was_not_sent_is_found(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.stored))
    world.stored.append(dataclasses.replace(one, value="invented"))
    told = kinds(world.judge(), "failed")
    assert set(told) == {"wrong"}
    assert of(told["wrong"], "value") == ["invented"] and of(told["wrong"], "t_ms") == [one.t_ms] * 2
    world.stored[-1] = Stored(one.pair, one.feed, 1500, "1")
    assert "nothing of that time" in kinds(world.judge())["wrong"].sentence
    world.stored[-1] = Stored(one.pair, one.feed, 999_000, "1")
    assert world.judge().outcome == "passed", "the exchange's log does not reach that far"


@given(worlds(), st.data())
def test_a_muted_pair_that_is_shown_as_fresh_is_found(world: World, data: st.DataObject) -> None:
    held = [
        one
        for one in world.samples
        if one.pair == "BTC-USDT"
        and one.feed == "ticker"
        and BASE + 55 <= one.at <= BASE + 75
        and one.endpoint == ENDPOINTS[0]
    ]
    one = data.draw(st.sampled_from(held))
    lies: list[dict[str, object]] = [{"status": "ok"}, {"last_seen": one.at - 1}]
    world.change(one, **data.draw(st.sampled_from(lies)))
    told = kinds(world.judge(), "failed")
    assert set(told) == {"hidden"} and of(told["hidden"], "round") == [one.round]


@given(worlds(), st.floats(0.0, 30.0))
def test_a_muted_pair_is_excused_until_it_has_recovered(world: World, late: float) -> None:
    assume(abs(late - TERMS.recovery_s) > 0.01)
    held = [one for one in world.samples if one.pair == "BTC-USDT" and one.feed == "ticker"]
    mute = world.muted[0].end
    for one in [one for one in held if mute < one.at <= mute + late]:
        world.change(one, last_seen=BASE + 30, status="stale")
    told = kinds(world.judge(), "failed")
    after = [one for one in held if mute + TERMS.recovery_s < one.at <= mute + late]
    assert set(told) <= {"stale", "disagree"} and ("stale" in told) == bool(after)


@given(worlds(), st.data())
def test_the_clock_error_never_hides_a_muted_pair_that_is_stale(world: World, data: st.DataObject) -> None:
    world.terms = TERMS.model_copy(update={"clock_error_s": 1.0})
    held = [
        one
        for one in world.samples
        if one.pair == "BTC-USDT" and one.feed == "ticker" and BASE + 55 <= one.at <= BASE + 80
    ]
    one = data.draw(st.sampled_from(held))
    world.change(one, last_seen=one.at - 20.0 + data.draw(st.floats(-0.9, 0.9)), status="stale")
    assert "hidden" not in kinds(world.judge())


@given(worlds(), st.data())
def test_a_row_that_is_absent_is_not_read(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.tickers()))
    world.change(one, present=False, last_seen=one.at - 999)
    assert set(kinds(world.judge(), "failed")) == {"absent"}


@given(worlds())
def test_a_control_nobody_looked_at_is_unknown(world: World) -> None:
    world.muted = []
    world.samples = [one for one in world.samples if not BASE + 30 <= one.at <= BASE + 91]
    assert set(kinds(world.judge())) == {"control"}
    world.muted = [Muted("BTC-USDT", BASE + 30, BASE + 40)]
    assert set(kinds(world.judge())) == {"control"}, "muted too short to be seen"


@given(worlds(), st.data())
def test_anything_left_out_of_a_round_is_unknown(world: World, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(world.samples))
    which = data.draw(st.sampled_from(["sample", "endpoint", "pair"]))
    world.samples = [
        other
        for other in world.samples
        if not (
            other is one
            or (which == "endpoint" and (other.round, other.endpoint) == (one.round, one.endpoint))
            or (which == "pair" and other.pair == one.pair)
        )
    ]
    assert "unasked" in kinds(world.judge(), "unknown")


@given(worlds())
def test_a_single_look_shows_no_advance(world: World) -> None:
    world.samples = [one for one in world.samples if one.round == 0]
    world.muted, world.terms = [], TERMS.model_copy(update={"muted_endpoints": ()})
    assert set(kinds(world.judge())) == {"short"}


@given(worlds())
def test_nothing_compared_is_unknown(world: World) -> None:
    world.stored = [one for one in world.stored if one.pair != PAIRS[1]]
    assert set(kinds(world.judge())) == {"uncompared"}


def test_nothing_asked_is_unknown() -> None:
    assert World().judge().outcome == "unknown"


PERIOD = 120.0


def hovering(ages: list[float], every: float = 60.0, **changes: object) -> CheckResult:
    """Samples of one feed whose rows come as seldom as they go stale, as old as given."""
    terms = TERMS.model_copy(
        update={
            "endpoints": ENDPOINTS[:1], "pairs": PAIRS[:1], "threshold_s": {"interest": 120.0},
            "advancing": ("interest",), "compared": (), "advance_s": 182.0, "muted_endpoints": (),
            "period_s": {"interest": PERIOD}, **changes,
        }
    )  # fmt: skip
    samples = [
        Freshness(number, ENDPOINTS[0], PAIRS[0], "interest", BASE + number * every, True,
                  BASE + number * every - age, None)
        for number, age in enumerate(ages)
    ]  # fmt: skip
    return World(samples=samples, terms=terms).judge()


@given(st.floats(0.0, 119.0), st.floats(0.0, 60.0))
def test_a_feed_that_comes_as_seldom_as_it_goes_stale_passes_whenever_it_is_looked_at(
    phase: float, late: float
) -> None:
    # A row each 120 s, stored up to 60 s after the time it speaks of: stale for as long in each period.
    ages = [(phase + number * 60.0) % PERIOD + late for number in range(5)]
    assume(all(abs(age - 120.0) > 0.1 for age in ages))
    assert hovering(ages).outcome == "passed"
    plain = kinds(hovering(ages, period_s={}), "failed")
    assert ("stale" in plain) == (max(ages) > 120.0), "without a period every sample must be fresh"


def test_a_feed_with_a_period_that_was_not_fresh_once_is_found() -> None:
    ages = [130.0, 190.0, 130.0, 190.0, 130.0]
    assert set(kinds(hovering(ages), "failed")) == {"never"}
    assert hovering([119.0, *ages[1:]]).outcome == "passed"
    assert set(kinds(hovering([120.05, *ages[1:]]))) == {"edge"}


def test_no_sample_is_older_than_threshold_and_period() -> None:
    assert hovering([60.0, 119.0, 179.0, 239.0, 60.0]).outcome == "passed"
    told = kinds(hovering([65.0, 125.0, 185.0, 241.0, 60.0]), "failed")
    assert set(told) == {"stale"} and of(told["stale"], "period_s") == [PERIOD]


def test_a_feed_with_a_period_must_advance() -> None:
    # One row, seen in its youth, and no other for two periods: never too old, and yet nothing comes.
    assert set(kinds(hovering([-1.0, 59.0, 119.0, 179.0, 239.0]), "failed")) == {"stuck"}


def test_a_feed_with_a_period_is_watched_for_two() -> None:
    assert set(kinds(hovering([10.0, 70.0, 10.0, 70.0]), "unknown")) == {"short"}
