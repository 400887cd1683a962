"""What the acceptance tests share: the far end's counters since before the worker's cutover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.errors import SuiteError, Unknown
from fixtures.observe.capture import Capture
from fixtures.observe.ledger import FORBIDDEN, EgressLedger
from fixtures.rollout import egress
from fixtures.target.target import Target


@pytest.fixture(scope="session", autouse=True)
def far_end_baseline(target: Target) -> EgressLedger | None:
    """Read the counters before anything is deployed; None on a target without a far end of its own."""
    return EgressLedger(target.internet) if target.can("internet") else None


@pytest.fixture(scope="session")
def egress_ledger(target: Target, far_end_baseline: EgressLedger | None) -> EgressLedger:
    """The far end's counters since the start of the run, less what a test sent wrong on purpose."""
    if far_end_baseline is None:
        target.require("internet")
        raise Unknown("far end", "no baseline", "counters read at the start")
    return far_end_baseline


@pytest.fixture(scope="session")
def leak_capture(target: Target, egress_ledger: EgressLedger, run_dir: Path) -> Iterator[Capture]:
    """Every packet at the far end from where none may come, captured from here on and kept with the evidence."""
    hosts = target.hosts.names("internet")
    if len(hosts) != 1:
        raise Unknown("capture at the far end", f"hosts in its place: {hosts}", "one")
    found = Capture(target.hosts, hosts[0], target.record)
    allowed = [address for address, name in target.internet.sources().items() if name not in FORBIDDEN]
    found.start(egress.far_addresses(target), allowed)
    yield found
    # Evidence beside the counters: its loss decides nothing.
    with suppress(SuiteError):
        found.save(run_dir / "leaks.pcap")
    with suppress(SuiteError):
        found.stop()
