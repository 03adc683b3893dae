"""Reference table -> `Distribution` with its `Source`: what the shares of a run are held against.

A share that is not there has a reason, and is never zero. What the tables hold is in `reference/sources.yaml`;
which concept stands for which row of the labour statistics is in `reference/occupation_to_bls.csv`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Literal, cast, get_args

from pydantic import Field, ValidationError

from pipeline import checks
from pipeline.errors import InputError, one_of
from pipeline.types import Distribution, Source
from prompt_sets.prompts import FOLDER, Part

REFERENCE = FOLDER / "reference"

THE_REST = "the rest"
"""In `sources.yaml`, the level that is one minus the others."""

SUPPRESSED_BELOW = 50.0
"""Thousand people: BLS publishes no percentages for a smaller base, and neither do we where it gives counts."""

BASE = "all employed"
"""The group of a base rate."""

Quality = Literal["good", "fair", "poor", "suppressed", "none"]


class Columns(Part):
    """Where the levels of an attribute stand in a table."""

    title: str
    """As a source line prints it."""
    levels: dict[str, str]
    """Level to column of the file, or `the rest`."""
    may_include: dict[str, str] = Field(default_factory=dict)
    """Level to the column of people who are counted in it and whom a viewer may not name so."""
    note: str = ""


class Copy(Part):
    """Where one year was copied from, and whether a second copy agrees."""

    retrieved_from: str
    checked: str


class Table(Part):
    """An entry of `sources.yaml`: a table with its licence and what its columns mean."""

    publisher: str
    table: str
    title: str
    file: str
    layout: Literal["wide", "long"]
    """`wide`: a row per occupation and year; `long`: a row per occupation, attribute and level."""
    unit: Literal["percent", "thousands", "share"]
    licence: str
    interval: str
    """What `low` and `high` are."""
    base: str
    """The row of all employed; in a long table, the name that the mean over its rows gets."""
    total: str = ""
    """The column with the number of people, in thousands."""
    people_per_answer: float | None = Field(default=None, gt=0)
    """For how many people one independent answer of the survey stands, so that sampling error can be had from
    `total`; `None` where the shares are exact."""
    years: dict[str, Copy]
    """Empty where a table is of no year."""
    attributes: dict[str, Columns] = Field(min_length=1)
    notes: tuple[str, ...] = ()


class Sources(Part):
    """`sources.yaml`."""

    tables: dict[str, Table] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One occupation in one year."""

    name: str
    thousands: float
    """People behind it; NaN where the table does not say."""
    shares: dict[str, dict[str, float]]
    """Attribute to level to share in 0..1; an attribute that is suppressed is not there."""
    doubtful: dict[str, dict[str, float]] = field(default_factory=dict)
    """Attribute to level to the share of people of that level whom a viewer may not name so."""

    def share(self, attribute: str, level: str) -> float:
        """Of an attribute that is there; NaN where the level is not."""
        return self.shares[attribute].get(level, math.nan)

    def least(self, attribute: str, level: str) -> float:
        """The smallest share that a viewer may see: without those who may not be named so."""
        return max(self.share(attribute, level) - self.doubtful.get(attribute, {}).get(level, 0.0), 0.0)


