"""deploy/nomad/README.md says what the specs do."""

import re

import pytest

from fixtures.rollout import rollback, triggers
from tests.deploy.spec import DEPLOY, JOBS, README, SERVICES, labelled, one, spec
from tests.deploy.test_network import NAMES
from tests.deploy.test_placement import VOLUMES

TEXT = README.read_text()
# Phase by phase, as in the plan.
ORDER = [
    "gvfx-postgres",
    "gvfx-objectstore",
    "gvfx-convex",
    "gvfx-rl-service",
    "gvfx-api",
    "gvfx-frontend",
    "gvfx-worker-egress-check",
    "gvfx-worker",
]


def commands() -> str:
    """What stands in shell blocks, in order."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S))


def rows() -> dict[str, list[str]]:
    """The table of jobs."""
    return {
        job: [cell.strip() for cell in rest.split("|")]
        for job, rest in re.findall(r"(?m)^\| `(gvfx-[\w-]+)` \| (.*) \|$", TEXT)
    }


def test_the_table_has_every_job() -> None:
    """No more, no less."""
    assert sorted(rows()) == JOBS


@pytest.mark.parametrize("job", SERVICES)
def test_copies_names_and_ports(job: str) -> None:
    """Each row against its spec."""
    copies, names, _ = rows()[job]
    assert copies.split(",")[0] == str(spec(job).group["count"])
    for name, port in NAMES[job].items():
        assert name in names
        # The worker's port is a dynamic one.
        assert job == "gvfx-worker" or str(port) in names


@pytest.mark.parametrize("job", JOBS)
def test_state(job: str) -> None:
    """Whoever has a volume says so."""
    volumes = {source for (owner, _), (_, source) in VOLUMES.items() if owner == job}
    assert volumes == {
        name for name in {source for _, source in VOLUMES.values()} if f"`{name}`" in rows()[job][2]
    }


def test_every_file_that_is_named_is_there() -> None:
    """Specs, policies, values and the script."""
    for name in re.findall(r"[\w./-]+\.(?:nomad|policy|example)\.hcl", TEXT):
        assert (DEPLOY / name).is_file(), name
    for name in re.findall(r"\bscripts/[\w/.-]+\.sh", TEXT):
        assert (DEPLOY.parents[1] / name).is_file(), name


def test_jobs_are_submitted_in_the_plans_order() -> None:
    """First mention of each in the phases; the backup when there is something to back up."""
    phases = TEXT[TEXT.index("## Phase 1") : TEXT.index("## Phase 4")]
    submitted = re.findall(
        r"nomad job run -hcl2-strict=false -var-file=variables\.hcl (gvfx-[\w-]+)\.nomad\.hcl", phases
    )
    assert [job for job in submitted if job in ORDER] == ORDER
    assert set(submitted) == set(JOBS)


def test_the_legacy_worker_stops_between_proof_and_start() -> None:
    """Never two workers: check, stop the old one, start the new one; the other way round when going back."""
    text = commands()
    cutover = [
        text.index(word) for word in ("gvfx-worker-egress-check.nomad", "disable --now", "gvfx-worker.nomad")
    ]
    assert cutover == sorted(cutover)
    rollback = TEXT[TEXT.index("## Rollback") :]
    steps = [
        rollback.index(word)
        for word in ("nomad job stop gvfx-worker", "enable --now", "job revert", "convex import")
    ]
    assert steps == sorted(steps)


def test_the_rollback_is_the_one_that_the_suite_carries_out() -> None:
    """Command by command; P4.3 executes each step of it."""
    section = TEXT[TEXT.index("## Rollback") : TEXT.index("## Backup and restore")]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.S)
    assert [line.partition("#")[0].strip() for line in block.splitlines()] == rollback.commands()


def test_the_observation_is_the_one_that_the_suite_does() -> None:
    """Triggers and figures of the table against the evaluation's own."""
    section = TEXT[TEXT.index("## Phase 4") : TEXT.index("## Rollback")]
    assert f"{triggers.SUSTAINED_CYCLES} cycles of any {2 * triggers.SUSTAINED_CYCLES}" in section
    assert triggers.REPEATED == 2 and "at two different times" in section
    live = triggers.thresholds(60.0)
    assert f"every {live.period:g} s" in section and round(live.cycle / live.period) == 6
    assert f"{triggers.PLAN_HOURS:g} h" in section


def test_numbers_in_the_text_are_the_defaults() -> None:
    """HOLD, TTL and LockDelay as promised; the sum is what the server guarantees."""
    variables = spec("gvfx-worker").variables
    ttl, delay, hold = (
        int(variables[f"lock_{name}_seconds"]["default"]) for name in ("ttl", "delay", "hold")
    )
    assert f"`lock_hold_seconds` ({hold})" in TEXT
    assert f"TTL + LockDelay ({ttl} + {delay} s)" in TEXT
    assert hold < ttl + delay
    assert f'`ts_return_seconds = "{variables["ts_return_seconds"]["default"]}"`' in TEXT


def test_variables_that_are_named_exist() -> None:
    """`lower_case_words` in backticks are variables of some spec."""
    known = {name for job in JOBS for name in spec(job).variables}
    # Nomad's own words, and a legacy block that is explained as left out.
    known |= {"stop_on_client_after", "max_kill_timeout", "failover_heartbeat_ttl"}
    named = set(re.findall(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?: = [^`]*)?`", TEXT))
    assert len(named) > 5
    assert named <= known, named - known


def test_volume_names_of_the_client_block() -> None:
    """What the specs mount by default."""
    blocks = set(re.findall(r'host_volume "([\w-]+)"', TEXT))
    sources = {
        spec(job).value(body["source"])
        for job in JOBS
        for body in labelled(spec(job).group, "volume").values()
    }
    assert blocks == sources


def test_the_backups_bucket_is_the_one_that_is_made() -> None:
    """Named in the README, created by the object store's bootstrap, written by the backup."""
    bucket = spec("gvfx-postgres-backup").variables["backup_bucket"]["default"]
    assert f"`{bucket}" in TEXT
    store = spec("gvfx-objectstore")
    assert "var.backup_bucket" in str(store.environment(store.tasks["bootstrap"])["BUCKETS"])
    assert one(spec("gvfx-postgres-backup").tasks["upload"].body, "env")["BUCKET"] == "var.backup_bucket"
