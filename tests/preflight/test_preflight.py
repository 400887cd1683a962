"""The preflight: the shipped specs hold, each check sees a spec that does not, and what cannot be read is said."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.errors import Refused
from fixtures.history.rules import BY_ID
from fixtures.preflight import __main__ as preflight
from fixtures.preflight import parse
from fixtures.preflight.checks import CHECKS
from fixtures.target import names
from fixtures.target.options import DEPLOY_DIR
from tests.deploy.test_nomad_parse import NOMAD
from toolchain import build

pytestmark = pytest.mark.skipif(
    NOMAD is None, reason="no nomad binary: `python -m toolchain.build` puts one into the cache"
)
Jobs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Every shipped job as Nomad reads it, with the example's values."""
    values = tmp_path_factory.mktemp("values") / "values.hcl"
    values.write_text(parse.usable((DEPLOY_DIR / parse.EXAMPLE).read_text()))
    found, missing = parse.all_jobs(Path(str(NOMAD)), DEPLOY_DIR, values)
    assert not missing
    return found


def broken(jobs: Jobs) -> dict[str, list[str]]:
    return {one.rule: found for one in CHECKS if (found := list(one.check(jobs)))}


def test_the_shipped_specs_hold(shipped: Jobs) -> None:
    assert len(shipped) == 9
    assert broken(shipped) == {}


def test_each_check_is_of_a_rule_of_its_own() -> None:
    assert len({one.rule for one in CHECKS}) == len(CHECKS)
    assert {one.rule for one in CHECKS} <= set(BY_ID)


