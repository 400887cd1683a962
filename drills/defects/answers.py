"""Seeded defects of what is stored and told: gaps, alerts and files that are there, and not as they should be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from drills.defects import durability
from drills.defects.defect import WEAKNESS, Defect, deployed, extra_environment, repeatedly
from fixtures.errors import ProbeError
from fixtures.rollout.undoing import afterwards
from fixtures.target import names
from fixtures.target.target import Target

GAPS, PAGE = 260, 250
"""More gaps than the endpoint lists at most."""
_MARK = "gap-totals-of-a-page"
_ALERT = "00000000-0000-4000-8000-00000000a1e7"


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def gaps(pair: str, now: datetime) -> list[dict[str, Any]]:
    """Open gaps of a day ago, one a minute, that no monitor has found and none will close."""
    seen = _stamp(now)
    days = [_stamp(now - timedelta(days=1, minutes=number)) for number in range(GAPS)]
    return [
        {
            "drill": _MARK, "pair": pair, "source_type": "bingx_candles", "interval": "1m", "gap_start": at,
            "gap_end": at, "expected_interval_seconds": 60, "gap_seconds": 60, "missing_points": 1,
            "status": "open", "detected_at": at, "last_seen_at": seen, "resolved_at": None, "heal_attempts": 0,
            "last_heal_at": None, "details": {"planted_by": "defect"},
        }
        for at in days
    ]  # fmt: skip


def _no_gaps(target: Target) -> None:
    if deployed(target, names.CONVEX.id):
        # Convex may have moved meanwhile.
        target.convex().delete("data_gap_events", drill=_MARK)


def _no_alert(target: Target) -> None:
    if deployed(target, names.CONVEX.id):
        target.convex().delete("ops_alerts", id=_ALERT)


@contextmanager
def _many_gaps(target: Target) -> Iterator[None]:
    rows = gaps(target.config.supported_pairs[-1], datetime.now(UTC))
    with afterwards(lambda: _no_gaps(target)):
        args = {"table": "data_gap_events", "action": "insert", "payload": rows}
        target.convex().mutation("data:write", args)
        yield


def alert(now: datetime) -> dict[str, Any]:
    """An alert with a severity that no reader knows."""
    return {
        "id": _ALERT, "category": "ops", "severity": "critical", "metric": "disk_used_percent", "value": 91,
        "threshold": 90, "status": "open", "triggered_at": _stamp(now), "metadata": {"planted_by": "defect"},
    }  # fmt: skip


@contextmanager
def _alert_of_another_tool(target: Target) -> Iterator[None]:
    """Raised again and again, so that it is among the newest whenever somebody looks."""

    convex = [target.convex()]

    def write() -> None:
        try:
            convex[0].upsert("ops_alerts", [alert(datetime.now(UTC))], "id")
        except ProbeError:
            # It may have moved.
            convex[0] = target.convex()
            raise

    with afterwards(lambda: _no_alert(target)), repeatedly(write, 5.0):
        yield


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id=_MARK,
        title="the gap endpoint's totals count its page, not the store",
        mutation=f"gvfx-api: stand-in weakness gaps-totals-capped; Convex: {GAPS} open gaps of yesterday",
        why=f"up to {PAGE} gaps it is right; an outage leaves more, and the endpoint goes on saying {PAGE}",
        expected_red=frozenset({"T1.2", "T6.4"}),
        jobs={names.API.id: extra_environment("api_env", **{WEAKNESS: "gaps-totals-capped"})},
        during=_many_gaps,
        clean=_no_gaps,
    ),
    Defect(
        id="store-failure-hidden",
        title="gaps and alerts are empty, and well, when their store fails",
        mutation="gvfx-api: stand-in weaknesses gaps-zero-on-error and alerts-empty-on-error",
        why="no endpoint contradicts the other one: only who knows the store to be away knows that both lie",
        expected_red=frozenset({"T1.15"}),
        jobs={
            names.API.id: extra_environment(
                "api_env", **{WEAKNESS: "gaps-zero-on-error,alerts-empty-on-error"}
            )
        },
    ),
    Defect(
        id="alert-of-another-tool",
        title="a tool of somebody else's raises an alert with a severity that nobody knows",
        mutation="Convex: an alert of severity critical, raised anew every 5 s",
        why="the API passes on what stands there; each reader of alerts by the contract meets a word it has not",
        # Whoever reads alerts checks that they are such, users and the rollback among them.
        expected_red=frozenset({"P4.1", "P4.3", "T1.3", "T1.6", "T6.1", "T6.4", "T6.5"}),
        during=_alert_of_another_tool,
        clean=_no_alert,
    ),
    Defect(
        id="alerts-of-slo-only",
        title="the alert endpoint tells of no category but slo",
        mutation="gvfx-api: stand-in weakness alerts-slo-only",
        why="lag alerts are all that most days have; an alert of operations is raised and never shown",
        expected_red=frozenset({"P4.1", "T1.11", "T6.4"}),
        jobs={names.API.id: extra_environment("api_env", **{WEAKNESS: "alerts-slo-only"})},
    ),
    Defect(
        id="files-in-another-bucket",
        title="Convex keeps its files in the bucket of its exports",
        mutation="gvfx-convex: S3_STORAGE_FILES_BUCKET is convex-exports",
        why="every file is read back as it was written; whoever looks after the files' bucket keeps an empty one",
        expected_red=frozenset({"P1.4", "T1.13"}),
        # They begin with a file whose object they find, by which they know the store again.
        expected_unknown=durability.EVERY,
        jobs={names.CONVEX.id: extra_environment("convex_env", S3_STORAGE_FILES_BUCKET="convex-exports")},
    ),
)
