"""Secrets never reach the disk: by exact value wherever it stands, and by the name of its key."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path

from fixtures.history.events import JSON

REPLACEMENT = "[redacted]"
KEY_PARTS = (
    "token", "secret", "password", "authkey", "apikey", "accesskey", "privatekey", "adminkey", "apihash", "credential",
)  # fmt: skip
"""A string under a key that contains one of these, case and separators aside, is a secret."""
KEYS = frozenset({"telegramapiid", "telegramsession", "timescaleurl", "postgresuser", "miniorootuser"})
"""Sensitive by the application's contract, though nothing in the name says so."""
SHORTEST = 8
"""Characters; a shorter value would blank half the report, so it is hidden by the name of its key only."""
LONGEST_WORD = 12
"""Letters; up to so many of one case (`postgres`, `minioadmin`) are a word that reports are full of, likewise."""

_WORD = re.compile(rf"[a-z]{{1,{LONGEST_WORD}}}|[A-Z]{{1,{LONGEST_WORD}}}")
_PLACES = ("_FILE", "_PATH", "_DIR", "_ADDR", "_URL")  # such a variable says where the secret is
_CUT = "..."  # what a shortened repr has in its middle

_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/-]{6,}=*")
_SEPARATORS = re.compile(r"[^a-z0-9]")


class Redactor:
    """Callable that returns a copy of a JSON object without secrets; add values as they become known."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._exact: list[str] = []
        for secret in secrets:
            self.add(secret)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Redactor:
        """Knows the value of every variable whose name says that it is a secret, and every password in a URL."""
        found = cls()
        for name, value in environment.items():
            for _, password in _URL_PASSWORD.findall(value):
                found.add(urllib.parse.unquote(password))
            if is_secret_name(name) and (not name.upper().endswith(_PLACES) or _plain(name) in KEYS):
                found.add(value)
        return found

    @property
    def known(self) -> frozenset[str]:
        """The values that are hidden, for another process that must hide them too."""
        return frozenset(self._known)

    def add(self, secret: str) -> bool:
        """Hide this value from now on: as it is, URL-quoted, in base64, and as JSON, XML and Python write it.

        False for a value that is too short or a plain word, and is not hidden.
        """
        if len(secret) < SHORTEST or _WORD.fullmatch(secret):
            return False
        if secret not in self._known:
            self._known.add(secret)
            # Longest first: one secret may contain another.
            self._exact = sorted({*self._exact, *_forms(secret)}, key=len, reverse=True)
        return True

    def __call__(self, record: dict[str, JSON]) -> dict[str, JSON]:
        """The record without secrets."""
        return {self.text(key): self._value(value, is_secret_name(key)) for key, value in record.items()}

    def text(self, text: str) -> str:
        """The text without exact values, halves of them, bearer tokens and passwords in URLs."""
        # Most strings of a record are names and words, too short to hold any.
        if self._exact and len(text) >= len(self._exact[-1]):
            for secret in self._exact:
                if secret in text:
                    text = text.replace(secret, REPLACEMENT)
        if _CUT in text:
            text = self._without_halves(text)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1:{REPLACEMENT}@", text)
        return _BEARER.sub(rf"\1 {REPLACEMENT}", text)

    def clean_files(self, *places: Path) -> list[Path]:
        """Replace exact values in these files, and in every file below these directories; returns those that held one."""
        found: list[Path] = []
        secrets = [secret.encode() for secret in self._exact]
        files = {one for place in places for one in (place, *place.rglob("*"))}
        for path in sorted(one for one in files if one.is_file() and not one.is_symlink()):
            content = cleaned = path.read_bytes()
            for secret in secrets:
                cleaned = cleaned.replace(secret, REPLACEMENT.encode())
            if cleaned != content:
                path.write_bytes(cleaned)
                found.append(path)
        return found

    def _without_halves(self, text: str) -> str:
        """Beginnings of a value right before a cut and ends right behind one: a shortened repr leaves them."""
        parts = text.split(_CUT)
        for number in range(len(parts) - 1):
            for secret in self._exact:
                for size in range(len(secret) - 1, SHORTEST - 1, -1):
                    if parts[number].endswith(secret[:size]):
                        parts[number] = parts[number][:-size] + REPLACEMENT
                    if parts[number + 1].startswith(secret[-size:]):
                        parts[number + 1] = REPLACEMENT + parts[number + 1][size:]
        return _CUT.join(parts)

    def _value(self, value: JSON, secret: bool) -> JSON:
        if isinstance(value, str):
            return REPLACEMENT if secret and value else self.text(value)
        if isinstance(value, dict):
            return {
                self.text(key): self._value(inner, secret or is_secret_name(key))
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._value(inner, secret) for inner in value]
        return value  # a number or a flag under such a key is a count or a state, not a secret


def is_secret_name(name: str) -> bool:
    """True when a variable or key of this name holds a secret."""
    plain = _plain(name)
    return plain in KEYS or any(part in plain for part in KEY_PARTS)


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name.lower())


def _forms(secret: str) -> set[str]:
    """How a value may stand in a file."""
    encoded = base64.b64encode(secret.encode()).decode()
    return {
        secret,
        urllib.parse.quote(secret, safe=""),
        encoded,
        encoded.rstrip("="),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret, quote=False),
        html.escape(secret),
    }
