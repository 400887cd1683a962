"""Find or build the tools a rehearsal cluster is made of.

Each tool is a Go module of its own under ``toolchain/<name>`` whose ``go.mod`` and ``go.sum`` pin every
dependency by checksum.  A finished build is cached under a key made of those two files and the recipe, so a
second run costs one ``stat`` per tool.  A binary of the right version in ``GVFX_TOOLS_DIR`` or on ``PATH`` is
used instead of a build.

Run ``python -m toolchain.build`` to build everything and print where each binary is.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolchain.scratch import made

HERE = Path(__file__).parent


class ToolchainError(RuntimeError):
    """A tool is missing and could not be built; the message names the tool and the next command to try."""


@dataclass(frozen=True)
class Recipe:
    """How one Go module becomes binaries.

    ``binaries`` maps the file name of each binary to its Go package.  ``version_args`` makes a binary print its
    version and ``version_pattern`` finds it; ``from_path`` says whether a binary found elsewhere may stand in.
    """

    name: str
    version: str
    binaries: Mapping[str, str]
    ldflags: str = "-s -w"
    tags: str = ""
    version_args: tuple[str, ...] = ("version",)
    version_pattern: str = r"v?(\d+\.\d+\.\d+)"
    from_path: bool = True

    @property
    def module_dir(self) -> Path:
        return HERE / self.name

    @property
    def out(self) -> Path:
        """Where its build is cached."""
        return cache_root() / "toolchain" / f"{self.name}-{self.version}-{self.key()}"

    def key(self) -> str:
        """Content key of the build: pins, versions, flags."""
        digest = hashlib.sha256()
        for part in ("go.mod", "go.sum"):
            digest.update((self.module_dir / part).read_bytes())
        digest.update(repr((self.version, sorted(self.binaries.items()), self.ldflags, self.tags)).encode())
        return digest.hexdigest()[:16]


_CNI = "github.com/containernetworking/plugins"

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "tailscale",
        "1.102.5",
        {"tailscaled": "tailscale.com/cmd/tailscaled"},
        ldflags="-s -w -X tailscale.com/version.shortStamp=1.102.5 -X tailscale.com/version.longStamp=1.102.5",
        # One binary serves as client and daemon; argv[0] decides.
        tags="ts_include_cli",
        version_args=("--version",),
        # A stock tailscaled has no client inside, so only our own build qualifies.
        from_path=False,
    ),
    Recipe(
        "headscale",
        "0.27.1",
        {"headscale": "github.com/juanfont/headscale/cmd/headscale"},
        ldflags="-s -w -X github.com/juanfont/headscale/hscontrol/types.Version=v0.27.1",
    ),
    # The release tag keeps mock_driver out, as in a production build.
    Recipe(
        "nomad",
        "1.11.2",
        {"nomad": "github.com/hashicorp/nomad"},
        ldflags="-s -w -X github.com/hashicorp/nomad/version.GitCommit=gvfx-toolchain",
        tags="release",
    ),
    Recipe("consul", "1.22.2", {"consul": "github.com/hashicorp/consul"}),
    Recipe(
        "cni",
        "1.8.0",
        {
            "bridge": f"{_CNI}/plugins/main/bridge",
            "loopback": f"{_CNI}/plugins/main/loopback",
            "host-local": f"{_CNI}/plugins/ipam/host-local",
            "firewall": f"{_CNI}/plugins/meta/firewall",
            "portmap": f"{_CNI}/plugins/meta/portmap",
        },
        # Nomad constrains bridge-mode jobs on the version the plugin itself reports.
        ldflags=f"-s -w -X {_CNI}/pkg/utils/buildversion.BuildVersion=v1.8.0",
        version_args=("--version",),
        from_path=False,
    ),
)


def cache_root() -> Path:
    """``$GVFX_CACHE``, else ``$XDG_CACHE_HOME/gvfx``, else ``~/.cache/gvfx``."""
    if explicit := os.environ.get("GVFX_CACHE"):
        return Path(explicit).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "gvfx"


def _version_of(binary: Path, recipe: Recipe) -> str | None:
    try:
        answer = subprocess.run(
            [str(binary), *recipe.version_args], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(recipe.version_pattern, answer.stdout + answer.stderr)
    return found.group(1) if found else None


def _given(recipe: Recipe) -> dict[str, Path] | None:
    """Binaries from GVFX_TOOLS_DIR, all of them or none; another version there is an error, not passed over."""
    given = os.environ.get("GVFX_TOOLS_DIR")
    places = [Path(given) / name for name in recipe.binaries] if given else []
    if not places or not all(p.is_file() for p in places):
        return None
    found = {p: _version_of(p, recipe) for p in places}
    bad = [f"{p} is {v or 'unreadable'}" for p, v in found.items() if v != recipe.version]
    if bad:
        raise ToolchainError(
            f"{recipe.name}: {', '.join(bad)}, expected {recipe.version}; "
            f"put the right binary into GVFX_TOOLS_DIR={given} or unset it to build from source"
        )
    return dict(zip(recipe.binaries, places, strict=True))


def _on_path(recipe: Recipe) -> dict[str, Path] | None:
    """Binaries of exactly the pinned version from PATH, all of them or none."""
    if not recipe.from_path:
        return None
    found: dict[str, Path] = {}
    for name in recipe.binaries:
        where = shutil.which(name)
        if where is None or _version_of(Path(where), recipe) != recipe.version:
            return None
        found[name] = Path(where)
    return found


def _build(recipe: Recipe, out: Path, say: Callable[[str], None]) -> None:
    go = shutil.which("go")
    if go is None:
        raise ToolchainError(
            f"{recipe.name} {recipe.version}: no such binary found and no Go toolchain to build it with; "
            "run scripts/setup, or point GVFX_TOOLS_DIR at a directory that holds it"
        )
    # The user's settings for other builds (another system, a workspace) must not get into this one.
    env = dict(
        os.environ, CGO_ENABLED="0", GOTOOLCHAIN="local", GOFLAGS="-mod=readonly -buildvcs=false",
        GO111MODULE="on", GOWORK="off", GOOS="linux", GOARCH="amd64", GOEXPERIMENT="",
    )  # fmt: skip
    started = time.monotonic()
    with made(out) as work:
        work.mkdir()
        for name, package in recipe.binaries.items():
            say(f"building {name} {recipe.version} from source (once; minutes on a small machine)")
            command = [go, "build", "-trimpath", f"-ldflags={recipe.ldflags}"]
            if recipe.tags:
                command.append(f"-tags={recipe.tags}")
            command += ["-o", str(work / name), package]
            done = subprocess.run(
                command, cwd=recipe.module_dir, env=env, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                tail = "\n".join(done.stderr.strip().splitlines()[-12:])
                raise ToolchainError(
                    f"{recipe.name} {recipe.version}: `{' '.join(command)}` in {recipe.module_dir} exited "
                    f"{done.returncode}:\n{tail}"
                )
    say(f"built {recipe.name} {recipe.version} in {time.monotonic() - started:.0f} s")


def ensure(
    names: Iterable[str] | None = None, say: Callable[[str], None] = lambda line: None
) -> dict[str, Path]:
    """Return the path of every binary, building what is missing.

    ``names`` limits the work to some recipes.  Raises :class:`ToolchainError` naming the tool that failed.
    """
    wanted = set(names) if names is not None else {recipe.name for recipe in RECIPES}
    binaries: dict[str, Path] = {}
    for recipe in RECIPES:
        if recipe.name not in wanted:
            continue
        ready = _given(recipe)
        if ready is None and not recipe.out.is_dir():
            ready = _on_path(recipe)
            if ready is None:
                _build(recipe, recipe.out, say)
        binaries.update(ready or {name: recipe.out / name for name in recipe.binaries})
    return binaries


def main() -> int:
    try:
        for name, path in ensure(
            sys.argv[1:] or None, say=lambda line: print(f"toolchain: {line}", flush=True)
        ).items():
            print(f"{name:12} {path}")
    except ToolchainError as problem:
        print(f"toolchain: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
