"""What people say of a run's pictures -> the estimates: a declared random sample, its sheet, and the answers.

Only the sample enters the estimates: to correct what looks surprising would move the shares towards what was expected.
An answer about any other picture is a correction: it is kept, shown, and wins over the probe for that picture alone.
It stays one when the sample grows to hold the picture, until it is given again: it was surprise that chose it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from classifiers.attributes import ATTRIBUTES
from pipeline import checks, stages, store, tables
from pipeline.errors import InputError, RunError
from pipeline.plan import Sharded
from pipeline.store import Run
from pipeline.tables import KEY, Key, Reading, Tally
from pipeline.types import CANNOT_TELL, NOT_ONE_PERSON, Shard

ANSWERS = (CANNOT_TELL, NOT_ONE_PERSON)
"""What may be said of any attribute, beside its levels."""
SHEET = ("picture", "unit_id", "annotator")
"""The columns of a sheet that name no attribute."""
DISAGREED = ""
"""What people agree on where no answer has more than half of them."""
PICTURE = ""
"""Where an attribute's name would stand: what is said of the whole picture, which is `not one person`."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Which pictures people are asked about, declared before anybody looks."""

    seed: int
    per_concept: int
    units: tuple[str, ...]
    """In the order of the sheet, which is random too."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One person's answer about one attribute of one picture: a line of the log."""

    when: str
    """UTC, ISO 8601: when it was imported."""
    annotator: str
    unit_id: str
    attribute: str
    level: str
    """A level, `cannot tell` or `not one person`."""
    sampled: str
    """`sample`, or `correction` of a picture that was outside of it when it was labelled."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What all people together say about one attribute of one picture, beside what the probe said."""

    unit_id: str
    concept: str
    arm: str
    attribute: str
    probe: str
    people: str
    """The answer of more than half of those who said anything of the attribute, `not one person` that of more than half
    of those who said anything of the picture; empty where they disagree."""
    sampled: str
    answers: str
    """Each with its annotator: `ann: woman; bob: man`."""

    @property
    def stands(self) -> str:
        """What is said of this picture: people's word before the probe's."""
        return self.people or self.probe


def folder(run: Run) -> Path:
    """Where a run's labels are."""
    return run.folder / "labels"


# -- the sample --------------------------------------------------------------------------------------


def draw(
    run: Run, planned: Sharded, perceiver: str, readings: Sequence[Reading], *, per_concept: int, seed: int
) -> Sample:
    """The sample of a run, written down; the same for the same seed, and a larger one holds the smaller.

    Of each concept the `per_concept` pictures whose unit id and seed have the smallest sha256: every picture that was
    made, and not left out for its faces, has the same chance, whoever drew it and in which shard.

    In a run that has grown since (more images, another arm), what was drawn stays, and the smallest of the others fill
    it up. Until `per_concept` has grown as the run has, earlier pictures are likelier to be in it than new ones; from
    there on it is the smallest of all again. Either way nothing that a picture shows decides, and pictures of one
    prompt and arm are drawn alike whenever they are drawn: of each it is a random sample, which is all that the
    estimates ask. A sheet with answers that were not imported is not overwritten: a `RunError`.
    """
    if per_concept < 1:
        raise InputError(f"--per-concept {per_concept}: give a number from 1 on")
    path, sheet = folder(run) / "sample.json", folder(run) / "sheet.csv"
    before = sample_of(run)
    if before and before.seed != seed:
        raise RunError(
            f"{path}: the sample was drawn with seed {before.seed}; a sample is declared once: --seed {before.seed}"
        )
    if before and before.per_concept > per_concept:
        raise RunError(f"{path}: has {before.per_concept} pictures per concept and can only grow")
    if sheet.is_file() and _unsaved(sheet, _latest(run, before), asked(readings)):
        raise RunError(
            f"{sheet}: has answers that are not imported, and a new sheet would take its place; run: typecast labels "
            f"import {run.folder} {sheet}, or move it away, then draw again"
        )
    kept = set(before.units) if before else set()
    of_concept: dict[str, list[tuple[bool, str, str]]] = {}
    for shard in (shard for shard in planned.shards() if run.images(shard).exists()):
        for row in tables.decided(run, perceiver, shard, readings, ["unit_id", "concept", "status"]).to_pylist():
            unit, one = row["unit_id"], row[readings[0].attribute] != NOT_ONE_PERSON
            if unit in kept or (row["status"] == "made" and one):
                of_concept.setdefault(row["concept"], []).append((unit not in kept, _rank(seed, unit), unit))
    chosen = kept | {unit for found in of_concept.values() for *_, unit in sorted(found)[:per_concept]}
    if not chosen:
        raise RunError(f"{run.folder}: has no pictures to label")
    units = tuple(sorted(chosen, key=lambda unit: _rank(seed, unit)))
    sample = Sample(seed=seed, per_concept=per_concept, units=units)
    store.write_json(path, asdict(sample))
    blank = dict.fromkeys(a.attribute for a in asked(readings))
    lines = [{"picture": n, "unit_id": unit, "annotator": ""} | blank for n, unit in enumerate(sample.units, 1)]
    store.write_text(sheet, tables.to_csv(lines, (*SHEET, *blank)))
    return sample


