"""What published counts and labels say with intervals: `python -m scripts.published_counts` writes
`docs/published_counts.md` and its figures from the studies `fair_diffusion_fairface` and `raza2025`.

Both are imported as `typecast import` does it, into `outputs/`; every number comes from the two runs. Some minutes.
"""

from __future__ import annotations

import csv
import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import special

import prompt_sets
from classifiers.attributes import ATTRIBUTES
from pipeline import amplification, imports, tables
from pipeline import study as studies
from pipeline.effects import in_words
from pipeline.estimates import Floats, Ints
from pipeline.figures import INK, QUIET, STYLE
from pipeline.imports import Imported
from pipeline.mitigations import ALL_CONCEPTS
from pipeline.study import ImportStudy
from pipeline.types import NOT_ONE_PERSON, Distribution, Estimate

HOME = Path(__file__).resolve().parents[1]
DOCS = HOME / "docs"
SIGNIFICANT = 0.05
NORMAL = 1.96
"""A 95 % interval's half width in standard errors."""
TINY = 1e-6
"""Above zero, for a spread that chance alone explains and for shares that are all 0 or 1."""
DRAWN, EDITED = "as drawn", "edited"
MODELS = ("DALL-E 3", "FLUX.1-dev", "SDXL Turbo")
Rows = list[dict[str, str]]


def imported(name: str) -> tuple[Imported, Rows, dict[str, Any]]:
    """A shipped study, imported anew: what was read, its estimates of the first level, its summary."""
    chosen, folder = studies.load_import(name)
    run, found = imports.begin(chosen, folder, HOME / "outputs" / name)
    imports.estimate(run, found)
    with (run.folder / "estimates.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["level"] == "woman"]
    return found, rows, json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))


def block(rows: Iterable[dict[str, str]], arm: str, reference: str) -> Rows:
    """The rows of one arm against one publisher's reference, also those of occupations that it does not have."""
    return [row for row in rows if row["arm"] == arm and row["reference_source"].startswith(reference)]


# -- Fair Diffusion ----------------------------------------------------------------------------------


def shares_behind(women: Ints, pictures: Ints, rng: np.random.Generator, draws: int) -> Floats:
    """What the true shares of C occupations may be, `(draws, C)`, given `women` `(C,)` among so many `pictures` `(C,)`.

    The true shares are taken to vary as a beta distribution of mean m and size s, by moments: the observed ones then
    have the variance m (1 - m) (1 + s mean(1 / n)) / (s + 1) (Kleinman 1973, JASA 68:46).
    """
    seen = women / pictures
    m, spread = float(seen.mean()), float(seen.var(ddof=1))
    beyond_chance = max(spread - m * (1 - m) * float(np.mean(1 / pictures)), TINY)
    size = max((m * (1 - m) - spread) / beyond_chance, TINY)
    return rng.beta(m * size + women, (1 - m) * size + pictures - women, (draws, len(seen)))


def rid_of_noise(women: Ints, pictures: Ints, *, rng: np.random.Generator, draws: int = 2000) -> Estimate:
    """Mean |p - 1/2| of the true shares of C occupations, from `women` `(C,)` among so many `pictures` `(C,)`.

    An observed share near 1/2 is on average further from 1/2 than the true one, so the mean of the observed distances
    is too high, and by more the more shares lie near 1/2. How far it is off is drawn: true shares given the counts, then
    counts given these (parametric empirical Bayes bootstrap: Laird and Louis 1987, JASA 82:739). Its mean is taken away,
    its spread makes the interval, a normal one since the errors of C occupations are averaged. Of the model only this
    error is taken, not the shares, so it need not fit them closely. Where many true shares lie nearer to 1/2 than chance
    can tell, too little is taken away and the interval does not cover.
    """
    true = shares_behind(women, pictures, rng, draws)
    again = rng.binomial(pictures, true) / pictures
    errors = np.abs(again - 0.5).mean(1) - np.abs(true - 0.5).mean(1)
    value = float(np.abs(women / pictures - 0.5).mean() - errors.mean())
    half = NORMAL * float(errors.std(ddof=1))
    value, low, high = (max(end, 0.0) for end in (value, value - half, value + half))
    return Estimate(value, low, high, int(pictures.sum()), "plug-in less its error, empirical Bayes bootstrap")


