from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Session

GOOD = """
@pytest.mark.rule("T1.1")
def test_health(measure):
    measure(instances=2, slowest_seconds=0.01234)
"""


def one(body: str, decorators: str = "", arguments: str = "measure") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f'{decorators}\n@pytest.mark.rule("T1.1")\ndef test_rule({arguments}):\n{lines}\n'


OUTCOMES = {
    "passed": (one("measure(n=1)"), "passed", 0),
    "assertion": (one("measure(n=1)\nassert 1 == 2, 'two'"), "failed", 1),
    "no figure": (one("pass"), "unknown", 2),
    "empty measure": (one("measure()"), "unknown", 2),
    "nan": (one("measure(n=float('nan'))"), "unknown", 2),
    "skip": (one("measure(n=1)\npytest.skip('no cluster')"), "unknown", 2),
    "mark skip": (one("measure(n=1)", "@pytest.mark.skip(reason='x')"), "unknown", 2),
    "xfail": (one("measure(n=1)\nassert 0", "@pytest.mark.xfail"), "unknown", 2),
    "xpass": (one("measure(n=1)", "@pytest.mark.xfail(strict=True)"), "unknown", 2),
    "value error": (one("measure(n=1)\nraise ValueError('x')"), "unknown", 2),
    "pytest.fail": (one("measure(n=1)\npytest.fail('Timeout')"), "unknown", 2),
    "probe": (
        "from fixtures.errors import ProbeError\n" + one("measure(n=1)\nraise ProbeError('a', 'b', 'c')"),
        "unknown",
        2,
    ),
    "refused": (
        "from fixtures.errors import Refused\n" + one("measure(n=1)\nraise Refused('a', 'b', 'c')"),
        "unknown",
        3,
    ),
    "setup assertion": (
        "@pytest.fixture\ndef broken():\n    assert 0\n" + one("measure(n=1)", arguments="broken, measure"),
        "unknown",
        2,
    ),
    "teardown error": (
        "@pytest.fixture\ndef leaky():\n    yield\n    assert 0\n"
        + one("measure(n=1)", arguments="leaky, measure"),
        "unknown",
        2,
    ),
    "failed and teardown error": (
        "@pytest.fixture\ndef leaky():\n    yield\n    raise OSError\n"
        + one("measure(n=1)\nassert 0", arguments="leaky, measure"),
        "failed",
        1,
    ),
    "failed subtest": (
        one("measure(n=1)\nwith subtests.test('a'):\n    assert 0", arguments="measure, subtests"),
        "failed",
        1,
    ),
    "missing fixture": (one("pass", arguments="nowhere"), "unknown", 2),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome_becomes_event_verdict_and_status(inner: Session, name: str) -> None:
    source, outcome, status = OUTCOMES[name]
    result = inner.run(source)
    assert inner.outcomes == {"T1.1": outcome}
    assert result.ret == status
    assert inner.history.intact
    word = {0: "GO", 1: "NO-GO", 2: "UNKNOWN", 3: "REFUSED"}[status]
    assert inner.verdict["verdict"] == word
    result.stdout.re_match_lines([rf"verdict: {word} "])
    event = inner.history.of("rule")[0]
    assert event.data["nodeid"] == "test_inner.py::test_rule"
    assert bool(event.data["message"]) == (outcome != "passed")


def test_what_is_printed(inner: Session) -> None:
    result = inner.run(GOOD + one("measure(n=1)\nassert 3 == 4, 'three instances'").replace("T1.1", "T1.2"))
    result.stdout.fnmatch_lines(
        [
            f"run directory: {inner.run_dir}",
            "*acceptance verdict*",
            "pass  T1.1   every instance of gvfx-api answers /health",
            "             instances=2 slowest_seconds=0.01234",
            "FAIL  T1.2   *",
            "             n=1",
            "             three instances",
            "scope: 2 of * rules; not a release verdict",
            f"evidence: {inner.run_dir}",
            "verdict: NO-GO  (1 passed, 1 failed, 0 unknown)",
        ]
    )
    assert "# NO-GO" in (inner.run_dir / "verdict.md").read_text()


def test_without_a_rule_everything_stays_pytests_own(inner: Session) -> None:
    assert inner.run("def test_a(): pass").ret == 0
    assert not inner.run_dir.joinpath("events.ndjson").exists()
    assert inner.run("def test_a(): assert 0").ret == 1
    assert inner.run("", "-k", "nothing").ret == 5


@pytest.mark.parametrize("extra", ["def test_other(): assert 0", "def test_other(nowhere): pass"])
def test_a_failure_without_a_rule_forbids_go(inner: Session, extra: str) -> None:
    assert inner.run(GOOD + extra).ret == 2
    assert inner.verdict["problems"] == ["1 test(s) that decide no rule failed"]


def test_a_module_that_cannot_be_imported_forbids_go(inner: Session) -> None:
    inner.pytester.makepyfile(test_broken="import nowhere")
    assert inner.run(GOOD, "--continue-on-collection-errors").ret == 2
    assert inner.outcomes == {"T1.1": "passed"}


def test_cases_are_aggregated_and_the_worst_counts(inner: Session) -> None:
    source = one("measure(n=host)\nassert host != 2", arguments="measure, host").replace(
        "@pytest", "@pytest.mark.parametrize('host', [1, 2, 3])\n@pytest", 1
    )
    assert inner.run(source).ret == 1
    rule = inner.verdict["rules"][0]
    assert (rule["cases"], rule["outcome"]) == (3, "failed")
    assert rule["figures"] == {"[1]": {"n": 1}, "[2]": {"n": 2}, "[3]": {"n": 3}}


def test_a_test_that_never_ran_is_unknown(inner: Session) -> None:
    second = one("measure(n=1)").replace("test_rule", "test_second").replace("T1.1", "T1.3")
    first = one("measure(n=1)\nraise OSError").replace("T1.1", "T1.2")
    assert inner.run(GOOD + first + second, "-x").ret == 2
    found = {rule["id"]: rule["outcome"] for rule in inner.verdict["rules"]}
    assert found == {"T1.1": "passed", "T1.2": "unknown", "T1.3": "unknown"}


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "pytest.exit('enough')"])
def test_an_interrupted_session_is_unknown(inner: Session, error: str) -> None:
    raising = one(error if "exit" in error else f"raise {error}").replace("T1.1", "T1.2")
    result = inner.run(GOOD + raising, in_process="exit" in error)
    assert result.ret == 2
    assert inner.verdict["verdict"] == "UNKNOWN"
    assert inner.outcomes == {"T1.1": "passed"}


