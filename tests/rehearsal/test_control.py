"""What is asked of a cluster that has only just elected its leader."""

from __future__ import annotations

import pytest

from fixtures.errors import RehearsalError
from fixtures.rehearsal.control import insist


def _refusal(text: str) -> RehearsalError:
    return RehearsalError("PUT /v1/acl/token", text, "2xx")


def test_an_election_in_between_is_survived() -> None:
    answers = [_refusal("500 leadership lost while committing log"), {"ok": True}]

    def ask() -> object:
        answer = answers.pop(0)
        if isinstance(answer, RehearsalError):
            raise answer
        return answer

    assert insist("token", ask, "look") == {"ok": True}


def test_what_was_done_although_the_answer_was_lost_is_done() -> None:
    def ask() -> object:
        raise _refusal("500 SecretID is already in use")

    assert insist("token", ask, "look") is None


def test_what_is_refused_for_good_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 1000, 5))
    monkeypatch.setattr("fixtures.rehearsal.control.time.monotonic", lambda: float(next(ticks)))

    def ask() -> object:
        raise _refusal("403 Permission denied")

    with pytest.raises(RehearsalError, match="403 Permission denied"):
        insist("token", ask, "look")
