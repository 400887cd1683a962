"""Comparing what a run found with what a defect must cause. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fixtures.history.events import Event
from fixtures.history.rules import BY_ID

# A rule with several cases is as bad as its worst case.
_RANK = {"passed": 0, "unknown": 1, "failed": 2}


def outcomes(events: Iterable[Event]) -> dict[str, str]:
    """The outcome of each rule decided in a run: failed, unknown or passed."""
    found: dict[str, str] = {}
    for event in events:
        if event.kind != "rule":
            continue
        outcome = str(event.data.get("outcome", "unknown"))
        if outcome not in _RANK:
            outcome = "unknown"
        if event.name not in found or _RANK[outcome] > _RANK[found[event.name]]:
            found[event.name] = outcome
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the matrix. A run that decided no rule caught nothing, whatever was expected."""

    defect: str
    red: frozenset[str]
    unknown: frozenset[str]
    expected_red: frozenset[str]
    expected_unknown: frozenset[str]
    tolerated: frozenset[str]
    decided: int
    seconds: float
    asked: frozenset[str]

    @property
    def not_asked(self) -> frozenset[str]:
        """Expected rules that no test of the run was about."""
        return (self.expected_red | self.expected_unknown) - self.asked

    @property
    def matches(self) -> bool:
        """True when, of the rules that were asked, exactly the expected ones failed or were undecidable.

        A defect of whose rules none was asked is not caught.
        """
        return (
            self.decided > 0
            and bool(self.expected_red & self.asked) == bool(self.expected_red)
            and self.red - self.tolerated == self.expected_red & self.asked
            and self.unknown - self.tolerated == self.expected_unknown & self.asked
        )

    @property
    def killed(self) -> bool:
        """True when the defect was caught at all: some rule it should break did fail."""
        return bool(self.red & self.expected_red)

    def describe(self) -> str:
        """One line for people: the rules, and what differs from the expectation."""
        parts = [f"{'ok ' if self.matches else 'BAD'} {self.defect:26} {self.seconds:6.0f} s"]
        parts.append("red " + (" ".join(sorted(self.red)) or "-"))
        for name, rules in (
            ("missed", (self.expected_red & self.asked) - self.red),
            ("not asked", self.not_asked),
            ("tolerated", (self.red | self.unknown) & self.tolerated),
            ("false red", self.red - self.expected_red - self.tolerated),
            ("unexpectedly unknown", self.unknown - self.expected_unknown - self.tolerated),
            ("not unknown", (self.expected_unknown & self.asked) - self.unknown),
        ):
            if rules:
                parts.append(f"{name}: {' '.join(sorted(rules))}")
        if not self.decided:
            parts.append("no rule was decided")
        return "; ".join(parts)


def row(
    defect: str,
    found: Mapping[str, str],
    expected_red: frozenset[str],
    expected_unknown: frozenset[str],
    seconds: float,
    tolerated: frozenset[str] = frozenset(),
    asked: frozenset[str] = frozenset(BY_ID),
) -> Row:
    """Build a line from the outcomes of a run, and the rules its tests were about."""
    return Row(
        defect=defect,
        red=frozenset(rule for rule, outcome in found.items() if outcome == "failed"),
        unknown=frozenset(rule for rule, outcome in found.items() if outcome == "unknown"),
        expected_red=expected_red,
        expected_unknown=expected_unknown,
        tolerated=tolerated,
        decided=len(found),
        seconds=seconds,
        asked=asked,
    )


def summary(rows: list[Row]) -> str:
    """The kill ratio with its denominator, and the clean runs' false alarms."""
    seeded = [one for one in rows if one.expected_red]
    clean = [one for one in rows if not one.expected_red]
    killed = sum(one.killed for one in seeded)
    alarms = sum(bool(one.red or one.unknown) for one in clean)
    return f"killed {killed} of {len(seeded)} defects; false alarms in {alarms} of {len(clean)} clean runs"
