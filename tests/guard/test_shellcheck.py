"""Every shell script of the project is clean under shellcheck."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = ("sh", "bash", "dash", "ash")


def scripts() -> list[str]:
    """Tracked files whose first line names a shell."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            first = path.read_bytes().split(b"\n", 1)[0].decode(errors="replace")
            if first.startswith("#!") and first.split()[-1].rpartition("/")[2] in SHELLS:
                found.append(name)
    return found


def test_the_scripts_are_found() -> None:
    """An empty list would make the test below pass without a look."""
    assert {"scripts/tailscale/worker-egress-guard.sh", "scripts/setup", "scripts/test"} <= set(scripts())


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt: shellcheck)"
)
@pytest.mark.parametrize("name", scripts())
def test_clean(name: str) -> None:
    """shellcheck has nothing to say, and the file may be run."""
    done = subprocess.run(["shellcheck", name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (ROOT / name).stat().st_mode & 0o111
