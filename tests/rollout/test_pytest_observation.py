"""P4.2 itself, in inner sessions against a pretended target: whole, in pieces, and with options that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acceptance import test_phase_4_traffic_switch as phase4
from fixtures.rollout import pytest_observation

PLUGIN = """
import os, time, types
import pytest
from fixtures.rollout import observation
from fixtures.target import names
from tests.journals import journal_for
from tests.rollout.test_looks import World, run

CYCLE = 0.06
# More patience than so short a cycle would have, for machines that are busy.
observation.LATE_CYCLES = 100

class Live(World):
    def __init__(self):
        super().__init__()
        self.config.gvfx_observe_compression = 1.0
        environment = {"BINGX_MARKET_DATA_INTERVAL_MIN": str(CYCLE / 60)}
        task = {"Name": names.WORKER_TASK, "Env": environment}
        self.nomad.job = lambda job: {"ID": job, "TaskGroups": [{"Tasks": [task]}]}
        self.store.query = self.newest
        self.store.drops = os.environ.get("DROPS") == "yes"

    def newest(self, path, args):
        last = int(time.time() / CYCLE)
        rows = [run(f"lock-{n}", names.LOCK_FEED, n * CYCLE, n * CYCLE + 0.01) for n in range(last - 60, last)]
        return {"data": rows, "count": None}

@pytest.fixture(scope="session")
def target():
    return Live()

@pytest.fixture
def entries(target):
    return journal_for(target)

@pytest.fixture(scope="session")
def phase3():
    return types.SimpleNamespace(outcome=lambda step: types.SimpleNamespace(proven=lambda: None))
"""
SECOND = 1 / 3600


class Inner:
    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.monkeypatch = monkeypatch
        self.number = 0
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        pytester.makepyfile(pretend_target=PLUGIN)
        pytester.syspathinsert()
        marks = ["rule(id): x", "disruptive: x", *(f"phase{number}: x" for number in range(5))]
        pytester.makeini("[pytest]\nmarkers =\n" + "".join(f"    {line}\n" for line in marks))
        (pytester.path / "test_inner.py").write_text(Path(phase4.__file__).read_text())

    def run(self, *options: str) -> pytest.RunResult:
        self.number += 1
        plugins = ["fixtures.plugin", "pretend_target", "fixtures.rollout.pytest_observation"]
        words = [word for name in plugins for word in ("-p", name)]
        where = ("--run-dir", f"run-{self.number}")
        return self.pytester.runpytest_subprocess(*words, *where, "-k", "no_rollback_trigger", *options)

    @property
    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.pytester.path / f"run-{self.number}" / "verdict.json").read_text()
        )
        return found

    @property
    def rule(self) -> dict[str, Any]:
        (found,) = self.verdict["rules"]
        assert found["id"] == "P4.2"
        return dict(found)


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Inner:
    return Inner(pytester, monkeypatch)


FAST = ("--observe-compression", "86400")


def test_in_pieces_until_it_is_complete(inner: Inner) -> None:
    """A first piece is no verdict and says how to go on; the next one goes on."""
    kept = inner.pytester.path / "kept"
    first = inner.run(*FAST, "--observe-hours", str(0.5 * SECOND), "--observe-dir", "kept")
    assert first.ret == 2
    assert inner.rule["outcome"] == "unknown"
    assert f"--observe-dir {kept}" in inner.rule["messages"][0]
    observed = inner.rule["figures"]["observed_seconds"]
    assert observed < 2.0 == inner.rule["figures"]["required_seconds"]
    second = inner.run(*FAST, "--observe-dir", "kept")
    assert second.ret == 0, second.stdout.str()
    figures = inner.rule["figures"]
    assert (figures["compression"], figures["plan_hours"], figures["sessions"]) == (86400.0, 48.0, 2)
    assert figures["observed_seconds"] >= 2.0 and figures["cycles"] >= 20 and figures["fired"] == []
    # Of other length it is another observation.
    third = inner.run("--observe-compression", "43200", "--observe-dir", "kept")
    assert third.ret == 3
    assert "begun with required 2.0, compression 86400.0" in inner.rule["messages"][0]


def test_a_trigger_is_red_at_once_and_stays_red(inner: Inner) -> None:
    """Without a directory the looks are part of the run's evidence, and can still be gone on with."""
    inner.monkeypatch.setenv("DROPS", "yes")
    assert inner.run(*FAST).ret == 1
    assert "unresolved Convex write failures" in inner.rule["messages"][0]
    kept = inner.pytester.path / "run-1" / "observation"
    assert {one.name for one in kept.iterdir()} == {"observation.json", "looks.ndjson", "observer.lock"}
    inner.monkeypatch.setenv("DROPS", "no")
    assert inner.run(*FAST, "--observe-dir", str(kept)).ret == 1


@pytest.mark.parametrize(
    ("option", "sound", "wrong"),
    [
        ("--observe-hours", ("0.5", "48"), ("0", "-1", "nan", "inf", "x")),
        ("--observe-compression", ("1", "1440"), ("0.5", "nan", "inf", "")),
    ],
)
def test_options_that_make_no_sense_are_refused(
    option: str, sound: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_observation.pytest_addoption(parser)
    for text in sound:
        parsed = parser.parse_known_args([option, text])
        assert getattr(parsed, option.strip("-").replace("-", "_")) == float(text)
    for text in wrong:
        with pytest.raises((SystemExit, pytest.UsageError)):
            parser.parse_known_args([option, text])
