"""Pictures made and read elsewhere -> estimates: one CSV of counts, or of a line per labelled picture, becomes a run.

Nothing is guessed. What the study does not declare (a word, a concept, a line of no arm) is listed and is an error:
a line left out in silence would move every share.
"""

from __future__ import annotations

import hashlib
import os.path
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import prompt_sets
from classifiers.attributes import ATTRIBUTES, readable
from pipeline import changes, checks, effects, store, summary, tables
from pipeline import study as studies
from pipeline.errors import InputError, RunError
from pipeline.estimates import Shares
from pipeline.mitigations import Goal
from pipeline.pictures import bytes_of, decoded
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.study import ImportStudy
from pipeline.tables import COLUMNS, Key, Reading, Tally
from pipeline.types import CANNOT_TELL, NOT_ONE_PERSON, Attribute, Intersection, Prompt, digest

COUNT = re.compile(r"[0-9]{1,12}")
"""A whole number from 0 on, as a file may write it."""
READERS = 4
"""Threads that read pictures: each may hold one of a quarter of a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What the tables call an arm, and which model made it."""

    name: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What a study of pictures made elsewhere says, in the shape that the estimates ask for (`pipeline.plan.Asked`)."""

    study: ImportStudy
    prompts: tuple[Prompt, ...]
    """Those whose concept is in the file."""
    arms: tuple[Arm, ...]
    references: tuple[prompt_sets.Reference, ...]
    """Those that are lines of the file, then the tables that the study names."""
    readings: tuple[Reading, ...]
    counts: Tally
    sha256: str
    """Of the file."""
    not_here: dict[str, str]
    """Pictures that a line names and that are not in the folder, or cannot be read, and why: each is counted as failed."""

    @property
    def made_with(self) -> dict[str, Any]:
        """The models, by arm."""
        return {"model": " and ".join(dict.fromkeys(arm.model for arm in self.arms)), "guidance_scale": None}

    def model_of(self, arm: str) -> str:
        """The model that made an arm."""
        return self.study.arms[arm].model

    def __len__(self) -> int:
        """Images that have a line."""
        return self.counts.statuses.total()


def begin(chosen: ImportStudy, folder: Path, out: Path) -> tuple[Run, Imported]:
    """The run folder of a study whose data lie in `folder`; a wrong line leaves no run folder behind."""
    found = read(chosen, folder)
    run = Run(out)
    if run.study_file.exists():
        if study_of(run) != chosen:
            raise RunError(f"{out}: holds another study; name another folder with --out")
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise RunError(f"{out}: is not empty and holds no study.yaml; name another folder with --out")
    store.write_text(run.study_file, studies.dump(chosen))
    return run, found


def study_of(run: Run) -> ImportStudy | None:
    """The study of a run whose counts or labels were imported; `None` of any other."""
    raw = checks.read_yaml(run.study_file) if run.study_file.is_file() else {}
    return studies.parse_import(raw, where=str(run.study_file)) if studies.made_elsewhere(raw) else None


def estimate(run: Run, found: Imported) -> str:
    """`estimates.csv`, with the column `model`, `summary.json`, and of arms with a baseline `effects.csv`; the headline."""
    shares, about = summary.estimates(found, found.counts, found.readings, found.readings)
    rows = tables.estimate(found, found.counts, found.readings, shares)
    rows = [row | {"model": found.model_of(row["arm"])} for row in rows]
    for record in about["classifier"].values():
        record["read_by"] = found.study.read_by.model_dump()
    about["data"] = {"file": found.study.data, "sha256": found.sha256, "not_here": found.not_here}
    store.write_text(run.folder / "estimates.csv", tables.to_csv(rows, (*COLUMNS, "model")))
    if changed := list(_effects(found, shares)):
        store.write_text(run.folder / "effects.csv", tables.to_csv(changed, changes.COLUMNS))
    about["arms"] = list(_helped(found, shares))
    store.write_json(run.folder / "summary.json", about)
    return str(about["headline"])


def _effects(found: Imported, shares: dict[str, dict[Key, Shares]]) -> Iterator[dict[str, Any]]:
    """What each arm changed beside its baseline: unpaired, for pictures made elsewhere share no seeds."""
    for name, made in found.study.arms.items():
        keys = [key for key in tables.estimated(found) if key[4] == name]
        for reading in found.readings if made.baseline and keys else ():
            if not reading.of:
                rng = np.random.default_rng(
                    int(digest([found.study.seed, name, reading.attribute, "effects"])[:16], 16)
                )
                yield from effects.moved(
                    (reading, reading), keys, made.baseline or "", found.counts, shares[reading.attribute], {}, rng
                )


def _helped(found: Imported, shares: dict[str, dict[Key, Shares]]) -> Iterator[dict[str, Any]]:
    """Did it help? As `effects.helped`, of what counts and labels can say: against parity in each attribute, and every
    named table that knows it."""
    for name, made in found.study.arms.items():
        keys = tables.concepts([key for key in tables.estimated(found) if key[4] == name])
        pairs = [((*key[:4], made.baseline), key) for key in keys] if made.baseline else []
        shared = {
            "arm": name,
            "baseline": made.baseline,
            "paired": False,
            "left_alone": {},
            "diversity": {r.attribute: effects.entropy(shares[r.attribute], pairs) for r in found.readings},
            "fidelity": {"why_unknown": "the pictures of an imported study are not read here"},
            "cost": {"why_unknown": "neither what was sent nor what was refused is known of an imported study"},
        }
        for reading in (r for r in found.readings if pairs and not r.of):
            goals = [Goal(reading.attribute, "uniform")]
            goals += [Goal(reading.attribute, r.table, r.year) for r in found.study.reference]
            for goal in goals:
                rng = np.random.default_rng(int(digest([found.study.seed, name, goal.title, "target"])[:16], 16))
                shown = shares[reading.attribute]
                if entry := effects.towards(goal, shown, pairs, (reading, reading), found.counts, rng):
                    entry |= shared | {"attribute": goal.attribute, "target": goal.title}
                    yield entry | {"verdict": effects.verdict(entry)}


# -- the file ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the file."""

    number: int
    cells: dict[str, str]
    concept: str
    """As the prompt set calls it."""
    n: int
    """Pictures."""
    picture: str
    """Where its picture is; empty in a study that has none here."""
    said: dict[str, str]
    """Attribute, or several together, to level, `cannot tell` or `not one person`."""


