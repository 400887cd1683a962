"""The seeded defects of the control plane: their specs are specs, and what they change at run time they change back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hcl2
import pytest

from drills.defects import control_plane
from drills.defects.defect import Defect
from fixtures.errors import Refused, UndoError
from fixtures.readiness import jobs, placement
from fixtures.target.capabilities import Completed
from fixtures.target.options import DEPLOY_DIR
from tests.readiness.recorded import node

MUTATED = [pytest.param(defect, job, id=defect.id) for defect in control_plane.DEFECTS for job in defect.jobs]


@pytest.mark.parametrize(("defect", "job"), MUTATED)
def test_a_changed_spec_is_a_spec(defect: Defect, job: str) -> None:
    mutate = defect.jobs[job].mutate
    assert mutate is not None
    text = Path(DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8")
    assert len(hcl2.loads(mutate(text))["job"]) == 1


class Headscale:
    """A tailnet of two nodes, and the host of its command line."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.tags = {"exit1": ["tag:gvfx-exit"], "s3": ["tag:gvfx-server", "tag:gvfx-witness"]}
        self.said: list[list[str]] = []
        self._deaf = deaf
        self.tailnet = self.hosts = self

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"id": n, "name": name, "forced_tags": tags} for n, (name, tags) in enumerate(self.tags.items())
        ]

    def cli(self) -> tuple[str, tuple[str, ...]]:
        return "ctl", ("headscale",)

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        self.said.append(argv)
        if not self._deaf:
            name = list(self.tags)[int(argv[argv.index("-i") + 1])]
            self.tags[name] = argv[argv.index("-t") + 1].split(",")
        return Completed(0, "{}", "")


def test_tags_are_added_and_put_back() -> None:
    target = Headscale()
    added = frozenset({"tag:gvfx-client"})
    with (
        pytest.raises(KeyboardInterrupt),
        control_plane._with_tags(target, "exit1", added, frozenset()),  # type: ignore[arg-type]
    ):
        assert target.tags["exit1"] == ["tag:gvfx-client", "tag:gvfx-exit"]
        raise KeyboardInterrupt
    assert target.tags["exit1"] == ["tag:gvfx-exit"]
    with control_plane._with_tags(target, "s3", frozenset(), frozenset({"tag:gvfx-witness"})):  # type: ignore[arg-type]
        assert target.tags["s3"] == ["tag:gvfx-server"]
    assert target.tags["s3"] == ["tag:gvfx-server", "tag:gvfx-witness"]


def test_a_change_that_does_not_take_hold_is_not_seeded() -> None:
    for target, name, error in ((Headscale(deaf=True), "exit1", UndoError), (Headscale(), "gone", Refused)):
        with (
            pytest.raises(error),
            control_plane._with_tags(target, name, frozenset({"tag:gvfx-client"}), frozenset()),  # type: ignore[arg-type]
        ):
            pass


def test_a_witness_among_the_app_nodes_leaves_the_stores_one_node() -> None:
    """What P0.9 is expected to see of the defect: no exception for a volume that both nodes have."""
    volume = {"gvfx-postgres": {"Path": "/srv", "ReadOnly": False}}
    nodes = [node(name, f"100.64.0.{n}", HostVolumes=volume) for n, name in enumerate(("c1", "c2"), 5)]
    nodes += [node(name, f"100.64.0.{n}") for n, name in enumerate(("c3", "c4"), 7)]
    group = {
        "Name": "postgres", "Count": 1, "Tasks": [{"Driver": "docker", "Resources": {"CPU": 1, "MemoryMB": 1}}],
        "Volumes": {"data": {"Type": "host", "Source": "gvfx-postgres", "ReadOnly": False}},
    }  # fmt: skip
    constraint = {"LTarget": "${meta.role}", "Operand": "!=", "RTarget": "witness"}
    job: jobs.Record = {"ID": "gvfx-postgres", "TaskGroups": [group], "Constraints": [constraint]}
    assert not placement.judge_eligibility(placement.eligibility(job, nodes)).broken
    nodes[1] = {**nodes[1], "Meta": {"role": "witness"}}
    assert placement.judge_eligibility(placement.eligibility(job, nodes)).broken
