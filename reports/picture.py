"""The verdict as a picture (SVG): what the terminal showed at the end of a run, for a README or a ticket."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from . import render
from .verdict import Verdict

WIDTH = 112
_STYLES = {"pass": "green", "FAIL": "bold red", "????": "bold yellow"}


def write(verdict: Verdict, path: Path) -> None:
    """Draw the terminal's table; the file refers to nothing outside itself."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    for line in render.lines(verdict):
        style = _STYLES.get(line[:4], "bold" if line.startswith("verdict") else "dim")
        console.print(Text(line[: WIDTH - 2], style=style))
    drawn = console.export_svg(title=f"run {verdict.run}", theme=MONOKAI)
    # rich's template loads its fonts from a public server; any monospace font will do.
    path.write_text(re.sub(r"@font-face\s*\{.*?\}|<!--.*?-->", "", drawn, flags=re.DOTALL), encoding="utf-8")
