"""Thin: which plugins make up the suite, and the seeded defect of a matrix run."""

from __future__ import annotations

import hypothesis
import pytest

from drills.defects import catalogue, seeded
from fixtures.faults import Registry
from fixtures.target.change import DeploymentChange

pytest_plugins = [
    "pytester",
    "fixtures.plugin",
    "fixtures.pytest_judged",
    "fixtures.target.pytest_target",
    # After the target, whose fixture it completes.
    "fixtures.faults.pytest_faults",
    "fixtures.rollout.pytest_rollout",
    "fixtures.rollout.pytest_observation",
]

# How long an example takes says more about a busy machine than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def deployment_change() -> DeploymentChange | None:
    """The defect named by GVFX_DEFECT, applied to every deployment of this run."""
    return catalogue.change_from_environment()


@pytest.fixture(scope="session")
def fault_registry() -> Registry:
    """What a sweep can undo: faults, what tests do, and seeded defects."""
    return seeded.REGISTRY
