"""How good the embedded models are: `python -m scripts.evaluate_embedded PART`, for each PART in turn:
`draw`, `sheets`, `judge`, `clip`, `read`, `eye`, `cards`.

`draw` makes the runs under `outputs/evaluation/`. `sheets` lays 300 drawings out for labelling by eye. `judge` reads all
drawings with a classifier trained on the real pictures, and measures the text-to-image model by it. `clip` measures the
CLIP on held-out pictures and on the labelled drawings, and writes the confusion matrix that the estimates use. `read` is the
audit itself, of the same drawings, by that CLIP, and writes its figure and table into the docs; `eye` says how far it moves
with other pictures for its record. `cards` writes the other figures into the models' cards and the docs. No accuracy is
measured on a picture that a model has seen.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from scipy import stats

from classifiers.correction import corrected_shares_many
from pipeline import amplification, line, store, tables
from pipeline.study import Study
from pipeline.types import Estimate, Pixels
from scripts import emoji_world, train_embedded
from scripts.pages import fill

RUNS = emoji_world.HOME / "outputs" / "evaluation"
RESULTS = RUNS / "results.json"
LABELS = emoji_world.WORLD / "labels_by_eye.csv"
"""What a person saw in 300 drawings: run, unit id, gender. Made before the judge was run."""
DOCS = emoji_world.HOME / "docs" / "embedded.md"
TONES = list(emoji_world.TONES.values())
STUDIES: dict[str, dict[str, Any]] = {
    "guidance-1": {"images_per_prompt": 400, "guidance_scale": 1.0},
    "guidance-3": {"images_per_prompt": 50, "guidance_scale": 3.0},
    "guidance-5": {"images_per_prompt": 25, "guidance_scale": 5.0},
    "guidance-7.5": {"images_per_prompt": 25, "guidance_scale": 7.5},
    "identities": {"images_per_prompt": 5, "guidance_scale": 3.0, "prompt_set": "emoji_identities"},
}
"""20 occupations; the identities are 200 combinations of occupation, gender and tone."""
AUDITED = [name for name in STUDIES if name != "identities"]


def study_of(name: str) -> Study:
    """The study of one evaluation run."""
    asked = STUDIES[name]
    return Study.model_validate(
        {
            "name": name,
            "prompt_sets": [asked.get("prompt_set", "emoji_occupations")],
            "draw": {"guidance_scale": asked["guidance_scale"], "threads": 1},
            "images_per_prompt": asked["images_per_prompt"],
            "reference": [{"table": "taught_shares"}],
        }
    )


def save(part: str, values: Any) -> None:
    """Keep one part of the results."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    store.write_json(RESULTS, found | {part: values})


# -- the CLIP ----------------------------------------------------------------------------------------


def clip() -> None:
    """Zero-shot accuracy on the test split, and the record of errors that the estimates use.

    That of gender is of the drawings that were labelled by eye; whatever else it reads, of the calibration split. Every
    picture there shows a combination that the model which draws was not taught, and it is misread more often than what the
    model draws when it is asked for an occupation: by its errors women are taken out of an audit who are there.
    """
    from classifiers.attributes import ATTRIBUTES
    from classifiers.clip import ClipModel
    from classifiers.evaluation import measure_confusion, save_confusion
    from classifiers.zero_shot import ZeroShot

    attributes = [ATTRIBUTES[name] for name in ("gender", "skin_tone", "age")]
    threshold = study_of("guidance-3").perceive.threshold or 0.0
    sees = ZeroShot(ClipModel("embedded"), attributes, threshold=threshold, name="embedded-zero_shot")
    pixels = emoji_world.pixels()
    parts = {}
    for split in ("calibration", "test"):
        pictures = [p for p in emoji_world.pictures() if p.taught and p.split == split]
        truths: dict[str, list[str | None]] = {
            "gender": [*(p.gender for p in pictures)],
            "skin_tone": [*(p.tone for p in pictures)],
            "age": [p.age if p.age in emoji_world.AGES else None for p in pictures],
        }
        images = [pixels[p.tile] for p in pictures]
        concepts = [p.concept for p in pictures]
        where = f"{split} split of the emoji world"
        parts[split] = measure_confusion(sees, images, truths, concepts=concepts, pictures=where)
    labels, drawn = labels_by_eye(), [(row, pixels) for row, pixels in drawings("guidance-1", shards=2)]
    shown = [(pixels, row["concept"], labels[row["unit_id"]]) for row, pixels in drawn if row["unit_id"] in labels]
    images, concepts = [pixels for pixels, *_ in shown], [concept for _, concept, _ in shown]
    eye: dict[str, list[str | None]] = {"gender": [g if g in emoji_world.GENDERS else None for *_, g in shown]}
    where = "drawings of the embedded model by neutral prompts at guidance 1, labelled by eye"
    parts["drawings"] = measure_confusion(sees, images, eye, concepts=concepts, pictures=where)
    save_confusion(parts["calibration"] | parts["drawings"], train_embedded.CLIP / "confusion.json")
    for name, counted in parts["test"].items():
        rows = np.array(counted["rows"])
        right, decided = np.trace(rows), rows[:, :-1].sum()
        print(f"{name}: {right / decided:.3f} of {decided} decided, {rows[:, -1].sum()} of {rows.sum()} cannot tell")
    save("clip", parts)


