"""run: the worker starts when ready, and is gone when a lease is over. Inside its image only busybox is there."""

import http.server
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guard.bench import BUSYBOX, SCRIPT, Bench, until, uptime_ms

LONG = 600_000


class Answers:
    """Stands in for the watch's port."""

    def __init__(self, port: int) -> None:
        self.status = 503
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answers(bench: Bench) -> Iterator[Answers]:
    """The port answers 503 until told otherwise."""
    one = Answers(bench.port)
    yield one
    one.server.shutdown()
    one.server.server_close()


def grant(bench: Bench, lock: int = LONG, egress: int = LONG) -> None:
    """Both leases, in milliseconds from now."""
    for name, life in (("lock", lock), ("egress", egress)):
        path = bench.root / "shared" / f"lease.{name}"
        path.with_suffix(".new").write_text(f"{uptime_ms() + life}\n")
        path.with_suffix(".new").rename(path)


def worker(bench: Bench, body: str) -> Path:
    """A worker command that leaves its process ids behind."""
    path = bench.root / "worker.sh"
    path.write_text(f'#!{BUSYBOX} sh\necho $$ >> "{bench.root}/pids"\n{body}\n')
    path.chmod(0o755)
    return path


def pids(bench: Bench) -> list[int]:
    """What the worker wrote down."""
    path = bench.root / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    """Is there a process of that id that is not a zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


FAMILY = """
(trap "" TERM; echo $(exec sh -c 'echo $PPID') >> "$0.pids"; while :; do sleep 0.1; done) &
while :; do sleep 0.1; done
"""


def test_it_waits_for_leases_and_readiness(bench: Bench, answers: Answers) -> None:
    """Neither the port's word nor a lease alone starts the worker."""
    command = worker(bench, "exit 0")
    process = bench.start("run", "--", str(command))
    grant(bench)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.6)
    (bench.root / "shared/lease.lock").unlink()
    asked = -1
    while asked != answers.asked:  # a question may be under way for the lease that was there
        asked = answers.asked
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.6)
    answers.status = 200
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.6)
    assert pids(bench) == []
    grant(bench)
    assert process.wait(timeout=5) == 0
    assert len(pids(bench)) == 1


@pytest.mark.parametrize("lease", ["lock", "egress"])
@pytest.mark.parametrize("how", ["expires", "is zeroed", "is removed", "is garbled"])
def test_the_end_of_either_lease_kills_the_whole_group(
    bench: Bench, answers: Answers, lease: str, how: str
) -> None:
    """Code 75, and no child survives, not even one that ignores TERM."""
    answers.status = 200
    grant(bench)
    family = worker(bench, FAMILY.replace("$0.pids", f"{bench.root}/pids"))
    process = bench.start("run", "--", str(family), TS_STOP_GRACE_SECONDS="0.3")
    until("both are up", lambda: len(pids(bench)) == 2)
    path = bench.root / "shared" / f"lease.{lease}"
    if how == "expires":
        grant(bench, **{lease: 300})
    elif how == "is removed":
        path.unlink()
    else:
        path.write_text("0\n" if how == "is zeroed" else "forever\n")
    assert process.wait(timeout=5) == 75
    until("all dead", lambda: not [pid for pid in pids(bench) if alive(pid)])
    killed = bench.seen("run", "worker-killed", code=75)
    assert [one["got"] for one in killed] == [lease]


CLOSES = """
trap 'echo closed > "$0.closed"; exit 0' TERM
: > "$0.up"
while :; do sleep 0.05; done
"""


def test_without_egress_the_worker_may_close_what_it_has_begun(bench: Bench, answers: Answers) -> None:
    """TERM first while the lock is held, since the stores are open; the code is 75 all the same."""
    answers.status = 200
    grant(bench)
    command = worker(bench, CLOSES)
    process = bench.start("run", "--", str(command))
    until("up, with its trap set", Path(f"{command}.up").exists)
    grant(bench, egress=0)
    assert process.wait(timeout=5) == 75
    assert Path(f"{command}.closed").exists()
    assert [one["got"] for one in bench.seen("run", "worker-killed", code=75)] == ["egress"]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "within the grace"])
