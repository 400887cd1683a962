"""The seeded defects of the data plane: each changed spec is a spec, and breaks what it says."""

from __future__ import annotations

import hcl2
import pytest

from drills.defects import catalogue, durability
from drills.defects.defect import Defect
from fixtures.history.rules import RULES
from fixtures.target import names
from fixtures.target.options import DEPLOY_DIR
from fixtures.workloads import weakness

MUTATED = [one for one in durability.DEFECTS if any(change.mutate for change in one.jobs.values())]


@pytest.mark.parametrize("defect", MUTATED, ids=lambda one: one.id)
def test_a_changed_spec_is_a_spec(defect: Defect) -> None:
    ((job, change),) = defect.jobs.items()
    assert change.mutate is not None
    body = hcl2.loads(change.mutate((DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8")))
    assert len(body["job"]) == 1


def test_weaknesses_are_the_stand_ins() -> None:
    named = set()
    for defect in durability.DEFECTS:
        change = defect.jobs.get(names.CONVEX.id)
        if change is not None:
            assert change.override is not None
            environment = change.override({"convex_env": {"DO_NOT_REQUIRE_SSL": "1"}})["convex_env"]
            assert environment["DO_NOT_REQUIRE_SSL"] == "1"
            named |= set(weakness.parse(environment[weakness.ENV]).names())
    assert named == {
        "ack-before-commit",
        "drop-writes",
        "torn-files",
        "sqlite-fallback",
        "disk-files-fallback",
    }


def test_every_rule_of_durability_is_broken_twice() -> None:
    for rule in (one.id for one in RULES if one.test == "T5"):
        breaking = [one.id for one in durability.DEFECTS if rule in one.expected_red]
        assert len(breaking) >= 2, f"{rule} is broken by {breaking}"


def test_the_ephemeral_store_leaves_volume_and_checks_as_they_are() -> None:
    change = catalogue.BY_ID["objectstore-ephemeral"].jobs[names.OBJECTSTORE.id]
    assert change.mutate is not None
    before = (DEPLOY_DIR / f"{names.OBJECTSTORE.id}.nomad.hcl").read_text(encoding="utf-8")
    after = change.mutate(before)
    assert after.count("/volume/store") == before.count("/volume/store") > 0
    assert after.index("mkdir -p /alloc/data/store") < after.index('exec "$@"')