# -- drawings ----------------------------------------------------------------------------------------


def labels_by_eye() -> dict[str, str]:
    """What a person saw in the labelled drawings, by unit id: a gender or that they cannot tell."""
    with LABELS.open(newline="") as file:
        return {row["unit_id"]: row["gender"] for row in csv.DictReader(file)}


def draw(names: Sequence[str]) -> None:
    """Make every run that is not finished; each goes through the line as a user's would."""
    for name in names:
        line.generate(line.begin(study_of(name), RUNS / name), perceive=False)


def read(names: Sequence[str]) -> None:
    """Audit the runs, as a user would: what does the instrument say, who knows nothing of the judge? Once all are read
    the figure and the table of docs/embedded.md are written."""
    for name in names:
        opened = line.resume(RUNS / name)
        line.perceive(opened)
        print(line.estimate(opened))
    if all((RUNS / name / "summary.json").exists() for name in AUDITED):
        fill(DOCS, glass_box(), mark="audited")


def eye() -> None:
    """What the audit of `guidance-1` says by the record that ships, and by each that it could be."""
    run, study, planned = line.resume(RUNS / "guidance-1")
    reading = next(r for r in line.read_by(run, study) if r.attribute == "gender")
    known = {split: counted["gender"] for split, counted in json.loads(RESULTS.read_text())["clip"].items()}
    counts = tables.tally(run, planned, study.perceive.name, [reading])
    keys = tables.keys(planned)
    reference = [emoji_world.women_shares()[key[1]] for key in keys]
    base = float(np.mean(reference))
    table = np.array([counts.count(key, reading) for key in keys])
    for name, record in known.items():
        rows = np.array(record["rows"])
        by_concept = {concept: np.array(part) for concept, part in record["by_concept"].items()}
        errors = tables.matrices(replace(reading, confusion=rows, by_concept=by_concept), [k[1] for k in keys])
        print(f"{name}: rows {', '.join(reading.levels)}; columns by the CLIP, and cannot tell: {rows.tolist()}")
        rng = np.random.default_rng(0)
        both = np.column_stack([reference, 1 - np.array(reference)])
        mean = amplification.mean_difference(table, errors, both, rng=rng)[0]
        pool = amplification.pooled(table, errors, reference, base, rng=rng)
        found = {"mean difference": _plain(mean), "shift": _plain(pool.shift), "stretch": _plain(pool.stretch)}
        print(name, {what: {end: round(v, 3) for end, v in e.items()} for what, e in found.items()})


def drawings(name: str, shards: int | None = None) -> Iterator[tuple[dict[str, Any], Pixels]]:
    """The rows and pixels of a run, in its order, or of its first shards."""
    run, _, planned = line.resume(RUNS / name)
    for shard in planned.shards()[:shards]:
        for row in run.read_images(shard).to_pylist():
            if row["image"]:
                yield row, store.decode(row["image"]["bytes"])


def sheets(seed: int = 0, per_sheet: int = 60) -> None:
    """300 drawings of `guidance-1`, 15 an occupation, in random order and without their prompts, on five sheets."""
    rng = np.random.default_rng(seed)
    by_concept: dict[str, list[tuple[str, Pixels]]] = {}
    for row, pixels in drawings("guidance-1", shards=2):  # these exist long before the run is finished
        by_concept.setdefault(row["concept"], []).append((row["unit_id"], pixels))
    chosen = [items[i] for items in by_concept.values() for i in rng.choice(len(items), 15, replace=False)]
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]
    store.write_json(RUNS / "sheets.json", [unit for unit, _ in chosen])
    for number in range(0, len(chosen), per_sheet):
        sheet = Image.new("RGB", (10 * 140, math.ceil(per_sheet / 10) * 156), "white")
        pen = ImageDraw.Draw(sheet)
        for i, (_, pixels) in enumerate(chosen[number : number + per_sheet]):
            x, y = i % 10 * 140, i // 10 * 156
            sheet.paste(Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC), (x, y + 14))
            pen.text((x, y), str(number + i), fill="black")
        sheet.save(RUNS / f"sheet-{number // per_sheet}.png")