def test_an_internal_error_is_unknown_and_still_printed(inner: Session) -> None:
    inner.pytester.makeconftest(
        "def pytest_runtest_logfinish(nodeid):\n    raise RuntimeError('broken plugin')"
    )
    result = inner.run(GOOD)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["verdict: UNKNOWN *"])


def test_a_killed_session_leaves_a_history_that_judges_as_unknown(inner: Session) -> None:
    kill = one(f"import os\nos.kill(os.getpid(), {signal.SIGKILL:d})").replace("T1.1", "T1.2")
    inner.run(GOOD + kill, in_process=False)
    assert inner.outcomes == {"T1.1": "passed"}
    judged = subprocess.run(
        [sys.executable, "-m", "reports", "judge", str(inner.run_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 2
    assert "T1.2" in judged.stdout and "did not finish" in judged.stdout


def test_deselection_narrows_the_scope_only(inner: Session) -> None:
    bad = one("assert 0").replace("T1.1", "T2.1")
    assert inner.run(GOOD + bad, "-m", "phase2").ret == 0
    assert [rule["id"] for rule in inner.verdict["rules"]] == ["T1.1"]
    assert inner.verdict["release"] is False


def test_keyword_and_last_failed_select_as_ever(inner: Session) -> None:
    bad = one("measure(n=1)\nassert 0").replace("T1.1", "T2.1")
    assert inner.run(GOOD + bad).ret == 1
    for number, (args, status, rules) in enumerate(
        [
            (("-k", "health"), 0, ["T1.1"]),
            (("--lf",), 1, ["T2.1"]),
            (("--deselect", "test_inner.py::test_rule"), 0, ["T1.1"]),
        ]
    ):
        inner.run_dir = inner.pytester.path / f"again{number}"
        assert inner.run(GOOD + bad, *args).ret == status
        assert [rule["id"] for rule in inner.verdict["rules"]] == rules


@pytest.mark.parametrize("option", ["--co", "--setup-plan"])
def test_a_dry_run_touches_nothing(inner: Session, option: str) -> None:
    assert inner.run(GOOD, option).ret == 0
    assert not inner.run_dir.exists()


def test_the_run_directory_of_another_run_is_refused(inner: Session) -> None:
    assert inner.run(GOOD).ret == 0
    before = (inner.run_dir / "events.ndjson").read_bytes()
    again = inner.run(GOOD)
    assert again.ret == 4
    assert "holds the history of another run" in again.stderr.str()
    assert (inner.run_dir / "events.ndjson").read_bytes() == before


@pytest.mark.parametrize("marker", ['rule("T99.1")', "rule()", "rule", 'rule("T1.1", "T1.2")', "rule(1)"])
def test_a_marker_without_a_rule_of_the_catalogue_is_refused(inner: Session, marker: str) -> None:
    result = inner.run(f"@pytest.mark.{marker}\ndef test_a(measure): measure(n=1)")
    assert result.ret == 4
    assert "test_inner.py::test_a" in result.stderr.str()


def test_an_open_fault_forbids_go(inner: Session) -> None:
    source = one(
        "event_log.append('fault', 'pause', 'c1', phase='applied')\nmeasure(n=1)",
        arguments="event_log, measure",
    )
    assert inner.run(source).ret == 2
    assert inner.verdict["problems"] == ["pause on c1: begun, and never verified undone"]


def test_a_secret_is_redacted_removed_and_forbids_go(inner: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_TOKEN", "s3cr3t-in-the-environment")
    source = one(
        "redactor.add('learnt-at-run-time')\n"
        "event_log.append('probe', 'a', 'x', text='learnt-at-run-time s3cr3t-in-the-environment')\n"
        "(run_dir / 'dump.txt').write_text('pass learnt-at-run-time word')\n"
        "measure(n=1)",
        arguments="event_log, measure, redactor, run_dir",
    )
    assert inner.run(source).ret == 2
    assert inner.history.of("probe")[0].data["text"] == "[redacted] [redacted]"
    assert (inner.run_dir / "dump.txt").read_text() == "pass [redacted] word"
    assert inner.verdict["problems"] == ["a secret was found (and removed) in ['dump.txt']"]


def test_junit_is_written_by_default_and_carries_rule_and_figures(inner: Session) -> None:
    assert inner.run(GOOD).ret == 0
    xml = (inner.run_dir / "junit.xml").read_text()
    assert '<property name="rule" value="T1.1"' in xml and 'name="instances" value="2"' in xml


def test_the_run_directory_holds_the_page(inner: Session) -> None:
    assert inner.run(GOOD).ret == 0
    page = (inner.run_dir / "report.html").read_text()
    assert "<h1>GO</h1>" in page and "instances <b>2</b>" in page


def test_a_given_junit_path_is_kept(inner: Session) -> None:
    assert inner.run(GOOD, "--junit-xml", "mine.xml").ret == 0
    assert (inner.pytester.path / "mine.xml").exists()
    assert not (inner.run_dir / "junit.xml").exists()


def test_the_suites_own_tests_get_no_default_reports(inner: Session) -> None:
    inner.pytester.mkdir("tests")
    (inner.pytester.path / "tests" / "test_x.py").write_text("def test_x(): pass\n")
    assert inner.run("", "tests").ret == 0
    assert not inner.run_dir.exists()


def test_allure_files_and_labels(inner: Session) -> None:
    assert inner.run(GOOD, in_process=False, allure=True).ret == 0
    results = inner.run_dir / "allure-results"
    found = [json.loads(path.read_text()) for path in results.glob("*-result.json")]
    labels = {label["name"]: label["value"] for label in found[0]["labels"]}
    assert labels["epic"] == "GoldView FX acceptance, phase 2"
    assert labels["feature"] == "T1 Health endpoints"
    assert labels["story"] == "T1.1 every instance of gvfx-api answers /health"
    assert found[0]["attachments"][0]["name"] == "figures"
    assert "verdict=GO\n" in (results / "environment.properties").read_text()
    names = [
        category["name"].split(":")[0] for category in json.loads((results / "categories.json").read_text())
    ]
    assert names == ["leak", "product", "environment", "suite defect"]
    assert json.loads((results / "executor.json").read_text())["type"] in ("local", "github")


def test_a_github_summary_gets_the_page(
    inner: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    inner.run(GOOD)
    assert (tmp_path / "summary.md").read_text().startswith("# GO\n")


def test_xdist_workers_share_one_history(inner: Session) -> None:
    others = "".join(
        one("measure(pid=__import__('os').getpid())")
        .replace("T1.1", f"T1.{n}")
        .replace("test_rule", f"test_{n}")
        for n in range(2, 8)
    )
    result = inner.run(GOOD + others, "-n", "2", in_process=False, allure=True)
    assert result.ret == 0, result.stdout.str()
    assert inner.history.intact
    assert len(inner.verdict["rules"]) == 7
    assert len(list((inner.run_dir / "allure-results").glob("*-result.json"))) == 7
    assert len(inner.history.of("note", "selected")) == 2


def test_xdist_refuses_disruptive_tests_beside_others(inner: Session) -> None:
    bad = one("measure(n=1)", "@pytest.mark.disruptive").replace("T1.1", "T1.2")
    refused = inner.run(GOOD + bad, "-n", "1", in_process=False)
    assert refused.ret == 4
    assert '-m "not disruptive"' in refused.stdout.str()
    assert not inner.run_dir.joinpath("events.ndjson").exists()
    alone = inner.run(bad, "-n", "1", "--dist", "loadgroup", in_process=False)
    assert alone.ret == 0, alone.stdout.str()


def test_a_crashed_worker_is_unknown(inner: Session) -> None:
    kill = one("import os\nos._exit(7)").replace("T1.1", "T1.2")
    result = inner.run(GOOD + kill, "-n", "1", "--max-worker-restart", "0", in_process=False)
    assert result.ret == 2, result.stdout.str()
    assert inner.verdict["verdict"] == "UNKNOWN"


LACKING = """
from fixtures.errors import Refused
@pytest.fixture(scope="session")
def target():
    raise Refused("this machine", "no room", "room", "df -h")
@pytest.mark.rule("T1.1")
def test_one(target, measure): pass
@pytest.mark.rule("T1.2")
@pytest.mark.parametrize("host", ["c1", "c2"])
def test_two(target, measure, host): pass
"""


def test_what_every_test_lacks_is_said_once_and_without_a_traceback(inner: Session) -> None:
    result = inner.run(LACKING)
    text = result.stdout.str()
    assert result.ret == 3
    assert inner.outcomes == {"T1.1": "unknown", "T1.2": "unknown"}
    # Once where pytest lists errors, once in the verdict.
    assert text.count("observed: no room") == text.count("df -h") == 2
    assert "Traceback" not in text and "raise Refused" not in text
    result.stdout.fnmatch_lines(["*as T1.1", "*[[]c2[]]: as T1.1", "*1 error, 2 blocked*"])


def test_a_run_directory_that_cannot_be_made_is_named(inner: Session) -> None:
    (inner.pytester.path / "file").write_text("")
    inner.run_dir = inner.pytester.path / "file" / "run"
    result = inner.run(GOOD, in_process=False)
    assert result.ret == 4
    assert f"--run-dir {inner.run_dir} cannot be made (Not a directory)" in result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_a_full_disk_is_said_before_anything_is_measured(
    inner: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.plugin._ROOM", 1 << 60)
    result = inner.run(GOOD)
    assert result.ret == 4
    assert f"next: df -h {inner.run_dir}" in result.stderr.str()
    assert not (inner.run_dir / "events.ndjson").exists()


TWO = """
@pytest.mark.rule("T1.1")
def test_one(measure): measure(n=1)
@pytest.mark.rule("T1.2")
def test_two(measure): measure(n=1)
@pytest.mark.rule("T2.1")
def test_three(measure): measure(n=1)
def test_of_no_rule(): pass
"""


@pytest.mark.parametrize(
    ("asked", "decided"), [("T1.2", {"T1.2"}), ("T1", {"T1.1", "T1.2"}), ("T1.1, T2", {"T1.1", "T2.1"})]
)
def test_rules_are_chosen_by_their_ids(inner: Session, asked: str, decided: set[str]) -> None:
    result = inner.run(TWO, "--rules", asked)
    assert set(inner.outcomes) == decided
    result.assert_outcomes(passed=len(decided), deselected=4 - len(decided))


@pytest.mark.parametrize("asked", ["T1.99", "t1", ""])
def test_rules_that_are_none_are_refused(inner: Session, asked: str) -> None:
    result = inner.run(TWO, "--rules", asked, in_process=False)
    assert result.ret == 4
    assert "--rules: " in result.stderr.str() + result.stdout.str()
