"""The guard and the preflight check: the start is refused with the most telling reason."""

import json
from collections.abc import Callable

import pytest

from tests.guard.bench import EXIT1, EXIT2, EXIT3, IP1, IP2, IP3, Bench, events_of, until

NOW: dict[str, str | None] = {"TS_WAIT_SECONDS": "0"}


def all_refuse(bench: Bench, text: str) -> None:
    """tailscale refuses each exit with this text."""
    for exit_node in (EXIT1, EXIT2, EXIT3):
        bench.world(f"refuse.{exit_node}", text)


def unknown(bench: Bench) -> None:
    """No such node in the tailnet."""
    all_refuse(bench, "no node found in netmap with IP 100.64.0.1")


def unapproved(bench: Bench) -> None:
    """One exit is not approved, the others are unknown: the approval is what to look at."""
    unknown(bench)
    bench.world(f"refuse.{EXIT2}", 'node "ex2" is not advertising an exit node')


def dead(bench: Bench) -> None:
    """No exit answers."""
    bench.silence(EXIT1, EXIT2, EXIT3)


def wrong(bench: Bench) -> None:
    """One exit shows a wrong address, the others are dead."""
    dead(bench)
    bench.world(f"says.{EXIT2}", "198.51.100.77")


def own(bench: Bench) -> None:
    """One exit shows the node's own address, as tailscaled knows it, one a wrong one."""
    wrong(bench)
    bench.world(f"says.{EXIT3}", "192.0.2.7")


def not_running(bench: Bench) -> None:
    """tailscaled answers, but does not run."""
    bench.world("backend", "Starting")


def absent(bench: Bench) -> None:
    """tailscaled does not answer."""
    bench.world("backend", "")


def login(bench: Bench) -> None:
    """tailscaled asks for a login that was refused."""
    bench.world("backend", "NeedsLogin")
    (bench.root / "shared/login-error").write_text("backend error: authkey expired\n")


def wrong_tags(bench: Bench) -> None:
    """The login went well, but the key was for another kind of node."""
    bench.world("tags", "tag:gvfx-app")


@pytest.mark.parametrize(
    ("break_it", "code", "text"),
    [
        (unknown, 15, "no node found"),
        (unapproved, 16, "not advertising"),
        (dead, 17, "Could not determine egress public IP for 100.64.0.3"),
        (wrong, 18, "Observed egress IP 198.51.100.77 is not in TS_EGRESS_EXPECTED_IPS"),
        (own, 19, "the node's own"),
        (not_running, 13, "tailscaled is not ready yet"),
        (absent, 13, "tailscaled is not ready yet"),
        (login, 14, "login failed: backend error: authkey expired"),
        (wrong_tags, 14, "the node has tags 'tag:gvfx-app' and lacks tag:gvfx-worker"),
    ],
)
def test_the_reason_is_in_the_code_and_the_log(
    bench: Bench, break_it: Callable[[Bench], None], code: int, text: str
) -> None:
    """Each way the path can be wrong has its own exit code; the gate stays shut."""
    break_it(bench)
    bench.start_watch(TS_EXPECTED_TAGS="tag:gvfx-worker")
    until("a verdict", lambda: bench.ask("egress")[1].get("code") == code)
    done = bench.run("guard", GVFX_RUN=str(bench.root / "run-guard"), **NOW)
    assert done.returncode == code, done.stdout
    last = events_of(done.stdout)[-1]
    assert last["event"] == "guard-failed" and last["code"] == code
    assert last["why"].startswith("ERROR: ") and text in last["why"]
    assert not bench.gate("egress_ok")
    assert bench.calls("gate egress_ok open") == []


def test_a_refusal_names_the_exit_and_both_addresses(bench: Bench) -> None:
    """What to look at: which exit, what it should show, what it shows."""
    wrong(bench)
    bench.start_watch()
    until("a round", lambda: bench.seen("watch", "exits-none"))
    done = bench.run("guard", GVFX_RUN=str(bench.root / "run-guard"), **NOW)
    last = events_of(done.stdout)[-1]
    assert (last["exit"], last["want"], last["got"]) == (EXIT2, IP2, "198.51.100.77")


