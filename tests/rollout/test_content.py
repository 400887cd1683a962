"""Scratch content and snapshots: written, taken out, put back, compared, against the stand-in over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import Unknown
from fixtures.observe.convex import ConvexFunctionError, ConvexProbe
from fixtures.observe.recording import InMemory
from fixtures.rollout import content
from fixtures.rollout.content import Snapshot
from tests.rollout.served import Served, served


@pytest.fixture
def stand_in(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    with served(tmp_path / "files", getattr(request, "param", "")) as found:
        yield found


@pytest.fixture
def convex(stand_in: Served) -> Iterator[ConvexProbe]:
    found = ConvexProbe(stand_in.url, InMemory())
    yield found
    found.close()


def test_a_snapshot_goes_out_and_comes_back_twice(
    convex: ConvexProbe, stand_in: Served, tmp_path: Path
) -> None:
    convex.upsert("sources", [{"id": str(n), "type": "t", "identifier": str(n)} for n in range(5)], "id")
    convex.upsert("bingx_candles_not_asked", [{"id": "1"}], "id")
    written = content.seed(convex, "run")
    assert content.differences(written, content.found(convex, "run")) == []
    taken = Snapshot.parse(content.export(convex, content.TABLES, "run").text())
    assert (len(taken.files), taken.cut, len(taken.rows["sources"])) == (3, (), 5)
    content.removed(convex, "run")
    assert content.found(convex, "run") == {} and not list((tmp_path / "files").iterdir())
    for _ in range(2):
        assert content.import_scratch(convex, taken) == len(written)
        assert content.import_copies(convex, taken) == {"sources": 5}
    assert content.differences(written, content.found(convex, "run")) == []
    # The files of the first import went with the second.
    assert len(list((tmp_path / "files").iterdir())) == 3
    assert content.copies(convex, taken, "sources") == []
    convex.upsert(f"{content.COPIES}sources", [{"id": "3", "identifier": "other"}], "id")
    convex.delete(f"{content.COPIES}sources", id="4")
    assert content.copies(convex, taken, "sources") == ["sources 4 is missing", "sources 3 differs"]
    content.removed(convex, "run")
    content.forget_copies(convex, taken)
    left = {table for table, rows in stand_in.rows.tables.items() if rows}
    assert left == {"sources", "bingx_candles_not_asked"}


@pytest.mark.parametrize("stand_in", ["drop-writes"], indirect=True)
def test_a_store_that_loses_one_write_of_twenty_loses_one_here(convex: ConvexProbe) -> None:
    written = content.seed(convex, "run")
    assert len(content.differences(written, content.found(convex, "run"))) >= 2


def test_a_table_that_never_ends_is_cut(convex: ConvexProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "PAGE", 4)
    monkeypatch.setattr(content, "LIMIT", 8)
    convex.upsert("sources", [{"id": f"{n:02}", "n": n} for n in range(12)], "id")
    taken = content.export(convex, ("sources", "sync_runs"), "run")
    assert taken.cut == ("sources",) and [row["n"] for row in taken.rows["sources"]] == list(range(8))
    assert content.import_copies(convex, taken) == {}


def test_an_export_without_a_row_of_the_application_is_no_evidence_of_an_import(convex: ConvexProbe) -> None:
    content.seed(convex, "run")
    taken = content.export(convex, content.TABLES, "run")
    assert taken.count() > 0, "its own rows are there, and are not what was imported"
    with pytest.raises(Unknown, match="was a snapshot imported"):
        content.must_hold_rows(taken)
    convex.upsert("sources", [{"id": "1", "type": "t"}], "id")
    assert content.must_hold_rows(content.export(convex, content.TABLES, "run")) == 1


@pytest.mark.parametrize(
    "said",
    [
        "bingx_trades: more than 32000 documents read in one function",
        "Uncaught Error: Too many documents read in a single function execution (limit: 32000).",
        "Uncaught Error: Too many bytes read in a single function execution (limit: 16777216 bytes).",
    ],
)
def test_a_table_that_convex_does_not_read_whole_is_cut_and_one_that_fails_is_not(
    said: str, convex: ConvexProbe, monkeypatch: pytest.MonkeyPatch
) -> None:

    def page(table: str, first: int, count: int) -> list[dict[str, object]]:
        raise ConvexFunctionError(f"rows of {table}", said, "status success")

    monkeypatch.setattr(convex, "page", page)
    taken = content.export(convex, ("bingx_trades",), "run")
    assert taken.cut == ("bingx_trades",) and content.import_copies(convex, taken) == {}
    said = "Could not find public function for 'data:query'."
    with pytest.raises(ConvexFunctionError):
        content.export(convex, ("bingx_trades",), "run")


def test_a_file_that_is_gone_is_other_content_and_no_missing_answer(convex: ConvexProbe) -> None:
    written = content.seed(convex, "run")
    (row,) = convex.rows(content.TABLE, marker="run-file-text")
    convex.delete_file(row["storage"])
    assert content.differences(written, content.found(convex, "run")) == ["run-file-text differs"]


def test_rows_without_ids_cannot_be_put_back(convex: ConvexProbe) -> None:
    with pytest.raises(Unknown, match="without an id"):
        content.import_copies(convex, Snapshot({"sources": [{"n": 1}]}))


def test_a_doubled_row_is_another_content(convex: ConvexProbe) -> None:
    convex.insert(content.TABLE, {"marker": "k", "run": "run", "n": 1})
    once = content.found(convex, "run")
    convex.insert(content.TABLE, {"marker": "k", "run": "run", "n": 1})
    assert content.differences(once, content.found(convex, "run")) == ["k differs"]


def test_what_the_store_adds_is_no_content_and_a_number_has_one_spelling() -> None:
    row = {"n": 42, "nested": [{"m": 1.0}], "text": "x"}
    added = {**row, "n": 42.0, "created_at": "a", "updated_at": "b", "_id": "c", "_creationTime": 1.5}
    assert content.digest(row) == content.digest(added)
    assert content.digest(row) != content.digest({**row, "n": True})
    assert content.digest({**row, "id": "1"}, ("id",)) == content.digest(row)


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")), st.data())
def test_every_difference_is_told_once(wanted: dict[str, str], data: st.DataObject) -> None:
    now = data.draw(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")))
    told = content.differences(wanted, now)
    assert len(told) == sum(wanted.get(key) != now.get(key) for key in {*wanted, *now})
    assert (told == []) == (wanted == now)