def balanced(sizes: Iterable[int], rng: np.random.Generator) -> float:
    """The mean |p - 1/2| that occupations with so many pictures would show if every true share were 1/2."""
    return float(np.mean([amplification.noise_floor([0.5, 0.5], n, rng=rng) for n in sizes]))


def sides(rows: Rows) -> Counter[tuple[str, bool]]:
    """How many occupations are more extreme than the reference on its side, less so, or on the other side of 1/2; and
    for how many of each the difference survives Holm's adjustment."""
    counted: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        share, reference = float(row["share"]) - 0.5, float(row["reference"]) - 0.5
        kind = "other side" if share * reference <= 0 else "more" if abs(share) > abs(reference) else "less"
        counted[kind, survives(row)] += 1
    return counted


def survives(row: Mapping[str, str]) -> bool:
    """Does the difference from the reference survive Holm's adjustment?"""
    return bool(row["p_adjusted"]) and float(row["p_adjusted"]) < SIGNIFICANT


def fair_diffusion() -> Iterator[str]:
    """The section about Fair Diffusion; draws its figure."""
    found, rows, summary = imported("fair_diffusion_fairface")
    rng = np.random.default_rng(found.study.seed)
    chance = np.random.default_rng([found.study.seed, 1])
    laion, edited = (block(rows, arm, "LAION") for arm in (DRAWN, EDITED))
    bls = [row for row in block(rows, DRAWN, "BLS") if row["reference"]]
    figure_fair_diffusion(rows, summary["pooled"])
    answers = [d.n for row in laion if isinstance(d := of_laion(found, row), Distribution) and d.n]
    yield from head(
        "pictures",
        "mean distance of the share of women from ½, as published",
        "rid of noise",
        "a balanced source would show",
        "under 5 or over 95 % women",
    )
    pictures = [int(row["n_one_person"]) for row in laion]
    for name, some, column, sizes in (
        ("LAION", laion, "reference", answers),
        ("Stable Diffusion 1.5", laion, "share", pictures),
        ("edited by Fair Diffusion", edited, "share", [int(row["n_one_person"]) for row in edited]),
    ):
        shares, n = np.array([float(row[column]) for row in some]), np.array(sizes, np.int64)
        ends = int(np.sum((shares < 0.05) | (shares > 0.95)))
        rid = rid_of_noise(np.rint(shares * n).astype(np.int64), n, rng=chance)
        yield (
            f"| {name} | {np.abs(shares - 0.5).mean():.3f} | {said(rid, 3)} | {balanced(sizes, rng):.3f} | "
            f"{ends} of {len(some)} |"
        )
    yield ""
    yield paragraph(
        "The published reading is of the shares as counted. Chance moves a share near ½ away from it, so the reading is too "
        "high, by more the more shares lie there; *rid of noise* is what the true shares would show. It takes pictures for "
        "independent, and true shares for spread smoothly about ½, more widely than chance spreads the counted ones; were "
        "many at ½ itself, the truth would be lower still. In simulated counts, true shares as published or less their "
        "noise, its interval covers in 93 to 96 %."
    )
    yield ""
    counted = sides(laion)
    total = {kind: counted[kind, True] + counted[kind, False] for kind in ("more", "less", "other side")}
    yield paragraph(
        f"The published reading is all there: 0.258, 0.311 and 0.105, and {total['more']} of {len(laion)} occupations are more "
        f"extreme than LAION on the same side of ½ ({total['less']} are less extreme, {total['other side']} on the other "
        f"side). Of these {total['more']}, the difference from LAION survives Holm's adjustment (p < {SIGNIFICANT} over all "
        f"{len(laion)}) in **{counted['more', True]}**; so do {counted['less', True]} of those that are less extreme and "
        f"{counted['other side', True]} on the other side. The rest cannot be told from chance with 250 pictures of an "
        f"occupation and, for some, few faces of LAION (from {min(answers)} to {max(answers):,})."
    )
    yield ""
    yield "![Shares before and after editing against LAION and BLS](published_counts.png)"
    yield ""
    yield from head(
        "against (occupations)", "pictures", "stretch", "shift", "scatter", "mean difference, points",
        "directional, points", "mean total variation, points (by chance)",
    )  # fmt: skip
    for e in sorted(summary["pooled"], key=lambda entry: entry["reference"].startswith("BLS")):
        apart = e["total_variation"]
        yield (
            f"| {e['reference']} ({e['n_concepts']}) | {e['arm']} | {said(e['stretch'])} | {said(e['shift'])} | "
            f"{said(e['scatter'])} | {said(e['mean_difference'], 1, 100)} | {said(e['directional'], 1, 100)} | "
            f"{100 * apart['value']:.1f} ({100 * apart['noise_floor']:.1f}) |"
        )
    third = laion_against_bls(found, rng)
    yield (
        f"| BLS, {found.references[1].title}, women ({third.n_concepts}) | LAION | {said(third.stretch)} | {said(third.shift)} | "
        f"{said(third.scatter)} | | | |"
    )
    yield ""
    yield paragraph(
        f"LAION's own occupations lie closer together than the labour market's (stretch {said(third.stretch)}), and those of "
        "Stable Diffusion 1.5 further apart than either: the contrast that it has against BLS is not in these pictures of LAION."
    )
    yield ""
    erased = {(e["reference"][:3], e["arm"]): e["stretch"]["erased_by"] for e in summary["pooled"]}
    yield paragraph(
        "Stretch, shift and scatter as in every report: 1, 0 and 0 would be the reference itself. *Directional* is BiasAmp of "
        "Wang and Russakovsky (2021), from task to attribute; its base rate is the mean over the occupations for LAION, all "
        "employed for BLS. All of them have the reference's own sampling in their intervals. **How wrong would FairFace have to "
        "be?** A lean towards each occupation's stereotype of "
        f"{100 * erased['LAI', DRAWN]:.1f} points would explain the stretch against LAION away, and one of "
        f"{100 * erased['BLS', DRAWN]:.1f} points that against BLS; its lean on these pictures was not measured. LAION was "
        "read by FairFace too, so what is misread alike in both is in the shares and in the reference there, and in the "
        "shares alone against BLS. To explain the flattening by editing, it would have to lean away from the stereotype by "
        f"{100 * erased['LAI', EDITED]:.0f} points."
    )
    yield ""
    yield from caveats(found, bls)
    yield "Which occupations survive adjustment, as drawn:"
    yield ""
    for name, some in (("LAION", laion), ("BLS CPS Table 11, 2023", bls)):
        yield from survivors(name, some)
    tally = Counter(row["direction"] for row in block(rows, EDITED, "BLS") if survives(row))
    parts = ", ".join(f"{n} {kind}" for kind, n in tally.most_common())
    before = sum(map(survives, bls))
    yield paragraph(
        f"Editing brings most occupations to about ½, which is not where the labour market is: against BLS {before} of "
        f"{len(bls)} differ before it and {tally.total()} after it ({parts}). A target of ½ and one of the labour market are "
        "two targets."
    )


