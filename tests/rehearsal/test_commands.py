"""``python -m fixtures.rehearsal`` on a machine that is not ready: one message, a status, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.rehearsal.__main__ import main
from fixtures.rehearsal.state import State, UseLock, runs_dir

BUILDING = ["up"]
STANDING = [["status"], ["down"], ["env"], ["shell", "c1"], ["sweep"]]


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment of our own (the commands take things out of it), root, and a Docker that is not there."""
    before = dict(os.environ)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    os.environ["DOCKER_HOST"] = "unix:///nonexistent"
    yield
    os.environ.clear()
    os.environ.update(before)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Status and what stands on standard error; never a traceback."""
    status = main(list(argv))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return status, said


def parts(said: str) -> dict[str, str]:
    """The labelled lines of one message."""
    assert said.count("observed:") == 1, said
    return {line.split(":")[0].strip(): line.partition(": ")[2].strip() for line in said.splitlines()}


@pytest.mark.parametrize("argv", [["up"], ["status"], ["sweep"]])
def test_without_docker(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys, *argv)
    assert status == 1
    assert "Docker engine" in said and "No such file or directory" in said
    assert parts(said)["next"] == "env -u DOCKER_HOST docker info"
    assert list(runs_dir().iterdir()) == []


def test_without_tools(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.environ["PATH"] = str(tmp_path)
    status, said = run(capsys, "up")
    assert status == 1
    for tool in ("docker", "iptables", "ip", "git", "debootstrap"):
        assert f"tool {tool}: missing" in said
    assert parts(said)["next"] == "python -m fixtures.rehearsal doctor"
    assert list(runs_dir().iterdir()) == []


@pytest.mark.parametrize("argv", [BUILDING, *STANDING], ids=lambda argv: argv[0])
def test_without_root(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    status, said = run(capsys, *argv)
    assert status == 3
    assert parts(said)["observed"] == "user id 65534"
    assert not cache.exists()


@pytest.mark.parametrize("argv", [["down"], ["env"], ["shell", "c1"]], ids=lambda argv: argv[0])
def test_without_a_rehearsal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys, *argv)
    assert status == 3
    assert parts(said)["next"] == "python -m fixtures.rehearsal up"


@pytest.mark.parametrize("argv", [BUILDING, *STANDING], ids=lambda argv: argv[0])
def test_with_a_cache_that_is_no_directory(
    argv: list[str], capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    cache.write_text("")
    status, said = run(capsys, *argv)
    assert status == 1
    assert str(cache) in said and "GVFX_CACHE" in parts(said)["expected"]


def test_with_an_engine_on_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["DOCKER_HOST"] = "tcp://192.0.2.1:2375"
    status, said = run(capsys, "up")
    assert status == 3
    assert "another machine" in said


@pytest.mark.parametrize("argv", [["up"], ["down"], ["sweep"]], ids=lambda argv: argv[0])
def test_beside_another_run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lock = UseLock()
    lock.acquire()
    try:
        status, said = run(capsys, *argv)
    finally:
        lock.release()
    assert status == 3
    assert parts(said)["next"].startswith(f"ps -fp {os.getpid()} ")


def test_a_second_cluster_is_refused(capsys: pytest.CaptureFixture[str], state: State) -> None:
    state.kept = state.ready = True
    state.save()
    status, said = run(capsys, "up")
    assert status == 3
    assert "stands already" in said and "down" in parts(said)["next"]
    assert state.directory.is_dir()


@pytest.mark.parametrize(
    ("argv", "word"),
    [([], "COMMAND"), (["up", "--timers", "fast"], "fast"), (["shell", "c9"], "c9"), (["dwon"], "dwon")],
)
def test_wrong_words(argv: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


def test_env_clears_the_other_cluster_first(
    capsys: pytest.CaptureFixture[str], state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `eval` of this leaves in the shell must be one cluster, not two mixed."""
    state.kept = state.ready = True
    state.save()
    os.environ.update(NOMAD_REGION="live", CONSUL_NAMESPACE="live", PGHOST="live")
    monkeypatch.setattr("fixtures.rehearsal.machines.engine", lambda: None)
    monkeypatch.setattr("fixtures.rehearsal.machines.Machines.pid", lambda self, host: 1)
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["unset CONSUL_NAMESPACE", "unset NOMAD_REGION"]
    assert any(line.startswith("export NOMAD_ADDR=https://100.64.") for line in lines)
    assert not any("PG" in line for line in lines)
