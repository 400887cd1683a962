"""What is made for the cache is there whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from toolchain import scratch


def test_made_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "tree"
    with scratch.made(place) as work:
        work.mkdir()
        (work / "file").write_text("x")
        assert not place.exists()
    assert (place / "file").read_text() == "x"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("tree", [True, False])
def test_what_failed_leaves_nothing(tmp_path: Path, error: type[BaseException], tree: bool) -> None:
    with pytest.raises(error), scratch.made(tmp_path / "it") as work:
        if tree:
            (work / "a" / "b").mkdir(parents=True)
        else:
            work.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    place = tmp_path / "it"
    with scratch.made(place) as work:
        work.write_text("second")
        place.write_text("first")
    assert place.read_text() == "first"
    assert list(tmp_path.iterdir()) == [place]


def test_only_dead_makers_have_abandoned_their_work(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    dead = [
        tmp_path / "layers" / f".x.tar.{gone.pid}.work",
        tmp_path / "rootfs" / f".tree.{gone.pid}.work",
        tmp_path / "registry" / "blobs" / "ab" / f".data.{gone.pid}.work",
    ]
    others = [
        tmp_path / "layers" / f".x.tar.{os.getpid()}.work",
        tmp_path / "layers" / "x.tar",
        tmp_path / "layers" / ".work",
        tmp_path / "runs" / "0123" / f".state.{gone.pid}.work",
    ]
    for path in (*dead, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    assert sorted(scratch.abandoned(tmp_path)) == sorted(dead)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_is_mounted_inside_is_let_go_and_not_emptied(tmp_path: Path) -> None:
    """As debootstrap leaves it when it is killed."""
    tree, outside = tmp_path / "a tree", tmp_path / "outside"
    (tree / "proc").mkdir(parents=True)
    outside.mkdir()
    (outside / "precious").write_text("x")
    made = subprocess.run(
        ["mount", "--bind", str(outside), str(tree / "proc")], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("this root may not mount")
    scratch.remove(tree)
    assert not tree.exists()
    assert (outside / "precious").read_text() == "x"
