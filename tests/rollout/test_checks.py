"""Whether a job's version came through its rollout, also when Nomad has forgotten that; and whether a catalogue is true."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.nomad_types import Service
from fixtures.observe.recording import InMemory
from fixtures.rollout import checks
from fixtures.rollout.checks import rollout_problem
from fixtures.target import config, deadlines, names
from fixtures.target.target import Target


def rollout(version: int = 2, status: str = "successful") -> SimpleNamespace:
    return SimpleNamespace(job_version=version, status=status, description="it says")


@pytest.mark.parametrize(
    ("found", "stable", "problem"),
    [
        (rollout(), False, ""),
        (None, True, ""),
        (None, False, "not stable"),
        (rollout(version=1), True, "the last deployment was of version 1"),
        (rollout(status="failed"), True, "failed, it says"),
        (rollout(status="running"), True, "running"),
    ],
)
def test_a_rollout_is_judged_by_itself_or_by_what_is_left_of_it(
    found: Any, stable: bool, problem: str
) -> None:
    target = SimpleNamespace(nomad=SimpleNamespace(latest_deployment=lambda job: found))
    said = rollout_problem(cast("Target", target), {"ID": "j", "Version": 2, "Stable": stable})
    assert problem in said and bool(problem) == bool(said)


class Catalogue(Target):
    """A target whose services are registered by Consul or by Nomad, with checks in the same states."""

    def __init__(self, discovery: str, *states: bool | None, running: int = 2) -> None:
        settings = {"nomad_addr": "http://127.0.0.1:1", "gvfx_discovery": discovery}
        super().__init__(config.described(settings), InMemory(), scratch=False, label="x")
        self.close()
        self.states = dict(zip(("a1", "a2", "a3"), states, strict=False))
        allocations = [SimpleNamespace(id=f"a{n + 1}") for n in range(running)]
        nomad = SimpleNamespace(
            running=lambda job, task: allocations, passing=self._made, service=self._listed
        )
        self.nomad = cast("Any", nomad)
        self._consul = cast("Any", SimpleNamespace(instances=self._listed))

    def _listed(self, service: str) -> list[Service]:
        known = self.config.gvfx_discovery == "consul"
        return [
            Service(f"i-{alloc}", service, "100.64.0.1", 8787, alloc, state if known else None)
            for alloc, state in self.states.items()
        ]

    def _made(self, one: Service) -> bool:
        state = self.states[str(one.alloc_id)]
        if state is None:
            raise ProbeError(f"checks of {one.name}", "no result", "a result")
        return state


@pytest.mark.parametrize("discovery", ["consul", "nomad"])
@pytest.mark.parametrize(
    ("states", "running", "problem"),
    [
        ((True, True), 2, ""),
        ((True, False), 2, "is not passing"),
        ((True,), 2, "a2 runs unregistered"),
        # Of what does not run no client has results.
        ((True, True, None), 2, "i-a3 is registered, its allocation does not run"),
        ((True,), 1, "1 allocations run, plan says 2"),
    ],
)
def test_a_catalogue_is_true_or_says_where_not(
    discovery: str, states: tuple[bool | None, ...], running: int, problem: str
) -> None:
    said = checks.catalogue_problems(Catalogue(discovery, *states, running=running), names.API)
    assert [problem in one for one in said] == ([True] if problem else [])


def test_an_instance_without_a_check_is_a_problem_in_consul_and_unknown_in_nomad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "SERVICE_VISIBLE", 0.05)
    with pytest.raises(AssertionError, match="has no check"):
        checks.catalogue_is_true(Catalogue("consul", True, None), (names.API,))
    with pytest.raises(Unknown, match="no result"):
        checks.catalogue_is_true(Catalogue("nomad", True, None), (names.API,))
    assert checks.catalogue_is_true(Catalogue("nomad", True, True), (names.API,)) < 5
