"""Writers and readers against the stand-in over HTTP: what they record is what the judge needs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.errors import Unknown
from fixtures.history.durability import DurabilityTerms
from fixtures.history.events import Event
from fixtures.history.judge import judge
from fixtures.history.log import EventLog, read_events
from fixtures.history.results import CheckResult
from fixtures.history.shapes import Away, record
from fixtures.observe.convex import ConvexGone, ConvexProbe
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import Discarded
from fixtures.rollout import writing
from fixtures.rollout.writing import Content, Place, Reader, Stream, Writer
from tests.rollout.served import Served, served

FAST = (
    Stream("row", writing.row, every=0.01, threads=2, timeout=2.0),
    Stream("text", lambda: writing.text_file(2000), every=0.02, threads=1, timeout=2.0),
    Stream("binary", lambda: writing.binary_file(50_000), every=0.05, threads=1, timeout=2.0),
)


class Bench:
    """One writer against one stand-in, and the history between them."""

    def __init__(self, convex: Served, directory: Path) -> None:
        self.convex = convex
        self.log = EventLog(directory / "events.ndjson", "run")
        self.place = Place(lambda: convex.url)
        self.writer = Writer(self.place, self.log, "run", FAST)

    def sentinel(self) -> str | None:
        """One row before anything else."""
        client = self.client()
        try:
            return self.writer.write(client, "run-sentinel", writing.row(), sentinel=True)
        finally:
            client.close()

    def client(self) -> ConvexProbe:
        return ConvexProbe(self.convex.url, Discarded(), timeout=2.0)

    def until(self, what: str, enough: Callable[[], bool]) -> None:
        eventually(what, enough, bool, within=20, record=Discarded(), every=0.01).known()

    def acknowledged(self) -> None:
        """Until a row and a file that begin now are."""
        since = time.monotonic()
        self.until("acknowledged", lambda: self.writer.ledger.acknowledged_since(since))

    def phases(self, since: float) -> set[str]:
        """How writes that began since then have ended; one that was under way proves nothing of that time."""
        events = [one for one in self.events() if one.mono >= since]
        begun = {one.data["key"] for one in events if one.data["phase"] == "invoke"}
        return {str(one.data["phase"]) for one in events if one.data["key"] in begun} - {"invoke"}

    def events(self) -> list[Event]:
        return [one for one in read_events(self.log.path).events if one.name == "store"]

    def away(self, component: str, start: float, end: float) -> None:
        record(self.log, Away(component, start, end), "test")

    def judged(self, *disturbed: str) -> tuple[CheckResult, dict[str, int]]:
        """Read everything back and judge."""
        self.writer.stop()
        settled = time.monotonic()
        read = Reader(self.log, self.writer, self.client).read_all()
        terms = DurabilityTerms(settled=settled, disturbed=disturbed, stores=())
        return judge(read_events(self.log.path).events, terms), read


@pytest.fixture
def convex(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """The stand-in, with the weakness that the test names."""
    with served(tmp_path / "files", getattr(request, "param", "")) as found:
        yield found


@pytest.fixture
def bench(convex: Served, tmp_path: Path) -> Bench:
    return Bench(convex, tmp_path)


@pytest.fixture
def client(convex: Served) -> Iterator[ConvexProbe]:
    """Somebody beside the writer."""
    found = ConvexProbe(convex.url, Discarded(), timeout=2.0)
    yield found
    found.close()


def kinds(result: CheckResult, outcome: str) -> set[str]:
    return {one.kind for one in result.findings if one.outcome == outcome}


def test_a_store_that_keeps_its_word_passes_and_nothing_is_left(
    bench: Bench, convex: Served, client: ConvexProbe, tmp_path: Path
) -> None:
    assert bench.sentinel() == "run-sentinel"
    bench.writer.start()
    bench.acknowledged()
    away = time.monotonic()
    convex.rows.away = True
    bench.until("a write that began since has failed", lambda: "fail" in bench.phases(away))
    until = time.monotonic()
    convex.rows.away = False
    bench.acknowledged()
    bench.away("postgres", away, until)
    result, read = bench.judged("postgres")
    assert result.outcome == "passed", result.findings
    assert read["refused"] == read["withheld"] == 0
    assert read["read"] == result.figures["writes"] == len(bench.writer.ledger.all())
    assert result.figures["acknowledged"] != result.figures["writes"]
    assert writing.removed(client, "run", bench.log, bench.writer.ledger.strays) > 0
    assert client.rows(writing.TABLE) == []
    # What is left are objects that Convex stored for answers it could not give: nobody can name them.
    unanswered = [one for one in bench.writer.ledger.all() if not one.acknowledged]
    assert len(list((tmp_path / "files").iterdir())) <= len(unanswered)


def test_a_convex_that_is_gone_leaves_unknown_writes_and_its_new_place_is_found(
    bench: Bench, convex: Served, tmp_path: Path
) -> None:
    bench.sentinel()
    bench.writer.start()
    bench.acknowledged()
    convex.stop()
    gone = time.monotonic()
    bench.until("writes without an answer", lambda: bench.phases(gone) == {"unknown"})
    bench.away("convex", gone, time.monotonic())
    # As after a move: the same stores, another address.
    convex.port = Served(tmp_path / "x").port
    convex.start()
    bench.acknowledged()
    result, _ = bench.judged("convex")
    assert result.outcome == "passed", result.findings


@pytest.mark.parametrize(
    ("convex", "store", "component", "broken"),
    [
        ("ack-before-commit", "rows", "postgres", {"lost", "quiet"}),
        ("torn-files", "files", "objectstore", {"lost", "quiet"}),
        ("drop-writes", "", "", {"lost"}),
    ],
    indirect=["convex"],
)
def test_a_store_that_breaks_its_word_is_found(
    bench: Bench, convex: Served, store: str, component: str, broken: set[str]
) -> None:
    bench.sentinel()
    bench.writer.start()
    bench.acknowledged()
    start = time.monotonic()
    convex.rows.away, convex.files.away = store == "rows", store == "files"
    count = len(bench.writer.ledger.all())
    bench.until("writes meanwhile", lambda: len(bench.writer.ledger.all()) > count + 40)
    if component:
        bench.away(component, start, time.monotonic())
    convex.rows.away = convex.files.away = False
    bench.acknowledged()
    # What was promised early is committed, or lost, a moment later.
    bench.until("a moment", lambda: time.monotonic() > start + 0.5)
    result, read = bench.judged(*([component] if component else []))
    assert kinds(result, "failed") == broken, result.findings
    assert (read["withheld"] > 0) == (store == "files")


def test_a_store_that_refuses_everything_has_lost_nothing_yet(bench: Bench, convex: Served) -> None:
    bench.sentinel()
    bench.writer.start()
    bench.acknowledged()
    bench.writer.stop()
    convex.files.away = True
    result, read = bench.judged()
    assert read["withheld"] == 0 and read["refused"] > 0
    assert result.outcome == "unknown" and kinds(result, "unknown") == {"unread"}


def test_two_rows_or_no_file_under_a_key_are_another_content(bench: Bench, client: ConvexProbe) -> None:
    bench.writer.write(client, "twice", writing.row(), sentinel=True)
    (row,) = client.rows(writing.TABLE, marker="twice")
    client.insert(writing.TABLE, {**row, "id": "other"})
    bench.writer.write(client, "file", writing.text_file(100))
    client.mutation(
        "data:write",
        {
            "table": writing.TABLE, "action": "update", "payload": {"storage": None},
            "filters": [{"field": "marker", "op": "eq", "value": "file"}],
        },
    )  # fmt: skip
    result, _ = bench.judged()
    assert kinds(result, "failed") == {"changed"}
    assert "and 1 more" in result.findings[0].sentence


def test_a_file_without_its_row_is_remembered_for_the_cleaning(
    bench: Bench, convex: Served, client: ConvexProbe, tmp_path: Path
) -> None:
    insert = client.insert

    def away(table: str, row: dict[str, object]) -> dict[str, object]:
        convex.rows.away = True
        return insert(table, row)

    client.insert = away  # type: ignore[method-assign]
    assert bench.writer.write(client, "stray", writing.text_file(100)) is None
    convex.rows.away = False
    assert len(bench.writer.ledger.strays) == 1 and list((tmp_path / "files").iterdir())
    writing.removed(client, "run", bench.log, bench.writer.ledger.strays)
    assert not list((tmp_path / "files").iterdir())


def test_a_writer_that_dies_is_no_writer(tmp_path: Path) -> None:
    def broken() -> Content:
        raise ZeroDivisionError("a bug")

    log = EventLog(tmp_path / "events.ndjson", "run")
    writer = Writer(
        Place(lambda: "http://127.0.0.1:1"),
        log,
        "run",
        (Stream("row", broken, every=0.01, threads=1, timeout=1),),
    )
    writer.start()
    writer._threads[0].join(5)
    with pytest.raises(Unknown, match="ZeroDivisionError"):
        writer.stop()


def test_a_store_that_hangs_is_written_to_throughout(tmp_path: Path) -> None:
    """A postgres that is away for a second shows as a hanging Convex; writes have to begin within that second."""
    log = EventLog(tmp_path / "events.ndjson", "run")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        writer = Writer(
            Place(lambda: url), log, "run", (Stream("row", writing.row, every=0.05, threads=8, timeout=0.4),)
        )
        writer.start()
        eventually(
            "three rounds", lambda: len(writer.ledger.all()) >= 24, bool, within=20, record=Discarded()
        ).known()
        writer.stop()
    begun = [one.mono for one in read_events(log.path).events if one.name == "store"]
    assert sum(one < begun[0] + 0.4 for one in begun) > 1
    # Nobody said anything, and nobody is said to have said anything.
    assert len(begun) == len(writer.ledger.all()) and not any(one.acknowledged for one in writer.ledger.all())


def test_a_file_that_is_gone_is_lost_and_one_that_is_not_found_once_is_not(
    bench: Bench, convex: Served, client: ConvexProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.sentinel()
    gone = bench.writer.write(client, "gone", writing.text_file(100))
    there = bench.writer.write(client, "there", writing.text_file(100))
    assert gone is not None and there is not None
    client.delete_file(gone)
    fetch, asked = ConvexProbe.fetch, list[str]()

    def hiccup(self: ConvexProbe, storage: str) -> bytes:
        asked.append(storage)
        if storage in (gone, there) and asked.count(storage) == 1:
            raise ConvexGone("file", "getFileUrl answered None", "a URL")
        return fetch(self, storage)

    monkeypatch.setattr(ConvexProbe, "fetch", hiccup)
    result, read = bench.judged()
    assert kinds(result, "failed") == {"lost"} and read["withheld"] == 1
    assert "file gone" in result.findings[0].sentence and "more" not in result.findings[0].sentence


def test_contents_are_what_they_say() -> None:
    assert writing.binary_file().text is False and len(writing.binary_file().data) > 5 * 1024 * 1024
    assert len({writing.row().digest for _ in range(10)}) == 10
    one = writing.row()
    assert writing.row_digest([{"body": one.data.decode()}]) == (one.digest, len(one.data))
