"""The backup as it is judged before anything is wiped, and the commands of its restore."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from fixtures.errors import DeployError, Unknown
from fixtures.faults import Journal
from fixtures.observe.nomad import NomadNotFound
from fixtures.observe.nomad_exec import ExecResult
from fixtures.observe.recording import InMemory
from fixtures.rollout import backup
from fixtures.rollout.backup import Dump, Server
from fixtures.target import names
from fixtures.target.options import DEPLOY_DIR
from fixtures.target.target import Target
from tests.journals import journal_for

ARCHIVE = backup.MAGIC + b" and more"
KEY = "goldviewfx/2026-01-01T000000Z.dump"


def report(content: bytes, **other: object) -> str:
    said = {
        "event": "backup", "ok": True, "key": KEY, "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(), **other,
    }  # fmt: skip
    return f"some line\n{json.dumps(said)}\n"


class World:
    """A cluster with a backup job: what it makes, and what it says."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {"goldviewfx/old.dump": ARCHIVE}
        self.made: dict[str, bytes] = {KEY: ARCHIVE}
        self.said = report(ARCHIVE)
        self.client = "complete"
        self.running: dict[str, bool] = {}
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.results: Callable[[list[str], bytes], ExecResult] = lambda argv, stdin: ExecResult(0, "", "")
        self.asked: list[tuple[list[str], bytes]] = []
        self.record = InMemory()
        self.config = SimpleNamespace(
            gvfx_backup_bucket="b", pguser="convex", pgpassword=SecretStr("p'w"), pgdatabase="goldviewfx"
        )
        self.nomad = self
        self.deploy = self
        self.legacy = SimpleNamespace(
            running=lambda: self.running.get("legacy", False),
            stop=lambda: self._set("legacy", False),
            start=lambda: self._set("legacy", True),
        )

    # as Nomad

    def force_periodic(self, job: str) -> str:
        self.objects |= self.made
        return f"{job}/periodic-1"

    def allocations(self, job: str) -> list[Any]:
        return [SimpleNamespace(id="a" * 36, client=self.client, tasks={})]

    def logs(self, alloc: str, task: str, stream: str = "stdout", tail: int = 0) -> str:
        return self.said if (task, stream) == (names.UPLOAD_TASK, "stdout") else f"{task} {stream}"

    def running_(self, job: str, task: str) -> list[Any]:
        if job not in self.running:
            raise NomadNotFound(f"job {job}", "404", "a job")
        return [SimpleNamespace(id=job, desired="run")] if self.running[job] else []

    def job(self, job: str) -> dict[str, Any]:
        if job not in self.running:
            raise NomadNotFound(f"job {job}", "404", "a job")
        status = "running" if self.running[job] else "dead"
        return {"ID": job, "Version": 0, "Status": status, "TaskGroups": [{"Tasks": []}]}

    def jobs(self) -> list[dict[str, Any]]:
        return [self.job(one) for one in self.running]

    def latest_deployment(self, job: str) -> Any:
        status = "failed" if job in self.broken else "successful"
        return SimpleNamespace(job_version=0, status=status, description="")

    def exec(self, alloc: str, task: str, argv: list[str], timeout: float, stdin: bytes = b"") -> ExecResult:
        self.asked.append((argv, stdin))
        return self.results(argv, stdin)

    # as deployer

    def submit(self, job: str) -> None:
        self._set(job, True)

    def wait_healthy(self, job: str, timeout: float) -> None:
        self.done.append(f"healthy {job}")
        if job in self.broken:
            raise DeployError(job, "unhealthy", "healthy")

    def stop(self, job: str, purge: bool = False) -> None:
        self._set(job, False)
        if purge:
            del self.running[job]

    def _set(self, what: str, runs: bool) -> None:
        self.running[what] = runs
        self.done.append(f"{'start' if runs else 'stop'} {what}")

    # as target

    def can(self, name: str) -> bool:
        return True

    def backups(self) -> Any:
        return SimpleNamespace(
            keys=lambda bucket: set(self.objects),
            read=lambda bucket, key, limit: self.objects[key][:limit],
        )

    def postgres(self) -> Any:
        return SimpleNamespace(tables=list)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(backup, "BACKUP", 0.01)
    monkeypatch.setattr(backup, "convex_address", lambda target: "http://convex")
    return found


