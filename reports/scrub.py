"""Secrets out of what others print: pytest's reports, and the results that Allure writes."""

from __future__ import annotations

from typing import Any

from .redact import Redactor

_ALLURE = "allure_commons.model2"


def report(found: Any, redactor: Redactor) -> None:
    """A test's or a collector's report, in place: traceback with arguments and locals, captured output, properties."""
    longrepr = found.longrepr
    if longrepr is not None:
        # What pytest has no parts for is kept as its text.
        whole = isinstance(longrepr, str | tuple) or hasattr(longrepr, "toterminal")
        found.longrepr = scrubbed(longrepr if whole else str(longrepr), redactor)
    found.sections = scrubbed(found.sections, redactor)
    if hasattr(found, "user_properties"):
        found.user_properties = scrubbed(found.user_properties, redactor)
    if hasattr(found, "wasxfail"):
        found.wasxfail = scrubbed(found.wasxfail, redactor)


def scrubbed(value: Any, redactor: Redactor) -> Any:
    """The value without secrets. Pytest's representations and Allure's models are changed in place, others not at all."""
    if isinstance(value, str):
        return redactor.text(value)
    if isinstance(value, list):
        return [scrubbed(one, redactor) for one in value]
    if isinstance(value, tuple):
        return tuple(scrubbed(one, redactor) for one in value)
    if isinstance(value, dict):
        return {scrubbed(key, redactor): scrubbed(one, redactor) for key, one in value.items()}
    if hasattr(value, "toterminal") or type(value).__module__ == _ALLURE:
        for name, one in vars(value).items():
            setattr(value, name, scrubbed(one, redactor))
    return value
