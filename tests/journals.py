"""A journal for a pretended target, in a directory that goes with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from fixtures.faults import Journal, TargetControl
from fixtures.observe.recording import InMemory
from fixtures.target.target import Target


def journal_for(target: object, directory: Path | None = None) -> Journal:
    """Write into `directory`, or into one that is forgotten at once: what is open is kept in memory as well."""
    control = TargetControl(cast("Target", target))
    if directory is not None:
        return Journal(directory, "run", control, InMemory())
    with tempfile.TemporaryDirectory() as made:
        return Journal(Path(made), "run", control, InMemory())
