"""From a run's history to a verdict and the files that carry it; reads histories, touches no target."""

from .verdict import RuleResult, Verdict, compute

__all__ = ["RuleResult", "Verdict", "compute"]
