"""Phase 0 of the plan: the control plane is ready for what is deployed on it. Nothing here changes anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from fixtures.readiness import (
    acl,
    gossip,
    integration,
    placement,
    quorum,
    reach,
    tailnet,
    tls,
    versions,
    volumes,
)
from fixtures.readiness.findings import Findings
from fixtures.readiness.plane import ControlPlane
from fixtures.target.target import Target

Inspection = Callable[[ControlPlane], tuple[Findings, Mapping[str, int | float | str]]]
Decide = Callable[[Inspection, str, str], None]


@pytest.fixture(scope="module")
def plane(target: Target) -> Iterator[ControlPlane]:
    """The agents of the target; nothing is asked before a test does."""
    found = ControlPlane(target)
    yield found
    found.close()


@pytest.fixture
def decide(plane: ControlPlane, measure: Callable[..., None]) -> Decide:
    """Inspects, records the figures, and fails or is undecided by what was found."""

    def run(inspect: Inspection, expected: str, next_command: str) -> None:
        start = time.monotonic()
        found, figures = inspect(plane)
        measure(seconds=round(time.monotonic() - start, 3), **figures)
        found.decide(f"phase 0 of {plane.target.label}", expected, next_command)

    return run


@pytest.mark.rule("P0.1")
def test_agents_speak_tls_and_servers_prove_who_they_are(decide: Decide) -> None:
    """Every agent's certificate is the cluster's and for its part; plain text and calls without one are refused."""
    decide(tls.inspect, "a handshake with every agent", "nomad operator api /v1/agent/self")


@pytest.mark.rule("P0.2")
def test_who_may_not_is_refused(decide: Decide) -> None:
    """Every agent refuses strangers what it grants the suite, and every write; so does a server a token that may read."""
    decide(acl.inspect, "a refusal for each request, and its control", "nomad acl token self")


@pytest.mark.rule("P0.3")
def test_gossip_is_encrypted(decide: Decide) -> None:
    """Every Nomad server and every Consul agent says that its gossip is encrypted, with one key."""
    decide(gossip.inspect, "the word of every agent", "consul keyring -list")


@pytest.mark.rule("P0.4")
def test_nomad_is_integrated_with_consul(decide: Decide) -> None:
    """A Consul agent lives beside every Nomad agent, knows it, and is known to it."""
    decide(integration.inspect, "members and registrations", "consul catalog services")


@pytest.mark.rule("P0.5")
def test_servers_agree_and_the_witness_never_works(decide: Decide) -> None:
    """Three servers, asked one by one, name one leader and one another; the witness is one, and no client."""
    decide(quorum.inspect, "the word of every server, and who the witness is", "nomad server members")


@pytest.mark.rule("P0.6")
def test_hosts_and_agents_are_on_the_tailnet(decide: Decide) -> None:
    """Every host is on the tailnet with its tags, and every agent advertises its host's tailnet address."""
    decide(tailnet.inspect, "the control plane's list and each host's own status", "tailscale status")


@pytest.mark.rule("P0.7")
def test_the_tailnet_allows_what_is_needed_and_no_more(decide: Decide) -> None:
    """What the plan needs is answered, what it forbids is not, though others are; only the worker may leave by exits."""
    decide(reach.inspect, "every connection tried, with its control", "tailscale status")


@pytest.mark.rule("P0.8")
def test_volumes_stand_where_they_are_needed(decide: Decide) -> None:
    """Each volume a job asks for is on its nodes; below it is a marked file system of the demanded size, with room."""
    decide(volumes.inspect, "volumes of every node and their file systems", "nomad node status -verbose")


@pytest.mark.rule("P0.9")
def test_every_job_has_two_nodes_and_room_without_one(decide: Decide) -> None:
    """Each job may run on two nodes, by arithmetic and by the scheduler, and all fit when any one node is gone."""
    decide(placement.inspect, "every job and every node's resources", "nomad job plan JOB")


@pytest.mark.rule("P0.10")
def test_versions_are_equal_supported_and_sound(decide: Decide) -> None:
    """Every agent runs one version of its product, a supported one without a known bug about singletons."""
    decide(versions.inspect, "the version of every agent", "nomad server members; consul members")
