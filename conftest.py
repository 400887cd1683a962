"""Thin: which plugins make up the suite, and the seeded defect of a matrix run."""

from __future__ import annotations

import pytest

from drills.defects import catalogue
from fixtures.target.change import DeploymentChange

pytest_plugins = [
    "pytester",
    "fixtures.plugin",
    "fixtures.target.pytest_target",
    "fixtures.rollout.pytest_rollout",
]


@pytest.fixture(scope="session")
def deployment_change() -> DeploymentChange | None:
    """The defect named by GVFX_DEFECT, applied to every deployment of this run."""
    return catalogue.change_from_environment()
