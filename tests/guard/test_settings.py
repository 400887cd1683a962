"""Settings: what is missing or malformed is named, by text and by exit code, before anything is touched."""

import json
import re

import pytest

from tests.guard.bench import EXIT1, EXIT2, IP1, IP2, SCRIPT, Bench, events_of

Case = tuple[str, dict[str, str | None], str]

DIRECT: dict[str, str | None] = {
    "LOCK_DIRECT_SERVERS": "100.64.0.11:4646",
    "LOCK_CACERT": "/x",
    "LOCK_CLIENT_CERT": "/x",
    "LOCK_CLIENT_KEY": "/x",
    "LOCK_TLS_NAME": "x",
}

MISSING: list[Case] = [
    ("guard", {"TS_EXIT_NODE_PRIMARY": None}, "Missing required env var: TS_EXIT_NODE_PRIMARY"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": ""}, "Missing required env var: TS_EXIT_NODE_PRIMARY"),
    ("guard", {"TS_EXIT_NODE_FALLBACKS": None}, "Missing required env var: TS_EXIT_NODE_FALLBACKS"),
    ("guard", {"TS_EGRESS_EXPECTED_IPS": ""}, "Missing required env var: TS_EGRESS_EXPECTED_IPS"),
    ("watch", {"TS_EGRESS_EXPECTED_IPS": None}, "Missing required env var: TS_EGRESS_EXPECTED_IPS"),
    ("check", {"TS_EXIT_NODE_PRIMARY": None}, "Missing required env var: TS_EXIT_NODE_PRIMARY"),
    ("tailscale", {"TS_HOSTNAME": None}, "Missing required env var: TS_HOSTNAME"),
    *[
        ("guard", {**DIRECT, name: None}, f"Missing required env var: {name}")
        for name in DIRECT
        if name != "LOCK_DIRECT_SERVERS"
    ],
]

DURATIONS = [
    ("guard", "TS_PROBE_INTERVAL_SECONDS"),
    ("guard", "TS_PROBE_TIMEOUT_SECONDS"),
    ("guard", "TS_WARM_SECONDS"),
    ("guard", "TS_GATE_SECONDS"),
    ("guard", "TS_WS_PROBE_SECONDS"),
    ("guard", "TS_RETURN_SECONDS"),
    ("guard", "TS_BLOCKED_STOP_SECONDS"),
    ("guard", "TS_WAIT_SECONDS"),
    ("guard", "LOCK_TTL_SECONDS"),
    ("guard", "LOCK_DELAY_SECONDS"),
    ("guard", "LOCK_HOLD_SECONDS"),
    ("guard", "LOCK_RENEW_SECONDS"),
    ("guard", "LOCK_WAIT_SECONDS"),
]
NUMBERS = [
    ("guard", "TS_PROBE_FAILS"),
    ("guard", "TS_SELECT_TRIES"),
    ("tailscale", "TS_UP_TIMEOUT_SECONDS"),
]

MALFORMED: list[Case] = [
    ("guard", {"TS_PROBE_INTERVAL_SECONDS": "1.2.3"}, "TS_PROBE_INTERVAL_SECONDS is not a number"),
    ("guard", {"TS_PROBE_INTERVAL_SECONDS": "-1"}, "TS_PROBE_INTERVAL_SECONDS is not a number"),
    ("guard", {"TS_PROBE_INTERVAL_SECONDS": "0.01"}, "TS_PROBE_INTERVAL_SECONDS is below"),
    ("guard", {"TS_PROBE_TIMEOUT_SECONDS": "0.01"}, "TS_PROBE_TIMEOUT_SECONDS is below"),
    ("guard", {"TS_WARM_SECONDS": "0.01"}, "TS_WARM_SECONDS is below"),
    ("guard", {"TS_PROBE_FAILS": "1.5"}, "TS_PROBE_FAILS is not a whole number"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": " , "}, "blank"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": f"{EXIT1},{EXIT2}"}, "more than one exit"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": "100.64.0.256"}, "malformed exit node"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": "100.64.0"}, "malformed exit node"),
    ("guard", {"TS_EXIT_NODE_PRIMARY": "100.064.0.1"}, "malformed exit node"),
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
    ("guard", {"TS_EGRESS_CHECK_URLS": "http://x/$(reboot)"}, "malformed probe URL"),
    ("guard", {"TS_EGRESS_CHECK_URLS": "ws://x/"}, "not http(s): ws://x/"),
    ("guard", {"TS_EGRESS_CHECK_URLS": "http://x:99999/"}, "malformed probe URL"),
    ("guard", {"TS_EGRESS_CHECK_WS_URL": "http://x/ws"}, "not a ws://"),
    ("guard", {"TS_PROBE_FAILS": "0"}, "at least 1"),
    ("guard", {"TS_GATE_SECONDS": "0.3"}, "TS_GATE_SECONDS must be above"),
    (
        "guard",
        {
            "TS_GATE_SECONDS": "0.5",
            "TS_EGRESS_CHECK_URLS": "http://x/,http://y/",
            "TS_EGRESS_CHECK_WS_URL": "",
        },
        "for each of the check URLs",
    ),
    ("guard", {"TS_GATE_SECONDS": "0.5"}, "WebSocket included"),
    ("guard", {"TS_BLOCKED_STOP_SECONDS": "0.5"}, "TS_BLOCKED_STOP_SECONDS"),
    ("guard", {"LOCK_MODE": "maybe"}, "LOCK_MODE"),
    ("guard", {"LOCK_HOLD_SECONDS": "20"}, "LOCK_HOLD_SECONDS must be below"),
    ("guard", {"LOCK_HOLD_SECONDS": "0.4"}, "LOCK_HOLD_SECONDS must be above"),
    ("guard", {**DIRECT, "LOCK_DIRECT_SERVERS": "server-1:4646"}, "LOCK_DIRECT_SERVERS"),
    ("guard", {"LOCK_TTL_SECONDS": "9"}, "minimum of 10"),
    ("guard", {"LOCK_DELAY_SECONDS": "0"}, "LOCK_DELAY_SECONDS"),
    ("guard", {"LOCK_PATH": "../secrets"}, "LOCK_PATH"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": "10.77.0.0/33"}, "TS_TRANSPORT_CIDRS"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": "10.77.0.0"}, "TS_TRANSPORT_CIDRS"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": "010.0.0.0/8"}, "TS_TRANSPORT_CIDRS"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": "10.0.0.0/08"}, "TS_TRANSPORT_CIDRS"),
    ("killswitch", {"TS_TRANSPORT_CIDRS": " , "}, "TS_TRANSPORT_CIDRS or TS_TRANSPORT_TCP_PORTS is empty"),
    ("killswitch", {"TS_TRANSPORT_TCP_PORTS": "0"}, "TS_TRANSPORT_TCP_PORTS"),
    ("killswitch", {"TS_NOMAD_SERVERS": "10.77.0.11"}, "TS_NOMAD_SERVERS"),
    ("killswitch", {"TS_POD_CIDR": "172.26.64.0/20; accept"}, "TS_POD_CIDR"),
    ("killswitch", {"TS_UPLINK": 'eth0" accept #'}, "TS_UPLINK"),
    ("killswitch", {"TS_INTERFACE": 'tailscale0" accept #'}, "TS_INTERFACE"),
    ("tailscale", {"TS_HOSTNAME": "a b"}, "TS_HOSTNAME"),
]
for command_, name_ in DURATIONS:
    MALFORMED.append((command_, {name_: "soon"}, f"{name_} is not a number of seconds: soon"))
