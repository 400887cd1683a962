"""The worker's group: who may do what in the one namespace, in which order, with which settings."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.spec import JOBS, README, Spec, Task, example, mutated, one, spec
from tests.guard.bench import BUSYBOX, SCRIPT, events_of

PAIR = ["gvfx-worker", "gvfx-worker-egress-check"]
GUARD = ["/usr/local/bin/worker-egress-guard.sh"]
HOOKS = {
    "killswitch": "prestart",
    "tailscale": "prestart sidecar",
    "egress-watch": "prestart sidecar",
    "egress-guard": "prestart",
}
MAIN = {"gvfx-worker": "worker", "gvfx-worker-egress-check": "egress-check"}
# What each task may do to the namespace. Everything else in the group may do nothing.
CAPABILITIES = {
    "killswitch": {"net_admin"},
    "tailscale": {"net_admin", "net_raw"},
    "egress-watch": {"net_admin"},
}


@pytest.mark.parametrize("job", PAIR)
def test_order(job: str) -> None:
    """Four tasks before the main one; the sidecars live as long as it does."""
    assert {name: task.hook for name, task in spec(job).tasks.items()} == HOOKS | {MAIN[job]: "main"}


@pytest.mark.parametrize("job", PAIR)
def test_each_task_is_its_subcommand(job: str) -> None:
    """The egress image's script, by its whole path."""
    want = {
        "killswitch": "killswitch",
        "tailscale": "tailscale",
        "egress-watch": "watch",
        "egress-guard": "guard",
    }
    if job == "gvfx-worker-egress-check":
        want["egress-check"] = "check"
    for name, word in want.items():
        config = spec(job).tasks[name].config
        assert (config["entrypoint"], config["args"], config["image"]) == (GUARD, [word], "var.egress_image")


def rights(one_: Spec) -> dict[str, set[str]]:
    """Capabilities each task has beyond none; `default` stands for Docker's own set."""
    found = {}
    for task in one_.tasks.values():
        have = {word.lower() for word in task.config.get("cap_add", [])}
        if "all" not in [word.lower() for word in task.config.get("cap_drop", [])]:
            have.add("default")
        if task.config.get("privileged"):
            have.add("privileged")
        if have:
            found[task.name] = have
    return found


@pytest.mark.parametrize("job", PAIR)
def test_only_who_needs_it_may_touch_the_network(job: str) -> None:
    """The worker and the guard have no capability at all: they cannot open what the watch has shut."""
    assert rights(spec(job)) == CAPABILITIES


def test_a_capability_too_many_is_seen() -> None:
    """Given to the worker, or its default set left to it."""
    block = (
        '        work_dir   = var.worker_work_dir\n        force_pull = false\n        cap_drop   = ["all"]\n'
    )
    more = mutated("gvfx-worker", block, block + '        cap_add    = ["NET_ADMIN"]\n')
    assert rights(more)["worker"] == {"net_admin"}
    less = mutated("gvfx-worker", block, block.replace('["all"]', '["net_raw"]'))
    assert rights(less)["worker"] == {"default"}


@pytest.mark.parametrize("job", [job for job in JOBS if job not in PAIR])
def test_nobody_else_adds_a_capability(job: str) -> None:
    """But for the fence, which is over before the service starts; and raw sockets are dropped everywhere."""
    for task in spec(job).tasks.values():
        assert task.config.get("cap_add", []) == (["net_admin"] if task.name == "fence" else [])
        assert set(task.config["cap_drop"]) & {"all", "net_raw"}


@pytest.mark.parametrize("job", PAIR)
def test_the_main_task_is_nobody(job: str) -> None:
    """The kernel's doors beside the gates are for uid 0; the check proves the path as the worker's user."""
    users = {name: task.body.get("user") for name, task in spec(job).tasks.items()}
    assert users == {**dict.fromkeys(HOOKS), MAIN[job]: "65534"}


