from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.rehearsal import peer_log

NOW = 1_000_000.0


def written(path: Path, records: list[dict[str, Any]], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail)
    return path


@given(
    steps=st.lists(st.floats(-peer_log.SLACK / 40, 30), max_size=40),
    sizes=st.lists(st.integers(0, 300), min_size=40, max_size=40),
    back=st.floats(0, 900),
    block=st.integers(1, 400),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_what_is_read_from_the_end_is_what_a_whole_reading_finds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[float],
    sizes: list[int],
    back: float,
    block: int,
) -> None:
    monkeypatch.setattr(peer_log, "BLOCK", block)
    records: list[dict[str, Any]] = []
    moment = NOW
    for number, (step, size) in enumerate(zip(steps, sizes, strict=False)):
        moment += step
        records.append({"t": moment, "number": number, "body": "x" * size})
    since = moment - back
    found = peer_log.records(written(tmp_path / "log", records), since)
    assert found == [one for one in records if one["t"] >= since]


def test_hours_before_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_log, "BLOCK", 1000)
    path = tmp_path / "log"
    with path.open("w") as log:
        log.write("damage of hours ago\n" * 1000)
        log.writelines(json.dumps({"t": NOW + number}) + "\n" for number in range(1000))
    assert [one["t"] for one in peer_log.records(path, NOW + 997)] == [NOW + 997, NOW + 998, NOW + 999]
    with pytest.raises(ProbeError, match="line 1 from byte 0 on is damaged"):
        peer_log.records(path, NOW)


@pytest.mark.parametrize("torn", ['{"t": 10', "7\n", '{"kind": "sent"}\n'])
def test_a_torn_last_line_is_still_being_written(tmp_path: Path, torn: str) -> None:
    records = [{"t": NOW}, {"t": NOW + 1}]
    assert peer_log.records(written(tmp_path / "log", records, torn), NOW) == records
    if torn.endswith("\n"):
        torn += json.dumps(records[0]) + "\n"
        with pytest.raises(ProbeError, match="line 3"):
            peer_log.records(written(tmp_path / "log", records, torn), NOW)


def test_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="a readable file"):
        peer_log.records(tmp_path / "log", NOW)
    (tmp_path / "log").touch()
    assert peer_log.records(tmp_path / "log", NOW) == []
