"""What a rehearsal takes from the shell it was started in: nothing that leads to another cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from fixtures.errors import Refused
from fixtures.observe.nomad import NomadProbe
from fixtures.observe.postgres import PostgresError, PostgresProbe
from fixtures.observe.recording import InMemory
from fixtures.rehearsal import environment
from fixtures.rehearsal.attach import settings
from fixtures.rehearsal.state import State
from fixtures.target import config

LIVE = {
    "NOMAD_ADDR": "https://live:4646",
    "NOMAD_TOKEN": "live-token",
    "NOMAD_REGION": "live",
    "NOMAD_CLIENT_CERT": "/live/cert.pem",
    "NOMAD_CLIENT_KEY": "/live/key.pem",
    "NOMAD_TLS_SERVER_NAME": "live",
    "CONSUL_HTTP_TOKEN": "live-token",
    "CONSUL_NAMESPACE": "live",
    "VAULT_TOKEN": "live-token",
    "PGHOST": "live",
    "PGHOSTADDR": "192.0.2.1",
    "PGSERVICE": "live",
    "AWS_ENDPOINT_URL_S3": "https://live",
    "AWS_PROFILE": "live",
    "GVFX_API_TOKEN": "live-token",
    "GVFX_CONVEX_URL": "https://live",
    "GVFX_ALLOW_SCRATCH_WRITES": "true",
    "MARKET_GOLD_PAIRS": "LIVE-USDT",
    "TS_AUTHKEY": "live-key",
    "BINGX_API_KEY": "live-key",
    "DOCKER_CONTEXT": "live",
    "TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX": "live/",
}
OURS = {
    "PATH": "/usr/bin",
    "HOME": "/root",
    "PAGER": "less",
    "GVFX_CACHE": "/tmp/cache",  # noqa: S108 - a name only
    "GVFX_TOOLS_DIR": "/opt/tools",
    "GVFX_DEFECT": "no-guard",
    "HTTPS_PROXY": "http://proxy:3128",
    "DOCKER_HOST": "unix:///run/other.sock",
    "DOCKER_CONFIG": "/root/.docker",
}


def test_whatever_leads_elsewhere_is_taken_out_and_nothing_else() -> None:
    shell = {**LIVE, **OURS}
    assert environment.forget(shell) == sorted(LIVE)
    assert shell == OURS


def test_no_setting_of_a_target_survives() -> None:
    """Whatever is added to the settings later is forgotten too."""
    shell = {name.upper(): "live" for name in config.TargetConfig.model_fields}
    environment.forget(shell)
    assert shell == {"DOCKER_HOST": environment.ENGINE}


@pytest.mark.parametrize("host", ["tcp://192.0.2.1:2375", "ssh://root@192.0.2.1", "http://live"])
def test_the_engine_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="another machine") as refused:
        environment.forget({"DOCKER_HOST": host})
    assert "root@" not in str(refused.value)


@pytest.mark.parametrize("host", ["unix:///run/user/0/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:1"])
def test_an_engine_of_this_machine_may_be_named(host: str) -> None:
    shell = {"DOCKER_HOST": host}
    environment.forget(shell)
    assert shell == {"DOCKER_HOST": host}


@pytest.fixture
def live_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", environment.ENGINE)
    for name, value in LIVE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("live_shell")
def test_settings_and_clients_are_the_rehearsals_own(state: State) -> None:
    environment.forget()
    found = config.described(settings(state, state.secrets()))
    assert "live" not in found.model_dump_json().lower()
    probe = NomadProbe(found, InMemory())
    try:
        # python-nomad fills what it was not given from the environment.
        assert probe._api.cert == ()
        assert probe._api.region is None
        assert probe._api.token == state.secrets()["nomad"]["suite"]
    finally:
        probe.close()


@pytest.mark.usefixtures("live_shell")
def test_libpq_reads_nothing_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOSTADDR would send the password to another server, PGSERVICE even when all is given."""
    probe = PostgresProbe("127.0.0.1", 9, "d", "u", "p", InMemory())
    with pytest.raises(PostgresError, match='service "live" not found'):
        probe.system_identifier()
    environment.forget()
    with pytest.raises(PostgresError, match="127.0.0.1"):
        probe.system_identifier()
    defaults = {one.keyword: one.val for one in psycopg.pq.Conninfo.get_defaults()}
    assert not defaults[b"host"] and not defaults[b"hostaddr"] and not defaults[b"service"]


def test_children_see_the_cleaned_environment(tmp_path: Path) -> None:
    source = (
        "from fixtures.rehearsal import environment; environment.forget(); import subprocess; "
        "subprocess.run(['env'], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=Path(__file__).resolve().parents[2],
        env={**OURS, **LIVE, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert set(OURS) <= seen and not seen & set(LIVE)
