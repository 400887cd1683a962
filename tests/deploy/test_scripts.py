"""The shell scripts inside the specs: clean, and right about volumes, locks, backups and stores.

They run here as they are, under busybox, with the paths of their container moved into a temporary directory and
stand-ins for `curl` and `nc`.
"""

import http.server
import json
import os
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.deploy.spec import JOBS, Heredoc, spec
from tests.guard.bench import BUSYBOX

SCRIPTS = {
    f"{job}/{task.name}/{Path(destination).name}": str(body["data"])
    for job in JOBS
    for task in spec(job).tasks.values()
    for destination, body in task.templates.items()
    if isinstance(body["data"], Heredoc) and body["data"].startswith("#!")
}


def test_the_scripts_are_found() -> None:
    """An empty table would make the tests below pass without a look."""
    assert {name.rpartition("/")[2] for name in SCRIPTS} == {
        *("volume-check.sh", "start.sh", "bootstrap.sh", "probe.sh", "upload.sh")
    }
    assert len(SCRIPTS) == 9


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_left_for_the_template_engine(name: str) -> None:
    """No secret and no expression inside a script: values come by the environment."""
    assert "{{" not in SCRIPTS[name]
    assert not re.search(r"\$\{(?:var|local|node|attr|meta|env)\.", SCRIPTS[name])


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt: shellcheck)"
)
@pytest.mark.parametrize("name", SCRIPTS)
def test_clean(name: str) -> None:
    """shellcheck has nothing to say."""
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-"], input=SCRIPTS[name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_both_stores_take_the_lock_the_same_way() -> None:
    """One text, two specs."""
    assert SCRIPTS["gvfx-postgres/postgres/start.sh"] == SCRIPTS["gvfx-objectstore/objectstore/start.sh"]


