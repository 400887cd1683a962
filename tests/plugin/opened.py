"""Inner sessions that open a target: a pretended rehearsal with a token of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Session

TOKEN, KEY = "t0ken-of-the-rehearsal", "k3y-made-while-it-ran"
TARGET = f"""
import fixtures.target.pytest_target as module
from fixtures.target import config
from fixtures.target.target import Target

def ensure(options, record, hide):
    hide({KEY!r})
    settings = config.described({{"nomad_addr": "http://127.0.0.1:1", "gvfx_api_token": {TOKEN!r}, "gvfx_observe_compression": 1440}})
    return Target(settings, record, {{}}, scratch=True, label="rehearsal 0123abcd (short timers)")

module.ensure_target = ensure
"""
PASSING = """
@pytest.mark.rule("T1.1")
def test_health(target, measure): measure(n=1)
"""


class Run:
    """One inner session with the pretended target, as a process of its own: Allure's registry is shared otherwise."""

    def __init__(self, inner: Session) -> None:
        self.inner = inner
        ini = inner.pytester.path / "tox.ini"
        text = ini.read_text().replace(
            "-p fixtures.plugin", "-p fixtures.plugin -p fixtures.target.pytest_target"
        )
        ini.write_text(text)
        inner.pytester.makeconftest(TARGET)

    def __call__(self, source: str, *options: str) -> pytest.RunResult:
        return self.inner.run(source, *options, in_process=False, allure=True)

    def files(self) -> dict[str, str]:
        paths = [one for one in self.inner.run_dir.rglob("*") if one.is_file()]
        return {str(one.relative_to(self.inner.run_dir)): one.read_text(errors="replace") for one in paths}
