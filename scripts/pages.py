"""The parts of a page that a command writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import store


def fill(file: Path, lines: Sequence[str], mark: str = "measured") -> None:
    """Replace what stands in a page between `<!-- mark -->` and the next `<!-- end -->`."""
    before, _, rest = file.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition("<!-- end -->\n")
    text = "\n".join([f"<!-- {mark} -->", "", *lines, "", "<!-- end -->", ""])
    store.write_text(file, before + text + after)
