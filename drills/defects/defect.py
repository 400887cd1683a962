"""What a seeded defect is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from fixtures.errors import SuiteError
from fixtures.target.change import DeploymentChange, JobChange, replace_once
from fixtures.target.target import Target

During = Callable[[Target], AbstractContextManager[None]]
Clean = Callable[[Target], None]
WEAKNESS = "GVFX_STANDIN_WEAKNESS"
NO_REVERT = replace_once("auto_revert       = true", "auto_revert       = false")
"""Else the rollout that fails because of the defect would put the good version back before anybody looks."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A named mutation of the deployment.

    `jobs` change what is submitted while the defect is on; `during` acts on the target for as long as the
    tests run; `clean` takes back what redeploying the good specs does not, from any point of `during`, also in another
    process than the one that seeded it, which may be dead. `expected_red` must fail, and
    `expected_unknown` must be undecidable; every other rule must pass, save those `tolerated`, whose outcome
    hangs on timing. `why` is the reasoning. `only` is pytest's -k for a defect that strikes at a moment of its own
    tests; empty runs them all.
    """

    id: str
    title: str
    mutation: str
    why: str
    expected_red: frozenset[str]
    expected_unknown: frozenset[str] = frozenset()
    tolerated: frozenset[str] = frozenset()
    jobs: Mapping[str, JobChange] = field(default_factory=dict)
    during: During = lambda target: nullcontext()
    clean: Clean | None = None
    only: str = ""

    @property
    def own(self) -> frozenset[str]:
        """Every rule that it is known to touch."""
        return self.expected_red | self.expected_unknown | self.tolerated

    def change(self) -> DeploymentChange:
        """What differs in the deployment."""
        return DeploymentChange(self.id, self.jobs)


def deployed(target: Target, job: str) -> bool:
    """Whether Nomad knows the job: a matrix killed before its rollout came there has nothing to take back of it."""
    return any(str(one["ID"]) == job for one in target.nomad.jobs())


def extra_environment(variable: str, **values: str) -> JobChange:
    """A change that adds to a job's map variable of further environment, keeping what is there."""

    def override(own: Mapping[str, Any]) -> Mapping[str, Any]:
        return {variable: {**dict(own.get(variable) or {}), **values}}

    return JobChange(override=override)


@contextmanager
def repeatedly(action: Callable[[], None], every: float) -> Iterator[None]:
    """Do something now and every so many seconds, in the background, while the body runs.

    A failing repetition is retried: the defect must outlive what the tests do to the target.
    """
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every):
            try:
                action()
            except SuiteError:
                continue

    action()
    thread = threading.Thread(target=loop, name="defect", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)
