"""Run folder -> `report.html`: one page that needs nothing else. Its numbers are those of the files, put into words."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import pipeline
import prompt_sets
from classifiers.attributes import PEOPLE
from classifiers.confusion import BY_CONCEPT
from pipeline import figures, imports, robustness, stages, store
from pipeline import study as studies
from pipeline.effects import BASELINE, in_words
from pipeline.errors import RunError
from pipeline.figures import Chart, Row, labels, of_reference, references, said_of_arm, title_of, unique
from pipeline.labels import Sample, asked
from pipeline.labels import folder as labels_folder
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.study import FolderStudy, ImportStudy, Study
from pipeline.tables import COLUMNS, Reading
from pipeline.types import ALL_TEMPLATES, CANNOT_TELL, NOT_ONE_PERSON

CONCEPTS_SHOWN, IMAGES_SHOWN = 20, 8
THUMBNAIL, SHEET_PICTURE = 128, 512
"""Pixels of the longer side at most."""
EXACT = 64
"""Up to this side the pixels on the page are the pixels of the run."""
CHART_BYTES = 2_500_000
"""What the charts may add to the page; those beyond are named, and lie in `figures/`."""
TABLE_ROWS = 2000
"""Of one table on the page; `estimates.csv` has all."""
SIGNIFICANT = 0.05


def write_report(folder: Path) -> Path:
    """Write the figures and the page of a run that has been estimated; returns the page."""
    run = Run(folder)
    if not run.study_file.is_file():
        stages.load_run(folder)  # says how to make one
    study = studies.of_run(run.study_file)
    imported = study if isinstance(study, ImportStudy) else None
    pictures = study if isinstance(study, FolderStudy) else None
    people = "" if isinstance(study, ImportStudy) else study.perceive.people
    rows = figures.by_concept(_read_estimates(folder / "estimates.csv"))
    summary = stages.read_json(folder / "summary.json")
    charts = figures.draw(rows, summary, folder / "figures")
    survey = _survey(run, made_elsewhere=pictures is not None)
    estimated_of = (summary.get("images") or {}).get("total")
    if survey.units and estimated_of is not None and estimated_of != len(survey.units):
        stages.say(
            f"{folder}: holds {len(survey.units):,} images, and the estimates are of {estimated_of:,}; run: "
            f"typecast estimate {folder}"
        )
    page = _template("report.html.jinja").render(
        study=study,
        imported=imported,
        pictures=pictures,
        attributes=unique(rows, "attribute"),
        summary=summary,
        images=summary.get("images") or {},
        findings=[_finding(rows, summary, attribute) for attribute in unique(rows, "attribute")],
        pooled=summary.get("pooled") or [],
        arms_named=unique(rows, "arm") != [BASELINE],
        arms=[_arm(entry) for entry in summary.get("arms") or []],
        charts=_embedded(charts, folder / "figures"),
        gallery=_gallery(run, survey, study.seed),
        people=summary.get("labels"),
        corrections=_corrections(run, survey, summary.get("labels")),
        tables=list(_tables(rows)),
        together=any(row["template"] == ALL_TEMPLATES for row in rows),
        yaml=run.study_file.read_text(encoding="utf-8"),
        environments=survey.environments,
        unreadable=survey.unreadable,
        energy=stages.read_json(folder / "energy.json") if (folder / "energy.json").is_file() else None,
        limits=[*_limits(rows, summary), *_left_out(summary, people)],
        sets=[prompt_sets.load(name) for name in study.prompt_sets],
        references=imports.references(imported)
        if imported
        else [prompt_sets.load_reference(r.table, r.year) for r in study.reference],
        missing=_missing(rows),
        matches=_matches(rows),
        arms_head=ARMS,
        paired=all(entry["paired"] for entry in summary.get("arms") or []),
        arms_unknown=_unknown_of_arms(summary.get("arms") or []),
        cautions=_cautions(study),
        version=pipeline.__version__,
        digest=hashlib.sha256((folder / "estimates.csv").read_bytes()).hexdigest()[:16],
    )
    path = folder / "report.html"
    store.write_text(path, page)
    return path


def write_sheet(run: Run, sample: Sample, readings: Sequence[Reading], people: str) -> Path:
    """The sheet of a sample to fill in: one page with the pictures, which saves the answers as CSV.

    It asks about whom the probe reads: `people` is `perceive.people` of the study.
    """
    wanted = set(sample.units)
    units = [unit for unit in _survey(run, made_elsewhere=False).units if unit.id in wanted]
    found = _pictures(run, units, SHEET_PICTURE)
    page = _template("sheet.html.jinja").render(
        sample=sample,
        readings=asked(readings),
        largest_face=people == "largest_face",
        pictures=[(number, unit, found.get(unit, "")) for number, unit in enumerate(sample.units, 1)],
        cannot_tell=CANNOT_TELL,
        not_one_person=NOT_ONE_PERSON,
    )
    path = labels_folder(run) / "sheet.html"
    store.write_text(path, page)
    return path


def _template(name: str) -> Any:
    """A page, with everything that is put into it escaped."""
    place = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    place.filters |= {"interval": interval, "amount": amount, "arm": said_of_arm, "plain": plain, "erased": erased}
    place.globals |= {"title_of": title_of}
    return place.get_template(name)


def _read_estimates(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise RunError(f"{path}: not there yet; make it with: typecast estimate {path.parent}") from None
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing:
        raise RunError(
            f"{path}: lacks the column {', '.join(missing)}; make it anew with: typecast estimate {path.parent}"
        )
    return rows


# -- numbers in words --------------------------------------------------------------------------------


def _number(value: Any) -> float | None:
    """A cell of a table or a value of JSON, or `None` where it is not known or not finite."""
    number = math.nan if value in (None, "") else float(value)
    return number if math.isfinite(number) else None


def _signed(number: float, decimals: int) -> str:
    text = f"{number:+.{decimals}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{decimals}f}"


def percent(value: Any) -> str:
    """0.1234 as `12.3`; a dash where it is not known."""
    number = _number(value)
    return "–" if number is None else f"{100 * number:.1f}"


def points(value: Any) -> str:
    """0.042 as `+4.2`, with a real minus."""
    number = _number(value)
    return "–" if number is None else _signed(100 * number, 1)


def plain(value: Any, decimals: int = 2) -> str:
    """1.4567 as `1.46`; a dash where it is not known."""
    number = _number(value)
    if number is None:
        return "–"
    return f"{round(number, decimals) + 0.0:.{decimals}f}".replace("-", "−")  # + 0.0: minus zero is zero


def amount(value: Any) -> str:
    """93896.2 as `93,896` and 0.012345 as `0.0123`; a dash where it is not known."""
    number = _number(value)
    return "–" if number is None else f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def interval(estimate: Mapping[str, Any] | None, kind: str = "plain") -> str:
    """`1.46 (1.21 to 1.77)`, of an estimate of the summary; `1.21 to 1.77` where only bounds are known."""
    if not estimate:
        return "–"
    ways: dict[str, Callable[[Any], str]] = {"plain": plain, "points": points, "percent": percent}
    say = ways[kind] if kind != "score" else lambda value: plain(value, 3)
    ends = [_number(estimate.get(end)) for end in ("low", "high")]
    around = f"{say(ends[0])} to {say(ends[1])}"
    if _number(estimate.get("value")) is not None:
        return f"{say(estimate['value'])} ({around})"
    return "not known" if None in ends else around


def erased(estimate: Mapping[str, Any] | None) -> str:
    """The lean of the probe that would explain an estimate away, in points; a dash where there is nothing to explain."""
    lean = _number((estimate or {}).get("erased_by"))
    return percent(lean) if lean else "–"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _p(text: str) -> str:
    number = _number(text)
    if number is None:
        return "–"
    return "< 0.001" if number < 0.001 else f"{number:.3f}"


# -- the finding -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a run says about one attribute, in sentences."""

    title: str
    sentences: tuple[str, ...]
    of_arms: tuple[str, ...]
    """The same of each arm beside the baseline, where there is one: folded away, for the tables say it too."""


