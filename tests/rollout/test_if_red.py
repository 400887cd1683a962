"""A repair never hides what it is a repair of."""

from __future__ import annotations

import pytest

from fixtures.errors import ProbeError
from fixtures.rollout.undoing import afterwards, if_red


@pytest.mark.parametrize("guard", [if_red, afterwards])
@pytest.mark.parametrize(
    "second", [AssertionError("no worker came"), ProbeError("Nomad", "silence", "an answer")]
)
def test_a_failed_repair_is_a_note_of_the_broken_rule(guard: type, second: Exception) -> None:
    """Else a rule that is broken would be reported as undecided."""

    def repair() -> None:
        raise second

    with pytest.raises(AssertionError, match="the rule") as error, guard(repair):
        raise AssertionError("the rule")
    assert error.value.__notes__ == [str(second)]


def test_what_did_not_fail_is_not_repaired() -> None:
    repaired: list[int] = []
    with if_red(lambda: repaired.append(1)):
        pass
    assert not repaired
    with pytest.raises(KeyboardInterrupt), if_red(lambda: repaired.append(1)):
        raise KeyboardInterrupt
    assert repaired == [1]