Rows = dict[tuple[int | None, str], Row]
"""By year and the row's name in lower case: BLS changed `File clerks` to `File Clerks`."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Which row stands for a concept, and how well."""

    concept: str
    row: str
    row_2019: str
    """The row before the recoding of 2020, where its name differs and it is close; else empty."""
    quality: Quality
    note: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A table in one year."""

    table: str
    """Its name in `sources.yaml`."""
    title: str
    """For a reader: `CPS Table 11, 2023`."""
    year: int | None
    attributes: tuple[str, ...]
    interval: str
    """What `low` and `high` are: for BLS a range over the years, no sampling interval."""
    entry: Table = field(repr=False)
    rows: Rows = field(repr=False)
    matches: dict[str, Match] | None = field(repr=False)
    """By concept in lower case; `None` where the rows are the concepts."""

    def match(self, concept: str) -> Match | str:
        """The row that stands for a concept and how well, or the reason why there is none."""
        if self.matches is None:
            if (self.year, concept.casefold()) not in self.rows:
                return f"{self.title} has no row for {concept!r}"
            return Match(concept=concept, row=concept, row_2019="", quality="good", note="")
        found = self.matches.get(concept.casefold())
        if found is None:
            return f"no row of {self.entry.table} is mapped to {concept!r}"
        if found.quality == "none":
            return f"{self.entry.table} has no row for {concept!r}: {found.note}"
        return found

    def distribution(self, concept: str, attribute: str, levels: tuple[str, ...]) -> Distribution | str:
        """The shares of a concept over `levels`, or the reason why they are missing."""
        found = self.match(concept)
        if isinstance(found, str):
            return found
        return self._distribution(self.row(found), concept, attribute, levels)

    def row(self, match: Match) -> str:
        """The name of a match's row in the table's year."""
        return match.row_2019 if self.year == 2019 and match.row_2019 else match.row

    def base(self, attribute: str, levels: tuple[str, ...]) -> Distribution | str:
        """The base rate of the same table: all employed, or the mean over the rows where it says so."""
        return self._distribution(self.entry.base, BASE, attribute, levels)

    def _distribution(self, name: str, group: str, attribute: str, levels: tuple[str, ...]) -> Distribution | str:
        columns = self.entry.attributes.get(attribute)
        if columns is None:
            return f"{self.title} says nothing about {attribute}"
        if not set(columns.levels) & set(levels):
            return f"{self.title} gives {attribute} as {', '.join(columns.levels)}; not as {', '.join(levels)}"
        row = self.rows.get((self.year, name.casefold()))
        if row is None:
            return f"{self.title} has no row {name!r}; its rows changed between the years"
        if attribute not in row.shares:
            if self.entry.layout == "long":
                return f"{self.title} has nobody under {name!r} whose {attribute} is told"
            few = f"{row.thousands:g} thousand people, fewer than {SUPPRESSED_BELOW:g} thousand"
            return f"{self.title} suppresses {name!r}: {few}"
        years = [other for (_, key), other in self.rows.items() if key == name.casefold() and attribute in other.shares]
        answers = self.entry.people_per_answer
        return Distribution(
            attribute=attribute,
            group=group,
            levels=levels,
            shares=tuple(row.share(attribute, level) for level in levels),
            low=tuple(min(other.least(attribute, level) for other in years) for level in levels),
            high=tuple(max(other.share(attribute, level) for other in years) for level in levels),
            least=tuple(row.least(attribute, level) for level in levels),
            n=round(1000 * row.thousands / answers) if answers else None,
            source=self.source(attribute),
        )

    def source(self, attribute: str) -> Source:
        """Where the numbers of an attribute come from."""
        title = self.entry.attributes[attribute].title
        return Source(
            publisher=self.entry.publisher,
            table=self.entry.table,
            year=self.year,
            column=title,
            licence=self.entry.licence,
        )


def tables() -> list[str]:
    """The reference tables that ship."""
    return sorted(_entries())


def occupations() -> frozenset[str]:
    """The concepts that are known to be occupations, in lower case, whether or not a table has a row for them."""
    return frozenset(_matches())


def load_reference(table: str, year: int | None = None) -> Reference:
    """A reference table in one year; `None` is its newest."""
    entry = _entries()[one_of(table, _entries(), where="reference.table")]
    years = sorted(int(key) for key in entry.years)
    if year is None:
        year = years[-1] if years else None
    elif year not in years:
        known = ", ".join(map(str, years)) or "none: leave year out"
        raise InputError(f"reference.year: {table} has no year {year!r}; the years are: {known}")
    return Reference(
        table=table,
        title=f"{entry.table}, {year}" if year else entry.table,
        year=year,
        attributes=tuple(entry.attributes),
        interval=entry.interval,
        entry=entry,
        rows=_rows(table),
        matches=_matches() if entry.layout == "wide" else None,
    )


def counted_reference(
    *,
    publisher: str,
    table: str,
    title: str,
    licence: str,
    levels: Mapping[str, tuple[str, ...]],
    counts: Mapping[tuple[str, str, str], int],
) -> Reference:
    """A reference that was counted, such as the pictures that a model has learnt from: exact but for sampling.

    `levels` by attribute, `counts` of pictures by concept, attribute and level; other levels than those are left out.
    The base rate is the mean over the concepts, of which a study asks equally often. A concept without a picture
    has no row.
    """
    cells: dict[str, dict[str, dict[str, int]]] = {}
    for (concept, attribute, level), n in counts.items():
        if level in levels[attribute]:
            cells.setdefault(concept, {}).setdefault(attribute, dict.fromkeys(levels[attribute], 0))[level] += n
    rows: Rows = {}
    for concept, attributes in cells.items():
        sizes = {attribute: sum(its.values()) for attribute, its in attributes.items()}
        shares = {a: {level: n / sizes[a] for level, n in its.items()} for a, its in attributes.items() if sizes[a]}
        if shares:  # of several attributes the smallest count stands for all
            answers = min(sizes[a] for a in shares)
            rows[None, concept.casefold()] = Row(name=concept, thousands=answers / 1000, shares=shares)
    base = "mean over the concepts"
    means = {
        attribute: {level: fmean(row.shares[attribute][level] for row in some) for level in its}
        for attribute, its in levels.items()
        if (some := [row for row in rows.values() if attribute in row.shares])
    }
    if means:  # the mean of C shares varies as that of one count of C² / Σ 1 / n
        size = len(rows) ** 2 / math.fsum(1 / row.thousands for row in rows.values())
        rows[None, base] = Row(name=base, thousands=size, shares=means)
    entry = Table(
        publisher=publisher,
        table=table,
        title=title,
        file="",
        layout="long",
        unit="share",
        licence=licence,
        interval="sampling error of the count, Wilson's",
        base=base,
        people_per_answer=1,
        years={},
        attributes={
            name: Columns(title=its[0] if len(its) == 2 else name, levels={level: level for level in its})
            for name, its in levels.items()
        },
    )
    return Reference(
        table=table,
        title=table,
        year=None,
        attributes=tuple(levels),
        interval=entry.interval,
        entry=entry,
        rows=rows,
        matches=None,
    )


# -- reading -----------------------------------------------------------------------------------------


@cache
def _entries() -> dict[str, Table]:
    path = REFERENCE / "sources.yaml"
    try:
        return Sources.model_validate(checks.read_yaml(path)).tables
    except ValidationError as error:
        raise checks.explain(error, where=str(path), model=Sources) from None


@cache
def _rows(table: str) -> Rows:
    entry = _entries()[table]
    lines = _lines(REFERENCE / entry.file)
    return _wide(entry, lines) if entry.layout == "wide" else _long(entry, lines)


@cache
def _matches() -> dict[str, Match]:
    path = REFERENCE / "occupation_to_bls.csv"
    matches = [
        Match(
            concept=line["concept"],
            row=line["bls_row"],
            row_2019=line["bls_row_2019"],
            quality=cast(Quality, one_of(line["match_quality"], get_args(Quality), where=path.name)),
            note=line["note"],
        )
        for line in _lines(path)
    ]
    return {match.concept.casefold(): match for match in matches}


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(cell: str) -> float:
    """A cell as a number; an empty one is NaN, not zero."""
    return float(cell) if cell.strip() else math.nan


def _wide(entry: Table, lines: Iterable[dict[str, str]]) -> Rows:
    rows: Rows = {}
    for line in lines:
        shares, doubtful = _wide_shares(entry, line)
        row = Row(name=line["occupation"], thousands=_number(line[entry.total]), shares=shares, doubtful=doubtful)
        rows[int(line["year"]), row.name.casefold()] = row
    return rows


def _wide_shares(entry: Table, line: dict[str, str]) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """`Row.shares` and `Row.doubtful` of one line; attributes with a suppressed cell are left out."""
    thousands = _number(line[entry.total])
    whole = 100.0 if entry.unit == "percent" else thousands
    shares, doubtful = {}, {}
    for attribute, columns in entry.attributes.items():
        cells = {level: _number(line[c]) for level, c in columns.levels.items() if c != THE_REST}
        doubts = {level: _number(line[c]) for level, c in columns.may_include.items()}
        if thousands >= SUPPRESSED_BELOW and not any(math.isnan(cell) for cell in (*cells.values(), *doubts.values())):
            shares[attribute] = _completed({level: cell / whole for level, cell in cells.items()}, columns)
            doubtful[attribute] = {level: cell / whole for level, cell in doubts.items()}
    return shares, doubtful


def _long(entry: Table, lines: Iterable[dict[str, str]]) -> Rows:
    """Rows of shares, and their mean under the name of the base."""
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for line in lines:
        levels = cells.setdefault(line["concept"], {}).setdefault(line["attribute"], {})
        levels[line["level"]] = _number(line["share"])
    columns = entry.attributes
    shares = {
        name: {attribute: _completed(levels, columns[attribute]) for attribute, levels in attributes.items()}
        for name, attributes in cells.items()
    }
    shares[entry.base] = {
        attribute: {level: fmean(row[attribute][level] for row in shares.values()) for level in its.levels}
        for attribute, its in columns.items()
    }
    return {(None, name.casefold()): Row(name=name, thousands=math.nan, shares=row) for name, row in shares.items()}


def _completed(given: dict[str, float], columns: Columns) -> dict[str, float]:
    """Shares with the level that is the rest."""
    rest = [level for level, column in columns.levels.items() if column == THE_REST]
    return given | {level: 1 - sum(given.values()) for level in rest}
