"""The programs that the seeded defects of the lock put in the place of curl, run for real against a small one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from drills.defects import catalogue, windows
from fixtures.history.rules import RULES
from fixtures.target import hcl, names
from fixtures.target.options import DEPLOY_DIR
from fixtures.target.windows import lock_settings
from tests.drills.test_egress_defects import run, tool

SPEC = (DEPLOY_DIR / f"{names.WORKER_JOB}.nomad.hcl").read_text(encoding="utf-8")
ACQUIRE = "http://localhost/v1/var/lock?lock-acquire&namespace=default"
RENEW = "http://localhost/v1/var/lock?lock-renew&namespace=default"


def test_every_rule_of_the_test_is_broken_by_several_defects() -> None:
    assert {rule.id for rule in RULES if rule.test == "T8"} == windows.ALL
    for rule in windows.ALL:
        assert sum(rule in one.expected_red for one in catalogue.DEFECTS) >= 2, rule


@pytest.mark.parametrize("defect", ["lock-hangs-on", "lock-held-too-long"])
def test_a_program_holds_nothing_that_hcl_would_read_as_its_own(defect: str) -> None:
    mutate = catalogue.BY_ID[defect].jobs[names.WORKER_JOB].mutate
    assert mutate is not None
    changed = mutate(SPEC)
    start, end = hcl.block(changed, f'task "{names.WATCH_TASK}"')
    config = changed[start:end][changed[start:end].index("config {") :]
    command = config[: config.index("\n", config.index("entrypoint"))]
    assert "${" not in command and "%{" not in command


def test_the_hold_passes_the_guards_own_check() -> None:
    override = catalogue.BY_ID["lock-held-too-long"].jobs[names.WORKER_JOB].override
    assert override is not None
    told = {name.upper(): str(value) for name, value in override({}).items()}
    lock = lock_settings(told)
    assert lock.hold < lock.ttl + lock.delay
    for name in override({}):
        assert f'variable "{name}"' in SPEC


def test_the_servers_are_asked_for_less(tmp_path: Path) -> None:
    tool(tmp_path, "real", '#!/bin/sh\nfor w; do printf "[%s]" "$w"; done')
    curl = tool(tmp_path, "curl", windows.SHORT_LEASE.replace("/usr/bin/curl", "real"))
    body = '{"Path":"p","Namespace":"default","Lock":{"TTL":"60000ms","LockDelay":"60000ms"}}'
    told = run(curl, "-X", "PUT", "-w", "\\n%{http_code}", "-d", body, ACQUIRE)
    assert '"TTL":"10000ms","LockDelay":"1000ms"' in told
    assert told.startswith("[-X][PUT][-w][\\n%{http_code}][-d]") and told.endswith(f"[{ACQUIRE}]")
    assert run(curl, "-d", '{"Lock":{"ID":"x y"}}') == '[-d][{"Lock":{"ID":"x y"}}]'


def test_a_renewal_that_hangs_is_no_answer(tmp_path: Path) -> None:
    real = tool(tmp_path, "real", "#!/bin/sh\nexec sleep 30")
    curl = tool(tmp_path, "curl", windows.HANGS_ON.replace("/usr/bin/curl", "real"))
    begun = time.monotonic()
    assert run(curl, RENEW) == "{}\n200"
    assert time.monotonic() - begun < 5
    for answer in ("no leader\n500", ""):
        real.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
        assert answers(curl) == {"{}\n200"}


@pytest.mark.parametrize(("real", "answer"), [("printf 'gone\\n403'", "gone\n403"), ("exit 7", "exit 7")])
def test_a_refusal_is_heard_and_a_new_lock_forgets_it(tmp_path: Path, real: str, answer: str) -> None:
    program = tool(tmp_path, "real", f"#!/bin/sh\n{real}")
    curl = tool(tmp_path, "curl", windows.HANGS_ON.replace("/usr/bin/curl", "real"))
    assert answer in answers(curl)
    program.write_text("#!/bin/sh\nprintf '{}\\n200'")
    assert run(curl, ACQUIRE) == "{}\n200"
    assert answers(curl) == {"{}\n200"}


def answers(curl: Path) -> set[str]:
    """What some renewals in a row are told, each a while after the one before."""
    found = set()
    for _ in range(4):
        found.add(run(curl, RENEW))
        time.sleep(0.15)
    return found
