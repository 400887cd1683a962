from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fixtures.observe.agreement import Agreement
from fixtures.rollout.agreement import BRACKETS, bracketed

KEYS = st.sampled_from("abcdef")
STATES = st.lists(st.dictionaries(KEYS, st.integers(0, 3)), min_size=3, max_size=6)


@given(STATES, st.data())
def test_an_endpoint_that_reads_the_store_is_never_contradicted(
    states: list[dict[str, int]], data: st.DataObject
) -> None:
    # Nothing returns to what it was, as with rows that carry the time of their change.
    versions: list[dict[str, tuple[int, int]]] = [{}]
    for number, one in enumerate(states):
        versions.append({**versions[-1], **{key: (value, number) for key, value in one.items()}})
    found = Agreement()
    moment = 0
    for _ in range(4):
        before = data.draw(st.integers(moment, len(states)))
        during = data.draw(st.integers(before, len(states)))
        moment = data.draw(st.integers(during, len(states)))
        found.add(versions[before], versions[during], versions[moment])
    assert not found.contradictions


@given(st.dictionaries(KEYS, st.integers(0, 3), min_size=1), st.data())
def test_any_lie_about_a_store_at_rest_is_found(stored: dict[str, int], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(stored)))
    without = {name: value for name, value in stored.items() if name != key}
    lie = data.draw(st.sampled_from([{**stored, key: 9}, without, {**stored, "z": 0}]))
    found = bracketed(lambda: stored, lambda: lie)
    assert found.brackets == 2 and len(found.contradictions) == 1
    assert found.contradictions[0][0] in (key, "z")


def test_a_row_that_came_and_went_in_between_is_no_lie() -> None:
    shown = iter([{"a": 1}, {}])
    found = bracketed(dict, lambda: next(shown))
    assert (found.brackets, found.contradictions, found.agreed, found.open) == (2, [], set(), set())


def test_false_zero_is_a_contradiction_and_true_zero_is_agreement_about_nothing() -> None:
    key = ("total", "open")
    assert bracketed(lambda: {key: 1}, lambda: {key: 0}).contradictions
    empty = bracketed(dict, dict)
    assert empty.settled and not empty.agreed


def test_what_changed_meanwhile_is_asked_again_until_it_settles() -> None:
    stored = iter([{"a": 1}, {"a": 3}, {"a": 4}])
    shown = iter([{"a": 2}, {"a": 4}])
    found = bracketed(lambda: next(stored), lambda: next(shown))
    assert (found.brackets, found.agreed, found.open, found.contradictions) == (2, {"a"}, set(), [])


def test_a_store_that_never_holds_still_decides_nothing() -> None:
    count = 0

    def read() -> dict[str, int]:
        nonlocal count
        count += 1
        return {"a": count}

    found = bracketed(read, lambda: {"a": 0})
    assert (found.brackets, found.open, found.contradictions) == (BRACKETS, {"a"}, [])


def test_once_agreed_is_agreed_but_absolves_no_lie() -> None:
    found = Agreement()
    found.add({"a": 1}, {"a": 1}, {"a": 1})
    found.add({"a": 1}, {"a": 0}, {"a": 2})
    assert found.settled and found.agreed == {"a"}
    found.add({"a": 2}, {"a": 0}, {"a": 2})
    assert not found.settled and not found.agreed
    found.add({"a": 2}, {"a": 0}, {"a": 2})
    assert found.contradictions
