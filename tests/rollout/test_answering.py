"""Whether the API works again: every address of it, as those saw it who called it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe import eventually as waiting
from fixtures.observe.caller import Ended
from fixtures.observe.nomad_types import Service
from fixtures.rollout import answering
from fixtures.target import deadlines, names
from tests.faults.conftest import FakeTime
from tests.rollout.cluster import Cluster, Pretend

BEGUN = 100.0


@dataclass
class Asked:
    """Calls at c1 and c2, each sent now: how they end is by the clock."""

    clock: FakeTime
    good_from: Mapping[str, float] = field(default_factory=dict)
    """By address, from when on it answers well; one left out is never called."""
    sent: float | None = None
    patience: float = 3.0

    def latest(self) -> dict[str, Ended]:
        now = self.clock.now
        return {
            address: Ended(
                now if self.sent is None else self.sent, "" if now >= at else "status 500, 21 bytes"
            )
            for address, at in self.good_from.items()
        }


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    fake.now = BEGUN
    monkeypatch.setattr(waiting, "time", fake)
    monkeypatch.setattr(answering, "time", fake)
    return fake


@pytest.fixture
def pretend() -> Pretend:
    return Pretend(Cluster())


def test_every_address_has_to_answer_and_how_long_it_took_is_told(pretend: Pretend, clock: FakeTime) -> None:
    asked = Asked(clock, {"c1": 0.0, "c2": BEGUN + 4.0, "elsewhere": 1e9})
    found = answering.awaited(pretend.target, asked)
    assert answering.proven(found) == pytest.approx(4.0, abs=0.5)
    assert found.within == deadlines.SERVICE_VISIBLE + asked.patience


def test_an_address_that_never_answers_well_again_is_broken(pretend: Pretend, clock: FakeTime) -> None:
    found = answering.awaited(pretend.target, Asked(clock, {"c1": 1e9, "c2": 0.0}))
    with pytest.raises(AssertionError, match=r"after 18\.0 s .*: c1: status 500, 21 bytes$"):
        answering.proven(found)
    # As the state before a drain it proves nothing.
    with pytest.raises(Unknown):
        found.known()


def test_one_that_answers_too_late_is_broken(pretend: Pretend, clock: FakeTime) -> None:
    found = answering.awaited(pretend.target, Asked(clock, {"c1": 0.0, "c2": BEGUN + 19.0}))
    with pytest.raises(AssertionError, match="c2: status 500"):
        answering.proven(found)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"good_from": {"c1": 0.0}}, id="nobody called c2"),
        pytest.param({"good_from": {"c1": 0.0, "c2": 0.0}, "sent": BEGUN - 1.0}, id="calls of before"),
        pytest.param({"good_from": {"c1": 1e9, "c2": 1e9}, "sent": BEGUN - 1.0}, id="bad calls of before"),
    ],
)
def test_where_nobody_asked_nothing_is_known(
    pretend: Pretend, clock: FakeTime, asked: dict[str, object]
) -> None:
    found = answering.awaited(pretend.target, Asked(clock, **asked))  # type: ignore[arg-type]
    with pytest.raises(Unknown, match="no call to"):
        answering.proven(found)


def test_a_bad_answer_outweighs_one_that_nobody_asked_for(pretend: Pretend, clock: FakeTime) -> None:
    found = answering.awaited(pretend.target, Asked(clock, {"c1": 1e9}))
    with pytest.raises(AssertionError, match="c1: status 500"):
        answering.proven(found)


def test_without_an_address_or_a_catalogue_nothing_is_known(
    pretend: Pretend, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(clock, {"c1": 0.0, "c2": 0.0})
    with monkeypatch.context() as patched:
        patched.setattr(pretend.cluster, "instances", lambda service: [])
        with pytest.raises(Unknown, match="any address"):
            answering.proven(answering.awaited(pretend.target, asked))

    def silent(service: str) -> list[Service]:
        raise ProbeError(f"service {service}", "silence", "an answer")

    monkeypatch.setattr(pretend.cluster, "instances", silent)
    with pytest.raises(Unknown, match="no usable sample"):
        answering.proven(answering.awaited(pretend.target, asked))
    with pytest.raises(Unknown, match="nobody waited"):
        answering.proven(None)


def test_only_the_api_is_asked(pretend: Pretend, clock: FakeTime) -> None:
    found = answering.awaited(pretend.target, Asked(clock, {"c1": 0.0, "c2": 0.0}))
    assert found.value is not None
    assert set(found.value) == {one.address for one in pretend.instances(names.API.service)}
