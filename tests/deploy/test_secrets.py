"""Secrets: only from Nomad variables, only the task's own, only into its secrets directory."""

import re
from typing import Any

import pytest

from tests.deploy.spec import DEPLOY, JOBS, README, Spec, Task, example, mutated, spec

# Names whose values are secret, by word.
SECRET = re.compile(
    r"(?:^|_)(?:PASSWORD|SECRET|TOKEN|SESSION|AUTHKEY|API_HASH|API_KEY|ACCESS_KEY(?:_ID)?)(?:_|$)"
)
# Names that hold such a word and no secret: paths of files.
FILES = {"TS_AUTHKEY_FILE"}
# What secrets look like, whatever they are called.
SHAPES = [
    r"tskey-",
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bsk-[A-Za-z0-9]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"://[^/\s\"%:]+:[^/\s\"%@]+@",
    r"\bey[JK][A-Za-z0-9_-]{20,}\.",
    r"(?i)(?:password|secret|token)\s*[=:]\s*[\"']?(?!\{\{)[A-Za-z0-9+/_-]{12,}[\"']?\s*$",
    r"\b[0-9a-fA-F]{32,}\b",
]


def strings(value: Any) -> list[str]:
    """All literal strings in a tree."""
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in [str(key), *strings(one)]]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def literals(one: Spec) -> list[str]:
    """What looks like a secret: by its shape anywhere in the file, by its name in any environment."""
    found = [f"shape {shape}" for shape in SHAPES if re.search(shape, one.text, re.M)]
    for task in one.tasks.values():
        found += [
            f"{task.name}: {name}"
            for name in one.environment(task)
            if SECRET.search(name) and name not in FILES
        ]
    return found + [f"variable {name}" for name in one.variables if SECRET.search(name.upper())]


@pytest.mark.parametrize("job", JOBS)
def test_no_secret_in_a_spec(job: str) -> None:
    """Not as a literal, not in an environment, not as an HCL variable (which anybody who reads the job can read)."""
    assert literals(spec(job)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('NODE_ENV                      = "production"', 'API_TOKEN = "x"'),
        ('NODE_ENV                      = "production"', "API_TOKEN = var.api_command"),
        ("http://gvfx-convex.service.consul:3210", "http://user:hunter2@gvfx-convex.service.consul:3210"),
        ('"http://127.0.0.1:9"', '"tskey-auth-kXyz"'),
        ('"http://127.0.0.1:9"', f'"{"0123456789abcdef" * 2}"'),
        ('variable "api_command"', 'variable "api_token"'),
    ],
)
def test_a_planted_secret_is_seen(old: str, new: str) -> None:
    """By name or by shape."""
    assert literals(mutated("gvfx-api", old, new))


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.*")), ids=lambda path: path.name)
def test_no_secret_in_the_directory(path: Any) -> None:
    """The example, the policies and the README, too."""
    text = path.read_text()
    assert not [shape for shape in SHAPES if re.search(shape, text, re.M)]
    assert not [name for name in example() if SECRET.search(name.upper())]


def reads(task: Task) -> set[str]:
    """Paths of the Nomad variables that the task's templates read."""
    data = "".join(body.get("data", "") for body in task.body.get("template", []))
    return set(re.findall(r'nomadVar(?:Exists)? "([^"]+)"', data))


def implicit(job: str, task: Task) -> set[str]:
    """Paths a task's own identity may read without any policy."""
    base = f"nomad/jobs/{job}"
    return {"nomad/jobs", base, f"{base}/{task.group}", f"{base}/{task.group}/{task.name}"}


def foreign(job: str, one: Spec) -> list[str]:
    """Reads that would need a policy, and block the task for ever without one."""
    return [
        f"{task.name}: {path}"
        for task in one.tasks.values()
        for path in sorted(reads(task) - implicit(job, task))
    ]


@pytest.mark.parametrize("job", JOBS)
def test_a_task_reads_its_own_path(job: str) -> None:
    """No shared path: a leak in one job is a leak of one job."""
    assert foreign(job, spec(job)) == []


def test_a_foreign_path_is_seen() -> None:
    """The frontend reading the API's secrets."""
    wrong = mutated("gvfx-frontend", 'nomadVar "nomad/jobs/gvfx-frontend"', 'nomadVar "nomad/jobs/gvfx-api"')
    assert foreign("gvfx-frontend", wrong) == ["frontend: nomad/jobs/gvfx-api"]


