"""How far along a long stage is: a bar with rate and time left, or a line a minute where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MINUTE = 60.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def progress(label: str, *, total: int, done: int = 0, unit: str = "images") -> Iterator[Callable[[int, str], None]]:
    """Yields `advance(n, note)`. `done` of the `total` were finished earlier: they count for the bar, not the rate."""
    if sys.stderr.isatty():
        with _bar(label, total, done, unit) as advance:
            yield advance
    else:
        yield _lines(label, total, done, unit)


@contextmanager
def _bar(label: str, total: int, done: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    start, fresh = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total, completed=done, rate=0.0, note="")

        def advance(n: int, note: str = "") -> None:
            nonlocal fresh
            fresh += n
            rate = fresh / max(time.monotonic() - start, 1e-9)
            bars.update(task, advance=n, rate=rate, note=note)

        yield advance


def _lines(label: str, total: int, done: int, unit: str) -> Callable[[int, str], None]:
    start = last = time.monotonic()
    fresh = 0

    def advance(n: int, note: str = "") -> None:
        nonlocal fresh, last
        fresh += n
        now = time.monotonic()
        ended = done + fresh >= total and now - start > 2
        if now - last < MINUTE and not ended:
            return
        last = now
        rate = fresh / (now - start)
        left = (total - done - fresh) / rate if rate else 0.0
        line = f"{label}: {done + fresh} of {total} {unit}, {rate:.1f}/s, {left / 60:.0f} min left {note}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    return advance
