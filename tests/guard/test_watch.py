"""The watch: which exit it takes, when it lets go, which gates it opens and for how long."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.guard.bench import EXIT1, EXIT2, EXIT3, IP1, IP2, IP3, TOKEN, Bench, until, uptime_ms


def ready(bench: Bench) -> None:
    """Wait until the watch says 200 on /ready."""
    until("ready", lambda: bench.ask("ready")[0] == 200)


def begin(bench: Bench, **changes: str | None) -> subprocess.Popen[str]:
    """A watch with proven egress; without a lock, whose first request would cost every test half a second."""
    process = bench.start_watch(LOCK_MODE="none", **changes)
    ready(bench)
    return process


def tries(bench: Bench) -> list[str]:
    """The exits in the order in which they were tried."""
    return [one["exit"] for one in bench.seen("watch", "exit-try")]


def test_the_primary_is_taken_first_and_proven(bench: Bench) -> None:
    """One try, both gates open, evidence written, 200 on all three questions."""
    bench.start_watch()
    ready(bench)
    assert tries(bench) == [EXIT1]
    assert bench.gate("egress_ok") and bench.gate("lock_ok")
    status, body = bench.ask("egress")
    assert (status, body["exit"], body["got"], body["code"]) == (200, EXIT1, IP1, 0)
    selected = (bench.root / "shared/egress-selected").read_text()
    assert f"SELECTED_EXIT_NODE={EXIT1}\nOBSERVED_EGRESS_IP={IP1}\n" in selected
    assert 0 < bench.lease("egress") <= 5000
    assert 0 < bench.lease("lock") <= 18000


def test_a_first_selection_pings_before_it_selects(bench: Bench) -> None:
    """An exit that does not know us yet would cost WireGuard's five seconds."""
    begin(bench)
    calls = [line for line in bench.fact("argv.log").splitlines() if line.startswith("tailscale ")]
    ping = next(n for n, line in enumerate(calls) if " ping " in line)
    assert ping < next(n for n, line in enumerate(calls) if f"--exit-node={EXIT1}" in line)


def test_a_session_with_every_exit_is_kept(bench: Bench) -> None:
    """One that an exit has forgotten costs WireGuard 15 s, which is more than the exit is given when it is needed."""
    begin(bench, TS_WARM_SECONDS="0.1")
    asked = [f"/ping?ip={one}&type=TSMP" for one in (EXIT1, EXIT2, EXIT3)]
    until("every exit is asked", lambda: all(one in bench.fact("argv.log") for one in asked))


@pytest.mark.parametrize(
    ("dead", "order", "taken"),
    [
        ([EXIT1], [EXIT1, EXIT2], EXIT2),
        ([EXIT1, EXIT2], [EXIT1, EXIT2, EXIT3], EXIT3),
    ],
)
def test_fallbacks_in_the_configured_order(
    bench: Bench, dead: list[str], order: list[str], taken: str
) -> None:
    """Dead exits are passed over one by one."""
    bench.silence(*dead)
    begin(bench)
    assert tries(bench) == order
    assert bench.ask("egress")[1]["exit"] == taken


def test_a_dead_exit_is_left_after_the_configured_silence(bench: Bench) -> None:
    """Lost after two probes, gate shut before the next try, the lost one last in the order."""
    begin(bench)
    bench.silence(EXIT1, EXIT2)
    until("third exit", lambda: bench.ask("egress")[1].get("exit") == EXIT3)
    lost = bench.seen("watch", "exit-lost")
    assert [one["exit"] for one in lost] == [EXIT1]
    assert "no answer to 2 probes" in lost[0]["why"]
    assert tries(bench) == [EXIT1, EXIT2, EXIT3]


def test_the_gate_is_shut_before_another_exit_is_selected(bench: Bench) -> None:
    """Between two exits nothing leaves: shut, select, prove, open."""
    begin(bench, TS_EGRESS_CHECK_WS_URL="")
    bench.world("argv.log", "")
    bench.silence(EXIT1)
    until("second exit", lambda: bench.ask("egress")[1].get("exit") == EXIT2)
    order = bench.calls("gate egress_ok", "--exit-node=", "http://198.51.100.80/")
    select = next(n for n, call in enumerate(order) if f"--exit-node={EXIT2}" in call)
    assert [call.split()[-1] for call in order[:select] if "gate" in call][-1] == "shut"
    opened = next(n for n, call in enumerate(order) if n > select and call == "gate egress_ok open")
    assert [call for call in order[select + 1 : opened] if call.startswith("curl ")]
    assert "gate egress_ok open" not in order[select + 1 : opened]