def read(chosen: ImportStudy, folder: Path) -> Imported:
    """Every line of the data, counted; an `InputError` lists what is wrong in them.

    Where the pictures are here too, each is decoded: one that gives no pixels is counted as failed, whatever its line
    says.
    """
    path = folder / chosen.data
    content = _content(path)
    by_concept = {p.concept.casefold(): p for p in chosen.prompts()}
    lines = list(_lines(chosen, folder, path, content, set(by_concept)))
    pictures = [line.picture for line in lines if line.picture]
    failed = _unread(pictures) if pictures else {}
    counts, own = Tally(), [Counter[tuple[str, str, str]]() for _ in chosen.own_references]
    for line in lines:
        prompt, here = by_concept[line.concept], line.picture not in failed
        for arm, made in chosen.arms.items():
            if _takes(made.lines, line.cells):
                _count(counts, (*prompt.key, arm), line, here=here)
        for counter, reference in zip(own, chosen.own_references, strict=True):
            if here and _takes(reference.lines, line.cells):
                for attribute in chosen.attributes:
                    counter[prompt.concept, attribute, line.said[attribute]] += line.n
    seen = {line.concept for line in lines}
    return Imported(
        study=chosen,
        prompts=tuple(p for p in by_concept.values() if p.concept.casefold() in seen),
        arms=tuple(Arm(name=name, model=made.model) for name, made in chosen.arms.items()),
        references=references(chosen, own),
        readings=tuple(_reading(chosen, attribute) for attribute in _readable(chosen)),
        counts=counts,
        sha256=hashlib.sha256(content).hexdigest(),
        not_here={
            line.cells[chosen.columns.image or ""]: failed[line.picture] for line in lines if line.picture in failed
        },
    )


def references(
    chosen: ImportStudy, own: list[Counter[tuple[str, str, str]]] | None = None
) -> tuple[prompt_sets.Reference, ...]:
    """The references of a study: its own, with the counts by concept, attribute and level, then the named tables."""
    levels = {name: ATTRIBUTES[name].levels for name in chosen.attributes}
    counted = own or [Counter() for _ in chosen.own_references]
    mine = (
        prompt_sets.counted_reference(
            publisher=given.publisher,
            table=given.table,
            title=given.title,
            licence=given.licence,
            levels=levels,
            counts=counter,
        )
        for given, counter in zip(chosen.own_references, counted, strict=True)
    )
    return (*mine, *(prompt_sets.load_reference(r.table, r.year) for r in chosen.reference))


