"""Acceptance test 6: every configured pair and feed is fresh everywhere, is what the exchange sent, and a mute shows."""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from fixtures.errors import ProbeError, SuiteError, Unknown
from fixtures.faults import Journal, PairMuted
from fixtures.history.shapes import Muted, Quote, Shape, Stored, record
from fixtures.observe import freshness, inside, quotes, stored
from fixtures.observe.agreement import Agreement
from fixtures.observe.eventually import eventually
from fixtures.observe.nomad_types import Allocation
from fixtures.pytest_judged import Judged
from fixtures.rollout import agreement, bundle, checks, egress, notices, worker
from fixtures.rollout.freshness import (
    CANDLE_FEED,
    MARKET_ROWS,
    SOURCE,
    Round,
    Watch,
    in_convex,
    listed_pairs,
    name,
    wrong_symbols,
)
from fixtures.rollout.notices import Notices
from fixtures.rollout.planted import planted
from fixtures.rollout.standing import Bounds, standing
from fixtures.target import deadlines, names, pairs
from fixtures.target.cadence import CANDLE, PASS
from fixtures.target.target import Target

pytestmark = pytest.mark.usefixtures("phase3")

Measure = Callable[..., None]
QUOTED = 300.0
"""Seconds for which the exchange records every figure it sends; it stops by itself."""
SETTLED = 10.0
"""Seconds after which no row holds a figure from before the record began: one flush, and its repetition."""
COMPARED_ROWS = 100
"""Newest rows of each table and pair that are compared."""
TAIL = 300.0
"""Seconds of candles compared between an endpoint and the store."""


