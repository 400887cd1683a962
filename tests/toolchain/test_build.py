"""Where the tools come from: a given directory, the cache, PATH, a build; never another version."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain import build
from toolchain.build import RECIPES, ToolchainError

OUTPUT = 'while [ "$1" != -o ]; do shift; done\n'
"""Of the arguments of `go build`, leaves the file to write as $2."""
NOMAD = next(recipe for recipe in RECIPES if recipe.name == "nomad")


def tool(directory: Path, version: str, name: str = "nomad") -> Path:
    """A program that says which version it is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho Nomad v{version}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no given directory, nothing but a shell on PATH."""
    monkeypatch.setenv("GVFX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GVFX_TOOLS_DIR", raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_a_given_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path / "bin", NOMAD.version)
    tool(NOMAD.out, NOMAD.version)
    given = tool(tmp_path / "given", NOMAD.version)
    monkeypatch.setenv("GVFX_TOOLS_DIR", str(given.parent))
    assert build.ensure(["nomad"]) == {"nomad": given}


@pytest.mark.parametrize("cached", [True, False])
def test_another_version_that_was_given_is_refused(
    cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cached:
        tool(NOMAD.out, NOMAD.version)
    given = tool(tmp_path / "given", "1.2.0")
    monkeypatch.setenv("GVFX_TOOLS_DIR", str(given.parent))
    with pytest.raises(ToolchainError, match=rf"{given} is 1\.2\.0, expected {NOMAD.version}"):
        build.ensure(["nomad"])


def test_a_directory_without_the_tool_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVFX_TOOLS_DIR", str(tmp_path / "given"))
    found = tool(tmp_path / "bin", NOMAD.version)
    assert build.ensure(["nomad"]) == {"nomad": found}


def test_the_cache_comes_before_path(tmp_path: Path) -> None:
    tool(tmp_path / "bin", NOMAD.version)
    cached = tool(NOMAD.out, NOMAD.version)
    assert build.ensure(["nomad"]) == {"nomad": cached}


@pytest.mark.parametrize("on_path", [None, "1.2.0"])
def test_without_go_the_missing_tool_is_named(on_path: str | None, tmp_path: Path) -> None:
    if on_path:
        tool(tmp_path / "bin", on_path)
    with pytest.raises(ToolchainError, match=rf"nomad {NOMAD.version}: .*scripts/setup"):
        build.ensure(["nomad"])


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    go = tool(tmp_path / "bin", "", "go")
    go.write_text(f"#!/bin/sh\n{OUTPUT}echo half >\"$2\"; echo 'no space left on device' >&2; exit 1\n")
    with pytest.raises(ToolchainError, match="no space left on device"):
        build.ensure(["nomad"])
    assert list(NOMAD.out.parent.iterdir()) == []


def test_other_builds_settings_do_not_get_into_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tool(tmp_path / "bin", "", "go")
    go.write_text(f'#!/bin/sh\n{OUTPUT}echo "$GOOS $GOARCH $GOWORK" >"$2"\n')
    for name in ("GOOS", "GOARCH", "GOWORK"):
        monkeypatch.setenv(name, "plan9")
    built = build.ensure(["nomad"])["nomad"]
    assert built.read_text() == "linux amd64 off\n"
    assert built.parent == NOMAD.out
