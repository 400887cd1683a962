"""Submitting specs: what is sent to Nomad, when it is sent at all, and when a job counts as healthy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.errors import DeployError, ProbeError, RehearsalError
from fixtures.observe.recording import InMemory
from fixtures.rehearsal import deployer
from fixtures.rehearsal.deployer import SHA, RehearsalDeployer
from fixtures.rehearsal.state import State

JOB = "gvfx-api"


class Nomad:
    """Stands in for Nomad's API: parses a text into a job that holds it, and keeps what is registered.

    Other answers come from lists by path, the last one again and again.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, list[Any]] = {}
        self.calls: list[str] = []
        self.reverts: list[Any] = []

    def call(self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None) -> Any:
        self.calls.append(f"{method} {path}")
        if path == "/v1/jobs/parse":
            # Only what the text mentions becomes part of the job, as with HCL.
            read = [line for line in body["Variables"].splitlines() if line.split(" = ")[0] in body["JobHCL"]]
            if "malformed" in body["JobHCL"]:
                raise RehearsalError("POST /v1/jobs/parse", "400 line 3: Unclosed block", "2xx")
            return {"ID": JOB, "Type": "service", "Meta": None, "Read": read, "Text": body["JobHCL"]}
        if path == "/v1/jobs":
            job = body["Job"]
            old = self.jobs.get(job["ID"], {"Version": -1})
            self.jobs[job["ID"]] = {"Status": "running", "Stop": False, **job, "Version": old["Version"] + 1}
            return {}
        if path.endswith("/revert"):
            self.reverts.append(body)
            job = self.jobs[body["JobID"]]
            self.jobs[body["JobID"]] = {**job, "Version": job["Version"] + 1, "Meta": {SHA: "the former"}}
            return {"EvalID": "e"}
        if path in self.answers:
            found = self.answers[path]
            return found.pop(0) if len(found) > 1 else found[0]
        if path.startswith("/v1/job/") and path.count("/") == 3:
            if method == "DELETE":
                return {}
            if (name := path.rpartition("/")[2]) in self.jobs:
                return self.jobs[name]
            raise RehearsalError(path, "404 job not found", "2xx")
        return []

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def nomad(monkeypatch: pytest.MonkeyPatch) -> Nomad:
    found = Nomad()
    monkeypatch.setattr(deployer, "nomad_api", lambda state, token: found)
    monkeypatch.setattr(deployer, "_POLL", 0)
    return found


@pytest.fixture
def deploy(nomad: Nomad, state: State, tmp_path: Path) -> RehearsalDeployer:
    (tmp_path / f"{JOB}.nomad.hcl").write_text("backend_image\n")
    return RehearsalDeployer(state, tmp_path, InMemory())


# -- submitting ------------------------------------------------------------------------------------------


