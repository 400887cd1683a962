from __future__ import annotations

import base64
import json
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history.events import JSON
from reports.redact import REPLACEMENT, SHORTEST, Redactor, is_secret_name

SECRET = "hunter2/&hunter2"  # noqa: S105


def test_a_value_is_hidden_in_every_form() -> None:
    redactor = Redactor([SECRET])
    encoded = base64.b64encode(SECRET.encode()).decode()
    for text in (SECRET, urllib.parse.quote(SECRET, safe=""), encoded, encoded.rstrip("=")):
        assert redactor.text(f"a {text} b").replace("=", "") == f"a {REPLACEMENT} b"


def test_a_secret_inside_another_leaves_no_rest() -> None:
    redactor = Redactor(["abcdef", "abcdef-ghijkl"])
    assert redactor.text("x abcdef-ghijkl y abcdef") == f"x {REPLACEMENT} y {REPLACEMENT}"


def test_what_is_too_short_would_blank_the_report() -> None:
    assert Redactor(["a" * (SHORTEST - 1), ""]).text("aaaaaaa") == "aaaaaaa"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("NOMAD_TOKEN", True),
        ("pgPassword", True),
        ("ts-auth-key", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("x.api.key", True),
        ("credentials", True),
        ("keyboard", False),
        ("nodeid", False),
        ("message", False),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) == secret


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
