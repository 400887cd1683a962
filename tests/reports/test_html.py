from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fixtures.history.events import Event
from reports import html, timeline
from reports.verdict import compute

from .made import GOOD, asked, decided, event, fault, finished, opened, run, selected

VOID = {"meta", "rect", "line", "br"}


class Reader(HTMLParser):
    """Checks that every element is closed in its place; keeps the elements and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def page(*events: Event) -> tuple[str, Reader]:
    history = run(*events)
    text = html.to_html(compute(history), history)
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


EVIL = "</pre><script>alert(1)</script> & \"quoted\" 'too'"


def test_the_verdict_comes_first_and_every_rule_has_its_row() -> None:
    text, reader = page(
        selected(T1_1=["t.py::a"], T1_2=["t.py::b"], T2_1=["t.py::c[1]", "t.py::c[2]"]),
        decided("T1.1", figures={"instances": 2, "slowest_seconds": 0.012345}),
        decided("T1.2", "failed", "t.py::b", message="three instances"),
        decided("T2.1", nodeid="t.py::c[1]"),
        finished(1),
    )
    body = reader.text[reader.text.index("@media print") :]
    assert body.index("NO-GO") < body.index("What stands in the way") < body.index("T1 Health endpoints")
    assert [tag for tag, _ in reader.seen].count("tr") == 3 + 2
    assert "instances <b>2</b>" in text and "slowest_seconds <b>0.01235</b>" in text
    assert "<pre>three instances</pre>" in text
    assert "t.py::c[2]: never decided" in text and "1 of 2 cases" in text
    assert '<header class="no-go">' in text


@pytest.mark.parametrize("word", ["GO", "UNKNOWN"])
def test_nothing_is_loaded_and_nothing_runs(word: str) -> None:
    text, reader = page(*(GOOD if word == "GO" else GOOD[:-1]))
    assert f"<h1>{word}</h1>" in text
    for tag, attributes in reader.seen:
        assert tag not in ("script", "link", "img", "iframe", "object", "base", "form")
        assert not {name for name in attributes if name.startswith("on")} and "src" not in attributes
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert "default-src 'none'" in text


def test_what_a_message_holds_stays_text() -> None:
    settings = replace(GOOD[0], data={**GOOD[0].data, "settings": {EVIL: EVIL}})
    text, reader = page(
        settings,
        decided("T1.1", "failed", nodeid=f"t.py::a[{EVIL}]", message=EVIL, figures={EVIL: EVIL}),
        replace(fault("applied", host=EVIL, id_=EVIL), name=EVIL, wall=0.5),
        event("note", "leak", files=[EVIL]),
        replace(finished(1), wall=9.0),
    )
    assert "<script" not in text
    assert all(tag != "script" for tag, _ in reader.seen)
    assert reader.text.count(EVIL) >= 6


def test_problems_and_settings_are_shown() -> None:
    settings = replace(GOOD[0], data={**GOOD[0].data, "settings": {"timers": "short"}})
    text, _ = page(settings, GOOD[1], fault("intent"), GOOD[2])
    assert "<li>host-down on c1 (x1): begun, and never verified undone</li>" in text
    assert "<dt>timers</dt><dd>short</dd>" in text
    assert "<h2>Problems</h2>" not in page(*GOOD)[0]


def test_the_target_is_named_and_a_seeded_defect_comes_first() -> None:
    sound, _ = page(asked(target="rehearsal", deploy_dir="specs"), opened(), GOOD[1], GOOD[2])
    assert "<dt>of</dt><dd>rehearsal 0123abcd (short timers), specs</dd>" in sound
    assert "seeded defect" not in sound
    text, _ = page(asked(defect=EVIL), opened(EVIL), GOOD[1], GOOD[2])
    assert text.index("seeded defect: ") < text.index("<h1>GO</h1>") and "<script" not in text


def test_an_empty_history_has_a_page_too() -> None:
    text, _ = page()
    assert "<h1>UNKNOWN</h1>" in text and "the history is empty" in text


def test_many_figures_are_folded() -> None:
    text, _ = page(GOOD[0], decided("T1.1", figures={f"f{n}": n for n in range(20)}), GOOD[2])
    assert "<summary>8 more</summary>" in text


def test_a_run_leaves_the_page(tmp_path: Path) -> None:
    history = run(*GOOD)
    path = html.write(compute(history), history, tmp_path / html.REPORT)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


# -- the timeline ----------------------------------------------------------------------------------------


def at(wall: float, one: Event) -> Event:
    return replace(one, wall=wall)


def test_spans_of_steps_tests_and_faults() -> None:
    found = timeline.spans(
        [
            at(100.0, event("operation", "rollout 1.postgres", done="deployed", seconds=10.0, error=None)),
            at(101.0, fault("intent")),
            at(102.0, fault("applied")),
            at(109.0, fault("verified")),
            at(110.0, decided("T1.1", duration_s=10.0)),
            at(111.0, fault("intent", "c2")),
            at(120.0, finished()),
        ]
    )
    assert [(one.group, one.label, one.start, one.end, one.tone) for one in found] == [
        ("rollout", "1.postgres", 90.0, 100.0, "step"),
        ("tests", "T1.1", 100.0, 110.0, "passed"),
        ("faults", "host-down c1", 101.0, 109.0, "fault"),
        ("faults", "host-down c2", 111.0, 120.0, "failed"),
    ]
    assert "NEVER PROVEN UNDONE" in found[-1].hint


def test_what_overlaps_lies_on_lanes_of_its_own() -> None:
    events = [at(10.0 + n, decided(f"T1.{n + 1}", duration_s=5.0)) for n in range(3)]
    drawing = timeline.svg(timeline.spans([*events, at(40.0, decided("T2.1", duration_s=20.0))]))
    tops = [part.split('"')[0] for part in drawing.split(' y="')[1:]]
    assert len({top for top in tops if top.isdigit()}) >= 3


def test_nothing_of_any_length_is_not_drawn() -> None:
    assert timeline.svg([]) == ""
    assert timeline.svg(timeline.spans([decided("T1.1", duration_s=0.0)])) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert timeline.clock(seconds) == text


@pytest.mark.parametrize("length", [0.5, 90.0, 7200.0, 172_800.0, 10_000_000.0])
def test_the_axis_is_never_crowded(length: float) -> None:
    drawing = timeline.svg([timeline.Span("tests", "a", 0.0, length, "passed", "a")])
    assert 1 <= drawing.count('class="tick"') <= 130