for command_, name_ in NUMBERS:
    MALFORMED.append((command_, {name_: "08"}, f"{name_} is not a whole number: 08"))


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
    assert not [call for call in bench.calls() if call.startswith("nft -f")]


def test_every_refusal_of_a_setting_is_provoked_above(bench: Bench) -> None:
    """The tables above leave out no message of the script: a new refusal needs a case of its own."""
    said = {
        events_of(bench.run(command, **change).stdout)[-1]["why"]
        for command, change, _ in MISSING + MALFORMED
    }
    templates = set(re.findall(r'die 1[01] "((?:[^"\\]|\\.)*)"', SCRIPT.read_text()))
    assert len(templates) > 30
    unheard = []
    for template in templates:
        literal = [re.escape(part) for part in re.split(r"\$\{?\w+\}?", template)]
        if not any(re.fullmatch("ERROR: " + ".*".join(literal), why, re.S) for why in said):
            unheard.append(template)
    assert unheard == []


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


def test_a_gate_may_just_outlast_all_urls(bench: Bench) -> None:
    """The bound counts the URLs: what is refused for two is right for one."""
    change: dict[str, str | None] = {
        "TS_GATE_SECONDS": "0.5",
        "TS_EGRESS_CHECK_URLS": "http://198.51.100.80/",
        "TS_EGRESS_CHECK_WS_URL": "",
    }
    assert bench.run("guard", TS_WAIT_SECONDS="0", **change).returncode == 12


@pytest.mark.parametrize("words", [(), ("frobnicate",), ("run",), ("run", "--")])
def test_usage(bench: Bench, words: tuple[str, ...]) -> None:
    """Code 2 for a call that makes no sense."""
    done = bench.run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_version_needs_nothing(bench: Bench) -> None:
    """It names itself; missing tools are no error."""
    done = bench.run(
        "version", GVFX_NFT="/nonexistent", GVFX_CURL="/nonexistent", GVFX_TAILSCALE="/nonexistent"
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "worker-egress-guard")


def test_a_refusal_is_one_line_of_json_whatever_was_given(bench: Bench) -> None:
    """Quotes, backslashes, control characters and half a UTF-8 character do not break the line."""
    nasty = 'a"b\\c\td\x01é' + "\udcc3"
    done = bench.run("guard", TS_PROBE_INTERVAL_SECONDS=nasty)
    assert done.returncode == 11
    (line,) = done.stdout.splitlines()
    fields = json.loads(line)
    assert set(fields) == {"t", "event", "exit", "want", "got", "why", "code", "alloc"}
    assert fields["why"] == 'ERROR: TS_PROBE_INTERVAL_SECONDS is not a number of seconds: a"b\\c d '
