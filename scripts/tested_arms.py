"""Do rewritten prompts help on the glass box? `python -m scripts.tested_arms RUN ...` writes the measured part of
`docs/mitigations.md` and its figure from runs of `typecast run mitigations_emoji` at several values of guidance, and from
runs that aim at a target with the obedience of such a pilot. Every number comes from the runs' own files.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pipeline import line
from pipeline.amplification import total_variation
from pipeline.effects import in_words
from pipeline.figures import INK, QUIET, STYLE
from pipeline.mitigations import Goal, Guardrail, Target
from scripts.pages import fill

HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "mitigations.md"
FIGURE = HOME / "docs" / "mitigations.png"


@dataclass(frozen=True, kw_only=True)
class Tested:
    """An arm against a target, in one run."""

    run: str
    guidance: float
    images: int
    """A concept and arm."""
    entry: Mapping[str, Any]
    """Of `summary.json`."""
    raw: tuple[float, float]
    """Mean total variation from the target, before and after, as the probe decided and nobody corrected."""


def tested(folder: Path) -> Iterator[Tested]:
    """Every arm of a run against every target that it is held against."""
    _, study, planned = line.resume(folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    with (folder / "estimates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    goals = (arm.goal for arm in planned.arms if isinstance(arm, Target | Guardrail))
    declared = {(goal.attribute, goal.title): goal for goal in goals if goal}
    for entry in summary["arms"]:
        aim = entry["attribute"], entry["target"]
        goal = declared.get(aim) or Goal(*aim)  # parity, where the study declares no target
        raw = tuple(raw_distance(rows, arm, goal) for arm in ("none", entry["arm"]))
        yield Tested(
            run=folder.name,
            guidance=study.draw.guidance_scale,
            images=study.images_per_prompt,
            entry=entry,
            raw=(raw[0], raw[1]),
        )


def raw_distance(rows: Sequence[Mapping[str, str]], arm: str, goal: Goal) -> float:
    """Mean total variation between the raw shares of an arm and its target, over the concepts that are in it."""
    shares: dict[str, dict[str, float]] = {}
    for row in rows:
        if (row["arm"], row["attribute"]) == (arm, goal.attribute) and row["raw_share"] and not row["identity"]:
            shares.setdefault(row["concept"], {})[row["level"]] = float(row["raw_share"])
    known = [(list(found.values()), goal.shares(concept)) for concept, found in shares.items()]
    return float(np.mean([total_variation(found, t) for found, t in known if not isinstance(t, str)]))


def points(estimate: Mapping[str, float] | None) -> str:
    """A change in points with its interval."""
    if not estimate:
        return "–"
    value, low, high = (100 * estimate[end] for end in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


def table(found: Sequence[Tested]) -> list[str]:
    """A line per run, arm and target."""
    lines = [
        "| guidance | images | arm | target | distance before → after, points | noise alone | change | past the target "
        "| raw distance | recognised | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        entry = one.entry
        before, after = entry["distance_before"], entry["distance_after"]
        shown = entry["fidelity"].get("recognised")
        lines.append(
            f"| {one.guidance:g} | {one.images} | {entry['arm']} | {entry['target']} "
            f"| {100 * before['value']:.1f} → {100 * after['value']:.1f} | {100 * after['noise_floor']:.1f} "
            f"| {points(entry['distance_change'])} | {points(entry['excess'])} "
            f"| {100 * one.raw[0]:.1f} → {100 * one.raw[1]:.1f} "
            f"| {100 * shown[1]['value']:.1f} % | {in_words(entry)} |"
            if shown
            else ""
        )
    return [text for text in lines if text]


def others(found: Sequence[Tested]) -> list[str]:
    """A line per run and arm: what does not depend on the target, diversity, fidelity and cost."""
    arms = {(one.run, one.entry["arm"]): one for one in found}
    attributes = list(dict.fromkeys(name for one in arms.values() for name in one.entry["diversity"]))
    titles = [f"diversity of {name.replace('_x_', ' × ').replace('_', ' ')}" for name in attributes]
    columns = ["guidance", "arm", *titles, "recognised, points", "CLIP score", "tokens more", "not made, points"]
    columns.append("kWh for 1,000 images")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in arms.values():
        fidelity, cost = one.entry["fidelity"], one.entry["cost"]
        score = fidelity.get("clip_score_change")
        cells = [
            f"{one.guidance:g}",
            one.entry["arm"],
            *(points(one.entry["diversity"].get(name)) for name in attributes),
            points(fidelity.get("recognised_change")),
            "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**score).replace("-", "−") if score else "–",
            "–" if cost["tokens"] is None else f"{cost['tokens']:.1f}",
            points(cost["not_made_change"]),
            " → ".join(f"{kwh:.2g}" for kwh in cost["kwh_per_1000_images"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def figure(found: Sequence[Tested]) -> None:
    """`docs/mitigations.png`: the change of distance with its interval, a panel per target, a colour per guidance."""
    targets = list(dict.fromkeys(one.entry["target"] for one in found))
    arms = list(dict.fromkeys(one.entry["arm"] for one in found))
    settings = sorted({one.guidance for one in found})
    marks = dict(zip(settings, [(INK, "o"), ("#b5651d", "s"), (QUIET, "^")], strict=False))
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(9.6, 1.6 + 0.42 * len(arms)), layout="constrained")
        panels = drawing.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        for panel, target in zip(panels, targets, strict=True):
            panel.axvline(0, color=QUIET, linestyle=(0, (5, 4)), linewidth=1)
            for one in (o for o in found if o.entry["target"] == target):
                value, low, high = (100 * one.entry["distance_change"][end] for end in ("value", "low", "high"))
                colour, mark = marks[one.guidance]
                y = len(arms) - 1 - arms.index(one.entry["arm"]) + 0.22 * (settings.index(one.guidance) - 0.5)
                panel.plot([low, high], [y, y], color=colour, linewidth=1.4)
                panel.plot(value, y, mark, color=colour, markersize=5)
            panel.set_title(f"target: {target}")
            panel.set_xlabel("change of the distance to it, points (95% interval)", fontsize=8)
            panel.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(arms)), arms[::-1])
        for setting, (colour, mark) in marks.items():
            panels[-1].plot([], [], mark, color=colour, label=f"guidance {setting:g}")
        panels[-1].legend(loc="best", fontsize=8, frameon=False)
        drawing.savefig(FIGURE, dpi=110)


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, in the order of the table")
    found = [one for folder in parser.parse_args().runs for one in tested(folder)]
    figure(found)
    fill(PAGE, table(found))
    fill(PAGE, others(found), "others")
    print("\n".join([*table(found), "", *others(found)]))


if __name__ == "__main__":
    main()