def test_connections_end_with_the_exit_they_began_by(bench: Bench) -> None:
    """Cut after the gate is shut and before another exit is selected, each time under a number of its own."""
    begin(bench, TS_EGRESS_CHECK_WS_URL="")
    bench.world("argv.log", "")
    bench.silence(EXIT1)
    until("second exit", lambda: bench.ask("egress")[1].get("exit") == EXIT2)
    bench.silence(EXIT2)
    until("third exit", lambda: bench.ask("egress")[1].get("exit") == EXIT3)
    calls = bench.calls("gate egress_ok", "flows begin anew", "--exit-node=100")
    words = {"gate": "shut", "flows": "cut", "tailscale": "select"}
    order = [words[call.split()[0]] for call in calls if call != "gate egress_ok open"]
    # The first exit is tried again before the third.
    once = ["shut", "shut", "cut", "select"]
    assert order == [*once, *once, "cut", "select"]
    numbers = [call.split()[-1] for call in bench.calls("flows begin")]
    assert len(set(numbers)) == len(numbers)


def test_no_exit_is_selected_while_connections_cannot_be_cut(bench: Bench) -> None:
    """Neither by number nor by a new table: refused with the kernel's word, and the gate stays shut."""
    bench.world("stuck-flows", "")
    bench.world("nft-refuses", "no room")
    bench.start_watch(LOCK_MODE="none")
    refused = until("refused", lambda: bench.seen("watch", "exit-refused", exit=EXIT1))
    assert refused[0]["code"] == 12 and "no room" in refused[0]["why"]
    assert not bench.calls("--exit-node=100")
    assert not bench.gate("egress_ok")


@pytest.mark.parametrize(("silences", "left"), [(1, False), (2, True)])
def test_hysteresis(bench: Bench, silences: int, left: bool) -> None:
    """One unanswered probe is a doubt, the configured number of them is a loss."""
    begin(bench, TS_EGRESS_CHECK_WS_URL="")
    bench.world("argv.log", "")
    bench.world("skip", str(silences))
    until("skipped", lambda: bench.fact("skip") == "0")
    until("ten probes", lambda: len(bench.calls("curl -sf --noproxy")) >= 10 + silences)
    assert [one["exit"] for one in bench.seen("watch", "exit-lost")] == [EXIT1] * left
    assert ("gate egress_ok shut" in bench.calls()) is left
    assert bench.ask("egress")[1]["exit"] == (EXIT2 if left else EXIT1)


def test_the_silences_must_be_in_a_row(bench: Bench) -> None:
    """A good answer in between settles the doubt."""
    begin(bench, TS_EGRESS_CHECK_WS_URL="", TS_PROBE_FAILS="3")
    for _ in range(3):
        bench.world("argv.log", "")
        bench.world("skip", "2")
        until("skipped and answered", lambda: len(bench.calls("curl -sf --noproxy")) >= 5)
    assert not bench.seen("watch", "exit-lost")


def test_an_exit_that_lost_its_approval_is_named(bench: Bench) -> None:
    """Silent because the tailnet's administrator took the route away."""
    begin(bench)
    bench.world(f"unapproved.{EXIT1}", "")
    bench.silence(EXIT1)
    until("lost", lambda: bench.seen("watch", "exit-lost"))
    assert "it is no longer approved" in bench.seen("watch", "exit-lost")[0]["why"]


def test_a_wrong_answer_counts_at_once(bench: Bench) -> None:
    """No second opinion, code 18, and another exit's address is as wrong as any."""
    begin(bench)
    bench.world(f"says.{EXIT1}", IP2)
    until("second exit", lambda: bench.ask("egress")[1].get("exit") == EXIT2)
    lost = bench.seen("watch", "exit-lost")[0]
    assert (lost["code"], lost["got"], lost["want"]) == (18, IP2, IP1)


