"""Seeded defects of the single worker and its windows: a weaker lock, a worker or store that minds none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drills.defects.defect import WEAKNESS, Defect, extra_environment
from drills.defects.egress import with_tool
from fixtures.target import names
from fixtures.target.change import JobChange

ALL = frozenset(f"T8.{number}" for number in range(1, 11))
LOCK_ALONE = frozenset({"T2.4"}) | ALL
"""What says that the lock is held by the one who works."""
DRAINED = frozenset({"T7.3", "T7.4", "T7.5"})
"""Rules about a drain of the worker's node, which look at some of the same witnesses."""

NO_LOCK = {"LOCK_MODE": "none"}

SHORT_LEASE = """
#!/bin/sh
# The servers are asked for less than the guard believes it has.
for word in "$@"; do
  shift
  case $word in *'"TTL":'*) word=$(printf %s "$word" | sed 's/"TTL":"[0-9]*ms"/"TTL":"10000ms"/; s/"LockDelay":"[0-9]*ms"/"LockDelay":"1000ms"/') ;; esac
  set -- "$@" "$word"
done
exec /usr/bin/curl "$@"
"""

HANGS_ON = """
#!/bin/sh
# A renewal that hangs is no answer: until somebody says no, the lock is believed to be held.
case "$*" in
  *lock-acquire*) rm -f /tmp/lock.said /tmp/lock.refused; exec /usr/bin/curl "$@" ;;
  *lock-renew*) ;;
  *) exec /usr/bin/curl "$@" ;;
esac
(
  said=$(/usr/bin/curl "$@" 2>/dev/null); code=$?
  case $code,$(printf '%s' "$said" | tail -n 1) in
    0,4??) printf '%s' "$said" >/tmp/lock.new; mv /tmp/lock.new /tmp/lock.said ;;
    0,200) rm -f /tmp/lock.said /tmp/lock.refused ;;
    7,*) : >/tmp/lock.refused ;;
  esac
) </dev/null >/dev/null 2>&1 &
[ ! -e /tmp/lock.refused ] || exit 7
[ ! -s /tmp/lock.said ] || { cat /tmp/lock.said; exit 0; }
printf '{}\\n200'
"""


def _long_hold(own: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the guard's own check lets pass: a hold below the lease it is told it has."""
    return {"lock_ttl_seconds": "60", "lock_delay_seconds": "60", "lock_hold_seconds": "90"}


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="lock-removed",
        title="the worker works without a lock",
        mutation="gvfx-worker: LOCK_MODE none",
        why=(
            "Nomad replaces what it cannot see: a zombie that its agent cannot stop goes on beside the next worker; in"
            " all other cases nobody holds the lock, which is a witness lost"
        ),
        expected_red=LOCK_ALONE | {"T2.2"},
        # Who is stopped and who starts first is by the order of two stops when nobody stands by for a lock.
        tolerated=frozenset({"T2.5", "T2.7"}) | DRAINED,
        jobs={names.WORKER_JOB: extra_environment("guard_env", **NO_LOCK)},
    ),
    Defect(
        id="lock-hangs-on",
        title="the lock is `nomad var lock`: a renewal that hangs is no answer, and no deadline is one's own",
        mutation="gvfx-worker: the watch's curl answers a renewal with 200 until the servers have refused one",
        why=(
            "killed, drained and restarted it is as good as the real one; cut off it believes that it holds what the"
            " servers have given to another. Frozen or cut from its exits too, it depends on who is faster"
        ),
        expected_red=frozenset({"T2.2", "T8.5", "T8.10"}),
        tolerated=frozenset({"T8.4", "T8.6"}),
        jobs={names.WORKER_JOB: JobChange(mutate=with_tool(names.WATCH_TASK, "GVFX_CURL", HANGS_ON))},
    ),
    Defect(
        id="lock-held-too-long",
        title="the lock is believed to be held for longer than its lease",
        mutation="gvfx-worker: TTL and delay 60 s for the guard, 10 s and 1 s for the servers; hold 90 s",
        why=(
            "the guard refuses such a hold by itself (code 11) unless the servers give less than it asks for. While it"
            " can ask anybody it is refused in time (403); with its agent dead it goes on for 90 s, with its exits"
            " gone only until it is stopped for that"
        ),
        expected_red=frozenset({"T2.2", "T8.7", "T8.10"}),
        # 403 or 500 to who is lost already, and how long the freeze lasted: the 90 s are over or not.
        tolerated=frozenset({"T8.4", "T8.5", "T8.6"}),
        jobs={
            names.WORKER_JOB: JobChange(
                mutate=with_tool(names.WATCH_TASK, "GVFX_CURL", SHORT_LEASE), override=_long_hold
            )
        },
    ),
    Defect(
        id="double-cycle",
        title="the worker runs two cycles at once and minds no lock of the store",
        mutation="gvfx-worker: stand-in weakness double-cycle",
        why="one process, one connection, one lock: only the run log has every window twice",
        expected_red=frozenset({"T2.4"}) | ALL,
        jobs={names.WORKER_JOB: extra_environment("worker_env", **{WEAKNESS: "double-cycle"})},
    ),
    Defect(
        id="start-ignores-lock",
        title="the store starts a run although another one of its feed runs",
        mutation="gvfx-convex: stand-in weakness start-ignores-lock",
        why=(
            "one worker never asks twice at once; but what a killed one left running is never ended, and overlaps"
            " with everything that follows. The restart comes first: it finds what earlier tests have left, or nothing"
        ),
        expected_red=ALL - {"T8.1"},
        tolerated=frozenset({"T8.1"}),
        jobs={names.CONVEX.id: extra_environment("convex_env", **{WEAKNESS: "start-ignores-lock"})},
    ),
    Defect(
        id="unfenced-complete",
        title="a run that was timed out and given to another can still be completed, by a worker that no lock stops",
        mutation=(
            "gvfx-convex: stand-in weakness unfenced-complete; gvfx-worker: LOCK_MODE none, stopped only after 300 s"
            " without egress"
        ),
        why=(
            "with the lock nobody is left to complete anything: that is what it is for, and why this weakness of the"
            " application alone breaks no rule. Without it the cut-off worker pays, when the cut heals, completions it"
            " owes for runs that its successor has timed out"
        ),
        # No setting may let a worker go on without egress for so long.
        expected_red=LOCK_ALONE | {"T2.2", "T3.20", "T4.9"},
        tolerated=frozenset({"T2.5", "T2.7"}) | DRAINED,
        jobs={
            names.CONVEX.id: extra_environment("convex_env", **{WEAKNESS: "unfenced-complete"}),
            names.WORKER_JOB: extra_environment("guard_env", **NO_LOCK, TS_BLOCKED_STOP_SECONDS="300"),
        },
    ),
    Defect(
        id="sigterm-no-cleanup",
        title="a worker that is stopped in order leaves its runs running",
        mutation="gvfx-worker: stand-in weakness sigterm-no-cleanup",
        why="its feeds stay locked until the run timeout: every restart and every drain costs as much as a crash",
        expected_red=frozenset({"T8.1", "T8.9"}),
        tolerated=DRAINED,
        jobs={names.WORKER_JOB: extra_environment("worker_env", **{WEAKNESS: "sigterm-no-cleanup"})},
    ),
)
