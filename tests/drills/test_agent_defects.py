"""The witness's agent with other settings: the programs that restart it and give it its own back, run for real."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drills.defects import agents
from fixtures.errors import UndoError, Unknown
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory
from fixtures.readiness.acl import consul_rights
from fixtures.rehearsal.agents import CONSUL_POLICIES
from fixtures.target.capabilities import Completed
from fixtures.target.target import Target

AGENT = """#!/bin/sh
echo "$@" >>@DIR@/started
exec sleep 60
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A directory in the place of a host's own, with a unit that runs."""
    for name in ("run", "etc/host", "var/log/host", "opt/gvfx/bin"):
        (tmp_path / name).mkdir(parents=True)
    agent = tmp_path / "opt/gvfx/bin/consul"
    agent.write_text(AGENT.replace("@DIR@", str(tmp_path)))
    agent.chmod(0o755)
    (tmp_path / "etc/host/consul.json").write_text(json.dumps({"acl": {"enabled": True}, "data_dir": "x"}))
    unit = subprocess.Popen(["sleep", "60"])
    # Reaped as soon as it ends, as a host's init does.
    reaper = threading.Thread(target=unit.wait)
    reaper.start()
    (tmp_path / "run/consul.pid").write_text(str(unit.pid))
    yield tmp_path
    unit.kill()
    reaper.join()
    for one in (tmp_path / "run").glob("*.pid"):
        subprocess.run(["kill", one.read_text().strip()], check=False, capture_output=True)


def run(host: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    for name in ("run", "etc/host", "var/log/host", "opt/gvfx/bin"):
        script = script.replace(f"/{name}/", f"{host}/{name}/")
    script = script.replace("/opt/gvfx/bin:", f"{host}/opt/gvfx/bin:")
    return subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, text=True, check=False)


def alive(pid: int) -> bool:
    """Running, and no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_agent_is_restarted_with_one_setting_changed_and_given_its_own_back(host: Path) -> None:
    before = int((host / "run/consul.pid").read_text())
    done = run(host, agents.RESTART, "consul", ".encrypt_verify_incoming = false")
    assert done.returncode == 0, done.stderr
    changed = host / "run/gvfx-defect.consul.json"
    assert json.loads(changed.read_text()) == {
        "acl": {"enabled": True}, "data_dir": "x", "encrypt_verify_incoming": False,
    }  # fmt: skip
    assert changed.stat().st_mode & 0o077 == 0
    assert not alive(before) and (host / "run/hold.consul").exists()
    mark = host / "run/gvfx-defect.consul.pid"
    started = host / "started"
    assert eventually("it", started.exists, bool, within=10, record=InMemory(), every=0.02).met
    assert started.read_text() == f"agent -config={changed}\n"
    own = int(mark.read_text())
    assert alive(own)
    assert run(host, agents.UNDO, "consul").returncode == 0
    assert not alive(own)
    assert sorted(one.name for one in (host / "run").iterdir()) == ["consul.pid"]
    assert run(host, agents.UNDO, "consul").returncode == 0


@pytest.mark.parametrize("defect", agents.DEFECTS, ids=lambda one: one.id)
def test_each_change_is_one_that_jq_understands(defect: Any) -> None:
    said: list[list[str]] = []
    settings = json.dumps(
        {"tls": {"rpc": True}, "acl": {"tokens": {"agent": "a", "default": "d", "initial_management": "m"}}}
    )

    def on(host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        said.append(argv)
        return Completed(0, "", "")

    target = world(on, known=True)
    with defect.during(target):
        unit, change = next(argv for argv in said if argv[2] == agents.RESTART)[4:]
    done = subprocess.run(["jq", "-c", change], input=settings, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) != json.loads(settings)
    assert unit in defect.mutation.lower()
    assert any(argv[2] == agents.UNDO for argv in said)


def world(run: Any, *, known: bool) -> Target:
    def answer(host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        if argv[2] in agents._LEADER.values():
            return Completed(0, '"100.64.0.1:8300"' if known else '""', "")
        return cast("Completed", run(host, argv, timeout))

    return cast(
        "Target",
        SimpleNamespace(
            hosts=SimpleNamespace(
                names=lambda role: ["s3"], run=answer, tailnet_address=lambda host: "100.64.0.3"
            ),
            consul=SimpleNamespace(members=lambda: [{"Name": "s3", "Status": 1}]),
            nomad=SimpleNamespace(members=lambda: [{"Name": "s3.global", "Status": "alive"}]),
            record=InMemory(),
        ),
    )


def test_an_agent_that_does_not_come_back_is_no_defect_and_no_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "BACK", 0.0)
    entered = []
    with (
        pytest.raises(UndoError) as error,
        agents.witness_with("nomad", ".")(world(lambda *words: Completed(0, "", ""), known=False)),
    ):
        entered.append(1)
    assert not entered
    assert isinstance(error.value.__context__, Unknown)


def test_the_agents_own_token_writes_and_reads_nothing_that_a_stranger_is_asked() -> None:
    """Else the reads would show the defect, and no defect would need the writes of a stranger."""
    rules = CONSUL_POLICIES["agent"]
    assert consul_rights({"agent": rules})
    assert not [word for word in ("agent", "acl", "operator") if word in rules]


def test_the_settings_are_those_that_phase_0_asks_about() -> None:
    assert {rule for one in agents.DEFECTS for rule in one.expected_red} == {"P0.1", "P0.2", "P0.3"}
