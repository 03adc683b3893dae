"""Run folders -> how far each share moved from the first run to the others: `compare.csv` and `compare.json`."""

from __future__ import annotations

import csv
import io
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.box import SIMPLE
from rich.table import Table

from classifiers.attributes import INTERSECTIONS
from pipeline import changes, checks, labels, stages, store, tables
from pipeline.changes import Counts, Side
from pipeline.errors import InputError, RunError
from pipeline.plan import Plan, plan
from pipeline.progress import side_by_side
from pipeline.store import Run
from pipeline.study import Study, made_elsewhere, of_a_folder
from pipeline.tables import KEY, Key, Reading, Tally
from pipeline.types import digest

COLUMNS = (*changes.COLUMNS[:8], "run", *changes.COLUMNS[8:])
"""Of `compare.csv`. Shares and changes (run − baseline) in 0..1 and -1..1."""

Changed = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""The rows of one attribute in one pair of runs, and its change over all neutral prompts."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a comparison."""

    name: str
    run: Run
    study: Study
    planned: Plan
    weights: str
    """Digest of the weights that drew it; empty where its files do not say."""
    readings: dict[str, Reading]
    counts: Tally
    summary: dict[str, Any]


def compare(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of `compare.csv` and the content of `compare.json`. The first run is the baseline."""
    members = _members(folders)
    with tables.doubts([*members[0].readings.values()], stages.say):
        return _compared(members)


def _compared(members: Sequence[Member]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    first, *others = members
    steps: list[tuple[str, Future[Changed]]] = []
    with side_by_side("comparing", "steps") as submit:
        for other in others:
            why = why_unpaired(first, other)
            pairs = {} if why else pair_counts(first, other)
            if not why and not pairs:
                why = "no prompt, sample and seed is in both"
            for attribute in (name for name in first.readings if name in other.readings):
                own = {key: both for (key, name), both in pairs.items() if name == attribute}
                steps.append((why, submit(_attribute, first, other, attribute, own)))
    rows = [row for _, step in steps for row in step.result()[0]]
    means = [{**entry, "why_unpaired": why} for why, step in steps for entry in step.result()[1]]
    return rows, {"baseline": first.name, "runs": [_described(first, m) for m in members], "changes": means}


def write(out: Path, rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, str]]:
    """Both files of a comparison; returns the rows as they are written. A run folder keeps its own figures."""
    if (out / "study.yaml").exists():
        raise InputError(f"--out {out}: is a run folder; name another")
    text = tables.to_csv(rows, COLUMNS)
    store.write_text(out / "compare.csv", text)
    store.write_json(out / "compare.json", found)
    return list(csv.DictReader(io.StringIO(text)))


def shown(rows: Sequence[Mapping[str, str]], found: Mapping[str, Any], most: int = 10) -> Iterator[Table | str]:
    """For the terminal: the runs, the change over all concepts, and the concepts that moved most."""
    runs = Table(title="runs", title_justify="left", box=SIMPLE)
    for heading in ("run", "model", "differs in", "images made"):
        runs.add_column(heading, justify="right" if heading == "images made" else "left")
    for run in found["runs"]:
        runs.add_row(run["name"], run["model"], "\n".join(run["differs"]) or "-", f"{run['images']['made']:,}")
    yield runs
    several = len(found["runs"]) > 2
    combined = {both.name: both.title for both in INTERSECTIONS}
    whole = _table("mean over the neutral prompts (95% interval)", several, "perceived", "level")
    for heading in ("share, %", "change, points", "pairs", "variance factor"):
        whole.add_column(heading, justify="right")
    for entry in found["changes"]:
        if entry["attribute"] not in combined:
            whole.add_row(
                *[entry["run"]] * several,
                entry["attribute"].replace("_", " "),
                entry["level"] + (f", arm {entry['arm']}" if entry["arm"] != "none" else ""),
                _moved(*(entry[name]["value"] for name in ("baseline_share", "share"))),
                _points(*(entry["change"][name] for name in ("value", "low", "high"))),
                f"{entry['n']:,}" if entry["paired"] else "unpaired",
                f"{entry['variance_factor']:.2f}" if entry["variance_factor"] is not None else "-",
            )
    yield whole
    together = dict.fromkeys(e["attribute"] for e in found["changes"] if e["attribute"] in combined)
    yield from (f"{combined[name]}, together: in compare.csv" for name in together)
    pooled = [(run["name"], entry) for run in found["runs"] for entry in run["pooled"] if "stretch" in entry]
    if pooled:
        against = Table(title="each run against its references (95% interval)", title_justify="left", box=SIMPLE)
        for heading in ("run", "perceived", "against", "stretch", "shift", "scatter"):
            against.add_column(heading, justify="left" if heading in ("run", "perceived", "against") else "right")
        for name, entry in pooled:
            arm = f", arm {entry['arm']}" if entry["arm"] != "none" else ""
            cells = (_log_odds(entry[part]) for part in ("stretch", "shift", "scatter"))
            against.add_row(name, f"{entry['attribute'].replace('_', ' ')}{arm}", entry["reference"], *cells)
        yield against
    reasons = [f"{e['run']}: unpaired, since {e['why_unpaired']}" for e in found["changes"] if e["why_unpaired"]]
    yield from dict.fromkeys(reasons)
    tested = [row for row in rows if row["change"] and row["p_adjusted"]]  # of several templates, all together
    largest = sorted(tested, key=lambda row: (float(row["p_adjusted"]), -abs(float(row["change"]))))
    told: dict[tuple[str, ...], Mapping[str, str]] = {}
    for row in largest:
        told.setdefault((row["run"], row["attribute"], *(row[name] for name in KEY)), row)
    concepts = _table("concepts that moved most (95% interval)", several, "concept", "level")
    for heading in ("share, %", "change, points", "pairs", "p (Holm)"):
        concepts.add_column(heading, justify="right")
    for row in list(told.values())[:most]:
        name = ", ".join([row["concept"], *(row[k] for k in ("identity", "arm") if row[k] not in ("", "none"))])
        share = _moved(*(float(row[column]) for column in ("baseline_share", "share")))
        change = _points(*(float(row[column]) for column in ("change", "change_low", "change_high")))
        pairs = row["pairs"] if int(row["pairs"] or 0) else "unpaired"
        concepts.add_row(
            *[row["run"]] * several, name, row["level"], share, change, pairs, f"{float(row['p_adjusted']):.2g}"
        )
    yield concepts
    if any(int(row["pairs"] or 0) for row in told.values()):
        yield "Here a share is of all images of its run, and the change of those pairs that share a seed."


def _table(title: str, several: bool, *names: str) -> Table:
    """With a column for the run where there are several."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for heading in (*["run"] * several, *names):
        table.add_column(heading)
    return table


def _moved(before: float, after: float) -> str:
    return " → ".join("-" if math.isnan(share) else f"{100 * share:.1f}" for share in (before, after))


def _points(value: float, low: float, high: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _log_odds(estimate: Mapping[str, Any]) -> str:
    """As `summary.json` has it: null where it is not known."""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return "-" if value is None or low is None or high is None else f"{value:.2f} ({low:.2f} to {high:.2f})"


# -- the runs ----------------------------------------------------------------------------------------


def _members(folders: Sequence[Path]) -> list[Member]:
    """The runs, if they can be compared at all."""
    if len(folders) < 2:
        raise InputError("compare: name at least two run folders; the first is the baseline")
    places = [folder.resolve() for folder in folders]
    twice = next((f for f, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if twice:
        raise InputError(f"compare: {twice}: is named twice; a run is not compared with itself")
    short = [place.name for place in places]
    members = [
        _member(folder, place.name if short.count(place.name) == 1 else str(folder))
        for folder, place in zip(folders, places, strict=True)
    ]
    for other in members[1:]:
        _same_instrument(members[0], other)
    return members


def _member(folder: Path, name: str) -> Member:
    path = Run(folder).study_file
    raw = checks.read_yaml(path) if path.is_file() else {}
    if made_elsewhere(raw) or of_a_folder(raw):
        raise RunError(
            f"{folder}: is of pictures made elsewhere (typecast import), which share no noise with another run; name runs "
            f"that typecast run drew. What is known of these pictures is on their own page: typecast report {folder}"
        )
    run, study = stages.load_run(folder)
    perceiver = study.perceive.name
    if not (folder / "estimates.csv").is_file() or not (folder / "summary.json").is_file():
        raise RunError(f"{folder}: has no estimates yet; run: typecast estimate {folder}")
    readings = tables.described_in(run.perceptions(perceiver, "x").with_name("perceiver.json"))
    planned = plan(study, weights="")  # the keys and shards of a run do not depend on its weights
    return Member(
        name=name,
        run=run,
        study=study,
        planned=planned,
        weights=stages.weights_of(run, planned),
        readings={reading.attribute: reading for reading in readings},
        counts=labels.counted(run, planned, perceiver, readings, tables.tally(run, planned, perceiver, readings)),
        summary=stages.read_json(folder / "summary.json"),
    )


def _same_instrument(first: Member, other: Member) -> None:
    """Shares that were read by two instruments differ by the instruments."""
    asked = [m.study.perceive.model_dump(mode="json", exclude={"attributes"}) for m in (first, other)]
    different = [f"{key} is {asked[0][key]!r} there and {asked[1][key]!r} here" for key in asked[0]]
    different = [line for line, key in zip(different, asked[0], strict=True) if asked[0][key] != asked[1][key]]
    common = [name for name in first.readings if name in other.readings]
    different += [
        f"{name} has other levels" for name in common if first.readings[name].levels != other.readings[name].levels
    ]
    if not common:
        different.append("no attribute was read in both")
    if different:
        raise RunError(
            f"{other.run.folder}: was not perceived as {first.run.folder} was: {'; '.join(different)}. "
            "A comparison needs one perceiver"
        )
    if not set(tables.keys(first.planned)) & set(tables.keys(other.planned)):
        raise RunError(f"{other.run.folder}: has no prompt and arm in common with {first.run.folder}")


def why_unpaired(first: Member, other: Member) -> str:
    """Why there are no pairs, or nothing: the noise is shared only within one model, image size and study seed."""
    for member in (first, other):
        if not member.weights:
            return f"{member.name} does not say which weights drew it, so the two models may differ"
    if first.weights != other.weights:
        return "the models have other weights"
    mine, theirs = first.study, other.study
    if (mine.draw.height, mine.draw.width) != (theirs.draw.height, theirs.draw.width):
        return "the images have another size"
    if mine.seed != theirs.seed:
        return f"the seed of the study is {mine.seed} and {theirs.seed}"
    return ""


def _described(first: Member, member: Member) -> dict[str, Any]:
    """A run beside the others, with what its own summary says of all concepts together."""
    mine, theirs = _settings(first.study), _settings(member.study)
    return {
        "name": member.name,
        "folder": str(member.run.folder),
        "model": member.study.model.path,
        "guidance_scale": member.study.draw.guidance_scale,
        "images": member.summary["images"],
        "differs": [f"{key} = {value}" for key, value in theirs.items() if mine[key] != value]
        + _arms_apart(first.planned, member.planned),
        "pooled": member.summary["pooled"],
    }


def _settings(study: Study) -> dict[str, Any]:
    """What two runs may differ in, by its dotted key."""
    parts = {"model": study.model, "draw": study.draw}
    told = {f"{part}.{key}": value for part, of in parts.items() for key, value in of.model_dump(mode="json").items()}
    against = ", ".join(f"{r.table} {r.year}" if r.year else r.table for r in study.reference)
    return told | {"seed": study.seed, "reference": against or None}


def _arms_apart(first: Plan, other: Plan) -> list[str]:
    """What the arms of one name do otherwise in the second plan: a list or a mapping, such as a file's, is cut short."""
    kinds = [{arm.name: {"kind": type(arm).__name__} | arm.parameters for arm in p.arms} for p in (first, other)]
    return [
        f"arms.{name}.{key} = {reprlib.repr(value) if isinstance(value, dict | list) else value}"
        for name, mine in kinds[0].items()
        for key in dict.fromkeys([*mine, *kinds[1].get(name, {})])
        if name in kinds[1] and mine.get(key) != (value := kinds[1][name].get(key))
    ]


# -- pairs -------------------------------------------------------------------------------------------


def pair_counts(first: Member, other: Member) -> dict[tuple[Key, str], tuple[Counts, int]]:
    """By key and attribute: pairs `(K + 1, K + 1)` by both decisions, and images that have no partner at all.

    An image has no partner if the other run lacks it: not drawn, blocked or failed. Keys of both runs alone, and only
    those where at least one pair was made.
    """
    attributes = [name for name in first.readings if name in other.readings]
    common = _common(first, other)
    sides = (_decisions(first, attributes), _decisions(other, attributes))
    return changes.pair_counts(*sides, [first.readings[name] for name in attributes], common, first.counts.parts)


def _common(first: Member, other: Member) -> list[Key]:
    """The keys of both; one that takes templates together only where they are the same in both."""
    theirs = set(tables.estimated(other.planned))
    parts = first.counts.parts, other.counts.parts
    return [k for k in tables.estimated(first.planned) if k in theirs and parts[0].get(k) == parts[1].get(k)]


def _decisions(member: Member, attributes: Sequence[str]) -> pa.Table:
    """A light row per image: its place, and what was decided about it."""
    readings, perceiver = [member.readings[name] for name in attributes], member.study.perceive.name
    shards = [shard for shard in member.planned.shards() if member.run.images(shard).exists()]
    nobody = member.counts.nobody
    return pa.concat_tables(
        tables.decided(member.run, perceiver, shard, readings, changes.PLACE, nobody) for shard in shards
    )


# -- changes -----------------------------------------------------------------------------------------


def _attribute(first: Member, other: Member, attribute: str, pairs: changes.Pairs) -> Changed:
    """The rows of one attribute in one pair of runs, and its change over all neutral prompts, per arm and level."""
    rng = np.random.default_rng(int(digest([first.study.seed, other.study.seed, attribute, "compare"])[:16], 16))
    common = _common(first, other)
    (mine, errors), (theirs, others) = _sides(first, other, attribute, common, rng)
    at, rows, means = {"baseline": first.name, "run": other.name}, [], []
    for arm in dict.fromkeys(key[4] for key in common):
        keys = [key for key in common if key[4] == arm]
        own = {key: pairs[key] for key in keys if key in pairs}
        sides = replace(mine, reading=errors[arm]), replace(theirs, reading=others[arm])
        readings = errors[arm], others[arm]
        corrected = all(reading.confusion is not None for reading in readings)
        told = f"; {changes.said_of_errors(*readings, 'runs')}" if corrected else ""
        rows += [{**at, **row, "method": f"{row['method']}{told}"} for row in changes.rows(*sides, keys, own, rng)]
        pooled = changes.pooled(*sides, tables.concepts(keys), own, rng)
        means += [{"run": other.name, "arm": arm, **entry} for entry in pooled]
    return rows, means


Known = tuple[Side, dict[str, Reading]]
"""One run's side, and the errors in each of its arms."""


def _sides(
    first: Member, other: Member, attribute: str, common: Sequence[Key], rng: np.random.Generator
) -> tuple[Known, Known]:
    """Both runs' shares of an attribute, corrected alike: where their records are one by the labels of both, else each by its
    own, as in the run's own `estimates.csv`; and raw on both sides where a share of either cannot be corrected."""
    members, records = (first, other), [member.readings[attribute] for member in (first, other)]
    own: list[dict[str, Reading] | None] = [None, None]
    if np.array_equal(np.asarray(records[0].confusion), np.asarray(records[1].confusion)):
        every = Tally(labelled=first.counts.labelled + other.counts.labelled)
        keyed = list(dict.fromkeys(key for member in members for key in tables.keys(member.planned)))
        errors = [tables.errors_in(records[0], every, keyed)] * 2
        beside = [tables.informed(records[0], m.counts, tables.keys(m.planned)) for m in (other, first)]
        own = [tables.by_arm(records[0], every, keyed)] * 2
    else:
        pairs = list(zip(records, members, strict=True))
        errors = [tables.errors_in(record, m.counts, tables.keys(m.planned)) for record, m in pairs]
        beside = records
    shares = [tables.corrected(m.planned, m.counts, r, o) for m, r, o in zip(members, beside, own, strict=True)]
    why = [
        next((f.method for key in common if (f := found[key]).method.startswith(r.uncorrected)), "")
        for found, r in zip(shares, records, strict=True)
    ]
    counts = [{key: m.counts.count(key, records[0]) for key in found} for m, found in zip(members, shares, strict=True)]
    if any(why):
        raw = replace(records[0], confusion=None, by_concept={}, uncorrected=next(filter(None, why)))
        shares = [{key: tables.uncorrected(row, raw, rng) for key, row in each.items()} for each in counts]
        errors = [dict.fromkeys(each, raw) for each in errors]
    sides = [Side(reading=r, shares=s, counts=c) for r, s, c in zip(records, shares, counts, strict=True)]
    return (sides[0], errors[0]), (sides[1], errors[1])