def _rank(seed: int, unit: str) -> str:
    """Where chance puts a picture, whatever others there are."""
    return hashlib.sha256(f"{seed} {unit}".encode()).hexdigest()


def _unsaved(sheet: Path, latest: Mapping[tuple[str, str], Mapping[str, Label]], readings: Sequence[Reading]) -> bool:
    """Does a sheet hold anything that somebody filled in and that the log does not say?"""
    known = (*SHEET, *(reading.attribute for reading in readings))
    for _, cells in checks.csv_lines(sheet, sheet.read_bytes(), [("unit_id", "")]):
        before = latest.get(_whose(sheet, cells), {})
        answers, problems = _said(cells, readings)
        if (
            _new(answers, before)
            or problems
            or any(cell.strip() for column, cell in cells.items() if column not in known)
        ):
            return True
    return False


def sample_of(run: Run) -> Sample | None:
    """The sample that was declared, if one was."""
    path = folder(run) / "sample.json"
    if not path.is_file():
        return None
    raw = stages.read_json(path)
    return Sample(seed=raw["seed"], per_concept=raw["per_concept"], units=tuple(raw["units"]))


def asked(readings: Sequence[Reading]) -> list[Reading]:
    """What people are asked: the attributes that a probe reads, not their combinations."""
    return [reading for reading in readings if reading.attribute in ATTRIBUTES]


# -- the answers -------------------------------------------------------------------------------------


def take(
    run: Run, planned: Sharded, readings: Sequence[Reading], files: Sequence[Path], *, now: str
) -> tuple[list[Label], list[Label]]:
    """Read filled sheets into the log: what is new in the sample, and what is new outside of it.

    A file is one person's: named in its column `annotator`, else by the file's name. All files are read before
    anything is written; what is wrong in a file is one `InputError`. The same file again changes nothing, and a person
    who has changed their mind has the later word.
    """
    sample = sample_of(run)
    if sample is None:
        raise RunError(f"{run.folder}: no sample was declared; draw it first with: typecast labels sample {run.folder}")
    made = {
        row["unit_id"]: row["status"]
        for shard in planned.shards()
        if run.images(shard).exists()
        for row in run.read_images(shard, ["unit_id", "status"]).to_pylist()
    }
    drawn = set(sample.units)
    latest = _latest(run, sample)
    seen: dict[tuple[str, str], Path] = {}
    new = []
    for path in dict.fromkeys(files):
        for annotator, unit, answers in _answers(path, made, asked(readings)):
            other = seen.setdefault((annotator, unit), path)
            if other != path:
                raise InputError(f"{path}: {annotator} labels {unit}, and does so in {other} too; give one of them")
            for attribute, level in _new(answers, latest.get((annotator, unit), {})).items():
                new.append(
                    Label(
                        when=now,
                        annotator=annotator,
                        unit_id=unit,
                        attribute=attribute,
                        level=level,
                        sampled="sample" if unit in drawn else "correction",
                    )
                )
    columns = [field.name for field in fields(Label)]
    log = [asdict(label) for label in [*log_of(run), *new]]
    store.write_text(folder(run) / "labels.csv", tables.to_csv(log, columns))
    return [label for label in new if label.sampled == "sample"], [n for n in new if n.sampled != "sample"]