def test_the_same_meaning_is_submitted_once(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    first = deploy.submit(JOB)
    assert (first.version, first.changed) == (0, True)
    assert nomad.jobs[JOB]["Meta"] == {SHA: first.spec_sha256}
    again = deploy.submit(JOB, {"worker_cpu": 999})
    assert (again.version, again.changed) == (0, False), "a variable of another job redeployed this one"
    assert nomad.calls.count("POST /v1/jobs") == 1


@pytest.mark.parametrize(
    ("variables", "mutate"),
    [({"backend_image": "other:1"}, None), (None, lambda text: text + "\n# changed")],
    ids=["variable", "mutation"],
)
def test_another_meaning_is_another_version(
    deploy: RehearsalDeployer, nomad: Nomad, variables: Any, mutate: Any
) -> None:
    first = deploy.submit(JOB)
    changed = deploy.submit(JOB, variables, mutate)
    assert (changed.version, changed.changed) == (1, True)
    assert changed.spec_sha256 != first.spec_sha256
    assert deploy.submit(JOB).version == 2, "the good spec again"


@pytest.mark.parametrize("gone", [{"Stop": True}, {"Status": "dead"}])
def test_a_job_that_does_not_stand_is_submitted_again(
    deploy: RehearsalDeployer, nomad: Nomad, gone: dict[str, Any]
) -> None:
    deploy.submit(JOB)
    nomad.jobs[JOB].update(gone)
    assert deploy.submit(JOB).changed


def test_a_refused_spec_names_the_job_and_the_place(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    with pytest.raises(DeployError, match="line 3: Unclosed block") as error:
        deploy.submit(JOB, mutate=lambda text: "malformed")
    assert error.value.thing == JOB
    assert JOB not in nomad.jobs


def test_a_missing_spec_names_its_file(deploy: RehearsalDeployer) -> None:
    with pytest.raises(DeployError, match=r"gvfx-nothing\.nomad\.hcl: No such file"):
        deploy.submit("gvfx-nothing")


def test_an_unreachable_nomad_is_no_refusal(
    deploy: RehearsalDeployer, nomad: Nomad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about the job: the rule becomes unknown, not failed."""

    def refuse(*words: object) -> Any:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(nomad, "call", refuse)
    with pytest.raises(ProbeError, match="connection refused"):
        deploy.submit(JOB)


# -- healthy ---------------------------------------------------------------------------------------------


def rollout(status: str, healthy: int, version: int = 0) -> dict[str, Any]:
    return {
        "JobVersion": version,
        "Status": status,
        "StatusDescription": f"it is {status}",
        "TaskGroups": {"g": {"HealthyAllocs": healthy, "DesiredTotal": 2}},
    }


def test_healthy_is_a_successful_rollout_of_this_version(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    deploy.submit(JOB)
    nomad.answers[f"/v1/job/{JOB}/deployment"] = [
        None, rollout("successful", 2, version=7), rollout("running", 1), rollout("successful", 2),
    ]  # fmt: skip
    deploy.wait_healthy(JOB, 60)
    assert nomad.calls.count(f"GET /v1/job/{JOB}/deployment") == 4


def test_a_failed_rollout_says_what_the_tasks_and_the_scheduler_say(
    deploy: RehearsalDeployer, nomad: Nomad
) -> None:
    deploy.submit(JOB)
    nomad.answers[f"/v1/job/{JOB}/deployment"] = [rollout("failed", 0)]
    event = {"DisplayMessage": "Exit Code: 137", "Type": "Terminated"}
    nomad.answers[f"/v1/job/{JOB}/allocations"] = [
        [{"ID": "aaaabbbb-1", "CreateIndex": 1, "TaskStates": {"api": {"Failed": True, "State": "dead", "Events": [event]}}}]
    ]  # fmt: skip
    nomad.answers[f"/v1/job/{JOB}/evaluations"] = [
        [{"FailedTGAllocs": {"g": {"ConstraintFiltered": {"${meta.role} = app": 4}, "DimensionExhausted": None}}}]
    ]  # fmt: skip
    with pytest.raises(DeployError) as error:
        deploy.wait_healthy(JOB, 60)
    for said in ("it is failed", "aaaabbbb api dead: Exit Code: 137", "${meta.role} = app"):
        assert said in error.value.observed


def test_a_rollout_that_never_ends_says_how_far_it_came(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    deploy.submit(JOB)
    nomad.answers[f"/v1/job/{JOB}/deployment"] = [rollout("running", 1)]
    with pytest.raises(DeployError, match="running: 1 of 2 healthy after 0 s; nothing failed visibly"):
        deploy.wait_healthy(JOB, 0.01)


@pytest.mark.parametrize(
    ("change", "healthy"),
    [
        ({}, True),
        ({"DesiredStatus": "stop"}, False),
        ({"ClientStatus": "failed"}, False),
        ({"JobVersion": 7}, False),
        ({"DeploymentStatus": {"Healthy": False}}, False),
        ({"DeploymentStatus": None}, False),
    ],
)
def test_a_rollout_that_nomad_forgot_is_judged_by_its_allocations(
    deploy: RehearsalDeployer, nomad: Nomad, change: dict[str, Any], healthy: bool
) -> None:
    """After a drain none of its allocations is left, and Nomad collects it; that it succeeded stays on the job."""
    deploy.submit(JOB)
    nomad.jobs[JOB] |= {"Stable": True, "TaskGroups": [{"Name": "g", "Count": 1}]}
    one = {
        "TaskGroup": "g", "JobVersion": 0, "DesiredStatus": "run", "ClientStatus": "running",
        "DeploymentStatus": {"Healthy": True}, "ID": "a", "CreateIndex": 1, "TaskStates": None, **change,
    }  # fmt: skip
    nomad.answers[f"/v1/job/{JOB}/allocations"] = [[one]]
    if healthy:
        deploy.wait_healthy(JOB, 60)
    else:
        with pytest.raises(DeployError, match="stable: 0 of 1 healthy"):
            deploy.wait_healthy(JOB, 0.01)


def test_a_rollout_that_never_succeeded_is_not_forgotten(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    deploy.submit(JOB)
    with pytest.raises(DeployError, match="no deployment of version 0 yet"):
        deploy.wait_healthy(JOB, 0.01)


def test_a_job_that_was_never_submitted_is_not_waited_for(deploy: RehearsalDeployer) -> None:
    with pytest.raises(DeployError, match="no such job"):
        deploy.wait_healthy(JOB, 60)


def node(name: str, node_class: str = "egress-worker", status: str = "ready") -> dict[str, str]:
    return {"ID": name, "NodeClass": node_class, "Status": status}


def allocation(node_id: str, status: str, version: int = 0) -> dict[str, Any]:
    return {
        "ID": f"{node_id}-allocation", "NodeID": node_id, "NodeName": node_id, "JobVersion": version,
        "ClientStatus": status, "CreateIndex": 1, "TaskStates": None,
    }  # fmt: skip


@pytest.fixture
def batch(deploy: RehearsalDeployer, nomad: Nomad) -> RehearsalDeployer:
    """A sysbatch job for two nodes of a class; a third is down, a fourth of another class."""
    nomad.jobs[JOB] = {
        "Version": 0,
        "Type": "sysbatch",
        "Constraints": [{"LTarget": "${node.class}", "RTarget": "egress-worker", "Operand": "="}],
    }
    nomad.answers["/v1/nodes"] = [
        [node("c3"), node("c4"), node("c5", status="down"), node("c1", node_class="app")]
    ]
    return deploy


def allocations(nomad: Nomad, *found: dict[str, Any]) -> None:
    nomad.answers[f"/v1/job/{JOB}/allocations"] = [list(found)]


def test_a_batch_is_complete_on_every_node_it_may_run_on(batch: RehearsalDeployer, nomad: Nomad) -> None:
    allocations(nomad, allocation("c3", "complete"), allocation("c4", "complete"))
    batch.wait_healthy(JOB, 60)
    allocations(nomad, allocation("c3", "complete"), allocation("c4", "running"))
    with pytest.raises(DeployError, match="complete on 1 of 2 nodes"):
        batch.wait_healthy(JOB, 0.01)


def test_the_run_before_is_no_evidence(batch: RehearsalDeployer, nomad: Nomad) -> None:
    nomad.jobs[JOB]["Version"] = 1
    allocations(nomad, allocation("c3", "complete", 0), allocation("c4", "failed", 0))
    with pytest.raises(DeployError, match="complete on 0 of 2 nodes"):
        batch.wait_healthy(JOB, 0.01)


@pytest.mark.parametrize("status", ["failed", "lost"])
def test_a_batch_that_failed_somewhere_names_the_node(
    batch: RehearsalDeployer, nomad: Nomad, status: str
) -> None:
    allocations(nomad, allocation("c3", "complete"), allocation("c4", status))
    with pytest.raises(DeployError, match="failed on c4") as error:
        batch.wait_healthy(JOB, 60)
    assert error.value.next_command == "nomad alloc logs -stderr c4-alloc"


def test_a_batch_without_a_node_is_never_complete(batch: RehearsalDeployer, nomad: Nomad) -> None:
    nomad.answers["/v1/nodes"] = [[node("c1", node_class="app")]]
    with pytest.raises(DeployError, match="no node is eligible"):
        batch.wait_healthy(JOB, 0.01)


def test_stopped_is_when_nothing_runs_any_more(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    deploy.submit(JOB)
    nomad.answers[f"/v1/job/{JOB}/allocations"] = [
        [allocation("c1", "running"), allocation("c2", "complete")],
        [allocation("c1", "complete"), allocation("c2", "complete")],
    ]
    deploy.stop(JOB)
    assert nomad.calls.count(f"GET /v1/job/{JOB}/allocations") == 2


def test_what_is_planned_is_parsed_and_not_submitted(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    found = deploy.planned(JOB, {"backend_image": "other:1"}, lambda text: text + "# more\n")
    assert found["Text"] == "backend_image\n# more\n"
    assert any("other:1" in line for line in found["Read"])
    assert nomad.calls == ["POST /v1/jobs/parse"]
    with pytest.raises(DeployError, match="Unclosed block"):
        deploy.planned(JOB, mutate=lambda text: "malformed")


# -- reverting -------------------------------------------------------------------------------------------


def test_a_revert_makes_the_former_version_the_newest(deploy: RehearsalDeployer, nomad: Nomad) -> None:
    deploy.submit(JOB)
    result = deploy.revert(JOB, 0)
    assert nomad.reverts == [{"JobID": JOB, "JobVersion": 0}]
    assert (result.version, result.changed, result.spec_sha256) == (1, True, "the former")


@pytest.mark.parametrize("status", ["running", "dead"])
def test_a_periodic_job_is_healthy_while_nomad_keeps_its_time(
    deploy: RehearsalDeployer, nomad: Nomad, status: str
) -> None:
    nomad.jobs[JOB] = {"Type": "batch", "Periodic": {"Enabled": True}, "Status": status, "Version": 0}
    if status == "running":
        deploy.wait_healthy(JOB, 1)
    else:
        with pytest.raises(DeployError, match="status dead"):
            deploy.wait_healthy(JOB, 1)
