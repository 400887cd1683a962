from __future__ import annotations

import base64
import json
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fixtures.history.events import JSON
from reports.redact import LONGEST_WORD, REPLACEMENT, SHORTEST, Redactor, is_secret_name

SECRET = "hunter2/&hunter2"  # noqa: S105


def test_a_value_is_hidden_in_every_form() -> None:
    redactor = Redactor([SECRET])
    encoded = base64.b64encode(SECRET.encode()).decode()
    for text in (SECRET, urllib.parse.quote(SECRET, safe=""), encoded, encoded.rstrip("=")):
        assert redactor.text(f"a {text} b").replace("=", "") == f"a {REPLACEMENT} b"


def test_a_secret_inside_another_leaves_no_rest() -> None:
    redactor = Redactor(["abcdef-9", "abcdef-9-ghijkl"])
    assert redactor.text("x abcdef-9-ghijkl y abcdef-9") == f"x {REPLACEMENT} y {REPLACEMENT}"


@pytest.mark.parametrize("value", ["", "a", "admin", "s3cr3t!", "postgres", "POSTGRES", "minioadmin"])
def test_what_is_too_plain_would_blank_the_report(value: str) -> None:
    redactor = Redactor()
    assert not redactor.add(value) and not redactor.known
    assert redactor.text(f"gvfx-{value} stands") == f"gvfx-{value} stands"


@pytest.mark.parametrize(
    "value", ["s3cr3t!!", "a" * (LONGEST_WORD + 1), "hunter-two", "12345678", "Postgres"]
)
def test_what_is_hidden_is_told(value: str) -> None:
    redactor = Redactor()
    assert redactor.add(value) and redactor.known == {value}
    assert redactor.text(f"x{value}y") == f"x{REPLACEMENT}y"


def test_halves_that_a_shortened_repr_leaves() -> None:
    redactor = Redactor(["0123456789abcdef"])
    for text in (
        "{'token': '0123456789ab...', 1}",
        "{'a': '...456789abcdef'}",
        "x 0123456789abcde...23456789abcdef",
    ):
        hidden = redactor.text(text)
        assert "456789" not in hidden and REPLACEMENT in hidden, hidden
    # Neither a few characters that anything may end in, nor a half where nothing was cut.
    for text in ("tries 0123456...", "0123456789ab", "0123456789ab, then ..."):
        assert redactor.text(text) == text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("NOMAD_TOKEN", True),
        ("pgPassword", True),
        ("ts-auth-key", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("x.api.key", True),
        ("credentials", True),
        ("session", False),
        ("BINGX_WS_ENABLED", False),
        ("POSTGRES_DB", False),
        ("keyboard", False),
        ("nodeid", False),
        ("message", False),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) == secret


SENSITIVE = (
    "API_TOKEN",
    "BINGX_API_KEY",
    "BINGX_SECRET_KEY",
    "BINANCE_API_KEY",
    "BINANCE_SECRET_KEY",
    "TELEGRAM_API_ID",
    "TELEGRAM_API_HASH",
    "TELEGRAM_SESSION",
    "OPENAI_API_KEY",
    "TS_AUTHKEY",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "TIMESCALE_URL",
    "MINIO_ROOT_USER",
    "MINIO_ROOT_PASSWORD",
    "CONVEX_INSTANCE_SECRET",
    "CONVEX_SELF_HOSTED_ADMIN_KEY",
    "RL_SERVICE_API_KEY",
)
"""As the application's contract lists them (section 9)."""


@pytest.mark.parametrize("name", SENSITIVE)
def test_every_sensitive_name_of_the_application(name: str) -> None:
    assert is_secret_name(name)
    assert Redactor.from_environment({name: "a-value-of-it"}).text("a-value-of-it") == REPLACEMENT


def test_a_password_in_a_url_is_known_apart_from_it() -> None:
    redactor = Redactor.from_environment(
        {"TIMESCALE_URL": "postgres://u:p%40ss-word@h/db", "PLACE_URL": "http://h/x"}
    )
    assert redactor.text("with p@ss-word, with p%40ss-word") == f"with {REPLACEMENT}, with {REPLACEMENT}"
    assert redactor.text("http://h/x") == "http://h/x"


def test_the_environment_is_known_and_places_are_not_secrets() -> None:
    redactor = Redactor.from_environment(
        {
            "NOMAD_TOKEN": "one-secret",
            "TOKEN_FILE": "/etc/token",
            "SECRET_URL": "http://vault",
            "HOME": "/root",
        }
    )
    assert redactor.text("one-secret /etc/token http://vault /root") == (
        f"{REPLACEMENT} /etc/token http://vault /root"
    )


def test_below_a_secret_name_every_string_is_hidden_and_counts_stay() -> None:
    record: dict[str, JSON] = {
        "tokens": {"a": "x", "b": ["y", 5, None, True], "c": ""},
        "figures": {"tokens_seen": 3, "name": "z"},
    }
    assert Redactor()(record) == {
        "tokens": {"a": REPLACEMENT, "b": [REPLACEMENT, 5, None, True], "c": ""},
        "figures": {"tokens_seen": 3, "name": "z"},
    }


def test_a_secret_used_as_a_key_is_hidden_too() -> None:
    assert Redactor([SECRET])({SECRET: 1, "list": [{SECRET: "x"}]}) == {
        REPLACEMENT: 1,
        "list": [{REPLACEMENT: "x"}],
    }


def test_bearer_tokens_and_passwords_in_urls_need_not_be_known() -> None:
    redactor = Redactor()
    assert redactor.text("Authorization: Bearer abc.def-123=") == f"Authorization: Bearer {REPLACEMENT}"
    assert redactor.text("postgres://convex:pw@10.0.0.1/db") == f"postgres://convex:{REPLACEMENT}@10.0.0.1/db"
    assert redactor.text("http://10.0.0.1:8787/a@b") == "http://10.0.0.1:8787/a@b"


@given(
    st.text(alphabet="abcXYZ/&+= 09", min_size=SHORTEST, max_size=20),
    st.recursive(
        st.text(max_size=5) | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_a_known_secret_never_comes_through(secret: str, rest: JSON) -> None:
    assume(Redactor().add(secret))
    record: dict[str, JSON] = {"a": f"x{secret}y", "b": [rest, {"c": secret}], secret: rest}
    assert json.dumps(secret)[1:-1] not in json.dumps(Redactor([secret])(record))


def test_files_are_cleaned_and_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    dirty, clean = tmp_path / "deep" / "a.bin", tmp_path / "b.txt"
    dirty.write_bytes(b"\xff" + SECRET.encode() + b"\x00")
    clean.write_text("nothing here")
    outside = tmp_path.parent / "outside.txt"
    outside.write_text(SECRET)
    (tmp_path / "link").symlink_to(outside)
    redactor = Redactor([SECRET])
    assert redactor.clean_files(tmp_path) == [dirty]
    assert dirty.read_bytes() == b"\xff" + REPLACEMENT.encode() + b"\x00"
    assert outside.read_text() == SECRET, "a file of somebody else was changed"
    assert redactor.clean_files(tmp_path) == []
