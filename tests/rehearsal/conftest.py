"""A cache of our own for every test, and a run as it looks when it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.rehearsal import credentials, pki
from fixtures.rehearsal.cluster import MEMBERS
from fixtures.rehearsal.images import image_names
from fixtures.rehearsal.state import State
from fixtures.rehearsal.topology import REGISTRY, REGISTRY_PORT

AUTHORITY = pki.Authority("tests")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite's cache, empty: no test sees the rehearsals of this machine."""
    path = tmp_path / "cache"
    monkeypatch.setenv("GVFX_CACHE", str(path))
    return path


@pytest.fixture
def state() -> State:
    """A run with addresses, images and secrets, on disk but nowhere else."""
    found = State(run_id="0123abcd", timers="short", host_image="gvfx/host:1", image_tag="a" * 40)
    found.images = {
        name: f"{REGISTRY}:{REGISTRY_PORT}/gvfx/{name}:{found.image_tag}" for name in image_names()
    }
    found.addresses = {host.name: f"100.64.0.{number}" for number, host in enumerate(MEMBERS, 1)}
    found.directory.mkdir(parents=True)
    (found.directory / "ca.pem").write_bytes(AUTHORITY.pem)
    values = credentials.generate()
    values["nomad"] = {name: f"token-of-{name}" for name in credentials.NOMAD_TOKENS}
    (found.directory / "secrets.json").write_text(json.dumps(values))
    found.save()
    return found
