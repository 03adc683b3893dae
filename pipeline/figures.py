"""Estimates -> figures: draws what `estimates.csv` and `summary.json` say, as SVG and PNG, and computes no number."""

from __future__ import annotations

import contextlib
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from classifiers.attributes import ATTRIBUTES, BY_DETECTOR, INTERSECTIONS, PEOPLE
from pipeline import stages, store
from pipeline.progress import progress
from pipeline.tables import key_of, undivided
from pipeline.types import ALL_TEMPLATES, CANNOT_TELL, digest

Row = Mapping[str, str]
"""One line of `estimates.csv`; a number that is not known is empty."""

FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")
"""For letters that DejaVu Sans has not, where they are installed."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "typecast",  # the same estimates give the same bytes
    "svg.fonttype": "path",  # looks alike where the font is missing
    "text.parse_math": False,  # a concept may hold a dollar sign
    "font.family": ["DejaVu Sans", *(name for name in FONTS if name in font_manager.get_font_names())],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.titleweight": "bold",
    "figure.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.axisbelow": True,
    "xtick.color": "#3c4149",
    "ytick.color": "#3c4149",
    "legend.frameon": False,
}
INK, QUIET, GRID = "#1d2026", "#6b717b", "#e3e6ea"
DIRECTIONS = {
    "away from the base rate": ("o", "#d55e00"),
    "towards the base rate": ("s", "#0072b2"),
    "past the base rate": ("^", "#009e73"),
    "no evidence": ("o", "#a7adb7"),
    "above the reference": ("P", "#cc79a7"),
    "below the reference": ("X", "#cc79a7"),
    "above all that the table allows": ("P", "#e69f00"),
    "below all that the table allows": ("X", "#e69f00"),
    "no reference": ("D", "#56b4e9"),
}
"""Marker and fill of each direction: the colours of Okabe and Ito (2008), told apart by shape too."""
ORDERED = ("skin_tone", "age")
MOST_PANELS = 6
"""Levels that fit beside each other with a panel each; more are only shown as a composition."""
STEPS = ("#eceef1", "#c3c9d2", "#949dab", "#626d7e", "#2f3947")
"""For levels with an order: neutral, light to dark, so that a tone is not drawn as a skin."""
KINDS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#999999", "#f0e442")
"""For levels without an order."""
MEASURES = (
    ("mean_difference", 0, 100, (-10, 10), "points"),
    ("shift", 0, 1, (-0.5, 0.5), "log odds"),
    ("stretch", 1, 1, (0.5, 1.5), "times the reference"),
    ("scatter", 0, 1, (-0.05, 0.5), "log odds, 1 s.d."),
)
"""Of a pooled entry: its key, what it is where the images are as the reference, the factor to the unit, the least
that the axis shows, and the unit."""
RUNS = (("o", "#1d2026"), ("s", "#0072b2"), ("^", "#d55e00"), ("D", "#009e73"), ("v", "#cc79a7"), ("P", "#e69f00"))
"""Marker and colour of each run of a comparison, the baseline first."""
MOST_ROWS = 160
"""Concepts in one figure; more are drawn in parts."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure that was drawn."""

    stem: str
    """Of its two files, `<stem>.svg` and `<stem>.png`."""
    attribute: str
    """Empty if it shows several."""
    title: str
    caption: str
    """How to read it."""
    alt: str
    """What it shows, for who does not see it."""


@dataclass(frozen=True)
class Folder:
    """Where figures are written, and the stems that are taken in it."""

    path: Path
    taken: set[str] = field(default_factory=set)


def draw(rows: Sequence[Row], summary: Mapping[str, Any], path: Path) -> list[Chart]:
    """Every figure that the estimates can fill, written into the folder `path`; those over all concepts first.

    Of an attribute with two levels only the first is drawn: the other is its mirror.
    """
    entries, folder = summary.get("pooled") or [], Folder(path)
    charts = [helped(summary["arms"], folder)] if summary.get("arms") else []
    for attribute in dict.fromkeys(entry["attribute"] for entry in entries):
        charts.append(pooled([entry for entry in entries if entry["attribute"] == attribute], folder))
    blocks = [(attribute, arm) for attribute in unique(rows, "attribute") for arm in unique(rows, "arm")]
    with progress("drawing figures", total=len(blocks), unit="sets") as advance, _without_letters(rows):
        for attribute, arm in blocks:
            own = [row for row in rows if row["attribute"] == attribute and row["arm"] == arm]
            for reference in references(own) or [""]:
                charts += _of_block(own, entries, folder, attribute=attribute, arm=arm, reference=reference)
            advance(1, attribute)
    return charts


def _of_block(
    own: Sequence[Row],
    entries: Sequence[Mapping[str, Any]],
    folder: Folder,
    *,
    attribute: str,
    arm: str,
    reference: str,
) -> Iterator[Chart]:
    """The figures of one attribute, arm and reference."""
    levels = unique(own, "level")
    shown = levels[:1] if len(levels) == 2 else levels
    block = of_reference(own, reference)
    if not block:
        return
    if reference:
        base = {
            entry["level"]: entry["base"]
            for entry in entries
            if (entry["arm"], entry["attribute"], entry["reference"]) == (arm, attribute, reference)
            and entry.get("base") is not None
        }
        given = [level for level in shown if any(row["reference"] for row in block if row["level"] == level)]
        yield shares_against_reference(block, folder, levels=given, reference=reference, base=base)
    if len(levels) <= MOST_PANELS:
        yield from concepts(block, folder, levels=shown, reference=reference)
    if len(levels) > 2:
        yield from composition(block, folder, levels=levels, reference=reference)


# -- reading the rows --------------------------------------------------------------------------------


def unique(rows: Sequence[Row], column: str) -> list[str]:
    """The values of a column, in the order in which they appear."""
    return list(dict.fromkeys(row[column] for row in rows))


def by_concept(rows: Sequence[Row]) -> list[Row]:
    """Without the single templates of concepts whose templates are taken together."""
    shown = set(undivided([key_of(row) for row in rows]))
    return [row for row in rows if key_of(row) in shown]