def _answers(path: Path, made: Mapping[str, str], readings: Sequence[Reading]) -> list[tuple[str, str, dict[str, str]]]:
    """Annotator, unit and answers of each line that has any."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give a filled sheet, as CSV") from None
    known = (*SHEET, *(reading.attribute for reading in readings))
    wrong: checks.Problems = {}
    lines: dict[tuple[str, str], int] = {}
    found = []
    for number, cells in checks.csv_lines(path, content, [("unit_id", "")]):
        unknown = [column for column in cells if column not in known]
        if unknown:
            raise InputError(f"{path}: the column {unknown[0]!r} is not known; the columns are: {', '.join(known)}")
        annotator, unit = _whose(path, cells)
        answers, problems = _said(cells, readings)
        if unit not in made:
            problems.append(f"unit_id {unit!r} is no picture of this run")
        elif made[unit] != "made":
            problems.append(
                f"unit_id {unit!r} has no picture: it {'was' if made[unit] == 'blocked' else 'has'} {made[unit]}"
            )
        earlier = lines.setdefault((annotator, unit), number)
        if earlier != number:
            problems.append(f"{annotator} labels the picture of line {earlier} again")
        for problem in problems:
            wrong.setdefault(problem, []).append(number)
        if answers:
            found.append((annotator, unit, answers))
    if wrong:
        raise checks.all_wrong(path, wrong)
    if not found:
        raise InputError(f"{path}: nothing is filled in; put a level, or one of: {', '.join(ANSWERS)}, into the cells")
    return found


def _whose(path: Path, cells: Mapping[str, str]) -> tuple[str, str]:
    """Who labelled a line, the file's name unless the line says it; and its picture."""
    return cells.get("annotator", "").strip() or path.stem, cells["unit_id"].strip()


def _said(cells: Mapping[str, str], readings: Sequence[Reading]) -> tuple[dict[str, str], list[str]]:
    """The answers of a line, and what is wrong in it. Upper case and spaces around a word do not matter."""
    answers, problems = {}, []
    for reading in readings:
        cell = cells.get(reading.attribute, "").strip()
        choices = {level.casefold(): level for level in (*reading.levels, *ANSWERS)}
        if cell and cell.casefold() not in choices:
            problems.append(
                f"{reading.attribute} {cell!r} is no answer; the answers are: {', '.join(choices.values())}"
            )
        elif cell:
            answers[reading.attribute] = choices[cell.casefold()]
    if NOT_ONE_PERSON in answers.values():
        if set(answers.values()) != {NOT_ONE_PERSON}:
            problems.append(f"says {NOT_ONE_PERSON!r} and a level of the same picture")
        answers = {reading.attribute: NOT_ONE_PERSON for reading in readings}
    return answers, problems


def log_of(run: Run) -> list[Label]:
    """Every answer that was ever imported, oldest first."""
    path = folder(run) / "labels.csv"
    if not path.is_file():
        return []
    columns = [field.name for field in fields(Label)]
    try:
        lines = list(checks.csv_lines(path, path.read_bytes(), [(column, "") for column in columns]))
    except InputError as error:
        raise RunError(str(error)) from None
    return [Label(**{column: cells[column] for column in columns}) for _, cells in lines]


def _latest(run: Run, sample: Sample | None) -> dict[tuple[str, str], dict[str, Label]]:
    """What each has said last. What was said of a picture before the sample held it is not: said again, it is an answer
    to a sheet."""
    drawn = set(sample.units) if sample else set()
    return _last_of(label for label in log_of(run) if label.sampled == "sample" or label.unit_id not in drawn)


