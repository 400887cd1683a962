from __future__ import annotations

from tests.faults.conftest import memory

__all__ = ["memory"]
