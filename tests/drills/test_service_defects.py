"""The seeded defects of services, of what they tell, and of the cluster's edge."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import hcl2
import pytest

from drills.defects import answers, outside, services
from drills.defects.defect import WEAKNESS, Defect
from fixtures.errors import UndoError, Unknown
from fixtures.observe import schemas
from fixtures.preflight.checks import IMMUTABLE
from fixtures.readiness import exposure
from fixtures.rollout import users
from fixtures.target import names
from fixtures.target.capabilities import Completed
from fixtures.target.options import DEPLOY_DIR
from fixtures.target.target import Target
from fixtures.workloads import weakness
from fixtures.workloads.api.ops import ALERT_FIELDS, gap_health, shaped
from fixtures.workloads.weakness import Weakness

CHANGED = [
    pytest.param(job, change, id=f"{one.id}-{job}")
    for one in (*services.DEFECTS, *answers.DEFECTS, *outside.DEFECTS)
    for job, change in one.jobs.items()
]
IMAGE = f"registry.test:5000/gvfx/frontend:{'a' * 40}"
OWN = {names.EXPECTED_IPS_VARIABLE: "100.64.0.1=203.0.113.11,100.64.0.2=203.0.113.12"}


def spec(job: str) -> str:
    return (DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8")


@pytest.mark.parametrize(("job", "change"), CHANGED)
def test_a_changed_job_is_a_spec_and_its_variables_exist(job: str, change: Any) -> None:
    text = spec(job)
    if change.mutate is not None:
        assert len(hcl2.loads(change.mutate(text))["job"]) == 1
    for name in change.override(OWN) if change.override is not None else ():
        assert f'variable "{name}"' in text


@pytest.mark.parametrize(
    "defect",
    [one for one in services.DEFECTS if one.id.endswith("-never-long-enough")],
    ids=lambda one: one.id,
)
def test_only_a_rollout_must_be_healthy_for_so_long_not_a_drain(defect: Defect) -> None:
    ((job, change),) = defect.jobs.items()
    assert change.mutate is not None
    (body,) = hcl2.loads(change.mutate(spec(job)))["job"][0].values()
    (group,) = body["group"][0].values()
    assert "59.9s" in str(body["update"][0]["min_healthy_time"])
    assert "59.9s" not in str(group["migrate"][0])
    assert "false" in str(body["update"][0]["auto_revert"]).lower()


def test_an_api_of_one_node_is_not_the_service_and_nothing_else_is_wrong() -> None:
    asked = f"{services.ONE_API}/ops/alerts"
    (problem,) = users.called("call", 200, "[]", asked)
    assert "asked http://c1.node.consul:8787/ops/alerts, not gvfx-api.service.consul:8787" in problem
    assert users.called("call", 200, "[]", "http://gvfx-api.service.consul:8787/ops/alerts") == []


def test_the_moving_tag_is_one_and_every_node_has_it_meanwhile() -> None:
    said: list[tuple[str, list[str]]] = []

    def on(host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        said.append((host, argv))
        return Completed(0, "", "")

    hosts = SimpleNamespace(run=on, names=lambda role: {"app": ["c1"], "egress": ["c3"]}[role])
    deploy = SimpleNamespace(variables=lambda: {"frontend_image": IMAGE})
    with services._moving_tag(cast("Target", SimpleNamespace(hosts=hosts, deploy=deploy))):
        tags = [(host, argv[2:]) for host, argv in said if argv[1] == "tag"]
    assert [host for host, _ in tags] == ["c1", "c3"]
    assert {argv[0] for _, argv in tags} == {IMAGE}
    (moving,) = {argv[1] for _, argv in tags}
    assert IMMUTABLE.match(IMAGE) and not IMMUTABLE.match(moving)
    assert [argv[1:] for _, argv in said[-2:]] == [["rmi", moving]] * 2


def test_planted_gaps_are_well_formed_and_more_than_a_page() -> None:
    rows = [
        {**row, "id": str(number)} for number, row in enumerate(answers.gaps("BTC-USDT", datetime.now(UTC)))
    ]
    honest, weak = gap_health(rows, answers.PAGE), gap_health(rows, answers.PAGE, capped_totals=True)
    assert not schemas.gaps_health(honest) and not schemas.gaps_health(weak)
    assert (honest["totals"]["open"], weak["totals"]["open"]) == (answers.GAPS, answers.PAGE)


@pytest.mark.parametrize("defect", [one for one in answers.DEFECTS if one.jobs], ids=lambda one: one.id)
def test_weaknesses_of_the_api_exist(defect: Defect) -> None:
    for change in defect.jobs.values():
        assert change.override is not None
        for values in change.override({}).values():
            assert WEAKNESS not in values or weakness.parse(values[WEAKNESS]).on


def test_a_hidden_failure_is_hidden_by_both_endpoints() -> None:
    (change,) = next(one for one in answers.DEFECTS if one.id == "store-failure-hidden").jobs.values()
    assert change.override is not None
    on = weakness.parse(change.override({})["api_env"][WEAKNESS]).on
    assert on == {Weakness.GAPS_ZERO_ON_ERROR, Weakness.ALERTS_EMPTY_ON_ERROR}


def test_the_alert_of_another_tool_is_wrong_in_one_word() -> None:
    told = shaped(answers.alert(datetime.now(UTC)), ALERT_FIELDS)
    assert schemas.alerts([told]) == ["[0].severity is 'critical'"]
    assert not schemas.alerts([{**told, "severity": "high"}])


def test_an_open_fence_is_either_gone_or_wide_and_all_else_is_as_it_was() -> None:
    gone, wide = (
        {one.id: one for one in outside.DEFECTS}[name].jobs[names.FRONTEND.id]
        for name in ("frontend-on-egress-nodes", "fence-lets-all-out")
    )
    assert gone.mutate is not None and gone.override is not None and wide.override is not None

    def group(text: str) -> Any:
        (body,) = hcl2.loads(text)["job"][0].values()
        return next(iter(body["group"][0].values()))

    before, after = group(spec(names.FRONTEND.id)), group(gone.mutate(spec(names.FRONTEND.id)))
    fence, fenced = (one["task"][0]['"fence"'] for one in (after, before))
    assert "true" in str(fence["config"][0].pop("entrypoint"))
    fenced["config"][0].pop("entrypoint")
    assert before == after
    nodes = {"app_node_class": "egress-worker"}
    assert gone.override({}) == nodes
    assert wide.mutate is None and wide.override({}) == {**nodes, "fence_allowed_cidrs": "0.0.0.0/0"}


def test_swapped_addresses_belong_to_the_other_exit() -> None:
    assert outside.swapped(OWN) == {
        names.EXPECTED_IPS_VARIABLE: "100.64.0.1=203.0.113.12,100.64.0.2=203.0.113.11"
    }


NFT = r"""#!/bin/sh
# Keeps its rules in a file, one a line, with a number that stays.
case "$1" in
  insert) shift 5; [ ! -e @DIR@/refuse ] || exit 1; echo "  $* # handle 7" | sed 's/comment \(.*\) #/comment "\1" #/' >>@DIR@/rules ;;
  delete) [ -e @DIR@/stuck ] || sed -i "/# handle $7\$/d" @DIR@/rules ;;
  *) cat @DIR@/rules ;;
