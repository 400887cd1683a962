from __future__ import annotations

from fixtures.target import order


def test_phase_by_phase_read_only_first_whole_run_last() -> None:
    wanted = [
        ("P1.1", False, False), ("P1.4", False, False), ("P2.1", False, False), ("T1.1", False, False),
        ("T1.15", True, False), ("P3.1", False, False), ("T2.1", False, False), ("T2.7", True, False),
        ("T3.5", False, False), ("T3.1", False, False), ("T3.2", True, False), ("T3.1", True, True),
        ("T2.2", False, False),
    ]  # fmt: skip
    places = {(rule, after): position for position, (rule, _, after) in enumerate(wanted)}
    shuffled = wanted[1::2] + wanted[::-2]
    found = sorted(
        shuffled,
        key=lambda one: order.key(one[0], disruptive=one[1], after=one[2], position=places[one[0], one[2]]),
    )
    assert found == wanted


def test_an_unknown_group_comes_after_the_known() -> None:
    known = order.key("P4.1", disruptive=False, after=False, position=9)
    assert order.key("X9.1", disruptive=False, after=False, position=0) > known
