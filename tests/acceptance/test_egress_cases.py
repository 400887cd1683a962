"""The tables of T3 and T4: nothing of the issue is left out, every edit fits the real spec, every id is a rule."""

from __future__ import annotations

import pytest

from acceptance import test_3_egress_block as t3
from acceptance import test_4_failover as t4
from fixtures.errors import Refused
from fixtures.history.rules import BY_ID, RULES
from fixtures.target import hcl, names
from fixtures.target.options import DEPLOY_DIR

SPEC = (DEPLOY_DIR / f"{names.WORKER_JOB}.nomad.hcl").read_text(encoding="utf-8")


class Keys:
    """Stands in for a target whose tailnet gives keys."""

    tailnet: Keys

    def __init__(self) -> None:
        self.tailnet = self

    def auth_key(self, state: str) -> str:
        return f"key-{state}"


def test_each_case_has_an_id_and_a_rule_of_its_test() -> None:
    for cases, test in ((t3.REFUSALS, "T3"), (t4.MODES, "T4")):
        ids = [case.id for case in cases]
        assert len(ids) == len(set(ids))
        assert {BY_ID[case.rule].test for case in cases} == {test}


def test_every_rule_of_both_tests_has_a_test() -> None:
    decided = {case.rule for case in t3.REFUSALS} | {case.rule for case in t4.MODES}
    for module in (t3, t4):
        for name, function in vars(module).items():
            if name.startswith("test_"):
                marks = getattr(function, "pytestmark", [])
                decided |= {mark.args[0] for mark in marks if mark.name == "rule"}
    assert {rule.id for rule in RULES if rule.test in {"T3", "T4"}} == decided


def test_every_mode_of_the_issue_is_a_case() -> None:
    assert {case.id for case in t3.REFUSALS} >= {
        "unknown-exit-name", "exit-not-approved", "exit-down", "exit-without-internet", "wrong-address",
        "own-address", "address-list-empty", "address-list-malformed", "control-plane-hangs", "key-unknown",
        "key-expired", "key-used", "sidecar-killed-before", "echo-down", "echo-lying", "ipv6-only", "dns-only",
        "websocket-elsewhere", "kill-switch-not-loaded",
    }  # fmt: skip
    assert {mode.id for mode in t4.MODES} >= {
        "killed", "frozen", "link-cut", "one-way-loss", "wrong-address", "unapproved", "host-down",
    }  # fmt: skip


@pytest.mark.parametrize("state", ["good", "unknown", "expired", "used"])
def test_a_key_takes_the_place_of_the_variable(state: str) -> None:
    mutate = t3._key(state)(Keys())  # type: ignore[arg-type]
    changed = mutate(SPEC)
    start, end = hcl.block(changed, 'task "tailscale"')
    assert f"        key-{state}\n        EOT" in changed[start:end]
    assert "nomadVar" not in changed[start:end]
    with pytest.raises(Refused):
        mutate(changed)


def test_the_kill_switch_task_loses_its_right_and_no_other_does() -> None:
    changed = t3._without_rights(Keys())(SPEC)  # type: ignore[arg-type]
    start, end = hcl.block(changed, 'task "killswitch"')
    assert "= []" in changed[start:end] and "net_admin" not in changed[start:end]
    assert changed.count('"net_admin"') == SPEC.count('"net_admin"') - 1


def test_a_node_is_named_in_the_groups_constraint() -> None:
    changed = t3._pinned("c4")(SPEC)
    start, end = hcl.block(changed, 'group "worker"')
    body = changed[start:end]
    assert body.count('attribute = "${node.unique.name}"') == 1
    assert 'value     = "c4"' in body
    assert len(changed) > len(SPEC)


def test_variables_of_the_cases_are_the_specs() -> None:
    for name in (
        names.EXIT_PRIMARY_VARIABLE,
        names.EXIT_FALLBACKS_VARIABLE,
        names.EXPECTED_IPS_VARIABLE,
        names.WAIT_VARIABLE,
        names.CHECK_URLS_VARIABLE,
        names.GUARD_ENV_VARIABLE,
        "ts_probe_timeout_seconds",
        "ts_node_addresses",
        "restart_attempts",
    ):
        assert f'variable "{name}"' in SPEC, name
    for name in names.WORKER_ADDRESSES:
        assert f"        {name} " in SPEC
