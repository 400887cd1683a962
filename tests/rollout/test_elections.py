"""Who is late under an election is not judged by bounds that hold under one leader."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.errors import ProbeError, Unknown
from fixtures.rollout import elections
from fixtures.target.target import Target


class Nomad:
    """A server that knows terms of raft, one after the other."""

    def __init__(self, *terms: str | None) -> None:
        self.terms = list(terms)

    def agent_self(self) -> dict[str, Any]:
        term = self.terms.pop(0)
        if term is None:
            raise ProbeError("agent", "no answer", "one")
        return {"stats": {"raft": {"term": term}}} if term else {"stats": {}}


def target(*terms: str | None) -> Target:
    return cast("Target", SimpleNamespace(nomad=Nomad(*terms)))


def test_late_under_an_election_is_unknown_and_says_so() -> None:
    with (
        pytest.raises(Unknown, match="term 2 then 3; not within 82 s"),
        elections.same_leader(target("3"), "2"),
    ):
        raise AssertionError("not within 82 s")


@pytest.mark.parametrize("now", ["2", None])
def test_late_under_the_same_leader_or_one_that_is_not_known_breaks_the_rule(now: str | None) -> None:
    with pytest.raises(AssertionError, match="not within"), elections.same_leader(target(now), "2"):
        raise AssertionError("not within 82 s")


def test_what_is_in_time_asks_nothing() -> None:
    with elections.same_leader(target(), "2"):
        pass


def test_a_client_knows_no_term() -> None:
    with pytest.raises(Unknown, match="no server"):
        elections.term(target(""))