def _last_of(log: Iterable[Label]) -> dict[tuple[str, str], dict[str, Label]]:
    """What each annotator says of each picture, by attribute; or, under `PICTURE` alone, that it is `not one person`.

    That is said of the picture, so that a level takes it back of all attributes, and it takes back all levels.
    """
    last: dict[tuple[str, str], dict[str, Label]] = {}
    for label in log:
        said = last.setdefault((label.annotator, label.unit_id), {})
        if label.level == NOT_ONE_PERSON:
            said.clear()
            said[PICTURE] = label
        else:
            said.pop(PICTURE, None)
            said[label.attribute] = label
    return last


def _word(said: Mapping[str, Label], attribute: str) -> Label | None:
    """One person's answer about an attribute of a picture, which may be of the whole picture."""
    return said.get(PICTURE) or said.get(attribute)


def _new(answers: Mapping[str, str], said: Mapping[str, Label]) -> dict[str, str]:
    """Those of the answers that their annotator has not given before, or not last."""
    return {
        attribute: level
        for attribute, level in answers.items()
        if (before := _word(said, attribute)) is None or before.level != level
    }


def labelled(run: Run) -> dict[str, int]:
    """How many pictures the sample holds, and of how many people have said something since it holds them."""
    sample = sample_of(run)
    drawn = set(sample.units) if sample else set()
    said = {label.unit_id for label in log_of(run) if label.sampled == "sample"}
    return {"sampled": len(drawn), "labelled": len(drawn & said)}


# -- what they say together --------------------------------------------------------------------------


def opinions(run: Run, shards: Sequence[Shard], perceiver: str, readings: Sequence[Reading]) -> list[Opinion]:
    """A row per labelled picture and attribute, in the order of the shards.

    Whoever labelled a picture as one of the sample is asked; else those who corrected it. Whether it shows one person is
    asked of the picture: where most say it does, nothing is known of an attribute of which only the others spoke.
    """
    of_picture: dict[str, list[dict[str, Label]]] = {}
    for (_, unit), words in _last_of(log_of(run)).items():
        of_picture.setdefault(unit, []).append(words)
    found = []
    for shard in shards if of_picture else ():
        if not run.images(shard).exists():
            continue
        simple = asked(readings)
        rows = tables.decided(run, perceiver, shard, simple, ["unit_id", "concept", "arm"]).to_pylist()
        for row, reading in ((row, r) for row in rows if row["unit_id"] in of_picture for r in simple):
            people = of_picture[row["unit_id"]]
            everyone = [label for words in people if (label := _word(words, reading.attribute))]
            said = [label for label in everyone if label.sampled == "sample"] or everyone
            nobody = _nobody(people)
            if nobody or any(label.level != NOT_ONE_PERSON for label in said):
                together = NOT_ONE_PERSON if nobody else agreed(label.level for label in said)
                found.append(
                    Opinion(
                        unit_id=row["unit_id"],
                        concept=row["concept"],
                        arm=row["arm"],
                        attribute=reading.attribute,
                        probe=row[reading.attribute],
                        people=together if nobody or together != NOT_ONE_PERSON else DISAGREED,
                        sampled=said[0].sampled,
                        answers="; ".join(f"{label.annotator}: {label.level}" for label in said),
                    )
                )
    return found


def _nobody(people: Sequence[Mapping[str, Label]]) -> bool:
    """Do more than half of those who are asked of a picture say that it is `not one person`?"""
    sampled = [words for words in people if any(label.sampled == "sample" for label in words.values())]
    asked_of = sampled or people
    return 2 * sum(PICTURE in words for words in asked_of) > len(asked_of)


def agreed(answers: Iterable[str]) -> str:
    """The answer of more than half, or `DISAGREED`."""
    counted = Counter(answers)
    (best, n), *_ = counted.most_common(1)
    return best if 2 * n > counted.total() else DISAGREED


