"""Settings: what is missing or malformed is named, by text and by exit code, before anything is touched."""

import pytest

from tests.guard.bench import EXIT1, EXIT2, IP1, IP2, Bench, events_of

MISSING = [
    ("guard", {"TS_EXIT_NODE_PRIMARY": None}, "Missing required env var: TS_EXIT_NODE_PRIMARY"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": ""}, "Missing required env var: TS_EXIT_NODE_PRIMARY"),
    ("guard", {"TS_EXIT_NODE_FALLBACKS": None}, "Missing required env var: TS_EXIT_NODE_FALLBACKS"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": ""}, "Missing required env var: TS_EGRESS_EXPECTED_IPS"),
    ("watch", {"TS_EGRESS_EXPECTED_IPS": None}, "Missing required env var: TS_EGRESS_EXPECTED_IPS"),
    ("check", {"TS_EXIT_NODE_PRIMARY": None}, "Missing required env var: TS_EXIT_NODE_PRIMARY"),
    ("tailscale", {"TS_HOSTNAME": None}, "Missing required env var: TS_HOSTNAME"),
]

MALFORMED = [
    ("guard", {"TS_EXIT_NODE_PRIMARY": " , "}, "blank"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": f"{EXIT1},{EXIT2}"}, "more than one exit"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": "100.64.0.256"}, "malformed exit node"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": "100.64.0"}, "malformed exit node"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": "--exit-node=x"}, "malformed exit node"),
    ("guard", {"TS_EXIT_NODE_FALLBACKS": "100.64.0.2;100.64.0.3"}, "malformed exit node"),
    ("guard", {"TS_EXIT_NODE_FALLBACKS": "$(reboot)"}, "malformed exit node"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": "banana"}, "malformed address: banana"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP1},{EXIT2}="}, "names no address"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP1}|999.1.1.1"}, "malformed address: 999.1.1.1"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP1},100.64.9.9={IP2}"}, "not configured: 100.64.9.9"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP1}"}, f"no address for exit {EXIT2}"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP1};{EXIT2}={IP2}"}, "malformed address"),
    ("guard", {"TS_NODE_ADDRESSES": "here"}, "TS_NODE_ADDRESSES"),
    ("guard", {"TS_EGRESS_CHECK_URLS": "ftp://x/"}, "malformed probe URL"),
    ("guard", {"TS_EGRESS_CHECK_URLS": " , "}, "holds no URL"),
    ("guard", {"TS_EGRESS_CHECK_URLS": "http://x:99999/"}, "malformed probe URL"),
    ("guard", {"TS_EGRESS_CHECK_WS_URL": "http://x/ws"}, "not a ws://"),
    ("guard", {"TS_PROBE_INTERVAL_SECONDS": "soon"}, "TS_PROBE_INTERVAL_SECONDS"),
    ("guard", {"TS_PROBE_INTERVAL_SECONDS": "1.2.3"}, "TS_PROBE_INTERVAL_SECONDS"),
    ("guard", {"TS_PROBE_FAILS": "0"}, "at least 1"),
    ("guard", {"TS_PROBE_FAILS": "two"}, "TS_PROBE_FAILS"),
    ("guard", {"TS_GATE_SECONDS": "0.3"}, "TS_GATE_SECONDS must be above"),
    ("guard", {"TS_BLOCKED_STOP_SECONDS": "0.5"}, "TS_BLOCKED_STOP_SECONDS"),
    ("guard", {"LOCK_MODE": "maybe"}, "LOCK_MODE"),
    ("guard", {"LOCK_HOLD_SECONDS": "20"}, "LOCK_HOLD_SECONDS must be below"),
    ("guard", {"LOCK_TTL_SECONDS": "9"}, "minimum of 10"),
    ("guard", {"LOCK_DELAY_SECONDS": "0"}, "LOCK_DELAY_SECONDS"),
    ("guard", {"LOCK_PATH": "../secrets"}, "LOCK_PATH"),
    ("guard", {"LOCK_WAIT_SECONDS": "long"}, "LOCK_WAIT_SECONDS"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": "10.77.0.0/33"}, "TS_TRANSPORT_CIDRS"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": "10.77.0.0"}, "TS_TRANSPORT_CIDRS"),
    ("killswitch", {"TS_TRANSPORT_TCP_PORTS": "0"}, "TS_TRANSPORT_TCP_PORTS"),
    ("killswitch", {"TS_NOMAD_SERVERS": "10.77.0.11"}, "TS_NOMAD_SERVERS"),
    ("killswitch", {"TS_POD_CIDR": "172.26.64.0/20; accept"}, "TS_POD_CIDR"),
    ("killswitch", {"TS_UPLINK": 'eth0" accept #'}, "TS_UPLINK"),
    ("tailscale", {"TS_HOSTNAME": "a b"}, "TS_HOSTNAME"),
]


@pytest.mark.parametrize(("command", "change", "text"), MISSING)
def test_a_missing_setting_is_named(
    bench: Bench, command: str, change: dict[str, str | None], text: str
) -> None:
    """Code 10, the name in the log, and no tool was called."""
    done = bench.run(command, **change)
    assert done.returncode == 10, done
    assert text in events_of(done.stdout)[-1]["why"]
    assert bench.fact("argv.log") == ""


@pytest.mark.parametrize(("command", "change", "text"), MALFORMED)
def test_a_malformed_setting_is_named(
    bench: Bench, command: str, change: dict[str, str | None], text: str
) -> None:
    """Code 11, the setting in the log, and the kernel was not touched."""
    done = bench.run(command, **change)
    assert done.returncode == 11, done
    last = events_of(done.stdout)[-1]
    assert text in last["why"] and last["code"] == 11
    assert "nft -f" not in bench.fact("argv.log")


@pytest.mark.parametrize(
    "change",
    [
        {"TS_EXIT_NODE_FALLBACKS": "", "TS_EGRESS_EXPECTED_IPS": IP1},
        {
            "TS_EXIT_NODE_FALLBACKS": f" {EXIT2} ,, {EXIT1},{EXIT2} ",
            "TS_EGRESS_EXPECTED_IPS": f"{IP1}, {IP2}",
        },
        {"TS_EGRESS_EXPECTED_IPS": f"{EXIT1}={IP2}|{IP1},{IP2}", "TS_EXIT_NODE_FALLBACKS": EXIT2},
        {"TS_EXIT_NODE_PRIMARY": "ex1", "TS_EXIT_NODE_FALLBACKS": "", "TS_EGRESS_EXPECTED_IPS": f"ex1={IP1}"},
        {"TS_EGRESS_CHECK_WS_URL": ""},
    ],
)
def test_every_form_of_the_lists_is_understood(bench: Bench, change: dict[str, str | None]) -> None:
    """The plan's shared list, own addresses, several per exit, blanks and repetitions, peers by name."""
    bench.start_watch(**change)
    done = bench.run("guard", **change)
    assert done.returncode == 0, done.stdout
    assert events_of(done.stdout)[-1]["got"] == IP1


@pytest.mark.parametrize("words", [(), ("frobnicate",), ("run",), ("run", "--")])
def test_usage(bench: Bench, words: tuple[str, ...]) -> None:
    """Code 2 for a call that makes no sense."""
    assert bench.run(*words).returncode == 2