def number(row: Row, column: str) -> float:
    """A cell as a number; NaN where it is empty."""
    return float(row[column]) if row.get(column) else math.nan


def title_of(attribute: str) -> str:
    """`perceived gender presentation`."""
    titles = {name: attribute.title for name, attribute in ATTRIBUTES.items()}
    titles |= {each.name: each.title for each in (*INTERSECTIONS, *BY_DETECTOR)}
    return titles.get(attribute, f"perceived {attribute.replace('_', ' ')}")


def read_by(attribute: str) -> str:
    """What reads an attribute here."""
    return "the detector" if attribute in {each.name for each in BY_DETECTOR} else "the probe"


def is_range(row: Row) -> bool:
    """Does the reference give both ends of a range and no share? So the difference has no value; where the share is not
    known it has none either, and the ends hold what is known of the reference too."""
    return bool(row["reference"] and row["reference_low"] and not row["difference"])


def said_of_arm(arm: str) -> str:
    """An arm in words."""
    return "prompts unchanged" if arm == "none" else f"arm {arm}"


def labels(rows: Sequence[Row]) -> list[str]:
    """A name per row: the concept, and of the rest of the key what differs between the rows."""
    extra = [column for column in ("identity", "template", "prompt_set") if len(unique(rows, column)) > 1]
    return [
        ", ".join([row["concept"], *(row[column] for column in extra if row[column] not in ("", ALL_TEMPLATES))])
        for row in rows
    ]


def references(rows: Sequence[Row]) -> list[str]:
    """The references that give a share to at least one of the rows."""
    return unique([row for row in rows if row["reference"]], "reference_source")


def of_reference(rows: Sequence[Row], reference: str) -> list[Row]:
    """The block of one reference; if none is named, the first block there is."""
    first = reference or next((row["reference_source"] for row in rows), "")
    return [row for row in rows if row["reference_source"] == first]


def corrected(rows: Sequence[Row]) -> bool:
    """Do the shares differ from the raw ones at all?"""
    return any(row["share"] != row["raw_share"] for row in rows)


def _said_of_share(rows: Sequence[Row]) -> str:
    if rows[0]["method"].startswith("as labelled by"):
        return "as labelled by a person"
    errors = f"for {read_by(rows[0]['attribute'])}'s errors"
    return f"corrected {errors}" if corrected(rows) else f"not corrected {errors}"


def _share_of(attribute: str) -> str:
    """A share and its denominator, for an axis."""
    return "share of all images looked at" if attribute == PEOPLE.name else "share of images that show one person"


def _one(rows: Sequence[Row]) -> str:
    """What a line or a mark stands for."""
    return "one concept" if not any(row["identity"] for row in rows) else "one concept, or a prompt that names a group"


# -- share against reference -------------------------------------------------------------------------


