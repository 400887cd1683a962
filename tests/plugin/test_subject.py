"""A run with a target says in every form which one it was of."""

from __future__ import annotations

import json

import pytest

from .opened import PASSING, Run

LABEL = "rehearsal 0123abcd (short timers)"


def test_the_target_the_specs_and_the_compression(run: Run) -> None:
    specs = run.inner.pytester.mkdir("specs")
    result = run(PASSING, "--deploy-dir", str(specs), "--timers", "short")
    line = f"target: {LABEL}, specs, observation compressed 1440x"
    result.stdout.fnmatch_lines([line, "scope: 1 of *", "verdict: GO *"])
    files = run.files()
    assert line in files["verdict.md"]
    assert line.removeprefix("target: ") in files["report.html"]
    assert f"of={line}\n" in files["allure-results/environment.properties"]
    subject = run.inner.verdict["subject"]
    assert (subject["target"], subject["timers"], subject["deploy_dir"]) == (LABEL, "short", "specs")
    assert subject["observation_compression"] == 1440.0


def test_the_command_lines_compression_is_the_one_that_counts(run: Run) -> None:
    run(PASSING, "-p", "fixtures.rollout.pytest_observation", "--observe-compression", "2880")
    assert run.inner.verdict["subject"]["observation_compression"] == 2880.0


def test_a_run_that_opened_no_target_says_so(run: Run) -> None:
    result = run(PASSING.replace("target, ", ""))
    result.stdout.fnmatch_lines(["target: none was opened*", "verdict: GO *"])
    assert run.inner.verdict["subject"]["target"] is None


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_seeded_defect_comes_first(
    run: Run, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GVFX_DEFECT", "no-guard")
    result = run(PASSING, *workers)
    printed = result.stdout.str()
    first = printed.index("seeded defect: no-guard (the target is broken on purpose)")
    assert printed.index("acceptance verdict") < first < printed.index("pass  T1.1")
    files = run.files()
    assert files["verdict.md"].startswith("**seeded defect: no-guard")
    assert list(json.loads(files["verdict.json"]))[0] == "seeded_defect"
    assert files["report.html"].index("seeded defect: no-guard") < files["report.html"].index("<h1>")
    assert run.inner.verdict["release"] is False