def test_the_next_url_is_asked_when_one_is_silent(bench: Bench) -> None:
    """One echo service may be down: the answer of the other proves the exit just as well."""
    bench.world("mute-url", "http://198.51.100.81/")
    bench.start_watch(
        TS_EGRESS_CHECK_URLS="http://198.51.100.81/,http://198.51.100.80/",
        TS_EGRESS_CHECK_WS_URL="",
        LOCK_MODE="none",
    )
    ready(bench)
    assert tries(bench) == [EXIT1]
    assert bench.calls("http://198.51.100.81/")


def test_a_garbled_answer_is_no_answer(bench: Bench) -> None:
    """A captive portal's page is not an address."""
    bench.world(f"says.{EXIT1}", "<html>login</html>")
    begin(bench)
    assert bench.seen("watch", "exit-refused", exit=EXIT1, code=17)


def test_websocket_must_agree_with_http(bench: Bench) -> None:
    """A server that does not complete the handshake did not speak WebSocket."""
    bench.world("ws-plain", "")
    bench.start_watch()
    until("refused", lambda: bench.seen("watch", "exits-none"))
    assert "over WebSocket" in bench.seen("watch", "exit-refused")[0]["why"]
    assert not bench.gate("egress_ok")


def test_a_wrong_address_over_websocket_counts_at_once(bench: Bench) -> None:
    """The path of the market data is compared, too, for as long as the exit is in use."""
    begin(bench, TS_WS_PROBE_SECONDS="0.3")
    (bench.root / "world/ws-bytes").write_bytes(b"\x81\x0c" + IP2.encode())
    until("lost", lambda: bench.seen("watch", "exit-lost", code=18, got=IP2, exit=EXIT1))
    assert "(WebSocket, " in bench.seen("watch", "exit-lost")[0]["why"]


def test_a_wrong_address_over_websocket_is_no_proof(bench: Bench) -> None:
    """HTTP right, WebSocket by another way: refused at the selection, the gate was never open."""
    (bench.root / "world/ws-bytes").write_bytes(b"\x81\x0d198.51.100.77")
    bench.start_watch()
    until("a round", lambda: bench.seen("watch", "exits-none", code=18))
    assert "(WebSocket, " in bench.seen("watch", "exit-refused")[0]["why"]
    assert bench.calls("gate egress_ok open") == []


def test_silence_over_websocket_alone_leaves_the_exit(bench: Bench) -> None:
    """HTTP answers right all the time; as many silences as would end it over HTTP end it here, not one fewer."""
    begin(bench, TS_WS_PROBE_SECONDS="0.2", TS_PROBE_FAILS="3")
    bench.world("argv.log", "")
    bench.world("ws-silent", "")
    until("lost", lambda: bench.seen("watch", "exit-lost", exit=EXIT1, code=17))
    why = bench.seen("watch", "exit-lost")[0]["why"]
    assert why == "no answer to 3 WebSocket probes, while HTTP answers"
    until("shut", lambda: bench.calls("gate egress_ok shut"))
    calls = bench.calls("Sec-WebSocket-Key", "curl -sf --noproxy", "gate egress_ok shut")
    before = calls[: calls.index("gate egress_ok shut")]
    asked = [n for n, call in enumerate(before) if "Sec-WebSocket-Key" in call][-3:]
    # Between two of them HTTP was asked once, and answered: the gate stayed open meanwhile.
    assert [second - first for first, second in zip(asked, asked[1:], strict=False)] == [2, 2]
    bench.world("ws-silent", "x")
    (bench.root / "world/ws-silent").unlink()
    ready(bench)


def test_one_silence_over_websocket_is_a_doubt(bench: Bench) -> None:
    """An answer in between settles it: silences count only in a row."""
    begin(bench, TS_WS_PROBE_SECONDS="0.1")
    silent = bench.root / "world/ws-silent"
    for _ in range(3):
        bench.world("argv.log", "")
        silent.touch()
        until("one silence", lambda: bench.calls("Sec-WebSocket-Key"))
        silent.unlink()
        bench.world("argv.log", "")
        until("two answers", lambda: len(bench.calls("Sec-WebSocket-Key")) >= 2)
    assert not bench.seen("watch", "exit-lost")
    assert bench.gate("egress_ok")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("no node found in netmap with IP 100.64.0.1", 15),
        ('invalid value "x" for --exit-node; must be IP or peer hostname', 15),
        ('node "ex1" is not advertising an exit node', 16),
    ],
)
def test_a_refused_exit_is_told_apart(bench: Bench, said: str, code: int) -> None:
    """Unknown is 15, not approved is 16; the next exit is taken."""
    bench.world(f"refuse.{EXIT1}", said)
    begin(bench)
    refused = bench.seen("watch", "exit-refused", exit=EXIT1)
    assert [one["code"] for one in refused] == [code]
    assert f"{EXIT1} rejected by tailscale up" in refused[0]["why"]
    assert bench.ask("egress")[1]["exit"] == EXIT2


