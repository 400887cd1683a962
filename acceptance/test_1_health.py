"""Acceptance test 1: health endpoints, of every instance, live and not vacuous."""

from __future__ import annotations

import ipaddress
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from fixtures.errors import ProbeError, Unknown
from fixtures.faults import AllocFreeze, Journal
from fixtures.observe import inside, schemas, user
from fixtures.observe.convex import ConvexProbe, ConvexSilent
from fixtures.observe.eventually import eventually
from fixtures.observe.http import Sample
from fixtures.observe.listening import listeners
from fixtures.observe.nomad_types import Service
from fixtures.observe.reachability import reachable
from fixtures.readiness import exposure
from fixtures.rollout import checks, planted, stores, users
from fixtures.rollout.entries import ScratchRows
from fixtures.rollout.undoing import afterwards
from fixtures.target import deadlines, names, pairs
from fixtures.target.target import Target

pytestmark = [pytest.mark.phase2, pytest.mark.phase3, pytest.mark.usefixtures("phase2")]

Measure = Callable[..., None]
GAPS = "/ops/gaps/health?limit=250"
ALERTS = "/ops/alerts"
VISIBLE = 10.0
"""Seconds until a row in the store shows in an endpoint that reads it on every request."""
OUTAGE = 20.0
"""Seconds the store is away at most: the API's own limit for a call, one answer of each instance, and our own call."""
SILENCE = 3.0
"""Seconds without an answer to a call of our own, after which the store is known to be away."""
ANY_TABLE = "acceptance_snapshot"
"""What our own calls ask the store for: whether it answers is what counts."""


def _latency(target: Target, samples: list[Sample]) -> float:
    slowest = max(one.latency for one in samples)
    limit = target.config.gvfx_health_latency_seconds
    assert slowest <= limit, f"slowest answer took {slowest:.2f} s, limit {limit:.2f} s"
    return round(slowest, 4)


def _each(target: Target, job: names.Job, path: str, token: SecretStr | None = None) -> list[Sample]:
    """One answer of every registered instance, as many as the plan says."""
    return [
        checks.must_answer(target, checks.url(one, path), token=token)
        for one in checks.instances(target, job)
    ]


def _all_200(samples: list[Sample]) -> None:
    bad = [f"{one.url}: {one.status} {one.text[:80]!r}" for one in samples if one.status != 200]
    assert not bad, "; ".join(bad)


@pytest.mark.rule("T1.1")
def test_every_api_instance_is_healthy(target: Target, measure: Measure) -> None:
    """Each registered instance answers /health with the documented body, in time."""
    samples = _each(target, names.API, "/health")
    _all_200(samples)
    wrong = [one.text[:80] for one in samples if one.json() != {"status": "ok"}]
    assert not wrong, f"not the documented body: {wrong}"
    measure(instances=len(samples), slowest_seconds=_latency(target, samples))


@pytest.mark.rule("T1.2")
def test_gap_health_has_schema_and_truth(target: Target, entries: Journal, measure: Measure) -> None:
    """Each instance's totals and gaps equal what stands in the store, which holds an open and a healing one at least."""
    token, convex = target.api_token(), target.convex()

    def stored() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {
            status: {str(row["id"]) for row in convex.rows(planted.GAPS, status=status)}
            for status in planted.STATES
        }
        lacking = [status for status, ids in found.items() if not ids]
        if lacking:
            # An API that fails answers zeros, and zero equals zero.
            raise Unknown("gaps in the store", f"none is {' or '.join(lacking)}", "one of each at least")
        return found

    def differences() -> list[str]:
        # The monitor may move a gap between the two readings, so truth is tried for, not sampled once.
        samples = _each(target, names.API, GAPS, token)
        _all_200(samples)
        truth, problems = stored(), []
        for sample in samples:
            body = sample.json()
            problems += [f"{sample.url}: {problem}" for problem in schemas.gaps_health(body)]
            if problems:
                continue
            totals = {status: body["totals"][status] for status in truth}
            counted = {status: len(ids) for status, ids in truth.items()}
            if totals != counted:
                problems.append(f"{sample.url}: totals {totals}, the store has {counted}")
            listed = {str(event["id"]) for event in body["open_events"]}
            if len(listed) < 250 and listed != truth["open"] | truth["healing"]:
                problems.append(f"{sample.url}: lists {len(listed)} events, the store has others")
        return problems

    with planted.a_gap_of_each_state(target, entries):
        eventually(
            "gap health equals the store",
            differences,
            lambda found: not found,
            within=VISIBLE,
            record=target.record,
        ).proven()
        samples = _each(target, names.API, GAPS, token)
        gaps = {status: len(ids) for status, ids in stored().items()}
    measure(instances=len(samples), slowest_seconds=_latency(target, samples), **gaps)