def _finding(rows: Sequence[Row], summary: Mapping[str, Any], attribute: str) -> Finding:
    mine = [row for row in rows if row["attribute"] == attribute]
    pools: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in summary.get("pooled") or []:
        if entry["attribute"] == attribute:
            pools.setdefault((entry["reference"], entry["arm"]), []).append(entry)
    several = unique(rows, "arm") != [BASELINE]

    def in_arm(entry: Mapping[str, Any]) -> str:
        return f"{_capital(said_of_arm(entry['arm']))}: " if several else ""

    record = (summary.get("classifier") or {}).get(attribute) or {}
    known, reader = bool(record.get("accuracy")), _reader(attribute, record)

    def told(pools: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        found = [_said(entries, mine, several_arms=several) for entries in pools]
        if not _read_by_person(record):
            found += [in_arm(e[0]) + said for e in pools if (said := _said_of_lean(e[0]))]
        return found + [in_arm(e[0]) + said for e in pools if (said := _said_of_distance(e[0], corrected=known))]

    unchanged = [entries for (_, arm), entries in pools.items() if arm == BASELINE]
    sentences = told(unchanged or list(pools.values()))
    of_arms = told([entries for (_, arm), entries in pools.items() if arm != BASELINE]) if unchanged else []
    if not any(row["share"] for row in mine):
        sentences, of_arms = [_why_unknown(mine, reader)], []
    elif not pools and any(row["reference"] for row in mine):
        sentences = [
            f"Nothing is said of all concepts together, {_why_unpooled(mine)}; each by itself is compared in the table below."
        ]
    elif not pools:
        sentences = [f"The shares stand alone. {_why_missing(mine)}"]
    worded = _said_of_wordings(summary, attribute, several_arms=several)
    folded = [arm for arm in worded if arm != BASELINE] if BASELINE in worded else []
    sentences += [said for arm, said in worded.items() if arm not in folded]
    of_arms += [worded[arm] for arm in folded]
    sentences += [said for other in summary.get("other_perceivers") or [] if (said := _said_by_other(other, attribute))]
    rate = _number(record.get("cannot_tell_rate"))
    if rate is not None and not _read_by_person(record):
        ends = _between(record, "cannot_tell")
        sentences.append(
            f"{_capital(reader)} answered “cannot tell” for {100 * rate:.1f}%{ends} of the images that these shares are of."
        )
    return Finding(title=title_of(attribute), sentences=tuple(sentences), of_arms=tuple(of_arms))


def _read_by_person(record: Mapping[str, Any]) -> bool:
    return (record.get("read_by") or {}).get("kind") == "person"


def _reader(attribute: str, record: Mapping[str, Any]) -> str:
    """Who read an attribute, for a sentence."""
    return str((record.get("read_by") or {}).get("who") or figures.read_by(attribute))


def _why_unknown(rows: Sequence[Row], reader: str) -> str:
    """Why an attribute has no share at all."""
    asked, one_person, lost = (
        sum(int(row[name] or 0) for name in names for row in rows)
        for names in (("n",), ("n_one_person",), ("n_blocked", "n_failed"))
    )
    if asked == lost:
        return "No image was made, so nothing is known."
    if not one_person:
        return "No image is taken to show one person, so there is no share."
    return f"{_capital(reader)} could not tell in any image, so nothing is known: every share is between 0% and 100%."


def _why_unpooled(rows: Sequence[Row]) -> str:
    """Why an attribute whose concepts are compared one by one is not pooled over them."""
    given = [row for row in rows if row["reference"] and not row["identity"]]
    if not given:
        return "since the prompts name the group themselves"
    sources = {row["reference_source"] for row in given}
    absent = [level for level in unique(rows, "level") if level not in {row["level"] for row in given}]
    if not absent:
        return "since no image of a concept that the table has was decided"
    return f"since “{', '.join(sorted(sources))}” has no share of {' or '.join(f'“{level}”' for level in absent)}"


def _said(entries: Sequence[Mapping[str, Any]], rows: Sequence[Row], *, several_arms: bool) -> str:
    """The pooled entries of one arm and reference, one per level, as a sentence that names the reference."""
    first = entries[0]
    arm = f"{_capital(said_of_arm(first['arm']))}, against" if several_arms else "Against"
    parts = [f"{arm} “{first['reference']}”, over {first['n_concepts']} concepts: {_said_of_means(entries)}"]
    if "stretch" in first:
        parts.append(_said_of_stretch(first["stretch"]))
    return "; ".join(parts) + ". " + _tally(first, rows, directions=len(entries) == 1)


def _said_of_means(entries: Sequence[Mapping[str, Any]]) -> str:
    if len(entries) > 1:
        means = (f"{entry['level']} {interval(entry.get('mean_difference'), 'points')}" for entry in entries)
        return f"on average, points from the reference: {', '.join(means)}"
    mean = entries[0].get("mean_difference") or {}
    value = _number(mean.get("value"))
    if value is None:
        return f"nothing is known of “{entries[0]['level']}” on average"
    where = "from" if abs(value) < 0.0005 else "above" if value > 0 else "below"
    ends = f"{points(mean.get('low'))} to {points(mean.get('high'))}"
    return f"the share of “{entries[0]['level']}” is on average {abs(100 * value):.1f} points {where} it ({ends})"


def _said_of_stretch(stretch: Mapping[str, Any]) -> str:
    low, high = _number(stretch.get("low")), _number(stretch.get("high"))
    if _number(stretch.get("value")) is None:
        return "how far apart the concepts lie is not known"
    if low is not None and low > 1:
        said = "its contrasts between concepts are amplified"
    elif high is not None and high < 1:
        said = "its contrasts between concepts are flattened"
    else:
        said = "no evidence that its contrasts between concepts are amplified or flattened"
    return f"{said}, stretch {interval(stretch)}"


def _said_of_lean(entry: Mapping[str, Any]) -> str:
    """How wrong the probe would have to be for the stretch to vanish, and how wrong it was seen to be."""
    stretch = entry.get("stretch") or {}
    lean = stretch.get("erased_by")
    if stretch.get("cannot_be_erased"):
        return f"No lean of the probe towards a concept’s stereotype could explain the stretch against “{entry['reference']}”."
    if lean is None or lean == 0:
        return ""
    measured_lean = stretch.get("measured_lean") or {}
    value = _number(measured_lean.get("value"))
    measured = (
        "how far it leans was not measured"
        if value is None
        else f"on labelled pictures it leans {interval(measured_lean, 'points')} points"
    )
    by_concept = BY_CONCEPT in str(stretch.get("method"))
    return (
        f"A probe that leaned {robustness.in_points(lean)} points {'further ' if by_concept else ''}towards (or, for a stretch "
        f"below 1, away from) each concept’s stereotype{' than on labelled pictures' if by_concept else ''} would explain the "
        f"stretch against “{entry['reference']}” away; "
        f"{measured}{', which is corrected' if by_concept and value is not None else ''}."
    )


def _said_of_wordings(summary: Mapping[str, Any], attribute: str, *, several_arms: bool) -> dict[str, str]:
    """How far the share would move with the wording: of the level that moves most, a sentence for each arm."""
    sentences = {}
    mine = [entry for entry in summary.get("wordings") or [] if entry["attribute"] == attribute]
    for arm in dict.fromkeys(entry["arm"] for entry in mine):
        entries = [e for e in mine if e["arm"] == arm and _number(e["low"]) is not None]
        if entries:
            most = max(entries, key=lambda e: float(e["high"] - e["low"]))
            said = f"{_capital(said_of_arm(arm))}: " if several_arms else ""
            said += f"The probe asks in {most['n_wordings']} wordings at once"
            low, high = percent(most["low"]), percent(most["high"])
            if low == high:
                sentences[arm] = f"{said}; each of them alone gives the same shares, before any correction."
                continue
            sentences[arm] = (
                f"{said}, and says “{most['level']}” of {percent(most['raw_share'])}% of the images that it decides. Asked "
                f"in one alone it would say so of {low}% (“{most['low_wording']}”) to {high}% (“{most['high_wording']}”), "
                "before any correction."
            )
    return sentences


def _said_by_other(other: Mapping[str, Any], attribute: str) -> str:
    """What another perceiver says of the same images, and how often the two agree."""
    agreed = other["agreement"].get(attribute)
    if not agreed or not agreed["both_decided"]:
        return ""
    record = other["classifier"].get(attribute) or {}
    accuracy, ends = _number(record.get("accuracy")), _between(record, "accuracy")
    known = "its errors are not known"
    if accuracy is not None:
        known = f"right in {100 * accuracy:.1f}%{ends} of labelled pictures"
    pools = [entry for entry in other["pooled"] if entry["attribute"] == attribute]
    parts = [
        f"; against “{e['reference']}” {_said_of_means([e])}, {_said_of_stretch(e['stretch'])}"
        for e in pools[:1]
        if "stretch" in e
    ]
    return (
        f"Read by {other['name']} instead ({known}): it says the same of "
        f"{100 * agreed['alike'] / agreed['both_decided']:.1f}% of the {agreed['both_decided']:,} images that both decide"
        f"{''.join(parts)}. Its estimates lie in perceptions/{other['name']}/."
    )


def _said_of_distance(entry: Mapping[str, Any], *, corrected: bool) -> str:
    """Directional bias amplification, and the mean distance beside what chance alone would show."""
    directional, apart = entry.get("directional"), entry.get("total_variation")
    if not directional or not apart:
        return ""
    return (
        f"Directional bias amplification (Wang and Russakovsky 2021) against “{entry['reference']}”: "
        f"{interval(directional, 'points')} points; mean total variation from it {100 * apart['value']:.1f} points "
        f"over {apart['n_concepts']} concepts, of which sampling{' and the probe’s errors' if corrected else ''} alone "
        f"would show about {100 * apart['noise_floor']:.1f}."
    )


def _tally(entry: Mapping[str, Any], rows: Sequence[Row], *, directions: bool) -> str:
    """How many concepts of the table are significant after Holm's adjustment, and in which direction."""
    here = entry["level"], entry["arm"], entry["reference"]
    neutral = [row for row in rows if not row["identity"]]  # what names a group is in no pooled number either
    lines = [row for row in neutral if (row["level"], row["arm"], row["reference_source"]) == here]
    tests = [(p, row["direction"]) for row in lines if (p := _number(row["p_adjusted"])) is not None]
    if not tests:
        return ""
    kinds = Counter(direction for p, direction in tests if p < SIGNIFICANT)
    said = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()) if directions else ""
    return f"{kinds.total()} of {len(tests)} differ from it (adjusted p < {SIGNIFICANT}){': ' + said if said else ''}."


