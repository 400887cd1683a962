from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fixtures.history.frames import table
from fixtures.history.register import RegisterTerms, check_register
from fixtures.history.results import CheckResult
from fixtures.history.shapes import Operation, Phase
from tests.history.made import events, kinds, of


@dataclass(frozen=True)
class Op:
    """An operation with its two times; ``end`` infinite: it was never answered."""

    name: str
    action: str
    value: str | None
    start: float
    end: float
    phase: str = "ok"
    key: str = "k"


def judge(*found: Op, minimum_reads: int = 1) -> CheckResult:
    told: list[tuple[float, Operation]] = []
    for op in found:
        write = op.action == "write"
        begun = Operation(
            op.name, "invoke", "write" if write else "read", "row", op.key, op.value if write else None
        )
        told.append((op.start, begun))
        if op.end < math.inf:
            phase: Phase = "ok" if op.phase == "ok" else "fail" if op.phase == "fail" else "unknown"
            value = op.value if write or phase == "ok" else None
            told.append((op.end, Operation(op.name, phase, begun.action, "row", op.key, value)))
    told.sort(key=lambda one: one[0])
    return check_register(table(events(told), Operation).rows, RegisterTerms(minimum_reads=minimum_reads))


def linearizable(found: list[Op]) -> bool:
    """The definition, by trying every order (Wing and Gong): exponential, for a handful of operations."""
    certain = [op for op in found if op.phase == "ok"]
    # What was not acknowledged may happen at any time after its beginning, or never.
    perhaps = [op for op in found if op.phase != "ok" and op.action == "write"]

    def end(op: Op) -> float:
        return op.end if op.phase == "ok" else math.inf

    def step(done: frozenset[str], value: str | None) -> bool:
        open_ = [op for op in (*certain, *perhaps) if op.name not in done]
        if not any(op.phase == "ok" for op in open_):
            return True
        horizon = min(end(op) for op in open_)
        for op in open_:
            if op.start > horizon:
                continue
            if op.action == "write":
                if step(done | {op.name}, op.value):
                    return True
            elif op.value == value and step(done | {op.name}, value):
                return True
        return False

    return step(frozenset(), None)


@st.composite
def histories(draw: st.DrawFn) -> list[Op]:
    """A handful of operations on one key, reads of anything: most are wrong."""
    count = draw(st.integers(1, 6))
    values: list[str | None] = [None]
    found = []
    for number in range(count):
        start = draw(st.integers(0, 12))
        length = draw(st.integers(1, 8))
        write = draw(st.booleans())
        if write:
            values.append(f"v{number}")
        value = values[-1] if write else draw(st.sampled_from([*values, f"v{draw(st.integers(0, count))}"]))
        phase = draw(st.sampled_from(["ok", "ok", "ok", "fail", "unknown"])) if write else "ok"
        # Times are distinct, so that the order of two events in the file is their order in time.
        found.append(
            Op(
                f"o{number}",
                "write" if write else "read",
                value,
                start + number / 10,
                start + length + number / 100,
                phase,
            )
        )
    return found


@settings(max_examples=400)
@given(histories())
def test_it_agrees_with_the_definition(found: list[Op]) -> None:
    assume(any(op.action == "read" for op in found))
    result = judge(*found)
    assert (result.outcome == "passed") == linearizable(found), result.findings
    assert result.outcome != "unknown"
    for finding in result.findings:
        # The counter-example stands on its own: its few operations alone contradict each other.
        named = of(finding, "op")
        assert not linearizable([op for op in found if op.name in named]) and len(named) <= 6


@st.composite
def kept(draw: st.DrawFn) -> list[Op]:
    """What clients of a register that works record: each operation takes effect at one instant of its own."""
    found: list[Op] = []
    held: dict[str, str | None] = {}
    for number in range(draw(st.integers(1, 25))):
        at = float(number)
        key = draw(st.sampled_from(["a", "b"]))
        before, after = draw(st.floats(0.0, 5.0)), draw(st.floats(0.0, 5.0))
        if draw(st.booleans()):
            phase = draw(st.sampled_from(["ok", "ok", "fail", "unknown"]))
            value = f"v{number}"
            if phase == "ok" or draw(st.booleans()):
                held[key] = value
            found.append(Op(f"o{number}", "write", value, at - before, at + after, phase, key))
        else:
            found.append(Op(f"o{number}", "read", held.get(key), at - before, at + after, "ok", key))
    found.append(Op("last", "read", held.get("a"), 100.0, 101.0, "ok", "a"))
    return found