class Quoting:
    """The exchange's record of every figure sent, begun when first asked for."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._since = -math.inf

    def since(self) -> float:
        """Unix seconds from which on the record has been whole, and still is. Raises Unknown without one."""
        if time.time() > self._since + QUOTED / 2:
            self._target.internet.exchange_admin("POST", f"/_standin/quote?seconds={QUOTED:g}")
            self._since = time.time()
        return self._since

    def covers(self, start: float, end: float) -> bool:
        """Whether the record is whole between two moments."""
        return self._since <= start and end <= self._since + QUOTED


@pytest.fixture(scope="module")
def quoting(target: Target) -> Quoting:
    """Begins with the first test, so that the second finds a record of some length."""
    found = Quoting(target)
    # A target without such a record can still be fresh: the rule that needs it says so.
    with suppress(SuiteError):
        found.since()
    return found


@pytest.mark.rule("T6.1")
def test_every_pair_and_feed_is_fresh_everywhere(
    target: Target, quoting: Quoting, judged: Judged, measure: Measure
) -> None:
    """Watches every endpoint of every instance, and the rows themselves, for as long as a feed may take to advance.

    Every sample must be fresh. The one exception follows from the settings: where REST fetches a feed no oftener than
    it goes stale, a healthy one hovers about its threshold, so it must be fresh once in two of its periods, advance,
    and never be older than its threshold and one period.

    From the first round on nobody may say otherwise: in the store and at every instance no unresolved gap may reach
    beyond it, nor may the monitor confirm one of before after the time it has to take it back, and no instance may show
    a newer lag alert. Gaps of before that nobody confirms are reported. The minute candles opened since must be without
    holes, for the application's monitor would find one in a month; the exchange's record excuses what was never sent.
    """
    one = worker.the_one(target)
    in_convex(target)
    watch = Watch(target)
    _first_data(target, watch, one)
    begun = time.monotonic()
    rounds = [first := watch.round()]
    problems = watch.settings_problems(first)
    assert not problems, f"{len(problems)} settings: {'; '.join(problems[:3])}"
    span = watch.span

    def watched() -> float:
        rounds.append(last := watch.round())
        return min(last.asked[endpoint] - first.asked[endpoint] for endpoint in first.asked)

    eventually(
        "rounds over the time an advance may take",
        watched,
        lambda seconds: seconds >= span,
        within=span + deadlines.MARGIN,
        record=target.record,
        every=watch.pace,
    ).known()
    judged(watch.websocket_terms(), since=begun)
    judged(watch.candle_terms(), since=begun)
    judged(watch.fetched_terms(), since=begun)
    judged(watch.terms(), since=begun)
    unsent = _no_holes(target, watch, rounds, quoting)
    older = _nothing_stands(target, watch, first.over)
    measure(
        instances=len(watch.instances),
        thresholds_s=watch.thresholds,
        hovering_s=watch.hovering,
        waited_for_advance_s=span,
        gaps_of_before=len(older),
        candles_never_sent=unsent,
        clock_error_s=round(watch.clock_error, 3),
    )


def _no_holes(target: Target, watch: Watch, rounds: list[Round], quoting: Quoting) -> int:
    """How many candles are missing that were never sent. AssertionError for one that was, or that may have been."""
    holes = watch.holes(rounds)
    # Only a record that is whole over all of a candle's minute can say that it was not sent.
    excused = {key for key in holes if quoting.covers(key[1], key[1] + CANDLE)}
    if excused:
        records = target.internet.exchange_records(min(at for _, at in excused))
        sent = quotes.sent(records, pairs.symbols(watch.pairs))
        excused -= {(one.pair, one.t_ms / 1000) for one in sent if one.feed == CANDLE_FEED}
    missing = [
        f"{pair} {stored.stamp(at)} at {', '.join(where)}"
        for (pair, at), where in sorted(holes.items())
        if (pair, at) not in excused
    ]
    assert not missing, f"{len(missing)} candles are missing: {'; '.join(missing[:4])}"
    return len(excused)


def _nothing_stands(target: Target, watch: Watch, fresh: float) -> tuple[str, ...]:
    """Gaps of before that nobody confirms. AssertionError for a gap or an alert about a pair that is fresh since then."""
    bounds = Bounds(fresh, watch.cadence, watch.hovering)
    found = eventually(
        "no gap and no alert is left to be taken back or confirmed",
        lambda: standing(watch, bounds),
        lambda seen: bool(seen.wrong) or not seen.open,
        # One more look after everything is decided.
        within=max(0.0, bounds.decided - time.time()) + PASS,
        record=target.record,
        every=2.0,
    ).known()
    assert not found.wrong, f"{len(found.wrong)} about fresh pairs: {'; '.join(found.wrong[:4])}"
    return found.older


def _first_data(target: Target, watch: Watch, one: Allocation) -> None:
    """Give a worker that has only just started the time of its first cycle; what then stands is for the checker."""
    started = one.tasks[names.WORKER_TASK].started or 0.0
    left = started + watch.cadence.advance() + deadlines.MARGIN - time.time()
    if left > 0:
        eventually(
            "first data of every pair and feed since the worker's start",
            lambda: watch.not_fresh(watch.round())[:4],
            lambda found: not found,
            within=left,
            record=target.record,
            every=2.0,
        )


@pytest.mark.rule("T6.2")
def test_what_is_stored_is_what_the_exchange_sent(
    target: Target, quoting: Quoting, judged: Judged, measure: Measure
) -> None:
    """Compares the rows of every pair and feed with the exchange's own record of every figure it sent."""
    worker.the_one(target)
    in_convex(target)
    watch = Watch(target)
    # By the contract's rule: the API's own list may name another symbol, and the worker then asks for that one.
    since, pairs_of = quoting.since(), pairs.symbols(watch.pairs)

    def compared() -> tuple[list[Stored], list[Quote]]:
        rows = stored.market_rows(watch.convex, watch.pairs, COMPARED_ROWS)
        # The log after the rows: what is stored by now has been sent by now.
        sent = quotes.sent(target.internet.exchange_records(since), pairs_of)
        return quotes.stored(rows, since + SETTLED), sent

    # How it ends is for the checker to say: it tells a wrong figure from one that is missing.
    outcome = eventually(
        "a stored figure of every pair and feed among those that were sent",
        compared,
        lambda found: not quotes.unmatched(*found, watch.pairs),
        within=SETTLED + 2 * watch.cadence.advance() + deadlines.MARGIN,
        record=target.record,
        every=2.0,
    )
    if outcome.value is None:
        raise ProbeError("rows and record of the exchange", str(outcome.error), "both readable")
    begun = time.monotonic()
    watch.market_round()
    figures, sent = outcome.value
    shapes: list[Shape] = [*figures, *sent]
    for one in shapes:
        record(target.record, one, SOURCE)
    every = tuple(watch.thresholds)
    terms = watch.terms(
        endpoints=(MARKET_ROWS,), threshold_s=watch.limits, advancing=(), compared=every, advance_s=0.0
    )
    judged(terms, since=begun)
    measure(
        equal=quotes.matched(figures, sent),
        sent=len(sent),
        symbols=len(pairs_of),
        record_s=round(time.time() - since, 1),
    )


