from __future__ import annotations

import pytest

from fixtures.errors import Refused, Unknown
from fixtures.observe.recording import InMemory
from fixtures.target import config
from fixtures.target.capabilities import CAPABILITIES
from fixtures.target.change import DeploymentChange
from fixtures.target.live import live_target
from fixtures.target.target import Target


@pytest.fixture
def settings() -> config.TargetConfig:
    return config.described({"nomad_addr": "http://127.0.0.1:1"})


def test_a_live_target_can_nothing_and_says_why(settings: config.TargetConfig) -> None:
    target = live_target(settings, InMemory())
    for name in CAPABILITIES:
        assert not target.can(name)
        with pytest.raises(Unknown, match="public interfaces"):
            target.require(name)
    with pytest.raises(Unknown, match="SCRATCH"):
        target.require_scratch()
    with pytest.raises(Refused):
        target.change_deployments(DeploymentChange("defect"))
    target.close()


def test_missing_settings_are_unknown_not_failed(settings: config.TargetConfig) -> None:
    target = live_target(settings, InMemory())
    for question in (target.postgres, target.objectstore, target.api_token, target.convex):
        with pytest.raises(Unknown, match="not set"):
            question()
    target.close()


def test_closing_calls_the_builder_once_connections_are_gone(settings: config.TargetConfig) -> None:
    closed: list[str] = []
    target = Target(
        settings, InMemory(), {}, scratch=True, label="x", on_close=lambda: closed.append("closed")
    )
    target.require_scratch()
    target.close()
    assert closed == ["closed"]