def target(world: World) -> Target:
    facade = SimpleNamespace(
        **{
            name: getattr(world, name)
            for name in ("record", "config", "deploy", "legacy", "can", "backups", "postgres")
        }
    )
    facade.nomad = SimpleNamespace(
        running=world.running_,
        **{
            name: getattr(world, name)
            for name in ("force_periodic", "allocations", "logs", "job", "jobs", "latest_deployment", "exec")
        },
    )
    return cast("Target", facade)


def both(world: World) -> tuple[Target, Journal]:
    found = target(world)
    return found, journal_for(found)


def test_a_new_whole_archive_is_a_backup(world: World) -> None:
    assert backup.taken(target(world)) == Dump(KEY, hashlib.sha256(ARCHIVE).hexdigest(), ARCHIVE)


def _empty(world: World) -> None:
    world.made, world.said = {KEY: b""}, report(b"")


def _old(world: World) -> None:
    world.objects[KEY] = ARCHIVE


def _elsewhere(world: World) -> None:
    world.made = {"other": ARCHIVE}


def _torn(world: World) -> None:
    world.made = {KEY: ARCHIVE[:-1]}


def _changed(world: World) -> None:
    world.made = {KEY: ARCHIVE[:-1] + b"X"}


def _text(world: World) -> None:
    world.made, world.said = {KEY: b"-- SQL"}, report(b"-- SQL")


def _failed(world: World) -> None:
    world.client = "failed"


def _silent(world: World) -> None:
    world.said = "no report"


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_empty, "no archive"),
        (_old, "before the backup began"),
        (_elsewhere, "not in b"),
        (_torn, "bytes, the backup reports"),
        (_changed, "not what the backup reports"),
        (_text, "no archive"),
        (_failed, "the backup failed: dump: dump stdout; dump: dump stderr"),
        (_silent, "reports nothing"),
    ],
)
def test_anything_less_is_a_broken_rule(world: World, spoil: Callable[[World], None], word: str) -> None:
    spoil(world)
    with pytest.raises(AssertionError, match=word):
        backup.taken(target(world))


def test_a_backup_that_does_not_end_is_a_broken_rule(world: World) -> None:
    world.client = "running"
    with pytest.raises(AssertionError, match="ends: not so"):
        backup.taken(target(world))


def test_a_dump_that_is_too_large_is_not_drilled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "LIMIT", 4)
    with pytest.raises(Unknown, match="fits a drill"):
        backup.taken(target(world))


# -- restoring --------------------------------------------------------------------------------------------------


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(backup, "the_one", lambda target, job: SimpleNamespace(id="b" * 36))
    return Server(target(world))


def test_the_password_comes_by_the_input_and_nowhere_else(server: Server, world: World) -> None:
    def really(argv: list[str], stdin: bytes) -> ExecResult:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=False, check=False)
        return ExecResult(done.returncode, done.stdout.decode(), done.stderr.decode())

    world.results = really
    done = server.as_convex(
        "sh", "-c", 'echo "$PGPASSWORD|$PGUSER|$PGDATABASE|$PGHOST|$(cat)|$*"', "sh", "a b"
    )
    assert done.stdout == "p'w|convex|goldviewfx|127.0.0.1||a b\n"
    ((argv, stdin),) = world.asked
    assert "p'w" not in " ".join(argv) and stdin == b"p'w\n"