@pytest.mark.rule("T6.3")
def test_everybody_has_the_same_pairs(target: Target, measure: Measure) -> None:
    """Reads what every API, worker and frontend goes by, the API's own answer, and what is asked outside.

    API and worker go by their environment. A browser goes by the scripts of the frontend's page: the environment comes
    too late for it, so where that differs is reported, and no fault.
    """
    worker.the_one(target)
    config = target.config
    wanted = {
        "gold": _tokens(config.market_gold_pairs or pairs.DEFAULT_GOLD),
        "crypto": _tokens(config.market_crypto_pairs or pairs.DEFAULT_CRYPTO),
    }
    override = _tokens(config.bingx_market_data_pairs)
    problems: list[str] = []
    too_late: list[str] = []
    tasks = 0
    for job, task, prefix, count, told in (
        (names.API.id, names.API.task, "", names.API.count, problems),
        (names.WORKER_JOB, names.WORKER_TASK, "", 1, problems),
        (names.FRONTEND.id, names.FRONTEND.task, "NEXT_PUBLIC_", names.FRONTEND.count, too_late),
    ):
        running = target.nomad.running(job, task)
        assert len(running) == count, f"{job}: {len(running)} tasks run, the plan says {count}"
        gold, crypto = f"{prefix}MARKET_GOLD_PAIRS", f"{prefix}MARKET_CRYPTO_PAIRS"
        full = "BINGX_MARKET_DATA_PAIRS"
        for one in running:
            tasks += 1
            found = inside.environment(target.nomad, one.id, task, (gold, crypto, full))
            lists = {
                gold: (_tokens(_csv(found, gold) or pairs.DEFAULT_GOLD), wanted["gold"]),
                crypto: (_tokens(_csv(found, crypto) or pairs.DEFAULT_CRYPTO), wanted["crypto"]),
            }
            if not prefix:
                lists[full] = (_tokens(_csv(found, full)), override)
            told += [
                f"{job} on {one.node_name}: {variable} {_difference(has, should)}"
                for variable, (has, should) in lists.items()
                if has != should
            ]
    watch = Watch(target)
    for instance in watch.instances:
        entries = listed_pairs(watch.get(instance, freshness.PAIRS)[0])
        problems += [f"{name(freshness.PAIRS, instance)}: {said}" for said in wrong_symbols(entries)]
        for section, should in wanted.items():
            has = _tokens(str(one["pair"]) for one in entries if one["section"] == section)
            # A full override may leave out what a section lists; a pair of its own is ingested, and listed nowhere.
            should = should & override if override else should
            if has != should:
                problems.append(f"{name(freshness.PAIRS, instance)}: {section} {_difference(has, should)}")
    shown = (
        *(config.market_gold_pairs or pairs.DEFAULT_GOLD),
        *(config.market_crypto_pairs or pairs.DEFAULT_CRYPTO),
    )
    unread: list[Unknown] = []
    for instance in checks.instances(target, names.FRONTEND):
        try:
            problems += filter(None, [bundle.problem(target, instance, shown)])
        except Unknown as error:
            unread.append(error)
    assert not problems, "; ".join(problems)
    if unread:
        raise unread[0]
    symbols = set(pairs.symbols(watch.pairs))
    asked = _asked_outside(target, symbols, watch.cadence.advance()) if target.can("internet") else None
    measure(
        tasks=tasks,
        instances=len(watch.instances),
        pairs=len(watch.pairs),
        symbols_asked=asked,
        frontend_environment_differs=too_late,
    )