def shares_against_reference(
    rows: Sequence[Row], folder: Folder, *, levels: Sequence[str], reference: str, base: Mapping[str, float]
) -> Chart:
    """A panel per level: share, with its interval, over reference share, with its own. `base` in 0..1 per level."""
    attribute, arm = rows[0]["attribute"], rows[0]["arm"]
    drawn = [row for row in rows if row["reference"] and row["level"] in levels]
    title = f"{title_of(attribute).capitalize()}, against the reference"
    across = min(len(levels), 3)
    down = -(-len(levels) // across)
    with matplotlib.rc_context(STYLE):
        side = 6.4 if across == 1 else 3.4
        figure = Figure(figsize=(across * side + 0.4, down * side + 1.0))
        figure.suptitle(f"{title} ({said_of_arm(arm)})", x=0.01, ha="left")
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for panel in panels.flat[len(levels) :]:
            panel.set_axis_off()
        shown = list(zip(panels.flat, levels, strict=False))
        for panel, level in shown:
            _scatter(panel, [row for row in drawn if row["level"] == level], base.get(level, math.nan))
            panel.set_title(level)
            panel.tick_params(labelbottom=True)
        panels[-1, 0].set_xlabel(_wrapped(f"share in the reference, {reference} (%)", across * 55), loc="left")
        said = f"share of images, {_said_of_share(rows)}, with 95% intervals (%)"
        figure.supylabel(_wrapped(said, round(12 * side * down)), fontsize=9)
        figure.legend(handles=_legend(drawn), loc="outside lower left", ncols=3, fontsize=8)
        _settle(figure, h_pad=0.1)
        for panel, level in shown:
            named = [row for row in drawn if row["level"] == level and row["share"]]
            _name_points(panel, sorted(named, key=lambda row: -abs(number(row, "difference"))))
        stem = _write(figure, folder, "shares", attribute, arm, reference)
    return Chart(
        stem=stem,
        attribute=attribute,
        title=f"{title}, {said_of_arm(arm)}",
        caption=_shares_caption(rows, reference),
        alt=(
            f"Scatter plot of the share of images per concept against {reference}, for {title_of(attribute)}: "
            f"{', '.join(levels)}; {said_of_arm(arm)}. The table of estimates holds every number."
        ),
    )


def _shares_caption(rows: Sequence[Row], reference: str) -> str:
    missing = len({_key(row) for row in rows} - {_key(row) for row in rows if row["reference"]})
    parts = [
        f"Each mark is {_one(rows)}. On the dashed diagonal the images show it as often as “{reference}” has it, above it "
        "more often, below it less often. Vertical bars are 95% intervals of the share; horizontal ones are what the "
        "reference gives as its own range. An interval that crosses the diagonal is no evidence of a difference.",
        *(["Where the reference is a range, a mark stands at each of its ends."] if any(map(is_range, rows)) else []),
        "Thin lines: the base rate of the same reference.",
        "Names that would cover something are left out; the next figure has them all.",
    ]
    if missing:
        parts.append(f"Not in this figure, for want of a row in the reference: {missing}.")
    return " ".join(parts)


def _scatter(panel: Axes, rows: Sequence[Row], base: float) -> None:
    panel.plot([0, 100], [0, 100], color=QUIET, linestyle=(0, (5, 4)), linewidth=1, zorder=1)
    if not math.isnan(base):
        panel.axvline(100 * base, color="#b9bec6", linewidth=0.8, zorder=0)
        panel.axhline(100 * base, color="#b9bec6", linewidth=0.8, zorder=0)
        panel.text(100 * base + 1, 99, f"base rate {100 * base:.1f}%", fontsize=7, color=QUIET, va="top")
    marked = [(row, end) for row in rows for end in _reference_of(row)]
    for known, colour, style in ((True, "#9aa0a9", "solid"), (False, "#c9cdd3", "dotted")):
        mine = [row for row, _ in marked if bool(row["share"]) == known]
        panel.vlines(
            [x for row, x in marked if bool(row["share"]) == known],
            *_ends(mine, "low", "high"),
            color=colour,
            lw=1.1,
            ls=style,
        )
        panel.hlines(_percents(mine, "share"), *_ends(mine, "reference_low", "reference_high"), color=colour, lw=1.1)
    at = [row for row, _ in marked]
    _marks(panel, at, [x for _, x in marked], _percents(at, "share"), size=32)
    panel.set(xlim=(-2, 102), ylim=(-2, 102), xticks=range(0, 101, 20), yticks=range(0, 101, 20), aspect="equal")
    panel.grid(color=GRID, linewidth=0.6)


def _percents(rows: Sequence[Row], column: str) -> list[float]:
    return [100 * number(row, column) for row in rows]


def _reference_of(row: Row) -> list[float]:
    """The reference in percent: both of its ends where it is a range."""
    return [
        100 * number(row, name) for name in (("reference_low", "reference_high") if is_range(row) else ("reference",))
    ]


def _ends(rows: Sequence[Row], low: str, high: str) -> tuple[list[float], list[float]]:
    return _percents(rows, low), _percents(rows, high)


def _marks(panel: Axes, rows: Sequence[Row], x: Sequence[float], y: Sequence[float], *, size: float) -> None:
    """A mark per row, by its direction; none where a place is NaN."""
    for direction, (marker, fill) in DIRECTIONS.items():
        mine = [i for i, row in enumerate(rows) if row["direction"] == direction]
        if mine:
            places = [x[i] for i in mine], [y[i] for i in mine]
            panel.scatter(*places, s=size, marker=marker, facecolor=fill, edgecolor=_edge(fill), linewidth=1, zorder=3)


def _edge(fill: str) -> str:
    return "#4a505a" if fill == DIRECTIONS["no evidence"][1] else fill


def _name_points(panel: Axes, rows: Sequence[Row], size: float = 6.5) -> None:
    """Write the names beside the points, each where it covers nothing or not at all; the first come first.

    Places are in points of 1/72 inch.
    """
    scale = 72 / panel.figure.dpi
    places = [panel.transData.transform((_reference_of(r)[-1], 100 * number(r, "share"))) * scale for r in rows]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    for row, (right, y) in zip(rows, places, strict=True):
        for x in _reference_of(row):
            ends = [panel.transData.transform((x, 100 * number(row, end))) * scale for end in ("low", "high")]
            taken.append((ends[0][0] - 0.5, ends[0][1], ends[0][0] + 0.5, ends[1][1]))
            taken.append((ends[0][0] - 3, y - 3, right + 3, y + 3))  # from one end of a range to the other
    left, low, right, high = (v * scale for v in panel.bbox.extents)
    for row, (x, y), name in zip(rows, places, labels(rows), strict=True):
        width, height = 0.56 * size * len(name), 1.15 * size
        for dx, dy, side in ((5, 3, "left"), (-5, 3, "right"), (5, -3 - height, "left"), (-5, -3 - height, "right")):
            begin = x + dx if side == "left" else x + dx - width
            box = (begin, y + dy, begin + width, y + dy + height)
            inside = left <= box[0] and box[2] <= right and low <= box[1] and box[3] <= high
            if inside and not any(_overlap(box, other) for other in taken):
                at = (_reference_of(row)[-1], 100 * number(row, "share"))
                panel.annotate(
                    name, at, (dx, dy), textcoords="offset points", fontsize=size, color=INK, ha=side, va="bottom"
                )
                taken.append(box)
                break


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(rows: Sequence[Row], *more: Line2D) -> list[Line2D]:
    """A mark per direction that occurs, in the order of `DIRECTIONS`."""
    seen = {row["direction"] for row in rows}
    handles = [
        Line2D([], [], linestyle="", marker=m, markerfacecolor=c, markeredgecolor=_edge(c), label=d)
        for d, (m, c) in DIRECTIONS.items()
        if d in seen
    ]
    return [*handles, *more]


# -- per concept -------------------------------------------------------------------------------------


def concepts(rows: Sequence[Row], folder: Folder, *, levels: Sequence[str], reference: str) -> Iterator[Chart]:
    """A row per concept and a panel per level: share with its interval, raw share, reference. Ordered by reference."""
    attribute, arm = rows[0]["attribute"], rows[0]["arm"]
    first = [row for row in rows if row["level"] == _leading(rows, levels)]
    named = dict(zip(map(_key, first), labels(first), strict=True))
    order = sorted(first, key=_by_reference)
    parts = _parts(order)
    for place, part in enumerate(parts):
        keys = [_key(row) for row in part]
        note = f", part {place + 1} of {len(parts)}" if len(parts) > 1 else ""
        with matplotlib.rc_context(STYLE):
            width = 8.2 if len(levels) == 1 else 2.2 + 1.9 * len(levels)
            names = [_wrapped(named[key], 34) for key in keys]
            figure = Figure(figsize=(width, 1.7 + _apart(names, 0.2) * len(keys)))
            panels = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
            for panel, level in zip(panels, levels, strict=True):
                _dots(panel, {_key(row): row for row in rows if row["level"] == level}, keys)
                panel.set_title(level, pad=20 if len(keys) > 30 else 6)
            panels[0].set_yticks(range(len(keys)), names, fontsize=8)
            title = f"{title_of(attribute).capitalize()}, per concept"
            figure.suptitle(f"{title} ({said_of_arm(arm)}{note})", x=0.01, ha="left")
            panels[0].set_xlabel(f"{_share_of(attribute)}, with 95% intervals (%)", loc="left")
            handles = _legend([row for row in rows if row["level"] in levels], *_concept_legend(rows, reference))
            figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=8)
            _settle(figure)
            stem = _write(figure, folder, "concepts", attribute, arm, reference, str(place + 1) if note else "")
        yield Chart(
            stem=stem,
            attribute=attribute,
            title=f"{title}, {said_of_arm(arm)}{note}",
            caption=_concepts_caption(rows, levels, reference),
            alt=(
                f"Dot plot of {len(keys)} rows: share of images by {title_of(attribute)} ({', '.join(levels)}), "
                f"with 95% intervals, {said_of_arm(arm)}. The table of estimates holds every number."
            ),
        )


