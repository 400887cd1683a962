"""Seeded defects of market data: pairs and feeds that are missing, late, invented, or that nobody is told about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from drills.defects.defect import WEAKNESS, Defect, deployed, extra_environment, repeatedly
from fixtures.rollout import snapshot
from fixtures.target import names
from fixtures.target.change import JobChange
from fixtures.target.pairs import parse_csv, token
from fixtures.target.target import Target

NO_WORKER = frozenset({"T6.1", "T6.2", "T6.3", "T6.4", "T6.5"})
"""Rules about a worker that ingests."""
CRYPTO_VARIABLE = "market_crypto_pairs"

# The last of the plan's crypto pairs: its symbol feeds no other pair, and T6.5 mutes an earlier one.
LOST = "BNB-USDT"

# The last of the plan's gold pairs, at the exchange under a symbol of its own: the first such pair, which T6.5 mutes.
MISTAKEN = "PAXGUSDT"

_IMPORTED = frozenset({"T6.4"})
"""On a cluster in which the pair was never ingested its stamps are those of the imported snapshot, without a row."""


def _without_last(own: Mapping[str, Any], variable: str) -> Mapping[str, Any]:
    return {variable: ",".join(parse_csv(str(own[variable]))[:-1])}


@contextmanager
def _rows_missing(target: Target) -> Iterator[None]:
    """Delete the status rows of a pair: once nobody ingests it any more, nobody writes them anew."""
    convex = target.convex()

    def delete() -> None:
        convex.delete("data_source_status", pair=LOST)

    with repeatedly(delete, 0.5):
        yield


def _rows_again(target: Target) -> None:
    """The rows the imported snapshot had, until the good worker writes its own."""
    if not deployed(target, names.CONVEX.id):
        return
    args = {"table": "data_source_status", "action": "upsert", "onConflict": "pair,source_type"}
    target.convex().mutation("data:write", {**args, "payload": snapshot.rows((LOST,), datetime.now(UTC))})


def _worker(weakness: str) -> dict[str, JobChange]:
    return {names.WORKER_JOB: extra_environment("worker_env", **{WEAKNESS: weakness})}


def _api(weakness: str) -> dict[str, JobChange]:
    return {names.API.id: extra_environment("api_env", **{WEAKNESS: weakness})}


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="pair-dropped-by-worker",
        title="the worker throws the data of one pair away",
        mutation=f"gvfx-worker: stand-in weakness mute-pair:{token(LOST)}",
        why=(
            "its rows are there, from before, and everybody agrees about them; only their age tells. With a pair that"
            " is stale before the mute, T6.5 cannot begin"
        ),
        expected_red=frozenset({"T6.1", "T6.2"}),
        expected_unknown=frozenset({"T6.5"}),
        tolerated=_IMPORTED,
        jobs=_worker(f"mute-pair:{token(LOST)}"),
    ),
    Defect(
        id="pair-only-in-api",
        title="the API is configured with a pair that the worker is not",
        mutation="gvfx-worker: market_crypto_pairs without its last pair",
        why="the monitors visit their own pairs only, so neither gap nor alert speaks of it",
        expected_red=frozenset({"T6.1", "T6.2", "T6.3"}),
        expected_unknown=frozenset({"T6.5"}),
        tolerated=_IMPORTED,
        jobs={names.WORKER_JOB: JobChange(override=lambda own: _without_last(own, CRYPTO_VARIABLE))},
    ),
    Defect(
        id="pair-only-in-api-called-ok",
        title="a pair that was never ingested is called ok",
        mutation=(
            f"gvfx-worker: weakness drop-pair:{token(LOST)}; gvfx-api: weakness status-ok-when-absent; Convex: the"
            " pair's status rows are deleted twice a second"
        ),
        why="every environment has the pair and the endpoint says ok; the time is null, and nobody asks the exchange",
        expected_red=frozenset({"T1.7", "T6.1", "T6.2", "T6.3", "T6.4"}),
        expected_unknown=frozenset({"T6.5"}),
        jobs={**_worker(f"drop-pair:{token(LOST)}"), **_api("status-ok-when-absent")},
        during=_rows_missing,
        clean=_rows_again,
    ),
    Defect(
        id="frontend-other-pairs",
        title="the frontend was built with fewer gold pairs",
        mutation=f"gvfx-frontend: stand-in weakness bundle-lacks-pair:{token(MISTAKEN)}",
        why=(
            "every endpoint is right, and every environment, the frontend's as well: a browser has what was built into"
            " the page's script"
        ),
        expected_red=frozenset({"T6.3"}),
        jobs={
            names.FRONTEND.id: extra_environment(
                "frontend_env", **{WEAKNESS: f"bundle-lacks-pair:{token(MISTAKEN)}"}
            )
        },
    ),
    Defect(
        id="gold-of-another-token",
        title="the shared image knows PAXG by the symbol of the other gold token",
        mutation=f"gvfx-api and gvfx-worker: stand-in weakness taken-for-gold:{token(MISTAKEN)}",
        why=(
            "API and worker agree, every source is fresh and every figure was sent, for another pair; the names in the"
            " API's list give it away. Nothing is asked about PAXG, so T6.2 has nothing to compare its rows with, and"
            " when the exchange falls silent about it in T6.5 nobody notices"
        ),
        expected_red=frozenset({"T6.3", "T6.5"}),
        expected_unknown=frozenset({"T6.2"}),
        jobs={**_worker(f"taken-for-gold:{token(MISTAKEN)}"), **_api(f"taken-for-gold:{token(MISTAKEN)}")},
    ),
    Defect(
        id="sources-stamped-now",
        title="the worker stamps every source as seen now, data or not",
        mutation="gvfx-worker: stand-in weakness stamp-now",
        why="while data flows only funding gives it away, which is hours old; a muted pair never turns stale",
        expected_red=frozenset({"T6.4", "T6.5"}),
        jobs=_worker("stamp-now"),
    ),
    Defect(
        id="candles-of-the-future",
        title="candles are as fresh as their close, which lies ahead",
        mutation="gvfx-worker: stand-in weakness future-candles",
        why=(
            "the age is negative, below any threshold, and no row is of that time; with data of the future in every"
            " pair T6.5 cannot begin"
        ),
        expected_red=frozenset({"T6.1", "T6.4"}),
        expected_unknown=frozenset({"T6.5"}),
        jobs=_worker("future-candles"),
    ),
    Defect(
        id="websocket-to-one-alias",
        title="frames of a shared symbol reach one of its two pairs",
        mutation="gvfx-worker: stand-in weakness ws-first-pair-only",
        why="REST keeps the other one fresh as long as its cycles are short; only the writer's name in the rows tells",
        expected_red=frozenset({"T6.1"}),
        jobs=_worker("ws-first-pair-only"),
    ),
    Defect(
        id="prices-rounded",
        title="last prices are stored rounded",
        mutation="gvfx-worker: stand-in weakness rounded-prices",
        why="everything is there, in time and everywhere the same: only the exchange's own record knows better",
        expected_red=frozenset({"T6.2"}),
        jobs=_worker("rounded-prices"),
    ),
    Defect(
        id="gaps-never-sought",
        title="the gap monitor never looks",
        mutation="gvfx-worker: stand-in weakness no-gap-scan",
        why="no gap is what a healthy system shows as well; a pair must fall silent to tell the two apart",
        expected_red=frozenset({"T6.5"}),
        jobs=_worker("no-gap-scan"),
    ),
    Defect(
        id="alerts-never-raised",
        title="lag never raises an alert",
        mutation="gvfx-worker: stand-in weakness no-alerts",
        why="no alert is what a healthy system shows as well",
        expected_red=frozenset({"T6.5"}),
        jobs=_worker("no-alerts"),
    ),
    Defect(
        id="gaps-always-zero",
        title="the gap endpoint answers zeros without reading the store",
        mutation="gvfx-api: stand-in weakness gaps-static-zero",
        why="zeros are true while there is no gap: one must be planted, or a pair fall silent, or the store go away",
        expected_red=frozenset({"T1.2", "T1.10", "T1.15", "T6.4", "T6.5"}),
        jobs=_api("gaps-static-zero"),
    ),
)