def test_the_guard_waits_for_a_late_exit(bench: Bench) -> None:
    """Within TS_WAIT_SECONDS a refusal is not final."""
    dead(bench)
    bench.start_watch(LOCK_MODE="none")
    guard = bench.start("guard", GVFX_RUN=str(bench.root / "run-guard"), LOCK_MODE="none")
    until("a round", lambda: bench.seen("watch", "exits-none"))
    assert guard.poll() is None
    bench.world(f"says.{EXIT3}", IP3)
    assert guard.wait(timeout=8) == 0
    assert bench.seen("guard", "guard-ok", exit=EXIT3)


def test_a_late_tailscaled_is_said_to_be_late(bench: Bench) -> None:
    """After the wait the reason names it."""
    absent(bench)
    bench.start_watch(TS_WAIT_SECONDS="0.5")
    until("late", lambda: "did not become ready within 0.5s" in bench.ask("egress")[1].get("why", ""))


def test_a_message_with_quotes_and_umlauts_stays_json(bench: Bench) -> None:
    """tailscale's words go through the log, the note and the port; cut to length inside a character too."""
    all_refuse(bench, 'invalid value "a\\b" \t' + "x" * 136 + "éé")
    bench.start_watch()
    until("a round", lambda: bench.seen("watch", "exits-none"))
    status, body = bench.ask("egress")
    assert (status, body["code"]) == (503, 15)
    assert 'invalid value "a\\b"' in body["why"]
    assert all(line.isascii() for line in bench.logs["watch"].read_text().splitlines())


def test_no_watch_no_start(bench: Bench) -> None:
    """Nobody answers on the port: code 12 after the wait."""
    done = bench.run("guard", TS_WAIT_SECONDS="0.3")
    assert done.returncode == 12
    assert "does not answer" in events_of(done.stdout)[-1]["why"]


def test_egress_without_the_lock_is_standby(bench: Bench) -> None:
    """The guard stays while another allocation works, and succeeds when the lock is free."""
    bench.world("nomad", "409")
    bench.start_watch()
    guard = bench.start("guard", GVFX_RUN=str(bench.root / "run-guard"))
    until("egress is proven", lambda: bench.seen("guard", "guard-egress-ok"))
    until("several requests", lambda: bench.fact("lock.log").count("lock-acquire") >= 3)
    assert guard.poll() is None
    bench.world("nomad", "200")
    assert guard.wait(timeout=10) == 0
    assert bench.seen("guard", "guard-ok", exit=EXIT1)


def test_a_limit_on_the_standby(bench: Bench) -> None:
    """Code 20 when one is set."""
    bench.world("nomad", "409")
    bench.start_watch()
    done = bench.run("guard", GVFX_RUN=str(bench.root / "run-guard"), LOCK_WAIT_SECONDS="0.5")
    assert done.returncode == 20
    assert "another allocation holds the lock" in events_of(done.stdout)[-1]["why"]


def test_ready_prints_and_decides(bench: Bench) -> None:
    """1 without a watch, 0 with a ready one."""
    done = bench.run("ready")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)
    bench.start_watch()
    until("ready", lambda: bench.run("ready").returncode == 0)
    assert json.loads(bench.run("ready").stdout)["ok"] is True


# ------------------------------------------------------------------------------------------------ check


def text_frame(payload: bytes) -> bytes:
    """One server text frame."""
    return bytes([0x81, len(payload)]) + payload