def _leading(rows: Sequence[Row], levels: Sequence[str]) -> str:
    """The level that the concepts are ordered by: the first that the reference gives, else the first."""
    given = {row["level"] for row in rows if row["reference"]}
    return next((level for level in levels if level in given), levels[0])


def _concepts_caption(rows: Sequence[Row], levels: Sequence[str], reference: str) -> str:
    parts = [
        f"Each line is {_one(rows)}. Filled marks: the share of images, {_said_of_share(rows)}, with its 95% interval."
    ]
    if corrected(rows):
        parts.append(f"Small rings: the raw share, what {read_by(rows[0]['attribute'])} said taken at its word.")
    if reference:
        ranges = any(is_range(row) for row in rows if row["level"] in levels)
        of = f" of “{_leading(rows, levels)}”" if len(levels) > 1 else ""
        parts.append(
            f"Black ticks{', and bars where it is a range' if ranges else ''}: “{reference}”; the lines are ordered by its "
            f"share{of}, those without one at the bottom. Shape and colour say which way the share has left the reference; "
            "a grey mark means no evidence: the interval of the difference holds 0."
        )
    else:
        parts.append("No reference covers this attribute: the shares stand alone and nothing is said to be amplified.")
    parts.append("A dotted line without a mark is a share about which nothing is known.")
    return " ".join(parts)


def _concept_legend(rows: Sequence[Row], reference: str) -> list[Line2D]:
    found = []
    if corrected(rows):
        ring = {"marker": "o", "markersize": 3.5, "markerfacecolor": "none", "markeredgecolor": QUIET}
        found.append(Line2D([], [], linestyle="", label="raw share", **ring))  # type: ignore[arg-type]
    if reference:
        label = _wrapped(f"reference: {reference}", 60)
        found.append(Line2D([], [], linestyle="", marker="|", markersize=9, markeredgewidth=2, color=INK, label=label))
    return found


def _dots(panel: Axes, rows: Mapping[tuple[str, ...], Row], keys: Sequence[tuple[str, ...]]) -> None:
    """One panel of dots and intervals: line i belongs to `keys[i]`, and the last is on top."""
    mine = [(y, rows[key]) for y, key in enumerate(keys) if key in rows]
    for known, style, colour in ((True, "solid", "#8d949e"), (False, "dotted", "#b5bac2")):
        some = [(y, row) for y, row in mine if bool(row["share"]) == known]
        ends = _ends([row for _, row in some], "low", "high")
        panel.hlines([y for y, _ in some], *ends, color=colour, linewidth=1.6, linestyle=style, zorder=2)
    here, places = [row for _, row in mine], [y for y, _ in mine]
    points = [(row, y) for y, row in mine if not is_range(row)]
    at = _percents([row for row, _ in points], "reference"), [y for _, y in points]
    panel.scatter(*at, marker="|", s=70, linewidth=2, color=INK, zorder=2.5)
    ranges = [(row, y) for y, row in mine if is_range(row)]
    ends = _ends([row for row, _ in ranges], "reference_low", "reference_high")
    panel.hlines([y for _, y in ranges], *ends, color=INK, linewidth=4, alpha=0.45, zorder=1.9)
    other = [(y, row) for y, row in mine if row["raw_share"] != row["share"]]
    raw = _percents([row for _, row in other], "raw_share"), [y for y, _ in other]
    panel.scatter(*raw, s=11, facecolor="none", edgecolor=QUIET, linewidth=0.8, zorder=2.8)
    _marks(panel, here, _percents(here, "share"), places, size=26)
    panel.set(xlim=(-2, 102), ylim=(-0.8, len(keys) - 0.2), xticks=range(0, 101, 25))
    panel.grid(axis="x", color=GRID, linewidth=0.8)
    panel.hlines(range(len(keys)), 0, 100, color="#f1f2f4", linewidth=0.8, zorder=0)
    panel.tick_params(axis="both", length=0)
    panel.tick_params(axis="x", top=False, labeltop=len(keys) > 30)
    panel.spines[["left", "bottom"]].set_visible(False)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in ("prompt_set", "concept", "template", "identity"))


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """As few parts as are needed, all about as long."""
    size = math.ceil(len(rows) / max(math.ceil(len(rows) / MOST_ROWS), 1))
    return [rows[i : i + size] for i in range(0, len(rows), size)] if rows else []


def _by_reference(row: Row) -> tuple[bool, float, str]:
    """Sorts rows from the bottom up: those without a reference first, by share; then by reference."""
    has = bool(row["reference"])
    value = number(row, "reference" if has else "share")
    return has, -1.0 if math.isnan(value) else value, row["concept"]


# -- composition -------------------------------------------------------------------------------------


