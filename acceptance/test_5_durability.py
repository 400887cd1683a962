"""Acceptance test 5: what Convex acknowledged is there, whatever becomes of convex, postgres and objectstore."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest

from fixtures.errors import Unknown
from fixtures.faults import Journal, journal_directory
from fixtures.pytest_judged import Judged
from fixtures.rollout import backup, content, disturbances
from fixtures.rollout.durability import Trial
from fixtures.rollout.entries import ScratchContent
from fixtures.rollout.rollout import Rollout
from fixtures.rollout.undoing import afterwards
from fixtures.rollout.wiped import DatabaseWiped, digest, keep
from fixtures.target import names
from fixtures.target.target import Target

pytestmark = [pytest.mark.disruptive, pytest.mark.usefixtures("phase1")]

Measure = Callable[..., None]
COMPONENTS = tuple(job.task for job in names.DATA_PLANE)
PAIRS = ((names.OBJECTSTORE, names.POSTGRES), (names.CONVEX, names.POSTGRES))
"""Convex goes with the last: what is read back afterwards is in no memory of a Convex that outlived the stores."""


def _judge(trial: Trial, judged: Judged, measure: Measure, **figures: object) -> None:
    """Read everything back and judge the whole trial at once."""
    trial.read_back()
    measure(**trial.recovery_figures(), **figures)
    judged(trial.terms(COMPONENTS), since=trial.since)


@pytest.mark.rule("T5.1")
def test_acknowledged_writes_survive_restarts(
    target: Target, faults: Journal, judged: Judged, measure: Measure
) -> None:
    """Restarts postgres, objectstore and convex in turn while rows and files are written."""
    target.require("deploy")
    with Trial(target, faults) as trial:
        codes = {job.task: disturbances.restart(trial, job) for job in names.DATA_PLANE}
        _judge(trial, judged, measure, exit_codes=codes)


@pytest.mark.rule("T5.2")
def test_acknowledged_writes_survive_kills(
    target: Target, faults: Journal, judged: Judged, measure: Measure
) -> None:
    """Kills postgres, objectstore and convex in turn while rows and files are written."""
    target.require("deploy")
    with Trial(target, faults) as trial:
        for job in names.DATA_PLANE:
            disturbances.kill(trial, faults, [job])
        _judge(trial, judged, measure)


@pytest.mark.rule("T5.3")
def test_acknowledged_writes_survive_the_loss_of_a_host(
    target: Target, faults: Journal, judged: Judged, measure: Measure
) -> None:
    """Takes the power from the host of the data plane, and from the next if it carried a part, and gives it back."""
    target.require("deploy")
    with Trial(target, faults) as trial:
        left, lost, carried = set(COMPONENTS), dict[str, list[str]](), list[str]()
        for _ in COMPONENTS:
            if left:
                host = disturbances.host_of_most(target, sorted(left))
                carried = disturbances.lose_host(trial, faults, host)
                lost[f"{len(lost) + 1} {host}"] = carried
                left -= set(carried)
        if left:
            raise Unknown("loss of a host", f"{sorted(left)} were on none of {list(lost)}", "each lost once")
        if names.CONVEX.task not in carried:
            # It outlived the last loss of a store: what it has in memory may be in no store any more.
            disturbances.restart(trial, names.CONVEX)
        _judge(trial, judged, measure, hosts=lost)


@pytest.mark.rule("T5.4")
def test_acknowledged_writes_survive_moves(
    target: Target, faults: Journal, judged: Judged, measure: Measure
) -> None:
    """Moves postgres, objectstore and convex to another node in turn while rows and files are written."""
    target.require("deploy")
    with Trial(target, faults) as trial:
        codes = {job.task: disturbances.move(trial, faults, job) for job in names.DATA_PLANE}
        _judge(trial, judged, measure, exit_codes=codes)


@pytest.mark.rule("T5.5")
def test_acknowledged_writes_survive_the_loss_of_two_at_once(
    target: Target, faults: Journal, judged: Judged, measure: Measure
) -> None:
    """Kills objectstore and postgres together, then convex and postgres, while rows and files are written."""
    target.require("deploy")
    with Trial(target, faults) as trial:
        for pair in PAIRS:
            disturbances.kill(trial, faults, pair)
        _judge(trial, judged, measure, pairs=[[job.task for job in pair] for pair in PAIRS])


@pytest.mark.rule("T5.6")
def test_the_backup_restores_the_same_content(
    target: Target, faults: Journal, phase1: Rollout, measure: Measure
) -> None:
    """Stops the writers, runs the backup, restores it over changed content and after a wipe: all is the same."""
    target.require("deploy")
    target.require_scratch()
    phase1.outcome("convex").proven()
    run, path = f"backup-{uuid.uuid4().hex[:8]}", f"/tmp/gvfx-{uuid.uuid4().hex}.dump"  # noqa: S108 - in the task
    own, kept = f"{path}.own", journal_directory(target.label) / f"{run}.dump"
    begun = time.monotonic()
    with (
        backup.deployed(target, faults),
        backup.quiet(target, faults) as stopped,
        faults.applied(ScratchContent(names.CONVEX.id, content.TABLE, run)),
    ):
        convex = target.convex()
        for dead in {str(one.get("run")) for one in convex.rows(content.TABLE)}:
            content.removed(convex, dead)  # what a run that was killed could not delete
        written = content.seed(convex, run)
        seen = content.differences(written, content.found(convex, run))
        assert not seen, f"not what was written, before anything was done: {seen[:5]}"
        database, server = target.postgres(), backup.Server(target)
        with afterwards(lambda: server.forget(path, own)):
            with backup.convex_stopped(target, faults):
                before, structure = database.contents(), database.structure()
                dump = backup.taken(target)
                # Before anything is lost: a dump that cannot bring everything back may not cost anything.
                server.receive(dump, path)
                lacking = {f"{schema}.{table}" for schema, table in database.tables()} - {
                    f"{schema}.{table}" for schema, table in server.tables_in(path)
                }
                assert not lacking, f"the backup holds no data of {sorted(lacking)}"
                if database.contents() != before:
                    raise Unknown("content", "changed while nobody was to write", "the same after the backup")
            _change(target, run, written)
            with backup.convex_stopped(target, faults, restored=True, unless=str(kept)):
                changed = database.contents()
                if changed == before:
                    raise Unknown("change behind the backup", "cannot be seen", "another content")
                known = (digest(before, structure), digest(changed, database.structure()))
                with faults.applied(DatabaseWiped(names.POSTGRES.id, str(kept), own, known)):
                    keep(dump, kept)
                    server.copy(own)
                    # As the runbook does it, over what is there; then as after a loss, over nothing.
                    for wiped in (False, True):
                        if wiped:
                            server.wipe()
                        begin = time.monotonic()
                        server.restore(path)
                        restored = time.monotonic() - begin
                        after = database.contents()
                        wrong = {one: (before.get(one), after.get(one)) for one in sorted({*before, *after})}
                        wrong = {one: pair for one, pair in wrong.items() if pair[0] != pair[1]}
                        assert not wrong, f"other content after the restore, rows and digest: {wrong}"
                        other = sorted(structure ^ database.structure())
                        assert not other, f"lost or new in the structure after the restore: {other[:5]}"
        convex = target.convex()
        seen = content.differences(written, content.found(convex, run))
        assert not seen, f"read through Convex after the restore: {seen[:5]}"
        convex.insert(content.TABLE, {"marker": f"{run}-row-new", "run": run})
        assert len(convex.rows(content.TABLE, marker=f"{run}-row-new")) == 1, "nothing new can be written"
    measure(
        tables=len(before),
        rows=sum(int(rows) for rows, _ in before.values()),
        scratch=len(written),
        dump=dump.key,
        dump_bytes=len(dump.content),
        restore_seconds=round(restored, 3),
        stopped=stopped,
        seconds=round(time.monotonic() - begun, 3),
    )


def _change(target: Target, run: str, written: content.Digests) -> None:
    """Add, change and delete behind the backup: all of it must be gone again after the restore."""
    convex = target.convex()
    rows = sorted(key for key in written if "-row-" in key)
    convex.insert(content.TABLE, {"marker": f"{run}-row-late", "run": run})
    convex.delete(content.TABLE, marker=rows[0])
    filters = [{"field": "marker", "op": "eq", "value": rows[1]}]
    convex.mutation(
        "data:write",
        {"table": content.TABLE, "action": "update", "payload": {"text": "changed"}, "filters": filters},
    )
    left = content.differences(written, content.found(convex, run))
    if len(left) != 3:
        raise Unknown("change behind the backup", f"{left[:5]}", "one row added, one deleted, one changed")
