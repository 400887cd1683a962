"""Seeded defects of the data plane: stores that forget, a Convex that promises too much, backups that hold too little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drills.defects.defect import WEAKNESS, Defect, extra_environment
from fixtures.target import names
from fixtures.target.change import JobChange, chain, replace_once

EVERY = frozenset(f"T5.{number}" for number in range(1, 6))
"""Rules about writes while parts of the data plane go away."""
STORE_ALONE = EVERY - {"T5.3"}
"""Those in which a store is away while Convex is up, for certain: a lost host may take all of them at once."""
_EPHEMERAL = "/alloc/data/store"


def _weak(weakness: str) -> dict[str, JobChange]:
    return {names.CONVEX.id: extra_environment("convex_env", **{WEAKNESS: weakness})}


def _one_second(own: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"postgres_kill_timeout": "1s"}


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="objectstore-ephemeral",
        title="the object store keeps its data in the allocation's directory",
        mutation="gvfx-objectstore: -dir under /alloc, with the volume still mounted and checked",
        why=(
            "the directory outlives restarts and kills in place; on another node the store comes up with empty"
            " buckets, and every check of it passes"
        ),
        expected_red=frozenset({"T5.3", "T5.4"}),
        jobs={
            names.OBJECTSTORE.id: JobChange(
                mutate=chain(
                    replace_once('"-dir=/data/store"', f'"-dir={_EPHEMERAL}"'),
                    replace_once(
                        '        exec "$@"\n', f'        mkdir -p {_EPHEMERAL}\n        exec "$@"\n'
                    ),
                )
            )
        },
    ),
    Defect(
        id="convex-ack-before-commit",
        title="Convex acknowledges a write before it is committed",
        mutation="gvfx-convex: stand-in weakness ack-before-commit",
        why=(
            "with all stores up every row is there a moment later: who reads at once misses it, who takes a store"
            " away loses it, and while Postgres is away everything is still promised"
        ),
        expected_red=EVERY | {"P1.4", "P1.5", "T5.6"},
        # Whoever looks past Convex, or later, may see the row or not.
        tolerated=frozenset({"T1.13", "P4.2", "P4.3"}),
        jobs=_weak("ack-before-commit"),
    ),
    Defect(
        id="convex-drop-writes",
        title="Convex acknowledges every twentieth write and throws it away",
        mutation="gvfx-convex: stand-in weakness drop-writes",
        why="whoever writes once sees nothing wrong nineteen times of twenty; forty writes in a row lose two",
        expected_red=EVERY | {"T5.6"},
        # One write of these rules may be the twentieth of everybody's.
        tolerated=frozenset({"P1.4", "P1.5", "T1.2", "T1.7", "T1.10", "T1.11", "T1.13", "P4.2", "P4.3"}),
        jobs=_weak("drop-writes"),
    ),
    Defect(
        id="convex-torn-files",
        title="Convex commits a file before it has stored it, and hides the failure",
        mutation="gvfx-convex: stand-in weakness torn-files",
        why="with the object store up every file is whole; while it is away files are promised that nobody holds",
        expected_red=STORE_ALONE,
        tolerated=frozenset({"T5.3"}),
        jobs=_weak("torn-files"),
    ),
    Defect(
        id="convex-sqlite-fallback",
        title="Convex keeps rows in a local file while Postgres is away",
        mutation="gvfx-convex: stand-in weakness sqlite-fallback",
        why="nothing fails while Postgres is away; the rows of that time are in no database afterwards",
        expected_red=STORE_ALONE,
        # Runs of the ingestion that began in the local file never end in the database.
        tolerated=frozenset({"T5.3", "T8.10"}),
        jobs=_weak("sqlite-fallback"),
    ),
    Defect(
        id="convex-disk-files-fallback",
        title="Convex keeps files on its own disk while the object store is away",
        mutation="gvfx-convex: stand-in weakness disk-files-fallback",
        why="nothing fails while the object store is away; the files of that time go with the container",
        expected_red=STORE_ALONE,
        tolerated=frozenset({"T5.3"}),
        jobs=_weak("disk-files-fallback"),
    ),
    Defect(
        id="postgres-stopped-hard",
        title="Postgres has one second to stop, by the signal that waits for its clients",
        mutation='gvfx-postgres: kill_timeout 1s, kill_signal "SIGTERM"',
        why=(
            "a Postgres that is killed loses nothing it acknowledged, by its write-ahead log: no read-back can be"
            " red. What is broken is the stop that was asked for, and its exit code says so. With SIGINT one"
            " second may or may not do for the shutdown's checkpoint; SIGTERM never ends while Convex is connected"
        ),
        expected_red=frozenset({"T5.1", "T5.4"}),
        jobs={
            names.POSTGRES.id: JobChange(
                mutate=replace_once(
                    "      kill_timeout = var.postgres_kill_timeout\n",
                    '      kill_signal  = "SIGTERM"\n      kill_timeout = var.postgres_kill_timeout\n',
                ),
                override=_one_second,
            )
        },
    ),
    Defect(
        id="backup-without-data",
        title="the backup holds the tables and none of their rows",
        mutation="gvfx-postgres-backup: pg_dump --schema-only",
        why="the job ends well, its archive is whole and is read back equal; it brings back empty tables",
        expected_red=frozenset({"T5.6"}),
        jobs={
            names.BACKUP_JOB: JobChange(
                mutate=replace_once("pg_dump -Fc --no-password", "pg_dump -Fc --schema-only --no-password")
            )
        },
    ),
    Defect(
        id="backup-without-indexes",
        title="the backup holds the rows and none of the keys and indexes",
        mutation="gvfx-postgres-backup: pg_dump --section=pre-data --section=data",
        why="the job ends well and every row comes back; nothing keeps a second row of the same key out any more",
        expected_red=frozenset({"T5.6"}),
        jobs={
            names.BACKUP_JOB: JobChange(
                mutate=replace_once(
                    "pg_dump -Fc --no-password", "pg_dump -Fc --section=pre-data --section=data --no-password"
                )
            )
        },
    ),
    Defect(
        id="backup-of-another-database",
        title="the backup is of the maintenance database",
        mutation="gvfx-postgres-backup: PGDATABASE postgres",
        why="the job ends well with a small archive of an empty database under the right name",
        expected_red=frozenset({"T5.6"}),
        jobs={
            names.BACKUP_JOB: JobChange(
                mutate=replace_once(
                    "PGDATABASE        = var.convex_database", 'PGDATABASE        = "postgres"'
                )
            )
        },
    ),
)