def _why_missing(rows: Sequence[Row]) -> str:
    reasons = list(dict.fromkeys(_reason(row) for row in rows if row["reference_missing"]))
    return f"Why there is no comparison: {'; '.join(reasons)}." if reasons else ""


def _reason(row: Row) -> str:
    """Why a row has no reference, without its concept's name, so that concepts of one reason can be listed together."""
    return row["reference_missing"].replace(repr(row["concept"]), "the concept")


# -- figures -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A chart and its picture as a data URI, or empty where the page would become too large."""

    chart: Chart
    uri: str


def _embedded(charts: Iterable[Chart], folder: Path) -> list[Shown]:
    left, shown = CHART_BYTES, []
    for chart in charts:
        uri = _uri((folder / f"{chart.stem}.svg").read_bytes(), "image/svg+xml")
        uri = uri if len(uri) <= left else ""
        left -= len(uri)
        shown.append(Shown(chart=chart, uri=uri))
    return shown


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# -- images ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One row of an image shard, without the picture."""

    id: str
    shard: str
    concept: str
    arm: str
    pair: tuple[str, str, str, int]
    """What it shares with its partners in other arms: prompt set, template, identity and sample."""
    prompt: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in the image shards of a run."""

    units: tuple[Unit, ...]
    environments: tuple[tuple[dict[str, Any], int], ...]
    """Each with the number of shards that were made in it."""
    unreadable: tuple[str, ...]
    """A message per shard that cannot be read."""


# -- did it help? ------------------------------------------------------------------------------------

ARMS = (
    "verdict",
    "target",
    "distance before, points",
    "after",
    "change",
    "erased by, points",
    "past the target, points",
    "diversity, points",
    "recognised %",
    "CLIP score",
    "sent more",
    "not made %",
    "kWh for 1,000 images",
    "left alone",
)


def _arm(entry: Mapping[str, Any]) -> Line:
    """The five numbers of an arm, as text."""
    fidelity, cost = entry["fidelity"], entry["cost"]
    apart = [entry.get(f"distance_{when}") for when in ("before", "after")]
    distance = [_said_of_distance_to(found) if found else "–" for found in apart]
    past = f"; surely past it: {', '.join(entry['past'])}" if entry.get("past") else ""
    diversity = [f"{title_of(name)} {interval(change, 'points')}" for name, change in entry["diversity"].items()]
    allocation = _number(entry.get("allocation"))
    told = f"; allocation by strata has {plain(allocation)} of the variance of independent draws" if allocation else ""
    cells = (
        in_words(entry),
        f"{title_of(entry['attribute'])}: {entry['target']}{told}",
        *distance,
        interval(entry.get("distance_change"), "points"),
        _said_of_erasing(entry),
        interval(entry.get("excess"), "points") + past,
        "; ".join(diversity),
        _before_after(fidelity.get("recognised"), lambda share: interval(share, "percent")),
        _before_after(
            fidelity.get("clip_score"), lambda score: plain(score, 3), fidelity.get("clip_score_change"), "score"
        ),
        _sent(cost),
        _before_after(
            cost.get("not_made"), lambda share: percent(share["value"]), cost.get("not_made_change"), "points"
        ),
        _before_after(cost.get("kwh_per_1000_images"), amount),
        "; ".join(f"{n} images: {why}" for why, n in entry["left_alone"].items()) or "–",
    )
    beside = "" if entry["paired"] else f", beside {entry['baseline']}"
    return Line(name=f"{entry['arm']}{beside}", cells=cells)


def _cautions(study: Study | ImportStudy | FolderStudy) -> list[tuple[str, str]]:
    """What whoever reads the page must know of an arm; the arms of which the same is to be known together."""
    if isinstance(study, FolderStudy):
        return []
    arms = study.arms.items() if isinstance(study, ImportStudy) else ((arm.name, arm) for arm in study.rewriters())
    said: dict[str, list[str]] = {}
    for name, arm in arms:
        said.setdefault(arm.caution, []).append(name)
    return [("; ".join(names), caution) for caution, names in said.items() if caution]


def _unknown_of_arms(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why a dash stands where a number should, each reason once."""
    reasons = (
        f"{title}: not known, since {entry[part]['why_unknown']}."
        for entry in entries
        for part, title in (("fidelity", "Recognised and CLIP score"), ("cost", "Sent more, not made and energy"))
        if "why_unknown" in entry[part]
    )
    return list(dict.fromkeys(reasons))


