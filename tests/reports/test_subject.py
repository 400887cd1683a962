"""What a verdict is of, and what keeps it from being one for a release."""

from __future__ import annotations

import pytest

from fixtures.history.events import JSON, Event
from fixtures.history.rules import RULES
from reports import subject
from reports.verdict import Verdict, compute

from .made import GOOD, asked, decided, event, finished, opened, run

LIVE = "live target https://nomad:4646"


def of(*events: Event) -> subject.Subject:
    return subject.of(run(*events))


def test_an_old_history_says_nothing() -> None:
    found = of(*GOOD)
    assert not found.stated and found.line == "target: none was opened" and not found.warning
    assert list(subject.problems(found)) == []


@pytest.mark.parametrize(
    ("kind", "label", "compression", "line"),
    [
        ("live", LIVE, 1.0, f"target: {LIVE}"),
        ("live", LIVE, 2.5, f"target: {LIVE}, observation compressed 2.5x"),
        (
            "rehearsal",
            "rehearsal 01 (x)",
            1440.0,
            "target: rehearsal 01 (x), specs, observation compressed 1440x",
        ),
        ("rehearsal", "rehearsal 01 (x)", 1, "target: rehearsal 01 (x), specs"),
    ],
)
def test_its_line(kind: str, label: str, compression: float, line: str) -> None:
    found = of(asked(target=kind, deploy_dir="specs", timers="short"), opened(label, compression=compression))
    assert found.stated and found.line == line
    assert found.timers == ("short" if kind == "rehearsal" else "")


def test_several_processes_of_one_target_are_one_and_of_two_forbid_go() -> None:
    assert compute(run(*GOOD[:-1], opened(), opened(), GOOD[-1])).word == "GO"
    verdict = compute(run(*GOOD[:-1], opened(), opened(LIVE), GOOD[-1]))
    assert verdict.word == "UNKNOWN" and not verdict.subject.stated
    assert verdict.problems == (f"the run was of several targets: rehearsal 0123abcd (short timers), {LIVE}",)


@pytest.mark.parametrize("hidden", [0, None])
def test_a_search_for_no_secret_proves_nothing(hidden: JSON) -> None:
    verdict = compute(run(*GOOD[:-1], opened(LIVE, secrets_hidden=hidden), GOOD[-1]))
    assert verdict.word == "UNKNOWN"
    assert verdict.problems[0].startswith(f"no secret of {LIVE} is known")


def test_digests_and_versions_where_they_were_recorded() -> None:
    found = of(
        event("note", "spec", job="gvfx-b", sha256="22"),
        event("note", "spec", job="gvfx-a", sha256="11"),
        decided("P0.10", figures={"nomad": "1.11.2", "consul": "1.22.2", "nomad_agents": 7}),
    )
    assert list(found.specs.items()) == [("gvfx-a", "11"), ("gvfx-b", "22")]
    assert found.versions == {"nomad": "1.11.2", "consul": "1.22.2"}
    assert of(decided("P0.10", "unknown", figures={})).versions == {}


def whole(*more: Event, **settings: JSON) -> Verdict:
    """Every rule of the catalogue passed."""
    rules: dict[str, JSON] = {one.id: ["t.py::a"] for one in RULES}
    chosen = event("note", "selected", rules=rules, settings=settings)
    return compute(run(chosen, *(decided(one.id) for one in RULES), *more, finished()))


def test_a_release_is_of_one_known_target_that_nobody_spoilt() -> None:
    assert whole(opened()).release and "not a release" not in whole(opened()).scope
    for other in (whole(), whole(opened(), opened(LIVE)), whole(opened(), defect="no-guard")):
        assert not other.release and "not a release verdict" in other.scope
    assert whole(opened(), defect="no-guard").word == "GO"
    assert not compute(run(*GOOD[:-1], opened(), GOOD[-1])).release


@pytest.mark.parametrize("settings", [None, [], "x", {"defect": None}, {"target": 5}])
def test_settings_that_cannot_be_read_say_nothing(settings: JSON) -> None:
    found = of(event("note", "selected", rules={}, settings=settings), opened(compression="fast"))
    assert (found.defect, found.deploy_dir, found.compression) == ("", "", 1.0)