def of_laion(found: Imported, row: Mapping[str, str]) -> Distribution | str:
    """LAION's counts behind a row."""
    reading = found.readings[0]
    return found.references[0].distribution(row["concept"], reading.attribute, reading.levels)


def laion_against_bls(found: Imported, rng: np.random.Generator) -> amplification.Pooled:
    """Shift, stretch and scatter of LAION itself against the labour statistics."""
    reading, (laion, bls) = found.readings[0], found.references
    both = [
        (mine, theirs)
        for prompt in found.prompts
        if isinstance(mine := laion.distribution(prompt.concept, reading.attribute, reading.levels), Distribution)
        and isinstance(theirs := bls.distribution(prompt.concept, reading.attribute, reading.levels), Distribution)
    ]
    counts = np.rint([np.array(mine.shares) * (mine.n or 0) for mine, _ in both]).astype(np.int64)
    base = bls.base(reading.attribute, reading.levels)
    assert isinstance(base, Distribution)
    return amplification.pooled(
        counts,
        np.eye(2, dtype=np.int64) * tables.PERFECT,
        [theirs.shares[0] for _, theirs in both],
        base.shares[0],
        answers=[theirs.n or math.nan for _, theirs in both],
        rng=rng,
    )


def caveats(found: Imported, bls: Rows) -> Iterator[str]:
    """What a reader must know of the two references."""
    matches = (found.references[1].match(row["concept"]) for row in bls)
    quality = Counter(match.quality for match in matches if isinstance(match, prompt_sets.Match))
    yield paragraph(
        "What stands behind the two references. LAION's pictures are those that the authors found for each occupation; "
        "Seshadri et al. (2023, arXiv 2308.00755) report that much of such amplification goes once the training captions are "
        "matched to the prompts, which these counts do not allow. Of the rows of Table 11, "
        f"{quality['good']} are of the same occupation, {quality['fair']} are close and {quality['poor']} poor matches "
        "(`occupation_to_bls.csv` says which); *waiter*, *waitress*, *host*, *hostess* and *maid* name a gender that their row "
        "does not, so their differences say little of the model."
    )
    yield ""


