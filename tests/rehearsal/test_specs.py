"""Specs that cannot be deployed are refused before anything is built for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures.errors import Refused
from fixtures.rehearsal import specs
from fixtures.target.options import DEPLOY_DIR
from tests.deploy.test_nomad_parse import NOMAD

needs_nomad = pytest.mark.skipif(NOMAD is None, reason="no nomad binary: `python -m toolchain.build`")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped specs, and the parser that is at hand."""
    monkeypatch.setattr("toolchain.build.ensure", lambda names: {"nomad": Path(str(NOMAD))})
    return Path(shutil.copytree(DEPLOY_DIR, tmp_path / "specs"))


@needs_nomad
def test_the_shipped_specs_pass(directory: Path) -> None:
    specs.check(directory)


@needs_nomad
def test_a_malformed_spec_is_named_with_its_line(directory: Path) -> None:
    path = specs.path(directory, "gvfx-api")
    text = path.read_text()
    path.write_text(text.replace('job "gvfx-api" {', 'job "gvfx-api"'))
    line = text[: text.index('job "gvfx-api" {')].count("\n") + 1
    with pytest.raises(Refused, match=rf"{path} line {line}") as refused:
        specs.check(directory)
    assert refused.value.next_command.endswith(f"fmt -check {directory}")


@needs_nomad
def test_an_ugly_spec_may_be_deployed(directory: Path) -> None:
    path = specs.path(directory, "gvfx-api")
    ugly = path.read_text().replace("  type        =", "type=")
    path.write_text(ugly)
    specs.check(directory)
    assert path.read_text() == ugly


def test_every_missing_spec_is_named(directory: Path) -> None:
    for job in ("gvfx-api", "gvfx-worker"):
        specs.path(directory, job).unlink()
    with pytest.raises(Refused) as refused:
        specs.check(directory)
    assert refused.value.observed == "no gvfx-api.nomad.hcl, gvfx-worker.nomad.hcl"
    with pytest.raises(Refused, match="no gvfx-postgres.nomad.hcl, "):
        specs.check(directory / "nowhere")
