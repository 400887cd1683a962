"""Phase 1 of the plan: the data plane is deployed, healthy and usable."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from psycopg import sql

from fixtures.faults import Journal
from fixtures.rollout import checks, stores
from fixtures.rollout.entries import ScratchRows
from fixtures.rollout.rollout import Rollout
from fixtures.target import names
from fixtures.target.target import Target

pytestmark = [pytest.mark.phase1, pytest.mark.phase2, pytest.mark.phase3]


@pytest.mark.rule("P1.1")
def test_postgres_is_deployed_and_healthy(
    target: Target, phase1: Rollout, measure: Callable[..., None]
) -> None:
    """gvfx-postgres runs once, its rollout succeeded, and the server answers a SELECT."""
    step = phase1.outcome("postgres")
    step.proven()
    running = checks.deployed(target, names.POSTGRES.id, names.POSTGRES.task, names.POSTGRES.count)
    database = target.postgres()
    assert database.ask(sql.SQL("select 1")) == [(1,)]
    measure(
        seconds=step.seconds,
        done=step.done,
        node=running[0].node_name,
        identity=database.system_identifier(),
    )


@pytest.mark.rule("P1.2")
def test_objectstore_is_deployed_and_healthy(
    target: Target, phase1: Rollout, measure: Callable[..., None]
) -> None:
    """gvfx-objectstore runs once, its rollout succeeded, and Convex's bucket can be listed."""
    step = phase1.outcome("objectstore")
    step.proven()
    running = checks.deployed(target, names.OBJECTSTORE.id, names.OBJECTSTORE.task, names.OBJECTSTORE.count)
    keys = target.objectstore().keys(target.config.s3_storage_files_bucket)
    measure(seconds=step.seconds, done=step.done, node=running[0].node_name, objects=len(keys))


@pytest.mark.rule("P1.3")
def test_convex_is_deployed_and_healthy(
    target: Target, phase1: Rollout, measure: Callable[..., None]
) -> None:
    """gvfx-convex runs once, its rollout succeeded, /version and /instance_name answer."""
    step = phase1.outcome("convex")
    step.proven()
    running = checks.deployed(target, names.CONVEX.id, names.CONVEX.task, names.CONVEX.count)
    service = checks.instances(target, names.CONVEX)[0]
    version = checks.must_answer(target, checks.url(service, "/version"))
    name = checks.must_answer(target, checks.url(service, "/instance_name"))
    assert version.status == 200, f"/version answered {version.status}"
    assert name.status == 200 and name.text.strip(), f"/instance_name answered {name.status} {name.text!r}"
    measure(
        seconds=step.seconds,
        done=step.done,
        node=running[0].node_name,
        version=version.text.strip()[:80],
        instance=name.text.strip()[:80],
    )


@pytest.mark.rule("P1.4")
def test_convex_reads_and_writes_rows_and_files(
    target: Target, entries: Journal, phase1: Rollout, measure: Callable[..., None]
) -> None:
    """A row and a file written through Convex come back equal, stand in Postgres and in the bucket, and are deleted."""
    target.require_scratch()
    phase1.outcome("import").proven()
    convex = target.convex()
    marker = f"acceptance-{uuid.uuid4()}"
    content = f"{marker}\n" * 500
    with entries.applied(ScratchRows(names.CONVEX.id, "acceptance_scratch", "marker", (marker,))):
        written = convex.insert("acceptance_scratch", {"marker": marker, "number": 42})
        found = convex.rows("acceptance_scratch", marker=marker)
        assert [row["id"] for row in found] == [written["id"]], f"{len(found)} rows read back, one written"
        assert found[0]["number"] == 42, "the row came back different"
        table = stores.table_of(target, marker)
        with stores.file_in_bucket(target, convex, content) as (storage, key):
            stored = convex.fetch(storage)
            assert stored == content.encode(), "the file came back different"
    assert not convex.rows("acceptance_scratch", marker=marker), "a deleted row is still there"
    measure(rows_written=1, file_bytes=len(content), table=table, object=key)
