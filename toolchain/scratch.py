"""Making something for the cache: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WORK = re.compile(r"\..+\.(\d+)\.work")


@contextmanager
def temporary(place: Path) -> Iterator[Path]:
    """A free path beside ``place`` for something that is needed only meanwhile."""
    work = place.with_name(f".{place.name}.{os.getpid()}.work")
    remove(work)
    work.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    finally:
        remove(work)


@contextmanager
def made(place: Path) -> Iterator[Path]:
    """Where to make ``place``: moved there when all went well, removed when anything did not.

    Of two processes that make the same, the first to finish wins.
    """
    with temporary(place) as work:
        yield work
        if not place.exists():
            work.rename(place)


def abandoned(root: Path) -> list[Path]:
    """What processes that were killed were making in the cache; runs have their own removal."""
    return [
        path
        for pattern in ("*/.*.work", "registry/**/.*.work")
        for path in sorted(root.glob(pattern))
        if (found := _WORK.fullmatch(path.name)) and not Path(f"/proc/{found[1]}").exists()
    ]


def remove(work: Path) -> None:
    """Remove a file or a tree, after what a killed program mounted in it."""
    if work.is_dir() and not work.is_symlink():
        for place in reversed(_mounts(work)):
            subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)
        shutil.rmtree(work)
    else:
        work.unlink(missing_ok=True)


def _mounts(tree: Path) -> list[str]:
    """Mount points inside a tree, outermost first."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), place) for place in places]
    return sorted(place for place in inside if Path(place).is_relative_to(tree))