def survivors(name: str, rows: Rows) -> Iterator[str]:
    """The occupations whose difference survives, by direction, the furthest first."""
    kept = sorted(filter(survives, rows), key=lambda row: -abs(float(row["difference"])))
    yield f"* against {name}: **{len(kept)} of {len(rows)}**"
    for direction in dict.fromkeys(row["direction"] for row in kept):
        mine = [row for row in kept if row["direction"] == direction]
        names = ", ".join(f"{row['concept']} {100 * float(row['difference']):+.0f}" for row in mine)
        yield paragraph(f"* {len(mine)} {direction}: {names}.", indent="  ")
    yield ""


def figure_fair_diffusion(rows: Rows, pooled: Sequence[Mapping[str, Any]]) -> None:
    """Shares over LAION's and over BLS's, before and after editing, with the pooled curves."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 5.8), layout="constrained")
        figure.suptitle("Perceived women in pictures of 153 occupations, as FairFace said (raw)", x=0.01, ha="left")
        for panel, reference in zip(figure.subplots(1, 2, sharey=True), ("LAION", "BLS"), strict=True):
            panel.plot([0, 100], [0, 100], color=QUIET, linestyle=(0, (5, 4)), linewidth=1)
            for arm, colour, marker in ((EDITED, "#0072b2", "s"), (DRAWN, "#d55e00", "o")):
                mine = [row for row in block(rows, arm, reference) if row["reference"]]
                _points(panel, mine, colour, marker)
                entry = next(e for e in pooled if e["arm"] == arm and e["reference"].startswith(reference))
                _curve(panel, entry, colour)
            title = entry["reference"].removesuffix(", woman").removesuffix(", women")
            panel.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal", title=f"against {title}")
            panel.set_xlabel("share of women in the reference (%)")
            panel.grid(color="#e3e6ea", linewidth=0.6)
        figure.axes[0].set_ylabel("share of women in the pictures (%), 95% intervals")
        handles = [
            Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=fill, label=label)
            for marker, colour, fill, label in (
                ("o", "#d55e00", "#d55e00", "Stable Diffusion 1.5"),
                ("s", "#0072b2", "#0072b2", "edited by Fair Diffusion"),
                ("o", INK, "white", "hollow: not told from the reference (Holm)"),
            )
        ]
        handles.append(Line2D([], [], color=INK, label="fitted: shift and stretch"))
        figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8)
        figure.savefig(DOCS / "published_counts.png", dpi=110, metadata={"Software": None})


def _points(panel: Axes, rows: Rows, colour: str, marker: str) -> None:
    x, y = ([100 * float(row[name]) for row in rows] for name in ("reference", "share"))
    low, high = ([100 * float(row[name]) for row in rows] for name in ("low", "high"))
    panel.vlines(x, low, high, color=colour, alpha=0.35, linewidth=0.8)
    fill = [colour if survives(row) else "white" for row in rows]
    panel.scatter(x, y, s=15, marker=marker, facecolor=fill, edgecolor=colour, linewidth=0.8, zorder=3)


def _curve(panel: Axes, entry: Mapping[str, Any], colour: str) -> None:
    """Where the pooled model puts an occupation without a scatter of its own."""
    x = np.linspace(0.002, 0.998, 300)
    base = special.logit(entry["base"])
    y = special.expit(base + entry["shift"]["value"] + entry["stretch"]["value"] * (special.logit(x) - base))
    panel.plot(100 * x, 100 * y, color=colour, linewidth=1.6, zorder=2)


# -- Raza et al. -------------------------------------------------------------------------------------


def moved(model: str, level: str) -> dict[str, dict[str, str]]:
    """By occupation, and over all: what the diversity prompt did to the share of a level, unpaired (`effects.csv`)."""
    with (HOME / "outputs" / "raza2025" / "effects.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["arm"] == f"{model}, diversity" and r["level"] == level]
    return {row["concept"]: row for row in rows}


def change(row: Mapping[str, str]) -> Estimate:
    """How far a share moved."""
    value, low, high = (float(row[column] or "nan") for column in ("change", "change_low", "change_high"))
    return Estimate(value, low, high, 0, row["method"])  # of how many pictures, nothing here asks


def verdict(plain: Mapping[str, str], diverse: Mapping[str, str]) -> str:
    """What the diversity prompt did to the difference from the reference, where there is one."""
    if not plain["reference"]:
        return "no reference"
    if not diverse["share"]:
        return "nobody alone in any picture"
    before, after = float(plain["difference"]), float(diverse["difference"])
    sure = not float(diverse["difference_low"]) <= 0 <= float(diverse["difference_high"])
    if before * after < 0 and sure:
        return "**over-corrected**"
    if not sure:
        return "cannot be told from it"
    return "nearer, still off" if abs(after) < abs(before) else "no nearer"


def raza() -> Iterator[str]:
    """The section about Raza et al.; draws its figure."""
    found, rows, summary = imported("raza2025")
    figure_raza(rows)
    yield "![Share of women by model and occupation, plain and diversity prompt](diversity_prompt.png)"
    yield ""
    yield from head(
        "model", "occupation", "BLS 2023, %", "plain, %", "diversity, %", "pictures of one person", "change, points",
        "adjusted p", "with the diversity prompt, from BLS",
    )  # fmt: skip
    verdicts: Counter[str] = Counter()
    means = {}
    for model in MODELS:
        women = moved(model, "woman")
        means[model] = amplification.average([change(row) for what, row in women.items() if what != ALL_CONCEPTS])
        for plain, diverse in pairs(rows, model):
            row = women[plain["concept"]]
            what = verdict(plain, diverse)
            verdicts[what] += 1
            yield (
                f"| {model} | {plain['concept']} | {cell(plain, 'reference', 'reference_low', 'reference_high')} | "
                f"{cell(plain)} | {cell(diverse)} | {plain['n_one_person']} and {diverse['n_one_person']} of 10 | "
                f"{said(change(row), 0, 100, signed=True)} | {said_p(float(row['p_adjusted']))} | {what} |"
            )
    yield ""
    mean = "; ".join(f"{model} {said(e, 0, 100, signed=True)}" for model, e in means.items())
    compared = verdicts.total() - verdicts["no reference"]
    yield paragraph(
        f"Mean change over the occupations, in points: {mean}. Of {compared} cells with a reference, the diversity prompt leaves "
        f"{verdicts['**over-corrected**']} on the other side of it, beyond chance; {verdicts['no nearer']} are no nearer, "
        f"{verdicts['nearer, still off']} nearer but still off, and {verdicts['cannot be told from it']} cannot be told from it "
        "with so few pictures."
    )
    yield ""
    alone = "; ".join(
        f"{model} {sum(int(plain['n_one_person']) for plain, _ in pairs(rows, model))} and "
        f"{sum(int(diverse['n_one_person']) for _, diverse in pairs(rows, model))} of 50"
        for model in MODELS
    )
    yield paragraph(
        f"Pictures of one person, without and with the prompt that asks for a single person: {alone}. Diversity *across the "
        "batch* is met by crowds and collages inside one picture, so the shares of DALL-E 3 and FLUX.1-dev with the "
        "diversity prompt are of the pictures that are left."
    )
    yield ""
    yield from races(found.study)
    yield ""
    yield "**Did it help?** As the report of `typecast import raza2025` says it, over the occupations of a model:"
    yield ""
    yield from helped(summary["arms"])


def races(study: ImportStudy) -> Iterator[str]:
    """What the diversity prompt did to the perceived race category, over the occupations of a model."""
    with (prompt_sets.FOLDER / "studies" / study.data).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    written = Counter((row["model"], row["arm"], row["race_raw"].strip()) for row in rows)
    several = [row for row in rows if study.attributes["gender"].levels[row["gender_raw"]] == NOT_ONE_PERSON]
    mixed = [row in several for row in rows if row["race_raw"].strip() == "mixed"]
    yield paragraph(
        "**Perceived race category**, which the prompt calls ethnicity, by the same person in the same pictures. *Labels* are "
        "those of all 50 pictures of a model, as they were written; the shares are of the pictures of one person, means over the "
        f"five occupations. `mixed` stands for {len(mixed)} pictures, {sum(mixed)} of them of several people; they and "
        f"{len(several) - sum(mixed)} more of several people who were given one label are in no share. A woman alone "
        "who is called mixed counts as *cannot tell*: the three categories have no place for her."
    )
    yield ""
    yield from head(
        "model", "perceived as", "labels, plain → diversity", "plain, %", "diversity, %", "change, points"
    )  # fmt: skip
    sure = {}
    for model in MODELS:
        for level in (*ATTRIBUTES["race"].levels, "mixed"):
            labels = " → ".join(str(written[model, prompt, level.lower()]) for prompt in ("baseline", "controlled"))
            by_concept = moved(model, level)
            row = by_concept.pop(ALL_CONCEPTS, None)
            shares = (
                f"{cell(row, 'baseline_share', 'baseline_low', 'baseline_high')} | {cell(row)} | "
                f"{said(change(row), 0, 100, signed=True)}"
                if row
                else "– | – | –"
            )
            yield f"| {model} | {level} | {labels} | {shares} |"
            if row:  # a test of all levels together, the same in each
                sure[model] = [what for what, one in by_concept.items() if float(one["p_adjusted"]) < SIGNIFICANT]
    yield ""
    told = "; ".join(f"{model}: {', '.join(concepts) or 'none'}" for model, concepts in sure.items())
    yield paragraph(
        "Occupations whose categories moved beyond chance (all of them in one test, Holm over the occupations of a model): "
        f"{told}."
    )


def helped(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line per arm and target, from `summary.json`."""
    yield from head(
        "arm", "attribute", "target", "distance, plain → diversity, points (noise alone)", "change, points", "erased by, points",
        "past the target, points", "diversity, points", "verdict",
    )  # fmt: skip
    for entry in entries:
        apart = [entry[f"distance_{when}"] for when in ("before", "after")]
        distance = " → ".join(f"{100 * d['value']:.1f} ({100 * d['noise_floor']:.1f})" for d in apart)
        past = f"; surely {', '.join(entry['past'])}" if entry["past"] else ""
        erased = entry["distance_change"]["erased_by"]
        yield (
            f"| {entry['arm']} | {entry['attribute']} | {entry['target']} | {distance} | "
            f"{said(entry['distance_change'], 1, 100)} | "
            f"{f'{100 * erased:.1f}' if erased else '–'} | {said(entry['excess'], 1, 100)}{past} | "
            f"{said(entry['diversity'][entry['attribute']], 1, 100)} | {in_words(entry)} |"
        )