def _tokens(listed: Iterator[str] | tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(pairs.token, listed))


def _csv(environment: dict[str, str], variable: str) -> tuple[str, ...]:
    return pairs.parse_csv(environment.get(variable, ""))


def _difference(has: frozenset[str], should: frozenset[str]) -> str:
    return f"lacks {sorted(should - has)}, has {sorted(has - should)} beyond"


def _asked_outside(target: Target, symbols: set[str], within: float) -> int:
    """The worker's deeds: it asks the exchange for every symbol, and for no other. AssertionError if not so."""
    sources = target.internet.sources()
    begun = time.time()

    def asked() -> set[str]:
        return {
            str(one["symbol"])
            for one in target.internet.exchange_records(begun)
            if one.get("kind") == "rest" and sources.get(str(one.get("peer"))) != "legacy"
        }

    found = eventually(
        f"the exchange is asked for {sorted(symbols)}",
        asked,
        lambda seen: seen >= symbols,
        within=within,
        record=target.record,
    ).proven()
    assert found == symbols, f"the exchange is asked for {sorted(found - symbols)}, which nobody configured"
    return len(found)


@pytest.mark.rule("T6.4")
def test_every_endpoint_tells_what_is_stored(target: Target, entries: Journal, measure: Measure) -> None:
    """Compares status, gap, alert and candle answers of every instance with the rows, read before and after each."""
    # Without one the monitors are away, and everybody agrees about nothing.
    worker.the_one(target)
    in_convex(target)
    watch = Watch(target)
    compared: Counter[str] = Counter()
    unsettled: list[str] = []
    problems: list[str] = []
    brackets = 0
    with _something_to_tell(target, entries, watch):
        since = time.time() - TAIL
        results = [("store", agreement.stamps(watch))]
        for one in watch.instances:
            results += agreement.of_instance(watch, one, since).items()
        for endpoint, found in results:
            brackets += found.brackets
            problems += [f"{endpoint}: {said}" for said in found.contradictions]
            unsettled += [f"{endpoint}: {key}" for key in sorted(map(str, found.open))]
            compared.update(_kinds(found))
    assert not problems, f"{len(problems)} contradictions: {'; '.join(problems[:4])}"
    missing = {"stamp", "status", "total", "gap", "alert", "candle"} - set(compared)
    if missing or unsettled:
        raise Unknown(
            "answers and stored rows",
            f"nothing compared of {sorted(missing)}; never settled: {unsettled[:4]}",
            f"everything found as stored within {agreement.BRACKETS} brackets",
        )
    measure(instances=len(watch.instances), brackets=brackets, **compared)


def _kinds(found: Agreement) -> list[str]:
    return [str(key[0]) for key in found.agreed if isinstance(key, tuple)]


@contextmanager
def _something_to_tell(target: Target, entries: Journal, watch: Watch) -> Iterator[None]:
    """A gap and an alert in the store, planted where that is allowed: zeros agree with zeros, whoever says them."""
    known = notices.open_gaps(watch), stored.select(watch.convex, "ops_alerts", limit=1)
    try:
        target.require_scratch()
    except Unknown:
        if not all(known):
            raise
        yield
        return
    now, details = stored.stamp(time.time()), {"planted_by": "acceptance"}
    gap = {
        "pair": watch.pairs[0], "source_type": CANDLE_FEED, "interval": "15m", "gap_start": now, "gap_end": now,
        "expected_interval_seconds": 900, "gap_seconds": 900, "missing_points": 1, "status": "open",
        "detected_at": now, "last_seen_at": now, "resolved_at": None, "heal_attempts": 0, "last_heal_at": None,
        "details": details,
    }  # fmt: skip
    alert = {
        "category": "ops", "severity": "low", "metric": "acceptance_probe", "value": 1, "threshold": None,
        "status": "open", "triggered_at": now, "metadata": details,
    }  # fmt: skip
    with (
        planted(target, entries, "data_gap_events", {"id": str(uuid.uuid4()), **gap}),
        planted(target, entries, "ops_alerts", {"id": str(uuid.uuid4()), **alert}),
    ):
        yield