def keys(task: Task) -> set[str]:
    """Items of Nomad variables that the task's templates name."""
    data = "".join(
        body.get("data", "") for body in task.body.get("template", []) if "nomadVar" in body.get("data", "")
    )
    found = set(re.findall(r'index (?:\.|\$vars) "(\w+)"', data))
    found |= set(re.findall(r"\.([A-Z][A-Z0-9_]+)\.Value", data))
    for words in re.findall(r'split "," "([^"]+)"', data):
        found |= set(words.split(","))
    return found


BACKEND = {
    *(
        "API_TOKEN",
        "BINGX_API_KEY",
        "BINGX_SECRET_KEY",
        "TELEGRAM_API_ID",
        "TELEGRAM_API_HASH",
        "TELEGRAM_SESSION",
    ),
    *(
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_MODEL",
        "OPENROUTER_REFERER",
        "OPENROUTER_TITLE",
        "TIMESCALE_URL",
    ),
}
ROOT_S3, CONVEX_S3, BACKUP_S3 = (
    {f"S3_{who}_ACCESS_KEY", f"S3_{who}_SECRET_KEY"} for who in ("ROOT", "CONVEX", "BACKUP")
)
NEEDS: dict[tuple[str, str], set[str]] = {
    ("gvfx-api", "api"): BACKEND | {"CORS_ORIGIN"},
    ("gvfx-worker", "worker"): BACKEND,
    ("gvfx-worker", "tailscale"): {"TS_AUTHKEY"},
    ("gvfx-worker", "egress-watch"): {"NOMAD_CACERT", "NOMAD_CLIENT_CERT", "NOMAD_CLIENT_KEY"},
    ("gvfx-worker-egress-check", "tailscale"): {"TS_AUTHKEY"},
    ("gvfx-frontend", "frontend"): {"API_TOKEN"},
    ("gvfx-rl-service", "rl-service"): {
        *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "OPENROUTER_REFERER", "OPENROUTER_TITLE")
    },
    ("gvfx-convex", "convex"): {
        *(
            "POSTGRES_USER",
            "POSTGRES_PASSWORD",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "INSTANCE_SECRET",
        )
    },
    ("gvfx-postgres", "postgres"): {"POSTGRES_USER", "POSTGRES_PASSWORD"},
    ("gvfx-postgres", "bootstrap"): {
        *("POSTGRES_USER", "POSTGRES_PASSWORD", "CONVEX_DB_USER", "CONVEX_DB_PASSWORD")
    },
    ("gvfx-objectstore", "objectstore"): ROOT_S3 | CONVEX_S3 | BACKUP_S3,
    ("gvfx-objectstore", "bootstrap"): ROOT_S3,
    ("gvfx-objectstore", "probe"): CONVEX_S3,
    ("gvfx-postgres-backup", "dump"): {"CONVEX_DB_USER", "CONVEX_DB_PASSWORD"},
    ("gvfx-postgres-backup", "upload"): {"S3_ACCESS_KEY", "S3_SECRET_KEY"},
}


def test_each_task_gets_what_it_needs_and_no_more() -> None:
    """The backup dumps as the owner, not as superuser; Convex has no root key; the worker no tailnet key."""
    found = {(job, task.name): keys(task) for job in JOBS for task in spec(job).tasks.values() if reads(task)}
    assert found == NEEDS


# Where the README names one variable for two jobs or a family of names.
FAMILIES = {
    "OPENAI_*": {"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"},
    "OPENROUTER_*": {"OPENROUTER_REFERER", "OPENROUTER_TITLE"},
}


def test_the_readme_lists_every_item() -> None:
    """Path by path, what an operator has to store is what the templates read."""
    documented: dict[str, set[str]] = {}
    for cell, text in re.findall(r"(?m)^\| (`nomad/jobs[^|]*) \| ([^|]*) \|$", README.read_text()):
        words = set(re.findall(r"`([A-Z][A-Z0-9_]*\*?)`", text))
        items = {name for word in words for name in FAMILIES.get(word, {word})}
        for path in re.findall(r"`([^`]+)`", cell):
            documented[path] = documented.get(path, set()) | items
    # "API also CORS_ORIGIN".
    documented["nomad/jobs/gvfx-worker"] -= {"CORS_ORIGIN"}
    read: dict[str, set[str]] = {}
    for job in JOBS:
        for task in spec(job).tasks.values():
            for path in reads(task):
                read[path] = read.get(path, set()) | keys(task)
    assert documented == read