def _readable(chosen: ImportStudy) -> tuple[Attribute | Intersection, ...]:
    """The attributes of a study, and what is estimated of them together: each line names a level of every attribute."""
    return readable([ATTRIBUTES[name] for name in chosen.attributes])


def _reading(chosen: ImportStudy, attribute: Attribute | Intersection) -> Reading:
    """An attribute of which no errors are known; why its shares are as they are goes with them."""
    who = chosen.read_by.who
    if chosen.read_by.kind == "person":
        said = f"as labelled by {who}: no classifier, so nothing is corrected"
    else:
        said = f"raw: as {who} said, whose errors on these pictures are not known here and not in it"
    of = tuple(part.name for part in attribute.of) if isinstance(attribute, Intersection) else ()
    return Reading(attribute.name, attribute.title, attribute.levels, None, of, uncorrected=said)


def _takes(wanted: dict[str, str], cells: dict[str, str]) -> bool:
    return all(cells[column] == value for column, value in wanted.items())


def _count(counts: Tally, key: Key, line: Line, *, here: bool) -> None:
    counts.statuses[key, "made" if here else "failed"] += line.n
    for attribute, level in line.said.items() if here else ():
        if level != NOT_ONE_PERSON:
            counts.decisions[key, attribute, level] += line.n


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except ValueError:
        raise InputError(f"data: {str(path)!r} has a NUL byte in it, which no file's name has") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the key data names the CSV, beside the study") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _wanted(chosen: ImportStudy) -> Iterator[tuple[str, str]]:
    """Every column that the study names, by its key."""
    for key, column in chosen.columns.model_dump().items():
        if column is not None:
            yield f"columns.{key}", column
    for name, said in chosen.attributes.items():
        yield f"attributes.{name}.column", said.column
    for name, made in chosen.arms.items():
        yield from ((f"arms.{name}.lines", column) for column in made.lines)
    for reference in chosen.own_references:
        yield from ((f"own_references, {reference.table}", column) for column in reference.lines)


def _lines(chosen: ImportStudy, folder: Path, path: Path, content: bytes, concepts: set[str]) -> Iterator[Line]:
    """The lines in the words of the study; at the end, one error with all that is wrong in them: first every word that is
    not declared, however many there are."""
    wrong: checks.Problems = {}
    undeclared: checks.Problems = {}
    first: dict[tuple[str, ...], int] = {}
    named = {word.casefold(): concept.casefold() for word, concept in chosen.concepts.items()}
    combinations = [both for both in _readable(chosen) if isinstance(both, Intersection)]
    sets, empty = dict.fromkeys(prompt.prompt_set for prompt in chosen.prompts()), True
    for number, cells in checks.csv_lines(path, content, [(column, key) for key, column in _wanted(chosen)]):
        empty = False
        word = cells[chosen.columns.concept]
        concept = named.get(word.casefold(), word.casefold())
        said = {name: its.levels.get(cells[its.column]) for name, its in chosen.attributes.items()}
        words = [*_not_declared(chosen, cells, said)]
        if concept not in concepts:
            words.append(
                f"{chosen.columns.concept} {word!r} is no concept of {', '.join(sets)}; put it to one of them in concepts"
            )
        problems = [*_not_taken(chosen, cells)]
        n, picture, why = _pictures(chosen, folder, cells)
        problems += [why] if why else []
        earlier = first.setdefault(_identity(chosen, cells, picture), number)
        if earlier != number:
            problems.append(f"says the same as line {earlier} again")
        for found, listed in ((words, undeclared), (problems, wrong)):
            for problem in found:
                listed.setdefault(problem, []).append(number)
        if not words and not problems:
            sure = {name: level for name, level in said.items() if level is not None}
            if NOT_ONE_PERSON in sure.values():  # which is said of the picture, and so in all its attributes
                sure = dict.fromkeys(sure, NOT_ONE_PERSON)
            sure |= {both.name: both.one([sure[part.name] for part in both.of]) for both in combinations}
            yield Line(number=number, cells=cells, concept=concept, n=n, picture=picture, said=sure)
    if empty:
        raise InputError(f"{path}: has no line but the first")
    if undeclared or wrong:
        raise checks.all_wrong(path, undeclared | wrong, len(undeclared) + checks.MOST_PROBLEMS)