def test_all_dead_shuts_the_gate_and_ends_the_lease(bench: Bench) -> None:
    """503, the lease runs out, and one exit's return is enough to open again."""
    begin(bench, TS_GATE_SECONDS="1", TS_BLOCKED_STOP_SECONDS="1")
    bench.silence(EXIT1, EXIT2, EXIT3)
    until("blocked", lambda: bench.seen("watch", "exits-none"))
    status, body = bench.ask("ready")
    assert (status, body["egress"], body["code"]) == (503, False, 17)
    assert "All configured exit nodes failed validation" in body["why"]
    until("lease over", lambda: bench.lease("egress") < 0)
    until("said so", lambda: bench.seen("watch", "blocked-stop"))
    assert not (bench.root / "shared/egress-selected").exists()
    bench.world(f"says.{EXIT2}", IP2)
    ready(bench)
    assert bench.lease("egress") > 0


def test_no_flapping_back_to_the_primary(bench: Bench) -> None:
    """The primary's return alone changes nothing."""
    bench.silence(EXIT1)
    begin(bench)
    bench.world(f"says.{EXIT1}", IP1)
    bench.world("argv.log", "")
    until("ten probes", lambda: len(bench.calls("http://198.51.100.80/")) >= 10)
    assert tries(bench) == [EXIT1, EXIT2]


def test_return_to_the_primary_after_the_configured_time(bench: Bench) -> None:
    """Three pings, then the primary is proven like any other."""
    bench.silence(EXIT1)
    begin(bench, TS_RETURN_SECONDS="0.5")
    bench.world(f"says.{EXIT1}", IP1)
    until("back", lambda: bench.ask("egress")[1].get("exit") == EXIT1)
    assert bench.seen("watch", "exit-return")
    assert tries(bench)[-1] == EXIT1


def test_no_return_while_the_primary_answers_no_ping(bench: Bench) -> None:
    """The fallback is not left for an exit that is not there."""
    bench.silence(EXIT1)
    begin(bench, TS_RETURN_SECONDS="0.2")
    bench.world("no-ping", "")
    bench.world(f"says.{EXIT1}", IP1)
    bench.world("argv.log", "")
    until("five pings", lambda: len(bench.calls(" ping ")) >= 5)
    assert not bench.seen("watch", "exit-return")
    assert bench.ask("egress")[1]["exit"] == EXIT2


def test_each_failed_return_doubles_the_wait(bench: Bench) -> None:
    """A primary that pings but does not carry would otherwise interrupt the fallback again and again."""
    bench.silence(EXIT1)
    begin(bench, TS_RETURN_SECONDS="0.3")
    until("two returns", lambda: len(bench.seen("watch", "exit-return")) >= 3, within=15)
    first, second, third = (float(one["t"]) for one in bench.seen("watch", "exit-return")[:3])
    # At least: what a round costs on a busy machine comes on top of either.
    assert second - first > 0.6
    assert third - second > 1.2


def test_own_tailscaled_gone_is_not_the_exits_fault(bench: Bench) -> None:
    """Gate shut, no other exit tried, the same one taken up again afterwards."""
    bench.silence(EXIT1)
    begin(bench)
    bench.world("backend", "")
    bench.silence(EXIT2)
    until("away", lambda: bench.seen("watch", "tailscaled-away"))
    until("shut", lambda: not bench.gate("egress_ok"))
    bench.world(f"says.{EXIT1}", IP1)
    bench.world(f"says.{EXIT2}", IP2)
    bench.world("backend", "Running")
    ready(bench)
    assert tries(bench) == [EXIT1, EXIT2, EXIT2]