def composition(rows: Sequence[Row], folder: Folder, *, levels: Sequence[str], reference: str) -> Iterator[Chart]:
    """All levels of each concept as one bar, beside the reference's where there is one. Ordered by the last level."""
    attribute, arm = rows[0]["attribute"], rows[0]["arm"]
    last = [row for row in rows if row["level"] == levels[-1]]
    named = dict(zip(map(_key, last), labels(last), strict=True))
    order = sorted(last, key=lambda row: (bool(row["share"]), number(row, "share") if row["share"] else 0.0))
    parts = _parts(order)
    for place, part in enumerate(parts):
        keys = [_key(row) for row in part]
        note = f", part {place + 1} of {len(parts)}" if len(parts) > 1 else ""
        with matplotlib.rc_context(STYLE):
            names = [_wrapped(named[key], 34) for key in keys]
            figure = Figure(figsize=(8.6, 1.7 + _apart(names, 0.22) * len(keys)))
            sides = [("images", "share")] + ([("reference", "reference")] if reference else [])
            panels = figure.subplots(1, len(sides), squeeze=False, sharey=True, width_ratios=[3, 2][: len(sides)])[0]
            for panel, (name, column) in zip(panels, sides, strict=True):
                _bars(panel, rows, keys, levels, column)
                panel.set_title(_wrapped(f"reference: {reference}", 34) if name == "reference" else name)
            panels[0].set_yticks(range(len(keys)), names, fontsize=8)
            title = f"{title_of(attribute).capitalize()}, composition"
            figure.suptitle(f"{title} ({said_of_arm(arm)}{note})", x=0.01, ha="left")
            panels[0].set_xlabel(f"{_share_of(attribute)} (%)", loc="left")
            colours = _colours(attribute, len(levels))
            handles = [Patch(facecolor=c, edgecolor="#c3c9d2", label=v) for v, c in zip(levels, colours, strict=True)]
            columns = len(levels) // 2 if len(levels) > MOST_PANELS else len(levels)
            if columns < len(levels):  # a legend fills its columns first: a row for each half
                handles = [handle for pair in zip(handles[:columns], handles[columns:], strict=True) for handle in pair]
            figure.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=7.5)
            _settle(figure)
            stem = _write(figure, folder, "composition", attribute, arm, reference, str(place + 1) if note else "")
        yield Chart(
            stem=stem,
            attribute=attribute,
            title=f"{title}, {said_of_arm(arm)}{note}",
            caption=_composition_caption(rows, levels, reference),
            alt=(
                f"Stacked bars of {len(keys)} rows: shares of {', '.join(levels)} ({title_of(attribute)}), "
                f"{said_of_arm(arm)}. The table of estimates holds every number."
            ),
        )


def _composition_caption(rows: Sequence[Row], levels: Sequence[str], reference: str) -> str:
    attribute = rows[0]["attribute"]
    divide = f"how its images divide over the levels of {title_of(attribute)}, {_said_of_share(rows)}"
    parts = [f"Each bar is {_one(rows)}: {divide}."]
    if attribute == "skin_tone":
        parts.append("The greys stand for an order; they are nobody's skin.")
    if reference:
        ranges = (
            " To its upper end where it is a range, of which both ends are written." if any(map(is_range, rows)) else ""
        )
        parts.append(f"On the right “{reference}”, blank where it has no row.{ranges}")
    where = "figure before this one" if len(levels) <= MOST_PANELS else "table of estimates"
    parts.append(f"The intervals are in the {where}. Hatched: nothing is known.")
    return " ".join(parts)


def _bars(
    panel: Axes, rows: Sequence[Row], keys: Sequence[tuple[str, ...]], levels: Sequence[str], column: str
) -> None:
    shares = {(_key(row), row["level"]): 100 * number(row, column) for row in rows}
    ranges = {
        (_key(row), row["level"]): "–".join(f"{end:.0f}" for end in _reference_of(row))
        for row in rows
        if column == "reference" and is_range(row)
    }
    left = [0.0] * len(keys)
    for level, colour in zip(levels, _colours(rows[0]["attribute"], len(levels)), strict=True):
        widths = [shares.get((key, level), math.nan) for key in keys]
        widths = [0.0 if math.isnan(width) else width for width in widths]
        panel.barh(range(len(keys)), widths, left=left, height=0.78, color=colour, edgecolor="white", linewidth=0.6)
        ink = "white" if sum(to_rgb(colour)) < 1.6 else INK
        for y, width in enumerate(widths):
            if width >= 9:
                at = left[y] + width / 2
                said = ranges.get((keys[y], level), f"{width:.0f}")
                panel.text(at, y, said, fontsize=6.5, color=ink, ha="center", va="center_baseline")
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    unknown = [y for y, end in enumerate(left) if end == 0 and column == "share"]
    panel.barh(unknown, 100, height=0.78, facecolor="white", edgecolor="#c9cdd3", hatch="////", linewidth=0)
    panel.set(xlim=(0, 100), ylim=(-0.7, len(keys) - 0.3), xticks=range(0, 101, 25))
    panel.tick_params(axis="both", length=0)
    panel.spines[["left", "bottom"]].set_visible(False)