def test_a_dump_arrives_whole_or_not_at_all(server: Server, world: World, tmp_path: Any) -> None:
    def really(argv: list[str], stdin: bytes) -> ExecResult:
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
        return ExecResult(done.returncode, done.stdout.decode(), done.stderr.decode())

    world.results = really
    content = bytes(range(256)) * 300
    dump = Dump(KEY, hashlib.sha256(content).hexdigest(), content)
    path = str(tmp_path / "dump")
    server.receive(dump, path)
    with pytest.raises(Unknown, match="in the task"):
        server.receive(Dump(KEY, "0" * 64, content), path)


def test_tables_of_an_archive(server: Server, world: World) -> None:
    listing = (
        "; Archive created at 2026-01-01\n;\n"
        "214; 1259 16386 TABLE public documents convex\n"
        "3319; 0 16386 TABLE DATA public documents convex\n"
        "3320; 0 16390 TABLE DATA other leases convex\n"
        "3000; 0 0 SEQUENCE SET public documents_seq_seq convex\n"
    )
    world.results = lambda argv, stdin: ExecResult(0, listing, "")
    assert server.tables_in("d") == {("public", "documents"), ("other", "leases")}
    world.results = lambda argv, stdin: ExecResult(1, "", "not an archive")
    with pytest.raises(AssertionError, match="not an archive"):
        server.tables_in("d")


def test_a_restore_that_fails_is_a_broken_rule_and_a_wipe_that_fails_is_none(
    server: Server, world: World
) -> None:
    world.results = lambda argv, stdin: ExecResult(1, "", "could not connect")
    with pytest.raises(AssertionError, match="pg_restore: exit 1"):
        server.restore("d")
    with pytest.raises(Unknown, match="could not connect"):
        server.wipe()


def test_the_restore_is_the_runbooks_own(server: Server, world: World) -> None:
    server.restore("DUMP")
    ((argv, _),) = world.asked
    command = " ".join(argv[argv.index("pg_restore") :])
    runbook = (DEPLOY_DIR / "README.md").read_text(encoding="utf-8")
    options = " ".join(backup.RESTORE)
    assert f"pg_restore {options} -h " in runbook and command == f"pg_restore {options} -d goldviewfx DUMP"


# -- the jobs around it -----------------------------------------------------------------------------------------


def test_writers_stand_still_and_go_on_as_they_did(world: World) -> None:
    world.running = {names.WORKER_JOB: True, names.API.id: True, "legacy": True}
    with backup.quiet(*both(world)) as stopped:
        assert not any(world.running.values())
        assert stopped == [names.WORKER_JOB, names.API.id, "the legacy worker"]
    assert all(world.running.values())
    # Each comes up while the other is waited for.
    begun = max(world.done.index(f"start {job}") for job in stopped[:2])
    assert begun < min(world.done.index(f"healthy {job}") for job in stopped[:2])


def test_what_was_not_there_or_not_healthy_is_left_so(world: World) -> None:
    world.running, world.broken = {names.API.id: True}, {names.API.id}
    with backup.quiet(*both(world)) as stopped:
        assert stopped == [names.API.id]
    assert world.running == {names.API.id: True} and f"healthy {names.API.id}" not in world.done


def test_a_failed_body_is_not_hidden_by_what_comes_behind_it(world: World) -> None:
    world.running = {names.CONVEX.id: True}
    world.broken = {names.CONVEX.id}
    with (
        pytest.raises(AssertionError, match="the rule is broken") as caught,
        backup.convex_stopped(*both(world)),
    ):
        assert not world.running[names.CONVEX.id]
        raise AssertionError("the rule is broken")
    assert "unhealthy" in caught.value.__notes__[0]
    assert world.running[names.CONVEX.id]
    with pytest.raises(DeployError), backup.convex_stopped(*both(world)):
        pass


@pytest.mark.parametrize("stood", [True, False])
def test_the_job_is_left_as_it_was_found(world: World, stood: bool) -> None:
    if stood:
        world.running = {names.BACKUP_JOB: True}
    with backup.deployed(*both(world)):
        assert world.running[names.BACKUP_JOB]
    assert (names.BACKUP_JOB in world.running) == stood
