"""The fixtures, in an inner session whose target is a pretend world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.faults import HostDown, Journal, journal_directory
from fixtures.observe.recording import InMemory
from fixtures.rollout.entries import ScratchRows

from .conftest import FakeTime
from .test_journal import CLEAN, abandon
from .world import World

PLUGIN = """
import os, types
from pathlib import Path
import pytest
from fixtures.errors import Unknown
from tests.faults.world import World

class Store:
    def __init__(self):
        self.row = Path(os.environ["WORLD"], "row")
    def delete(self, table, **equal):
        self.row.unlink(missing_ok=True)
        return 1
    def rows(self, table, **equal):
        return [1] if self.row.exists() else []

class Pretended:
    label = "pretend"
    def __init__(self):
        self.world = World(Path(os.environ["WORLD"]))
        self.nomad, self.convex = self.world.scheduler, Store
    def can(self, name):
        return os.environ.get("ABLE", "yes") == "yes"
    @property
    def hosts(self):
        if not self.can("hosts"):
            raise Unknown("hosts of pretend", "out of reach", "within reach")
        return self.world
    power = hosts

@pytest.fixture(scope="session")
def target(event_log):
    return Pretended()
"""
HEAD = "import pytest\nfrom fixtures.faults import HostDown, HostFreeze\n"


class Inner:
    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, memory: Path) -> None:
        self._pytester = pytester
        self.directory = memory / "world"
        self.world = World(self.directory)
        monkeypatch.setenv("WORLD", str(memory / "world"))
        monkeypatch.setenv("GVFX_CACHE", str(memory / "cache"))
        self.journals = journal_directory("pretend")
        pytester.makepyfile(pretend_target=PLUGIN)
        pytester.syspathinsert()
        pytester.makeini(
            "[pytest]\nmarkers =\n  rule(id): x\n" + "".join(f"  phase{n}: x\n" for n in range(5))
        )

    def run(self, body: str) -> pytest.RunResult:
        self._pytester.makepyfile(test_inner=HEAD + body)
        plugins = ["fixtures.plugin", "pretend_target", "fixtures.faults.pytest_faults", "no:allure_pytest"]
        options = [word for name in plugins for word in ("-p", name)]
        return self._pytester.runpytest_inprocess(*options, "--run-dir", "evidence")

    @property
    def verdict(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self._pytester.path / "evidence" / "verdict.json").read_text())
        return found


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, memory: Path) -> Inner:
    return Inner(pytester, monkeypatch, memory)


def rule(id_: str, body: str, fixtures: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    name = id_.replace(".", "_")
    return f'@pytest.mark.rule("{id_}")\ndef test_{name}({fixtures}, measure):\n    measure(n=1)\n{lines}\n'


def test_what_a_test_leaves_standing_is_undone_before_the_next(inner: Inner) -> None:
    first = 'faults.begin(HostDown("h1"))\nfaults.begin(HostFreeze("h2"))\nassert 0, "rule"'
    second = 'assert target.power.host_state("h1") == target.power.host_state("h2") == "running"'
    result = inner.run(rule("T1.1", first, "faults") + rule("T1.2", second, "target"))
    result.assert_outcomes(passed=1, failed=1)
    assert inner.verdict["problems"] == []
    assert inner.world.picture() == CLEAN
    assert list(inner.journals.iterdir()) == []


def test_an_undo_that_fails_is_an_error_and_forbids_go(inner: Inner, clock: FakeTime) -> None:
    # Started by nobody any more: what `start_host` does is gone.
    body = 'faults.begin(HostDown("h1", id="x1"))\ntarget.power.start_host = lambda host: None'
    result = inner.run(rule("T1.1", body, "faults, target"))
    # One error of the test that left it, one of the session's end, which tried once more.
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*undo failed: host-down on h1 (x1)*"])
    assert result.ret == 2
    assert inner.verdict["problems"] == ["host-down on h1 (x1): begun, and never verified undone"]
    assert len(list(inner.journals.iterdir())) == 1


def test_the_next_session_heals_the_target_before_anyone_looks(inner: Inner) -> None:
    left = Journal(inner.journals, "killed", inner.world, InMemory())
    left.begin(HostDown("h1"))
    abandon(left)
    result = inner.run(rule("T1.1", 'assert target.power.host_state("h1") == "running"', "target"))
    assert result.ret == 0
    assert inner.world.picture() == CLEAN
    assert list(inner.journals.iterdir()) == []


def test_rows_are_swept_where_nothing_else_can_be(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLE", "no")
    row = inner.directory / "row"
    row.touch()
    left = Journal(inner.journals, "killed", inner.world, InMemory())
    left.begin(ScratchRows("gvfx-convex", "ops_alerts", "id", ("x",)))
    abandon(left)
    body = 'import os\nfrom pathlib import Path\nassert not Path(os.environ["WORLD"], "row").exists()'
    assert inner.run(rule("T1.1", body, "target, entries")).ret == 0
    assert not row.exists() and list(inner.journals.iterdir()) == []


def test_faults_need_hosts_and_entries_do_not(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLE", "no")
    result = inner.run(rule("T1.1", "", "entries") + rule("T1.2", "", "faults"))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*hosts of pretend*"])


def test_a_target_that_can_only_be_looked_at_is_not_swept(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABLE", "no")
    left = Journal(inner.journals, "killed", inner.world, InMemory())
    left.begin(HostDown("h1"))
    abandon(left)
    assert inner.run(rule("T1.1", "", "target")).ret == 0
    assert inner.world.host_state("h1") == "stopped"