def _colours(attribute: str, n: int) -> list[str]:
    """Neutral steps for an order, for each level of the first attribute its own in an intersection of two, else colours
    that say nothing."""
    if attribute in {both.name for both in INTERSECTIONS}:
        families = (matplotlib.colormaps[name] for name in ("Purples", "Greens"))
        return [to_hex(family(0.25 + 0.7 * i / (n // 2 - 1))) for family in families for i in range(n // 2)]
    if attribute not in ORDERED:
        return [KINDS[i % len(KINDS)] for i in range(n)]
    return [STEPS[round(i * (len(STEPS) - 1) / max(n - 1, 1))] for i in range(n)]


# -- pooled ------------------------------------------------------------------------------------------


POOLED_CAPTION = (
    "Dashed lines: the images are as the reference. Mean difference: points by which the share lies above the reference "
    "on average. Shift: log odds added to every concept alike; above 0 the level is shown more often throughout. "
    "Stretch: how far apart the concepts lie; above 1 the contrasts of the reference are amplified, below 1 they are "
    "flattened. Scatter: what is each concept's own; 0 is nothing. They are read together: a model that never draws a "
    "level has a stretch near 0 and is not fair, it is all in the shift. The last three are fitted for attributes with "
    "two levels. A line without a dot: only bounds are known. "
    "One far beyond the others is an arrow at the edge, or leaves its panel; the table has its ends."
)


def pooled(entries: Sequence[Mapping[str, Any]], folder: Folder) -> Chart:
    """What is fitted of one attribute, with intervals, a panel per measure: a line per level, arm and reference."""
    attribute = entries[0]["attribute"]
    several = len({entry["arm"] for entry in entries}) > 1
    names = [_entry_name(entry, several_arms=several) for entry in entries]
    known = [measure for measure in MEASURES if any(entry.get(measure[0]) for entry in entries)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.7 + _apart(names, 0.42) * len(entries)))
        panels = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
        for panel, (name, at, factor, least, unit) in zip(panels, known, strict=True):
            panel.axvline(at, color=QUIET, linestyle=(0, (5, 4)), linewidth=1, zorder=1)
            ends = _reach([entry[name] for entry in entries if entry.get(name)], at, factor, least)
            for y, entry in enumerate(entries[::-1]):
                _interval(panel, y, entry.get(name), factor, ends)
            panel.set_xlim(*ends)
            panel.locator_params(axis="x", nbins=3)
            panel.set_title(name.replace("_", " "))
            panel.set_xlabel(unit, fontsize=8)
            panel.grid(axis="x", color=GRID, linewidth=0.8)
            panel.tick_params(axis="both", length=0)
            panel.spines["left"].set_visible(False)
        panels[0].set(ylim=(-0.7, len(entries) - 0.3))
        panels[0].set_yticks(range(len(entries)), names[::-1], fontsize=8)
        title = f"{title_of(attribute)}, over all concepts together".capitalize()
        figure.suptitle(f"{title}, with 95% intervals", x=0.01, ha="left")
        _settle(figure)
        stem = _write(figure, folder, f"pooled-{attribute}")
    measures = [name.replace("_", " ") for name, *_ in known]
    return Chart(
        stem=stem,
        attribute=attribute,
        title=title,
        caption=POOLED_CAPTION,
        alt=(
            f"{', '.join(measures).capitalize()} of {title_of(attribute)} with 95% intervals for {len(entries)} combinations "
            "of level, arm and reference. The numbers are in the table under the finding."
        ),
    )


def _reach(
    estimates: Sequence[Mapping[str, Any]], at: float, factor: float, least: tuple[float, float]
) -> tuple[float, float]:
    """Of a panel: as far as the intervals reach, but no further than four times as far as the middle one of them: one fit
    that hardly knows its slope would make dots of all others."""
    known = [factor * each[end] for each in estimates for end in ("low", "high") if each.get(end) is not None]
    far = 4 * median(abs(end - at) for end in known) if known else 0.0
    left, right = min([at, *known]), max([at, *known])
    left, right = max(left, at - far), min(right, at + far)
    margin = 0.05 * (right - left)
    return min(left - margin, least[0]), max(right + margin, least[1])


def _entry_name(entry: Mapping[str, Any], *, several_arms: bool) -> str:
    arm = f", {said_of_arm(entry['arm'])}" if several_arms else ""
    return f"{entry['level']}{arm}\n{_wrapped(entry['reference'], 46)}"


def _interval(
    panel: Axes,
    y: float,
    estimate: Mapping[str, Any] | None,
    factor: float,
    ends: tuple[float, float] = (-math.inf, math.inf),
) -> None:
    """One estimate with its interval, or the words that it is not known; nothing where there is none. One that lies beyond
    the ends of its panel is an arrow there."""
    if estimate is None:
        return
    value, low, high = (estimate.get(name) for name in ("value", "low", "high"))
    if value is None and (low is None or high is None):
        panel.annotate(
            "not known", (0.98, y), xycoords=("axes fraction", "data"), fontsize=8, color=QUIET, ha="right", va="center"
        )
        return
    if low is not None and high is not None:
        panel.hlines(y, factor * low, factor * high, color="#0072b2", linewidth=2, zorder=2)
    if value is None:  # the reference is a range, and so is what is known
        return
    (left, right), at, marker = ends, factor * value, "o"
    if at < left:
        at, marker = left + 0.03 * (right - left), "<"
    elif at > right:
        at, marker = right - 0.03 * (right - left), ">"
    panel.scatter([at], [y], s=36, marker=marker, color="#0072b2", zorder=3)


# -- arms --------------------------------------------------------------------------------------------

HELPED_CAPTION = (
    "Each arm beside its baseline, on the same seeds where they were drawn here. Distance: from the declared target; left "
    "of 0 is closer. Past the target: how far the shares have gone beyond it, seen from where they were; right of 0 is "
    "over-corrected. Diversity: Shannon's entropy within the concepts, in parts of the largest there could be, of the "
    "target's attribute. Recognised: images that show the occupation that was asked for, among "
    "all of the study. Not made: blocked or failed images. An interval that reaches over 0 is no evidence."
)


FIVE = ("distance", "past the target", "diversity", "recognised", "not made")
"""The panels; one of which nothing is known is not drawn."""


def helped(entries: Sequence[Mapping[str, Any]], folder: Folder) -> Chart:
    """What each arm changed, a line per arm and target: the five numbers of `summary.json` with their intervals."""
    names = [f"{entry['arm']}\n{title_of(entry['attribute'])}: {entry['target']}" for entry in entries]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 1.9 + 0.5 * len(entries)))
        numbers = [five_numbers(entry) for entry in entries[::-1]]
        known = [place for place in range(len(FIVE)) if any(found[place] for found in numbers)] or [0]
        panels = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
        for panel, place in zip(panels, known, strict=True):
            title = FIVE[place]
            panel.axvline(0, color=QUIET, linestyle=(0, (5, 4)), linewidth=1, zorder=1)
            for y, found in enumerate(numbers):
                _interval(panel, y, found[place], 100)
            left, right = panel.get_xlim()
            panel.set_xlim(min(left, -5), max(right, 5))
            panel.locator_params(axis="x", nbins=3)
            panel.set_title(title)
            panel.set_xlabel("points" if title == "past the target" else "change, points", fontsize=8)
            panel.grid(axis="x", color=GRID, linewidth=0.8)
            panel.tick_params(axis="both", length=0)
            panel.spines["left"].set_visible(False)
        panels[0].set(ylim=(-0.7, len(entries) - 0.3))
        panels[0].set_yticks(range(len(entries)), names[::-1], fontsize=8)
        title = "Did it help? Each arm beside its baseline"
        figure.suptitle(f"{title}, with 95% intervals", x=0.01, ha="left")
        _settle(figure)
        stem = _write(figure, folder, "arms")
    return Chart(
        stem=stem,
        attribute="",
        title=title,
        caption=HELPED_CAPTION,
        alt=(
            f"Change of distance, excess past the target, change of diversity, of recognition and of images not made, with "
            f"95% intervals, for {len(entries)} combinations of arm and target. The numbers are in the table."
        ),
    )


def five_numbers(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, ...]:
    """Distance, excess, diversity of the target's attribute, recognition, images not made: estimates, or `None`."""
    return (
        entry.get("distance_change"),
        entry.get("excess"),
        entry["diversity"].get(entry["attribute"]) or next(filter(None, entry["diversity"].values()), None),
        entry["fidelity"].get("recognised_change"),
        entry["cost"].get("not_made_change"),
    )


# -- several runs ------------------------------------------------------------------------------------


def compared(rows: Sequence[Row], path: Path) -> list[Chart]:
    """Of the rows of `compare.csv`: a figure per attribute and arm, the runs beside each other in every concept."""
    rows, charts, folder = by_concept(rows), list[Chart](), Folder(path)
    with _without_letters(rows):
        for attribute in unique(rows, "attribute"):
            for arm in unique(rows, "arm"):
                own = [row for row in rows if row["attribute"] == attribute and row["arm"] == arm]
                charts += _compared(own, folder) if own else []
    return charts


def _compared(rows: Sequence[Row], folder: Folder) -> Iterator[Chart]:
    attribute, arm, levels = rows[0]["attribute"], rows[0]["arm"], unique(rows, "level")
    levels = levels[:1] if len(levels) == 2 else levels
    runs = [rows[0]["baseline"], *unique(rows, "run")]
    first = list({_key(row): row for row in rows if row["level"] == levels[0]}.values())
    named = dict(zip(map(_key, first), labels(first), strict=True))
    order = sorted(first, key=lambda row: (bool(row["baseline_share"]), number(row, "baseline_share"), row["concept"]))
    said = f"{_share_of(attribute)}, with 95% intervals (%)\nhollow: not told from the first run (Holm)"
    parts = _parts(order)
    for place, part in enumerate(parts):
        keys = [_key(row) for row in part]
        note = f", part {place + 1} of {len(parts)}" if len(parts) > 1 else ""
        with matplotlib.rc_context(STYLE):
            width = 8.2 if len(levels) == 1 else 2.2 + 1.9 * len(levels)
            names = [_wrapped(named[key], 34) for key in keys]
            figure = Figure(figsize=(width, 1.8 + _apart(names, 0.12 + 0.09 * len(runs)) * len(keys)))
            panels = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
            for panel, level in zip(panels, levels, strict=True):
                _dumbbells(panel, [row for row in rows if row["level"] == level], keys, runs)
                panel.set_title(level, pad=20 if len(keys) > 30 else 6)
            panels[0].set_yticks(range(len(keys)), names, fontsize=8)
            title = f"{title_of(attribute).capitalize()}, {len(runs)} runs"
            figure.suptitle(f"{title} ({said_of_arm(arm)}{note})", x=0.01, ha="left")
            panels[0].set_xlabel(said, loc="left")
            handles = [
                Line2D([], [], linestyle="", marker=m, color=c, label=_wrapped(name, 40))
                for name, (m, c) in zip(runs, _run_marks(len(runs)), strict=True)
            ]
            figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=8)
            _settle(figure)
            stem = _write(figure, folder, "compare", attribute, arm, str(place + 1) if note else "")
        yield Chart(
            stem=stem,
            attribute=attribute,
            title=f"{title}, {said_of_arm(arm)}{note}",
            caption=(
                f"One line per concept, ordered by the share in {runs[0]}. Marks: the share in each run, with its 95% "
                "interval. A filled mark: the change from the first run is told from none (p < 0.05 after Holm over the "
                "concepts); a hollow one: it is not. On pairs the change is surer than the two intervals look."
            ),
            alt=(
                f"Dot plot of {len(keys)} rows: share of images by {title_of(attribute)} ({', '.join(levels)}) in "
                f"{', '.join(runs)}. The table compare.csv holds every number."
            ),
        )


