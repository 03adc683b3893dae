"""Do prompts that name a group keep to it, whatever is added? `python -m scripts.identity_prompts RUN ...` writes that part
of `docs/mitigations.md` and its figure from runs with several arms: a row per run, arm and whom the prompts name.

Women's shares are corrected and their changes are of pairs, as in `effects.csv`, but over all prompts together that name
the same gender. Tones are as the probe decided, and their change is unpaired (Newcombe's interval, which errs wide here).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from pipeline import changes, line, tables
from pipeline.amplification import difference
from pipeline.effects import BASELINE
from pipeline.estimates import wilson
from pipeline.figures import INK, QUIET, STYLE
from pipeline.tables import Key
from scripts.pages import fill
from scripts.tested_arms import HOME, PAGE, points

FIGURE = HOME / "docs" / "identity_prompts.png"
NAMED = {"woman": "a woman", "man": "a man", "": "nobody"}
"""The last word of an identity, and whom its prompts name."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What an arm did to the prompts of one run that name the same gender."""

    run: str
    arm: str
    named: str
    """`woman`, `man`, or empty."""
    images: int
    """Of the arm."""
    change: dict[str, Any]
    """`changes.pooled` of women's share."""
    right: tuple[int, int]
    """Images that were read as showing the named tone, without and with the arm."""


def kept(folder: Path) -> Iterator[Kept]:
    """Every arm of a run beside `none`, by whom the prompts name."""
    run, study, planned = line.resume(folder)
    readings = {r.attribute: r for r in line.read_by(run, study) if not r.of}
    gender = readings["gender"]

    def of(arm: str) -> pa.Table:
        found = [s for s in planned.shards() if s.arm == arm and run.images(s).exists()]
        name, wanted = study.perceive.name, [*readings.values()]
        return pa.concat_tables(tables.decided(run, name, shard, wanted, changes.PLACE) for shard in found)

    plain = of(BASELINE)
    for arm in (arm.name for arm in planned.arms if arm.name != BASELINE):
        table = of(arm)
        same = plain.set_column(plain.column_names.index("arm"), "arm", pa.array([arm] * len(plain), pa.string()))
        everything = [key for key in tables.keys(planned) if key[4] == arm]
        pairs = {key: found for (key, _), found in changes.pair_counts(same, table, [gender], everything, {}).items()}
        for named in NAMED:
            keys = [key for key in everything if _named(key) == named]
            if keys:
                side = changes.Side(reading=gender, shares={}, counts={})
                entries = list(changes.pooled(side, side, keys, pairs, np.random.default_rng(study.seed)))
                right = [_right_tone(rows, named) for rows in (plain, table)] if "skin_tone" in readings else [0, 0]
                yield Kept(
                    run=folder.name,
                    arm=arm,
                    named=named,
                    images=sum(_named(tuple(r.values())) == named for r in table.select(tables.KEY).to_pylist()),
                    change=entries[gender.levels.index("woman")],
                    right=(right[0], right[1]),
                )


def _named(key: Key | tuple[Any, ...]) -> str:
    return str(key[3]).rpartition(" ")[2]


def _right_tone(rows: pa.Table, named: str) -> int:
    """Images of prompts that name a gender that were read as showing the tone that the prompt names too."""
    pairs = zip(rows["identity"].to_pylist(), rows["skin_tone"].to_pylist(), strict=True)
    return sum(bool(named) and asked == f"{tone} {named}" for asked, tone in pairs)


def table(found: Sequence[Kept]) -> list[str]:
    """A line per run, arm and whom the prompts name."""
    lines = [
        "| run | added | prompts name | images | women, % | change, points | read as the named tone | change, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        before, after = (100 * one.change[name]["value"] for name in ("baseline_share", "share"))
        tone = "– | –"
        if one.named:
            shares = [wilson(right, one.images) for right in one.right]
            tone = f"{one.right[0]} → {one.right[1]} | {points(difference(shares[1], shares[0])._asdict())}"
        lines.append(
            f"| {one.run} | {one.arm} | {NAMED[one.named]} | {one.images} | {before:.1f} → {after:.1f} "
            f"| {points(one.change['change'])} | {tone} |"
        )
    return lines


def figure(found: Sequence[Kept]) -> None:
    """`docs/identity_prompts.png`: the change of women's share, a panel per run, a mark per whom the prompts name."""
    runs = list(dict.fromkeys(one.run for one in found))
    arms = list(dict.fromkeys(one.arm for one in found))
    marks = {"woman": ("#0072b2", "o"), "man": ("#d55e00", "s"), "": (INK, "^")}
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(10.4, 1.6 + 0.5 * len(arms)), layout="constrained")
        panels = drawing.subplots(1, len(runs), sharey=True, squeeze=False)[0]
        for panel, run in zip(panels, runs, strict=True):
            panel.axvline(0, color=QUIET, linestyle=(0, (5, 4)), linewidth=1)
            for one in (o for o in found if o.run == run):
                value, low, high = (100 * one.change["change"][end] for end in ("value", "low", "high"))
                colour, mark = marks[one.named]
                y = len(arms) - 1 - arms.index(one.arm) + 0.22 * (1 - [*marks].index(one.named))
                panel.plot([low, high], [y, y], color=colour, linewidth=1.4)
                panel.plot(value, y, mark, color=colour, markersize=5)
            panel.set(title=run, xlim=(-104, 104), ylim=(-0.5, len(arms) - 0.5))
            panel.set_xlabel("change of women's share, points (95% interval)", fontsize=8)
            panel.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(arms)), arms[::-1])
        for named, (colour, mark) in marks.items():
            panels[-1].plot([], [], mark, color=colour, label=f"prompt names {NAMED[named]}")
        drawing.legend(loc="outside lower right", ncols=3, fontsize=8, frameon=False)
        drawing.savefig(FIGURE, dpi=110, metadata={"Software": None})


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, in the order of the table")
    found = [one for folder in parser.parse_args().runs for one in kept(folder)]
    figure(found)
    fill(PAGE, table(found), mark="identities")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
