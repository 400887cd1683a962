"""The tailscaled supervisor: one login when asked, the key by file, the reason of a refusal kept."""

import signal

import pytest

from tests.guard.bench import KEY, Bench, until


def begin(bench: Bench, **changes: str | None) -> None:
    """Start it behind a loaded table."""
    bench.world("table", "")
    bench.world("backend", "")
    bench.start("tailscale", **changes)


def ups(bench: Bench) -> list[str]:
    """Every `tailscale up` there was."""
    return [
        line
        for line in bench.fact("argv.log").splitlines()
        if line.startswith("tailscale ") and " up " in line
    ]


def test_login_when_asked_for(bench: Bench) -> None:
    """One `up`, with limits, and the key named by its file only."""
    begin(bench, TS_LOGIN_SERVER="https://10.77.0.30:8443", TS_ADVERTISE_TAGS="tag:gvfx-worker")
    until("running", lambda: bench.seen("tailscale", "backend", got="Running"))
    assert len(ups(bench)) == 1
    call = ups(bench)[0]
    assert f"--auth-key=file:{bench.root}/secrets/ts-authkey" in call
    for word in (
        "--timeout=",
        "--hostname=gvfx-worker-c3",
        "--accept-dns=false",
        "--accept-routes=false",
        "--login-server=https://10.77.0.30:8443",
        "--advertise-tags=tag:gvfx-worker",
    ):
        assert word in call
    assert KEY not in bench.fact("argv.log")
    assert KEY not in bench.logs["tailscale"].read_text()


def test_no_login_with_kept_state(bench: Bench) -> None:
    """A node that is logged in is left alone: a second `up` could interrupt it."""
    begin(bench, START="Running")
    until("running", lambda: bench.seen("tailscale", "backend", got="Running"))
    assert ups(bench) == []


def test_a_stopped_node_is_started_without_the_key(bench: Bench) -> None:
    """Somebody said `tailscale down`."""
    begin(bench, START="Stopped")
    until("running", lambda: bench.seen("tailscale", "backend", got="Running"))
    assert "--auth-key" not in ups(bench)[0]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("backend error: authkey expired", "authkey expired"),
        ("backend error: handling register with auth key: AuthKey not found", "AuthKey not found"),
        ("To authenticate, visit: https://login.test/a/0123456789abcdef0123456789", "visit: URL"),
        (f"bad key {KEY}0123456789abcdef0123456789 tskey-auth-abc", "bad key"),
    ],
)
def test_a_refused_login_is_told_without_secrets(bench: Bench, said: str, kept: str) -> None:
    """The reason is kept; keys and registration addresses are cut out."""
    bench.world("up-error", said)
    begin(bench)
    until("refused", lambda: bench.seen("tailscale", "login-failed", code=14))
    reason = (bench.root / "shared/login-error").read_text()
    assert kept in reason
    for secret in ("0123456789abcdef", "tskey-auth", "login.test"):
        assert secret not in reason + bench.logs["tailscale"].read_text()


def test_a_login_is_tried_again_and_the_reason_is_forgotten(bench: Bench) -> None:
    """The control plane was away: nothing is left of it after a success."""
    bench.world("up-error", "backend error: authkey expired")
    begin(bench)
    until("refused", lambda: bench.seen("tailscale", "login-failed", code=14))
    bench.world("up-error", "")
    until("running", lambda: bench.seen("tailscale", "backend", got="Running"))
    assert len(bench.seen("tailscale", "login-failed")) == 1
    assert not (bench.root / "shared/login-error").exists()


def test_a_missing_key_is_named(bench: Bench) -> None:
    """The variable is not there: said so, and no `up` without a key."""
    (bench.root / "secrets/ts-authkey").write_text("")
    begin(bench)
    until("refused", lambda: bench.seen("tailscale", "login-failed"))
    assert "no auth key" in bench.seen("tailscale", "login-failed")[0]["why"]
    assert ups(bench) == []


def test_missing_tags_are_named(bench: Bench) -> None:
    """A key without the tag logs in all the same; the tailnet's rules then do not fit."""
    begin(bench, TS_EXPECTED_TAGS="tag:gvfx-worker,tag:other")
    until(
        "refused", lambda: bench.seen("tailscale", "login-failed", want="tag:gvfx-worker,tag:other", code=14)
    )
    assert "lacks tag:other" in bench.seen("tailscale", "login-failed")[0]["why"]


def test_it_ends_with_its_daemon(bench: Bench) -> None:
    """tailscaled dies: a failed task, which Nomad restarts. TERM: a clean end."""
    begin(bench, START="Running")
    until("running", lambda: bench.seen("tailscale", "backend", got="Running"))
    process = bench.running[-1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert bench.seen("tailscale", "tailscaled-stopped")
    (bench.root / "bin/tailscaled").write_text("#!/bin/sh\nexit 3\n")
    begin(bench)
    assert bench.running[-1].wait(timeout=5) == 13


def test_a_login_that_hangs_does_not_delay_the_end(bench: Bench) -> None:
    """The control plane gives no answer: TERM ends login and daemon at once, long before the login's own limit."""
    path = bench.root / "bin/tailscale"
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "tailscale $*" >> {bench.root}/world/argv.log\nexec sleep 60\n'
    )
    begin(bench)
    until("logging in", lambda: ups(bench))
    process = bench.running[-1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert bench.seen("tailscale", "tailscaled-stopped")


def test_a_login_that_hangs_is_ended_and_named(bench: Bench) -> None:
    """Even a CLI that knows no limit: the outer one ends it, and the refusal is told."""
    path = bench.root / "bin/tailscale"
    path.write_text("#!/bin/sh\necho timeout waiting for Tailscale\nexec sleep 60\n")
    begin(bench, TS_UP_TIMEOUT_SECONDS="1", GVFX_UP_GRACE_SECONDS="0")
    until("refused", lambda: bench.seen("tailscale", "login-failed", code=14))
    assert "timeout waiting" in (bench.root / "shared/login-error").read_text()