def _said_of_erasing(entry: Mapping[str, Any]) -> str:
    """How much more the probe would have to err in one arm for the change of the distance to vanish, and how much more it
    was seen to."""
    if "errors" not in entry:
        return "–"
    change = entry.get("distance_change") or {}
    said, seen = erased(change), change.get("measured_difference") or {}
    if said != "–":
        known = _number(seen.get("value")) is not None
        said += f" (measured, and corrected: {interval(seen, 'points')})" if known else " (not measured)"
    return f"{said}; {entry['errors']}"


def _sent(cost: Mapping[str, Any]) -> str:
    """What an arm sends beyond the prompt: in tokens where the drawing model has counted them, else in words."""
    if cost.get("tokens") is None:
        return f"{plain(cost['words'], 1)} words" if "words" in cost else "–"
    cut = f"; {cost['cut_off']} images: cut off" if cost["cut_off"] else ""
    return f"{plain(cost['tokens'], 1)} tokens{cut}"


def _said_of_distance_to(found: Mapping[str, Any]) -> str:
    around = (
        f"{percent(found['low'])} to {percent(found['high'])}; " if "low" in found else ""
    )  # not in an older summary
    return f"{percent(found['value'])} ({around}noise alone {percent(found['noise_floor'])})"


def _before_after(
    both: Sequence[Any] | None, say: Callable[[Any], str], change: Mapping[str, Any] | None = None, kind: str = ""
) -> str:
    """`0.251 → 0.247; change −0.004 (−0.006 to −0.002)`."""
    said = " → ".join(map(say, both)) if both else "–"
    return f"{said}; change {interval(change, kind)}" if change else said


