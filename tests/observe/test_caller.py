from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import ProbeError
from fixtures.history import judge
from fixtures.history.availability import AvailabilityTerms
from fixtures.observe import caller
from fixtures.observe.caller import Call, Caller, Name, longest_outage
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory

NAME = "gvfx-api.service.consul"


@contextmanager
def dns_server(answer: Callable[[dns.message.Message, int], dns.message.Message | None]) -> Iterator[int]:
    """One that answers by UDP; `answer` gets the query and how many there were before."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))

        def serve() -> None:
            asked = 0
            while True:
                data, peer = end.recvfrom(4096)
                if data == b"end":
                    return
                reply = answer(dns.message.from_wire(data), asked)
                asked += 1
                if reply is not None:
                    end.sendto(reply.to_wire(), peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield end.getsockname()[1]
        end.sendto(b"end", end.getsockname())
        thread.join(timeout=5)


def answered(query: dns.message.Message, *addresses: str) -> dns.message.Message:
    reply = dns.message.make_response(query)
    if addresses:
        reply.answer.append(dns.rrset.from_text(NAME + ".", 0, "IN", "A", *addresses))
    else:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    return reply


def test_a_name_is_what_its_server_says() -> None:
    with dns_server(lambda query, asked: answered(query, "100.64.0.4", "100.64.0.3")) as port:
        assert Name(NAME, ("127.0.0.1", port)).addresses() == ("100.64.0.3", "100.64.0.4")


def test_a_name_without_a_healthy_instance_has_no_address() -> None:
    with dns_server(lambda query, asked: answered(query)) as port:
        assert Name(NAME, ("127.0.0.1", port)).addresses() == ()


def test_one_lost_datagram_is_asked_for_again() -> None:
    with dns_server(lambda query, asked: answered(query, "100.64.0.3") if asked else None) as port:
        assert Name(NAME, ("127.0.0.1", port)).addresses() == ("100.64.0.3",)


def test_a_silent_or_failing_server_is_no_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(query: dns.message.Message, asked: int) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply

    with dns_server(refuse) as port, pytest.raises(ProbeError, match="SERVFAIL"):
        Name(NAME, ("127.0.0.1", port)).addresses()
    # Only a server that never answers may be given so little time: a busy machine is no silence.
    monkeypatch.setattr(caller, "RESOLVER_TIMEOUT", 0.05)
    with dns_server(lambda query, asked: None) as port, pytest.raises(ProbeError, match="Timeout"):
        Name(NAME, ("127.0.0.1", port)).addresses()


# -- calls ------------------------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """200 with a body, or what the server says."""

    def do_GET(self) -> None:
        status = getattr(self.server, "status", 200)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def service(address: str, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer((address, port), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def call(port: int, within: float = 2.0) -> Call:
    return Call("api", port, "/health", lambda status, body: status == 200, within)


def until(condition: Callable[[], bool]) -> None:
    assert eventually("condition", condition, bool, within=10.0, record=InMemory(), every=0.01).met


def test_every_address_of_an_answer_is_called() -> None:
    record = InMemory()
    with service("127.0.0.1") as one:
        port = one.server_port
        # Nobody listens at the second address.
        client = Caller(call(port), lambda: ("127.0.0.1", "127.0.0.2"), record, every=0.01)
        client.start()
        until(lambda: len(client.samples("api")) >= 8)
        client.stop()
    outcomes = [ok for _, ok in client.samples("api")]
    assert True in outcomes and False in outcomes
    assert client.addresses == {"127.0.0.1", "127.0.0.2"}
    refused = [event.data for event in record.events if event.name == "call failed"]
    assert {one["address"] for one in refused} == {"127.0.0.2"}
    assert {one["problem"] for one in refused} == {"ConnectionRefusedError"}


def test_the_last_call_to_each_address_is_told_and_an_older_one_that_ends_later_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = {"a": "", "b": "status 500, 21 bytes"}
    monkeypatch.setattr(Call, "made", lambda self, address: ends[address])
    client = Caller(call(1, within=2.0), lambda: ("a", "b"), InMemory(), kept={"kept": 0.0}, every=0.5)
    assert client.latest() == {}
    client._round()
    first = client.latest()
    assert {address: one.problem for address, one in first.items()} == ends
    ends["b"] = ""
    client._round()
    second = client.latest()
    assert second["b"].problem == "" and second["b"].sent > first["b"].sent
    client._sample("api", first["b"].sent, "b", "TimeoutError")
    client._sample("kept", second["b"].sent + 9, "b", "ConnectionRefusedError")
    client._sample("api", second["b"].sent + 9, "", "the name has no address")
    assert client.latest() == second
    assert client.patience == 0.5 + 2 * 1.0 + 2.0
    client.stop()


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_kept_answer_meets_what_a_new_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, answer, up = Clock(), ["a", "b"], {"a", "b"}
    monkeypatch.setattr(caller, "time", clock)
    monkeypatch.setattr(Call, "made", lambda self, address: "" if address in up else "refused")
    client = Caller(call(1), lambda: tuple(answer), InMemory(), kept={"kept": 0.5})

    def rounds(count: int) -> list[bool]:
        """Whether each call by a kept answer ended well, of so many rounds."""
        before = len(client.samples("kept"))
        for _ in range(count):
            client._round()
            clock.now = round(clock.now + 0.1, 3)
        return [ok for _, ok in client.samples("kept")][before:]

    assert rounds(5) == [], "no answer is old enough yet"
    assert rounds(2) == [True] * 4
    # It leaves the name and stops serving in one breath: five rounds go on to call it.
    answer.remove("b")
    up.remove("b")
    assert sorted(rounds(5)) == [False] * 5 + [True] * 5
    assert rounds(3) == [True] * 3
    assert all(ok for _, ok in client.samples("api"))
    assert client.addresses == {"a", "b"}
    client.stop()


def test_bad_answers_late_answers_and_no_address_are_all_bad_samples() -> None:
    record = InMemory()
    with service("127.0.0.1") as one:
        one.status = 503  # type: ignore[attr-defined]
        assert call(one.server_port).made("127.0.0.1") == "status 503, 15 bytes"
        one.status = 200  # type: ignore[attr-defined]
        assert call(one.server_port).made("127.0.0.1") == ""
        answers: list[tuple[str, ...]] = [("127.0.0.1",), ()]
        client = Caller(
            call(one.server_port), lambda: answers[-1] if len(answers) == 1 else answers.pop(0), record
        )
        client.start()
        until(lambda: bool(client.samples("api")))
        client.stop()
    assert client.samples("api")[0][1] is False
    assert any(event.data.get("problem") == "the name has no address" for event in record.events)


def test_what_hangs_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        assert call(deaf.getsockname()[1], 0.1).made("127.0.0.1") == "TimeoutError"


def test_nothing_is_called_through_a_name_that_has_no_address() -> None:
    client = Caller(call(1), tuple, InMemory())
    with pytest.raises(ProbeError, match="no address"):
        client.start()
    client.stop()
    assert client.samples("api") == []


def test_the_samples_are_those_the_checker_judges() -> None:
    record = InMemory()
    with service("127.0.0.1") as one:
        client = Caller(call(one.server_port), lambda: ("127.0.0.1",), record, every=0.01)
        client.start()
        until(lambda: len(client.samples("api")) > 20)
        client.stop()
    times = [sent for sent, _ in client.samples("api")]
    terms = AvailabilityTerms(
        what=("api",), since=times[0], until=times[-1], at_least=0.999, longest_s=1.0, max_gap_s=1.0
    )
    assert judge.judge(record.events, terms).outcome == "passed"


# -- outages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "longest"),
    [
        ([], 0.0),
        ([(0.0, True), (1.0, True)], 0.0),
        ([(0.0, True), (1.0, False), (3.0, True)], 3.0),
        ([(0.0, True), (1.0, False), (2.0, False), (4.5, True), (5.0, False), (5.5, True)], 4.5),
        ([(1.0, False), (2.0, True)], 1.0),
        ([(0.0, True), (1.0, False), (2.0, False)], 2.0),
        ([(3.0, False), (7.0, False)], 4.0),
    ],
)
def test_longest_outage(samples: list[tuple[float, bool]], longest: float) -> None:
    assert longest_outage(samples) == longest


@given(st.lists(st.booleans(), max_size=30))
def test_an_outage_is_as_long_as_between_two_good_calls(outcomes: list[bool]) -> None:
    samples = [(float(at), ok) for at, ok in enumerate(outcomes)]
    good = [at for at, ok in samples if ok]
    between = max((b - a for a, b in zip(good, good[1:], strict=False) if b - a > 1), default=0.0)
    assert longest_outage(samples) >= between
    assert (longest_outage(samples) > 0) <= (False in outcomes)
