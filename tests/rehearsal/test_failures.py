"""What the machine refuses is said with the thing's name and the next command."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import httpx
import pytest
from docker.errors import APIError

from fixtures.errors import Refused, RehearsalError
from fixtures.rehearsal import failures
from toolchain.build import ToolchainError


def said(error: BaseException) -> RehearsalError:
    """The error as `typed` hands it on."""
    with pytest.raises(RehearsalError) as found, failures.typed():
        raise error
    return found.value


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/usr/lib/source.py"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        subprocess.CalledProcessError(
            2, ["tar", "-cf"], stderr=b"tar: x: Cannot write: No space left on device"
        ),
        APIError("write /var/lib/docker/tmp: no space left on device"),
    ],
    ids=["file", "quota", "program", "engine"],
)
def test_a_full_disk_is_called_one(error: Exception, cache: Path) -> None:
    found = said(error)
    assert "no space left on device" in found.observed.lower()
    assert found.next_command == f"df -h {cache} /var/lib/docker"


def test_the_failed_program_and_its_last_words() -> None:
    found = said(subprocess.CalledProcessError(2, ["tar", "-cf"], stderr="tar: broken\n"))
    assert (found.thing, found.observed) == ("tar", "exit 2: tar: broken")
    assert said(FileNotFoundError(errno.ENOENT, "No such file or directory", "iptables")).thing == "iptables"


def test_a_cache_that_is_none_names_the_variable(cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(RehearsalError, match="GVFX_CACHE") as found, failures.typed():
        (cache / "runs").mkdir(parents=True)
    assert found.value.thing.startswith(str(cache))


def test_an_api_that_does_not_answer_is_named() -> None:
    request = httpx.Request("GET", "https://100.64.0.1:4646/v1/jobs")
    found = said(httpx.ConnectError("refused", request=request))
    assert (found.thing, found.observed) == ("API at 100.64.0.1", "ConnectError: refused")
    assert said(httpx.ReadTimeout("late")).thing == "API"


def test_a_missing_tool_keeps_its_words() -> None:
    found = said(ToolchainError("nomad 1.2.0: no such binary"))
    assert found.observed == "nomad 1.2.0: no such binary"
    assert found.next_command == "scripts/setup"


def test_what_is_said_already_and_what_is_no_failure_pass() -> None:
    for error in (Refused("a", "b", "c"), BrokenPipeError(), KeyboardInterrupt(), ValueError("ours")):
        with pytest.raises(type(error)) as found, failures.typed():
            raise error
        assert found.value is error