def test_a_dead_watch_leaves_shut_gates(bench: Bench) -> None:
    """Nobody refreshes, the kernel closes: the dead man's switch."""
    process = begin(bench, TS_GATE_SECONDS="1", TS_BLOCKED_STOP_SECONDS="1")
    bench.close()
    assert process.poll() is not None
    until("egress gate expired", lambda: not bench.gate("egress_ok"))
    until("egress lease expired", lambda: bench.lease("egress") < 0)


def test_a_restarted_watch_goes_on_where_it_was(bench: Bench) -> None:
    """Same lock, same exit, no gate shut in between."""
    bench.silence(EXIT1)
    bench.start_watch()
    # The gates open before it is said that they are.
    until("acquired", lambda: bench.seen("watch", "lock-acquired"))
    bench.close()
    bench.world(f"says.{EXIT1}", IP1)
    bench.world("argv.log", "")
    bench.start("watch")
    until(
        "kept",
        lambda: bench.seen(
            "watch", "exit-active", why=f"Kept exit node {EXIT2} with validated egress IP {IP2}"
        ),
    )
    assert bench.seen("watch", "lock-resume")
    assert bench.calls("gate egress_ok open")
    assert not bench.calls(" shut")
    assert len(bench.seen("watch", "lock-acquired")) == 1


def test_a_restarted_watch_keeps_no_wrong_exit(bench: Bench) -> None:
    """What is selected is proven anew; if it shows a wrong address the gate is shut before the next try."""
    bench.start_watch()
    ready(bench)
    bench.close()
    bench.world(f"says.{EXIT1}", "198.51.100.77")
    bench.world("argv.log", "")
    bench.start("watch")
    until("second exit", lambda: bench.seen("watch", "exit-active", exit=EXIT2))
    assert bench.calls("gate egress_ok")[0].endswith(" shut")


@pytest.mark.parametrize("part", ["httpd", "port"])
def test_it_ends_when_a_part_of_it_ends(bench: Bench, part: str) -> None:
    """Without its port nobody sees the state: a failed task, which Nomad restarts."""
    taken = socket.socket()
    if part == "port":
        taken.bind(("0.0.0.0", bench.port))  # noqa: S104  # what httpd would bind
        taken.listen()
    process = bench.start_watch()
    if part == "httpd":
        ready(bench)
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"httpd\0" in (path / "cmdline").read_bytes() and os.getsid(int(path.name)) == process.pid:
                    os.kill(int(path.name), signal.SIGKILL)
    assert process.wait(timeout=5) == 13
    taken.close()
    assert bench.seen("watch", "watch-failed", code=13)


def test_old_evidence_is_removed_even_if_the_settings_are_wrong(bench: Bench) -> None:
    """A refusal leaves no file that says an exit was proven."""
    (bench.root / "shared/egress-selected").write_text("SELECTED_EXIT_NODE=x\n")
    assert bench.run("watch", TS_EXIT_NODE_PRIMARY="").returncode == 10
    assert not (bench.root / "shared/egress-selected").exists()


def test_old_evidence_is_removed_first(bench: Bench) -> None:
    """What an earlier run proved proves nothing now."""
    for name in ("egress-selected", "lease.lock", "lease.egress"):
        (bench.root / "shared" / name).write_text("9999999999999\n")
    bench.silence(EXIT1, EXIT2, EXIT3)
    bench.start_watch()
    until("a round", lambda: bench.seen("watch", "exits-none"))
    assert not [p for p in (bench.root / "shared").iterdir() if p.name.startswith(("lease", "egress"))]


def test_a_removed_table_is_loaded_again(bench: Bench) -> None:
    """Somebody deletes the kill switch: it comes back, and the gates open only after a new proof."""
    begin(bench)
    (bench.root / "world/table").unlink()
    until(
        "loaded", lambda: bench.seen("watch", "killswitch-missing") and (bench.root / "world/table").exists()
    )
    ready(bench)


# ------------------------------------------------------------------------------------------------ lock


def test_the_lock_waits_for_egress(bench: Bench) -> None:
    """A node without a way out does not keep the lock from one that has it."""
    bench.silence(EXIT1, EXIT2, EXIT3)
    bench.start_watch()
    until("a round", lambda: bench.seen("watch", "exits-none"))
    assert bench.fact("lock.log") == ""
    bench.world(f"says.{EXIT3}", IP3)
    ready(bench)


