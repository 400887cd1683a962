"""Secrets never reach the disk: by exact value wherever it stands, and by the name of its key."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path

from fixtures.history.events import JSON

REPLACEMENT = "[redacted]"
KEY_PARTS = ("token", "secret", "password", "authkey", "apikey", "accesskey", "privatekey", "credential")
"""A string under a key that contains one of these, case and separators aside, is a secret."""
SHORTEST = 6
"""Characters; a shorter value would blank half the report, so it is hidden by the name of its key only."""

_PLACES = ("_FILE", "_PATH", "_DIR", "_ADDR", "_URL")  # such a variable says where the secret is

_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/-]{6,}=*")
_SEPARATORS = re.compile(r"[^a-z0-9]")


class Redactor:
    """Callable that returns a copy of a JSON object without secrets; add values as they become known."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._exact: list[str] = []
        for secret in secrets:
            self.add(secret)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Redactor:
        """Knows the value of every variable whose name says that it is a secret."""
        return cls(
            value
            for name, value in environment.items()
            if is_secret_name(name) and not name.upper().endswith(_PLACES)
        )

    def add(self, secret: str) -> None:
        """Hide this value from now on, as it is, URL-quoted and in base64."""
        if len(secret) < SHORTEST:
            return
        encoded = base64.b64encode(secret.encode()).decode()
        forms = {secret, urllib.parse.quote(secret, safe=""), encoded, encoded.rstrip("=")}
        # Longest first: one secret may contain another.
        self._exact = sorted({*self._exact, *forms}, key=len, reverse=True)

    def __call__(self, record: dict[str, JSON]) -> dict[str, JSON]:
        """The record without secrets."""
        return {self.text(key): self._value(value, is_secret_name(key)) for key, value in record.items()}

    def text(self, text: str) -> str:
        """The text without exact values, bearer tokens and passwords in URLs."""
        for secret in self._exact:
            if secret in text:
                text = text.replace(secret, REPLACEMENT)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1:{REPLACEMENT}@", text)
        return _BEARER.sub(rf"\1 {REPLACEMENT}", text)

    def clean_files(self, directory: Path) -> list[Path]:
        """Replace exact values in every file below; returns the files that held one."""
        found: list[Path] = []
        secrets = [secret.encode() for secret in self._exact]
        for path in sorted(one for one in directory.rglob("*") if one.is_file() and not one.is_symlink()):
            content = cleaned = path.read_bytes()
            for secret in secrets:
                cleaned = cleaned.replace(secret, REPLACEMENT.encode())
            if cleaned != content:
                path.write_bytes(cleaned)
                found.append(path)
        return found

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
    plain = _SEPARATORS.sub("", name.lower())
    return any(part in plain for part in KEY_PARTS)