@pytest.mark.rule("T1.3")
def test_alerts_have_schema(target: Target, measure: Measure) -> None:
    """Each instance answers /ops/alerts with well-formed alerts, newest first."""
    samples = _each(target, names.API, ALERTS, target.api_token())
    _all_200(samples)
    problems = [f"{one.url}: {problem}" for one in samples for problem in schemas.alerts(one.json())]
    assert not problems, "; ".join(problems[:5])
    measure(
        instances=len(samples),
        alerts=max(len(one.json()) for one in samples),
        slowest_seconds=_latency(target, samples),
    )


@pytest.mark.rule("T1.4")
def test_token_is_demanded(target: Target, measure: Measure) -> None:
    """Each instance: 401 without, with an empty and with a wrong token; not 401 with the right one."""
    token = target.api_token()
    problems: list[str] = []
    asked = 0
    for one in checks.instances(target, names.API):
        for path in (GAPS, ALERTS):
            address = checks.url(one, path)
            wrong = {
                "no token": None,
                "an empty token": {"Authorization": "Bearer"},
                "a wrong token": {"Authorization": f"Bearer {token.get_secret_value()[::-1]}x"},
                "another scheme": {"Authorization": f"Basic {token.get_secret_value()}"},
            }
            for name, headers in wrong.items():
                asked += 1
                sample = checks.must_answer(target, address, headers=headers)
                if sample.status != 401:
                    problems.append(f"{address} with {name}: {sample.status}, not 401")
                elif sample.json() != {"error": "Unauthorized"}:
                    problems.append(f"{address} with {name}: body {sample.text[:60]!r}")
            right = checks.must_answer(target, address, token=token)
            if right.status != 200:
                problems.append(f"{address} with the token: {right.status}, not 200")
    assert not problems, "; ".join(problems)
    measure(refused=asked)


@pytest.mark.rule("T1.5")
def test_every_rl_instance_is_healthy(target: Target, measure: Measure) -> None:
    """Each registered instance answers /health with status ok and its libraries present."""
    samples = _each(target, names.RL, "/health")
    _all_200(samples)
    for one in samples:
        body = one.json()
        assert isinstance(body, dict) and body.get("status") == "ok", f"{one.url}: {one.text[:80]}"
        libraries = body.get("ml_dependencies")
        assert isinstance(libraries, dict) and libraries, f"{one.url}: no ml_dependencies"
        missing = sorted(name for name, there in libraries.items() if there is not True)
        assert not missing, f"{one.url}: without {missing}"
    measure(instances=len(samples), slowest_seconds=_latency(target, samples))


