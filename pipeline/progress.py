"""How far along a long stage is: a bar with rate and time left, or a line a minute where there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

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


class Submit(Protocol):
    """Starts a task in a thread."""

    def __call__(self, task: Callable[..., T], /, *args: Any) -> Future[T]:
        """Its result, to be asked for by tasks that are submitted later, or after all."""


@contextmanager
def side_by_side(label: str, unit: str) -> Iterator[Submit]:
    """Yields `submit`, for tasks that spend their time in numpy, which lets other threads run; a bar until all are done."""
    futures: list[Future[Any]] = []

    def submit(task: Callable[..., T], /, *args: Any) -> Future[T]:
        futures.append(started := pool.submit(task, *args))
        return started

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield submit
            with progress(label, total=len(futures), unit=unit) as advance:
                for ended in as_completed(futures):
                    ended.result()
                    advance(1, "")
        except BaseException:  # an interruption too does not wait for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
        TextColumn("{task.fields[note]}", markup=False),
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
        left = f"{rate:.1f}/s, {(total - done - fresh) / rate / 60:.0f} min left" if rate else "time left not known"
        line = f"{label}: {done + fresh} of {total} {unit}, {left} {note}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    return advance
