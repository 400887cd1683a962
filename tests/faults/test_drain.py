"""Faults of nodes: what they refuse, what they undo, and that no description of them holds more than a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.errors import FaultError
from fixtures.faults import REGISTRY, Ineligible, Journal, NodeDrain, rebuild, sweep_all
from fixtures.faults.drain import NodeFault
from fixtures.observe.recording import InMemory

from .test_journal import CLEAN, abandon
from .world import World


def test_a_drained_node_is_eligible_again_afterwards(faults: Journal, world: World) -> None:
    with faults.applied(NodeDrain("h1", "n-h1", 30.0)):
        found = world.scheduler.node("n-h1")
        assert (found.draining, found.eligibility) == (True, "ineligible")
    assert world.picture() == CLEAN


def test_a_drain_that_came_to_its_end_leaves_the_eligibility_to_undo(faults: Journal, world: World) -> None:
    fault = NodeDrain("h1", "n-h1", 30.0)
    with faults.applied(fault):
        # What Nomad does when the last allocation has left.
        world.mark("h1", "closed", True)
        world.mark("h1", "draining", False)
        assert fault.residue(world) == "ready, ineligible"
    assert world.picture() == CLEAN


def test_other_nodes_may_be_closed_while_one_is_drained(faults: Journal, world: World) -> None:
    with faults.applied(Ineligible("h2", "n-h2")), faults.applied(NodeDrain("h1", "n-h1", 30.0)):
        assert [one.eligibility for one in world.scheduler.nodes()] == [
            "ineligible",
            "ineligible",
            "eligible",
        ]
    assert world.picture() == CLEAN


@pytest.mark.parametrize("mark", ["draining", "closed"])
@pytest.mark.parametrize(
    "fault", [NodeDrain("h1", "n-h1", 30.0), Ineligible("h1", "n-h1")], ids=lambda f: f.kind
)
def test_what_is_closed_already_is_not_ours(
    faults: Journal, world: World, mark: str, fault: NodeFault
) -> None:
    world.mark("h1", mark, True)
    with pytest.raises(FaultError, match="ready and eligible"):
        faults.begin(fault)
    assert world.marked("h1", mark)
    assert faults.open_faults == ()


def test_one_drain_at_a_time(faults: Journal, world: World) -> None:
    with faults.applied(NodeDrain("h1", "n-h1", 30.0)):
        with pytest.raises(FaultError, match="drain of h1"):
            faults.begin(NodeDrain("h2", "n-h2", 30.0))
        # Closing another one takes nothing away from what is under way.
        with faults.applied(Ineligible("h2", "n-h2")):
            pass
        assert world.scheduler.node("n-h1").draining
    assert world.picture() == CLEAN


def test_a_name_and_an_id_must_be_of_one_node(faults: Journal) -> None:
    with pytest.raises(FaultError, match="h1"):
        faults.begin(NodeDrain("h2", "n-h1", 30.0))


@pytest.mark.parametrize("deadline", [0.0, -1.0, float("inf"), float("nan")])
def test_a_drain_needs_a_time_to_leave_in(deadline: float) -> None:
    with pytest.raises(ValueError, match="no time"):
        NodeDrain("h1", "n-h1", deadline)


@pytest.mark.parametrize(
    "fault", [NodeDrain("h1", "n-h1", 30.0), Ineligible("h1", "n-h1")], ids=lambda f: f.kind
)
def test_the_next_session_opens_the_node_with_its_own_connection(
    tmp_path: Path, world: World, fault: NodeFault
) -> None:
    left = Journal(tmp_path / "journals", "killed", world, InMemory())
    left.begin(fault)
    abandon(left)
    written = left.path.read_text()
    assert set(json.loads(written.splitlines()[0])["fault"]) <= {"kind", "host", "id", "node", "deadline"}
    assert rebuild(fault.describe(), REGISTRY) == fault
    assert [one.id for one in sweep_all(tmp_path / "journals", REGISTRY, World(tmp_path / "world"))] == [
        fault.id
    ]
    assert world.picture() == CLEAN
