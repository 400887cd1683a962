from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.observe.eventually import eventually
from fixtures.observe.recording import InMemory


def answers(*values: int | Unknown) -> Callable[[], int]:
    queue = list(values)

    def observe() -> int:
        value = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(value, Unknown):
            raise value
        return value

    return observe


GONE = ProbeError("x", "no answer", "an answer")


def test_every_sample_is_recorded() -> None:
    record = InMemory()
    found = eventually(
        "three", answers(1, GONE, 3), lambda value: value == 3, within=5, record=record, every=0
    )
    assert found.proven() == found.known() == 3
    assert [event.data["met"] for event in record.events] == [False, False, True]
    assert found.samples == 3


def test_observed_otherwise_fails_the_rule() -> None:
    found = eventually("three", answers(1), lambda value: value == 3, within=0, record=InMemory(), every=0)
    with pytest.raises(AssertionError, match="last seen 1"):
        found.proven()
    with pytest.raises(Unknown):
        found.known()


@pytest.mark.parametrize("observe", [answers(GONE), answers(1, GONE)])
def test_an_unanswered_question_fails_nothing(observe: Callable[[], int]) -> None:
    found = eventually("three", observe, lambda value: value == 3, within=0.05, record=InMemory(), every=0.01)
    with pytest.raises(Unknown):
        found.proven()


def test_a_condition_met_by_an_empty_answer_counts() -> None:
    problems: list[str] = []
    found = eventually("no problems", lambda: problems, lambda found: not found, within=0, record=InMemory())
    assert found.proven() == []
