"""Why was an image read as it was? What the probe saw of one unit, from the run and the labelled pictures that it has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from classifiers.attributes import PEOPLE
from classifiers.probe import Probe
from pipeline import labels, line, probes, stages
from pipeline.errors import InputError, RunError
from pipeline.line import Readable
from pipeline.types import Attribute, Perceiver

NEAREST = 5
FACES = dict(zip(PEOPLE.levels, ("no face was found", "one face was found", "several faces were found"), strict=True))


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What was seen of one attribute."""

    attribute: Attribute
    probabilities: dict[str, float]
    decision: str
    threshold: float | None
    votes: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Of a probe that asks in words: each phrasing (what it says of the first level), the level that it would name
    alone, and that level's probability."""

    @property
    def margin(self) -> float:
        """Between the most probable level and the next."""
        first, second = sorted(self.probabilities.values(), reverse=True)[:2]
        return first - second


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A labelled picture, by the cosine of its embedding."""

    name: str
    cosine: float
    labels: dict[str, str]


def explain(
    opened: Readable, unit: str, changes: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Reason], list[Neighbour]]:
    """The row of an image with what people said of it (`opinions`), what was seen of each attribute, and the nearest
    labelled pictures.

    From the kept embedding: no image is read again. `unit` is a unit id or its beginning; `changes` name another
    perceiver, as those of `line.perceive`.
    """
    run, study, _ = opened
    by = line.other_perceiver(study, changes) if changes else study
    name = by.perceive.name
    row, shard = _row(opened, unit)
    if row["status"] != "made":
        raise InputError(f"{row['unit_id']}: is {row['status']}: {row['reason']}; there is no image to explain")
    if not run.perceptions(name, shard).exists():
        again = ["typecast", "perceive", str(run.folder), *(word for change in changes for word in ("--set", change))]
        raise RunError(f"{run.folder}: {shard.name} is not perceived by {name}; run: {shlex.join(again)}")
    ids, rows, embeddings = stages.kept_embeddings(run, name, shard)
    embedding = embeddings[rows.index(ids.index(row["unit_id"]))][None]
    perceiver = line.open_within(by)
    said = perceiver.from_embeddings(embedding)
    columns = [a.name for a in perceiver.attributes] + ([] if by.perceive.people == "keep_all" else [PEOPLE.name])
    decided = run.read_perceptions(name, shard, columns).to_pylist()[ids.index(row["unit_id"])]
    reasons = [
        Reason(
            attribute=a,
            probabilities=dict(zip(a.levels, said.probabilities[a.name][0].tolist(), strict=True)),
            decision=decided[a.name],
            threshold=perceiver.thresholds[a.name] if isinstance(perceiver, Probe) else None,
            votes=_votes(perceiver, a, embedding),
        )
        for a in perceiver.attributes
    ]
    # labelled pictures by the same CLIP: a fitted probe's own, or those of the probe that ships
    folder = line.probe_folder(by.perceive.probe) or (line.EMBEDDED_PROBE if by.perceive.clip == "embedded" else None)
    said_by_people = labels.opinions(run, [shard], name, line.read_by(run, by))
    row["opinions"] = [opinion for opinion in said_by_people if opinion.unit_id == row["unit_id"]]
    row |= {"perceiver": name, "people": by.perceive.people, "faces": FACES.get(decided.get(PEOPLE.name), "")}
    return row, reasons, nearest(folder, embedding[0]) if folder else []


def _row(opened: Readable, unit: str) -> tuple[dict[str, Any], Any]:
    run, _, planned = opened
    columns = ["unit_id", "concept", "arm", "prompt_sent", "file", "sample", "status", "reason"]
    found = [
        (row, shard)
        for shard in planned.shards()
        if run.images(shard).exists()
        for row in run.read_images(shard, columns).to_pylist()
        if row["unit_id"].startswith(unit)
    ]
    if len(found) != 1:
        what = "no image" if not found else f"{len(found)} images"
        raise InputError(f"{unit!r}: is the beginning of {what} of {run.folder}; a unit_id is in images/*.parquet")
    return found[0]


def _votes(perceiver: Perceiver, attribute: Attribute, embedding: Any) -> dict[str, tuple[str, float]]:
    votes = {}
    for text, head in (perceiver.wordings(attribute.name) if isinstance(perceiver, Probe) else {}).items():
        shares = head.probabilities(embedding)[0]
        votes[text] = attribute.levels[int(shares.argmax())], float(shares.max())
    return votes


def nearest(folder: Path, embedding: Any, n: int = NEAREST) -> list[Neighbour]:
    """The labelled pictures of a probe whose embeddings are nearest to `(d,)`; none where it has none of that length."""
    table = probes.read_labelled(folder)
    if table is None:
        return []
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    known, wanted = flat.reshape(len(table), -1), embedding.astype(np.float64)
    if known.shape[1] != len(wanted):
        return []
    cosines = known @ wanted / np.linalg.norm(known, axis=1) / np.linalg.norm(wanted)
    known_labels = table.drop_columns(["embedding", "sha256", "image"]).to_pylist()
    return [
        Neighbour(
            name=table["image"][i].as_py(),
            cosine=float(cosines[i]),
            labels={key: value for key, value in known_labels[i].items() if value},
        )
        for i in np.argsort(-cosines, kind="stable")[:n].tolist()
    ]


def shown(row: dict[str, Any], reasons: Sequence[Reason], neighbours: Sequence[Neighbour]) -> Iterator[Table | str]:
    """For a terminal."""
    asked = f"“{row['prompt_sent']}”, arm {row['arm']}"  # of a picture made elsewhere nobody knows
    what = f"{row['file']}, “{row['concept']}”" if row["file"] else asked
    yield f"{row['unit_id']}\n{what}, sample {row['sample']}; read by {row['perceiver']}"
    if row["faces"]:
        yield f"{row['faces']} (perceive.people: {row['people']})"
    for said in row["opinions"]:
        people = said.people or "people disagree"
        kind = "in the sample" if said.sampled == "sample" else "a correction"
        yield f"{said.attribute}, by people: {people} ({said.answers}; {kind}); what stands: {said.stands}"
    for reason in reasons:
        rule = f", needs {reason.threshold:.2f}" if reason.threshold is not None else ""
        table = Table(
            title=f"{reason.attribute.title}: {reason.decision} (margin {reason.margin:.2f}{rule})", box=SIMPLE
        )
        table.add_column("level")
        table.add_column("probability", justify="right")
        table.add_column("named by", justify="right")
        for level, probability in reason.probabilities.items():
            voices = sum(vote == level for vote, _ in reason.votes.values())
            table.add_row(level, f"{probability:.3f}", f"{voices} of {len(reason.votes)}" if reason.votes else "")
        yield table
        against = {
            text: vote
            for text, vote in reason.votes.items()
            if vote[0] != max(reason.probabilities, key=lambda level: reason.probabilities[level])
        }
        for text, (level, probability) in against.items():
            yield f"  asked “{text}” and its like alone: {level} ({probability:.2f})"
    if neighbours:
        table = Table(title="nearest labelled pictures", box=SIMPLE)
        for column in ("cosine", "picture", "labelled"):
            table.add_column(column)
        for neighbour in neighbours:
            table.add_row(f"{neighbour.cosine:.3f}", neighbour.name, ", ".join(neighbour.labels.values()))
        yield table
    else:
        yield "nearest labelled pictures: none are known; a probe that `typecast probe fit` wrote keeps its own"