def _run_marks(n: int) -> list[tuple[str, str]]:
    return [RUNS[i % len(RUNS)] for i in range(n)]


def _dumbbells(panel: Axes, rows: Sequence[Row], keys: Sequence[tuple[str, ...]], runs: Sequence[str]) -> None:
    """One panel: line i belongs to `keys[i]`, and in it the runs from the top down."""
    at = {key: y for y, key in enumerate(keys)}
    mine = [row for row in rows if _key(row) in at]
    step = 0.6 / len(runs)
    baseline = list({_key(row): row for row in mine}.values())
    for place, (run, (marker, colour)) in enumerate(zip(runs, _run_marks(len(runs)), strict=True)):
        prefix = "" if place else "baseline_"
        some = [row for row in mine if row["run"] == run] if place else baseline
        y = [at[_key(row)] + step * ((len(runs) - 1) / 2 - place) for row in some]
        known = [bool(row[f"{prefix}share"]) for row in some]
        for is_known, style in ((True, "solid"), (False, "dotted")):
            ends = _ends(
                [row for row, k in zip(some, known, strict=True) if k == is_known], f"{prefix}low", f"{prefix}high"
            )
            lines = [v for v, k in zip(y, known, strict=True) if k == is_known]
            panel.hlines(lines, *ends, color=colour, alpha=0.55, linewidth=1.4, linestyle=style, zorder=2)
        told = [place == 0 or number(row, "p_adjusted") < 0.05 for row in some]
        fill = [colour if is_told else "white" for is_told in told]
        shares = _percents(some, f"{prefix}share")
        panel.scatter(shares, y, s=20, marker=marker, facecolor=fill, edgecolor=colour, linewidth=1, zorder=3)
    panel.set(xlim=(-2, 102), ylim=(-0.8, len(keys) - 0.2), xticks=range(0, 101, 25))
    panel.grid(axis="x", color=GRID, linewidth=0.8)
    panel.hlines([y + 0.5 for y in range(len(keys) - 1)], 0, 100, color="#eceef1", linewidth=0.8, zorder=0)
    panel.tick_params(axis="both", length=0)
    panel.tick_params(axis="x", top=False, labeltop=len(keys) > 30)
    panel.spines[["left", "bottom"]].set_visible(False)


