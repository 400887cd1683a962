"""The hosts as containers."""

from __future__ import annotations

from pathlib import Path

from fixtures.rehearsal.machines import thaw_below


def test_what_is_frozen_inside_a_container_is_thawed(tmp_path: Path) -> None:
    """Both hierarchies, and nothing of another container."""
    switches = {
        tmp_path / "freezer/docker/mine/docker/x/freezer.state": "THAWED",
        tmp_path / "freezer/docker/other/docker/x/freezer.state": "FROZEN",
        tmp_path / "system.slice/docker-mine.scope/docker/x/cgroup.freeze": "0",
        tmp_path / "system.slice/docker-other.scope/docker/x/cgroup.freeze": "1",
    }
    for switch in switches:
        switch.parent.mkdir(parents=True)
        switch.write_text("FROZEN" if switch.name == "freezer.state" else "1")
    thaw_below("mine", tmp_path)
    assert {switch: switch.read_text() for switch in switches} == switches
