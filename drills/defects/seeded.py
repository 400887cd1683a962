"""A seeded defect as an entry of the journal: the session that finds it left behind takes it back, from any point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from drills.defects.catalogue import BY_ID
from drills.defects.defect import Defect
from fixtures.errors import UndoError
from fixtures.faults import Fault, HostControl, Registry, registry_of
from fixtures.rollout.rollout import BATCH
from fixtures.rollout.undoable import EVERYTHING
from fixtures.target import deadlines
from fixtures.target.target import Target


def undone(target: Target, defect: Defect) -> None:
    """Clean, and back to the good specs, proven. Raises SuiteError."""
    if defect.clean is not None:
        defect.clean(target)
    stored = {str(one["ID"]) for one in target.nomad.jobs()}
    # A job that only phase 0 looked at was never submitted.
    jobs = [job for job in defect.jobs if job in stored]
    for job in jobs:
        target.deploy.submit(job)
    for job in jobs:
        found = target.nomad.job(job)
        within = BATCH if found["Type"] == "sysbatch" else deadlines.deployment(found)
        target.deploy.wait_healthy(job, within)


@dataclass(frozen=True)
class DefectSeeded(Fault):
    """A defect of the catalogue is on, or about to be; ``host`` is its id.

    Its loop beside the run dies with the process that runs it; what that has done stays, and is what `clean` is for.
    """

    kind: ClassVar[str] = "defect"
    evident: ClassVar[bool] = False
    settle: ClassVar[float] = 30.0

    def apply(self, control: HostControl) -> None:
        """Nothing: the matrix seeds it, and its tests deploy it."""
        return

    def undo(self, control: HostControl) -> None:
        """See `undone`. Raises UndoError for a defect that this build does not know."""
        if self.host not in BY_ID:
            raise UndoError(
                self.title, "no such defect in this build", "the build that seeded it",
                "python -m fixtures.rehearsal down",
            )  # fmt: skip
        undone(control.target, BY_ID[self.host])

    def residue(self, control: HostControl) -> str:
        """Nothing of its own: each step of the undo proves itself."""
        return ""


REGISTRY: Registry = {**EVERYTHING, **registry_of(DefectSeeded)}
"""Everything that a sweep of this build can undo."""