@pytest.mark.disruptive
@pytest.mark.rule("T6.5")
def test_a_muted_pair_turns_stale_everywhere_and_recovers(
    target: Target, faults: Journal, judged: Judged, measure: Measure
) -> None:
    """Lets the exchange send nothing new for one pair until every endpoint shows it, then lets it speak again."""
    egress.ready(target)
    in_convex(target)
    watch = Watch(target)
    own = watch.cadence
    pair, symbol = _alone(watch)
    eventually(
        "every pair and feed is fresh before the mute",
        lambda: watch.not_fresh(watch.round())[:4],
        lambda found: not found,
        within=own.advance() + deadlines.MARGIN,
        record=target.record,
        every=2.0,
    ).known()
    begun = time.monotonic()
    watch.round()
    longest = max(watch.thresholds[feed] for feed in watch.live)
    notice = max(own.noticed(), own.gap_noticed())
    lifetime = 2 * (longest + CANDLE + notice) + deadlines.MARGIN
    shown_at: dict[str, float] = {}
    host, port = _exchange(target)
    with faults.applied(PairMuted(host, symbol, port, at_most=lifetime)) as fault:
        start = _muted_since(target, symbol)
        # The candle under way is no older than its end, which lies after the mute.
        rest = CANDLE - start % CANDLE
        stale = start + longest + rest

        def shows() -> tuple[float, list[str]]:
            found = watch.round()
            fresh = watch.not_stale(found, pair)
            for endpoint in set(watch.told) - set(fresh):
                shown_at.setdefault(endpoint, found.at)
            missing = [f"{endpoint}: {said}" for endpoint, feeds in fresh.items() for said in feeds]
            return found.at, [*missing, *notices.notices(watch, start).missing(pair, watch.live)]

        eventually(
            f"every endpoint shows {pair} as stale, with gaps and alerts",
            shows,
            lambda seen: not seen[1] and seen[0] >= stale + own.noticed(),
            within=stale + notice + PASS - time.time(),
            record=target.record,
            every=4.0,
        ).proven()
        during = notices.notices(watch, start)
        if _muted_since(target, symbol) != start:
            raise Unknown(
                fault.title, "the exchange was told to speak again meanwhile", "one mute to its end"
            )
        end = time.time()
    record(target.record, Muted(pair, start, end), SOURCE)
    delays = _delays(watch, during, pair, start, rest)
    late = {
        what: delays[what]
        for what, ceiling in (("alert_delay_s", own.noticed()), ("gap_delay_s", own.gap_noticed()))
        if delays[what] > ceiling
    }
    assert not late, f"noticed too late: {late}, the monitors look every {own.sources:g} and {own.gaps:g} s"
    others = during.alerts_of_others(pair, end)
    assert not others, f"alerts about pairs that were not muted: {others[:4]}"
    recovered = _recovered(target, watch, pair, start, end)
    judged(
        watch.candle_terms(
            advancing=(CANDLE_FEED,),
            advance_s=CANDLE + PASS,
            muted_endpoints=watch.endpoints(freshness.CANDLES),
            # Counted from its opening, the last candle was already this old when it was muted.
            grace_s=rest - CANDLE + PASS,
            recovery_s=own.advance(),
        ),
        since=begun,
    )
    for terms in (watch.fetched_terms, watch.terms):
        judged(
            terms(muted_endpoints=watch.told, grace_s=rest + own.noticed(), recovery_s=own.advance()),
            since=begun,
        )
    measure(
        pair=pair,
        muted_s=round(end - start, 1),
        waited_for_threshold_s=longest,
        waited_for_candle_s=round(rest, 1),
        waited_for_monitors_s=notice,
        unavoidable_seconds=round(stale - start, 1),
        stale_after_s={where: round(at - start, 1) for where, at in sorted(shown_at.items())},
        alert_ceiling_s=own.noticed(),
        gap_ceiling_s=own.gap_noticed(),
        **delays,
        **recovered,
    )