@pytest.mark.rule("T1.6")
def test_every_frontend_serves_and_reaches_the_api(target: Target, measure: Measure) -> None:
    """Each instance serves its page, and a call through it is answered by gvfx-api as a service, token and all."""
    samples: list[Sample] = []
    ends = users.api_ends(target)
    for one in checks.instances(target, names.FRONTEND):
        page = checks.must_answer(target, checks.url(one, "/"))
        assert page.status == 200, f"{page.url}: {page.status}"
        assert page.content_type.startswith("text/html"), f"{page.url}: {page.content_type}"
        through = checks.must_answer(target, checks.url(one, users.CALL))
        upstream = through.headers.get(user.UPSTREAM, "")
        problems = users.called(through.url, through.status, through.text, upstream, ends)
        assert not problems, "; ".join(problems)
        samples += [page, through]
    measure(instances=len(samples) // 2, slowest_seconds=_latency(target, samples))


@pytest.mark.rule("T1.7")
def test_every_pair_and_source_is_present(target: Target, measure: Measure) -> None:
    """Each instance lists every configured pair with each exchange feed, and each has data."""
    wanted = {
        (pairs.token(pair), source)
        for pair in target.config.supported_pairs
        for source in pairs.BINGX_THRESHOLDS_SECONDS
    }
    samples = _each(target, names.API, "/data-sources/status", target.api_token())
    _all_200(samples)
    stored = {
        (pairs.token(str(row["pair"])), str(row["source_type"])): row.get("last_seen_at")
        for row in target.convex().rows("data_source_status")
    }
    absent = sorted(key for key in wanted if stored.get(key) is None)
    assert not absent, f"{len(absent)} of {len(wanted)} have no data in the store: {absent[:5]}"
    for sample in samples:
        items: list[dict[str, Any]] = sample.json()
        listed = {(pairs.token(item["pair"]), item["source_type"]): item for item in items}
        missing = sorted(wanted - set(listed))
        assert not missing, f"{sample.url}: not listed: {missing[:5]}"
        # A row that never existed is `ok` with a null time: presence is decided by the time.
        empty = sorted(key for key in wanted if not schemas.is_stamp(listed[key].get("last_seen_at")))
        assert not empty, f"{sample.url}: listed without data: {empty[:5]}"
    measure(instances=len(samples), pairs=len(target.config.supported_pairs), feeds=len(wanted))


@pytest.mark.rule("T1.8")
def test_dependencies_answer_inside_the_tasks(target: Target, measure: Measure) -> None:
    """Each instance of each task resolves and reaches the addresses in its own environment."""
    problems: list[str] = []
    answered = 0
    for job in names.SERVICES:
        if not job.addresses:
            continue
        running = target.nomad.running(job.id, job.task)
        assert len(running) == job.count, f"{job.id}: {len(running)} running, plan says {job.count}"
        for alloc in running:
            for one in inside.dependencies(target.nomad, alloc.id, job.task, job.addresses):
                answered += one.ok
                if not one.ok:
                    problems.append(f"{job.id} on {alloc.node_name}: {one.variable} {one.host}: {one.error}")
    assert not problems, "; ".join(problems)
    measure(answered=answered)


@pytest.mark.rule("T1.9")
def test_catalogue_equals_running_allocations(target: Target, measure: Measure) -> None:
    """Registered instances are exactly the running allocations, and every check passes."""
    seconds = checks.catalogue_is_true(target, names.SERVICES)
    measure(services=len(names.SERVICES), seconds=round(seconds, 3))


@pytest.mark.rule("T1.10")
def test_planted_gap_appears_and_disappears(target: Target, entries: Journal, measure: Measure) -> None:
    """Plant an open and a healing gap in the store, see both in every instance's answer, remove them, see them gone."""
    token = target.api_token()

    def answers() -> list[list[planted.Row]]:
        samples = _each(target, names.API, GAPS, token)
        _all_200(samples)
        return [one.json().get("open_events", []) for one in samples]

    rows = tuple(map(planted.gap, planted.STATES))
    _appears_and_disappears(target, entries, measure, planted.GAPS, rows, answers)


@pytest.mark.rule("T1.11")
def test_planted_alert_appears_and_disappears(target: Target, entries: Journal, measure: Measure) -> None:
    """Plant an alert in the store, see it in every instance's answer and through every frontend, remove it, see it gone."""
    token = target.api_token()

    def answers() -> list[list[planted.Row]]:
        # A frontend that asks another stack shows well-formed alerts, and never this one.
        samples = _each(target, names.API, ALERTS, token) + _each(target, names.FRONTEND, users.CALL)
        _all_200(samples)
        return [one.json() for one in samples]

    _appears_and_disappears(target, entries, measure, planted.ALERTS, (planted.alert(),), answers)


def _appears_and_disappears(
    target: Target,
    entries: Journal,
    measure: Measure,
    table: str,
    rows: tuple[planted.Row, ...],
    answers: Callable[[], list[list[planted.Row]]],
) -> None:
    """`answers` asks everybody who must show the rows, and returns what each one lists."""
    target.require_scratch()
    wanted = {row["id"]: row["status"] for row in rows}

    def shown() -> list[dict[str, Any]]:
        """Of our rows, what each answer lists: the status by the id."""
        return [
            {item["id"]: item.get("status") for item in listed if item.get("id") in wanted}
            for listed in answers()
        ]

    assert not any(shown()), "shown before it was planted"
    with planted.planted(target, entries, table, *rows):
        appeared = eventually(
            f"planted rows of {table} are shown by everybody",
            shown,
            lambda found: all(one == wanted for one in found),
            within=VISIBLE,
            record=target.record,
        )
        appeared.proven()
    gone = eventually(
        f"removed rows of {table} are shown by nobody",
        shown,
        lambda found: not any(found),
        within=VISIBLE,
        record=target.record,
    )
    gone.proven()
    measure(appeared_seconds=round(appeared.elapsed, 3), gone_seconds=round(gone.elapsed, 3))


@pytest.mark.rule("T1.12")
def test_nothing_answers_from_outside_the_tailnet(target: Target, measure: Measure) -> None:
    """A machine off the tailnet connects to nothing that is planned, registered or listens, by whatever address."""
    hosts = target.hosts
    services = {(one.address, one.port) for job in names.SERVICES for one in target.instances(job.service)}
    if not services:
        raise Unknown("registered services", "none", "every service of the plan")
    cluster = [name for role in ("server", "witness", "app", "egress") for name in hosts.names(role)]
    registered = exposure.registered_ports(target)
    ends = set(services)
    for host in cluster:
        addresses = {hosts.tailnet_address(host), hosts.underlay_address(host)} - {None}
        ports = exposure.ports(registered, listeners(hosts, host, target.record))
        ends |= {(str(address), port) for address in addresses for port in ports}
    control = target.config.gvfx_outside_control
    if control is None:
        raise Unknown("outsider", "GVFX_OUTSIDE_CONTROL is not set", "an address an outsider must reach")
    address, _, port = control.rpartition(":")
    found: dict[str, list[tuple[str, int]]] = {}
    tried = 0
    for outsider in hosts.names("outsider"):
        tried += len(ends)
        opened = reachable(hosts, outsider, {*ends, (address, int(port))}, target.record)
        if (address, int(port)) not in opened:
            raise Unknown(f"host {outsider}", f"cannot reach {control} either", "a working network")
        found[outsider] = sorted(opened - {(address, int(port))})
    if not found:
        raise Unknown("outsider", "the target has no such host", "at least one machine off the tailnet")
    inside_host = hosts.names("ops")[0]
    known = reachable(hosts, inside_host, services, target.record)
    if known != services:
        raise Unknown(
            f"host {inside_host}", f"reaches {len(known)} of {len(services)} services", "all: a true control"
        )
    assert not any(found.values()), f"reachable from outside: {found}"
    ports_tried = len({port for _, port in ends})
    measure(endpoints=tried, ports=ports_tried, hosts=len(cluster), control_services=len(known))


@pytest.mark.rule("T1.13")
def test_data_plane_is_used(target: Target, entries: Journal, measure: Measure) -> None:
    """A row written through Convex stands in Postgres, a file stored through it stands in the bucket."""
    target.require_scratch()
    checks.catalogue_is_true(target, names.DATA_PLANE)
    convex = target.convex()
    marker = f"acceptance-{uuid.uuid4()}"
    with entries.applied(ScratchRows(names.CONVEX.id, "acceptance_scratch", "marker", (marker,))):
        convex.insert("acceptance_scratch", {"marker": marker})
        table = stores.table_of(target, marker)
    with stores.file_in_bucket(target, convex, f"{marker} {'x' * 20_000}") as (_, found):
        measure(table=table, object=found)


@pytest.mark.rule("T1.14")
def test_registered_addresses_are_tailnet_addresses(target: Target, measure: Measure) -> None:
    """Every address in the catalogue lies in the tailnet's range."""
    network = ipaddress.ip_network(target.config.gvfx_tailnet_cidr)
    found: list[Service] = []
    for job in names.SERVICES:
        found += checks.instances(target, job)
    outside = [
        f"{one.name} {one.address}" for one in found if ipaddress.ip_address(one.address) not in network
    ]
    assert not outside, f"outside {network}: {outside}"
    measure(addresses=len(found))


@pytest.mark.disruptive
@pytest.mark.rule("T1.15")
def test_api_fails_loudly_without_its_store(target: Target, faults: Journal, measure: Measure) -> None:
    """Pauses Convex for seconds: gaps and alerts of every instance answer before, fail meanwhile, and answer again."""
    target.require("deploy")
    token, convex = target.api_token(), target.convex()
    running = target.nomad.running(names.CONVEX.id, names.CONVEX.task)
    assert len(running) == 1, f"{len(running)} Convex allocations run"
    questions = [
        checks.url(one, path) for path in (ALERTS, GAPS) for one in checks.instances(target, names.API)
    ]

    def ask(address: str) -> Sample:
        return checks.must_answer(target, address, token=token, timeout=OUTAGE / 3)

    def unanswered() -> list[str]:
        return checks.unanswered(target, questions, token, OUTAGE / 3)

    # Who fails all the time fails loudly, too; and who could not be asked before proves nothing by silence.
    eventually(
        "gaps and alerts are answered before the outage",
        unanswered,
        lambda found: not found,
        within=VISIBLE,
        record=target.record,
    ).known()
    convex.rows(ANY_TABLE)
    container = f"{names.CONVEX.task}-{running[0].id}"
    start = time.monotonic()
    with afterwards(lambda: _recovered(target)):
        # All at once: asked in turn, the last ones could be answered after the thaw.
        with (
            faults.applied(AllocFreeze(running[0].node_name, container, at_most=OUTAGE)),
            ThreadPoolExecutor(len(questions)) as pool,
        ):
            answers = list(pool.map(ask, questions))
            # The last question of all: a store that is silent now was so while the others were answered.
            _silent(target, convex.url)
            lasted = time.monotonic() - start
        if lasted > OUTAGE - 1:
            raise Unknown(
                "outage of the API's store", f"answers took {lasted:.1f} s", f"below {OUTAGE:.0f} s"
            )
        lies = [f"{one.url}: 200" for one in answers if one.status == 200]
        assert not lies, f"healthy answers without a store: {lies}"
    again = eventually(
        "gaps and alerts are answered again after the outage",
        unanswered,
        lambda found: not found,
        within=deadlines.SERVICE_VISIBLE,
        record=target.record,
    )
    again.proven()
    measure(
        statuses=sorted({one.status for one in answers}),
        slowest_seconds=round(max(one.latency for one in answers), 3),
        answered_again_after_seconds=round(again.elapsed, 3),
    )


def _silent(target: Target, url: str) -> None:
    """A call of our own gets no answer from the store: it is away. Raises Unknown when it gets one."""
    convex = ConvexProbe(url, target.record, timeout=SILENCE)
    try:
        convex.rows(ANY_TABLE)
    except ConvexSilent:
        return
    finally:
        convex.close()
    raise Unknown("outage of the API's store", "it answers a call of our own", "silence")


def _recovered(target: Target) -> None:
    """Leave the target as it was found: the store answers and its checks pass again."""

    def problems() -> list[str]:
        try:
            target.convex().rows(ANY_TABLE)
        except ProbeError as error:
            return [str(error)]
        return checks.catalogue_problems(target, names.CONVEX)

    eventually(
        "Convex is back after the outage",
        problems,
        lambda found: not found,
        within=deadlines.SERVICE_VISIBLE + OUTAGE,
        record=target.record,
    ).known()
