"""The proof that the numbers are right: simulate, keep what was found, and write the table."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import confusion, correction
from pipeline import amplification, estimates, robustness, simulation, stages, store
from pipeline.errors import RunError
from pipeline.progress import MINUTE, progress
from pipeline.simulation import (
    FLOOR,
    UNFRIENDLY,
    WIDEST,
    Cell,
    Measured,
    Misled,
    Unfriendly,
    few,
    grid,
    measure,
    mislead,
    unfriendly,
)
from pipeline.types import digest

AUDITS = 2000
"""Simulated audits of a cell."""
SHORT_AUDITS = 200
MISLED_AUDITS = 500
"""Of an unfriendly case, in the full form."""
PAGE = Path(__file__).parents[1] / "docs" / "validation.md"
"""Where a checkout keeps the tables."""
OPEN, CLOSE = "<!-- measured -->\n", "<!-- end -->\n"

Cells = list[tuple[Cell, Measured]]
Cases = list[tuple[Unfriendly, Misled]]
Asked = tuple[Cell | Unfriendly, int, int, Path]
"""What is simulated, how many audits of it, its seed and its file."""

COLUMNS = (
    "levels",
    "shares",
    "images",
    "labels",
    "errors",
    "undecided",
    "coverage",
    "99 % bound",
    "lowest level",
    "width",
    "× shortest",
    "× told the shares",
    "× told the errors",
    "bias",
    "naive coverage",
    "naive bias",
    "no number",
    "verdict",
)


def validate(folder: Path, *, short: bool, seed: int) -> tuple[str, list[str]]:
    """The tables as Markdown, and the cells that failed.

    Cells are simulated on all processors, and not again what is in the folder already. The full form also writes
    `docs/validation.md` of a checkout, after each cell, once there are as many rows as the page has.
    """
    audits, fewer = (SHORT_AUDITS, SHORT_AUDITS) if short else (AUDITS, MISLED_AUDITS)
    cells, cases = (few(), unfriendly()[:4:3]) if short else (grid(), unfriendly())
    friendly = {
        cell: _place(folder, seed, audits, asdict(cell) | {"chances": cell.chances, "truth": cell.truth})
        for cell in cells
    }
    others = {case: _place(folder, seed, fewer, asdict(case)) for case in cases}
    there = [file for _, file in (*friendly.values(), *others.values()) if file.exists()]
    if old := sum(stages.read_json(file).get("sampler") != _sampler() for file in there):
        stages.say(
            f"{folder}: {old} of its {len(there)} cells are by another sampler than this one, or do not say by which; they stay "
            "as they are: delete their files, and they are simulated anew"
        )
    missing: list[Asked] = [(cell, audits, *place) for cell, place in friendly.items() if not place[1].exists()]
    missing += [(case, fewer, *place) for case, place in others.items() if not place[1].exists()]

    def found() -> tuple[Cells, str]:
        measured = [(c, Measured(**_kept(file))) for c, (_, file) in friendly.items() if file.exists()]
        misled = [(c, Misled(**_kept(file))) for c, (_, file) in others.items() if file.exists()]
        text = "\n".join(report(measured, misled, of=len(friendly), audits=audits, short=short, seed=seed))
        if not short:
            publish(text)
        return measured, text

    total = len(friendly) + len(others)
    with (
        ProcessPoolExecutor(
            mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
        ) as pool,
        progress("validate", total=total, done=total - len(missing), unit="cells") as advance,
    ):
        try:
            running = {pool.submit(_simulate, what) for what in missing}
            while running:
                ended, running = wait(running, MINUTE, FIRST_COMPLETED)  # a cell may take an hour
                for one in ended:
                    one.result()
                if ended:
                    found()
                advance(len(ended), "")
        except BaseException as error:
            for process in active_children():
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise RunError(
                    f"{folder}: a process was killed, perhaps for want of memory; what is finished is kept, and the same "
                    "command continues"
                ) from None
            raise
    measured, text = found()
    return text, [_sentence(cell, each) for cell, each in measured if each.failed]


def _simulate(what: Asked) -> None:
    """In a process of its own: so many audits of a cell or case, by its seed, into its file."""
    one, audits, number, file = what
    rng = np.random.default_rng(number)
    found = measure(one, audits, rng) if isinstance(one, Cell) else mislead(one, audits, rng)
    store.write_json(file, asdict(found) | {"sampler": _sampler()})


def _kept(file: Path) -> dict[str, Any]:
    """What was found of a cell."""
    return {key: value for key, value in stages.read_json(file).items() if key != "sampler"}


def _sampler() -> str:
    """The digest of the code that is judged. It is no part of a cell's name: cells take hours, and most changes of the code
    change no number."""
    judged = (simulation, correction, confusion, estimates, amplification, robustness)
    return digest([Path(str(module.__file__)).read_text(encoding="utf-8") for module in judged])[:16]


def _place(folder: Path, seed: int, audits: int, facts: dict[str, object]) -> tuple[int, Path]:
    """The seed and the file of a cell, from everything that is simulated in it and not from its place in the grid."""
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in facts.items()}
    number = int(digest([seed, audits, plain])[:16], 16)
    return number, folder / f"{number:016x}.json"


def report(cells: Cells, cases: Cases, *, of: int, audits: int, short: bool, seed: int) -> Iterator[str]:
    """Both tables, and above each what came out in a sentence."""
    command = f"typecast validate{' --short' if short else ''} --seed {seed}"
    failed = sum(found.failed for _, found in cells)
    ratios = [ratio for ratio, _ in widths(cells) if not math.isnan(ratio)]
    yield f"By `{command}`: {len(cells)} of {of} cells, {audits:,} audits each."
    yield ""
    yield (
        f"{failed} of them fail (99 % upper bound of the coverage under {FLOOR:.0%}). "
        f"Wider than {WIDEST} times the shortest that covers in every cell with as many levels, images and labels, which is "
        f"the most that is allowed: {sum(r > WIDEST for r in ratios)} of {len(ratios)}. Beside the shortest that covers in "
        f"their own cell alone, {sum(told > WIDEST for _, told in widths(cells))} of {len(ratios)} are wider than that; no "
        "target, since only somebody who is told the shares, which are what is to be found out, could give it."
    )
    yield ""
    yield from _markdown(COLUMNS, [_row(c, m, *w) for (c, m), w in zip(cells, widths(cells), strict=True)])
    if not cases:
        return
    yield ""
    yield "The unfriendly cases: two levels, shares 0.3 and 0.7, 200 labels per level of which 90 % are read right."
    yield ""
    for kind in dict.fromkeys(case.kind for case, _ in cases):
        yield f"- **{kind}**: {UNFRIENDLY[kind]}"
    yield ""
    yield from _markdown(
        ("kind", "gap, points", "images", "coverage", "width", "bias", "a wrong finding is erased by a lean of"),
        [
            (
                *(c.kind, f"{100 * c.gap:g}", f"{c.images:,}", f"{m.coverage:.3f}", _points(m.width), _signed(m.bias)),
                "–" if m.erased_by is None else _points(m.erased_by),
            )
            for c, m in cases
        ],
    )


def widths(cells: Cells) -> list[tuple[float, float]]:
    """Per cell, its mean width over the shortest that covers: without knowing the shares, and told them.

    The posterior is the same, and central intervals of another credible level are taken from it. Told the shares (and
    errors), the level is the one that covers 95 % of the audits of this very cell. But near an end every interval that
    reaches it covers always, so that level belongs to nobody who has yet to find the shares out: the shortest interval
    that an auditor can have covers in *each* cell of the same size, so its level is the highest of theirs.
    """
    highest: dict[tuple[int, int, int], float] = {}
    for cell, found in cells:
        if found.inner_width is not None:
            highest[cell.size] = max(highest.get(cell.size, 0.0), found.rank())
    return [
        (math.nan, math.nan)
        if found.inner_width is None
        else (found.over(highest[cell.size]), found.over(found.rank()))
        for cell, found in cells
    ]


def _row(cell: Cell, found: Measured, shortest: float, told: float) -> tuple[str, ...]:
    return (
        str(cell.levels),
        cell.shares,
        f"{cell.images:,}",
        str(cell.labels),
        cell.errors,
        cell.undecided,
        f"{found.coverage:.3f}",
        f"{found.upper:.3f}",
        f"{found.lowest:.3f}",
        _points(found.width),
        _ratio(shortest),
        _ratio(told),
        _ratio(found.width / found.oracle_width),
        _signed(found.bias),
        f"{found.naive_coverage:.3f}",
        _signed(found.naive_bias),
        str(found.unanswered),
        "fails" if found.failed else "holds",
    )


def _sentence(cell: Cell, found: Measured) -> str:
    return (
        f"{cell.levels} levels, shares {cell.shares}, {cell.images} images, {cell.labels} labels, errors {cell.errors}, "
        f"undecided {cell.undecided}: covers {found.coverage:.3f}, at most {found.upper:.3f}"
    )


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def publish(text: str) -> None:
    """Put the tables between the marks of the page, where there is a checkout that has it with no more rows than these."""
    if PAGE.exists():
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(OPEN)
        old, _, after = rest.partition(CLOSE)
        if f"\n{text}".count("\n|") >= old.count("\n|"):
            store.write_text(PAGE, f"{before}{OPEN}\n{text}\n\n{CLOSE}{after}")
