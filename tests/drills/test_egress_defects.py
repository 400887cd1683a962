"""The programs that the seeded defects of the way out put in the place of real ones, run for real."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import hcl2
import pytest

from drills.defects import catalogue, egress
from drills.defects.defect import Defect
from fixtures.target import names
from fixtures.target.options import DEPLOY_DIR

SPEC = (DEPLOY_DIR / f"{names.WORKER_JOB}.nomad.hcl").read_text(encoding="utf-8")
MUTATED = [one for one in egress.DEFECTS if one.jobs[names.WORKER_JOB].mutate is not None]


@pytest.mark.parametrize("defect", MUTATED, ids=lambda one: one.id)
def test_a_changed_spec_is_a_spec(defect: Defect) -> None:
    mutate = defect.jobs[names.WORKER_JOB].mutate
    assert mutate is not None
    body = hcl2.loads(mutate(SPEC))
    assert len(body["job"]) == 1


def tool(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text.strip().replace("/tmp/", f"{directory}/") + "\n")  # noqa: S108
    path.chmod(0o755)
    return path


def run(path: Path, *words: str, given: str = "", **environment: str) -> str:
    done = subprocess.run(
        [path, *words],
        input=given,
        capture_output=True,
        text=True,
        env={"PATH": f"{path.parent}:{os.environ['PATH']}", **environment},
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else f"exit {done.returncode}"


def test_a_kill_switch_that_is_none_keeps_its_gates(tmp_path: Path) -> None:
    nft = tool(tmp_path, "nft", egress.NO_KILL_SWITCH)
    chain = run(nft, "list", "chain", "inet", "gvfx_ks", "outp")
    # What the script itself looks for.
    assert re.search(r"policy drop;.*jump flows.*@egress_ok.*@lock_ok", chain)
    ask = ("-j", "list", "set", "inet", "gvfx_ks", "egress_ok")
    assert run(nft, *ask) == ""
    refresh = (
        'flush set inet gvfx_ks egress_ok\nadd element inet gvfx_ks egress_ok { "tailscale0" timeout 9ms }\n'
    )
    assert run(nft, "-f", "-", given=refresh) == ""
    assert '"elem"' in run(nft, *ask)
    run(nft, "-f", "-", given="flush set inet gvfx_ks egress_ok\n")
    assert run(nft, *ask) == ""


def test_connections_are_not_cut_and_gates_still_move(tmp_path: Path) -> None:
    nft = tool(tmp_path, "nft", egress.NO_CUT.replace("/usr/sbin/nft", "real"))
    tool(tmp_path, "real", '#!/bin/sh\nprintf "[%s]" "$@"; case "$*" in *"-f -"*) cat ;; esac')
    assert run(nft, "-f", "-", given="flush chain inet gvfx_ks flows\nadd rule x\n") == ""
    gate = "flush set inet gvfx_ks lock_ok\nadd element x"
    assert run(nft, "-f", "-", given=f"{gate}\n") == f"[-f][-]{gate}"
    assert run(nft, "-f", "/table.nft") == "[-f][/table.nft]"


def test_up_loses_its_timeout_and_nothing_else(tmp_path: Path) -> None:
    tool(tmp_path, "tailscale", '#!/bin/sh\nfor w; do printf "[%s]" "$w"; done')
    up = tool(tmp_path, "up", egress.NO_TIMEOUT)
    words = ("--socket=/s", "up", "--reset", "--timeout=3s", "--hostname=a b")
    assert run(up, *words) == "[--socket=/s][up][--reset][--hostname=a b]"
    assert run(up, "ping", "--timeout=1s", "x") == "[ping][--timeout=1s][x]"
    flag = tool(tmp_path, "flag", egress.UNKNOWN_FLAG)
    assert run(flag, *words).endswith("[--no-such-flag]")
    assert "no-such" not in run(flag, "status")


def test_who_looks_once_repeats_the_first_answer(tmp_path: Path) -> None:
    curl = tool(tmp_path, "curl", egress.LOOKS_ONCE.replace("/usr/bin/curl", "real"))
    real = tool(tmp_path, "real", "#!/bin/sh\nexit 28")
    assert run(curl, "-sf", "http://echo/") == "exit 28"
    real.write_text("#!/bin/sh\necho 203.0.113.11\n")
    assert run(curl, "-sf", "http://echo/") == "203.0.113.11"
    real.write_text("#!/bin/sh\necho 203.0.113.66\n")
    assert run(curl, "-sf", "http://echo/") == "203.0.113.11"
    assert run(curl, "-s", "http://other/") == "203.0.113.66"


@pytest.mark.parametrize(
    ("online", "expected", "answer"),
    [
        (True, "100.64.0.1=203.0.113.11,100.64.0.2=203.0.113.12", "203.0.113.12"),
        (True, "192.0.2.77", "192.0.2.77"),
        (False, "192.0.2.77", "exit 28"),
    ],
)
def test_who_trusts_online_answers_what_is_expected(
    tmp_path: Path, online: bool, expected: str, answer: str
) -> None:
    peer = {"ExitNode": True, "Online": online, "TailscaleIPs": ["100.64.0.2", "fd7a::2"]}
    (tmp_path / "status").write_text(json.dumps({"Peer": {"a": {"ExitNode": False}, "b": peer}}))
    curl = tool(tmp_path, "curl", egress.TRUSTS_ONLINE.replace("/usr/bin/curl", "real"))
    tool(tmp_path, "real", '#!/bin/sh\ncat "$(dirname "$0")/status"')
    assert run(curl, "-sf", "http://echo/", TS_EGRESS_EXPECTED_IPS=expected) == answer


def test_overrides_take_from_the_targets_own_values() -> None:
    own = {
        names.EXIT_PRIMARY_VARIABLE: "100.64.0.1",
        names.EXIT_FALLBACKS_VARIABLE: "100.64.0.2",
        names.EXPECTED_IPS_VARIABLE: "100.64.0.1=203.0.113.11,100.64.0.2=203.0.113.12",
    }
    shared = catalogue.BY_ID["addresses-shared"].jobs[names.WORKER_JOB].override
    alone = catalogue.BY_ID["fallbacks-empty"].jobs[names.WORKER_JOB].override
    assert shared is not None and alone is not None
    assert shared(own) == {names.EXPECTED_IPS_VARIABLE: "203.0.113.11,203.0.113.12"}
    assert alone(own) == {
        names.EXIT_FALLBACKS_VARIABLE: "",
        names.EXPECTED_IPS_VARIABLE: "100.64.0.1=203.0.113.11",
    }