def _not_declared(chosen: ImportStudy, cells: dict[str, str], said: dict[str, str | None]) -> Iterator[str]:
    for name, level in said.items():
        if level is None:
            column = chosen.attributes[name].column
            known = (*ATTRIBUTES[name].levels, CANNOT_TELL, NOT_ONE_PERSON)
            yield (
                f"{column} {cells[column]!r} is not in attributes.{name}.levels; put it to one of: {', '.join(known)}"
            )


def _groups(chosen: ImportStudy) -> dict[str, dict[str, str]]:
    """Every arm and own reference, and which lines are of it."""
    arms = {f"arm {name}": made.lines for name, made in chosen.arms.items()}
    return arms | {f"reference {own.publisher}, {own.table}": own.lines for own in chosen.own_references}


def _takers(chosen: ImportStudy, cells: dict[str, str]) -> list[str]:
    return [name for name, wanted in _groups(chosen).items() if _takes(wanted, cells)]


def _not_taken(chosen: ImportStudy, cells: dict[str, str]) -> Iterator[str]:
    """A line is of one arm or of one reference."""
    takers = _takers(chosen, cells)
    asked = {column: cells[column] for wanted in _groups(chosen).values() for column in wanted}
    if len(takers) != 1:
        at = ", ".join(f"{column} {value!r}" for column, value in asked.items()) or "every line"
        yield f"{at} is of {' and '.join(takers)}; of one alone" if takers else f"{at} is of no arm and no reference"


def _pictures(chosen: ImportStudy, folder: Path, cells: dict[str, str]) -> tuple[int, str, str]:
    """How many pictures a line stands for, where its picture is if they are here, and what is wrong with it."""
    columns = chosen.columns
    if columns.count is not None:
        cell = cells[columns.count]
        if not COUNT.fullmatch(cell):
            return 0, "", f"{columns.count} {cell!r} is no count; it should be a whole number from 0 to 999999999999"
        return int(cell), "", ""
    name = cells[columns.image or ""]
    if not name:
        return 0, "", f"{columns.image} is empty, so no picture is named"
    if chosen.images is None:
        return 1, "", ""
    if "\0" in chosen.images + name:
        return 0, "", f"{columns.image} {name!r} of {chosen.images!r} has a NUL byte in it, which no file's name has"
    home = os.path.realpath(folder / chosen.images)
    place = os.path.realpath(os.path.join(home, name))  # Path.resolve() raises where two links lead to each other
    if not Path(place).is_relative_to(home):
        return 0, "", f"{columns.image} {name!r} leads out of the folder {chosen.images}"
    return 1, place, ""


def _identity(chosen: ImportStudy, cells: dict[str, str], picture: str) -> tuple[str, ...]:
    """What may be in a file once: a picture, by where it is if it is here, else by its name in its arm; or a count of
    something."""
    if picture:
        return (picture,)
    if chosen.columns.image is not None:  # two models may each have a 1.png
        return (cells[chosen.columns.image], *_takers(chosen, cells))
    return tuple(cell for column, cell in cells.items() if column != chosen.columns.count)


# -- the pictures ------------------------------------------------------------------------------------


def _unread(places: Sequence[str]) -> dict[str, str]:
    """The pictures that give no pixels, and why."""
    with (
        warnings.catch_warnings(),  # `decoded` has filters of its own, which threads would leave to the whole process
        ThreadPoolExecutor(READERS) as readers,
        progress("reading", total=len(places), unit="pictures") as advance,
    ):
        failed: dict[str, str] = {}
        for place, why in zip(places, readers.map(_why_unread, places), strict=True):
            failed |= {place: why} if why else {}
            advance(1, "")
    return failed


def _why_unread(place: str) -> str:
    """Why a file gives no pixels; empty where it does."""
    path = Path(place)
    try:
        content = bytes_of(path) if path.is_file() else "no such file"
    except OSError as error:  # such as a name that is too long
        return f"cannot be read: {error.strerror}"
    found = content if isinstance(content, str) else decoded(content)
    return found if isinstance(found, str) else ""
