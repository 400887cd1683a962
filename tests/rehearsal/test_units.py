"""What runs on each host, as text: shells accept it, and it names no host of the real internet."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.rehearsal import units
from fixtures.rehearsal.images import FILES
from fixtures.rehearsal.topology import CONTROL, ECHO, EXCHANGE, HOSTS, SOURCES, Host, hosts_of
from tests.rehearsal.test_agents import HOST_NAME

each_host = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)


def scripts(host: Host) -> dict[str, str]:
    """Everything a shell of this host runs."""
    found = {"boot": units.boot(host), **units.units(host)}
    if host.in_cluster:
        found |= {"consul": units.consul_unit(), "nomad": units.nomad_unit(host.kind == "client")}
    return found


@each_host
def test_a_shell_reads_every_script(host: Host) -> None:
    for name, text in scripts(host).items():
        assert text.startswith("#!/bin/bash\nset -u\n"), name
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"{name} of {host.name}"
        assert "@" not in re.sub(r'"\$@"', "", text), f"a place was not filled in: {name}"


@each_host
def test_no_outside_host_is_named(host: Host) -> None:
    for name, text in scripts(host).items():
        assert not HOST_NAME.findall(text), name


@each_host
def test_every_tailnet_daemon_is_silent_and_knows_its_control_server(host: Host) -> None:
    found = units.units(host)
    assert ("tailscaled" in found) == ("tailnet.once" in found) == host.on_tailnet
    if host.on_tailnet:
        daemon, login = found["tailscaled"], found["tailnet.once"]
        assert "--no-logs-no-support" in daemon and "TS_NO_LOGS_NO_SUPPORT=true" in daemon
        # Without a control server it would try the vendor's: it ends instead.
        assert "TS_PANIC_IF_HIT_MAIN_CONTROL=true" in daemon
        assert f"--login-server=https://{CONTROL}:" in login
        assert "--accept-routes=false" in login and "--accept-dns=false" in login
        assert ("--advertise-exit-node" in login) == (host.kind == "exit")


@each_host
def test_only_cluster_hosts_close_the_underlay(host: Host) -> None:
    """Services are for the tailnet: what arrives by the underlay is dropped but for WireGuard and ping."""
    closed = 'iifname "$U" drop' in units.boot(host)
    assert closed == host.in_cluster
    if closed:
        opened = re.findall(r'iifname "\$U" (.*) accept', units.boot(host))
        assert opened == ["ct state established,related", "udp dport 41641", "icmp type echo-request"]


def test_app_nodes_have_no_way_out_and_the_gateway_is_the_wrong_one() -> None:
    for host in hosts_of("client"):
        assert ("gvfx_forward" in units.boot(host)) == (host.role == "app"), host.name
        assert "default via 10.77.0.254" in units.boot(host)
    assert "masquerade" in units.boot(next(iter(hosts_of("gateway"))))


def test_the_pretend_internet_counts_every_source_by_its_address() -> None:
    (host,) = hosts_of("internet")
    text = units.boot(host)
    for address, name in SOURCES.items():
        assert f"ip saddr {address} counter name {name} return" in text
        assert f"counter {name} {{ }}" in text
    assert f"ip daddr {{ {ECHO}, {EXCHANGE} }}" in text
    # Whoever it is: a packet of an unknown source is counted as well.
    assert text.index("counter name other") > max(
        text.index(f"counter name {one}") for one in SOURCES.values()
    )


def test_bridges_of_the_clients_have_addresses_of_their_own() -> None:
    addresses = [re.findall(r"address (02:\S+)", units.boot(host)) for host in hosts_of("client")]
    assert len({one for (one,) in addresses}) == len(addresses)


def test_the_registry_is_read_only() -> None:
    assert "readonly: {enabled: true}" in units.registry_config()


@pytest.mark.parametrize("name", ["hostinit", "postgres-entrypoint"])
def test_files_for_hosts_and_images_are_there_and_may_run(name: str) -> None:
    path = FILES / name
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed: scripts/setup")
def test_the_generated_scripts_are_clean(tmp_path: Path) -> None:
    """All of them at once, equal ones once."""
    for number, text in enumerate({text for host in HOSTS for text in scripts(host).values()}):
        (tmp_path / f"{number}.sh").write_text(text)
    command = ["shellcheck", "--severity=error", *map(str, sorted(tmp_path.glob("*.sh")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