# -- a probe -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """What is drawn of a probe for one attribute: its calibration, and what moving the threshold gives."""

    said: npt.NDArray[np.float64]
    """Mean probability of the best level, per bin; then how often it was right, and the pictures in the bin."""
    held: npt.NDArray[np.float64]
    n: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float32]
    """From high to low; then the share decided, and the accuracy among the decided."""
    decided: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    threshold: float
    """The one in use."""


def probe(curves: Mapping[str, Curves], measured: Mapping[str, Any], path: Path) -> None:
    """How wrong a probe is, as PNG: a row per attribute with its confusion, its calibration, and its coverage."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.3 * max(len(curves), 1)), layout="constrained")
        panels = figure.subplots(max(len(curves), 1), 3, squeeze=False)
        for row, (name, curve) in zip(panels, curves.items(), strict=True):
            entry = measured[name]
            _confusion(row[0], entry)
            _calibration(row[1], curve, entry["ece"])
            _coverage(row[2], curve)
        with store.appears(path) as file:
            figure.savefig(file, format="png", dpi=110)


def _confusion(panel: Axes, entry: Mapping[str, Any]) -> None:
    """Counts, shaded by their share of the true level."""
    counts = np.array(entry["confusion"])
    panel.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Greys", vmin=0, vmax=1.4, aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        panel.text(j, i, f"{n}", ha="center", va="center", color=INK if i != j or not n else "white")
    panel.set_xticks(range(counts.shape[1]), [*entry["levels"], CANNOT_TELL], rotation=30, ha="right")
    panel.set_yticks(range(len(counts)), entry["levels"])
    panel.set(title=f"{entry['title']}: {entry['n']} labelled", ylabel="labelled", xlabel="said")


def _calibration(panel: Axes, curve: Curves, error: float) -> None:
    panel.plot([0, 1], [0, 1], color=GRID, zorder=1)
    panel.plot(curve.said, curve.held, color=RUNS[1][1], lw=1, zorder=2)
    panel.scatter(curve.said, curve.held, s=10 + 90 * curve.n / curve.n.max(), color=RUNS[1][1], zorder=3)
    panel.set(xlabel="probability of the best level", ylabel="share that was right", xlim=(0, 1.03), ylim=(0, 1.03))
    panel.set_title(f"calibration error {error:.3f}; area: pictures")


def _coverage(panel: Axes, curve: Curves) -> None:
    panel.plot(100 * curve.decided, 100 * curve.right, color=RUNS[1][1], lw=1.2)
    here = int(np.searchsorted(-curve.thresholds, -np.float32(curve.threshold), side="right")) - 1
    if here >= 0:
        panel.plot(100 * curve.decided[here], 100 * curve.right[here], "o", color=RUNS[2][1])
    panel.set(xlabel="decided, %", ylabel="right among them, %", title=f"threshold {curve.threshold:.2f}: the dot")
    panel.set_ylim(min(90.0, 100 * float(curve.right.min())) - 1, 100.5)


# -- what all figures share --------------------------------------------------------------------------


def _settle(figure: Figure, h_pad: float | None = None) -> None:
    """Lay the figure out once: the names are placed by it, and both files are alike.

    `h_pad` in inches, around the panels. A figure that has its layout engine would be laid out and drawn anew for each
    file.
    """
    ConstrainedLayoutEngine(h_pad=h_pad).execute(figure)
    for panel in figure.axes:
        panel.apply_aspect()


def _apart(names: Sequence[str], least: float) -> float:
    """Inches from a line to the next, `least` or more: wrapped names of neighbours do not touch."""
    lines = [name.count("\n") + 1 for name in names]
    return max([least, *(0.14 * (a + b) / 2 for a, b in pairwise(lines))])


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, max(width, 8))) or text


@contextlib.contextmanager
def _without_letters(rows: Sequence[Row]) -> Iterator[None]:
    """Say once which concepts have a letter that no font here has: a box stands for it."""
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in STYLE["font.family"]]
    boxed = [
        name
        for name in unique(rows, "concept")
        if any(not letter.isspace() and not any(font.get_char_index(ord(letter)) for font in fonts) for letter in name)
    ]
    if boxed:
        stages.say(f"figures: no font here has all letters of {', '.join(boxed)}; boxes stand for those")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def _write(figure: Figure, folder: Folder, *parts: str) -> str:
    """Write a figure as SVG and PNG, the same bytes for the same estimates, and give back the stem of the files."""
    stem = "-".join(re.sub(r"\W+", "-", part).strip("-").lower() for part in parts if part)
    if stem in folder.taken:  # names that differ in what a stem leaves out
        stem += f"-{digest(parts)[:6]}"
    folder.taken.add(stem)
    with store.appears(folder.path / f"{stem}.svg") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    with store.appears(folder.path / f"{stem}.png") as file:
        figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return stem
