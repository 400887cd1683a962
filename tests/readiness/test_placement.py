"""P0.9: Nomad's rules for one node, and the search for room, against a slow and simple one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import Unknown
from fixtures.readiness import jobs, placement
from fixtures.readiness.findings import Findings
from fixtures.readiness.jobs import Need
from fixtures.readiness.placement import Copy, Eligibility, Room
from tests.readiness.recorded import node

NODE = node("c1", "100.64.0.5", HostVolumes={"gvfx-postgres": {"ReadOnly": False}})


def constraint(left: str, operand: str, right: str = "") -> dict[str, Any]:
    return {"LTarget": left, "Operand": operand, "RTarget": right}


@pytest.mark.parametrize(
    ("left", "operand", "right", "satisfied"),
    [
        ("${meta.role}", "!=", "witness", True),
        ("${meta.kind}", "!=", "witness", True),
        ("${meta.role}", "=", "app", True),
        ("${meta.kind}", "=", "", False),
        ("${node.class}", "=", "egress-worker", False),
        ("${node.unique.name}", "regexp", "1$", True),
        ("${attr.consul.version}", "semver", ">= 1.8.0", True),
        ("${attr.consul.version}", "version", "~> 1.21", True),
        ("${attr.consul.version}", "version", "~> 1.21.0", False),
        ("${attr.consul.version}", "semver", ">= 1.8.0, < 1.22", False),
        ("${attr.vault.version}", "semver", ">= 0.6.1", False),
        ("${attr.consul.version}", "is_set", "", True),
        ("${attr.vault.version}", "is_not_set", "", True),
        ("a, b, c", "set_contains", "c,a", True),
        ("a, b", "set_contains_any", "c,d", False),
        ("", "distinct_hosts", "true", True),
    ],
)
def test_constraints(left: str, operand: str, right: str, satisfied: bool) -> None:
    assert placement.satisfied(constraint(left, operand, right), NODE) is satisfied


def test_an_unknown_operand_is_not_decided() -> None:
    with pytest.raises(Unknown, match="not known"):
        placement.satisfied(constraint("${meta.role}", "~", "x"), NODE)


def group(count: int = 1, *, cpu: int = 100, memory: int = 100, port: int = 0, **more: Any) -> dict[str, Any]:
    task = {"Name": "main", "Driver": "docker", "Resources": {"CPU": cpu, "MemoryMB": memory}}
    ports = [{"Label": "http", "Value": port}] if port else None
    return {
        "Name": "g", "Count": count, "Tasks": [task], "EphemeralDisk": {"SizeMB": 300},
        "Networks": [{"Mode": "bridge", "ReservedPorts": ports, "DynamicPorts": None}], **more,
    }  # fmt: skip


def job(name: str = "gvfx-api", *groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"ID": name, "Name": name, "Type": "service", "TaskGroups": list(groups or [group()]), **more}


@pytest.mark.parametrize(
    "change",
    [
        {"Status": "down"},
        {"SchedulingEligibility": "ineligible"},
        {"DrainStrategy": {"Deadline": 1}},
        {"Datacenter": "dc2"},
        {"NodePool": "other"},
        {"Drivers": {"docker": {"Detected": True, "Healthy": False}}},
        {"Drivers": {}},
        {"Meta": {"role": "witness"}},
    ],
)
def test_where_a_job_may_not_run(change: dict[str, Any]) -> None:
    a_job = job(Datacenters=["dc1"], Constraints=[constraint("${meta.role}", "!=", "witness")])
    assert placement.obstacles(a_job, a_job["TaskGroups"][0], NODE) == []
    assert placement.obstacles(a_job, a_job["TaskGroups"][0], {**NODE, **change})


def test_volumes_decide_too() -> None:
    wanted = {"v": {"Type": "host", "Source": "gvfx-postgres", "ReadOnly": False}}
    a_job = job("gvfx-postgres", group(Volumes=wanted))
    here, there, sealed = (
        NODE,
        node("c2", "100.64.0.6"),
        {**NODE, "HostVolumes": {"gvfx-postgres": {"ReadOnly": True}}},
    )
    assert placement.eligible(a_job, a_job["TaskGroups"][0], [here, there, sealed]) == ["c1"]


def found(nodes: tuple[str, ...], **more: Any) -> Eligibility:
    values: dict[str, Any] = {"without_volumes": ("c1", "c2"), "with_data": (), "copies": 1, **more}
    return Eligibility("gvfx-postgres", "g", nodes, **values)


def test_two_nodes_or_the_documented_exception() -> None:
    assert placement.judge_eligibility([found(("c1", "c2"))]) == Findings()
    assert placement.judge_eligibility([found(("c1",))]).broken
    assert placement.judge_eligibility([found(())]).broken
    assert placement.judge_eligibility([found(("c1", "c2"), copies=3)]).broken
    # Its data is on one node only.
    assert placement.judge_eligibility([found(("c1",), with_data=("c1",))]) == Findings()
    # Its data is on two, one of which may not have it: that is not the volume's doing.
    assert placement.judge_eligibility([found(("c1",), with_data=("c1", "c2"))]).broken
    # Nowhere else could it run anyway.
    assert placement.judge_eligibility([found(("c1",), with_data=("c1",), without_volumes=("c1",))]).broken


def test_the_schedulers_word_counts() -> None:
    ours = [found(("c1", "c2"))]
    said = {("gvfx-postgres", "c1"): True, ("gvfx-postgres", "c2"): False}
    assert placement.by_scheduler(ours, said)[0].nodes == ("c1",)
    assert placement.by_scheduler(ours, {})[0].nodes == ("c1", "c2")
    assert placement.judge_plans(ours, said) == Findings()
    assert placement.judge_plans(ours, {("gvfx-postgres", "c3"): True}).missing


def test_a_job_for_a_plan_asks_for_next_to_nothing_on_one_node() -> None:
    a_job = job("gvfx-worker-egress-check", group(3, port=8787), Type="sysbatch", Constraints=None)
    asked = placement.on_one_node(a_job, NODE)
    (its,) = asked["TaskGroups"]
    assert asked["ID"] != a_job["ID"] and asked["Type"] == "batch" and its["Count"] == 1
    assert asked["Constraints"] == [constraint("${node.unique.id}", "=", NODE["ID"])]
    assert its["Networks"][0]["ReservedPorts"] is None
    assert its["Networks"][0]["DynamicPorts"] == [{"Label": "http", "Value": 0}]
    assert its["Tasks"][0]["Resources"]["MemoryMB"] == 10
    assert a_job["TaskGroups"][0]["Count"] == 3, "the job itself was changed"


def test_what_a_copy_takes() -> None:
    """The dearest of three stages; a sidecar of the first spans two."""

    def task(cpu: int, hook: str = "", *, sidecar: bool = False) -> dict[str, Any]:
        lifecycle = {"Hook": hook, "Sidecar": sidecar} if hook else None
        return {"Driver": "docker", "Lifecycle": lifecycle, "Resources": {"CPU": cpu, "MemoryMB": 10 * cpu}}

    tasks = [
        task(100, "prestart"),
        task(20, "prestart", sidecar=True),
        task(30),
        task(5, "poststart"),
        task(7, "poststop"),
    ]
    need = jobs.need(group(port=8787, Tasks=tasks))
    assert need == Need(120, 1200, 300, frozenset({8787}))
    assert jobs.need(group(Tasks=[*tasks, task(200)])).cpu == 255
    assert jobs.need(group(Tasks=[*tasks, task(900, "poststop")])).cpu == 907


def test_room_is_what_others_leave() -> None:
    held = {
        "Tasks": {"t": {"Cpu": {"CpuShares": 500}, "Memory": {"MemoryMB": 700}}},
        "Shared": {"DiskMB": 50, "Ports": [{"Value": 9}]},
    }
    others = [
        {"JobID": "monitoring", "ClientStatus": "running", "AllocatedResources": held},
        {"JobID": "monitoring", "ClientStatus": "complete", "AllocatedResources": held},
        {"JobID": "gvfx-api", "ClientStatus": "running", "AllocatedResources": held},
    ]
    kept = {
        **NODE,
        "ReservedResources": {"Cpu": {"CpuShares": 100}, "Memory": {"MemoryMB": 200}, "Disk": {"DiskMB": 1}},
    }
    assert placement.room(kept, others, ["gvfx-api"]) == Room("c1", 5400, 5100, 59949, frozenset({9}))


def one(label: str, nodes: str = "ab", memory: int = 10, port: int = 0, *, alone: bool = False) -> Copy:
    return Copy(label, Need(1, memory, 1, frozenset({port} if port else ())), frozenset(nodes), alone)


def place(name: str, memory: int = 100) -> Room:
    return Room(name, 1000, memory, 1000)


def test_room_with_any_one_node_gone() -> None:
    wanted = [one("api", memory=40), one("api", memory=40), one("db", memory=20)]
    assert placement.judge_room(wanted, [place("a"), place("b")], []) == Findings()
    assert (
        "without a there is no room"
        in placement.judge_room(wanted, [place("a"), place("b", 90)], []).broken[0]
    )
    everywhere = placement.judge_room([one("big", memory=200)], [place("a"), place("b")], [])
    assert "with every node" in everywhere.broken[0]
    # Two copies that may not share a node need two nodes that are left.
    apart = [one("api", "abc", alone=True), one("api", "abc", alone=True)]
    assert placement.judge_room(apart, [place("a"), place("b"), place("c")], []) == Findings()
    assert placement.judge_room(apart, [place("a"), place("b")], []).broken
    # The documented exception goes with its node.
    pinned = [one("db", "a")]
    assert placement.judge_room(pinned, [place("a"), place("b")], ["db"]) == Findings()
    assert placement.judge_room(pinned, [place("a"), place("b")], []).broken


def test_ports_are_held_once_on_a_node() -> None:
    wanted = [one("x", port=80), one("y", port=80)]
    assert placement.unplaced(wanted, [place("a"), place("b")]) == []
    assert placement.unplaced(wanted, [place("a")])
    assert placement.unplaced([one("x", "a", port=80)], [Room("a", 9, 99, 9, frozenset({80}))]) == ["x"]


def possible(wanted: list[Copy], rooms: list[Room]) -> bool:
    """Every assignment tried in turn."""
    for chosen in itertools.product(rooms, repeat=len(wanted)):
        held: dict[str, list[Copy]] = {}
        for copy, where in zip(wanted, chosen, strict=True):
            there = held.setdefault(where.name, [])
            if where.name not in copy.nodes or not placement._fits(copy, where, there, where.ports):
                break
            there.append(copy)
        else:
            return True
    return False


COPIES = st.builds(
    one,
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from(["a", "b", "c", "ab", "bc", "abc"]),
    st.integers(10, 60),
    st.sampled_from([0, 0, 80]),
    alone=st.booleans(),
)


@given(st.lists(COPIES, max_size=6), st.lists(st.integers(30, 110), min_size=1, max_size=3))
def test_the_search_finds_a_place_exactly_when_there_is_one(wanted: list[Copy], sizes: list[int]) -> None:
    rooms = [place(name, memory) for name, memory in zip("abc", sizes, strict=False)]
    assert (placement.unplaced(wanted, rooms) == []) == possible(wanted, rooms)


@given(st.integers(0, 3), st.integers(0, 30), st.integers(0, 30))
def test_ranges_of_versions(major: int, minor: int, patch: int) -> None:
    text = f"{major}.{minor}.{patch}"
    assert placement.in_range(text, f"= {text}") and placement.in_range(f"v{text}", f">= {text}, <= {text}")
    assert not placement.in_range(text, f"> {text}") and not placement.in_range(text, f"!= {text}")
    assert placement.in_range(f"{text}-rc.1", f"< {text}")
    assert placement.in_range(f"{major}.{minor + 1}.0", f"~> {major}.{minor}")
    assert not placement.in_range(f"{major + 1}.0.0", f"~> {major}.{minor}")
    assert not placement.in_range("unknown", f">= {text}")
