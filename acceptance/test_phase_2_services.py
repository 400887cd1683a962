"""Phase 2 of the plan: the stateless services are deployed, healthy and find each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.observe import inside
from fixtures.rollout import checks
from fixtures.rollout.rollout import Rollout
from fixtures.target import names
from fixtures.target.target import Target

pytestmark = [pytest.mark.phase2, pytest.mark.phase3]


@pytest.mark.parametrize(
    ("step_id", "job"),
    [
        pytest.param("rl-service", names.RL, marks=pytest.mark.rule("P2.1"), id="rl-service"),
        pytest.param("api", names.API, marks=pytest.mark.rule("P2.2"), id="api"),
        pytest.param("frontend", names.FRONTEND, marks=pytest.mark.rule("P2.3"), id="frontend"),
    ],
)
def test_service_is_deployed_and_healthy(
    target: Target, phase2: Rollout, measure: Callable[..., None], step_id: str, job: names.Job
) -> None:
    """The service runs twice on two nodes, its rollout succeeded, and each instance answers."""
    step = phase2.outcome(step_id)
    step.proven()
    running = checks.deployed(target, job.id, job.task, job.count)
    nodes = {one.node_name for one in running}
    assert len(nodes) == job.count, f"{job.id}: {job.count} replicas on {sorted(nodes)}"
    samples = [
        checks.must_answer(target, checks.url(one, job.health or "/"))
        for one in checks.instances(target, job)
    ]
    bad = [f"{one.url}: {one.status}" for one in samples if one.status != 200]
    assert not bad, "; ".join(bad)
    measure(
        seconds=step.seconds,
        done=step.done,
        instances=len(samples),
        slowest_seconds=max(one.latency for one in samples),
    )


@pytest.mark.rule("P2.4")
def test_every_discovery_path_works(target: Target, phase2: Rollout, measure: Callable[..., None]) -> None:
    """Every Consul name a job is given resolves, inside its task, to running allocations of that service."""
    phase2.outcome("smoke").proven()
    by_address = {
        (one.address, one.port): job.service
        for job in names.SERVICES
        for one in target.instances(job.service)
    }
    problems: list[str] = []
    paths = 0
    for job in names.SERVICES:
        if not job.addresses:
            continue
        alloc = next(iter(target.nomad.running(job.id, job.task)), None)
        assert alloc is not None, f"{job.id}: task {job.task} runs nowhere"
        for one in inside.dependencies(target.nomad, alloc.id, job.task, job.addresses):
            paths += 1
            service = one.host.partition(".")[0]
            if not one.host.endswith(".service.consul"):
                problems.append(f"{job.id}: {one.variable} names {one.host}, not a Consul service")
            elif not one.addresses:
                problems.append(f"{job.id}: {one.host} does not resolve ({one.error})")
            problems += [
                f"{job.id}: {one.host} resolves to {address}, no instance of {service}"
                for address in one.addresses
                if by_address.get((address, one.port)) != service
            ]
    assert not problems, "; ".join(problems)
    measure(paths=paths)