def _survey(run: Run, *, made_elsewhere: bool) -> Survey:
    """Of pictures made elsewhere, the file stands for the prompt, which is not known."""
    columns = [name for name in store.IMAGE_SCHEMA.names if name not in ("image", "file")]
    columns += ["file"] if made_elsewhere else []
    units: list[Unit] = []
    environments: Counter[str] = Counter()
    unreadable = []
    for path in sorted((run.folder / "images").glob("*.parquet")):
        try:
            table = run.read_images(path.stem, columns)
        except RunError as error:
            unreadable.append(str(error))
            continue
        environments[((table.schema.metadata or {}).get(b"environment") or b"{}").decode()] += 1
        for row in table.to_pylist():
            pair = (row["prompt_set"], row["template"], row["identity"], row["sample"])
            units.append(
                Unit(
                    id=row["unit_id"],
                    shard=path.stem,
                    concept=row["concept"],
                    arm=row["arm"],
                    pair=pair,
                    prompt=row.get("file") or row["prompt_sent"],
                    status=row["status"],
                    reason=row["reason"],
                )
            )
    found = tuple((json.loads(text), n) for text, n in environments.most_common())
    return Survey(units=tuple(units), environments=found, unreadable=tuple(unreadable))


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The pictures of one concept and arm."""

    concept: str
    arm: str
    counts: str
    cells: tuple[tuple[Unit, str], ...]
    """Each with its data URI, or empty where there is no picture."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures chosen by chance, and out of how many."""

    strips: tuple[Strip, ...]
    n_shown: int
    n_concepts: int
    seed: int