def alpha(labels: Iterable[Label]) -> float:
    """Krippendorff's α of answers, nominal, `cannot tell` and `not one person` among them; NaN where no picture has
    two, and where all are one word: nothing is left to disagree by chance either, and it is 0/0. Krippendorff (2011),
    Computing Krippendorff's Alpha-Reliability; computed by nltk."""
    from nltk.metrics.agreement import AnnotationTask

    latest = {(label.annotator, label.unit_id): label.level for label in labels}
    several = {unit for unit, n in Counter(unit for _, unit in latest).items() if n > 1}
    data = [(annotator, unit, level) for (annotator, unit), level in latest.items() if unit in several]
    return float(AnnotationTask(data=data).alpha()) if len({level for *_, level in data}) > 1 else math.nan


def counted(run: Run, planned: Sharded, perceiver: str, readings: Sequence[Reading], counts: Tally) -> Tally:
    """The counts of a run with what people say of the sample: `Tally.labelled`, `Tally.not_one_person`, `Tally.undecided`.

    The probe's decision about a picture that people agree does not show one person is taken back.
    """
    people = {}
    for opinion in opinions(run, planned.shards(), perceiver, readings):
        if opinion.sampled == "sample":
            people[opinion.unit_id, opinion.attribute] = opinion.people
    units = {unit for unit, _ in people}
    for shard in planned.shards() if units else ():
        if not run.images(shard).exists():
            continue
        rows = tables.decided(run, perceiver, shard, readings, ["unit_id", *KEY]).to_pylist()
        for row in (row for row in rows if row["unit_id"] in units):
            key: Key = tuple(row[name] for name in KEY)
            for reading in readings:
                parts = [people.get((row["unit_id"], part)) for part in reading.of or (reading.attribute,)]
                decision = row[reading.attribute]
                if None in parts or decision not in reading.columns:
                    continue
                _count(counts, key, row["unit_id"], reading, [str(part) for part in parts], decision)
    return counts


def _count(counts: Tally, key: Key, unit: str, reading: Reading, people: Sequence[str], decision: str) -> None:
    """One labelled picture."""
    if NOT_ONE_PERSON in people:
        counts.decisions[key, reading.attribute, decision] -= 1
        counts.not_one_person[key, reading.attribute] += 1
        counts.nobody.setdefault(reading.attribute, set()).add(unit)
    elif CANNOT_TELL in people or DISAGREED in people:
        counts.undecided[key, reading.attribute, decision] += 1
    else:
        counts.labelled[key, reading.attribute, ", ".join(people), decision] += 1


def summary(run: Run, planned: Sharded, perceiver: str, readings: Sequence[Reading]) -> dict[str, Any] | None:
    """For `summary.json` and the page: the sample, agreement by attribute, and the corrections. Writes `opinions.csv`."""
    sample = sample_of(run)
    log = log_of(run)
    if sample is None or not log:
        return None
    said = opinions(run, planned.shards(), perceiver, readings)
    lines = [asdict(opinion) | {"stands": opinion.stands} for opinion in said]
    columns = [*(field.name for field in fields(Opinion)), "stands"]
    store.write_text(folder(run) / "opinions.csv", tables.to_csv(lines, columns))
    probe = {(opinion.unit_id, opinion.attribute): opinion.probe for opinion in said}
    last = _last_of(log)
    in_sample = [opinion for opinion in said if opinion.sampled == "sample"]
    return {
        "seed": sample.seed,
        "per_concept": sample.per_concept,
        "sampled": len(sample.units),
        "annotators": sorted({label.annotator for label in log if label.sampled == "sample"}),
        "attributes": {
            reading.attribute: {
                "labelled": sum(o.attribute == reading.attribute for o in in_sample),
                "disagreed": sum(o.attribute == reading.attribute and o.people == DISAGREED for o in in_sample),
                "cannot_tell": sum(o.attribute == reading.attribute and o.people == CANNOT_TELL for o in in_sample),
                "not_one_person": sum(
                    o.attribute == reading.attribute and o.people == NOT_ONE_PERSON for o in in_sample
                ),
                "alpha": alpha(
                    label
                    for words in last.values()
                    if (label := _word(words, reading.attribute)) and label.sampled == "sample"
                ),
            }
            for reading in asked(readings)
        },
        "corrections": [
            asdict(entry) | {"probe": probe.get((entry.unit_id, entry.attribute), "")}
            for entry in log
            if entry.sampled != "sample"
        ],
    }
