"""Commands on hosts and what is removed by run id, with a Docker that is a script."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import NotFound

from fixtures.errors import ProbeError, RehearsalError
from fixtures.rehearsal import machines
from fixtures.rehearsal.machines import Machines, thaw_below
from fixtures.rehearsal.state import CACHE_LABEL, LABEL, State


class Api:
    """The engine's objects by kind."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {"containers": [], "networks": [], "volumes": []}
        self.removed: list[str] = []
        self.paused: set[str] = set()

    def add(self, kind: str, name: str, run_id: str, **labels: str) -> None:
        self.objects[kind].append(
            {"Id": name, "Name": name, "State": "running", "Labels": {LABEL: run_id, **labels}}
        )

    def _of(self, kind: str, filters: dict[str, str]) -> list[dict[str, Any]]:
        name, _, value = filters["label"].partition("=")
        return [one for one in self.objects[kind] if not value or one["Labels"][name] == value]

    def containers(self, all: bool, filters: dict[str, str]) -> list[dict[str, Any]]:
        assert all
        return self._of("containers", filters)

    def networks(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return self._of("networks", filters)

    def volumes(self, filters: dict[str, str]) -> dict[str, Any]:
        # The engine says null, not an empty list.
        return {"Volumes": self._of("volumes", filters) or None}

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name not in [one["Id"] for one in self.objects["containers"]]:
            raise NotFound(name)
        return {"State": {"Paused": name in self.paused, "Running": True, "Pid": 7}}

    def unpause(self, name: str) -> None:
        self.paused.remove(name)

    def remove_container(self, name: str, v: bool, force: bool) -> None:
        assert v and force and name not in self.paused
        self._remove("containers", name)

    def remove_network(self, name: str) -> None:
        assert not self.objects["containers"] or self.objects["containers"][0]["Labels"][LABEL] != name[5:13]
        self._remove("networks", name)

    def remove_volume(self, name: str, force: bool) -> None:
        self._remove("volumes", name)

    def _remove(self, kind: str, name: str) -> None:
        self.objects[kind] = [one for one in self.objects[kind] if one["Id"] != name]
        self.removed.append(name)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    monkeypatch.setattr(machines, "engine", lambda: SimpleNamespace(api=found, close=lambda: None))
    return found


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that stand before the real ones on PATH."""
    path = tmp_path / "tools"
    path.mkdir()
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
    return path


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# -- commands --------------------------------------------------------------------------------------------


@pytest.fixture
def on_hosts(api: Api, tools: Path, state: State) -> Machines:
    """`docker exec NAME timeout N ARGV` runs ARGV here."""
    program(
        tools,
        "docker",
        '[ "$1" = exec ] && shift; [ "$1" = -i ] && shift; export HOST="$1"; shift; exec "$@"',
    )
    return Machines(state)


def test_a_command_runs_on_its_host_and_every_end_is_told(on_hosts: Machines, state: State) -> None:
    done = on_hosts.run("c1", ["sh", "-c", "echo $HOST; echo oops >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{state.container('c1')}\n", "oops\n")
    assert on_hosts.run("c1", ["cat"], stdin="given").stdout == "given"


def test_what_is_no_text_is_shown_all_the_same(on_hosts: Machines) -> None:
    assert on_hosts.run("c1", ["printf", r"a\377b"]).stdout == "a\ufffdb"


def test_a_command_that_hangs_is_no_answer(on_hosts: Machines) -> None:
    with pytest.raises(ProbeError, match="still running after 0 s"):
        on_hosts.run("c1", ["sleep", "10"], timeout=0.1)


@pytest.mark.parametrize(
    "why", ["Container x is not running", "Container x is paused", "No such container: x"]
)
def test_a_host_that_does_not_run_is_no_answer(tools: Path, api: Api, state: State, why: str) -> None:
    program(tools, "docker", f"echo 'Error response from daemon: {why}' >&2; exit 1")
    with pytest.raises(ProbeError, match=why) as error:
        Machines(state).run("c1", ["true"])
    assert error.value.thing == "host c1"
    assert error.value.next_command == "python -m fixtures.rehearsal shell c1"


def test_a_command_that_must_succeed(on_hosts: Machines) -> None:
    assert on_hosts.must("c1", ["echo", "yes"]) == "yes\n"
    with pytest.raises(RehearsalError, match="exit 4: because"):
        on_hosts.must("c1", ["sh", "-c", "echo because >&2; exit 4"])


def test_a_removed_host_is_stopped(api: Api, state: State) -> None:
    assert Machines(state).host_state("c1") == "stopped"
    api.add("containers", state.container("c1"), state.run_id, **{"gvfx.host": "c1"})
    assert Machines(state).host_state("c1") == "running"
    assert Machines(state).host_states() == {"c1": "running"}


# -- removing --------------------------------------------------------------------------------------------

RULES = """-P DOCKER-USER ACCEPT
-A DOCKER-USER -i gvu0000aaaa -o gvu0000aaaa -m comment --comment "gvfx.run:0000aaaa" -j ACCEPT
-A DOCKER-USER -i gvu1111bbbb -o gvu1111bbbb -m comment --comment gvfx.run:1111bbbb -j ACCEPT
-A DOCKER-USER -s 10.0.0.0/8 -m comment --comment "not ours: gvfx.run:0000aaaaa" -j DROP
-A DOCKER-USER -j RETURN"""


@pytest.fixture
def firewall(tools: Path, tmp_path: Path) -> Path:
    """Lists the rules above, and writes down what it is asked to delete."""
    calls = tmp_path / "iptables.calls"
    program(tools, "iptables", f"case $1 in -S) cat <<'R'\n{RULES}\nR\n;; *) echo \"$*\" >>{calls} ;; esac")
    return calls


def test_everything_of_a_run_goes_and_nothing_of_another(api: Api, firewall: Path, state: State) -> None:
    run, other = state.run_id, "1111bbbb"
    for run_id in (run, other):
        api.add("containers", f"gvfx-{run_id}-c1", run_id)
        api.add("networks", f"gvfx-{run_id}-u", run_id)
        api.add("volumes", f"volume-{run_id}", run_id)
    api.paused = {f"gvfx-{run}-c1"}
    removed = machines.remove(run)
    assert api.removed == [f"gvfx-{run}-c1", f"gvfx-{run}-u", f"volume-{run}"]
    assert [line.split()[0] for line in removed] == ["container", "network", "volume", "directory"]
    assert not state.directory.exists()
    assert machines.remove(run) == []
    assert set(machines.runs_on_engine()) == {other}


def test_only_the_rules_with_the_runs_own_mark_go(api: Api, firewall: Path) -> None:
    machines.remove("0000aaaa")
    expected = "-i gvu0000aaaa -o gvu0000aaaa -m comment --comment gvfx.run:0000aaaa -j ACCEPT"
    assert firewall.read_text() == f"-w -D DOCKER-USER {expected}\n"


def test_the_mark_that_is_written_is_the_mark_that_is_looked_for(tools: Path) -> None:
    written = " ".join(machines._rule("gvu0000aaaa", "0000aaaa"))
    program(tools, "iptables", f"echo '-A DOCKER-USER {written}'")
    assert machines._rules_of("0000aaaa") == [written.split()]
    assert machines._rules_of("0000aaa") == []


def test_a_rule_that_cannot_be_made_is_an_error(tools: Path) -> None:
    program(tools, "iptables", "echo 'iptables: No chain by that name.' >&2; exit 1")
    with pytest.raises(RehearsalError, match="No chain by that name"):
        machines._iptables("-I", "DOCKER-USER")


def test_runs_are_known_by_any_object_and_by_the_cache_they_name(api: Api, cache: Path) -> None:
    api.add("networks", "n", "0000aaaa")
    api.add("volumes", "v", "1111bbbb", **{CACHE_LABEL: "/other"})
    assert machines.runs_on_engine() == {"0000aaaa": str(cache), "1111bbbb": "/other"}


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
