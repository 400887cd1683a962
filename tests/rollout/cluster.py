"""A pretend cluster that schedules: four nodes, the jobs of the plan, drains that move what they find."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any, cast

from fixtures.observe.caller import Ended
from fixtures.observe.containers import LIST as CONTAINERS
from fixtures.observe.nomad_types import Allocation, Evaluation, Node, Service, TaskEvent, TaskState
from fixtures.observe.processes import CONTROL
from fixtures.observe.recording import InMemory
from fixtures.target import names
from fixtures.target.capabilities import Completed
from fixtures.target.config import WORKER_PATTERN
from fixtures.target.target import Target

S = 1_000_000_000
TASKS = {job.id: job.task for job in names.SERVICES} | {names.WORKER_JOB: names.WORKER_TASK}
PORTS = {job.id: job.port for job in names.SERVICES}
STORES = {names.POSTGRES.id, names.OBJECTSTORE.id}
REFUSED = "2 nodes ready and eligible, 2 looked at, 2 filtered: ${node.class} = egress-worker (2)"


def alloc_id(number: int) -> str:
    return f"{number:08x}-2222-3333-4444-555555555555"


@dataclass
class Cluster:
    """Nomad, Consul and the hosts in one: what one changes the others see."""

    allocations_: dict[str, Allocation] = field(default_factory=dict)
    evaluations_: list[Evaluation] = field(default_factory=list)
    stubborn: set[str] = field(default_factory=set)
    """Jobs whose containers outlive their allocation."""
    pinned: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Nodes a job may run on, where they are fewer than usual."""
    versions: dict[str, int] = field(default_factory=dict)
    now: float = 1000.0
    ghosts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._count = itertools.count(1)
        self.nodes_ = {
            f"id-{name}": Node(f"id-{name}", name, name, class_, "ready", "eligible", False, "")
            for name, class_ in (
                ("c1", "app"),
                ("c2", "app"),
                ("c3", "egress-worker"),
                ("c4", "egress-worker"),
            )
        }
        for job in names.SERVICES:
            for index in range(job.count):
                self.place(job.id, f"id-c{index + 1}")
        self.place(names.WORKER_JOB, "id-c3")

    # -- scheduling -----------------------------------------------------------------------------------------

    def place(self, job: str, node_id: str) -> Allocation:
        self.now += 1
        one = alloc_id(next(self._count))
        state = TaskState(TASKS[job], "running", False, 0, self.now, None)
        self.allocations_[one] = Allocation(
            one, job, "group", node_id, self.nodes_[node_id].name, "run", "running", 1, True, self.now,
            {TASKS[job]: state},
        )  # fmt: skip
        return self.allocations_[one]

    def stop(self, one: Allocation) -> None:
        self.now += 1
        task = TASKS[one.job]
        events = (TaskEvent("Killing", self.now, "", None), TaskEvent("Killed", self.now + 1, "", None))
        state = replace(one.tasks[task], state="dead", finished=self.now + 1, events=events)
        self.allocations_[one.id] = replace(one, desired="stop", client="complete", tasks={task: state})
        if one.job in self.stubborn:
            self.ghosts.append(one.id)
        self.now += 2

    def places(self, job: str) -> list[str]:
        wanted = self.pinned.get(job)
        taken = {one.node_id for one in self.allocations_.values() if one.live and one.job == job}
        return [
            node.id
            for node in self.nodes_.values()
            if node.eligibility == "eligible"
            and node.id not in taken
            and (wanted is None or node.name in wanted)
            and (job != names.WORKER_JOB or node.node_class == "egress-worker")
            and (job not in STORES or node.node_class == "app")
        ]

    def schedule(self, job: str) -> None:
        for node_id in self.places(job)[:1]:
            self.place(job, node_id)
            self.evaluations_ = [
                replace(one, status="complete") if one.job == job else one for one in self.evaluations_
            ]
            return
        number = len(self.evaluations_)
        said = {"group": REFUSED}
        self.evaluations_.append(Evaluation(f"e{number}", job, "complete", "node-drain", self.now, said))
        self.evaluations_.append(Evaluation(f"e{number}b", job, "blocked", "queued-allocs", self.now, said))

    # -- what a fault asks ----------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        return list(self.nodes_.values())

    def node(self, node_id: str) -> Node:
        return self.nodes_[node_id]

    def drain(self, node_id: str, deadline: float) -> None:
        self.nodes_[node_id] = replace(self.nodes_[node_id], eligibility="ineligible")
        for one in self.allocations_on(node_id):
            if one.live:
                self.stop(one)
                self.schedule(one.job)

    def set_eligibility(self, node_id: str, *, eligible: bool) -> None:
        state = "eligible" if eligible else "ineligible"
        self.nodes_[node_id] = replace(self.nodes_[node_id], eligibility=state)
        if eligible:
            for job in {one.job for one in self.evaluations_ if one.status == "blocked"}:
                self.schedule(job)

    # -- what a probe asks ----------------------------------------------------------------------------------

    def job(self, job_id: str) -> dict[str, Any]:
        count = next((one.count for one in names.SERVICES if one.id == job_id), 1)
        group = {
            "Name": "group", "Count": count, "Tasks": [{"Name": TASKS[job_id], "KillTimeout": 5 * S}],
            "Update": {"HealthyDeadline": 60 * S}, "Migrate": {"MaxParallel": 1, "HealthyDeadline": 60 * S},
        }  # fmt: skip
        return {
            "ID": job_id, "Version": self.versions.get(job_id, 0), "Status": "running", "Stop": False,
            "TaskGroups": [group],
        }  # fmt: skip

    def allocations(self, job_id: str, *, all_versions: bool = False) -> list[Allocation]:
        return [one for one in self.allocations_.values() if one.job == job_id]

    def allocation(self, one: str) -> Allocation:
        return self.allocations_[one]

    def allocations_on(self, node_id: str) -> list[Allocation]:
        return [one for one in list(self.allocations_.values()) if one.node_id == node_id]

    def running(self, job_id: str, task: str) -> list[Allocation]:
        return [one for one in self.allocations(job_id) if one.task_running(task)]

    def evaluations(self, job_id: str) -> list[Evaluation]:
        return [one for one in self.evaluations_ if one.job == job_id]

    def agent_self(self, at: str = "") -> dict[str, Any]:
        return {"config": {"Client": {"MaxKillTimeout": "120s"}}}

    def stop_allocation(self, one: str) -> None:
        self.stop(self.allocations_[one])
        self.schedule(self.allocations_[one].job)

    # -- hosts ----------------------------------------------------------------------------------------------

    def names(self, role: str | None = None) -> list[str]:
        return ["s3"] if role == "witness" else ["c1", "c2", "c3", "c4"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        here = [one for one in self.allocations_.values() if one.node_name == host]
        held = [one for one in here if one.live or one.id in self.ghosts]
        if argv == CONTAINERS:
            lines = [f"{one.id[:8] * 8} {one.id} {TASKS[one.job]}-{one.id}" for one in held]
            return Completed(0, "\n".join(lines), "")
        table = [("init",), ("sh", CONTROL)]
        table += [("containerd-shim-runc-v2", "-namespace", "moby", "-id", one.id[:8] * 8) for one in held]
        table += [("python3", "-m", "workloads.worker") for one in held if one.job == names.WORKER_JOB]
        lines = [f"/proc/{pid}/cmdline:" + "\0".join(words) + "\0" for pid, words in enumerate(table, 1)]
        return Completed(0, "\n".join(lines), "")

    def instances(self, service: str) -> list[Service]:
        return [
            Service(one.id, service, one.node_name, PORTS[service], one.id, True, one.node_name)
            for one in self.allocations(service)
            if one.live
        ]


@dataclass
class Asker:
    """Calls every API whenever it is asked, and finds them as `problems` says, by address; `unasked` are passed over."""

    cluster: Cluster
    problems: dict[str, str] = field(default_factory=dict)
    unasked: set[str] = field(default_factory=set)
    patience: float = 3.0

    def latest(self) -> dict[str, Ended]:
        found = {one.address for one in self.cluster.instances(names.API.service)} - self.unasked
        return {one: Ended(math.inf, self.problems.get(one, "")) for one in found}


@dataclass
class Pretend:
    """A target that is all of this."""

    cluster: Cluster
    record: InMemory = field(default_factory=InMemory)

    @property
    def target(self) -> Target:
        return cast("Target", self)

    @property
    def nomad(self) -> Cluster:
        return self.cluster

    @property
    def hosts(self) -> Cluster:
        return self.cluster

    @property
    def config(self) -> Any:
        class Config:
            gvfx_worker_pattern = WORKER_PATTERN

        return Config()

    def instances(self, service: str) -> list[Service]:
        return self.cluster.instances(service)


class Control:
    """Faults reach the scheduler only."""

    def __init__(self, cluster: Cluster) -> None:
        self.scheduler = cluster

    @property
    def target(self) -> Target:
        raise NotImplementedError

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        raise NotImplementedError

    def host_state(self, host: str) -> Any:
        raise NotImplementedError

    def kill_host(self, host: str) -> None:
        raise NotImplementedError

    start_host = freeze_host = thaw_host = kill_host
