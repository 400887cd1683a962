"""The fence of services and data plane: the same in each of their groups, first, and with the one right it needs."""

import re
from pathlib import Path

import pytest

from fixtures.target import names
from tests.deploy.spec import JOBS, README, Spec, example, mutated, one, spec
from tests.guard.test_fence import SCRIPT, TAILNET, fenced

FENCED = [job for job in JOBS if not job.startswith("gvfx-worker")]
BODY = {
    "driver": "docker",
    "lifecycle": [{"hook": "prestart", "sidecar": False}],
    # No second try in the same namespace: the reason stays in the task's state, and another node may do better.
    "restart": [{"attempts": 0, "mode": "fail"}],
    "config": [
        {
            "image": "var.egress_image",
            "entrypoint": [f"/usr/local/bin/{SCRIPT.name}"],
            "force_pull": False,
            "cap_drop": ["all"],
            "cap_add": ["net_admin"],
        }
    ],
    "env": [{"FENCE_ALLOWED_CIDRS": "var.fence_allowed_cidrs"}],
    "resources": [{"cpu": 50, "memory": 64}],
}


def test_every_service_is_among_them_and_the_backup() -> None:
    """It has a namespace of its own as well, and a way to the stores is all it needs."""
    assert set(FENCED) == {*(job.id for job in names.SERVICES), names.BACKUP_JOB}


def unfenced(one_: Spec) -> list[str]:
    """What its fence lacks."""
    if names.FENCE_TASK not in one_.tasks:
        return ["no fence"]
    body = one_.tasks[names.FENCE_TASK].body
    return sorted(key for key in BODY.keys() | body.keys() if body.get(key) != BODY.get(key))


@pytest.mark.parametrize("job", FENCED)
def test_the_fence(job: str) -> None:
    """Exactly this, as the group's first task."""
    assert unfenced(spec(job)) == []
    assert next(iter(spec(job).tasks)) == names.FENCE_TASK


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        ('task "fence" {', 'task "gate" {', ["no fence"]),
        ('        cap_add    = ["net_admin"]\n', "", ["config"]),
        ('["/usr/local/bin/service-fence.sh"]', '["/bin/true"]', ["config"]),
        ("        sidecar = false\n", "        sidecar = true\n", ["lifecycle"]),
        ("FENCE_ALLOWED_CIDRS = var.fence_allowed_cidrs", 'FENCE_ALLOWED_CIDRS = "0.0.0.0/0"', ["env"]),
    ],
)
def test_a_fence_that_is_none_is_seen(old: str, new: str, lacks: list[str]) -> None:
    """Each by itself."""
    assert unfenced(mutated("gvfx-frontend", old, new)) == lacks


@pytest.mark.parametrize("job", FENCED)
def test_it_is_the_only_one_with_a_right(job: str) -> None:
    """What the service cannot change it cannot open."""
    rights = {task.name: task.config.get("cap_add") for task in spec(job).tasks.values()}
    assert {name for name, added in rights.items() if added} == {names.FENCE_TASK}


def test_the_worker_has_a_kill_switch_of_its_own() -> None:
    """Two tables in one namespace would both judge its packets, and one of them knows no exit."""
    for job in set(JOBS) - set(FENCED):
        assert names.FENCE_TASK not in spec(job).tasks
        assert "fence_allowed_cidrs" not in spec(job).variables


def test_settings_are_the_scripts() -> None:
    """A mistyped name would be ignored without a word; and spec, example and script have one default."""
    env = one(spec("gvfx-api").tasks[names.FENCE_TASK].body, "env")
    assert env.keys() <= set(re.findall(r"\bFENCE_[A-Z_]+\b", SCRIPT.read_text()))
    assert example()["fence_allowed_cidrs"] == TAILNET
    assert f"${{FENCE_ALLOWED_CIDRS-{TAILNET}}}" in SCRIPT.read_text()


def test_the_example_passes_the_scripts_own_checks(tmp_path: Path) -> None:
    code, said, _ = fenced(tmp_path, FENCE_ALLOWED_CIDRS=example()["fence_allowed_cidrs"])
    assert code == 0, said


def test_the_readme_explains_every_refusal() -> None:
    """Each code that the script's head lists and its body gives, and no other."""
    text = SCRIPT.read_text()
    head, body = text.split("set -uf", 1)
    given = set(re.findall(r"\bdie (\d+) ", body))
    listed = set(re.findall(r"(?m)(?<=[ #]{3})(\d\d)  ", head[head.index("# Exit codes") :]))
    section = README.read_text().split("## The fence\n", 1)[1].split("\n## ", 1)[0]
    (codes,) = re.findall(r"Exit codes of task `fence`: (.*?)\. ", section)
    assert given == listed == set(re.findall(r"\b\d\d\b", codes)) != set()
