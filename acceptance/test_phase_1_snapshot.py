"""Phase 1 of the plan: the data of the data plane can be taken out and put back."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable

import pytest

from fixtures.errors import Unknown
from fixtures.faults import Journal
from fixtures.rollout import content, snapshot
from fixtures.rollout.entries import ScratchContent
from fixtures.rollout.rollout import Rollout
from fixtures.rollout.undoing import afterwards
from fixtures.target import names
from fixtures.target.target import Target


@pytest.mark.disruptive
@pytest.mark.rule("P1.5")
def test_a_snapshot_is_exported_and_imported_with_equal_content(
    target: Target, entries: Journal, phase1: Rollout, measure: Callable[..., None]
) -> None:
    """Exports every table; deletes scratch rows and files and imports them, and small tables into copies, twice."""
    target.require_scratch()
    phase1.outcome("import").proven()
    convex = target.convex()
    sentinel = convex.rows(snapshot.SENTINEL_TABLE, marker=snapshot.SENTINEL)
    if target.can("deploy"):
        assert len(sentinel) == 1, f"the imported snapshot has left {len(sentinel)} sentinels"
    run = f"snapshot-{uuid.uuid4().hex[:8]}"
    taken = content.Snapshot({})

    def clean() -> None:
        content.removed(convex, run)
        content.forget_copies(convex, taken)

    with entries.applied(ScratchContent(names.CONVEX.id, content.TABLE, run)), afterwards(clean):
        written = content.seed(convex, run)
        seen = content.differences(written, content.found(convex, run))
        assert not seen, f"not what was written, before anything was done: {seen[:5]}"
        text = content.export(convex, content.TABLES, run).text()
        taken = content.Snapshot.parse(text)
        if not taken.files or len(taken.rows[snapshot.SENTINEL_TABLE]) < len(sentinel):
            raise Unknown("export", "without files, or without the snapshot's own sentinel", "both")
        if not target.can("deploy"):
            # Nobody saw the import, and there is no sentinel of ours.
            content.must_hold_rows(taken)
        content.removed(convex, run)
        left = content.found(convex, run)
        if left:
            raise Unknown("scratch content", f"{len(left)} rows are there after their deletion", "none")
        copied: dict[str, int] = {}
        # The second import must change nothing: an import that broke off is done again.
        for _ in range(2):
            rows = content.import_scratch(convex, taken)
            copied = content.import_copies(convex, taken)
        seen = content.differences(written, content.found(convex, run))
        assert not seen, f"other content after the import: {seen[:5]}"
        wrong = [line for table in copied for line in content.copies(convex, taken, table)]
        assert not wrong, f"copies that differ from what was exported: {wrong[:5]}"
    measure(
        tables=len(taken.rows),
        rows_exported=taken.count(),
        files_exported=len(taken.files),
        rows_imported=rows,
        copied=copied,
        cut=list(taken.cut),
        snapshot_bytes=len(text),
        snapshot_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