def _alone(watch: Watch) -> tuple[str, str]:
    """A pair whose symbol feeds no other: a mute must touch nobody else. Raises Unknown when there is none."""
    for symbol, fed in pairs.symbols(watch.pairs).items():
        if len(fed) == 1:
            return fed[0], symbol
    raise Unknown(
        "pair to mute", f"every symbol feeds several of {watch.pairs}", "a pair with a symbol of its own"
    )


def _exchange(target: Target) -> tuple[str, int]:
    """Host and port of the exchange. Raises Unknown when they cannot be told."""
    hosts, port = target.hosts.names("internet"), urlsplit(target.config.bingx_base_url or "").port
    if len(hosts) != 1 or port is None:
        raise Unknown("the exchange", f"hosts {hosts}, port {port}", "one host, and a port in BINGX_BASE_URL")
    return hosts[0], port


def _muted_since(target: Target, symbol: str) -> float:
    """Unix seconds of the exchange's clock. Raises Unknown when it is not muted."""
    muted = target.internet.exchange_admin("GET", "/_standin/status").get("muted")
    if not isinstance(muted, dict) or symbol not in muted:
        raise Unknown(f"mute of {symbol}", f"muted is {muted!r:.80}", "the symbol and since when")
    return float(muted[symbol]) / 1000


def _delays(watch: Watch, during: Notices, pair: str, start: float, rest: float) -> dict[str, float]:
    """How long after its threshold the slowest feed had its first alert, and its first gap."""
    found: dict[str, float] = {}
    for what, told in (("alert_delay_s", during.alerts), ("gap_delay_s", during.gaps)):
        delays: list[float] = []
        for feed in watch.live:
            due = start + watch.thresholds[feed] + (rest if feed == CANDLE_FEED else 0.0)
            first = during.first(told, pair, feed)
            if first is None:
                raise Unknown(
                    f"{what} of {pair} {feed}", "no row left in the store", "the row that was seen there"
                )
            delays.append(first - due)
        found[what] = round(max(delays), 1)
    return found


def _recovered(target: Target, watch: Watch, pair: str, start: float, end: float) -> dict[str, float]:
    """Fresh again, every gap of the mute closed, no alert any more. AssertionError if not in time."""
    own = watch.cadence
    eventually(
        f"{pair} is fresh again everywhere",
        lambda: watch.not_fresh(watch.round())[:4],
        lambda found: not found,
        within=max(0.0, end + own.advance() - time.time()),
        record=target.record,
        every=1.0,
    ).proven()
    fresh_at = time.time()
    # A round after the time allowed, for the checker.
    judged_from = end + own.advance()
    last: list[Notices] = []

    def left() -> tuple[float, list[str]]:
        found = watch.round()
        last[:] = [notices.notices(watch, start)]
        return found.at, last[0].open_of(pair)

    eventually(
        f"every gap of {pair} since the mute is closed",
        left,
        lambda seen: not seen[1] and seen[0] > judged_from,
        within=max(own.gap_noticed(), judged_from - fresh_at) + PASS,
        record=target.record,
        every=2.0,
    ).proven()
    closed_at = time.time()
    alert = last[0].last_alert(pair)
    assert alert is not None and alert <= fresh_at + PASS, (
        f"an alert {alert} after {pair} was fresh at {fresh_at}"
    )
    return {"fresh_after_s": round(fresh_at - end, 1), "closed_after_s": round(closed_at - end, 1)}
