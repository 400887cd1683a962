"""How jobs start, stop, restart and move."""

import math
import re

import pytest

from fixtures.target import deadlines, egress
from tests.deploy.spec import JOBS, README, SERVICES, Spec, mutated, one, spec

COPIES = {
    "gvfx-api": 2,
    "gvfx-frontend": 2,
    "gvfx-rl-service": 2,
    "gvfx-worker": 1,
    "gvfx-convex": 1,
    "gvfx-postgres": 1,
    "gvfx-objectstore": 1,
    "gvfx-postgres-backup": 1,
}
STATELESS = ["gvfx-api", "gvfx-frontend", "gvfx-rl-service"]
STATEFUL = ["gvfx-convex", "gvfx-postgres", "gvfx-objectstore"]
TYPES = {"gvfx-worker-egress-check": "sysbatch", "gvfx-postgres-backup": "batch"}

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> float:
    """A Go duration."""
    assert re.fullmatch(r"(\d+(ms|s|m|h))+", duration), duration
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smh])", duration))


def test_durations_are_read() -> None:
    """The arithmetic below stands on this."""
    assert [seconds(text) for text in ("10s", "1m30s", "500ms", "6h")] == [10, 90, 0.5, 21600]


@pytest.mark.parametrize("job", JOBS)
def test_types(job: str) -> None:
    """Seven services, one check on every node, one daily job."""
    assert spec(job).job["type"] == TYPES.get(job, "service")


@pytest.mark.parametrize(("job", "copies"), COPIES.items())
def test_copies_are_the_plans(job: str, copies: int) -> None:
    """A number in the spec, no variable: nobody scales the worker by a value file."""
    assert spec(job).group["count"] == copies
    assert type(spec(job).group["count"]) is int


def scalable(one_: Spec) -> list[str]:
    """Ways in which a second copy could come to be, other than by a fault."""
    found = []
    group = one_.group
    if group.get("count") != 1:
        found.append("count")
    scaling = next(iter(group.get("scaling", [{}])))
    if scaling.get("enabled") is not False or scaling.get("max") != 1:
        found.append("scaling")
    update = one(one_.job, "update") | next(iter(group.get("update", [{}])))
    if update.get("canary", 0) != 0:
        found.append("canary: old and new at once")
    if update.get("max_parallel") != 1:
        found.append("max_parallel")
    # Each of these keeps an allocation that the servers have already replaced, or takes it back.
    kept = (
        "disconnect",
        "max_client_disconnect",
        "stop_after_client_disconnect",
        "prevent_reschedule_on_lost",
    )
    return found + [name for name in kept if name in group]


def test_the_worker_never_has_a_second_copy() -> None:
    """Count, scale API, deployment, disconnection."""
    assert scalable(spec("gvfx-worker")) == []


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("    count = 1\n", "    count = 2\n", ["count"]),
        ("      max     = 1\n", "      max     = 2\n", ["scaling"]),
        ("      enabled = false\n", "      enabled = true\n", ["scaling"]),
        ("    canary            = 0\n", "    canary            = 1\n", ["canary: old and new at once"]),
        (
            "    count = 1\n",
            '    count = 1\n    disconnect {\n      lost_after = "1h"\n    }\n',
            ["disconnect"],
        ),
    ],
)
def test_a_scalable_worker_is_seen(old: str, new: str, seen: list[str]) -> None:
    """Each way by itself."""
    assert scalable(mutated("gvfx-worker", old, new)) == seen


@pytest.mark.parametrize("job", SERVICES)
def test_no_job_waits_for_a_lost_client(job: str) -> None:
    """A store must not run twice after a reconnect, and a stateless copy is replaced at once."""
    kept = {
        "disconnect",
        "max_client_disconnect",
        "stop_after_client_disconnect",
        "prevent_reschedule_on_lost",
    }
    assert not kept & spec(job).group.keys()


@pytest.mark.parametrize("job", SERVICES)
def test_updates(job: str) -> None:
    """One at a time, by Consul's word; a bad release goes back by itself, but never a store's data format."""
    update = one(spec(job).job, "update")
    assert (update["max_parallel"], update["canary"], update["health_check"]) == (1, 0, "checks")
    assert update["auto_revert"] is (job not in STATEFUL)
    times = [
        seconds(spec(job).value(update[name]))
        for name in ("min_healthy_time", "healthy_deadline", "progress_deadline")
    ]
    assert times == sorted(times) and len(set(times)) == 3


