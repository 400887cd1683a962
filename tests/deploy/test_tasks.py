"""What the application's tasks run is left to variables; what they are told is the plan's."""

import re

import pytest

from tests.deploy.spec import JOBS, SERVICES, Expression, Spec, Task, merged_parts, mutated, parse, spec

# Job, task, prefix of its variables, image.
APPLICATIONS = [
    ("gvfx-api", "api", "api", "backend"),
    ("gvfx-frontend", "frontend", "frontend", "frontend"),
    ("gvfx-rl-service", "rl-service", "rl_service", "rl_service"),
    ("gvfx-convex", "convex", "convex", "convex"),
    ("gvfx-worker", "worker", "worker", "backend"),
]
STORES = [("gvfx-postgres", "postgres"), ("gvfx-objectstore", "objectstore")]


def fixed(one: Spec, task: str, prefix: str, image: str) -> list[str]:
    """What of the task cannot be set from outside."""
    body = one.tasks[task]
    config = body.config
    found = []
    want = {"image": f"var.{image}_image", "args": f"var.{prefix}_args", "work_dir": f"var.{prefix}_work_dir"}
    command = config.get(
        "command", config["entrypoint"][-1] if isinstance(config["entrypoint"], list) else None
    )
    for name, value in [*((name, config.get(name)) for name in want), ("command", command)]:
        if not isinstance(value, Expression) or value != want.get(name, f"var.{prefix}_command"):
            found.append(name)
    if (
        not isinstance(body.body["env"], Expression)
        or merged_parts(body.body["env"])[-1] != f"var.{prefix}_env"
    ):
        found.append("env")
    size = body.body["resources"][0]
    return found + [name for name in ("cpu", "memory") if size[name] != f"var.{prefix}_{name}"]


@pytest.mark.parametrize(("job", "task", "prefix", "image"), APPLICATIONS)
def test_an_application_task_is_set_from_outside(job: str, task: str, prefix: str, image: str) -> None:
    """Image, command, arguments, directory, further environment (which wins, being last), size."""
    assert fixed(spec(job), task, prefix, image) == []


def test_a_fixed_command_is_seen() -> None:
    """And so is an environment that can be added to but not overridden."""
    fixed_command = mutated("gvfx-api", "command    = var.api_command", 'command    = "bun"')
    assert fixed(fixed_command, "api", "api", "backend") == ["command"]
    first = mutated("gvfx-rl-service", "env = merge({", "env = merge(var.rl_service_env, {")
    weak = first.text.replace("      }, var.rl_service_env)", "      })")
    assert weak != first.text
    assert fixed(parse("gvfx-rl-service", weak), "rl-service", "rl_service", "rl_service") == ["env"]


@pytest.mark.parametrize(("job", "task"), STORES)
def test_a_store_runs_under_the_volume_lock(job: str, task: str) -> None:
    """The full command is a variable and is handed to the script that takes the lock first."""
    body = spec(job).tasks[task]
    assert body.config["entrypoint"] == f'concat(["/bin/sh", "/local/start.sh"], var.{task}_command)'
    assert merged_parts(body.body["env"])[-1] == f"var.{task}_env"


def test_the_worker_runs_under_the_supervisor() -> None:
    """busybox and script come from the killswitch task; the image is the backend's, unchanged."""
    entrypoint = spec("gvfx-worker").tasks["worker"].config["entrypoint"]
    assert entrypoint[:-1] == ["/alloc/gvfx/busybox", "sh", "/alloc/gvfx/worker-egress-guard.sh", "run", "--"]
    assert spec("gvfx-worker").variables["worker_command"]["default"]