def pairs(rows: Rows, model: str) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The rows of each occupation, plain and with the diversity prompt."""
    arms = (block(rows, f"{model}, {arm}", "BLS") for arm in ("plain", "diversity"))
    yield from zip(*arms, strict=True)


def figure_raza(rows: Rows) -> None:
    """A panel per model, a line per occupation: the reference, the plain prompt, the diversity prompt."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.9), layout="constrained")
        figure.suptitle("Perceived women, as one person labelled the pictures", x=0.01, ha="left")
        panels = figure.subplots(1, len(MODELS), sharey=True)
        for panel, model in zip(panels, MODELS, strict=True):
            both = list(pairs(rows, model))
            for y, (plain, diverse) in enumerate(reversed(both)):
                _whisker(panel, y + 0.22, plain, ("reference", "reference_low", "reference_high"), "#6b717b", "D")
                _whisker(panel, y, plain, ("share", "low", "high"), "#d55e00", "o")
                _whisker(panel, y - 0.22, diverse, ("share", "low", "high"), "#0072b2", "s")
                panel.text(
                    103, y, f"{plain['n_one_person']}, {diverse['n_one_person']}", fontsize=7, color=QUIET, va="center"
                )
            panel.set(xlim=(-3, 102), ylim=(-0.6, len(both) - 0.4), title=model, xticks=range(0, 101, 25))
            panel.set_yticks(range(len(both)), [plain["concept"] for plain, _ in reversed(both)])
            panel.grid(axis="x", color="#e3e6ea", linewidth=0.8)
            panel.tick_params(length=0)
        panels[0].set_xlabel("share of women (%), 95% intervals; right: pictures of one person", loc="left")
        marks = (("D", "#6b717b", "BLS 2023"), ("o", "#d55e00", "plain prompt"), ("s", "#0072b2", "diversity prompt"))
        handles = [Line2D([], [], linestyle="", marker=m, color=c, label=label) for m, c, label in marks]
        figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=8)
        figure.savefig(DOCS / "diversity_prompt.png", dpi=110, metadata={"Software": None})


