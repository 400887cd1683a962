"""The catalogue of seeded defects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from drills.defects import (
    agents,
    answers,
    control_plane,
    drains,
    durability,
    egress,
    freshness,
    observation,
    outside,
    services,
    windows,
)
from drills.defects.defect import NO_REVERT, WEAKNESS, Defect, extra_environment, repeatedly
from fixtures.errors import Refused
from fixtures.history.rules import RULES
from fixtures.target import hcl, names
from fixtures.target.change import DeploymentChange, JobChange, chain, replace_once
from fixtures.target.options import DEFECT
from fixtures.target.target import Target

_UNFENCED_TOKEN = chain(
    # The spec refuses to start without a token, so the check goes together with the token.
    replace_once(
        '        {{- if eq (index $vars "API_TOKEN").Value "" }}'
        '{{ sprig_fail "nomad variable nomad/jobs/gvfx-api: API_TOKEN is empty" }}{{ end }}\n',
        "",
    ),
    replace_once('split "," "API_TOKEN,', 'split "," "'),
)


@contextmanager
def _status_row_missing(target: Target) -> Iterator[None]:
    """Delete one status row again and again: the worker writes its feed anew once per cycle."""
    pair = target.config.supported_pairs[-1]
    convex = target.convex()

    def delete() -> None:
        convex.delete("data_source_status", pair=pair, source_type="bingx_funding")

    with repeatedly(delete, 0.5):
        yield


@contextmanager
def _second_worker_on_legacy(target: Target) -> Iterator[None]:
    """Start the legacy worker whenever it is not running, the cutover's stop included."""

    def revive() -> None:
        if not target.legacy.running():
            target.legacy.start()

    with repeatedly(revive, 1.0):
        yield


def _stop_legacy(target: Target) -> None:
    target.legacy.stop()


_NO_WORKER = (
    frozenset({"P3.3", "P3.4", "T2.1", "T2.3", "T2.4", "T2.5", "T2.7", "T3.1", "T7.3", "T7.4"})
    | egress.REFUSED
    | egress.DISTURBED
    | egress.FAILOVER
    | {egress.MOVED}
    | windows.ALL
    | freshness.NO_WORKER
    | observation.NO_WORKER
)
"""What fails while no worker runs: everything that says one does, and the blocking tests' own reasons."""


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="gaps-false-zero",
        title="the gap endpoint answers zeros when its store fails",
        mutation="gvfx-api: stand-in weakness gaps-zero-on-error",
        why="with the store up every answer is true; only cutting the store shows the lie",
        expected_red=frozenset({"T1.15"}),
        jobs={names.API.id: extra_environment("api_env", **{WEAKNESS: "gaps-zero-on-error"})},
    ),
    Defect(
        id="status-row-missing",
        title="one pair has no status row for one feed",
        mutation="Convex: the funding row of the last pair is deleted twice a second",
        why="the endpoint still lists the pair; only its missing time gives it away",
        expected_red=frozenset({"T1.7", "T6.1"}),
        # It may begin in the moment after a cycle in which the row is there.
        tolerated=frozenset({"T6.5"}),
        during=_status_row_missing,
    ),
    Defect(
        id="api-token-empty",
        title="the API runs without a token and answers everybody",
        mutation="gvfx-api: API_TOKEN and the check for it leave the template",
        why="every answer is right, also for those who should not get one",
        expected_red=frozenset({"T1.4"}),
        jobs={names.API.id: JobChange(mutate=_UNFENCED_TOKEN)},
    ),
    Defect(
        id="one-api-unhealthy",
        title="one of the two API instances is unhealthy",
        mutation="gvfx-api: weakness unhealthy for allocation index 1, no automatic revert",
        why="the service name still answers; its rollout fails, one instance says 503, Consul sees it",
        expected_red=frozenset({"P2.2", "P4.2", "P4.3", "T1.1", "T1.9"}),
        # A drain of a node is judged when every service was there before it.
        expected_unknown=frozenset({"T7.1", "T7.2"}),
        jobs={
            names.API.id: JobChange(
                mutate=NO_REVERT,
                override=extra_environment(
                    "api_env", **{WEAKNESS: "unhealthy", "GVFX_STANDIN_UNHEALTHY_INDEX": "1"}
                ).override,
            )
        },
    ),
    Defect(
        id="worker-host-network",
        title="the worker's group shares the node's network",
        mutation='gvfx-worker: network mode "host"',
        why=(
            "a group in host mode has no namespace to share: each task gets its own, the kill switch is in"
            " nobody else's, so tailscale and watch never go on and the guard refuses, naming neither address"
            " nor exit"
        ),
        expected_red=_NO_WORKER,
        # Settings that are wrong, and a kill switch without its right, are refused by whoever reads them first.
        tolerated=frozenset({"T3.10", "T3.18"}),
        jobs={
            names.WORKER_JOB: JobChange(
                mutate=chain(
                    NO_REVERT,
                    hcl.replace_in("network", r'mode(\s*)=(\s*)"bridge"', r'mode\1=\2"host"'),
                )
            )
        },
    ),
    Defect(
        id="guard-always-true",
        title="the egress guard is replaced by `true`",
        mutation="gvfx-worker: task egress-guard runs true",
        why="with a valid way out nothing is missing; with a wrong address or exit the worker task starts",
        expected_red=egress.REFUSED,
        # A watch that ends at once for its settings may or may not be seen running by whoever starts the worker.
        # Without the guard's stand-by a replacement on the other node starts its task, though not the process
        # in it, while its predecessor is still being stopped: seen or not, by the order of two stops.
        tolerated=frozenset({"P4.3", "T2.2", "T2.7", "T3.10", "T7.3", "T7.4"}),
        jobs={
            names.WORKER_JOB: JobChange(mutate=hcl.task_command(names.GUARD_TASK, ["/bin/sh", "-c", "true"]))
        },
    ),
    Defect(
        id="second-worker-on-legacy",
        title="the legacy worker still runs beside the new one",
        mutation="legacy host: the worker is started again whenever it stops",
        why="Nomad knows nothing of it: only processes, the store and the exchange do",
        expected_red=frozenset({"P3.2", "P4.3", "T2.3", "T2.4", "T2.5", "T2.7"}) | windows.ALL,
        # Its monitors judge by thresholds of their own, and take back what the other ones wrote. Two schedulers whose
        # cycles fall together leave one row: the lock lets one of them in.
        tolerated=frozenset({"P4.2", "T6.5"}),
        during=_second_worker_on_legacy,
        clean=_stop_legacy,
    ),
    Defect(
        id="worker-pending",
        title="the sidecars run and the worker never starts",
        mutation="gvfx-worker: task egress-guard sleeps for ever",
        why="the allocation says running because of its sidecars; nobody works",
        expected_red=_NO_WORKER | {"T3.10"},
        jobs={
            names.WORKER_JOB: JobChange(
                mutate=chain(
                    NO_REVERT,
                    hcl.task_command(names.GUARD_TASK, ["/bin/sh", "-c", "while :; do sleep 60; done"]),
                )
            )
        },
    ),
    *(
        _FURTHER := (
            *egress.DEFECTS,
            *drains.DEFECTS,
            *durability.DEFECTS,
            *windows.DEFECTS,
            *freshness.DEFECTS,
            *control_plane.DEFECTS,
            *observation.DEFECTS,
            *agents.DEFECTS,
            *services.DEFECTS,
            *answers.DEFECTS,
            *outside.DEFECTS,
        )
    ),
)
"""In the order of the matrix."""

