from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.events import Event
from fixtures.history.log import EventLog, read_events

ROOT = Path(__file__).resolve().parents[2]


def names(path: Path) -> list[str]:
    return [event.name for event in read_events(path).of("probe")]


def test_an_event_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.ndjson"
    with EventLog(path, "run-1") as log:
        written = log.append(
            "probe", "GET /health", "gvfx-api on c1", status=200, body={"ok": True, "é": None}
        )
    history = read_events(path)
    assert history.of("probe") == (written,)
    assert written.data == {"status": 200, "body": {"ok": True, "é": None}}
    assert history.intact
    assert [event.name for event in history.of("note")] == ["clock", "clock", "closed"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_without_its_end_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    log = EventLog(path, "run-1")
    log.append("probe", "a", "x")
    history = read_events(path)
    assert history.truncated and not history.damaged and not history.intact
    log.close()
    assert read_events(path).intact


def test_an_empty_file_is_never_intact_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert not read_events(tmp_path / "empty").intact
    with pytest.raises(FileNotFoundError):
        read_events(tmp_path / "nothing")


def test_a_late_event_is_counted_and_not_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "e", "r")
    log.close()
    log.close()
    before = (tmp_path / "e").read_bytes()
    log.append("probe", "late", "thread")
    assert log.late == 1
    assert (tmp_path / "e").read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_is_not_json_is_refused_and_leaves_no_hole(tmp_path: Path, value: object) -> None:
    path = tmp_path / "e"
    with EventLog(path, "r") as log:
        with pytest.raises((TypeError, ValueError)):
            log.append("probe", "bad", "x", value=value)  # type: ignore[arg-type]
        log.append("probe", "good", "x")
    assert names(path) == ["good"]
    assert read_events(path).intact


def test_redaction_happens_before_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with EventLog(path, "r", redact=lambda record: {**record, "data": {"gone": True}}) as log:
        event = log.append("probe", "a", "x", password="hunter2")  # noqa: S106
    assert event.data == {"gone": True}
    assert b"hunter2" not in path.read_bytes()


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_last_line_is_reported_and_then_closed_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "e"
    with EventLog(path, "r") as log:
        log.append("probe", "kept", "x")
    with path.open("ab") as file:
        file.write(b'{"kind":"probe","name":"torn","source":"x","wall":1.0}'[:cut])
    history = read_events(path)
    assert history.truncated and names(path) == ["kept"]
    with EventLog(path, "r") as log:
        log.append("probe", "after", "x")
    history = read_events(path)
    assert names(path) == ["kept", "after"]
    assert history.damaged == 1 and not history.intact


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"kind":"probe"', b"\xff\xfe", b"1" * 5000, b"NaN", b"null"]
)
def test_a_line_of_nonsense_is_counted_and_harms_no_other(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "e"
    with EventLog(path, "r") as log:
        log.append("probe", "before", "x")
        with path.open("ab") as file:
            file.write(line + b"\n")
        log.append("probe", "after", "x")
    history = read_events(path)
    assert names(path) == ["before", "after"]
    assert history.damaged == 1 and not history.truncated


def test_half_a_character_survives(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with EventLog(path, "r") as log:
        log.append("probe", "file \udcff", "x")
    assert names(path) == ["file \udcff"] and read_events(path).intact


def test_every_removed_line_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with EventLog(path, "r") as log:
        for number in range(4):
            log.append("probe", f"{number}", "x")
    lines = path.read_bytes().splitlines(keepends=True)
    for index in range(len(lines)):
        path.write_bytes(b"".join(lines[:index] + lines[index + 1 :]))
        assert not read_events(path).intact, f"line {index} of {len(lines)} is missing unseen"
    path.write_bytes(b"".join([*lines, lines[2]]))
    assert not read_events(path).intact, "a doubled line is unseen"


def test_threads_and_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "e"
    child = (
        "import sys; from pathlib import Path; from fixtures.history.log import EventLog\n"
        "with EventLog(Path(sys.argv[1]), 'r') as log:\n"
        "    for n in range(200): log.append('probe', sys.argv[2], 'child', n=n, pad='x' * 500)\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", child, str(path), f"child{n}"], cwd=ROOT) for n in range(2)
    ]
    with EventLog(path, "r") as log:

        def write(name: str) -> None:
            for number in range(200):
                log.append("probe", name, "thread", n=number, pad="y" * 700)

        threads = [threading.Thread(target=write, args=(f"thread{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [process.wait(30) for process in children] == [0, 0]
    history = read_events(path)
    assert history.intact
    for name in ("child0", "child1", "thread0", "thread1", "thread2"):
        assert [event.data["n"] for event in history.of("probe", name)] == list(range(200))


def test_a_forked_child_is_a_writer_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "e"
    log = EventLog(path, "r")
    pid = os.fork()
    if pid == 0:
        log.append("probe", "child", "x")
        log.close()
        os._exit(0)
    os.waitpid(pid, 0)
    log.append("probe", "parent", "x")
    log.close()
    history = read_events(path)
    assert history.intact
    assert len({event.writer for event in history.of("probe")}) == 2


def test_a_short_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e"
    log = EventLog(path, "r")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[: max(1, len(data) // 2)]))
        with pytest.raises(OSError, match="disk full"):
            log.append("probe", "cut", "x")
    log.append("probe", "next", "x")
    log.close()
    assert names(path) == ["next"]
    assert read_events(path).damaged == 1


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_json_round_trips(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("log") / "e"
    with EventLog(path, "r") as log:
        log.append("operation", "write", "x", value=value)  # type: ignore[arg-type]
    assert read_events(path).of("operation")[0].data == {"value": value}


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"kind": "gossip", "name": "a", "source": "b", "run": "r", "wall": 1, "mono": 1, "data": {}},
        {"kind": "probe", "name": "a", "source": "b", "run": "r", "wall": True, "mono": 1, "data": {}},
        {
            "kind": "probe",
            "name": "a",
            "source": "b",
            "run": "r",
            "wall": 1,
            "mono": float("nan"),
            "data": {},
        },
        {
            "kind": "probe",
            "name": "a",
            "source": "b",
            "run": "r",
            "wall": float("inf"),
            "mono": 1,
            "data": {},
        },
        {"kind": "probe", "name": "a", "source": "b", "run": "r", "wall": 10**400, "mono": 1, "data": {}},
        {"kind": "probe", "name": "a", "source": "b", "run": "r", "wall": 1, "mono": 1, "data": []},
        {"kind": "probe", "name": None, "source": "b", "run": "r", "wall": 1, "mono": 1, "data": {}},
        {
            "kind": "probe",
            "name": "a",
            "source": "b",
            "run": "r",
            "wall": 1,
            "mono": 1,
            "data": {},
            "seq": "1",
        },
    ],
)
def test_a_line_that_is_no_event_is_refused(record: object) -> None:
    with pytest.raises(ValueError):
        Event.from_dict(record)