esac
"""


class Firewall:
    """A host whose nft is a small one, run for real."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.rules = directory, directory / "rules"
        self.rules.write_text('  iifname "eth0" drop # handle 3\n')
        tool = directory / "nft"
        tool.write_text(NFT.replace("@DIR@", str(directory)))
        tool.chmod(0o755)

    def run(self, host: str, argv: list[str], timeout: float = 10.0) -> Completed:
        path = f"{self.directory}:/usr/bin:/bin"
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": path})
        return Completed(done.returncode, done.stdout, done.stderr)

    @property
    def target(self) -> Target:
        return cast("Target", SimpleNamespace(hosts=self))


CHAIN = ("inet", "gvfx_host", "arriving")


def test_a_rule_of_ours_is_taken_back_and_no_other(tmp_path: Path) -> None:
    wall = Firewall(tmp_path)
    before = wall.rules.read_text()
    with outside._first_rule(wall.target, "c1", CHAIN, "tcp", "dport", "2375", "accept"):
        assert 'tcp dport 2375 accept comment "gvfx-defect" # handle 7' in wall.rules.read_text()
    assert wall.rules.read_text() == before


def test_a_rule_that_does_not_take_hold_is_no_defect_and_one_that_stays_is_said(tmp_path: Path) -> None:
    wall = Firewall(tmp_path)
    (tmp_path / "refuse").touch()
    with pytest.raises(Unknown), outside._first_rule(wall.target, "c1", CHAIN, "accept"):
        raise AssertionError("seeded")
    (tmp_path / "refuse").unlink()
    (tmp_path / "stuck").touch()
    with pytest.raises(UndoError), outside._first_rule(wall.target, "c1", CHAIN, "accept"):
        pass


def test_one_listener_is_on_a_list_and_the_other_on_none() -> None:
    assert outside.DOCKER in exposure.PLANNED
    assert outside.EXPORTER not in exposure.PLANNED
    assert not 20_000 <= outside.EXPORTER <= 32_000, "nor one that Nomad might give to a job"
