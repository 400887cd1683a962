"""A pretended data plane with its workers, in a file: it outlives the process that disturbs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fixtures.errors import DeployError, UndoError
from fixtures.observe.nomad import NomadNotFound
from fixtures.observe.recording import InMemory
from fixtures.target import names
from fixtures.target.capabilities import DeploymentResult
from fixtures.target.target import Target

STEADY: dict[str, Any] = {
    "jobs": {names.WORKER_JOB: {}, names.API.id: {}, names.CONVEX.id: {}},
    "legacy": False,
    "rows": [],
    "database": "own",
    "task": {},
    "two": False,
}
"""Jobs that run, by their further environment; None for a stopped one."""


class Plant:
    """`step` is called around every change; `two` remembers that two workers ran at once."""

    def __init__(self, path: Path, step: Callable[[str], None] = lambda what: None, **other: Any) -> None:
        self._path, self._step = path, step
        if not path.exists():
            path.write_text(json.dumps({**STEADY, **other}))
        self.spoilt = ""
        """A dump that restores to something else."""
        self.label = "plant"
        self.record = InMemory()
        self.deploy = self.nomad = self
        self.legacy = SimpleNamespace(
            running=lambda: self.state["legacy"],
            start=lambda: self.change("legacy start", legacy=True),
            stop=lambda: self.change("legacy stop", legacy=False),
        )

    @property
    def target(self) -> Target:
        return cast("Target", self)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path.read_text())
        return found

    def change(self, what: str, **values: Any) -> None:
        self._step(what)
        now = {**self.state, **values}
        now["two"] |= now["legacy"] and now["jobs"].get(names.WORKER_JOB) is not None
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(now))
        new.rename(self._path)
        self._step(f"{what} done")

    def can(self, name: str) -> bool:
        return True

    # -- jobs

    def job(self, job: str) -> dict[str, Any]:
        jobs = self.state["jobs"]
        if job not in jobs:
            raise NomadNotFound(job, "404", "a job")
        stopped = jobs[job] is None
        tasks = [{"Name": "t", "Env": jobs[job] or {}}]
        return {
            "ID": job, "Version": 0, "Type": "service", "Stop": stopped, "TaskGroups": [{"Tasks": tasks}],
            "Status": "dead" if stopped else "running",
        }  # fmt: skip

    def jobs(self) -> list[dict[str, Any]]:
        return [self.job(one) for one in self.state["jobs"]]

    def running(self, job: str, task: str) -> list[Any]:
        if job not in self.state["jobs"]:
            raise NomadNotFound(job, "404", "a job")
        return [] if self.state["jobs"][job] is None else [SimpleNamespace(id=job, desired="run")]

    def submit(self, job: str, variables: dict[str, Any] | None = None) -> DeploymentResult:
        environment = (variables or {}).get("api_env", {})
        if job == names.CONVEX.id and self.state["database"] == "nothing":
            raise DeployError(job, "started on a blank database", "its own")
        self.change(f"submit {job}", jobs={**self.state["jobs"], job: environment})
        return DeploymentResult(job, 0, True, "")

    def wait_healthy(self, job: str, timeout: float) -> None:
        if self.state["jobs"][job] is None:
            raise DeployError(job, "stopped", "healthy")

    def stop(self, job: str, purge: bool = False) -> None:
        jobs = {**self.state["jobs"], job: None}
        if purge:
            del jobs[job]
        self.change(f"stop {job}", jobs=jobs)

    def variables(self) -> dict[str, Any]:
        return {"api_env": {"A": "1"}}

    # -- data

    def convex(self) -> Any:
        if self.state["jobs"][names.CONVEX.id] is None:
            raise UndoError("Convex", "away", "an answer")
        return self

    def rows(self, table: str, **equal: Any) -> list[dict[str, Any]]:
        return [one for one in self.state["rows"] if equal.items() <= one.items()]

    def insert(self, table: str, row: dict[str, Any]) -> None:
        self.change(f"insert {row}", rows=[*self.state["rows"], row])

    def delete(self, table: str, **equal: Any) -> int:
        left = [one for one in self.state["rows"] if not equal.items() <= one.items()]
        self.change(f"delete {equal}", rows=left)
        return 0

    def postgres(self) -> Any:
        return SimpleNamespace(
            contents=lambda: {"public.t": ["1", self.state["database"]]}, structure=set[str]
        )


class PretendedServer:
    """Dumps are files of the task; a restore comes by a half of it."""

    def __init__(self, target: Target) -> None:
        self._plant = cast("Plant", target)

    def _task(self, **files: Any) -> dict[str, Any]:
        return {**self._plant.state["task"], **files}

    def receive(self, dump: Any, path: str) -> None:
        self._plant.change("receive", task=self._task(**{path: dump.content.decode()}))

    def copy(self, path: str) -> None:
        self._plant.change("copy", task=self._task(**{path: self._plant.state["database"]}))

    def forget(self, *paths: str) -> None:
        task = {name: value for name, value in self._plant.state["task"].items() if name not in paths}
        self._plant.change("forget", task=task)

    def tables_in(self, path: str) -> set[tuple[str, str]]:
        assert path in self._plant.state["task"], f"no {path}"
        return set()

    def wipe(self) -> None:
        assert self._plant.state["jobs"][names.CONVEX.id] is None, "Convex runs on what is wiped"
        self._plant.change("wipe", database="nothing")

    def restore(self, path: str) -> None:
        content = self._plant.state["task"][path]
        self._plant.change("half", database="half")
        self._plant.change("restore", database="wrong" if path == self._plant.spoilt else content)
