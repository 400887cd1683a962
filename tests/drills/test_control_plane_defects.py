"""The seeded defects of the control plane: their specs are specs, and what they change at run time they change back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hcl2
import pytest

from drills.defects import control_plane
from drills.defects.defect import Defect
from fixtures.errors import Refused, UndoError, Unknown
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory
from fixtures.readiness import jobs, leaving, placement
from fixtures.readiness.findings import Findings
from fixtures.rehearsal.tailnet import policy
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


MOUNT = """#!/bin/sh
# Puts a file in the place of another, and back, and keeps the table of it.
case "$0" in
  *umount) mv "$1.below" "$1"; : >@DIR@/mounts ;;
  *) cp "$3" "$3.below"; cp "$2" "$3"; echo "overlay $3 ext4 rw" >@DIR@/mounts ;;
esac
"""
# No shell: one that was started under nohup may not trap what is ignored.
CONTROL = """
import os, pathlib, signal, sys
here = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGHUP, lambda *_: (here / "reloads").open("a").write("reloaded\\n"))
(here / "headscale.pid").write_text(str(os.getpid()))
while True:
    signal.pause()
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Path]:
    """A directory in the place of the control server's host, with a server that counts its reloads."""
    for name in ("mount", "umount"):
        tool = tmp_path / name
        tool.write_text(MOUNT.replace("@DIR@", str(tmp_path)))
        tool.chmod(0o755)
    (tmp_path / "mounts").touch()
    (tmp_path / "policy.json").write_text(json.dumps(policy(["tag:gvfx-exit"])))
    server = subprocess.Popen([sys.executable, "-c", CONTROL, str(tmp_path)])
    pid = tmp_path / "headscale.pid"
    eventually(
        "it runs", lambda: pid.exists() and pid.read_text(), bool, within=10, record=InMemory()
    ).known()
    yield tmp_path
    server.kill()
    server.wait()


def on_control(directory: Path, script: str, *words: str) -> None:
    for name in ("/etc/host/policy.json", "/run/gvfx-defect.policy", "/run/headscale.pid", "/proc/mounts"):
        script = script.replace(name, str(directory / Path(name).name))
    path = f"{directory}:/usr/bin:/bin"
    subprocess.run(["sh", "-c", script, "sh", *words], check=True, env={"PATH": path})


def reloads(directory: Path, wanted: int) -> bool:
    def count() -> int:
        file = directory / "reloads"
        return len(file.read_text().split()) if file.exists() else 0

    return eventually(
        "reloads", count, lambda seen: seen == wanted, within=10, record=InMemory(), every=0.02
    ).met


def test_the_policy_is_widened_by_one_rule_and_given_back(control: Path) -> None:
    file = control / "policy.json"
    before = file.read_text()
    on_control(control, control_plane.WIDEN, control_plane.EVERYBODY)
    assert reloads(control, 1)
    widened, own = json.loads(file.read_text()), json.loads(before)
    assert widened["acls"][:-1] == own["acls"] and {**widened, "acls": own["acls"]} == own
    assert widened["acls"][-1] == {"action": "accept", "src": ["*"], "dst": ["autogroup:internet:*"]}
    on_control(control, control_plane.NARROW)
    assert reloads(control, 2)
    assert file.read_text() == before and not (control / "gvfx-defect.policy").exists()
    # What was never widened is narrowed all the same.
    on_control(control, control_plane.NARROW)
    assert reloads(control, 3) and file.read_text() == before


class Exits(Headscale):
    """Two exits whose filters follow the policy, or do not."""

    def __init__(self, *, heard: bool = True, returns: bool = True) -> None:
        super().__init__()
        self.wide, self._heard, self._returns = False, heard, returns
        self.record = InMemory()
        self.config = SimpleNamespace(gvfx_tailnet_cidr="100.64.0.0/10")

    def nodes(self) -> list[dict[str, Any]]:
        return [{**one, "ip_addresses": [f"100.64.0.{one['id']}"]} for one in super().nodes()]

    def names(self, role: str) -> list[str]:
        return ["exit1", "exit2"]

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if argv[0] == "curl":
            rules = [{"SrcIPs": ["0.0.0.0/0"], "DstPorts": [{"IP": "8.0.0.0/7"}]}] if self.wide else []
            return Completed(0, json.dumps(rules), "")
        assert host == "ctl"
        if argv[2] == control_plane.WIDEN:
            self.wide = self._heard
        elif self._returns:
            self.wide = False
        return Completed(0, "", "")


def test_everybody_may_leave_for_as_long_as_the_exits_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "PROPAGATION", 0.0)
    target = Exits()
    with control_plane._everybody_may_leave(target):  # type: ignore[arg-type]
        assert leaving.inspect(target)[0].broken  # type: ignore[arg-type]
    assert leaving.inspect(target)[0] == Findings()  # type: ignore[arg-type]
    for world, error in ((Exits(heard=False), Unknown), (Exits(returns=False), UndoError)):
        with pytest.raises(error), control_plane._everybody_may_leave(world):  # type: ignore[arg-type]
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