FIXED_ENV: dict[tuple[str, str], dict[str, str]] = {
    ("gvfx-api", "api"): {
        "PORT": "8787",
        "CONVEX_URL": "http://gvfx-convex.service.consul:3210",
        "RL_SERVICE_URL": "http://gvfx-rl-service.service.consul:9101",
        # An exchange call from here would leave by the node's own address.
        "BINGX_BASE_URL": "http://127.0.0.1:9",
        "BINGX_WS_ENABLED": "false",
    },
    ("gvfx-worker", "worker"): {
        "CONVEX_URL": "http://gvfx-convex.service.consul:3210",
        "RL_SERVICE_URL": "http://gvfx-rl-service.service.consul:9101",
        "BINGX_WS_ENABLED": "true",
        "METRICS_PORT": "9091",
        "RL_ONLINE_LEARNING_INTERVAL_MIN": "60",
        "RL_ONLINE_LEARNING_INTERVAL": "5m",
        "RL_ONLINE_LEARNING_CONTEXT_INTERVALS": "15m,1h,4h",
        "RL_ONLINE_LEARNING_MIN_WIN_RATE": "0.62",
        "RL_ONLINE_LEARNING_MIN_NET_PNL": "0",
        "RL_ONLINE_LEARNING_MAX_DRAWDOWN": "0.12",
        "RL_ONLINE_LEARNING_MIN_TRADE_COUNT": "25",
        "RL_ONLINE_LEARNING_DECISION_THRESHOLD": "0.35",
    },
    ("gvfx-frontend", "frontend"): {
        "NODE_ENV": "production",
        "HOSTNAME": "0.0.0.0",  # noqa: S104
        "PORT": "3000",
        "NEXT_PUBLIC_API_BASE_URL": "http://gvfx-api.service.consul:8787",
        "API_BASE_URL": "http://gvfx-api.service.consul:8787",
        "NEXT_PUBLIC_MARKET_GOLD_PAIRS": "Gold-USDT,XAUTUSDT,PAXGUSDT",
        "NEXT_PUBLIC_MARKET_CRYPTO_PAIRS": "ALGO-USDT,BTC-USDT,ETH-USDT,SOL-USDT,XRP-USDT,BNB-USDT",
    },
    ("gvfx-rl-service", "rl-service"): {
        "RL_ENV": "production",
        "RL_SERVICE_PORT": "9101",
        "RL_SERVICE_HOST": "0.0.0.0",  # noqa: S104
        "RL_HEALTH_REQUIRE_ML": "true",
    },
    ("gvfx-convex", "convex"): {
        "S3_ENDPOINT_URL": "http://gvfx-objectstore.service.consul:9000",
        "CONVEX_CLOUD_ORIGIN": "http://gvfx-convex.service.consul:3210",
        "CONVEX_SITE_ORIGIN": "http://gvfx-convex.service.consul:3211",
        "DO_NOT_REQUIRE_SSL": "1",
        # No call home, and what an S3 server other than Amazon's needs.
        "DISABLE_BEACON": "true",
        "AWS_S3_FORCE_PATH_STYLE": "true",
        "AWS_S3_DISABLE_SSE": "true",
        "AWS_S3_DISABLE_CHECKSUMS": "true",
    },
}
# What makes a process of the backend start in production, and never on test data.
PRODUCTION = {
    "NODE_ENV": "production",
    "DISABLE_TEST_DATA_IN_DB": "true",
    "E2E_RUN": "0",
    "BINGX_MARKET_DATA_MOCK": "false",
    "TRADINGVIEW_USE_HTML": "false",
    "TRADINGVIEW_HTML_PATH": "",
    "TELEGRAM_MESSAGES_PATH": "",
}


@pytest.mark.parametrize(("job", "task"), FIXED_ENV)
def test_addresses_and_switches_are_the_plans(job: str, task: str) -> None:
    """By default, variables resolved."""
    one = spec(job)
    env = {name: one.value(value) for name, value in one.environment(one.tasks[task]).items()}
    want = FIXED_ENV[job, task]
    if task in ("api", "worker"):
        want = want | PRODUCTION
    assert {name: env.get(name) for name in want} == want


