"""The rehearsal's variable values: declared by the specs, of their types, and written so that Nomad reads the same."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.rehearsal.state import State
from fixtures.rehearsal.variables import to_hcl, values
from tests.deploy.spec import JOBS, spec
from tests.deploy.test_nomad_parse import NOMAD, nomad

needs_nomad = pytest.mark.skipif(NOMAD is None, reason="no nomad binary: `python -m toolchain.build`")
# Weighted towards what HCL and JSON read differently.
nasty = st.text(st.sampled_from('${}%"\\\n\r\t\b\fbfnu0 é😀\x00\x7f\u2028') | st.characters(codec="utf-8"))
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | nasty,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nasty, inner, max_size=4),
    max_leaves=10,
)
ECHO = """
variable "given" {
  type = list(string)
}
job "echo" {
  datacenters = var.given
  group "group" {
    task "task" {
      driver = "docker"
      config {
        image = "none"
      }
    }
  }
}
"""


def read_back(text: str) -> dict[str, Any]:
    """A second opinion on the format: a template sign inside a string is only ever a doubled one."""
    found = {}
    for line in filter(None, text.split("\n")):
        name, _, literal = line.partition(" = ")
        rest = literal.replace("$${", "").replace("%%{", "")
        assert "${" not in rest and "%{" not in rest
        found[name] = json.loads(literal.replace("$${", "${").replace("%%{", "%{"))
    return found


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), literals, max_size=5))
def test_what_is_written_means_what_was_given(given_: dict[str, Any]) -> None:
    text = to_hcl(given_)
    assert read_back(text) == given_
    # One line each: no value can become another variable.
    assert [line.partition(" = ")[0] for line in text.split("\n") if line] == sorted(given_)


@needs_nomad
@given(st.lists(nasty, min_size=1, max_size=80))
@settings(max_examples=8)
def test_nomad_reads_the_same_strings(given_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        job, file = Path(directory, "echo.nomad.hcl"), Path(directory, "values.hcl")
        job.write_text(ECHO)
        file.write_text(to_hcl({"given": given_}), encoding="utf-8")
        done = nomad("job", "run", "-output", f"-var-file={file}", str(job))
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)["Job"]["Datacenters"]
    # HCL composes characters (NFC); nothing we write depends on it.
    assert read == [unicodedata.normalize("NFC", one) for one in given_]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_hcl_cannot_say_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_hcl({"given": number})


def test_every_value_is_declared_by_some_spec(state: State) -> None:
    declared = {name for job in JOBS for name in spec(job).variables}
    assert set(values(state)) <= declared


@needs_nomad
@pytest.mark.parametrize("job", JOBS)
def test_nomad_accepts_every_spec_with_the_values(state: State, job: str, tmp_path: Path) -> None:
    file = tmp_path / "values.hcl"
    file.write_text(to_hcl(values(state)))
    done = nomad("job", "run", "-output", "-hcl2-strict=false", f"-var-file={file}", f"{job}.nomad.hcl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Job"]["ID"] == job


def test_no_secret_is_among_the_values(state: State) -> None:
    """They reach the tasks by Nomad's own variables only."""

    def leaves(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [one for inner in value.values() for one in leaves(inner)]
        return [one for inner in value for one in leaves(inner)] if isinstance(value, list) else [str(value)]

    text = to_hcl(values(state))
    kept = [one for one in leaves(state.secrets()) if one]
    assert len(kept) > 12
    assert not [one for one in kept if one in text]