@pytest.mark.parametrize("job", SERVICES)
def test_migration(job: str) -> None:
    """A drain moves one copy at a time and waits until it is healthy."""
    migrate = one(spec(job).group, "migrate")
    assert (migrate["max_parallel"], migrate["health_check"]) == (1, "checks")
    assert seconds(spec(job).value(migrate["min_healthy_time"])) < seconds(
        spec(job).value(migrate["healthy_deadline"])
    )


def stuck(one_: Spec) -> list[str]:
    """Why a crashing allocation would never move to another node."""
    restart = one(one_.group, "restart")
    reschedule = one(one_.group, "reschedule")
    found = []
    if restart["mode"] != "fail":
        found.append("restarts in place for ever")
    attempts = one_.value(restart["attempts"])
    # A task that dies at once uses up its attempts within the window only if they fit into it.
    if attempts * seconds(one_.value(restart["delay"])) >= seconds(one_.value(restart["interval"])):
        found.append("the attempts never fall into one window")
    if not reschedule.get("unlimited") or reschedule.get("attempts"):
        found.append("gives up")
    if reschedule["delay_function"] != "constant":
        found.append("waits longer and longer")
    if not 5 <= seconds(one_.value(reschedule["delay"])) <= 60:
        found.append("delay")
    return found


@pytest.mark.parametrize("job", SERVICES)
def test_a_crash_restarts_then_moves(job: str) -> None:
    """A few times in place, then elsewhere, for as long as it takes."""
    assert stuck(spec(job)) == []
    assert spec(job).value(one(spec(job).group, "restart")["attempts"]) >= 1


@pytest.mark.parametrize(
    ("old", "new", "times"),
    [
        (
            '      delay    = var.restart_delay\n      mode     = "fail"',
            '      delay    = "5s"\n      mode     = "delay"',
            1,
        ),
        ("delay    = var.restart_delay", 'delay    = "1m"', 1),
        ("unlimited      = true", "unlimited      = false", 1),
        ('delay_function = "constant"', 'delay_function = "exponential"', 1),
    ],
)
def test_an_allocation_that_stays_is_seen(old: str, new: str, times: int) -> None:
    """Each reason by itself."""
    assert len(stuck(mutated("gvfx-worker", old, new, times))) == 1


@pytest.mark.parametrize(("patience", "runs_out"), [(egress.MOVE, True), (30.0, False)])
def test_a_worker_without_a_way_out_uses_up_its_restarts(patience: float, runs_out: bool) -> None:
    """It waits for egress before each; were that 30 s, the last would often fall out of the window, for ever."""
    found = spec("gvfx-worker")
    policy = one(found.group, "restart")
    restarts = {
        "Mode": policy["mode"],
        "Attempts": found.value(policy["attempts"]),
        "Interval": seconds(found.value(policy["interval"])) * 1e9,
        "Delay": seconds(found.value(policy["delay"])) * 1e9,
    }
    job = {"TaskGroups": [{"RestartPolicy": restarts, "Tasks": [{"Name": "worker"}]}]}
    assert math.isfinite(deadlines.given_up(job, "worker", patience)) is runs_out


@pytest.mark.parametrize("job", ["gvfx-worker", "gvfx-worker-egress-check"])
def test_a_refusal_is_final_for_the_allocation(job: str) -> None:
    """No second try in the same namespace: the reason stays in the task's state."""
    restart = one(spec(job).group, "restart")
    for name in ("killswitch", "egress-guard"):
        task = spec(job).tasks[name].body
        decides = one(task, "restart") if "restart" in task else restart
        assert (decides["attempts"], decides["mode"]) == (0, "fail"), name


@pytest.mark.parametrize("job", ["gvfx-postgres", "gvfx-objectstore"])
def test_a_refused_volume_is_final_for_the_allocation(job: str) -> None:
    """The next allocation may find the right volume on another node."""
    restart = one(spec(job).tasks["volume-check"].body, "restart")
    assert (restart["attempts"], restart["mode"]) == (0, "fail")


KILL_TIMEOUTS = {
    ("gvfx-api", "api"): 30,
    ("gvfx-frontend", "frontend"): 30,
    ("gvfx-rl-service", "rl-service"): 30,
    ("gvfx-convex", "convex"): 30,
    ("gvfx-postgres", "postgres"): 60,
    ("gvfx-objectstore", "objectstore"): 30,
    ("gvfx-worker", "worker"): 10,
    # Longer than it takes to shut the gates and to release the lock (two requests of 1.5 s).
    ("gvfx-worker", "egress-watch"): 10,
}


