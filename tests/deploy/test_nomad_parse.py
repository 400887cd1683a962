"""What Nomad itself makes of the specs, where its binary is at hand. No agent is asked."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from tests.deploy.spec import DEPLOY, EXAMPLE, JOBS, spec
from tests.deploy.test_lifecycle import COPIES, seconds

SHA = "0123456789abcdef" * 2 + "01234567"


def found() -> str | None:
    """Nomad in the suite's cache or on PATH; never built here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gvfx/toolchain"
    built = sorted(cache.glob("nomad-*/nomad"))
    return str(built[-1]) if built else shutil.which("nomad")


NOMAD = found()
pytestmark = pytest.mark.skipif(
    NOMAD is None, reason="no nomad binary: `python -m toolchain.build` puts one into the cache"
)


def nomad(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it without any address or token."""
    return subprocess.run(
        [str(NOMAD), *words],
        cwd=DEPLOY,
        env={"PATH": "/usr/bin:/bin", "NOMAD_ADDR": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def values(directory: Path, image: str = SHA, **more: str) -> Path:
    """The example file with images that may be deployed."""
    text = EXAMPLE.read_text()
    assert text.count("replace-with-git-sha") == 8
    path = directory / "variables.hcl"
    path.write_text(
        text.replace("replace-with-git-sha", image) + "".join(f"{k} = {v}\n" for k, v in more.items())
    )
    return path


def output(job: str, file: Path) -> subprocess.CompletedProcess[str]:
    """`nomad job run -output`: parse, validate the variables, print JSON, submit nothing."""
    return nomad("job", "run", "-output", "-hcl2-strict=false", f"-var-file={file}", f"{job}.nomad.hcl")


@functools.cache
def parsed(job: str) -> dict[str, Any]:
    """The job as Nomad reads it, with the example's values."""
    with tempfile.TemporaryDirectory() as directory:
        done = output(job, values(Path(directory)))
    assert done.returncode == 0, done.stderr
    return cast("dict[str, Any]", json.loads(done.stdout)["Job"])


def tasks(job: str) -> dict[str, dict[str, Any]]:
    """Tasks by name."""
    (group,) = parsed(job)["TaskGroups"]
    return {task["Name"]: task for task in group["Tasks"]}


def test_the_files_are_formatted() -> None:
    """nomad fmt would change nothing."""
    done = nomad("fmt", "-check", "-list", ".")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("job", JOBS)
def test_nomad_reads_the_same(job: str) -> None:
    """python-hcl2 and Nomad agree on what the checks in this directory look at."""
    ours, theirs = spec(job), parsed(job)
    assert (theirs["ID"], theirs["Type"]) == (job, ours.job["type"])
    (group,) = theirs["TaskGroups"]
    assert group["Count"] == COPIES.get(job, group["Count"])
    assert [task["Name"] for task in group["Tasks"]] == list(ours.tasks)
    for name, task in tasks(job).items():
        mine = ours.tasks[name]
        assert task["Config"]["image"].endswith(f":{SHA}")
        for key in ("cap_add", "cap_drop"):
            assert task["Config"].get(key) == mine.config.get(key), (name, key)
        lifecycle = task["Lifecycle"] or {}
        hook = " ".join(filter(None, [lifecycle.get("Hook"), "sidecar" if lifecycle.get("Sidecar") else ""]))
        assert (hook or "main") == mine.hook
        assert len(task["Templates"] or []) == len(mine.templates)
        # A name that our reader finds and Nomad drops is one whose value is empty (`if value != ""`).
        env = ours.environment(mine)
        dropped = env.keys() - (task["Env"] or {}).keys()
        assert dropped <= {"BINGX_BASE_URL", "BINGX_WS_URL"}
        assert (task["Env"] or {}).keys() <= env.keys()


@pytest.mark.parametrize("job", JOBS)
def test_scripts_arrive_as_the_tests_run_them(job: str) -> None:
    """Heredocs: indentation and the doubled percent signs are taken out the same way."""
    for name, task in tasks(job).items():
        for template in task["Templates"] or []:
            mine = spec(job).tasks[name].templates[template["DestPath"]]["data"]
            if str(mine).startswith("#!"):
                assert template["EmbeddedTmpl"] == mine, (name, template["DestPath"])


@pytest.mark.parametrize("image", ["latest", "v1.2.3", SHA[:12], "replace-with-git-sha"])
@pytest.mark.parametrize("job", JOBS)
def test_nomad_refuses_a_mutable_image(tmp_path: Path, job: str, image: str) -> None:
    """By the variable's own name, before anything is sent."""
    done = output(job, values(tmp_path, image))
    assert done.returncode != 0
    refused = set(re.findall(r"The variable (\w+) must be an immutable image", done.stderr))
    assert refused == {name for name in spec(job).variables if name.endswith("_image")}


def test_nomad_accepts_a_digest(tmp_path: Path) -> None:
    """Instead of a tag."""
    file = values(tmp_path)
    file.write_text(file.read_text().replace(f":{SHA}", "@sha256:" + "0123456789abcdef" * 4))
    assert output("gvfx-worker", file).returncode == 0


def test_further_environment_wins(tmp_path: Path) -> None:
    """As the variables' descriptions promise; and what is empty by default appears when it is set."""
    file = values(tmp_path)
    text = file.read_text().replace("worker_env = {}", 'worker_env = {\n  NODE_ENV = "x"\n  EXTRA = "y"\n}')
    file.write_text(text.replace('bingx_ws_url = ""', 'bingx_ws_url = "wss://x/"'))
    done = output("gvfx-worker", file)
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["Job"]["TaskGroups"]
    (env,) = (task["Env"] for task in group["Tasks"] if task["Name"] == "worker")
    assert (env["NODE_ENV"], env["EXTRA"], env["BINGX_WS_URL"]) == ("x", "y", "wss://x/")
    assert "BINGX_BASE_URL" not in env


def test_convex_may_touch_its_buckets_only() -> None:
    """The S3 identities as they are written: Convex in five buckets, the backup in one, only root is Admin."""
    (template,) = (
        one for one in tasks("gvfx-objectstore")["objectstore"]["Templates"] if "s3.json" in one["DestPath"]
    )
    text = template["EmbeddedTmpl"]
    actions = {
        name: json.loads(listed)
        for name, listed in re.findall(r'"name": "(\w+)".*?"actions": (\[[^\]]*\])', text, re.S)
    }
    buckets = spec("gvfx-objectstore").variables["convex_buckets"]["default"].values()
    assert set(actions) == {"root", "backup", "convex"}
    assert {action.partition(":")[2] for action in actions["convex"]} == set(buckets)
    assert {action.partition(":")[2] for action in actions["backup"]} == {"gvfx-backups"}
    assert "Admin" in actions["root"]
    assert not [action for action in actions["convex"] + actions["backup"] if action.startswith("Admin")]


def test_times_are_what_the_defaults_say() -> None:
    """Nomad's own reading of the durations, in nanoseconds."""
    (group,) = parsed("gvfx-worker")["TaskGroups"]
    variables = spec("gvfx-worker").variables
    for field, name in (("Interval", "restart_interval"), ("Delay", "restart_delay")):
        assert group["RestartPolicy"][field] == seconds(variables[name]["default"]) * 1e9
    assert group["ReschedulePolicy"]["Delay"] == seconds(variables["reschedule_delay"]["default"]) * 1e9
    assert (group["Disconnect"], group.get("StopAfterClientDisconnect")) == (None, None)
