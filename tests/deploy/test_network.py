"""Names, ports and checks: what other jobs rely on."""

import re

import pytest

from tests.deploy.spec import JOBS, SERVICES, Spec, labelled, mutated, one, spec
from tests.deploy.test_lifecycle import seconds

# Consul name, port.  These are the plan's and the application's; other jobs have them in their environment.
NAMES = {
    "gvfx-api": {"gvfx-api": 8787},
    "gvfx-frontend": {"gvfx-frontend": 3000},
    "gvfx-rl-service": {"gvfx-rl-service": 9101},
    "gvfx-convex": {"gvfx-convex": 3210, "gvfx-convex-site": 3211},
    "gvfx-postgres": {"gvfx-postgres": 5432},
    "gvfx-objectstore": {"gvfx-objectstore": 9000},
    "gvfx-worker": {"gvfx-worker": 9100},
}
PATHS = {
    "gvfx-api": "/health",
    "gvfx-frontend": "/",
    "gvfx-rl-service": "/health",
    "gvfx-convex": "/version",
    "gvfx-objectstore": "/healthz",
    "gvfx-worker": "/cgi-bin/ready",
}


@pytest.mark.parametrize("job", JOBS)
def test_every_group_has_a_namespace_of_its_own(job: str) -> None:
    """Mode bridge on the group; a task in the host's network would pass by the kill switch and every port map."""
    assert one(spec(job).group, "network")["mode"] == "bridge"
    for task in spec(job).tasks.values():
        assert not {"network_mode", "privileged", "pid_mode", "ipc_mode", "userns_mode"} & task.config.keys()
        assert task.body["driver"] == "docker"


@pytest.mark.parametrize("job", SERVICES)
def test_names_and_ports(job: str) -> None:
    """In Consul, by these names; the name's port is the one the process listens on."""
    ports = labelled(one(spec(job).group, "network"), "port")
    found = {}
    for service in spec(job).group["service"]:
        assert service["provider"] == "consul"
        found[service["name"]] = ports[service["port"]]["to"]
    assert found == NAMES[job]


@pytest.mark.parametrize("job", [job for job in SERVICES if job != "gvfx-worker"])
def test_ports_are_static(job: str) -> None:
    """A caller has `name:port` in its environment, so the host's port is the container's."""
    for port in labelled(one(spec(job).group, "network"), "port").values():
        assert port["static"] == port["to"]


def test_no_two_jobs_want_one_port() -> None:
    """They may land on one node."""
    static = [
        port["static"]
        for job in JOBS
        for port in labelled(one(spec(job).group, "network"), "port").values()
        if "static" in port
    ]
    assert len(static) == len(set(static)) == 7


@pytest.mark.parametrize("job", SERVICES)
def test_the_serving_task_lists_the_ports(job: str) -> None:
    """The main task, all of them; the worker serves none, its port is the watch's."""
    ports = set(labelled(one(spec(job).group, "network"), "port"))
    for task in spec(job).tasks.values():
        serves = task.hook == "main" and job != "gvfx-worker"
        assert set(task.config.get("ports", [])) == (ports if serves else set()), task.name


def urls(one_: Spec) -> set[tuple[str, int]]:
    """Every `NAME.service.consul:PORT` in the spec."""
    return {(name, int(port)) for name, port in re.findall(r"([\w-]+)\.service\.consul[: ](\d+)", one_.text)}


@pytest.mark.parametrize("job", JOBS)
def test_addresses_used_are_addresses_served(job: str) -> None:
    """Who calls whom, by name and port, comments included."""
    served = {(name, port) for names in NAMES.values() for name, port in names.items()}
    # Convex is told its own site address under its first name.
    assert urls(spec(job)) <= served | {("gvfx-convex", 3211)}


def test_a_wrong_port_is_seen() -> None:
    """The API would call Convex where nobody listens."""
    wrong = mutated("gvfx-api", "gvfx-convex.service.consul:3210", "gvfx-convex.service.consul:3000")
    assert ("gvfx-convex", 3000) in urls(wrong)


@pytest.mark.parametrize("job", SERVICES)
def test_checks(job: str) -> None:
    """Each service is checked (Convex's second port by the first); no check outlasts its period."""
    first, *others = spec(job).group["service"]
    assert not [service for service in others if service.get("check")]
    assert first["check"]
    for check in first["check"]:
        interval, timeout = (seconds(spec(job).value(check[name])) for name in ("interval", "timeout"))
        assert 0 < timeout < interval <= 30
        if check["type"] == "http":
            assert spec(job).value(check["path"]) == PATHS[job]
        else:
            assert check["type"] == "script"
            script = check["args"][-1]
            task = spec(job).tasks[check["task"]]
            assert script.startswith("pg_isready") or script.lstrip("/") in task.templates


@pytest.mark.parametrize("job", ["gvfx-postgres", "gvfx-objectstore", "gvfx-convex"])
def test_a_store_is_asked_for_its_data(job: str) -> None:
    """A TCP connect or a constant page passes on an empty or broken store: a script check asks further."""
    (service, *_) = spec(job).group["service"]
    assert "script" in [check["type"] for check in service["check"]]


def test_the_workers_check_asks_over_the_bridge() -> None:
    """An answer to anywhere else would leave by the tunnel; and the port is the watch's."""
    (service,) = spec("gvfx-worker").group["service"]
    (check,) = service["check"]
    assert check["address_mode"] == "alloc"
    assert "static" not in labelled(one(spec("gvfx-worker").group, "network"), "port")["ready"]


@pytest.mark.parametrize("job", ["gvfx-worker-egress-check", "gvfx-postgres-backup"])
def test_batches_serve_nothing(job: str) -> None:
    """No name, no port."""
    assert "service" not in spec(job).group
    assert "port" not in one(spec(job).group, "network")