def kill_timeouts() -> dict[tuple[str, str], float]:
    """Explicit ones, by job and task."""
    return {
        (job, task.name): seconds(spec(job).value(task.body["kill_timeout"]))
        for job in JOBS
        for task in spec(job).tasks.values()
        if "kill_timeout" in task.body
    }


def test_graceful_stops() -> None:
    """Each component gets the time its shutdown takes, not Nomad's 5 s."""
    assert KILL_TIMEOUTS.items() <= kill_timeouts().items()


def test_postgres_is_stopped_fast_and_clean() -> None:
    """SIGTERM would wait for every client to leave; SIGINT, the image's own STOPSIGNAL, is the fast shutdown.

    Nomad cannot send a signal of its own to a container that died with its host, and would try for minutes.
    """
    for name in JOBS:
        for task in spec(name).tasks.values():
            assert "kill_signal" not in task.body, (name, task)


def test_the_agents_allow_these_stops() -> None:
    """A Nomad client cuts kill_timeout to its max_kill_timeout, 30 s by default, without a word."""
    (allowed,) = re.findall(r'max_kill_timeout\s*=\s*"(\w+)"', README.read_text())
    assert max(kill_timeouts().values()) > 30
    assert seconds(allowed) >= max(kill_timeouts().values())


@pytest.mark.parametrize("job", STATELESS)
def test_a_copy_leaves_consul_before_it_stops(job: str) -> None:
    """Callers that have just resolved the name are still served; shorter than the stop itself."""
    assert 0 < seconds(spec(job).value(spec(job).group["shutdown_delay"])) < 30


def test_the_worker_has_no_shutdown_delay() -> None:
    """Nobody calls it, and a stopping worker that goes on would delay the takeover."""
    assert "shutdown_delay" not in spec("gvfx-worker").group


def test_the_backup_is_daily_and_never_twice_at_once() -> None:
    """Once a day by its schedule, UTC."""
    periodic = one(spec("gvfx-postgres-backup").job, "periodic")
    (cron,) = periodic["crons"]
    minute, hour, *rest = spec("gvfx-postgres-backup").value(cron).split()
    assert minute.isdigit() and hour.isdigit() and rest == ["*", "*", "*"]
    assert (periodic["prohibit_overlap"], periodic["time_zone"]) == (True, "UTC")


def test_a_failing_backup_gives_up_before_the_next() -> None:
    """A few tries on a few nodes within the day, then it is a failed job that somebody sees."""
    group = spec("gvfx-postgres-backup").group
    reschedule, restart = one(group, "reschedule"), one(group, "restart")
    assert reschedule["unlimited"] is False
    assert 1 <= reschedule["attempts"] <= 5
    assert seconds(reschedule["interval"]) < 86400
    assert (restart["mode"], restart["attempts"] >= 1) == ("fail", True)


def test_the_backup_is_dumped_before_it_is_uploaded() -> None:
    """A prestart task that must succeed, then the main task."""
    tasks = spec("gvfx-postgres-backup").tasks
    hooks = {"fence": "prestart", "dump": "prestart", "upload": "main"}
    assert {name: task.hook for name, task in tasks.items()} == hooks


STORE_HOOKS = {
    "gvfx-postgres": {
        "fence": "prestart",
        "volume-check": "prestart",
        "postgres": "main",
        "bootstrap": "poststart",
    },
    "gvfx-objectstore": {
        "fence": "prestart",
        "volume-check": "prestart",
        "objectstore": "main",
        "bootstrap": "poststart",
        "probe": "poststart sidecar",
    },
    "gvfx-convex": {"fence": "prestart", "convex": "main", "probe": "poststart sidecar"},
}


@pytest.mark.parametrize("job", STORE_HOOKS)
def test_order_in_the_stores(job: str) -> None:
    """The volume is judged before the server starts, the bootstrap talks to a running one."""
    assert {name: task.hook for name, task in spec(job).tasks.items()} == STORE_HOOKS[job]


def test_priorities_follow_the_dependencies() -> None:
    """When capacity is short the stores stay: everything else needs them."""
    priority = {job: spec(job).job["priority"] for job in JOBS}
    stores = {priority["gvfx-postgres"], priority["gvfx-objectstore"]}
    assert min(stores) > priority["gvfx-convex"] >= priority["gvfx-worker"]
    assert priority["gvfx-worker"] > max(priority[job] for job in STATELESS)