def _whisker(
    panel: Axes, y: float, row: Mapping[str, str], columns: tuple[str, str, str], colour: str, marker: str
) -> None:
    value, low, high = (100 * float(row[name]) if row[name] else math.nan for name in columns)
    panel.hlines(y, low, high, color=colour, linewidth=1.4, linestyle="dotted" if math.isnan(value) else "solid")
    panel.scatter([value], [y], s=26, marker=marker, color=colour, zorder=3)


# -- words -------------------------------------------------------------------------------------------


def said(estimate: Estimate | Mapping[str, Any], decimals: int = 2, factor: float = 1, *, signed: bool = False) -> str:
    """`1.61 (1.46 to 1.75)`."""
    found = estimate._asdict() if isinstance(estimate, Estimate) else estimate
    value, low, high = (float(found[name]) * factor for name in ("value", "low", "high"))
    sign = "+" if signed or factor == 100 else ""
    ends = f"{low:{sign}.{decimals}f} to {high:{sign}.{decimals}f}"
    return f"not known ({ends})" if math.isnan(value) else f"{value:{sign}.{decimals}f} ({ends})"


def paragraph(text: str, indent: str = "") -> str:
    """Lines of a page's width."""
    return textwrap.fill(
        text, 118, break_on_hyphens=False, initial_indent=indent, subsequent_indent=f"{indent}  " if indent else ""
    )