def test_without_the_lock_the_worker_closes_nothing(bench: Bench, answers: Answers, late: bool) -> None:
    """Somebody else may work by now: KILL, no matter what else is over."""
    answers.status = 200
    grant(bench)
    command = worker(bench, CLOSES.replace("exit 0", ":"))
    process = bench.start("run", "--", str(command), TS_STOP_GRACE_SECONDS="60")
    until("up, with its trap set", Path(f"{command}.up").exists)
    if late:
        grant(bench, egress=0)
        until("TERM", Path(f"{command}.closed").exists)
    grant(bench, lock=0, egress=0)
    assert process.wait(timeout=5) == 75
    assert Path(f"{command}.closed").exists() == late


@pytest.mark.parametrize("code", [0, 1, 42])
def test_the_workers_own_code_is_passed_on(bench: Bench, answers: Answers, code: int) -> None:
    """What Nomad's restart policy sees is the worker's."""
    answers.status = 200
    grant(bench)
    assert bench.start("run", "--", str(worker(bench, f"exit {code}"))).wait(timeout=5) == code


def test_a_command_that_does_not_exist(bench: Bench, answers: Answers) -> None:
    """A code of its own, not a hang."""
    answers.status = 200
    grant(bench)
    assert bench.start("run", "--", "/no/such/worker").wait(timeout=5) in (126, 127)


def test_term_reaches_the_worker(bench: Bench, answers: Answers) -> None:
    """The worker may end in its own way; its code is passed on."""
    answers.status = 200
    grant(bench)
    trapping = bench.root / "trapping"
    body = f"trap 'exit 9' TERM\n: > '{trapping}'\nwhile :; do sleep 0.05; done"
    process = bench.start("run", "--", str(worker(bench, body)))
    until("up, with its trap set", trapping.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 9


def test_term_before_the_start_ends_the_wait(bench: Bench, answers: Answers) -> None:
    """A standby allocation can be stopped."""
    process = bench.start("run", "--", str(worker(bench, "exit 0")))
    until("waiting", lambda: os.path.exists(bench.logs["run"]))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert pids(bench) == []


def test_a_node_without_a_way_out_gives_the_worker_up(bench: Bench, answers: Answers) -> None:
    """Code 17 after so long without egress: Nomad's restarts run out, and another node gets its turn."""
    grant(bench, egress=0)
    process = bench.start("run", "--", str(worker(bench, "exit 0")), TS_MOVE_SECONDS="0.4")
    assert process.wait(timeout=5) == 17
    assert bench.seen("run", "worker-gives-up", code=17)
    assert pids(bench) == []


def test_standing_by_for_the_lock_has_no_end(bench: Bench, answers: Answers) -> None:
    """With egress proven somebody else may hold the lock for as long as it likes."""
    grant(bench, lock=0)
    process = bench.start("run", "--", str(worker(bench, "exit 0")), TS_MOVE_SECONDS="0.2")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1.0)


def test_arguments_pass_through_whole(bench: Bench, answers: Answers) -> None:
    """Blanks, quotes and stars arrive as they were given."""
    answers.status = 200
    grant(bench)
    given = ["a b", "*", "it's", '"', ""]
    command = worker(bench, f'for word; do printf "[%s]" "$word"; done > "{bench.root}/args"')
    assert bench.start("run", "--", str(command), *given).wait(timeout=5) == 0
    assert (bench.root / "args").read_text() == "".join(f"[{word}]" for word in given)


def test_it_needs_nothing_but_busybox(bench: Bench, answers: Answers) -> None:
    """No PATH, no tools: as in an arbitrary image."""
    answers.status = 200
    grant(bench)
    command = worker(bench, "exit 7")
    done = subprocess.run(
        [BUSYBOX, "sh", str(SCRIPT), "run", "--", str(command)],
        env={"PATH": "/nonexistent", "GVFX_SHARED": str(bench.root / "shared"), "GVFX_PORT": str(bench.port)},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 7, done.stderr