@given(kept())
def test_a_register_that_works_passes(found: list[Op]) -> None:
    result = judge(*found)
    assert result.outcome == "passed", result.findings
    assert result.figures["reads"] == sum(op.action == "read" for op in found)


@given(kept(), st.data())
def test_an_acknowledged_write_that_is_gone_is_found(found: list[Op], data: st.DataObject) -> None:
    acknowledged = [op for op in found if op.action == "write" and op.phase == "ok"]
    assume(acknowledged)
    lost = data.draw(st.sampled_from(acknowledged))
    told = kinds(judge(*found, Op("gone", "read", None, 200.0, 201.0, "ok", lost.key)))
    assert set(told) == {"order"}
    assert set(of(told["order"], "key")) == {lost.key}
    assert "gone" in of(told["order"], "op")


@given(kept(), st.data())
def test_a_value_that_returns_is_found(found: list[Op], data: st.DataObject) -> None:
    stale = data.draw(st.sampled_from(found))
    more = [
        Op("new", "write", "new", 200.0, 201.0, "ok", stale.key),
        Op("old", "read", stale.value, 202.0, 203.0, "ok", stale.key),
    ]
    # A write that was never acknowledged may still come, whenever it likes.
    seen = any(op.value == stale.value and op.phase == "ok" and op.key == stale.key for op in found)
    told = kinds(judge(*found, *more))
    assert set(told) == ({"order"} if seen else set())
    if told:
        assert "old" in of(told["order"], "op") and len(told["order"].evidence) <= 6


@given(kept())
def test_content_that_nobody_wrote_is_found(found: list[Op]) -> None:
    told = kinds(judge(*found, Op("torn", "read", "half", 200.0, 201.0)))
    assert set(told) == {"invented"} and of(told["invented"], "op") == ["torn"]


def test_a_read_before_its_write_began_is_found() -> None:
    told = kinds(judge(Op("r", "read", "v", 0, 1), Op("w", "write", "v", 2, 3)))
    assert of(told["early"], "op") == ["r", "w"]


def test_without_reads_nothing_is_known() -> None:
    assert judge().outcome == "unknown"
    assert judge(Op("w", "write", "v", 0, 1)).outcome == "unknown"
    assert judge(Op("w", "write", "v", 0, 1), Op("r", "read", "v", 2, math.inf)).outcome == "unknown"
    assert judge(Op("r", "read", None, 2, 3), minimum_reads=2).outcome == "unknown"


def test_two_writes_of_the_same_cannot_be_told_apart() -> None:
    found = [Op("a", "write", "v", 0, 1), Op("b", "write", "v", 2, 3), Op("r", "read", "v", 4, 5)]
    assert set(kinds(judge(*found))) == {"same"}


def test_a_history_that_contradicts_itself_is_unknown() -> None:
    read = [
        Operation("r", "invoke", "read", "row", "k", None),
        Operation("r", "ok", "read", "row", "k", None),
    ]
    for wrong in (
        [Operation("x", "ok", "write", "row", "k", "v")],
        [Operation("x", "invoke", "write", "row", "k", None)],
        [Operation("x", "invoke", "write", "row", "k", "v")] * 2,
        [
            Operation("x", "invoke", "write", "row", "k", "v"),
            *[Operation("x", "ok", "write", "row", "k", "v")] * 2,
        ],
    ):
        told = [(float(at), one) for at, one in enumerate([*read, *wrong])]
        result = check_register(table(events(told), Operation).rows, RegisterTerms())
        assert set(kinds(result)) == {"unsound"}
    backwards = [(5.0, read[0]), (4.0, read[1])]
    assert set(kinds(check_register(table(events(backwards), Operation).rows, RegisterTerms()))) == {
        "unsound"
    }