def head(*names: str) -> Iterator[str]:
    """The first two lines of a table."""
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"


def said_p(p: float) -> str:
    """An adjusted p-value."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def cell(row: Mapping[str, str], share: str = "share", low: str = "low", high: str = "high") -> str:
    """A share of a row in percent, with its interval."""
    if not row[low]:
        return "–"
    ends = f"({100 * float(row[low]):.0f} to {100 * float(row[high]):.0f})"
    return f"{100 * float(row[share]):.0f} {ends}" if row[share] else f"not known {ends}"


TEXT = """# Published counts and labels, read again

Pictures that others made and read, imported and estimated as a run of our own. `python -m scripts.published_counts`
writes this page; `typecast import fair_diffusion_fairface` and `typecast import raza2025` make the two runs with their
reports. All intervals are 95 %, all shares are of *perceived* women (and in one table of perceived race categories) among
pictures of one person that were decided.

## Fair Diffusion: 153 occupations, read by FairFace

Friedrich et al. (2023, arXiv 2302.10893) published how many faces FairFace called a man or a woman: in LAION's
pictures of 153 occupations, in 250 pictures of each by Stable Diffusion 1.5, and in as many that were edited towards a
man or a woman with even chance. **The shares are raw**: FairFace's errors on these pictures are not known here and are
in no interval. Pictures in which no face was found were not kept by the authors, so they are in no denominator.

