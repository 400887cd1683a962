"""No secret in what pytest shows of a failure, wherever in a report it stands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reports import scrub
from reports.redact import REPLACEMENT, Redactor

SECRET = "s3cr3t-of-the-rehearsal"  # noqa: S105
REDACTOR = Redactor([SECRET])


def failing(token: str, headers: dict[str, str]) -> None:
    try:
        raise KeyError(token)
    except KeyError as error:
        raise ValueError(f"{token} in a message") from error


def failure(secret: str, **style: Any) -> Any:
    with pytest.raises(ValueError) as caught:
        failing(secret, {"long": "x" * 100, "Authorization": f"Bearer {secret}", "more": "y" * 300})
    return caught.getrepr(funcargs=True, **style)


@pytest.mark.parametrize(
    "style", [{}, {"showlocals": True}, {"style": "native"}, {"style": "short"}, {"chain": False}]
)
def test_arguments_locals_messages_and_causes(style: dict[str, Any]) -> None:
    assert SECRET in str(failure(SECRET, **style)), "or nothing would be shown here"
    report = SimpleNamespace(longrepr=failure(SECRET, **style), sections=[])
    scrub.report(report, REDACTOR)
    shown = str(report.longrepr)
    assert SECRET not in shown and REPLACEMENT in shown and "in a message" in shown
    assert SECRET not in report.longrepr.reprcrash.message


def test_output_properties_reasons_and_text() -> None:
    report = SimpleNamespace(
        longrepr=("file.py", 7, f"Skipped: {SECRET}"),
        sections=[("Captured stdout call", f"a {SECRET} b")],
        user_properties=[("count", 3), ("seen", SECRET)],
        wasxfail=f"reason: {SECRET}",
    )
    scrub.report(report, REDACTOR)
    assert report.longrepr == ("file.py", 7, f"Skipped: {REPLACEMENT}")
    assert report.sections == [("Captured stdout call", f"a {REPLACEMENT} b")]
    assert report.user_properties == [("count", 3), ("seen", REPLACEMENT)]
    assert report.wasxfail == f"reason: {REPLACEMENT}"


@pytest.mark.parametrize("longrepr", [None, "plain", SECRET, RuntimeError(SECRET)])
def test_whatever_a_report_shows(longrepr: object) -> None:
    report = SimpleNamespace(longrepr=longrepr, sections=[])
    scrub.report(report, REDACTOR)
    assert SECRET not in str(report.longrepr)
    assert (report.longrepr is None) == (longrepr is None)


def test_objects_of_others_are_left_alone() -> None:
    theirs = SimpleNamespace(token=SECRET)
    assert scrub.scrubbed([theirs, 5, {"a": (SECRET,)}], REDACTOR) == [theirs, 5, {"a": (REPLACEMENT,)}]
    assert theirs.token == SECRET