@pytest.mark.parametrize("job", JOBS)
def test_secrets_are_written_to_the_secrets_directory(job: str) -> None:
    """In memory, private to the task, not served by Nomad's file API; a file that is no environment is 600."""
    for task in spec(job).tasks.values():
        for destination, body in task.templates.items():
            if "nomadVar" in body["data"]:
                assert destination.startswith("secrets/"), (task.name, destination)
                assert body.get("env") or body.get("perms") == "600", (task.name, destination)


@pytest.mark.parametrize("job", JOBS)
def test_no_secret_reaches_a_browser_or_a_command_line(job: str) -> None:
    """NEXT_PUBLIC_ names are baked into pages; arguments are seen by every user of the host."""
    for task in spec(job).tasks.values():
        assert not [key for key in keys(task) if key.startswith("NEXT_PUBLIC_")]
        words = strings({name: task.config.get(name, []) for name in ("entrypoint", "command", "args")})
        assert not [word for word in words if "nomadVar" in word or SECRET.search(word.upper())], task.name


def refused_when_empty(one: Spec, task: str) -> set[str]:
    """Items for which an empty value stops the template, and with it the start."""
    data = "".join(body["data"] for body in one.tasks[task].body["template"])
    found = set(re.findall(r'if eq \(index \$vars "(\w+)"\)\.Value "" \}\}\{\{ sprig_fail ', data))
    loops = r'range \$key := split "," "([\w,]+)" \}\}\s*\{\{- if eq \(index \$vars \$key\)\.Value "" \}\}\{\{ sprig_fail '
    for words in re.findall(loops, data):
        found |= set(words.split(","))
    return found


def test_an_empty_secret_stops_the_task() -> None:
    """An API without a token answers everybody; Convex with an empty URL or key falls back to local files."""
    assert refused_when_empty(spec("gvfx-api"), "api") == {"API_TOKEN"}
    assert refused_when_empty(spec("gvfx-frontend"), "frontend") == {"API_TOKEN"}
    assert refused_when_empty(spec("gvfx-convex"), "convex") == NEEDS["gvfx-convex", "convex"]
    assert refused_when_empty(mutated("gvfx-api", "sprig_fail", "printf"), "api") == set()


@pytest.mark.parametrize(
    ("job", "task", "mode"),
    [
        ("gvfx-api", "api", "restart"),
        ("gvfx-frontend", "frontend", "restart"),
        ("gvfx-rl-service", "rl-service", "restart"),
        ("gvfx-convex", "convex", "restart"),
        ("gvfx-worker", "worker", "restart"),
        # Read once; a restart of these would cut the worker off for nothing.
        ("gvfx-worker", "tailscale", "noop"),
        ("gvfx-worker", "egress-watch", "noop"),
        # The image reads them on an empty directory only.
        ("gvfx-postgres", "postgres", "noop"),
    ],
)
def test_what_a_rotated_secret_does(job: str, task: str, mode: str) -> None:
    """As the README says."""
    for body in spec(job).tasks[task].body["template"]:
        if "nomadVar" in body["data"]:
            assert body["change_mode"] == mode


def test_copies_do_not_restart_at_the_same_moment() -> None:
    """A splay on the services with two of them."""
    for job in ("gvfx-api", "gvfx-frontend", "gvfx-rl-service"):
        (template,) = (body for task in spec(job).tasks.values() for body in task.templates.values())
        assert template["splay"] == "10s"


@pytest.mark.parametrize("job", JOBS)
def test_values_are_quoted(job: str) -> None:
    """Line feeds, quotes and dollars in a secret stay inside its line: NAME={{ ... | toJSON }}."""
    for task in spec(job).tasks.values():
        for body in task.body.get("template", []):
            if body.get("env"):
                lines = [
                    line.strip() for line in body["data"].splitlines() if re.match(r"\s*[\w${} ]+=\{\{", line)
                ]
                assert lines, task.name
                assert all("| toJSON }}" in line for line in lines), task.name
