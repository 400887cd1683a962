"""Seeded defects of phase 4: what the observation must notice, and a rollback in the wrong order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from drills.defects.defect import NO_REVERT, WEAKNESS, Defect, deployed, extra_environment, repeatedly
from fixtures.errors import SuiteError, Unknown
from fixtures.faults import LinkCut, TargetControl
from fixtures.rollout import egress
from fixtures.rollout.looks import TABLE
from fixtures.target import names
from fixtures.target.change import JobChange
from fixtures.target.target import Target

OBSERVED = "phase_4 and (users or trigger)"
ROLLED_BACK = "phase_4 and legacy_worker_ingesting"
"""Tests of these defects, as pytest's -k: they strike at the moment these ask, and would only disturb the others."""

NO_WORKER = frozenset({"P4.2", "P4.3"})
"""Rules of phase 4 about a worker that runs."""
LIFETIME = 900.0
"""Seconds after which a cut ends by itself, whatever becomes of the matrix: more than an observation takes."""


@contextmanager
def _exits_gone_once_observed(target: Target) -> Iterator[None]:
    """Cut every exit off as soon as an observation's first row stands in the store, and give them back at the end."""
    control, cuts = TargetControl(target), _cuts(target)
    convex, stop = target.convex(), threading.Event()

    def strike() -> None:
        while not stop.wait(0.1):
            with suppress(SuiteError):
                if convex.rows(TABLE):
                    break
        for cut in cuts:
            if not stop.is_set():
                cut.apply(control)

    thread = threading.Thread(target=strike, name="defect", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)
        _connected(target)


def _cuts(target: Target) -> list[LinkCut]:
    """The same in every process, by their ids."""
    return [
        LinkCut(name, egress.underlay_of_others(target, name), at_most=LIFETIME, id=f"observed{name}")
        for name in sorted(target.hosts.names("exit"))
    ]


def _connected(target: Target) -> None:
    """No exit is cut off. Raises Unknown."""
    control, cuts = TargetControl(target), _cuts(target)
    for cut in cuts:
        cut.undo(control)
    left = [found for found in (cut.residue(control) for cut in cuts) if found]
    if left:
        raise Unknown("exits", f"still cut off: {left}", "exits that answer")


def _worker_is_back(target: Target) -> None:
    """Exits and the worker are as they were, before another line is judged. Raises Unknown."""
    _connected(target)
    if not deployed(target, names.WORKER_JOB):
        return
    try:
        egress.ready(target)
    except AssertionError as error:
        raise Unknown("worker after the defect", str(error), "one worker with an exit") from error


@contextmanager
def _legacy_starts_with_the_stop(target: Target) -> Iterator[None]:
    """Start the legacy worker the moment the worker's job is asked to stop, before its task has ended."""
    asked = [False]

    def follow() -> None:
        stopped = bool(target.nomad.job(names.WORKER_JOB)["Stop"])
        if stopped and not asked[0]:
            target.legacy.start()
        asked[0] = stopped

    with repeatedly(follow, 0.1):
        yield


def _stop_legacy(target: Target) -> None:
    target.legacy.stop()


def _weak(job: str, variable: str, weakness: str, **more: str) -> dict[str, JobChange]:
    return {job: extra_environment(variable, **{WEAKNESS: weakness, **more})}


def _flapping() -> dict[str, JobChange]:
    change = extra_environment("api_env", **{WEAKNESS: "flapping", "GVFX_STANDIN_UNHEALTHY_INDEX": "1"})
    return {names.API.id: JobChange(mutate=NO_REVERT, override=change.override)}


def _pinned() -> dict[str, JobChange]:
    # Nomad itself puts the node's address in, on each node its own.
    environment: dict[str, Any] = {"API_BASE_URL": "http://${attr.unique.network.ip-address}:8787"}
    return {names.FRONTEND.id: extra_environment("frontend_env", **environment)}


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="frontend-pinned-to-its-node",
        title="the frontend calls the API of its own node, past Consul",
        mutation="gvfx-frontend: API_BASE_URL is the node's address",
        why="while each node has both, every call is answered; only the address that was asked gives it away",
        expected_red=frozenset({"P4.1"}),
        jobs=_pinned(),
        only="phase_4 and users",
    ),
    Defect(
        id="convex-drops-writes",
        title="one in twenty writes is acknowledged and thrown away",
        mutation="gvfx-convex: stand-in weakness drop-writes",
        why="no write ever fails; only reading each one back shows the loss",
        expected_red=frozenset({"P4.2"}),
        # Its alert may be among those thrown away.
        tolerated=frozenset({"P4.1"}),
        jobs=_weak(names.CONVEX.id, "convex_env", "drop-writes"),
        only=OBSERVED,
    ),
    Defect(
        id="api-flaps",
        title="one API instance is sick for twelve of each twenty seconds",
        mutation="gvfx-api: stand-in weakness flapping for allocation index 1, no automatic revert",
        why="it always comes back in time, so no single outage is long; together they are",
        expected_red=frozenset({"P4.2"}),
        # The frontend's call meets it, or not.
        tolerated=frozenset({"P4.1"}),
        jobs=_flapping(),
        only=OBSERVED,
    ),
    Defect(
        id="cycles-doubled",
        title="the worker ingests every window twice",
        mutation="gvfx-worker: stand-in weakness double-cycle",
        why="one process, one socket, one allocation: only the run log shows two at work",
        expected_red=frozenset({"P4.2"}),
        jobs=_weak(names.WORKER_JOB, "worker_env", "double-cycle"),
        only=OBSERVED,
    ),
    Defect(
        id="exits-gone-while-observed",
        title="every exit goes away during the observation and stays away",
        mutation="tailnet: both exits are cut off from the first look on",
        why="the guard does what it must, the worker is stopped; that it stays so is the trigger",
        expected_red=frozenset({"P4.2"}),
        during=_exits_gone_once_observed,
        clean=_worker_is_back,
        only=OBSERVED,
    ),
    Defect(
        id="legacy-before-the-stop",
        title="the rollback starts the legacy worker before the worker has stopped",
        mutation="legacy host: the worker starts as soon as gvfx-worker is asked to stop",
        why="each step by itself succeeds; for a second or two there are two workers",
        expected_red=frozenset({"P4.3"}),
        during=_legacy_starts_with_the_stop,
        clean=_stop_legacy,
        only=ROLLED_BACK,
    ),
)
