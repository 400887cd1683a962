"""Rules of T7 against a pretend cluster: what turns each of them red."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from acceptance import test_7_drains as t7
from fixtures.errors import Unknown
from fixtures.faults import Journal, NodeDrain
from fixtures.observe import eventually as waiting
from fixtures.observe.recording import InMemory
from fixtures.rollout.drains import app_node, surveys
from fixtures.rollout.drains.surveys import Footprint
from fixtures.target import names
from tests.faults.conftest import FakeTime
from tests.rollout.cluster import Asker, Cluster, Control, Pretend

SERVICES = [job.id for job in names.SERVICES]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(waiting, "time", fake)
    return fake


@pytest.fixture
def pretend() -> Pretend:
    return Pretend(Cluster())


@pytest.fixture
def faults(tmp_path: Path, pretend: Pretend) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journals", "run", Control(pretend.cluster), InMemory())
    yield journal
    journal.close()


# -- an app node ------------------------------------------------------------------------------------------------


def emptied(pretend: Pretend, faults: Journal, asker: Asker) -> dict[str, Any]:
    """T7.1, after a drain of the app node in which the API was asked by this one."""
    seen = surveys.steady(pretend.target, SERVICES)
    node = app_node.to_drain(seen)
    drain = app_node.drain_app_node(pretend.target, faults, [], seen, node, asker)
    figures: dict[str, Any] = {}
    drill = cast("t7.AppDrill", lambda: (drain, None, frozenset[str]()))
    t7.test_an_app_node_is_emptied_in_time(pretend.target, drill, figures.update)
    return figures


def test_a_drain_after_which_everything_works(pretend: Pretend, faults: Journal) -> None:
    figures = emptied(pretend, faults, Asker(pretend.cluster))
    assert figures["store_back_seconds"] >= figures["services_back_seconds"]
    assert figures["store_answers_ceiling"] == 18.0
    assert figures["unavoidable_seconds"] == figures["emptied_floor"] == 1.0
    assert names.CONVEX.id in figures["moved"]


def test_an_api_that_only_looks_well_is_seen(pretend: Pretend, faults: Journal) -> None:
    with pytest.raises(AssertionError, match=r"does not answer from its store: c2: status 500"):
        emptied(pretend, faults, Asker(pretend.cluster, problems={"c2": "status 500"}))


def test_an_api_that_nobody_asked_is_unknown(pretend: Pretend, faults: Journal) -> None:
    with pytest.raises(Unknown, match=r"no call to \['c2'\] has ended"):
        emptied(pretend, faults, Asker(pretend.cluster, unasked={"c2"}))


# -- nothing left behind ----------------------------------------------------------------------------------------


def drained(pretend: Pretend, faults: Journal, kept: list[Footprint], name: str, jobs: list[str]) -> None:
    """A node drained and given back, after the jobs of its rule were seen at rest."""
    seen = surveys.steady(pretend.target, jobs)
    with (
        surveys.footprint(pretend.target, kept, f"drain of {name}", seen),
        faults.applied(NodeDrain(name, f"id-{name}", 30.0)),
    ):
        pass


def leaves_nothing(pretend: Pretend, kept: list[Footprint]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    t7.test_a_drain_leaves_nothing_behind(pretend.target, kept, figures.update)
    return figures


def test_two_drains_that_leave_nothing(pretend: Pretend, faults: Journal) -> None:
    kept: list[Footprint] = []
    drained(pretend, faults, kept, "c1", SERVICES)
    drained(pretend, faults, kept, "c3", list(names.ALL_JOBS))
    assert leaves_nothing(pretend, kept)["jobs"] == len(names.ALL_JOBS)


def test_what_is_deployed_between_two_drains_is_seen_at_the_end(pretend: Pretend, faults: Journal) -> None:
    kept: list[Footprint] = []
    drained(pretend, faults, kept, "c1", SERVICES)
    pretend.cluster.versions[names.FRONTEND.id] = 1
    drained(pretend, faults, kept, "c3", list(names.ALL_JOBS))
    assert all(one.after and not surveys.changes(one.before, one.after) for one in kept)
    with pytest.raises(AssertionError, match=r"since the first drain: gvfx-frontend .*version=1"):
        leaves_nothing(pretend, kept)


def test_what_is_deployed_or_closed_after_the_last_drain_is_seen(pretend: Pretend, faults: Journal) -> None:
    kept: list[Footprint] = []
    drained(pretend, faults, kept, "c1", SERVICES)
    pretend.cluster.set_eligibility("id-c1", eligible=False)
    pretend.cluster.versions[names.RL.id] = 1
    with pytest.raises(
        AssertionError, match=r"since the first drain: eligibility of node c1 .*gvfx-rl-service"
    ):
        leaves_nothing(pretend, kept)


def test_the_worker_may_be_deployed_between_the_drains_by_its_phase(
    pretend: Pretend, faults: Journal
) -> None:
    kept: list[Footprint] = []
    drained(pretend, faults, kept, "c1", SERVICES)
    pretend.cluster.versions[names.WORKER_JOB] = 1
    assert leaves_nothing(pretend, kept)["jobs"] == len(SERVICES)
    drained(pretend, faults, kept, "c3", list(names.ALL_JOBS))
    leaves_nothing(pretend, kept)
    # From there on it is nobody's to change.
    pretend.cluster.versions[names.WORKER_JOB] = 2
    with pytest.raises(AssertionError, match=r"since the first drain: gvfx-worker .*version=2"):
        leaves_nothing(pretend, kept)