def run(
    root: Path,
    name: str,
    *words: str,
    env: Mapping[str, str],
    paths: Mapping[str, str] | None = None,
    shell: Sequence[str] = (BUSYBOX, "sh"),
) -> tuple[int, str]:
    """Run a script with its container's directories moved below `root`; exit code and output."""
    text = SCRIPTS[name]
    for path, place in (paths or {}).items():
        assert path in text
        text = text.replace(path, place)
    script = root / "script.sh"
    script.write_text(text)
    done = subprocess.run(
        [*shell, str(script), *words],
        env={"PATH": f"{root}/bin:/usr/bin:/bin", "W": str(root), **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout


PLAIN = ("/bin/sh",)


def stand_in(root: Path, name: str, body: str) -> None:
    """A command for the scripts; busybox prefers its own applets, so where one stands in the shell is PLAIN."""
    (root / "bin").mkdir(exist_ok=True)
    path = root / "bin" / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


# ------------------------------------------------------------------------------------------------ volume-check

IDENTITY = 7574001122334455667
STORES = ["gvfx-postgres", "gvfx-objectstore"]


def volume(root: Path, job: str, marker: str | None, holds: str) -> Path:
    """A volume: its marker, and `nothing`, `something`, `ours`, or `another's` data."""
    place = root / "volume"
    data = place / ("pgdata" if job == "gvfx-postgres" else "store")
    place.mkdir()
    if marker is not None:
        (place / ".gvfx-volume").write_text(f"{marker}\n")
    if holds != "nothing":
        data.mkdir()
    if holds == "something":
        (data / "file").write_text("x")
    if holds in ("ours", "another's"):
        identity = IDENTITY if holds == "ours" else IDENTITY + 1
        if job == "gvfx-postgres":
            (data / "global").mkdir()
            (data / "global/pg_control").write_bytes(struct.pack("<Q", identity) + b"rest")
        else:
            (data / ".gvfx-identity").write_text(f"{identity}\n")
    return place


@pytest.mark.parametrize("job", STORES)
@pytest.mark.parametrize(
    ("marker", "holds", "code", "after"),
    [
        (None, "nothing", 21, None),
        (None, "ours", 21, None),
        ("new", "nothing", 0, "initialising"),
        ("new", "something", 22, "new"),
        ("initialising", "something", 0, "initialising"),
        (f"initialised {IDENTITY}", "ours", 0, f"initialised {IDENTITY}"),
        (f"initialised {IDENTITY}", "nothing", 23, f"initialised {IDENTITY}"),
        (f"initialised {IDENTITY}", "another's", 24, f"initialised {IDENTITY}"),
        ("initialised", "ours", 24, "initialised"),
        ("", "nothing", 24, ""),
        ("NEW", "nothing", 24, "NEW"),
    ],
)
def test_a_store_never_comes_up_empty(
    tmp_path: Path, job: str, marker: str | None, holds: str, code: int, after: str | None
) -> None:
    """Wiped, foreign or unprovisioned volumes are refused, each with its code; a refusal changes nothing."""
    place = volume(tmp_path, job, marker, holds)
    got, said = run(tmp_path, f"{job}/volume-check/volume-check.sh", env={}, paths={"/volume": str(place)})
    assert got == code, said
    (line,) = said.splitlines()
    fields = json.loads(line)
    assert (fields["event"], fields["ok"]) == ("volume-check", code == 0)
    left = place / ".gvfx-volume"
    assert (left.read_text().strip() if left.exists() else None) == after


@pytest.mark.parametrize("job", STORES)
def test_data_without_its_identity_is_refused(tmp_path: Path, job: str) -> None:
    """A directory that holds something, but not the file that says whose it is."""
    place = volume(tmp_path, job, f"initialised {IDENTITY}", "something")
    got, _ = run(tmp_path, f"{job}/volume-check/volume-check.sh", env={}, paths={"/volume": str(place)})
    assert got in (23, 24)


# ------------------------------------------------------------------------------------------------ start

START = "gvfx-postgres/postgres/start.sh"


def test_one_process_at_a_time_on_a_volume(tmp_path: Path) -> None:
    """While the first lives the second is refused with 26; its death frees the volume."""
    env = {"GVFX_VOLUME": str(tmp_path), "GVFX_LOCK_WAIT_SECONDS": "0"}
    (tmp_path / "first.sh").write_text(SCRIPTS[START])
    first = subprocess.Popen(
        [BUSYBOX, "sh", str(tmp_path / "first.sh"), "sh", "-c", f"echo up > {tmp_path}/up; exec sleep 30"],
        env={"PATH": "/usr/bin:/bin", **env},
    )
    try:
        end = time.monotonic() + 5
        while not (tmp_path / "up").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        code, said = run(tmp_path, START, "echo", "second", env=env)
        assert (code, json.loads(said)["why"]) == (26, "another process holds the volume")
    finally:
        first.kill()
        first.wait()
    assert run(tmp_path, START, "echo", "second", env=env) == (0, "second\n")


def test_the_server_gets_its_arguments_whole(tmp_path: Path) -> None:
    """Blanks and stars arrive as they were given, and its exit code is the task's."""
    env = {"GVFX_VOLUME": str(tmp_path), "GVFX_LOCK_WAIT_SECONDS": "0"}
    code, said = run(tmp_path, START, "sh", "-c", 'printf "[%s]" "$@"; exit 7', "x", "a b", "*", "", env=env)
    assert (code, said) == (7, "[a b][*][]")


# ------------------------------------------------------------------------------------------------ backup


@pytest.mark.parametrize(("broken", "whole"), [(None, True), ("pg_dump", False), ("pg_restore", False)])
def test_only_a_readable_dump_is_handed_on(tmp_path: Path, broken: str | None, whole: bool) -> None:
    """Dumped under another name, its table of contents read, then renamed; nobody else may read it."""
    shell, flag, line = spec("gvfx-postgres-backup").tasks["dump"].config["entrypoint"]
    assert (shell, flag) == ("/bin/sh", "-c")
    for tool, body in (
        ("pg_dump", 'for word; do file=$word; done; echo data > "$file"'),
        ("pg_restore", '[ -s "$2" ]'),
    ):
        stand_in(tmp_path, tool, "exit 1" if tool == broken else body)
    done = subprocess.run(
        [shell, flag, line.replace("/alloc/data", str(tmp_path))],
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert (done.returncode == 0) is whole
    assert (tmp_path / "dump").exists() is whole
    assert not whole or (tmp_path / "dump").stat().st_mode & 0o777 == 0o600


S3 = r"""
out= data= url= method=GET
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out=$2; shift ;; -T) data=$2; method=PUT; shift ;; -X) method=$2; shift ;;
    -K | --max-time | --connect-timeout | --aws-sigv4) shift ;;
    http*) url=$1 ;;
  esac
  shift
done
path=${url#http://s3/}
echo "$method $path" >> "$W/calls"
case "$method $path" in
  *"?list-type"*) [ ! -e "$W/list-fails" ] || exit 22; for key in $(cat "$W/keys"); do printf '<Contents><Key>%s</Key></Contents>' "$key"; done ;;
  DELETE*) if [ -e "$W/delete-fails" ]; then rm "$W/delete-fails"; exit 22; fi ;;
  PUT*) [ ! -e "$W/put-fails" ] || exit 22; cat "$data" > "$W/object" ;;
  GET*) cat "$W/object"; [ ! -e "$W/damaged" ] || echo damage ;;
esac
"""


def backup(root: Path, keep: int = 14) -> tuple[int, str]:
    """Run the upload against a stand-in of S3."""
    stand_in(root, "curl", S3)
    (root / "dump").write_bytes(b"dump\0bytes")
    if not (root / "keys").exists():
        (root / "keys").write_text("")
    return run(
        root,
        "gvfx-postgres-backup/upload/upload.sh",
        paths={"/alloc/data/dump": f"{root}/dump"},
        env={
            "ENDPOINT": "http://s3",
            "BUCKET": "backups",
            "DATABASE": "goldviewfx",
            "REGION": "us-east-1",
            "KEEP_DAYS": str(keep),
        },
    )


def calls(root: Path) -> list[str]:
    """What S3 was asked."""
    return (root / "calls").read_text().splitlines()


def key_of(days: float) -> str:
    """The key of a backup made so many days ago."""
    return f"goldviewfx/{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H%M%SZ}.dump"


def test_a_backup_is_read_back_and_old_ones_go(tmp_path: Path) -> None:
    """Older than KEEP_DAYS is deleted, the youngest of them not."""
    old, kept = [key_of(15.5), key_of(400)], [key_of(13), key_of(0.5)]
    (tmp_path / "keys").write_text(" ".join([*old, *kept]))
    code, said = backup(tmp_path)
    assert code == 0, said
    fields = json.loads(said.splitlines()[-1])
    assert (fields["ok"], fields["bytes"]) == (True, 10)
    made = calls(tmp_path)
    assert made[0] == f"PUT backups/{fields['key']}"
    assert made[1] == f"GET backups/{fields['key']}"
    assert made[2].startswith("GET backups?list-type=2&prefix=goldviewfx%2F")
    assert sorted(made[3:]) == sorted(f"DELETE backups/{key}" for key in old)


@pytest.mark.parametrize(("trouble", "code"), [("put-fails", 41), ("damaged", 43)])
def test_a_bad_backup_deletes_nothing(tmp_path: Path, trouble: str, code: int) -> None:
    """The old ones are all there is."""
    (tmp_path / "keys").write_text(key_of(400))
    (tmp_path / trouble).write_text("")
    got, said = backup(tmp_path)
    assert (got, json.loads(said.splitlines()[-1])["ok"]) == (code, False)
    assert not [call for call in calls(tmp_path) if call.startswith("DELETE")]


@pytest.mark.parametrize("trouble", ["list-fails", "delete-fails"])
def test_a_bucket_that_cannot_be_cleared_is_said(tmp_path: Path, trouble: str) -> None:
    """Code 44, even if only the first of several deletions fails: the bucket would fill unseen."""
    (tmp_path / "keys").write_text(f"{key_of(400)} {key_of(300)}")
    (tmp_path / trouble).write_text("")
    got, said = backup(tmp_path)
    assert (got, json.loads(said.splitlines()[-1])["ok"]) == (44, False)


# ------------------------------------------------------------------------------------------------ convex's probe

CONVEX = r"""
case "$*" in
  *"/version"*) [ ! -e "$W/no-version" ] ;;
  *gvfx-objectstore*) [ ! -e "$W/no-s3" ] || exit 7; printf 403 ;;
  *"/api/query"*)
    echo "$*" >> "$W/queries"
    if [ -e "$W/query-fails" ]; then echo '{"status":"error"}'; else echo '{"status":"success","value":1}'; fi ;;
esac
"""


@pytest.mark.parametrize(
    ("trouble", "function", "code"),
    [
        ("", "", 0),
        ("", "data:query", 0),
        ("no-version", "", 2),
        ("no-s3", "", 1),
        ("no-postgres", "", 1),
        ("query-fails", "data:query", 1),
        ("query-fails", "", 0),
    ],
)
def test_convex_is_critical_only_when_it_does_not_answer(
    tmp_path: Path, trouble: str, function: str, code: int
) -> None:
    """A store that is away is a warning: the name keeps resolving, callers get an error and no silence."""
    if trouble:
        (tmp_path / trouble).write_text("")
    stand_in(tmp_path, "curl", CONVEX)
    stand_in(tmp_path, "nc", 'cat > /dev/null; [ -e "$W/no-postgres" ] || printf N')
    got, said = run(
        tmp_path,
        "gvfx-convex/probe/probe.sh",
        env={"PROBE_FUNCTION": function, "PROBE_ARGS": '{"table":"x"}'},
        shell=PLAIN,
    )
    assert got == code, said
    assert len(said.splitlines()) == 1
    if function:
        sent = (tmp_path / "queries").read_text()
        assert '{"path":"data:query","format":"json","args":{"table":"x"}}' in sent
    assert os.path.exists(tmp_path / "queries") == bool(function)


# ------------------------------------------------------------------------------------------------ bootstraps

PSQL = r"""
case "$*" in
  *"select 1"*) ;;
  *system_identifier*) echo 7574001122334455667 ;;
  *) cat > "$W/sql"; [ ! -e "$W/sql-fails" ] ;;
esac
"""


def bootstrap_postgres(tmp_path: Path, place: Path) -> tuple[int, str]:
    """Run it on this volume, with a server that is a script."""
    stand_in(tmp_path, "psql", PSQL)
    stand_in(tmp_path, "sync", "exit 0")
    return run(
        tmp_path,
        "gvfx-postgres/bootstrap/bootstrap.sh",
        env={"WAIT_SECONDS": "0", "MAINTENANCE_DB": "postgres"},
        paths={"/volume": str(place)},
        shell=PLAIN,
    )


@pytest.mark.parametrize(
    ("marker", "code", "after"),
    [
        ("initialising", 0, f"initialised {IDENTITY}"),
        (f"initialised {IDENTITY}", 0, f"initialised {IDENTITY}"),
        (f"initialised {IDENTITY + 1}", 34, f"initialised {IDENTITY + 1}"),
        ("new", 34, "new"),
    ],
)
def test_postgres_identity_is_written_once(tmp_path: Path, marker: str, code: int, after: str) -> None:
    """First start writes it, later ones compare; a server on the wrong volume is no success."""
    place = volume(tmp_path, "gvfx-postgres", marker, "ours")
    got, said = bootstrap_postgres(tmp_path, place)
    assert got == code, said
    assert (place / ".gvfx-volume").read_text().strip() == after
    sql = (tmp_path / "sql").read_text()
    assert "nosuperuser nocreatedb nocreaterole" in sql
    assert "create role %I', :'user') where not exists" in sql


def test_a_failed_bootstrap_leaves_the_marker(tmp_path: Path) -> None:
    """Code 32, and the next start is still a first one."""
    place = volume(tmp_path, "gvfx-postgres", "initialising", "ours")
    (tmp_path / "sql-fails").write_text("")
    got, _ = bootstrap_postgres(tmp_path, place)
    assert got == 32
    assert (place / ".gvfx-volume").read_text() == "initialising\n"


BUCKETS = r"""
for word; do url=$word; done
echo "$*" >> "$W/calls"
name=${url##*/}
case "$*" in
  *" -I "*) [ -e "$W/bucket.$name" ] && printf 200 || printf 404 ;;
  *) if [ -e "$W/denied" ]; then printf 403; else : > "$W/bucket.$name"; printf 200; fi ;;
esac
"""


def buckets(root: Path, marker: str, holds: str) -> tuple[int, Path]:
    """Run the object store's bootstrap for two buckets."""
    place = volume(root, "gvfx-objectstore", marker, holds)
    stand_in(root, "curl", BUCKETS)
    stand_in(root, "sync", "exit 0")
    got, _ = run(
        root,
        "gvfx-objectstore/bootstrap/bootstrap.sh",
        env={"BUCKETS": "one two", "REGION": "r", "WAIT_SECONDS": "-60"},
        paths={"/volume": str(place)},
        shell=PLAIN,
    )
    return got, place


def test_missing_buckets_are_made_and_an_identity_is_given(tmp_path: Path) -> None:
    """First start: both are made, the store gets a random identity, marker and store agree."""
    (tmp_path / "bucket.two").write_text("")
    got, place = buckets(tmp_path, "initialising", "something")
    assert got == 0
    made = [call for call in calls(tmp_path) if " -X PUT " in call]
    assert [call.rpartition("/")[2] for call in made] == ["one"]
    identity = (place / "store/.gvfx-identity").read_text().strip()
    assert len(identity) == 36
    assert (place / ".gvfx-volume").read_text().strip() == f"initialised {identity}"


@pytest.mark.parametrize(("holds", "code"), [("ours", 0), ("another's", 54)])
def test_a_later_bootstrap_changes_nothing(tmp_path: Path, holds: str, code: int) -> None:
    """Buckets are there, the identity is compared."""
    for name in ("one", "two"):
        (tmp_path / f"bucket.{name}").write_text("")
    got, place = buckets(tmp_path, f"initialised {IDENTITY}", holds)
    assert got == code
    assert not [call for call in calls(tmp_path) if " -X PUT " in call]
    assert (place / ".gvfx-volume").read_text().strip() == f"initialised {IDENTITY}"


def test_a_bucket_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Code 51 when time is up, and no identity is given to a half-made store."""
    (tmp_path / "denied").write_text("")
    got, place = buckets(tmp_path, "initialising", "something")
    assert got == 51
    assert (place / ".gvfx-volume").read_text().strip() == "initialising"


@pytest.mark.parametrize(
    ("missing", "code"),
    [(None, 0), ("one", 2), ("two", 2), ("three", 2)],
    ids=["none", "first", "middle", "last"],
)
def test_the_object_stores_probe_asks_for_each_bucket(tmp_path: Path, missing: str | None, code: int) -> None:
    """A real curl against a server that knows all buckets but one: whichever it is, the check is critical."""
    asked = []

    class Store(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").partition("?")[0]
            asked.append((name, self.headers.get("Authorization", "").split(" ")[0]))
            self.send_response(404 if name == missing else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "s3.curlrc").write_text('user = "key:secret"\n')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            got, said = run(
                tmp_path,
                "gvfx-objectstore/probe/probe.sh",
                env={"BUCKETS": "one two three", "REGION": "r"},
                paths={
                    "127.0.0.1:9000": f"127.0.0.1:{server.server_port}",
                    "/secrets/s3.curlrc": str(tmp_path / "s3.curlrc"),
                },
            )
        finally:
            server.shutdown()
            thread.join()
    assert got == code, said
    assert {kind for _, kind in asked} == {"AWS4-HMAC-SHA256"}
    assert missing or [name for name, _ in asked] == ["one", "two", "three"]