BY_ID = {defect.id: defect for defect in DEFECTS}
FIRST = tuple(one.id for one in DEFECTS if one not in _FURTHER)
"""Those that the core finds by itself; every further one is asked its own rules as well."""

UNSEEDED: Mapping[str, str] = {
    "P0.10": (
        "a version is what an agent was built from, and the rehearsal builds one of each; the tests of"
        " fixtures/readiness show on recorded answers what old, mixed and buggy ones are told"
    ),
}
"""Rules that no defect breaks on a rehearsal, and why; every other rule is broken by at least one."""

CORE = frozenset(
    one.id
    for one in RULES
    if (one.test in {"P1", "P2", "P3", "T1", "T2"} and one.id != "P1.5")
    or one.id in {f"T3.{number}" for number in range(1, 6)}
)
"""What a matrix asks in two minutes; a worker that cannot start would cost T3 and T4 most of an hour."""

CONTROLS = frozenset(
    {
        "P3.1",
        "P3.3",
        "T1.9",
        "T2.1",
        "T2.3",
        "T2.5",
        "T3.1",
        "T3.2",
        "T3.4",
        "T3.24",
        "T3.25",
        "T3.26",
        "T4.1",
        "T4.5",
    }
)
"""Of every test some rules that most defects leave alone: asked with a defect's own where the whole takes too long."""


def change_from_environment() -> DeploymentChange | None:
    """The change of the defect named by GVFX_DEFECT, None when it is unset. Refused for an unknown name."""
    wanted = os.environ.get(DEFECT, "")
    if not wanted:
        return None
    if wanted not in BY_ID:
        raise Refused(f"{DEFECT}={wanted}", "no such defect", f"one of {', '.join(BY_ID)}")
    defect = BY_ID[wanted]
    return defect.change() if defect.jobs else None
