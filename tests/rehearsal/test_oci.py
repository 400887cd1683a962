"""Images in a registry's storage: found by digest, the same everywhere, one tag for one content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fixtures.rehearsal import images, oci
from fixtures.rehearsal.oci import Image, Layer
from tests.deploy.spec import JOBS, spec


def layer(directory: Path, content: bytes = b"a tar") -> Layer:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{len(content)}.tar"
    path.write_bytes(content)
    return Layer.of(path)


def blob(data: Path, digest: str) -> bytes:
    value = digest.removeprefix("sha256:")
    found = (data / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data").read_bytes()
    assert hashlib.sha256(found).hexdigest() == value
    return found


def test_a_stored_image_is_whole_and_named(tmp_path: Path) -> None:
    made = layer(tmp_path / "layers")
    image = Image([made], entrypoint=["/bin/x"], env={"A": "1"}, labels={"l": "v"})
    digest = oci.store(tmp_path / "data", "gvfx/api", "t1", image)
    manifest = json.loads(blob(tmp_path / "data", digest))
    assert [one["digest"] for one in manifest["layers"]] == [made.digest]
    assert manifest["layers"][0]["size"] == len(blob(tmp_path / "data", made.digest))
    config = json.loads(blob(tmp_path / "data", manifest["config"]["digest"]))
    assert config["config"]["Entrypoint"] == ["/bin/x"] and config["config"]["Env"] == ["A=1"]
    assert config["rootfs"]["diff_ids"] == [made.digest]
    repository = tmp_path / "data/docker/registry/v2/repositories/gvfx/api"
    assert (repository / "_manifests/tags/t1/current/link").read_text() == digest
    for one in (made.digest, manifest["config"]["digest"]):
        assert (repository / "_layers/sha256" / one.removeprefix("sha256:") / "link").read_text() == one


def test_equal_content_has_an_equal_digest_wherever_it_is(tmp_path: Path) -> None:
    digests = {
        oci.store(tmp_path / name, "gvfx/api", "t1", Image([layer(tmp_path / f"layers-{name}")]))
        for name in ("one", "two")
    }
    assert len(digests) == 1


def test_a_tag_is_immutable_and_storing_again_is_nothing_new(tmp_path: Path) -> None:
    first = oci.store(tmp_path, "gvfx/api", "t1", Image([layer(tmp_path / "l")]))
    assert oci.store(tmp_path, "gvfx/api", "t1", Image([layer(tmp_path / "l")])) == first
    with pytest.raises(ValueError, match="a tag is immutable"):
        oci.store(tmp_path, "gvfx/api", "t1", Image([layer(tmp_path / "l", b"another tar")]))
    assert oci.store(tmp_path, "gvfx/api", "t2", Image([layer(tmp_path / "l", b"another tar")])) != first


def test_the_tag_of_uncommitted_work_follows_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "PROJECT", tmp_path)  # no git repository: as good as a dirty one
    one, same, other = (
        images._tag({"api": Image([layer(tmp_path / "l", content)])}) for content in (b"1", b"1", b"22")
    )
    assert one == same != other
    assert len(one) == 40 and int(one, 16)


def test_a_content_key_sees_names_and_bytes_but_no_caches(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "__pycache__").mkdir(parents=True)
    (tree / "a.py").write_text("1")
    before = images._digest_of([tree], "recipe")
    (tree / "__pycache__" / "a.pyc").write_text("compiled")
    assert images._digest_of([tree], "recipe") == before
    (tree / "a.py").rename(tree / "b.py")
    renamed = images._digest_of([tree], "recipe")
    (tree / "b.py").write_text("2")
    keys = {before, renamed, images._digest_of([tree], "recipe"), images._digest_of([tree], "another")}
    assert len(keys) == 4


def test_a_layer_is_made_once_and_not_at_all_when_that_fails(cache: Path) -> None:
    def fill(tree: Path) -> None:
        (tree / "file").write_text("x")

    def fail(tree: Path) -> None:
        fill(tree)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        images._layer("x", "key", fail)
    assert list((cache / "layers").iterdir()) == []
    made = images._layer("x", "key", fill)
    assert made == Layer.of(made.path)
    assert images._layer("x", "key", fail) == made
    assert sorted(path.name for path in (cache / "layers").iterdir()) == ["x-key.digest", "x-key.tar"]


def test_stand_ins_get_the_packages_their_own_need() -> None:
    names = [one.metadata["Name"].lower() for one in images._distributions(["httpx"])]
    assert {"httpx", "httpcore", "anyio", "certifi"} <= set(names)
    assert "pytest" not in names and names == sorted(names)


def test_the_egress_image_has_the_scripts_that_the_specs_start_in_it(tmp_path: Path) -> None:
    images._fill_scripts(tmp_path)
    started = {
        word
        for job in JOBS
        for task in spec(job).tasks.values()
        if task.config["image"] == "var.egress_image"
        for word in task.config["entrypoint"]
    }
    assert len(started) == 2
    for word in started:
        assert (tmp_path / word.lstrip("/")).stat().st_mode & 0o777 == 0o755