def files_named(one: Spec, task: Task) -> set[str]:
    """Files below /local and /secrets that the task is told to use, by environment, command or script."""
    told = [str(value) for value in one.environment(task).values()]
    told += [str(task.config.get(name, "")) for name in ("entrypoint", "command", "args")]
    told += [str(body["data"]) for body in task.templates.values()]
    for check in (check for service in one.group.get("service", []) for check in service.get("check", [])):
        if check.get("task") == task.name:
            told += check["args"]
    for value in list(told):
        if found := re.fullmatch(r".*\bvar\.(\w+_command)\)?", value):
            told += [str(word) for word in one.variables[found[1]]["default"]]
    return {path for text in told for path in re.findall(r"(?<![\w.-])/((?:local|secrets)/[\w./-]+)", text)}


@pytest.mark.parametrize("job", JOBS)
def test_files_that_are_used_are_written(job: str) -> None:
    """By a template of the same task; one that is no environment and that nobody names would be dead text."""
    for task in spec(job).tasks.values():
        written = set(task.templates)
        read = {destination for destination, body in task.templates.items() if body.get("env")}
        # The guard is told all that the watch is told; of the lock's files it uses none.
        lock_files = {"secrets/nomad-ca.pem", "secrets/nomad-client.pem", "secrets/nomad-client-key.pem"}
        unused = lock_files if task.name == "egress-guard" else set()
        assert files_named(spec(job), task) - unused == written - read, task.name


def test_a_renamed_file_is_seen() -> None:
    """Nomad would write one and the task would look for the other."""
    wrong = mutated("gvfx-worker", 'destination = "local/control-ca.pem"', 'destination = "local/ca.pem"')
    task = wrong.tasks["tailscale"]
    assert files_named(wrong, task) != set(task.templates)


@pytest.mark.parametrize("job", JOBS)
def test_every_task_says_what_it_runs(job: str) -> None:
    """By entrypoint or command; and what a changed template does is one of two words."""
    for task in spec(job).tasks.values():
        assert task.config.get("entrypoint") or task.config.get("command"), task.name
        assert {body["change_mode"] for body in task.templates.values()} <= {"noop", "restart"}, task.name


@pytest.mark.parametrize("job", JOBS)
def test_an_environment_file_is_called_so(job: str) -> None:
    """NAME=VALUE lines end in .env, and nothing else does."""
    for task in spec(job).tasks.values():
        for destination, body in task.templates.items():
            assert bool(body.get("env")) == destination.endswith(".env"), destination


def test_convex_gets_every_bucket() -> None:
    """One empty name and the image falls back to local files without a word."""
    one = spec("gvfx-convex")
    env = one.environment(one.tasks["convex"])
    buckets = {name for name in env if name.startswith("S3_STORAGE_")}
    keys = {str(env[name]).partition('["')[2].removesuffix('"]') for name in buckets}
    assert len(buckets) == 5
    assert keys == set(one.variables["convex_buckets"]["default"])
    assert env["AWS_REGION"] == "var.s3_region" and one.variables["s3_region"]["default"]


def test_api_and_worker_read_the_same_settings() -> None:
    """Where both have a setting it comes from one variable; a pair list of its own would split them."""
    api, worker = spec("gvfx-api"), spec("gvfx-worker")
    left, right = api.environment(api.tasks["api"]), worker.environment(worker.tasks["worker"])
    differs = {name for name in left.keys() & right.keys() if left[name] != right[name]}
    assert differs == {"BINGX_BASE_URL", "BINGX_WS_ENABLED"}
    assert {
        "MARKET_GOLD_PAIRS",
        "MARKET_CRYPTO_PAIRS",
        "BINGX_MARKET_DATA_PAIRS",
    } <= left.keys() & right.keys()


@pytest.mark.parametrize("job", SERVICES)
def test_every_task_has_a_size(job: str) -> None:
    """Nomad's default of 300 MB would be taken without a word."""
    for task in spec(job).tasks.values():
        assert {"cpu", "memory"} <= task.body["resources"][0].keys(), task.name
