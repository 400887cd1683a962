"""The moments of the drill on a kept rehearsal are moments that runs have, and are recognised as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import killed_kept
from drills.defects import seeded
from drills.defects.catalogue import BY_ID as DEFECTS
from drills.killed_kept import MOMENTS, Moment
from fixtures.faults import Fault
from fixtures.faults.journal import record_fault
from fixtures.history.log import EventLog
from fixtures.history.rules import BY_ID
from fixtures.rollout.entries import JobStopped
from fixtures.rollout.rollback import STEPS


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda one: one.name)
def test_a_moment_is_of_something_that_is_written(moment: Moment) -> None:
    kind = moment.word.split('"')[1]
    assert kind in seeded.REGISTRY or kind in {f"rollback {step.action}" for step in STEPS}
    assert bool(moment.rules) != bool(moment.defect)
    assert not moment.rules or moment.rules in BY_ID
    assert not moment.defect or moment.defect in DEFECTS


def test_a_fault_is_written_as_the_moments_look_for_it(tmp_path: Path) -> None:
    fault: Fault = JobStopped("gvfx-api", "api")
    with EventLog(tmp_path / "events.ndjson", "run") as log:
        record_fault(log, fault, "intent")
        log.append("operation", "rollback stop-worker", "rollback", phase="ok")
    text = (tmp_path / "events.ndjson").read_text()
    assert '"job-stopped","source":"gvfx-api"' in text
    assert '"rollback stop-worker","source":"rollback"' in text


def test_whoever_heals_asks_rules_that_exist() -> None:
    assert set(killed_kept.HEALTHY.split(",")) <= BY_ID.keys()


def test_what_is_left_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVFX_CACHE", str(tmp_path))
    assert killed_kept.left_over() == []
    (tmp_path / "journal" / "target").mkdir(parents=True)
    for name in ("1-2.ndjson", "backup-1.dump"):
        (tmp_path / "journal" / "target" / name).touch()
    assert [Path(one).name for one in killed_kept.left_over()] == ["1-2.ndjson", "backup-1.dump"]