def _gallery(run: Run, survey: Survey, seed: int) -> Gallery:
    """Concepts and images drawn with numpy's `default_rng(seed)`; arms show the same samples, which share noise."""
    rng = np.random.default_rng(seed)
    groups: dict[str, dict[str, dict[tuple[str, str, str, int], Unit]]] = {}
    for unit in survey.units:
        groups.setdefault(unit.concept, {}).setdefault(unit.arm, {})[unit.pair] = unit
    names, arms = list(groups), list(dict.fromkeys(unit.arm for unit in survey.units))
    most = max(4, CONCEPTS_SHOWN // max(len(arms), 1))
    if len(names) > most:
        names = [names[i] for i in sorted(rng.choice(len(names), most, replace=False))]
    chosen: list[tuple[str, str, list[Unit]]] = []
    for name in names:
        pairs = sorted({pair for units in groups[name].values() for pair in units})
        some = [pairs[i] for i in sorted(rng.choice(len(pairs), min(IMAGES_SHOWN, len(pairs)), replace=False))]
        chosen += [(name, arm, [units[p] for p in some if p in units]) for arm, units in groups[name].items()]
    pictures = _pictures(run, [unit for _, _, units in chosen for unit in units])
    strips = [
        Strip(
            concept=name,
            arm=arm,
            counts=_counts(unit.status for unit in groups[name][arm].values()),
            cells=tuple((unit, pictures.get(unit.id, "")) for unit in units),
        )
        for name, arm, units in chosen
    ]
    return Gallery(strips=tuple(strips), n_shown=len(names), n_concepts=len(groups), seed=seed)


def _counts(statuses: Iterable[str]) -> str:
    """`50 images: 48 made, 1 blocked, 1 failed`."""
    counted = Counter(statuses)
    parts = [f"{counted[name]} {name}" for name in ("made", "blocked", "failed") if counted[name]]
    return f"{counted.total()} images: {', '.join(parts)}"


def _pictures(run: Run, units: Iterable[Unit], side: int = THUMBNAIL) -> dict[str, str]:
    """Thumbnails as data URIs by unit id; each shard is read once."""
    wanted: dict[str, set[str]] = {}
    for unit in units:
        if unit.status == "made":
            wanted.setdefault(unit.shard, set()).add(unit.id)
    found: dict[str, str] = {}
    if not wanted:
        return found
    with progress("thumbnails", total=len(wanted), unit="shards") as advance:
        for shard, ids in sorted(wanted.items()):
            with contextlib.suppress(RunError):  # its rows were fine and its pictures are not: they stay empty places
                table = run.read_images(shard, ["unit_id", "image"])
                for place, name in enumerate(table["unit_id"].to_pylist()):
                    if name in ids:
                        found[name] = _thumbnail(table["image"][place].as_py()["bytes"], side)
            advance(1, "")
    return found


def _thumbnail(png: bytes, side: int) -> str:
    picture = Image.fromarray(store.decode(png))
    exact = max(picture.size) <= EXACT
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=exact, quality=80, method=0)  # 30 times as quick as the default, 8 % larger
    return _uri(out.getvalue(), "image/webp")


# -- what people said --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What a person said of a picture outside of the sample."""

    unit: str
    concept: str
    uri: str
    """The picture."""
    said: str
    """Attribute, what the probe said, and what stands now."""
    who: str
    when: str


