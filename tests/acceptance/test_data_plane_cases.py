"""P1.4 and P1.5 against the stand-in over HTTP: with its stores behind it, and as an image that uses neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from acceptance import test_phase_1_data_plane as p1
from acceptance import test_phase_1_snapshot as snapshot
from fixtures.errors import Unknown
from fixtures.observe.convex import ConvexProbe
from fixtures.observe.recording import InMemory
from fixtures.rollout.rollout import Rollout
from fixtures.target.target import Target
from tests.journals import journal_for
from tests.rollout.served import Served, served

PHASE1 = cast("Rollout", SimpleNamespace(outcome=lambda step: SimpleNamespace(proven=lambda: None)))


class World:
    """A target whose stores are those of the stand-in, or stay empty beside it."""

    def __init__(self, stand_in: Served, files: Path, probe: ConvexProbe) -> None:
        self._stand_in, self._files = stand_in, files
        self.rows = self.bucket = True
        self.deploys = False
        self.probe = probe
        self.config = SimpleNamespace(s3_storage_files_bucket="convex-files")
        self.postgres = self.objectstore = lambda: self

    @property
    def target(self) -> Target:
        return cast("Target", self)

    def require_scratch(self) -> None:
        """Allowed."""

    def can(self, name: str) -> bool:
        return self.deploys

    def convex(self) -> ConvexProbe:
        return self.probe

    def tables_holding(self, marker: str) -> list[str]:
        tables = self._stand_in.rows.tables if self.rows else {}
        return [f"public.{name}" for name, rows in tables.items() if marker in str(rows)]

    def keys(self, bucket: str) -> set[str]:
        there = self.bucket and self._files.exists()
        return {one.name for one in self._files.iterdir()} if there else set()

    def read(self, bucket: str, key: str) -> bytes:
        return (self._files / key).read_bytes()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "files") as found:
        yield found


@pytest.fixture
def world(stand_in: Served, tmp_path: Path) -> Iterator[World]:
    probe = ConvexProbe(stand_in.url, InMemory())
    yield World(stand_in, tmp_path / "files", probe)
    probe.close()


def validated(world: World) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    p1.test_convex_reads_and_writes_rows_and_files(
        world.target, journal_for(world), PHASE1, lambda **more: figures.update(more)
    )
    return figures


def test_a_row_and_a_file_stand_in_the_stores(world: World, stand_in: Served, tmp_path: Path) -> None:
    figures = validated(world)
    assert figures["table"] == "public.acceptance_scratch" and figures["object"]
    assert not list((tmp_path / "files").iterdir()) and not stand_in.rows.tables["acceptance_scratch"]


@pytest.mark.parametrize(
    ("unused", "words"), [("rows", "in no table of Postgres"), ("bucket", "in none of 0 new objects")]
)
def test_a_convex_that_keeps_either_to_itself_is_no_data_plane(
    world: World, stand_in: Served, tmp_path: Path, unused: str, words: str
) -> None:
    """What it is told it gives back: only the stores themselves show it. Nothing of ours is left in it."""
    setattr(world, unused, False)
    with pytest.raises(AssertionError, match=words):
        validated(world)
    assert not stand_in.rows.tables["acceptance_scratch"]
    assert not list((tmp_path / "files").glob("*"))


def exported(world: World) -> None:
    snapshot.test_a_snapshot_is_exported_and_imported_with_equal_content(
        world.target, journal_for(world), PHASE1, lambda **more: None
    )


def test_a_blank_convex_that_is_only_observed_is_no_imported_one(world: World) -> None:
    with pytest.raises(Unknown, match="was a snapshot imported"):
        exported(world)
    world.probe.upsert("sources", [{"id": "1", "type": "t"}], "id")
    exported(world)
    # Where the suite imports, its sentinel says whether it did.
    world.deploys = True
    with pytest.raises(AssertionError, match="0 sentinels"):
        exported(world)
