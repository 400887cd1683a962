"""``python -m drills.killed [--at MOMENT]``: the runner dies by SIGKILL at a moment; the sweep must leave nothing.

For each moment: note what this machine has, start the acceptance run, kill it and its children when its output
says that the moment has come, run ``sweep``, and compare containers, networks, volumes, links, rules, mounts,
processes and run directories.

Exit status: 0 nothing was left at any moment, 1 something was, 2 a moment never came, 3 refused.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fixtures import console
from fixtures.history.log import EVENTS
from fixtures.rehearsal.state import runs_dir
from fixtures.target.options import ROOT

PYTEST = [sys.executable, "-m", "pytest", "acceptance", "-m", "phase3", "-v", "-p", "no:cacheprovider"]
REHEARSAL = [sys.executable, "-m", "fixtures.rehearsal"]
PATIENCE = 900.0
"""Seconds for a moment to come; a whole run from nothing takes a quarter of that."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When the runner dies: as soon as its output or its history holds `word`."""

    name: str
    word: str


MOMENTS = (
    Moment("hosts", "tools and images:"),
    Moment("tailnet", "hosts and networks:"),
    Moment("agents", "operator's network:"),
    Moment("images", "four clients ready:"),
    Moment("deploy", "images on the clients:"),
    Moment("store-frozen", '"phase":"applied"'),
    Moment("rescheduling", '"the restarted worker runs","source":"eventually"'),
    Moment("misdirected", 'refuses","source":"eventually"'),
)


def surface() -> dict[str, set[str]]:
    """What a run could leave on this machine, by kind. Raises CalledProcessError when it cannot be read."""
    return {
        "container": _lines("docker", "ps", "-aq", "--no-trunc"),
        "network": _lines("docker", "network", "ls", "-q", "--no-trunc"),
        "volume": _lines("docker", "volume", "ls", "-q"),
        "link": {line.split(": ")[1].split("@")[0] for line in _lines("ip", "-o", "link")},
        "address": _lines("ip", "-br", "-4", "address"),
        "route": _lines("ip", "route", "show", "table", "all"),
        "namespace": _lines("ip", "netns", "list"),
        "filter rule": _lines("iptables", "-S"),
        "nat rule": _lines("iptables", "-t", "nat", "-S"),
        "mount": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "directory": {str(path) for path in runs_dir().iterdir()},
        "process": _processes(),
    }


def _lines(*argv: str) -> set[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def _processes() -> set[str]:
    """Processes in network namespaces that are not this machine's, and the engine's helpers of containers."""
    home = os.stat("/proc/self/ns/net").st_ino
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
            away = os.stat(path / "ns/net").st_ino != home
        except OSError:
            continue
        if away or "containerd-shim" in words or "docker-proxy" in words:
            found.add(f"{path.name} {words}")
    return found


def die_at(moment: Moment, directory: Path) -> bool:
    """Start a run and kill it, with every process it started itself, at the moment; False if it never came."""
    directory.mkdir(parents=True)
    log, history = directory / "pytest.log", directory / EVENTS
    with log.open("w", encoding="utf-8") as out:
        argv = [*PYTEST, "--run-dir", str(directory)]
        runner = subprocess.Popen(argv, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + PATIENCE

    def said() -> str:
        return log.read_text() + (history.read_text() if history.exists() else "")

    while (came := moment.word in said()) is False and time.monotonic() < deadline:
        if runner.poll() is not None:
            break
        time.sleep(0.02)
    try:
        os.killpg(runner.pid, signal.SIGKILL)
    except ProcessLookupError:
        came = False
    runner.wait()
    return came


def judge(moment: str, before: dict[str, set[str]]) -> bool:
    """Sweep, compare, print one line; True when nothing was left."""
    dirty = {kind: len(now - before[kind]) for kind, now in surface().items()}
    start = time.monotonic()
    swept = subprocess.run([*REHEARSAL, "sweep"], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    after = surface()
    left = {kind: now - before[kind] for kind, now in after.items()}
    lost = {kind: before[kind] - now for kind, now in after.items() if kind != "process"}
    wrong = [f"left {kind}: {one}" for kind, ones in left.items() for one in sorted(ones)]
    if not any(dirty.values()):
        wrong.append("there was nothing to sweep: the runner died too early to prove anything")
    wrong += [f"also removed {kind}: {one}" for kind, ones in lost.items() for one in sorted(ones)]
    if swept.returncode != 0:
        wrong.append(f"sweep ended with {swept.returncode}: {swept.stderr.strip()[:300]}")
    found = ", ".join(f"{kind} {count}" for kind, count in dirty.items() if count)
    print(
        f"{'BAD' if wrong else 'ok '} {moment:12} swept in {seconds:4.1f} s: {found or 'nothing'}", flush=True
    )
    for line in wrong:
        print(f"    {line}", flush=True)
    return not wrong


def main(argv: list[str]) -> int:
    """Run the moments in turn."""
    parser = argparse.ArgumentParser(prog="python -m drills.killed", description=__doc__.partition("\n")[0])
    parser.add_argument("--at", action="append", choices=[one.name for one in MOMENTS], help="repeatable")
    parser.add_argument("--run-dir", type=Path, help="where output and histories go")
    given = parser.parse_args(argv)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    runs: Path = given.run_dir or ROOT / "reports" / "out" / f"killed-{stamp}"
    if subprocess.run([*REHEARSAL, "status"], cwd=ROOT, capture_output=True, check=False).returncode != 1:
        print(
            "a rehearsal stands, or left something; next: python -m fixtures.rehearsal down", file=sys.stderr
        )
        return 3
    before = surface()
    clean = True
    for moment in MOMENTS:
        if given.at and moment.name not in given.at:
            continue
        if not die_at(moment, runs / moment.name):
            print(
                f"moment {moment.name!r} ({moment.word!r}) never came; see {runs / moment.name}",
                file=sys.stderr,
            )
            return 2
        clean &= judge(moment.name, before)
    return 0 if clean else 1


if __name__ == "__main__":
    console.run(main)
