"""A secret that only the target knows: out of everything shown and written, and a leak where it was written all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Session
from .opened import KEY, PASSING, TOKEN, Run

FAILING = """
def must_answer(target, token):
    print("asks with", token)
    raise AssertionError(f"no answer with {token}")

@pytest.fixture
def later(target):
    yield
    raise OSError("undone with " + target.config.gvfx_api_token.get_secret_value())

@pytest.mark.rule("T1.2")
def test_silence(target, measure, later, record_property):
    token = target.config.gvfx_api_token.get_secret_value()
    record_property("asked", token)
    measure(asked=token)
    must_answer(target, token)

@pytest.mark.rule("T1.3")
def test_in_part(target, measure, subtests):
    token = target.config.gvfx_api_token.get_secret_value()
    measure(n=1)
    with subtests.test("a part"):
        print("a part of", token)
        assert token == "no"
"""
WRITING = f"""
@pytest.mark.rule("T1.1")
def test_health(target, measure, run_dir):
    (run_dir / "dump.txt").write_text("found {TOKEN} and {KEY}")
    measure(n=1)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.parametrize("shown", [(), ("--showlocals", "-rA", "--tb=long")], ids=["plain", "locals"])
def test_what_a_failing_test_was_given_is_shown_nowhere(
    run: Run, workers: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    result = run(FAILING, *workers, *shown)
    assert result.ret == 1
    printed = result.stdout.str() + result.stderr.str()
    assert "no answer with [redacted]" in printed and "token = '[redacted]'" in printed
    assert "asks with [redacted]" in printed
    files = run.files()
    assert {"junit.xml", "events.ndjson", "verdict.json", "verdict.md", "report.html"} <= set(files)
    assert "no answer with [redacted]" in files["junit.xml"]
    traces = [text for name, text in files.items() if name.endswith("-result.json")]
    assert any("no answer with [redacted]" in text for text in traces)
    assert [name for name, text in files.items() if TOKEN in text or KEY in text] == []
    assert TOKEN not in printed and KEY not in printed
    # Nothing had to be cleaned: what is shown was never written.
    assert run.inner.verdict["problems"] == []


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_what_reaches_a_file_all_the_same_is_found_and_forbids_go(run: Run, workers: tuple[str, ...]) -> None:
    second = WRITING.replace("T1.1", "T1.3").replace("test_health", "test_other").replace("dump", "other")
    assert run(WRITING + second, *workers).ret == 2
    assert run.files()["dump.txt"] == run.files()["other.txt"] == "found [redacted] and [redacted]"
    assert run.inner.verdict["verdict"] == "UNKNOWN"
    assert run.inner.verdict["problems"] == ["a secret was found (and removed) in ['dump.txt', 'other.txt']"]
    assert not [name for name, text in run.files().items() if TOKEN in text or KEY in text]


def test_a_clean_run_of_a_target_is_go_and_says_how_much_was_looked_for(run: Run) -> None:
    assert run(PASSING).ret == 0
    (note,) = run.inner.history.of("note", "target")
    assert note.data["label"] == "rehearsal 0123abcd (short timers)"
    assert (note.data["secrets_hidden"], note.data["secrets_too_plain"]) == (2, 0)


def test_reports_elsewhere_are_searched_too(run: Run, tmp_path: Path) -> None:
    allure = tmp_path / "allure"
    source = PASSING.replace(
        "measure(n=1)",
        f"measure(n=1); __import__('allure').attach({TOKEN!r}, name='raw')",
    )
    assert run(source, "--alluredir", str(allure)).ret == 2
    assert [one.read_text() for one in allure.glob("*-attachment*") if "redacted" in one.read_text()] == [
        "[redacted]"
    ]
    assert str(allure) in run.inner.verdict["problems"][0]


def test_a_live_targets_file_is_known(run: Run) -> None:
    file = run.inner.pytester.path / "live.toml"
    file.write_text(
        f'nomad_addr = "http://127.0.0.1:1"\nGVFX_API_TOKEN = "{TOKEN}"\npgpassword = "postgres"\n'
    )
    assert run(WRITING, "--target", "live", "--target-config", str(file)).ret == 2
    assert run.files()["dump.txt"] == f"found [redacted] and {KEY}"
    (note,) = run.inner.history.of("note", "target")
    assert (note.data["secrets_hidden"], note.data["secrets_too_plain"]) == (1, 1)


MINE = "n0mad-token-of-mine"


def test_what_a_module_says_while_it_is_imported(inner: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_TOKEN", MINE)
    result = inner.run(f"print({MINE!r})\nraise ImportError({f'with {MINE}'!r})")
    printed = result.stdout.str() + result.stderr.str()
    assert "ImportError: with [redacted]" in printed and MINE not in printed
    assert "[redacted]" in (inner.run_dir / "junit.xml").read_text()


def test_what_breaks_the_session(inner: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_TOKEN", MINE)
    inner.pytester.makeconftest(
        "import os\ndef pytest_runtest_logfinish():\n    raise OSError(os.environ['NOMAD_TOKEN'])"
    )
    result = inner.run("def test_a(): pass")
    printed = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR> OSError: [redacted]" in printed and MINE not in printed
