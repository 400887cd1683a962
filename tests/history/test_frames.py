from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.history.events import KINDS, Event, Kind
from fixtures.history.frames import columns, rows, table
from fixtures.history.judge import CHECKERS
from fixtures.history.shapes import (
    SHAPES,
    Away,
    Counter,
    FaultPhase,
    Operation,
    Sample,
    Shape,
    data_of,
    record,
)
from tests.history.made import Memory, events


def good(shape: type[Shape]) -> st.SearchStrategy[dict[str, Any]]:
    """Data of a shape, from its columns alone."""
    kinds: dict[type, st.SearchStrategy[Any]] = {
        str: st.text(max_size=5),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
        int: st.integers(-(2**63), 2**63 - 1),
        bool: st.booleans(),
        type(None): st.none(),
    }
    plans = {}
    for column in columns(shape):
        choices = [
            kinds[kind]
            for kind in sorted(column.accepts, key=str)
            if kind is not int or column.dtype.is_integer()
        ]
        if column.choices is not None:
            choices = [st.sampled_from(sorted(column.choices))]
        plans[column.name] = st.one_of(choices)
    return st.fixed_dictionaries(plans)


def event(shape: type[Shape], data: dict[str, Any], mono: float = 1.0) -> Event:
    return Event(shape.KIND, shape.NAME or "any", "test", 1.0, mono, "r", data)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: one.__name__)
@settings(max_examples=25)  # of each shape; the code they go through is one
@given(data=st.data())
def test_what_fits_is_kept_in_order_and_what_does_not_is_counted(
    shape: type[Shape], data: st.DataObject
) -> None:
    found = data.draw(st.lists(good(shape), max_size=8))
    wrong = data.draw(st.lists(st.integers(0, len(found) - 1), max_size=3, unique=True)) if found else []
    for index in wrong:
        column = data.draw(st.sampled_from(columns(shape)))
        odd: list[object] = [[], {"a": 1}, math.nan, math.inf, -math.inf, 2**64, 10**400, "no choice"]
        misfits = [value for value in odd if not column.holds(value)]
        found[index][column.name] = data.draw(st.sampled_from(misfits))
    mixed = [
        one
        for index, each in enumerate(found)
        for one in (event(shape, each, float(index)), Event("note", "x", "t", 0.0, 0.0, "r"))
    ]
    made = table(mixed, shape)
    kept = [index for index in range(len(found)) if index not in wrong]
    assert made.malformed == len(wrong)
    assert made.rows["mono"].to_list() == kept
    assert made.rows["line"].to_list() == [2 * index for index in kept]
    names = [one.name for one in fields(shape)]
    assert made.rows.columns == [*names, "mono", "line"]
    assert list(made.rows.select(names).iter_rows(named=True)) == [found[index] for index in kept]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: one.__name__)
def test_nothing_gives_empty_columns_of_the_same_types(shape: type[Shape]) -> None:
    made = table([], shape)
    assert made.malformed == 0 and made.rows.is_empty()
    assert dict(made.rows.schema) == {one.name: one.dtype for one in columns(shape)} | {
        "mono": pl.Float64(),
        "line": pl.Int64(),
    }


@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: one.__name__)
def test_an_event_without_any_one_field_is_malformed_unless_the_field_may_be_null(shape: type[Shape]) -> None:
    samples = {str: "x", float: 1.0, int: 1, bool: True}
    full: dict[str, Any] = {
        one.name: min(one.choices)
        if one.choices
        else samples[next(iter(one.accepts - {type(None), int} or {int}))]
        for one in columns(shape)
    }
    assert table([event(shape, full)], shape).malformed == 0
    for column in columns(shape):
        less = {name: value for name, value in full.items() if name != column.name}
        assert table([event(shape, less)], shape).malformed == (type(None) not in column.accepts)


def test_a_flag_is_no_number_and_a_number_is_no_flag() -> None:
    assert table([event(Away, {"component": "c", "start": True, "end": 1.0})], Away).malformed == 1
    assert table([event(Sample, {"what": "c", "sent": 1.0, "ok": 1})], Sample).malformed == 1
    counter = {"point": "p", "source": "s", "epoch": "e", "packets": 1.0, "at": 1.0}
    assert table([event(Counter, counter)], Counter).malformed == 1


def test_a_recorded_shape_comes_back_as_columns() -> None:
    written = Operation("o1", "invoke", "write", "row", "k", "abc", 3, True)
    (row,) = table(events([(2.5, written)]), Operation).rows.iter_rows(named=True)
    assert row == {**data_of(written), "mono": 2.5, "line": 0}


def test_the_name_is_the_shapes_own_unless_it_is_free() -> None:
    memory = Memory()
    with pytest.raises(ValueError, match="recorded under"):
        record(memory, Away("c", 0.0, 1.0), "t", "absence")
    with pytest.raises(ValueError, match="recorded under None"):
        record(memory, FaultPhase("i", "intent"), "t")
    record(memory, FaultPhase("i", "intent"), "t", "host-down")
    assert table(memory.events, FaultPhase).rows["id"].to_list() == ["i"]


def test_shapes_at_hand_are_checked_too() -> None:
    with pytest.raises(ValueError, match="wrong type"):
        rows(Away, [Away("c", math.nan, 1.0)])


def test_a_field_that_no_column_can_hold_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        KIND: ClassVar[Kind] = "probe"
        NAME: ClassVar[str | None] = "odd"
        value: bytes

    with pytest.raises((KeyError, NameError, TypeError)):
        columns(Odd)


def test_every_shape_is_unlike_every_other_and_judged_by_some_checker() -> None:
    names = [(shape.KIND, shape.NAME) for shape in SHAPES]
    assert len(set(names)) == len(names)
    assert {shape.KIND for shape in SHAPES} <= KINDS
    assert {shape for checker in CHECKERS.values() for shape in checker.shapes} == set(SHAPES)
    assert all(
        (shape.__doc__ or "").strip() and not (shape.__doc__ or "").startswith(shape.__name__ + "(")
        for shape in SHAPES
    )
