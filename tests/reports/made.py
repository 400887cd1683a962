"""Histories made for a test: a run as the plugin records it, with anything in it changed."""

from __future__ import annotations

from fixtures.history.events import JSON, Event, Kind
from fixtures.history.log import History


def event(kind: Kind, name: str, source: str = "pytest", /, **data: JSON) -> Event:
    return Event(kind, name, source, 1.0, 1.0, "run-1", data)


def selected(**rules: list[str]) -> Event:
    """Rules by an identifier: ``T1_1=["t.py::a"]``."""
    return event(
        "note", "selected", rules={name.replace("_", "."): [*nodes] for name, nodes in rules.items()}
    )


def decided(rule: str, outcome: str = "passed", nodeid: str = "t.py::a", **data: JSON) -> Event:
    figures: dict[str, JSON] = {"n": 1}
    record: dict[str, JSON] = {
        "rule": rule,
        "outcome": outcome,
        "nodeid": nodeid,
        "figures": figures,
        "message": "" if outcome == "passed" else f"{rule} is {outcome}",
        "error": "",
        "duration_s": 0.5,
        **data,
    }
    return event("rule", rule, **record)


def finished(status: int = 0, loose: int = 0) -> Event:
    return event("note", "finished", pytest_exit=status, failed_without_rule=loose)


def fault(phase: str, host: str = "c1", id_: str = "x1") -> Event:
    return event("fault", "host-down", host, phase=phase, id=id_)


def run(*events: Event, truncated: bool = False, damaged: int = 0) -> History:
    return History(events, truncated, damaged)


def opened(label: str = "rehearsal 0123abcd (short timers)", **data: JSON) -> Event:
    return event("note", "target", label=label, **{"compression": 1.0, "secrets_hidden": 20, **data})


def asked(**settings: JSON) -> Event:
    """The good run's selection, with these settings."""
    return event("note", "selected", rules={"T1.1": ["t.py::a"]}, settings=settings)


GOOD = (selected(T1_1=["t.py::a"]), decided("T1.1"), finished())