@pytest.mark.parametrize("job", PAIR)
def test_the_tunnel_device_is_tailscales(job: str) -> None:
    """One task has it."""
    devices = {
        name: task.config["devices"] for name, task in spec(job).tasks.items() if "devices" in task.config
    }
    tun = {"host_path": "/dev/net/tun", "container_path": "/dev/net/tun"}
    assert devices == {"tailscale": [tun]}


@pytest.mark.parametrize("job", PAIR)
def test_no_host_directory_is_mounted(job: str) -> None:
    """No docker socket, no way round by the host."""
    for task in spec(job).tasks.values():
        assert not {"volumes", "mount", "mounts"} & task.config.keys()


def without_comments(task: Task) -> dict[str, Any]:
    """The task as data, but for what differs on purpose: who it is in the tailnet and where its key is."""
    body = {
        key: value
        for key, value in task.body.items()
        if key not in ("env", "template", "identity", "restart")
    }
    return body | {"env": None}


def test_the_check_is_the_workers_group() -> None:
    """It proves nothing if it proves another setup: same images, rights, hooks, devices and mounts."""
    worker, check = (spec(job) for job in PAIR)
    for name in HOOKS:
        assert without_comments(worker.tasks[name]) == without_comments(check.tasks[name]), name
    settings = {job: {name: spec(job).environment(spec(job).tasks[name]) for name in HOOKS} for job in PAIR}
    differs = {
        setting
        for name in HOOKS
        for setting in settings[PAIR[0]][name].keys() | settings[PAIR[1]][name].keys()
        if settings[PAIR[0]][name].get(setting) != settings[PAIR[1]][name].get(setting)
    }
    lock = {setting for setting in differs if setting.startswith("LOCK_")}
    assert differs - lock == {"TS_HOSTNAME", "TS_STATE_DIR", "TS_NOMAD_SERVERS"}


def test_only_the_worker_takes_the_lock() -> None:
    """The check runs beside a working worker; it must not disturb it."""
    worker, check = (spec(job) for job in PAIR)
    for name in ("egress-watch", "egress-guard"):
        assert worker.environment(worker.tasks[name])["LOCK_MODE"] == "nomad"
        env = check.environment(check.tasks[name])
        assert {key: value for key, value in env.items() if key.startswith("LOCK_")} == {"LOCK_MODE": "none"}


def test_only_the_watch_has_an_identity() -> None:
    """The right to the lock is that task's."""
    assert [name for name, task in spec("gvfx-worker").tasks.items() if "identity" in task.body] == [
        "egress-watch"
    ]
    assert one(spec("gvfx-worker").tasks["egress-watch"].body, "identity") == {"env": True, "file": True}
    assert not [task for task in spec("gvfx-worker-egress-check").tasks.values() if "identity" in task.body]


def test_watch_and_guard_are_told_the_same() -> None:
    """A guard that judges by other settings than the watch would wait for something else."""
    for job in PAIR:
        watch, guard = (
            spec(job).environment(spec(job).tasks[name]) for name in ("egress-watch", "egress-guard")
        )
        assert watch == guard


def test_the_kill_switch_is_reloaded_as_it_was_loaded() -> None:
    """The watch restores a lost table: every setting of the killswitch task is the watch's, too."""
    for job in PAIR:
        loads, reloads = (
            spec(job).environment(spec(job).tasks[name]) for name in ("killswitch", "egress-watch")
        )
        assert loads and loads.items() <= reloads.items()


def test_settings_are_the_scripts() -> None:
    """A mistyped name would be ignored without a word: each is one that the script's own text knows."""
    text = SCRIPT.read_text()
    known = set(re.findall(r"\b(?:TS|LOCK|GVFX)_[A-Z_]+\b|\bNODE_NAME\b", text))
    for job in PAIR:
        for name in [*HOOKS, "egress-check"]:
            if name in spec(job).tasks:
                assert spec(job).environment(spec(job).tasks[name]).keys() <= known, name