def _corrections(run: Run, survey: Survey, people: Mapping[str, Any] | None) -> list[Correction]:
    """Every correction with its picture; the log has all of them, the latest of a person stands."""
    log = (people or {}).get("corrections") or []
    units = {unit.id: unit for unit in survey.units}
    pictures = _pictures(run, [units[name] for name in {entry["unit_id"] for entry in log} & set(units)])
    return [
        Correction(
            unit=entry["unit_id"],
            concept=units[entry["unit_id"]].concept if entry["unit_id"] in units else "",
            uri=pictures.get(entry["unit_id"], ""),
            said=f"{title_of(entry['attribute'])}: the probe said “{entry['probe']}”, a person “{entry['level']}”",
            who=entry["annotator"],
            when=entry["when"],
        )
        for entry in log[:TABLE_ROWS]
    ]


# -- the table of estimates --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table, as text."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The estimates of one attribute against one reference."""

    title: str
    reference: str
    other_level: str
    """The level that is left out because it is the rest; empty where there is none."""
    methods: tuple[str, ...]
    why_alone: str
    """Why there is no reference; empty where there is one."""
    head: tuple[str, ...]
    lines: tuple[Line, ...]
    left_out: int


SHARES = ("share %", "95% interval", "raw share %")
COMPARED = ("reference %", "difference, points", "95% interval, points", "direction", "adjusted p")
"""Columns of a table that has a reference."""
COUNTS = ("images", "of one person", "cannot tell", "blocked", "failed")


def _tables(rows: Sequence[Row]) -> Iterable[Table]:
    several = unique(rows, "arm") != [BASELINE]
    for attribute in unique(rows, "attribute"):
        mine = [row for row in rows if row["attribute"] == attribute]
        levels = unique(mine, "level")
        for reference in references(mine) or [""]:
            block = of_reference(mine, reference)
            if len(levels) == 2:
                block = [row for row in block if row["level"] == levels[0]]
            extra = (["arm"] if several else []) + (["level"] if len(levels) != 2 else [])
            lines = [
                Line(name=name, cells=(*(row[column] for column in extra), *_cells(row, compared=bool(reference))))
                for name, row in zip(labels(block), block, strict=True)
            ]
            counts = [
                name if attribute != PEOPLE.name else name.replace("of one person", "looked at") for name in COUNTS
            ]
            first = f": {levels[0]}" if len(levels) == 2 else ""
            yield Table(
                title=f"{title_of(attribute)}{first}",
                reference=reference,
                other_level=levels[1] if len(levels) == 2 else "",
                methods=tuple(unique(block, "method")),
                why_alone="" if reference else _why_missing(block),
                head=("concept", *extra, *SHARES, *(COMPARED if reference else ()), *counts),
                lines=tuple(lines[:TABLE_ROWS]),
                left_out=max(0, len(lines) - TABLE_ROWS),
            )


def _cells(row: Row, *, compared: bool) -> tuple[str, ...]:
    shares = (percent(row["share"]), f"{percent(row['low'])} to {percent(row['high'])}", percent(row["raw_share"]))
    counts = tuple(row[name] for name in ("n", "n_one_person", "n_cannot_tell", "n_blocked", "n_failed"))
    return (*shares, *_comparison(row), *counts) if compared else (*shares, *counts)


def _comparison(row: Row) -> tuple[str, ...]:
    direction = f"no reference: {row['reference_missing']}" if row["reference_missing"] else row["direction"]
    ends = (
        f"{points(row['difference_low'])} to {points(row['difference_high'])}"
        if row["share"] and row["difference_low"]
        else "–"
    )
    reference = percent(row["reference"])
    if figures.is_range(row):
        reference = f"{percent(row['reference_low'])} to {percent(row['reference_high'])}"
    return reference, points(row["difference"]), ends, direction, _p(row["p_adjusted"])


# -- what the numbers do not mean --------------------------------------------------------------------

PERCEIVED = {
    "gender": (
        "Perceived gender presentation has two levels here, woman and man, because the reference tables have two. It is "
        "how a viewer would be likely to read a picture. It is nobody's gender identity, and a picture that reads as "
        "neither is “cannot tell” at best and misread at worst."
    ),
    "skin_tone": "Perceived skin tone is the tone as drawn or lit. It is neither race nor ethnicity nor ancestry.",
    "age": "Perceived age group is one of a few coarse groups that a viewer would name, not years.",
    "race": (
        "A perceived race category is the one that a viewer would be likely to name. No such category can be read off a "
        "face."
    ),
}
RACE_OF_BLS = (
    "The reference of race is what people said of themselves, which is another thing. Its White includes Hispanic people, "
    "and people of two or more races are in none of its columns."
)

AGE_OF_BLS = (
    "The reference of age counts people of 65 years and over, by what they said of their age, beside those of 16 to 64. "
    "Whom a viewer would call older, or an adult, is drawn elsewhere: a difference from it is in part one of definitions."
)
CENSUS = {"race": RACE_OF_BLS, "age": AGE_OF_BLS}
"""What a table of the labour statistics counts, where it is not what is perceived."""


