"""What the acceptance tests share: the far end's counters since before the worker's cutover."""

from __future__ import annotations

import pytest

from fixtures.errors import Unknown
from fixtures.observe.ledger import EgressLedger
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
