from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.history.log import EventLog
from reports.__main__ import main

from .made import GOOD

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run directory with the history of a good run."""
    with EventLog(tmp_path / "events.ndjson", "run-1") as log:
        for event in GOOD:
            log.append(event.kind, event.name, event.source, **event.data)
    return tmp_path


def test_a_saved_run_is_judged_again(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (saved, saved / "events.ndjson"):
        assert main(["judge", str(path)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "verdict: GO  (1 passed, 0 failed, 0 unknown)"
    assert main(["judge", "--json", str(saved)]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "GO"
    assert [path.name for path in saved.iterdir()] == ["events.ndjson"], "judging writes nothing"


def test_a_shortened_history_is_unknown(saved: Path) -> None:
    history = saved / "events.ndjson"
    history.write_bytes(history.read_bytes()[:-5])
    assert main(["judge", str(saved)]) == 2


def test_no_history_is_unknown_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", str(tmp_path)]) == 2
    assert str(tmp_path / "events.ndjson") in capsys.readouterr().err


def test_the_table_as_a_picture_of_its_own(saved: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "verdict.svg"
    assert main(["judge", "--picture", str(drawn), str(saved)]) == 0
    text = drawn.read_text()
    assert text.startswith("<svg") and "T1.1" in text
    assert "@font-face" not in text and "https://" not in text


def test_the_page_lies_beside_the_history_or_where_it_is_asked_for(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["html", str(saved)]) == 0
    assert capsys.readouterr().out == f"GO: {saved / 'report.html'}\n"
    other = tmp_path / "other.html"
    assert main(["html", str(saved / "events.ndjson"), "-o", str(other)]) == 0
    assert other.read_text() == (saved / "report.html").read_text()
    assert main(["html", str(tmp_path / "nowhere")]) == 2


def test_as_a_command(saved: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reports", "judge", str(saved)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pass  T1.1" in done.stdout