def test_another_holder_means_standby(bench: Bench) -> None:
    """409: egress is fine, ready is not, the reason is 20."""
    bench.world("nomad", "409")
    bench.start_watch()
    until("egress", lambda: bench.ask("egress")[0] == 200)
    until("waiting", lambda: bench.seen("watch", "lock-wait", code=20))
    status, body = bench.ask("ready")
    assert (status, body["lock"], body["lock_note"]["code"]) == (503, False, 20)
    assert not bench.gate("lock_ok")
    bench.world("nomad", "200")
    ready(bench)


@pytest.mark.parametrize("status", ["403", "404", "409"])
def test_a_refused_renewal_is_final(bench: Bench, status: str) -> None:
    """Gate shut and lease over at once, the id is dropped."""
    bench.start_watch()
    ready(bench)
    bench.world("nomad", status)
    until("lost", lambda: bench.seen("watch", "lock-lost", got=status))
    assert not bench.gate("lock_ok")
    assert bench.lease("lock") < 0
    assert not (bench.root / "local/lock-id").exists()


@pytest.mark.parametrize("mode", ["hang", "refused", "500"])
def test_an_agent_that_gives_no_answer_suspends_the_lock(bench: Bench, mode: str) -> None:
    """After HOLD the gate is shut; the id is kept, and one good renewal brings the lock back."""
    bench.start_watch(LOCK_HOLD_SECONDS="0.8")
    ready(bench)
    bench.world("nomad", mode)
    until("suspended", lambda: bench.seen("watch", "lock-suspended"))
    assert not bench.gate("lock_ok") and bench.lease("lock") < 0
    assert (bench.root / "local/lock-id").read_text().strip() == "lock-1"
    bench.world("nomad", "200")
    until("resumed", lambda: bench.seen("watch", "lock-resumed"))
    ready(bench)
    assert len(bench.seen("watch", "lock-acquired")) == 1


DIRECT: dict[str, str | None] = {
    "LOCK_DIRECT_SERVERS": "100.64.0.11:4646,100.64.0.12:4646",
    "LOCK_TLS_NAME": "server.global.nomad",
    "LOCK_CACERT": "/x/ca",
    "LOCK_CLIENT_CERT": "/x/cert",
    "LOCK_CLIENT_KEY": "/x/key",
}


def test_a_hanging_agent_is_bypassed(bench: Bench) -> None:
    """Asked directly, a server renews: the lock does not lapse."""
    bench.start_watch(LOCK_HOLD_SECONDS="1.5", **DIRECT)
    ready(bench)
    bench.world("direct", "200")
    bench.world("nomad", "hang")
    began = uptime_ms()
    until("direct", lambda: len(bench.seen("watch", "lock-direct")) >= 8 and uptime_ms() > began + 1600)
    assert bench.gate("lock_ok")
    assert not bench.seen("watch", "lock-suspended")


def test_a_dead_agent_is_not_bypassed(bench: Bench) -> None:
    """Nobody listens on the socket: the lease shall run out."""
    bench.start_watch(LOCK_HOLD_SECONDS="1.5", **DIRECT)
    ready(bench)
    bench.world("direct", "200")
    bench.world("nomad", "refused")
    until("suspended", lambda: bench.seen("watch", "lock-suspended"))
    assert not bench.seen("watch", "lock-direct")


def test_the_end_closes_first_and_releases_afterwards(bench: Bench) -> None:
    """On TERM the gates are shut, the leases over, the lock given back."""
    process = bench.start_watch()
    ready(bench)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert not bench.gate("egress_ok") and not bench.gate("lock_ok")
    assert bench.lease("lock") < 0 and bench.lease("egress") < 0
    assert "lock-release" in bench.fact("lock.log").splitlines()[-1]
    assert not (bench.root / "local/lock-id").exists()
    calls = bench.fact("argv.log").splitlines()
    release = max(n for n, line in enumerate(calls) if "lock-release" in line)
    for gate in ("egress_ok", "lock_ok"):
        assert [call for call in calls[:release] if f"gate {gate} " in call][-1].endswith(" shut")
    assert not [line for line in calls[release:] if line.startswith(("nft", "gate"))]