def test_the_lock_is_asked_for_where_the_policy_allows_it() -> None:
    """One path in script, spec and policy."""
    env = spec("gvfx-worker").environment(spec("gvfx-worker").tasks["egress-watch"])
    assert env["LOCK_PATH"] == "nomad/jobs/gvfx-worker/lock"
    policy = (README.parent / "acl/worker-lock.policy.hcl").read_text()
    assert f'path "{env["LOCK_PATH"]}"' in policy
    assert f"LOCK_PATH:-{env['LOCK_PATH']}" in SCRIPT.read_text()


def resolved(job: str, task: str, values: dict[str, Any]) -> dict[str, str]:
    """The task's environment with these values, as Nomad would hand it over."""
    one_ = spec(job)
    env = {}
    for name, value in one_.environment(one_.tasks[task]).items():
        found = re.fullmatch(r"var\.(\w+)", str(value))
        env[name] = str(values[found[1]] if found else value)
    return env


def refusal(env: dict[str, str], tmp_path: Path, word: str = "guard") -> tuple[int, str]:
    """Run the script with an environment; nobody answers on its port, so good settings end in code 12."""
    done = subprocess.run(
        [BUSYBOX, "sh", str(SCRIPT), word],
        env=env
        | {"PATH": "/usr/bin:/bin", "GVFX_RUN": str(tmp_path), "GVFX_PORT": "1", "TS_WAIT_SECONDS": "0"},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return done.returncode, events_of(done.stdout)[-1]["why"]


@pytest.mark.parametrize("job", PAIR)
def test_the_example_passes_the_guards_own_checks(job: str, tmp_path: Path) -> None:
    """Every bound among the defaults holds: the guard gets as far as looking for its watch."""
    code, why = refusal(resolved(job, "egress-guard", example()), tmp_path)
    assert (code, "does not answer" in why) == (12, True), why


def test_what_is_left_empty_is_refused(tmp_path: Path) -> None:
    """The specs' own defaults name no exit: a start without one is refused by name."""
    defaults = {name: body["default"] for name, body in spec("gvfx-worker").variables.items()}
    code, why = refusal(resolved("gvfx-worker", "egress-guard", defaults), tmp_path)
    assert (code, "TS_EXIT_NODE_PRIMARY" in why) == (10, True)


def test_an_impossible_hold_is_refused(tmp_path: Path) -> None:
    """The bound that single-active stands on is the script's, whatever the values say."""
    code, why = refusal(
        resolved("gvfx-worker", "egress-guard", {**example(), "lock_hold_seconds": "20"}), tmp_path
    )
    assert (code, "LOCK_HOLD_SECONDS" in why) == (11, True)


def codes(text: str) -> dict[int, str]:
    """`10  a required setting is missing` and the like, out of the script's head."""
    head = text[text.index("# Exit codes") : text.index("# Every transition")]
    found = re.findall(r"(?:^#|\s)\s+(\d{1,3}) {2,}(\S.*?)(?= {2,}\d|$)", head, re.M)
    return {int(code): meaning for code, meaning in found}


def test_the_readme_explains_every_refusal() -> None:
    """The table an operator reads has each code that the script's head lists."""
    listed = codes(SCRIPT.read_text())
    assert set(listed) >= {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 75}
    rows = re.findall(r"(?m)^\| ([\d, ]+) \|", README.read_text())
    explained = {int(code) for row in rows for code in row.split(",")}
    assert explained == {code for code in listed if 10 <= code <= 75}


def test_every_code_is_one_the_script_gives() -> None:
    """None of the list is a dead letter; each stands in the code below it."""
    body = SCRIPT.read_text().split("set -uf", 1)[1]
    for code in codes(SCRIPT.read_text()):
        if 10 <= code <= 75:
            assert re.search(rf"(?<![\w.]){code}(?![\w.])", body), code