def _limits(rows: Sequence[Row], summary: Mapping[str, Any]) -> list[str]:
    """Limitations of this run: per attribute what is perceived, and how well the probe is known to read it."""
    attributes = unique(rows, "attribute")
    records = summary.get("classifier") or {}
    known = [PERCEIVED[attribute] for attribute in attributes if attribute in PERCEIVED]
    counted = {
        row["attribute"] for row in rows if row["reference"] and row["reference_source"].startswith("BLS, CPS Table")
    }
    known += [said for attribute, said in CENSUS.items() if attribute in counted]
    said = [
        _record(title_of(attribute), records.get(attribute) or {}, figures.read_by(attribute))
        for attribute in attributes
    ]
    tones = summary.get("two_tones")
    if tones:
        said.append(
            f"Skin tone was read twice, by the probe and by the colour of the face. Over {tones['n']} pictures with both, "
            f"Spearman's ρ between them is {plain(tones['spearman'])}. Colour reads the light as well as the skin: a face "
            "in the shade is darker to it, whoever's it is."
        )
    how = summary.get("approximations")
    if how:
        said.insert(
            0, f"Drawn with {' and '.join(how)}: what is said here is of the model so changed, not as it was released."
        )
    return [*known, *said]


def _left_out(summary: Mapping[str, Any], people: str) -> list[str]:
    """Whom the policy about faces, `perceive.people`, leaves out, by attribute."""
    several = ", or with several," if people == "exactly_one" else ""
    sentences = []
    for attribute, levels in (summary.get("left_out") or {}).items():
        parts = [
            f"{n['left_out']} of {n['left_out'] + n['kept']} that look most like “{level}”"
            for level, n in levels.items()
            if n["left_out"] + n["kept"]
        ]
        sentences.append(
            f"Pictures without a face that a detector finds{several} are in no share of {title_of(attribute)}: "
            f"{', '.join(parts)}. Where these parts differ, the choice of pictures moves the shares."
        )
    return sentences


def _record(title: str, record: Mapping[str, Any], reader: str = "the probe") -> str:
    accuracy = _number(record.get("accuracy"))
    if _read_by_person(record):
        return (
            f"{_capital(title)} is as {record['read_by']['who']} labelled it. Another viewer may have said "
            "otherwise, and how far viewers differ is not in the intervals."
        )
    if accuracy is None:
        undecided = _number(record.get("cannot_tell_rate")) or 0.0
        told = (
            f" Of {percent(undecided)}% of the images it could not tell: in the interval of each share these may be of any "
            "level, and what is said of all concepts together is of the others alone."
        )
        return (
            f"How often {reader} misreads {title} is not known, for want of labelled pictures of this kind: its shares "
            f"are what it said, and its errors are not in the intervals.{told if undecided else ''}"
        )
    return (
        f"On {record.get('n')} labelled pictures {reader} was right about {title} in {100 * accuracy:.1f}%"
        f"{_between(record, 'accuracy')} of those it decided on.{_said_of_leaks(record)} The correction takes for "
        "granted that it errs on the images of this run as it did on those; the intervals hold the uncertainty "
        "of its errors, not that assumption."
    )


def _between(record: Mapping[str, Any], name: str) -> str:
    """The interval of a share of a record; nothing in a run from before it had one."""
    low, high = record.get(f"{name}_low"), record.get(f"{name}_high")
    return "" if low is None or high is None else f" ({percent(low)} to {percent(high)})"


def _said_of_leaks(record: Mapping[str, Any]) -> str:
    """In which concept a level is misread more than in all others, if that is beyond chance."""
    leaks = {level: leak for level, leak in (record.get("leaks") or {}).items() if leak["low"] > 0}
    if not leaks:
        return ""
    level, leak = max(leaks.items(), key=lambda item: float(item[1]["value"]))
    return (
        f" Worst of all it misreads “{level}” in {leak['concept']}: {100 * leak['value']:.0f} points more often than in "
        f"all other concepts (the worst concept is between {100 * leak['low']:.0f} and {100 * leak['high']:.0f} points, were the "
        "labelled pictures independent; where several show one drawing or person, it is less certain)."
    )


def _matches(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Concepts that are held against a row which is not quite theirs: how well it matches, the concept and the row."""
    held = [row for row in rows if row["reference"] and row["reference_match"] not in ("", "good")]
    found = {(row["reference_match"], row["concept"], row["reference_row"]) for row in held}
    return sorted(found, key=lambda each: (each[0] != "poor", each))


def _missing(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Which concepts have no reference for an attribute: its title, the reason and their names."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reference_missing"]:
            names = found.setdefault((title_of(row["attribute"]), _reason(row)), [])
            if row["concept"] not in names:
                names.append(row["concept"])
    return [(title, reason, names) for (title, reason), names in found.items()]