def test_what_is_asked_of_nomad(bench: Bench) -> None:
    """Path, namespace, both times, and who holds it."""
    bench.start_watch(NODE_NAME="c3", NOMAD_NAMESPACE="gvfx", LOCK_TTL_SECONDS="12.5", LOCK_DELAY_SECONDS="7")
    ready(bench)
    acquire = bench.fact("lock.log").splitlines()[0]
    assert "/v1/var/nomad/jobs/gvfx-worker/lock?lock-acquire&namespace=gvfx" in acquire
    for text in ('"TTL":"12500ms"', '"LockDelay":"7000ms"', '"holder":"alloc-1"', '"node":"c3"', "-X PUT"):
        assert text in acquire
    until("renewed", lambda: "lock-renew" in bench.fact("lock.log"))
    assert '"Lock":{"ID":"lock-1"}' in bench.fact("lock.log").splitlines()[-1]


def test_a_claim_is_never_longer_than_hold(bench: Bench) -> None:
    """Gate and lease end HOLD after the request was sent, however often it is renewed."""
    bench.start_watch(LOCK_HOLD_SECONDS="6")
    ready(bench)
    for _ in range(3):
        gate, before = int(bench.fact("gate.lock_ok")), uptime_ms()
        assert 0 < bench.lease("lock") <= 6000
        assert gate <= before + 6000
        until("renewed", lambda gate=gate: int(bench.fact("gate.lock_ok")) > gate)  # type: ignore[misc]


def test_a_freeze_on_the_way_to_the_kernel_lengthens_nothing(bench: Bench) -> None:
    """Frozen between reckoning and gate: the gate does not outlive the lease by the length of the freeze."""
    bench.start_watch(LOCK_HOLD_SECONDS="15", LOCK_RENEW_SECONDS="5")
    ready(bench)
    bench.world("freeze", "3")
    until("frozen and thawed", lambda: not bench.fact("freeze"), within=12.0)
    opened = len(bench.calls("gate lock_ok open"))
    until("gate set", lambda: len(bench.calls("gate lock_ok open")) >= opened + 2, within=8.0)
    gate = int(bench.fact("gate.lock_ok")) - uptime_ms()
    assert gate <= bench.lease("lock") + 1000
    # Set anew at once, not by the next renewal.
    lasts = [call for call in bench.calls("gate lock_ok open", "api.sock") if "lock" in call]
    assert lasts[-1] == lasts[-2] == "gate lock_ok open"


def test_a_lock_without_an_id_is_none(bench: Bench) -> None:
    """200 with a body that is not understood opens nothing."""
    bench.world("no-lock-id", "")
    bench.start_watch()
    until("said", lambda: "without a lock id" in str(bench.ask("ready")[1].get("lock_note")))
    assert not bench.gate("lock_ok")


def test_the_renewed_token_is_used(bench: Bench) -> None:
    """Nomad writes a new one into a file; the environment keeps the first."""
    (bench.root / "secrets/nomad_token").write_text("token-from-file")
    bench.start_watch()
    ready(bench)
    assert "token-from-file" in bench.fact("token.log")
    (bench.root / "secrets/nomad_token").write_text("token-renewed\n")
    until("used", lambda: "token-renewed" in bench.fact("token.log"))
    assert TOKEN not in bench.fact("token.log")


def test_the_token_is_never_an_argument(bench: Bench) -> None:
    """It reaches Nomad, by file, and no command line."""
    bench.start_watch()
    ready(bench)
    assert TOKEN in bench.fact("token.log")
    assert TOKEN not in bench.fact("argv.log")
    assert TOKEN not in bench.logs["watch"].read_text()
    assert (bench.root / "run/token").stat().st_mode & 0o777 == 0o600


def test_without_a_lock_only_egress_decides(bench: Bench) -> None:
    """The preflight's mode: no request to Nomad at all."""
    bench.silence(EXIT1, EXIT2, EXIT3)
    bench.start_watch(LOCK_MODE="none")
    until("a round", lambda: bench.seen("watch", "exits-none"))
    status, body = bench.ask("ready")
    assert (status, body["lock"], body["egress"]) == (503, True, False)
    bench.world(f"says.{EXIT1}", IP1)
    ready(bench)
    assert bench.fact("lock.log") == ""
