from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from reports import render
from reports.verdict import compute

from .made import GOOD, asked, decided, event, fault, finished, opened, run, selected

VERDICT = compute(
    run(
        selected(T1_1=["t.py::a"], T1_2=["t.py::b[c1]", "t.py::b[c2]"], T1_3=["t.py::c"]),
        decided("T1.1", figures={"instances": 2, "slowest_seconds": 0.012345, "hosts": ["a", "b"], "by": {"c1": 1}}),
        decided("T1.2", "failed", "t.py::b[c1]", message="first | line\nsecond ``` line"),
        decided("T1.2", nodeid="t.py::b[c2]"),
        fault("applied"),
        finished(1),
    )
)  # fmt: skip


def test_the_table_ends_with_the_word() -> None:
    assert render.lines(VERDICT) == [
        "pass  T1.1   every instance of gvfx-api answers /health",
        "             instances=2 slowest_seconds=0.01235 hosts=[a,b] by={c1=1}",
        "FAIL  T1.2   every instance answers /ops/gaps/health with schema and truth",
        "             [c1]={n=1} [c2]={n=1}",
        "             [c1]: first | line",
        "             second ``` line",
        "????  T1.3   every instance answers /ops/alerts with schema",
        "             t.py::c: never decided",
        "problem: host-down on c1 (x1): begun, and never verified undone",
        "target: none was opened",
        VERDICT.scope,
        "verdict: NO-GO  (1 passed, 1 failed, 1 unknown)",
    ]


def test_long_figures_are_cut_where_the_line_is_full() -> None:
    text = render.short_figures({"a": "x" * 100}, longest=10)
    assert text == "a=xxxxxxx…" and len(text) == 10
    assert render.short_figures({}) == ""


def test_json_holds_everything_and_round_trips() -> None:
    found = json.loads(json.dumps(render.to_json(VERDICT), allow_nan=False))
    assert (found["verdict"], found["exit_code"], found["release"]) == ("NO-GO", 1, False)
    assert [rule["outcome"] for rule in found["rules"]] == ["passed", "failed", "unknown"]
    assert found["rules"][0]["figures"]["hosts"] == ["a", "b"]
    assert found["rules"][1]["messages"] == ["[c1]: first | line\nsecond ``` line"]
    assert found["problems"] == list(VERDICT.problems)


def test_markdown_is_one_page_with_the_word_first() -> None:
    page = render.to_markdown(VERDICT)
    assert page.startswith("# NO-GO\n")
    table = [line for line in page.splitlines() if line.startswith("| T")]
    assert len(table) == 3
    assert all(line.count("|") - line.count("\\|") == 6 for line in table)
    assert "| T1.2 | **failed** |" in page
    assert page.count("```") == 4, "a message opened a code block of its own"
    assert "- host-down on c1 (x1)" in page


def test_files_of_a_run(tmp_path: Path) -> None:
    written = render.write(VERDICT, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "NO-GO"
    assert (tmp_path / "verdict.md").read_text() == render.to_markdown(VERDICT)


def test_the_share_of_the_systems_own_timers_is_said() -> None:
    """Of a rule with several cases each counts."""
    found = compute(
        run(
            selected(T1_1=["t.py::a", "t.py::c"], T1_2=["t.py::b[c1]", "t.py::b[c2]"]),
            # Two tests of one rule, neither with parameters.
            decided("T1.1", figures={"unavoidable_seconds": 6}),
            decided("T1.1", nodeid="t.py::c", figures={"unavoidable_seconds": 4}),
            decided("T1.2", nodeid="t.py::b[c1]", figures={"unavoidable_seconds": 2.5}),
            decided("T1.2", nodeid="t.py::b[c2]", figures={"unavoidable_seconds": 2.5}),
            replace(finished(0), wall=61.0),
        )
    )
    assert render.lines(found)[-2].startswith("time: 60 s, of which the system's own timers took 15 s (25%)")
    assert render.to_json(found)["unavoidable_s"] == 15.0


REHEARSED = compute(
    run(
        asked(target="rehearsal", timers="short", deploy_dir="deploy/nomad"),
        opened(compression=1440.0),
        decided("T1.1"),
        finished(),
    )
)
SPOILT = compute(
    run(
        asked(target="rehearsal", deploy_dir="else|where", defect="no-guard"),
        opened(),
        decided("T1.1"),
        finished(),
    )
)
LINE = "target: rehearsal 0123abcd (short timers), deploy/nomad, observation compressed 1440x"


def test_every_form_says_of_what_it_is() -> None:
    assert LINE in render.lines(REHEARSED)
    assert render.to_markdown(REHEARSED).splitlines()[:3] == ["# GO", "", LINE]
    found = render.to_json(REHEARSED)
    assert found["seeded_defect"] is None and found["subject"] == {
        "target": "rehearsal 0123abcd (short timers)",
        "timers": "short",
        "deploy_dir": "deploy/nomad",
        "observation_compression": 1440.0,
        "spec_sha256": {},
        "versions": {},
    }


def test_a_seeded_defect_is_said_before_anything_else() -> None:
    warning = "seeded defect: no-guard (the target is broken on purpose)"
    assert render.lines(SPOILT)[0] == warning
    assert render.to_markdown(SPOILT).startswith(f"**{warning}**\n\n# GO\n")
    assert list(render.to_json(SPOILT).items())[0] == ("seeded_defect", "no-guard")
    assert "else\\|where" in render.to_markdown(SPOILT)
    assert "defect" not in "".join(render.lines(REHEARSED)) + render.to_markdown(REHEARSED)


def test_digests_of_the_specs_have_their_table() -> None:
    spec = event("note", "spec", job="gvfx-api", sha256="ab12")
    page = render.to_markdown(compute(run(*GOOD[:-1], spec, GOOD[-1])))
    assert "| gvfx-api | `ab12` |" in page
    assert "digest" not in render.to_markdown(compute(run(*GOOD)))
