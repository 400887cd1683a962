"""A seeded defect outlives its matrix in the journal, and the next session takes it back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drills.defects import catalogue, runner, seeded
from drills.defects.defect import Defect
from drills.defects.seeded import REGISTRY, DefectSeeded
from fixtures.errors import DeployError, UndoError
from fixtures.faults import TargetControl, sweep_all
from fixtures.faults import journal as journal_module
from fixtures.faults.journal_file import open_faults
from fixtures.target.options import TargetOptions
from fixtures.target.target import Target
from tests.faults.conftest import FakeTime
from tests.journals import journal_for

JOB = "gvfx-api"


class Cluster:
    """Jobs that stand, and what was asked of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing = False
        self.nomad = SimpleNamespace(
            jobs=lambda: [{"ID": JOB}], job=lambda job: {"ID": job, "Type": "sysbatch"}
        )
        self.deploy = SimpleNamespace(submit=self._submit, wait_healthy=lambda job, within: None)

    def _submit(self, job: str) -> None:
        if self.failing:
            raise DeployError(job, "refused", "taken")
        self.calls.append(f"submit {job}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(journal_module, "time", FakeTime())
    made = Cluster()

    @contextmanager
    def during(target: Target) -> Iterator[None]:
        made.calls.append("seeded")
        yield
        made.calls.append("over")

    defect = replace(
        catalogue.BY_ID["gaps-false-zero"], during=during, clean=lambda target: made.calls.append("cleaned")
    )
    monkeypatch.setitem(catalogue.BY_ID, defect.id, defect)
    return made


def matrix(cluster: Cluster, directory: Path) -> tuple[runner.Runner, Any]:
    journal = journal_for(cluster, directory / "journals")
    target = cast("Target", cluster)
    return runner.Runner(target, journal, TargetOptions(), directory, lambda line: None, 0), journal


def defect() -> Defect:
    return catalogue.BY_ID["gaps-false-zero"]


def test_a_line_of_the_matrix_is_undone_and_proven(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, journal = matrix(cluster, tmp_path)
    monkeypatch.setattr(one, "_pytest", lambda defect, directory: cluster.calls.append("asked"))
    one.run(defect(), "00")
    assert cluster.calls == ["seeded", "asked", "over", "cleaned", f"submit {JOB}"]
    assert journal.open_faults == ()


def test_nothing_is_seeded_in_a_clean_run(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, journal = matrix(cluster, tmp_path)
    monkeypatch.setattr(one, "_pytest", lambda defect, directory: cluster.calls.append("asked"))
    one.run(runner.CLEAN, "00")
    assert cluster.calls == ["asked"] and journal.path.read_bytes() == b""


def test_the_next_session_takes_back_what_a_killed_matrix_left(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, journal = matrix(cluster, tmp_path)

    def die(defect: Defect, directory: Path) -> None:
        os.close(journal._file._fd)  # the lock is gone, nothing can be written any more
        raise SystemExit

    monkeypatch.setattr(one, "_pytest", die)
    monkeypatch.setattr(journal, "end", lambda fault: None)
    with pytest.raises(SystemExit):
        one.run(defect(), "00")
    cluster.calls.clear()
    (left,) = open_faults(tmp_path / "journals")
    assert left.fault["kind"] == "defect" and left.fault["host"] == defect().id
    sweep_all(tmp_path / "journals", REGISTRY, TargetControl(cast("Target", cluster)))
    assert cluster.calls == ["cleaned", f"submit {JOB}"]
    assert open_faults(tmp_path / "journals") == []


def test_an_undo_that_fails_stops_whoever_comes_next(cluster: Cluster, tmp_path: Path) -> None:
    journal = journal_for(cluster, tmp_path)
    journal.begin(DefectSeeded(defect().id))
    cluster.failing = True
    with pytest.raises(UndoError, match="refused"):
        journal.close()
    control = TargetControl(cast("Target", cluster))
    with pytest.raises(UndoError, match="refused"):
        sweep_all(tmp_path, REGISTRY, control)
    cluster.failing = False
    assert [one.host for one in sweep_all(tmp_path, REGISTRY, control)] == [defect().id]


def test_a_defect_of_another_build_is_refused_with_what_to_do(cluster: Cluster) -> None:
    journal = journal_for(cluster)
    journal.begin(DefectSeeded("of-another-build"))
    with pytest.raises(UndoError, match="no such defect") as caught:
        journal.undo_all()
    assert caught.value.next_command == "python -m fixtures.rehearsal down"


@pytest.mark.parametrize("one", catalogue.DEFECTS, ids=lambda one: one.id)
def test_what_acts_on_the_target_can_be_taken_back_by_another_process(one: Defect) -> None:
    if one.id in {"status-row-missing"}:
        pytest.skip("the worker writes the row anew, once per cycle")
    acts = one.during is not Defect.__dataclass_fields__["during"].default
    assert not acts or one.clean is not None


def test_the_registry_has_everything() -> None:
    assert {"defect", "job-stopped", "database-wiped", "link-cut"} <= set(seeded.REGISTRY)
