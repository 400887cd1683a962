"""The seeded defects of phase 4 that act while tests run: when they strike, and that they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import hcl2
import pytest

from acceptance import test_phase_4_traffic_switch as phase4
from drills.defects import catalogue, observation
from drills.defects.defect import Defect
from fixtures.errors import Unknown
from fixtures.faults import LinkCut, TargetControl
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory
from fixtures.rollout import egress
from fixtures.target import names
from fixtures.target.capabilities import Completed
from fixtures.target.options import DEPLOY_DIR
from fixtures.target.target import Target


def wait(condition: Callable[[], bool]) -> None:
    assert eventually("it", condition, bool, within=10, record=InMemory(), every=0.02).met


@pytest.mark.parametrize("defect", observation.DEFECTS, ids=lambda one: one.id)
def test_a_defect_asks_tests_that_exist_and_decide_its_rules(defect: Defect) -> None:
    """pytest's -k sees file and function names."""
    chosen = set()
    for name in dir(phase4):
        if name.startswith("test_"):
            words = f"test_phase_4_traffic_switch.py {name}"
            terms = {
                word: word in words for word in ("phase_4", "users", "trigger", "legacy_worker_ingesting")
            }
            if eval(defect.only, {"__builtins__": {}}, terms):  # noqa: S307 - an expression of our own
                chosen |= {mark.args[0] for mark in getattr(phase4, name).pytestmark if mark.name == "rule"}
    assert defect.expected_red | defect.tolerated <= chosen | {"P4.1"}
    assert defect.expected_red <= chosen


@pytest.mark.parametrize("defect", [one for one in observation.DEFECTS if one.jobs], ids=lambda one: one.id)
def test_a_changed_job_is_a_spec_and_its_variable_exists(defect: Defect) -> None:
    for job, change in defect.jobs.items():
        text = (DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8")
        if change.mutate is not None:
            hcl2.loads(change.mutate(text))
        assert change.override is not None
        for name in change.override({}):
            assert f'variable "{name}"' in text


class World:
    """Hosts that keep which of them are cut off, a store, a job and a legacy worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: list[dict[str, str]] = []
        self.cut: set[str] = set()
        self.stop = False
        self.started = 0
        self.undoes = self.rolled_out = True
        self.hosts = SimpleNamespace(run=self.run, names=lambda role=None: ["exit1", "exit2"])
        self.power = SimpleNamespace(host_state=lambda host: "running")
        self.tailnet = SimpleNamespace(
            exits=lambda: [SimpleNamespace(name="exit1"), SimpleNamespace(name="exit2")]
        )
        self.nomad = SimpleNamespace(
            job=lambda name: {"Stop": self.stop},
            jobs=lambda: [{"ID": names.WORKER_JOB}] if self.rolled_out else [],
        )
        self.legacy = SimpleNamespace(start=self._start)

    def convex(self) -> Any:
        return SimpleNamespace(rows=lambda table: self.rows)

    def _start(self) -> None:
        self.started += 1

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        script = argv[-1]
        with self.lock:
            if "chain" in script:
                self.cut.add(host)
            elif "delete" in script and self.undoes:
                self.cut.discard(host)
            return Completed(0, "table" if host in self.cut and "delete" not in script else "", "")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(egress, "underlay_of_others", lambda target, host: ("10.77.0.1",))
    return World()


def test_exits_go_with_the_first_look_and_come_back(world: World) -> None:
    with catalogue.BY_ID["exits-gone-while-observed"].during(cast("Target", world)):
        assert world.cut == set()
        world.rows = [{"marker": "x"}]
        wait(lambda: world.cut == {"exit1", "exit2"})
    assert world.cut == set()


def test_exits_stay_when_nobody_observes(world: World) -> None:
    with catalogue.BY_ID["exits-gone-while-observed"].during(cast("Target", world)):
        pass
    assert world.cut == set()


def test_exits_that_stay_cut_off_stop_the_matrix(world: World) -> None:
    world.rows, world.undoes = [{"marker": "x"}], False
    with (
        pytest.raises(Unknown, match="still cut off"),
        catalogue.BY_ID["exits-gone-while-observed"].during(cast("Target", world)),
    ):
        wait(lambda: world.cut == {"exit1", "exit2"})


def test_the_cut_is_one_that_ends_by_itself() -> None:
    assert LinkCut("exit1", ("10.77.0.1",), at_most=observation.LIFETIME).at_most > 0


def test_the_legacy_worker_starts_once_for_each_stop(world: World) -> None:
    with catalogue.BY_ID["legacy-before-the-stop"].during(cast("Target", world)):
        for expected in (1, 2):
            world.stop = True
            wait(lambda expected=expected: world.started == expected)  # type: ignore[misc]
            world.stop = False
            seen = threading.Event()
            world.nomad.job = lambda name, seen=seen: seen.set() or {"Stop": world.stop}
            assert seen.wait(5)
            seen.clear()
            assert seen.wait(5)
    assert world.started == 2


def test_a_worker_that_does_not_come_back_stops_the_matrix(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready(target: Target) -> None:
        raise AssertionError("the worker runs in 0 allocations")

    monkeypatch.setattr(egress, "ready", ready)
    clean = catalogue.BY_ID["exits-gone-while-observed"].clean
    assert clean is not None
    with pytest.raises(Unknown, match="0 allocations"):
        clean(cast("Target", world))


def test_a_worker_that_was_never_deployed_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "ready", lambda target: pytest.fail("asked"))
    world.rolled_out = False
    observation._worker_is_back(cast("Target", world))


def test_another_process_gives_the_exits_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "ready", lambda target: None)
    for cut in observation._cuts(cast("Target", world)):
        cut.apply(TargetControl(cast("Target", world)))
    assert world.cut == {"exit1", "exit2"}
    observation._worker_is_back(cast("Target", world))
    assert world.cut == set()