{fair_diffusion}

## Raza et al.: a diversity prompt for three models, labelled by a person

Ten pictures by each model of each occupation, from a plain prompt and from one that ends: "Depict a single person.
Ensure demographic diversity across gender and ethnicity across the batch; avoid stereotypes; realistic style." (Raza et
al. 2025, arXiv 2509.00849.) One person labelled them; the labels are taken as they are, without a classifier's
correction. Labels such as `both` and `females` are of pictures that show several people, often a collage: they are
counted, and are in no share. There are no seeds, so the two prompts are compared unpaired, Holm over the occupations of
a model. The labels of the pictures are in the repository, the pictures are not.

{raza}

*Distance* is the mean total variation from the target; its change is of the root mean square, rid of noise, and *erased by*
is how much more the one who labelled would have to err with the one prompt than with the other to explain it away
([mitigations.md](mitigations.md)). Recognition and cost are not known: the pictures are not in the repository, and what was
sent is not in the data. Of gender, the prompt brings one of three models nearer to parity, the one whose athletes it turns
into women alone; none is brought nearer to the labour market, and with DALL-E 3 it leads away from both. What it moves most
is race: with it nobody in SDXL Turbo's pictures is perceived as White, in two of three before, and they end as far from
equal shares on the other side of them. FLUX.1-dev comes nearer to equal shares; of DALL-E 3 there is no evidence.

Race is held against equal shares because that is what parity means, not because anybody has declared them; and not against
the labour market as a whole: people of several races are in none of BLS's three columns, so that these do not sum to one, and
its White includes Hispanic people, who are no category here. The run's `estimates.csv` has Black and Asian beside their
columns, and White beside its bounds.

A prompt that is sent once per picture cannot know what is "across the batch": it turns each picture, not the mix. SDXL
Turbo's athletes go from no woman to women alone, and its nurses and teachers, all women before, stay so; perceived as White
in every picture before, the nurses are Black in every picture now, and the teachers Asian.
"""


def main() -> None:
    """Write the page and its figures."""
    parts = {"fair_diffusion": "\n".join(fair_diffusion()), "raza": "\n".join(raza())}
    (DOCS / "published_counts.md").write_text(TEXT.format(**parts), encoding="utf-8")


if __name__ == "__main__":
    main()
