"""The observation on disk: killed anywhere and gone on with, it claims what was seen and no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.errors import Refused, Unknown
from fixtures.history.events import JSON
from fixtures.rollout import observation, triggers
from fixtures.rollout.observation import HEADER, LOOKS, Header, Observation, Seen, observe
from fixtures.rollout.triggers import (
    DUPLICATES,
    MIN_CYCLES,
    WRITES,
    Guard,
    Incident,
    Look,
    Runs,
    Service,
    Write,
)

TERMS = triggers.Thresholds(cycle=0.25, period=0.25)
GOOD = Service(wanted=2, good=2)


def header(**changes: Any) -> Header:
    made = observation.header("rehearsal a", 0.5, 1440.0, TERMS)
    return made.model_copy(update=changes)


class Sampler:
    """Sees a sound target, one more cycle at each reading; `spoil` changes what the n-th look saw."""

    def __init__(self, spoil: dict[int, dict[str, Any]] | None = None, cycles: bool = True) -> None:
        self.spoil = spoil or {}
        self.cycles = cycles
        self.looks = 0

    def look(self, runs: bool) -> Seen:
        number, self.looks = self.looks, self.looks + 1
        now = time.time()
        read = Runs(cycles=tuple(now + n for n in range(4)) if self.cycles else ()) if runs else None
        sound: dict[str, Any] = {
            "writes": Write(ok=True), "api": GOOD, "rl": GOOD, "guard": Guard(active=True), "runs": read,
        }  # fmt: skip
        return Seen(began=time.monotonic(), at=now, **{**sound, **self.spoil.get(number, {})})


def test_observes_until_enough_is_seen(tmp_path: Path) -> None:
    with Observation(tmp_path, header()) as found:
        observe(found, Sampler())
        assert found.complete and not found.evaluation.fired
        assert found.evaluation.observed >= 0.5
        assert len(found.evaluation.cycles) >= MIN_CYCLES
        assert len(found.sha256()) == 64


def test_stops_at_a_trigger_and_remembers_it(tmp_path: Path) -> None:
    lost = {"writes": Write(ok=False, lost=True, why="row 3")}
    with Observation(tmp_path, header()) as found:
        observe(found, Sampler({4: lost}))
        assert list(found.evaluation.fired) == [WRITES]
        assert found.evaluation.looks == 5
    sampler = Sampler()
    with Observation(tmp_path, header()) as again:
        observe(again, sampler)
        assert list(again.evaluation.fired) == [WRITES]
    assert sampler.looks == 0


def test_duplicates_of_two_sessions_are_repeated(tmp_path: Path) -> None:
    for at, fired in ((5.0, []), (9.0, [DUPLICATES])):
        incident = Incident(at=at, kind="overlap", sentence="two")
        with Observation(tmp_path, header()) as found:
            observe(found, Sampler({0: {"runs": Runs(cycles=(), incidents=(incident,))}}), 0.01)
            assert list(found.evaluation.fired) == fired


def test_pieces_add_up_and_the_time_between_them_does_not(tmp_path: Path) -> None:
    total = 0.0
    for _ in range(3):
        begun = time.monotonic()
        with Observation(tmp_path, header(required=1000.0)) as found:
            before = found.evaluation.observed
            assert before == pytest.approx(total)
            observe(found, Sampler(), 1.5)
            total = found.evaluation.observed
            assert 0.0 < total - before <= time.monotonic() - begun
            assert not found.complete
    with Observation(tmp_path, header(required=1000.0)) as found:
        assert found.evaluation.observed == pytest.approx(total)
        assert found.evaluation.figures()["sessions"] == 3


def test_a_worker_that_never_ingests_does_not_complete_it(tmp_path: Path) -> None:
    with Observation(tmp_path, header(required=0.1)) as found:
        observe(found, Sampler(cycles=False))
        assert found.idle and not found.complete


@pytest.mark.parametrize(("looks", "starved"), [(60, False), (70, True)])
def test_a_worker_that_stops_ingesting_for_long_does_not_complete_it(
    tmp_path: Path, looks: int, starved: bool
) -> None:
    """Its guard says nothing new, and twenty cycles were long seen: only that there is no new one tells."""
    terms = triggers.Thresholds(cycle=10.0, period=10.0)
    with Observation(tmp_path, header(required=500.0, thresholds=terms)) as found:
        for number in range(looks):
            at = 10.0 * number
            runs = Runs(cycles=tuple(10.0 * one for one in range(min(number + 1, 25))))
            found.evaluation.feed(
                Look(
                    session="a", at=at, began=at, ended=at + 0.2, writes=Write(ok=True), api=GOOD, rl=GOOD,
                    guard=Guard(active=True), runs=runs,
                )
            )  # fmt: skip
        assert found.evaluation.longest_unfed == pytest.approx(10.0 * (looks - 25))
        assert (found.starved, found.idle, found.complete) == (starved, starved, not starved)
        assert not found.evaluation.fired


def test_one_observer_at_a_time(tmp_path: Path) -> None:
    with Observation(tmp_path, header()), pytest.raises(Refused, match="one observer"):
        Observation(tmp_path, header())
    Observation(tmp_path, header()).close()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"target": "live elsewhere"}, "rehearsal a"),
        ({"required": 7.0}, "0.5"),
        ({"compression": 1.0}, "1440"),
        ({"thresholds": triggers.thresholds(60.0)}, "thresholds"),
    ],
)
def test_another_target_or_other_terms_are_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    Observation(tmp_path, header()).close()
    with pytest.raises(Refused, match=word):
        Observation(tmp_path, header(**change))


def test_the_header_stays_what_it_was(tmp_path: Path) -> None:
    first = Observation(tmp_path, header())
    first.close()
    again = Observation(tmp_path, header())
    again.close()
    assert (again.header.id, again.header.begun) == (first.header.id, first.header.begun)


def test_a_torn_look_is_a_look_less(tmp_path: Path) -> None:
    with Observation(tmp_path, header(required=1000.0)) as found:
        observe(found, Sampler(), 0.1)
        looks = found.evaluation.looks
    for torn in range(1, 4):
        with (tmp_path / LOOKS).open("ab") as file:
            file.write(b'{"kind":"probe","na')
        with Observation(tmp_path, header(required=1000.0)) as found:
            assert found.evaluation.looks == looks + torn - 1
            found.append(Sampler().look(True))


def test_damage_elsewhere_decides_nothing(tmp_path: Path) -> None:
    with Observation(tmp_path, header(required=1000.0)) as found:
        observe(found, Sampler(), 0.1)
    path = tmp_path / LOOKS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"oops\n", *lines[2:]]))
    with pytest.raises(Unknown, match="1 damaged"):
        Observation(tmp_path, header(required=1000.0))
    # A look that was taken out shows as well.
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(Unknown, match="1 damaged"):
        Observation(tmp_path, header(required=1000.0))
    path.write_bytes(b"".join(lines))
    (tmp_path / HEADER).unlink()
    with pytest.raises(Unknown, match="without observation.json"):
        Observation(tmp_path, header())
    (tmp_path / HEADER).write_text("{}")
    with pytest.raises(Unknown, match="Field required"):
        Observation(tmp_path, header())


def test_what_is_written_is_redacted(tmp_path: Path) -> None:
    def redact(record: dict[str, JSON]) -> dict[str, JSON]:
        data = record["data"]
        assert isinstance(data, dict)
        if isinstance(data.get("guard"), dict):
            data = {**data, "guard": {"active": False, "why": "[redacted]"}}
        return {**record, "data": data}

    with Observation(tmp_path, header(), redact) as found:
        found.append(Sampler({0: {"guard": Guard(active=False, why="hunter2")}}).look(True))
    assert "hunter2" not in (tmp_path / LOOKS).read_text()


KILLED = """
import sys
from pathlib import Path
from tests.rollout.test_observation import Sampler, header
from fixtures.rollout.observation import Observation, observe
with Observation(Path(sys.argv[1]), header(required=1000.0)) as found:
    observe(found, Sampler(), say=lambda one: print(one.evaluation.looks, flush=True))
"""


def test_a_killed_observer_loses_nothing_it_had_seen(tmp_path: Path) -> None:
    seen = 0
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= seen + 10:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        seen = max([seen + 10, *(int(one) for one in rest)])
        with Observation(tmp_path, header(required=1000.0)) as found:
            # One more look may have been written and not been said.
            assert seen <= found.evaluation.looks <= seen + 1
            seen = found.evaluation.looks
            assert found.evaluation.observed > 0