# -- the judge ---------------------------------------------------------------------------------------


class Judge:
    """Occupation, gender and tone of pictures, by the networks that `train_embedded judge` makes."""

    def __init__(self) -> None:
        if not train_embedded.JUDGE.exists():
            raise SystemExit(
                f"{train_embedded.JUDGE}: no such file; make it with: python -m scripts.train_embedded judge"
            )
        self.network = train_embedded.JudgeNetwork().eval()
        self.network.load_state_dict(load_file(train_embedded.JUDGE))

    def read(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """`(n, 64, 64, 3)` -> `(n, 3)`: the places of occupation, gender and tone in their lists."""
        batches = [train_embedded.to_unit(images[i : i + 128]) for i in range(0, len(images), 128)]
        with torch.inference_mode():
            answers = [self.network(x, np.random.default_rng(0)) for x in batches]
        return np.concatenate([np.stack([part.argmax(1).numpy() for part in answer], axis=1) for answer in answers])


def matrix(truth: npt.NDArray[np.int64], said: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """Confusion counts `(k, k)`: rows true, columns said."""
    return np.array([[int(((truth == i) & (said == j)).sum()) for j in range(k)] for i in range(k)])


def cue_free() -> set[str]:
    """Occupations in which woman and man are drawn alike: some set gives both the same pixels."""
    tiles: dict[tuple[str, str, str], set[str]] = {}
    with (emoji_world.WORLD / "world.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "occupation" and row["gender"] in emoji_world.GENDERS and row["tone"] != "none":
                tiles.setdefault((row["concept"], row["vendor"], row["tone"]), set()).add(row["md5"])
    return {concept for (concept, _, _), digests in tiles.items() if len(digests) == 1}


def judge() -> None:
    """Everything that is asked of the text-to-image model, by the judge."""
    sees = Judge()
    pixels = emoji_world.pixels()
    held_out = [p for p in emoji_world.pictures() if p.taught and p.split != "train"]
    truth = train_embedded.judge_truth(held_out).numpy()
    said = sees.read(pixels[[p.tile for p in held_out]])
    cues = np.array([p.concept not in cue_free() for p in held_out])
    genders = matrix(truth[cues, 1], said[cues, 1], 2)
    found: dict[str, Any] = {
        "held_out": len(held_out),
        "no_gender_cue": sorted(cue_free()),
        "occupation": float((truth[:, 0] == said[:, 0])[truth[:, 0] >= 0].mean()),
        "gender": float(np.trace(genders) / genders.sum()),
        "tone": float((truth[:, 2] == said[:, 2]).mean()),
        "gender_confusion": genders.tolist(),
    }
    save("judge", found)
    print("judge on held-out pictures:", found)
    reads = {name: read_run(sees, name) for name in STUDIES}
    eye = by_eye(reads["guidance-1"], genders)
    save("eye", eye)
    # errors that were measured on other pictures are used only while they carry over to the drawings
    errors = genders if eye["carry_over_p"] >= 0.05 else np.array(eye["confusion"])
    save("prompted", prompted(reads))
    save("shares", {name: shares(reads[name], errors, name) for name in STUDIES if name != "identities"})


def read_run(sees: Judge, name: str) -> dict[str, Any]:
    """What the judge saw in a run: unit ids, concepts, identities and answers."""
    rows, images = zip(*drawings(name), strict=True)
    return {
        "units": [r["unit_id"] for r in rows],
        "concepts": [r["concept"] for r in rows],
        "identities": [r["identity"] for r in rows],
        "said": sees.read(np.stack(images)),
    }


def by_eye(read: dict[str, Any], held_out: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The judge against what a person saw in the same drawings, and whether its errors carry over.

    `held_out` `(2, 2)` is its record on held-out pictures. Fisher's exact test compares its errors there with those on
    the drawings, for each gender; the smaller p-value is doubled (Bonferroni).
    """
    said = dict(zip(read["units"], read["said"][:, 1], strict=True))
    concept = dict(zip(read["units"], read["concepts"], strict=True))
    labels = [*labels_by_eye().items()]
    decided = [(u, g) for u, g in labels if g in emoji_world.GENDERS and concept[u] not in cue_free()]
    truth = np.array([emoji_world.GENDERS.index(g) for _, g in decided])
    counts = matrix(truth, np.array([said[u] for u, _ in decided]), 2)
    p = [
        float(stats.fisher_exact(np.stack([real, drawn])).pvalue) for real, drawn in zip(held_out, counts, strict=True)
    ]
    result = {
        "labelled": len(labels),
        "answers": dict(Counter(g for _, g in labels)),
        "not_told": dict(Counter(concept[u] for u, g in labels if g not in emoji_world.GENDERS).most_common()),
        "compared": int(counts.sum()),
        "confusion": counts.tolist(),
        "agreement": float(np.trace(counts) / counts.sum()),
        "carry_over_p": min(1.0, 2 * min(p)),
    }
    print("judge against the eye:", result)
    return result


def prompted(reads: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Do the drawings show what was asked for? Occupation of neutral prompts, gender and tone of identity prompts."""
    names = list(train_embedded.OCCUPATIONS)
    neutral, asked = reads["guidance-3"], reads["identities"]
    right = np.array([names.index(c) for c in neutral["concepts"]]) == neutral["said"][:, 0]
    terms = [tuple(reversed(identity.rsplit(" ", 1))) for identity in asked["identities"]]
    gender = np.array([emoji_world.GENDERS.index(t[0]) for t in terms]) == asked["said"][:, 1]
    tone = np.array([TONES.index(t[1]) for t in terms]) == asked["said"][:, 2]
    seen = {(p.concept, p.gender, p.tone) for p in emoji_world.pictures() if p.taught and p.split == "train"}
    known = np.array([(c, *t) in seen for c, t in zip(asked["concepts"], terms, strict=True)])
    cue = np.array([c not in cue_free() for c in asked["concepts"]])
    result = {
        "occupation": _share(right),
        "gender": _share(gender[cue]),
        "tone": _share(tone),
        "gender_taught": _share(gender[cue & known]),
        "gender_held_out": _share(gender[cue & ~known]),
        "tone_taught": _share(tone[known]),
        "tone_held_out": _share(tone[~known]),
        "occupation_of_identities": _share(
            np.array([names.index(c) for c in asked["concepts"]]) == asked["said"][:, 0]
        ),
    }
    for key, value in result.items():
        print(f"prompted {key}: {value}")
    return result


def _share(right: npt.NDArray[np.bool_]) -> dict[str, float]:
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {"value": float(right.mean()), "low": interval.low, "high": interval.high, "n": len(right)}


def shares(read: dict[str, Any], confusion: npt.NDArray[np.int64], name: str) -> dict[str, Any]:
    """Women's share per occupation against what was taught, corrected for the judge's errors; and pooled."""
    taught = emoji_world.women_shares()
    rng = np.random.default_rng(0)
    concepts = [c for c in sorted(taught) if c not in cue_free()]
    of = np.array(read["concepts"])
    counts = np.array([np.bincount(read["said"][of == c, 1], minlength=2) for c in concepts])
    reference = np.array([taught[c] for c in concepts])
    values = np.array([s.value[0] for s in corrected_shares_many(counts, confusion, rng=rng)])
    n = int(counts[0].sum())
    noise = float(np.mean([noise_alone(p, n) for p in reference]))
    distance = float(np.abs(values - reference).mean())
    pool = amplification.pooled(counts, confusion, reference, float(reference.mean()), concepts=concepts, rng=rng)
    result = {
        "images_per_occupation": n,
        "occupations": len(concepts),
        "mean_distance_points": 100 * distance,
        "noise_points": 100 * noise,
        "beyond_noise_points": 100 * (distance - noise),
        "per_occupation": {c: [float(t), float(v)] for c, t, v in zip(concepts, reference, values, strict=True)},
        "shift": _plain(pool.shift),
        "stretch": _plain(pool.stretch),
        "scatter": _plain(pool.scatter),
    }
    print(name, {key: value for key, value in result.items() if key != "per_occupation"})
    return result


def noise_alone(p: float, n: int) -> float:
    """E|X/n - p| for X ~ Bin(n, p), exactly."""
    k = np.arange(n + 1)
    return float((stats.binom.pmf(k, n, p) * np.abs(k / n - p)).sum())


def _plain(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


# -- cards -------------------------------------------------------------------------------------------


def contact_sheet(per_row: int = 16) -> None:
    """`docs/contact_sheet.webp`: the first drawings of every occupation at guidance 3, unselected."""
    rows: dict[str, list[Pixels]] = {c: [] for c in emoji_world.women_shares()}
    for row, pixels in drawings("guidance-3"):
        if len(rows[row["concept"]]) < per_row:
            rows[row["concept"]].append(pixels)
    sheet = Image.new("RGB", (130 + 68 * per_row, 68 * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (concept, images) in enumerate(rows.items()):
        pen.text((4, 68 * y + 26), concept, fill="black")
        for x, pixels in enumerate(images):
            sheet.paste(Image.fromarray(pixels), (130 + 68 * x, 68 * y + 2))
    sheet.save(emoji_world.HOME / "docs" / "contact_sheet.webp", quality=85, method=6)


def glass_box() -> list[str]:
    """`docs/glass_box.png`: the audit's corrected shares against what was taught; and its pooled figures, as a table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(AUDITED), figsize=(13, 3.7), sharey=True, layout="constrained")
    lines = [
        "| guidance | images each | mean difference, points | shift | stretch | over that of guidance 1 | scatter | "
        "erased by a lean of, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first: dict[str, float] = {}
    for name, panel in zip(AUDITED, panels, strict=True):
        with (RUNS / name / "estimates.csv").open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if (r["attribute"], r["level"]) == ("gender", "woman")]
        x, y, low, high = (np.array([100 * float(r[c]) for r in rows]) for c in ("reference", "share", "low", "high"))
        held = int(((low <= x) & (x <= high)).sum())
        panel.plot([0, 100], [0, 100], color="0.7", lw=1)
        panel.errorbar(x, y, yerr=[y - low, high - y], fmt="o", ms=4, lw=1, color="#33608c")
        panel.set(title=f"guidance {name.removeprefix('guidance-')}", xlabel="taught share of women, %")
        panel.text(3, 92, f"the interval holds it: {held} of {len(rows)}", fontsize=8)
        summary = json.loads((RUNS / name / "summary.json").read_text())
        pool = next(p for p in summary["pooled"] if p["attribute"] == "gender")
        mean = {end: 100 * pool["mean_difference"][end] for end in ("value", "low", "high")}
        stretch, first = pool["stretch"], first or pool["stretch"]
        over = "–" if stretch is first else interval(times(stretch, first))
        erased = "–" if stretch["low"] <= 1 <= stretch["high"] else f"{100 * stretch['erased_by']:.1f}"
        lines.append(
            f"| {name.removeprefix('guidance-')} | {round(pool['n_images'] / pool['n_concepts'])} | {mean['value']:+.1f} "
            f"({mean['low']:+.1f} to {mean['high']:+.1f}) | {interval(pool['shift'])} | {interval(stretch)} | "
            f"{over} | {interval(pool['scatter'])} | {erased} |"
        )
    panels[0].set_ylabel("share of perceived women, corrected, %")
    figure.savefig(emoji_world.HOME / "docs" / "glass_box.png", dpi=110)
    return lines


def times(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """How many times another a positive estimate is, by MOVER on the log scale as if they were independent: what both owe
    to the same labels makes it surer than this says."""
    a, b = (Estimate(math.log(e["value"]), math.log(e["low"]), math.log(e["high"]), 0, "") for e in (one, other))
    low, high = amplification.mover(a, b)
    return {"value": math.exp(a.value - b.value), "low": math.exp(low), "high": math.exp(high)}


def percent(share: dict[str, float]) -> str:
    """A share with its interval and n."""
    return f"{100 * share['value']:.1f} % ({100 * share['low']:.1f} to {100 * share['high']:.1f}; n = {share['n']:,})"


def interval(estimate: dict[str, float]) -> str:
    """An estimate with its interval."""
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def cards() -> None:
    """The measured parts of both cards, and what the judge says of docs/embedded.md, between their marks; and the contact
    sheet."""
    found = json.loads(RESULTS.read_text())
    if missing := {"judge", "prompted", "eye", "shares", "clip"} - {*found}:
        raise SystemExit(f"{RESULTS}: has no {', '.join(sorted(missing))}: run the parts judge and clip first")
    fill(train_embedded.TEXT_TO_IMAGE / "README.md", measured_text_to_image(found))
    fill(DOCS, measured_text_to_image(found))
    fill(train_embedded.CLIP / "README.md", measured_clip(found))
    contact_sheet()


def measured_text_to_image(found: dict[str, Any]) -> list[str]:
    """The figures of the text-to-image model."""
    judge, asked, eye = found["judge"], found["prompted"], found["eye"]
    lines = [
        "By `python -m scripts.evaluate_embedded judge`. The judge is two ResNet-18s (grey shapes; "
        "colours without shape) trained on the training split of the "
        f"real pictures; on {judge['held_out']} held-out pictures it is right about the occupation in "
        f"{100 * judge['occupation']:.1f} %, gender in {100 * judge['gender']:.1f} %, and the exact tone in "
        f"{100 * judge['tone']:.1f} %. Left out wherever gender is judged, since a set draws both alike: "
        f"{', '.join(judge['no_gender_cue'])}.",
        "",
    ]
    carried = eye["carry_over_p"] >= 0.05
    lines += [
        f"{eye['labelled']} drawings (guidance 1) were labelled by eye before the judge was run: "
        f"{', '.join(f'{n} {answer}' for answer, n in eye['answers'].items())}; the judge agrees on gender in "
        f"{100 * eye['agreement']:.1f} % of {eye['compared']} that could be told (which could not: "
        f"{', '.join(f'{n} {concept}' for concept, n in eye['not_told'].items())}). Its errors on drawings "
        f"{'are compatible with' if carried else 'differ from'} those on held-out pictures (Fisher's exact test, "
        f"p = {eye['carry_over_p']:.2g}), so the correction below uses "
        f"{'those on held-out pictures' if carried else 'those on the labelled drawings'}.",
        "",
    ]
    lines += [
        "| what was asked for | recognised (95 % interval) |",
        "|---|---|",
        f"| occupation, neutral prompts, guidance 3 | {percent(asked['occupation'])} |",
        f"| gender, identity prompts, guidance 3 | {percent(asked['gender'])} |",
        f"| … of them combinations that were taught | {percent(asked['gender_taught'])} |",
        f"| … combinations never seen | {percent(asked['gender_held_out'])} |",
        f"| tone (exact), identity prompts, guidance 3 | {percent(asked['tone'])} |",
        f"| … of them combinations that were taught | {percent(asked['tone_taught'])} |",
        f"| … combinations never seen | {percent(asked['tone_held_out'])} |",
        "",
        "Women's share per occupation against the taught share, corrected for the judge's errors:",
        "",
        "| guidance | images each | mean distance, points | noise alone | beyond it | shift | stretch | scatter |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, part in found["shares"].items():
        lines.append(
            f"| {name.removeprefix('guidance-')} | {part['images_per_occupation']} "
            f"| {part['mean_distance_points']:.1f} | "
            f"{part['noise_points']:.1f} | {part['beyond_noise_points']:.1f} | {interval(part['shift'])} | "
            f"{interval(part['stretch'])} | {interval(part['scatter'])} |"
        )
    return lines


def measured_clip(found: dict[str, Any]) -> list[str]:
    """The figures of the CLIP."""
    lines = [
        "By `python -m scripts.evaluate_embedded clip`, zero-shot with the wordings of `classifiers/attributes.py`, on "
        "pictures of combinations that were held out in all sets, and on drawings of the embedded model that were "
        "labelled by eye:",
        "",
        "| attribute | split | right among the decided | cannot tell |",
        "|---|---|---|---|",
    ]
    for split, counted in found["clip"].items():
        for name, entry in counted.items():
            rows = np.array(entry["rows"])
            right, decided = int(np.trace(rows)), int(rows[:, :-1].sum())
            share = f"{100 * right / decided:.1f} % of {decided}"
            lines.append(f"| perceived {name.replace('_', ' ')} | {split} | {share} | {int(rows[:, -1].sum())} |")
    return lines


def main() -> None:
    """Read the command line and do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["draw", "sheets", "judge", "clip", "read", "eye", "cards"])
    parser.add_argument(
        "runs", nargs="*", help=f"for draw and read: some of {', '.join(STUDIES)}; several at once fill the cores"
    )
    args = parser.parse_args()
    if args.part in ("draw", "read"):
        globals()[args.part](args.runs or list(STUDIES))
    else:
        globals()[args.part]()


if __name__ == "__main__":
    main()