def group(jobs: Jobs, job: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = jobs[job]["TaskGroups"]
    assert len(found) == 1
    return found[0]


def task(jobs: Jobs, job: str, name: str) -> dict[str, Any]:
    return next(one for one in group(jobs, job)["Tasks"] if one["Name"] == name)


def environment(jobs: Jobs, **values: str) -> None:
    task(jobs, names.WORKER_JOB, names.WATCH_TASK)["Env"].update(values)


def fence(jobs: Jobs, job: str) -> dict[str, Any]:
    return task(jobs, job, names.FENCE_TASK)


def allow(jobs: Jobs, networks: str) -> None:
    """What the API may call, with an echo that the worker is told by its address."""
    fence(jobs, API)["Env"].update(FENCE_ALLOWED_CIDRS=networks)
    environment(jobs, TS_EGRESS_CHECK_URLS="https://api.ipify.org, http://198.51.100.80/")


Seed = Callable[[Jobs], object]
WORKER, API = names.WORKER_JOB, names.API.id
SEEDS: dict[str, tuple[str, Seed]] = {
    "a job that may go to the witness": ("P0.5", lambda jobs: jobs[API].update(Constraints=None)),
    "a store without its volume": ("P0.8", lambda jobs: group(jobs, names.POSTGRES.id).update(Volumes=None)),
    "a volume that cannot be written": (
        "P0.8",
        lambda jobs: group(jobs, names.OBJECTSTORE.id)["Volumes"]["data"].update(ReadOnly=True),
    ),
    "copies that may share a node": ("P0.9", lambda jobs: group(jobs, API).update(Constraints=None)),
    "two databases": ("P1.1", lambda jobs: group(jobs, names.POSTGRES.id).update(Count=2)),
    "a store at another port": (
        "P1.2",
        lambda jobs: group(jobs, names.OBJECTSTORE.id)["Networks"][0]["ReservedPorts"][0].update(Value=9001),
    ),
    "convex registered with Nomad": (
        "P1.3",
        lambda jobs: group(jobs, names.CONVEX.id)["Services"][0].update(Provider="nomad"),
    ),
    "one RL service": ("P2.1", lambda jobs: group(jobs, names.RL.id).update(Count=1)),
    "an API under another name": (
        "P2.2",
        lambda jobs: group(jobs, API)["Services"][0].update(Name="api"),
    ),
    "a frontend that is a batch job": ("P2.3", lambda jobs: jobs[names.FRONTEND.id].update(Type="batch")),
    "a preflight of one node": ("P3.1", lambda jobs: jobs[names.EGRESS_CHECK_JOB].update(Type="batch")),
    "a worker on any node": (
        "P3.3",
        lambda jobs: jobs[WORKER]["Constraints"].pop(),
    ),
    "an API that is asked something else": (
        "T1.1",
        lambda jobs: group(jobs, API)["Services"][0]["Checks"][0].update(Path="/metrics"),
    ),
    "an RL service that is only connected to": (
        "T1.5",
        lambda jobs: group(jobs, names.RL.id)["Services"][0]["Checks"][0].update(Type="tcp"),
    ),
    "a frontend asked for its health": (
        "T1.6",
        lambda jobs: group(jobs, names.FRONTEND.id)["Services"][0]["Checks"][0].update(Path="/health"),
    ),
    "a database without a check": (
        "T1.9",
        lambda jobs: group(jobs, names.POSTGRES.id)["Services"][0].update(Checks=None),
    ),
    "a convex that is not asked for its version": (
        "T1.13",
        lambda jobs: group(jobs, names.CONVEX.id)["Services"][0]["Checks"].pop(0),
    ),
    "two workers": ("T2.1", lambda jobs: group(jobs, WORKER).update(Count=2)),
    "a canary beside the worker": ("T2.2", lambda jobs: jobs[WORKER]["Update"].update(Canary=1)),
    "a worker replaced while it is away": (
        "T2.2",
        lambda jobs: group(jobs, WORKER).update(Disconnect={"LostAfter": 10**9, "Replace": True}),
    ),
    "a worker without its lock": ("T2.2", lambda jobs: environment(jobs, LOCK_MODE="off")),
    "a worker that may be scaled": ("T2.6", lambda jobs: group(jobs, WORKER)["Scaling"].update(Max=3)),
    "an image that can change": (
        "T2.8",
        lambda jobs: task(jobs, API, "api")["Config"].update(image="registry/gvfx-backend:latest"),
    ),
    "a worker on the node's network": (
        "T3.1",
        lambda jobs: group(jobs, WORKER)["Networks"][0].update(Mode="host"),
    ),
    "a guard that comes afterwards": (
        "T3.2",
        lambda jobs: task(jobs, WORKER, names.GUARD_TASK)["Lifecycle"].update(Hook="poststart"),
    ),
    "no kill switch": (
        "T3.2",
        lambda jobs: group(jobs, WORKER)["Tasks"].remove(task(jobs, WORKER, names.KILLSWITCH_TASK)),
    ),
    "an API that may change its network": (
        "T3.4",
        lambda jobs: task(jobs, API, "api")["Config"].update(cap_add=["net_admin"]),
    ),
    "a frontend with a sidecar": (
        "T3.4",
        lambda jobs: task(jobs, names.FRONTEND.id, "frontend").update(Name=names.TAILSCALE_TASK),
    ),
    "a store without a fence": (
        "T3.4",
        lambda jobs: group(jobs, names.POSTGRES.id)["Tasks"].remove(fence(jobs, names.POSTGRES.id)),
    ),
    "a backup without a fence": (
        "T3.4",
        lambda jobs: group(jobs, names.BACKUP_JOB)["Tasks"].remove(fence(jobs, names.BACKUP_JOB)),
    ),
    "a fence that comes afterwards": (
        "T3.4",
        lambda jobs: fence(jobs, names.RL.id)["Lifecycle"].update(Hook="poststart"),
    ),
    "a fence that nobody waits for": (
        "T3.4",
        lambda jobs: fence(jobs, names.RL.id)["Lifecycle"].update(Sidecar=True),
    ),
    "a fence that is none": (
        "T3.4",
        lambda jobs: fence(jobs, names.FRONTEND.id)["Config"].update(entrypoint=["/bin/true"]),
    ),
    "a fence that is given something else to do": (
        "T3.4",
        lambda jobs: fence(jobs, names.FRONTEND.id)["Config"].update(args=["off"]),
    ),
    "a fence without its right": (
        "T3.4",
        lambda jobs: fence(jobs, names.CONVEX.id)["Config"].update(cap_add=None),
    ),
    "a fence with one right too many": (
        "T3.4",
        lambda jobs: fence(jobs, names.CONVEX.id)["Config"].update(cap_add=["net_admin", "net_raw"]),
    ),
    "a fence with the engine's rights": (
        "T3.4",
        lambda jobs: fence(jobs, names.CONVEX.id)["Config"].update(cap_drop=["net_raw"]),
    ),
    "a privileged fence": ("T3.4", lambda jobs: fence(jobs, API)["Config"].update(privileged=True)),
    "a fence in another namespace": (
        "T3.4",
        lambda jobs: group(jobs, API)["Networks"][0].update(Mode="host"),
    ),
    "a fence that lets everything out": ("T3.4", lambda jobs: allow(jobs, "100.64.0.0/10, 0.0.0.0/0")),
    "a fence that lets out to the echo": ("T3.4", lambda jobs: allow(jobs, "100.64.0.0/10,198.51.100.0/24")),
    "a fence with no list of networks": ("T3.4", lambda jobs: allow(jobs, "tailnet")),
    "a fence that lets nothing out": ("T3.4", lambda jobs: allow(jobs, " , ")),
    "addresses good for any exit": (
        "T3.25",
        lambda jobs: environment(jobs, TS_EGRESS_EXPECTED_IPS="203.0.113.11,203.0.113.12"),
    ),
    "two exits with one address": (
        "T3.25",
        lambda jobs: environment(
            jobs, TS_EGRESS_EXPECTED_IPS="100.64.0.101=203.0.113.11,100.64.0.102=203.0.113.11"
        ),
    ),
    "a worker that is root": ("T3.26", lambda jobs: task(jobs, WORKER, "worker").update(User="root")),
    "a worker with capabilities": (
        "T3.26",
        lambda jobs: task(jobs, WORKER, "worker")["Config"].update(cap_drop=None),
    ),
    "no fallback": ("T4.1", lambda jobs: environment(jobs, TS_EXIT_NODE_FALLBACKS="")),
    "a service that gives up": (
        "T7.1",
        lambda jobs: group(jobs, API)["ReschedulePolicy"].update(Unlimited=False, Attempts=2),
    ),
}  # fmt: skip


CONSEQUENCES: dict[str, set[str]] = {
    "an API under another name": {"T1.1"},
    "a frontend with a sidecar": {"P2.3"},
}
"""Other rules that a seed breaks, and must."""


@pytest.mark.parametrize("name", SEEDS)
def test_each_check_sees_a_spec_that_is_wrong(shipped: Jobs, name: str) -> None:
    rule, seed = SEEDS[name]
    jobs = copy.deepcopy(shipped)
    seed(jobs)
    assert set(broken(jobs)) - CONSEQUENCES.get(name, set()) == {rule}


def test_what_the_api_must_call_may_be_let_out(shipped: Jobs) -> None:
    """Another network, and a capability under its other name, are no fault; nor is a target without a backup."""
    jobs = copy.deepcopy(shipped)
    allow(jobs, "100.64.0.0/10,203.0.113.0/24")
    fence(jobs, API)["Config"].update(cap_add=["CAP_NET_ADMIN"])
    del jobs[names.BACKUP_JOB]
    assert broken(jobs) == {}


def test_no_check_is_without_a_seed() -> None:
    assert {rule for rule, _ in SEEDS.values()} == {one.rule for one in CHECKS}


# -- the command -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Nomad that was found is the one that is used."""
    monkeypatch.setattr(build, "ensure", lambda names: {"nomad": Path(str(NOMAD))})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the shipped specs."""
    return Path(shutil.copytree(DEPLOY_DIR, tmp_path / "specs"))


def test_a_good_directory(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(["--deploy-dir", str(directory)]) == 0
    assert "(an example)" in capsys.readouterr().out


def test_a_wrong_one_is_named_by_its_rule(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = directory / "gvfx-worker.nomad.hcl"
    text = spec.read_text()
    assert text.count('mode = "bridge"') == 1
    spec.write_text(text.replace('mode = "bridge"', 'mode = "host"'))
    assert preflight.main(["--deploy-dir", str(directory), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert "T3.1" in said["broken"] and said["missing"] == {}


def test_what_is_missing_or_unreadable_is_neither_right_nor_wrong(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "gvfx-api.nomad.hcl").unlink()
    (directory / "gvfx-convex.nomad.hcl").write_text("job {")
    assert preflight.main(["--deploy-dir", str(directory)]) == 2
    said = capsys.readouterr().out
    assert "gvfx-api: no gvfx-api.nomad.hcl" in said and "gvfx-convex: " in said
    assert "27 of 27" not in said


def test_nothing_holds_where_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / parse.VARIABLES).touch()
    assert preflight.main(["--deploy-dir", str(tmp_path), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["held"] == [] and len(said["missing"]) == 8


def test_the_real_values_are_not_mended(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A placeholder in the file that would be deployed is what Nomad says it is."""
    shutil.copy(directory / parse.EXAMPLE, directory / parse.VARIABLES)
    assert preflight.main(["--deploy-dir", str(directory)]) == 2
    assert "must be an immutable image" in capsys.readouterr().out


def test_without_values_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(["--deploy-dir", str(tmp_path)]) == 3
    assert "no file of values" in capsys.readouterr().err
    with pytest.raises(Refused):
        parse.variables_of(tmp_path, tmp_path / "typo.hcl")
