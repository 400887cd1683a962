"""What a verdict is of: the cluster, what was deployed to it and from where, and what was done to it on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fixtures.history.events import JSON
from fixtures.history.log import History
from fixtures.history.notes import SELECTED, SPEC, TARGET

VERSIONS = "P0.10"
"""The rule whose figures name the versions that the agents run."""


@dataclass(frozen=True, slots=True)
class Subject:
    """As far as the run's own history says it; `targets` names every cluster that was opened."""

    targets: tuple[str, ...] = ()
    timers: str = ""
    deploy_dir: str = ""
    compression: float = 1.0
    defect: str = ""
    specs: Mapping[str, str] = field(default_factory=dict)
    """Job to the digest of what its text and values mean."""
    versions: Mapping[str, str] = field(default_factory=dict)
    unsearched: tuple[str, ...] = ()
    """Targets of which no secret was known."""

    @property
    def stated(self) -> bool:
        """True when the verdict is of one known target."""
        return len(self.targets) == 1

    @property
    def line(self) -> str:
        """For people: which target, deployed from where, and how much shorter than life it was observed."""
        parts = [" and ".join(self.targets) or "none was opened"]
        if self.deploy_dir:
            parts.append(self.deploy_dir)
        if self.compression > 1:
            parts.append(f"observation compressed {self.compression:g}x")
        return f"target: {', '.join(parts)}"

    @property
    def warning(self) -> str:
        """What must be read before anything else; empty for a target that nobody spoilt."""
        return f"seeded defect: {self.defect} (the target is broken on purpose)" if self.defect else ""

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {
            "target": self.targets[0] if self.stated else None,
            "timers": self.timers or None,
            "deploy_dir": self.deploy_dir,
            "observation_compression": self.compression,
            "spec_sha256": dict(self.specs),
            "versions": dict(self.versions),
        }


def of(history: History) -> Subject:
    """What this run was about."""
    settings: dict[str, JSON] = {}
    for event in history.of("note", SELECTED):
        found = event.data.get("settings")
        settings.update(found if isinstance(found, dict) else {})
    opened = {str(event.data.get("label")): event.data for event in history.of("note", TARGET)}
    compressions = [_number(data.get("compression")) for data in opened.values()]
    specs = {str(event.data.get("job")): str(event.data.get("sha256")) for event in history.of("note", SPEC)}
    figures: dict[str, JSON] = {}
    for event in history.of("rule", VERSIONS):
        measured = event.data.get("figures")
        figures.update(measured if isinstance(measured, dict) else {})
    # A live target has its own clocks, and others deploy it.
    built = settings if settings.get("target") == "rehearsal" else {}
    return Subject(
        targets=tuple(opened),
        timers=str(built.get("timers") or ""),
        deploy_dir=str(built.get("deploy_dir") or ""),
        compression=max(compressions, default=1.0),
        defect=str(settings.get("defect") or ""),
        specs=dict(sorted(specs.items())),
        versions={name: str(figures[name]) for name in ("nomad", "consul") if figures.get(name)},
        unsearched=tuple(label for label, data in opened.items() if not data.get("secrets_hidden")),
    )


def problems(subject: Subject) -> Iterable[str]:
    """What forbids GO about it."""
    if len(subject.targets) > 1:
        yield f"the run was of several targets: {', '.join(subject.targets)}"
    for label in subject.unsearched:
        yield f"no secret of {label} is known, so nothing proves that none was written; next: configure its tokens"


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, int | float) else 1.0