FRAMES = {
    "plain": text_frame(IP1.encode()),
    "after a ping": b"\x89\x02hi" + text_frame(IP1.encode()),
    "after a ping and a pong": b"\x89\x00\x8a\x03abc" + text_frame(IP1.encode()),
    "extended length": b"\x81\x7e\x00\x0c" + IP1.encode(),
    "with a newline": text_frame(IP1.encode() + b"\r\n"),
    "two frames": text_frame(IP1.encode()) + text_frame(b"1.2.3.4"),
}
NO_ANSWER = {
    "nothing": b"",
    "half a frame": text_frame(IP1.encode())[:-3],
    "half a header": b"\x81",
    "masked": b"\x81\x8c0000" + IP1.encode(),
    "binary": b"\x82\x0c" + IP1.encode(),
    "ping only": b"\x89\x00",
    "close": b"\x88\x02\x03\xe8",
    "64 bit length": b"\x81\x7f" + b"\x00" * 7 + b"\x0c" + IP1.encode(),
    "not an address": text_frame(b"hello"),
}


@pytest.fixture
def selected(bench: Bench) -> Bench:
    """A watch that has proven the first exit."""
    bench.start_watch(LOCK_MODE="none", TS_EGRESS_CHECK_WS_URL="")
    until("egress", lambda: bench.ask("egress")[0] == 200)
    return bench


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_check_reads_the_first_text_frame(selected: Bench, frame: bytes) -> None:
    """Control frames may come first, the length may take either form."""
    (selected.root / "world/ws-bytes").write_bytes(frame)
    done = selected.run("check", GVFX_RUN=str(selected.root / "run-check"))
    assert done.returncode == 0, done.stdout
    lines = events_of(done.stdout)
    assert len(lines) == 1
    assert lines[0]["event"] == "check-ok" and f"WebSocket {IP1}" in lines[0]["why"]


@pytest.mark.parametrize("frame", NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_check_takes_nothing_else_for_an_answer(selected: Bench, frame: bytes) -> None:
    """What is no whole text frame with an address is silence, code 17."""
    (selected.root / "world/ws-bytes").write_bytes(frame)
    done = selected.run("check", GVFX_RUN=str(selected.root / "run-check"))
    assert done.returncode == 17, done.stdout


def test_check_compares_both_paths(selected: Bench) -> None:
    """HTTP right, WebSocket elsewhere: code 18."""
    (selected.root / "world/ws-bytes").write_bytes(text_frame(IP2.encode()))
    done = selected.run("check", GVFX_RUN=str(selected.root / "run-check"))
    assert done.returncode == 18
    last = events_of(done.stdout)[-1]
    assert "(WebSocket, " in last["why"] and last["got"] == IP2


def test_check_fails_with_the_watchs_reason(bench: Bench) -> None:
    """While the exit is not proven the check says why not."""
    bench.world(f"says.{EXIT1}", IP3)
    bench.silence(EXIT2, EXIT3)
    bench.start_watch(LOCK_MODE="none")
    until("a round", lambda: bench.seen("watch", "exits-none"))
    done = bench.run("check", GVFX_RUN=str(bench.root / "run-check"))
    assert done.returncode == 18, done.stdout
    last = events_of(done.stdout)[-1]
    assert (last["event"], last["exit"], last["got"]) == ("check-failed", EXIT1, IP3)


def test_check_without_a_watch(bench: Bench) -> None:
    """Nobody answers: code 12, not a hang and not a success."""
    done = bench.run("check")
    assert done.returncode == 12, done.stdout


def test_check_sees_what_http_shows_now(bench: Bench) -> None:
    """The watch's proof is a moment old; the check asks by itself."""
    bench.start_watch(LOCK_MODE="none", TS_EGRESS_CHECK_WS_URL="", TS_PROBE_INTERVAL_SECONDS="3")
    until("egress", lambda: bench.ask("egress")[0] == 200)
    bench.world(f"says.{EXIT1}", "198.51.100.77")
    done = bench.run("check", GVFX_RUN=str(bench.root / "run-check"), TS_EGRESS_CHECK_WS_URL="")
    assert done.returncode == 18, done.stdout
    assert "(HTTP, " in events_of(done.stdout)[-1]["why"]
