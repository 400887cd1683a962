"""The bench as a fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guard.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A fresh allocation; everything started in it ends with the test."""
    one = Bench(tmp_path)
    yield one
    one.close()
