"""Labelled pictures -> a fitted, calibrated and measured probe in a folder; and how wrong any probe is on others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE
from rich.table import Table
from scipy import sparse

from classifiers import calibration, evaluation, labelled, linear, prototypes
from classifiers.attributes import ATTRIBUTES
from classifiers.clip import ClipModel
from classifiers.labelled import TEST, TRAIN, Album
from classifiers.probe import (
    CONFUSION,
    DESCRIPTION,
    WEIGHTS,
    Embeddings,
    Head,
    Probabilities,
    Probe,
    decide,
    fingerprint_of,
    softmax,
)
from classifiers.zero_shot import ZeroShot
from pipeline import figures, store
from pipeline.errors import InputError, one_of
from pipeline.estimates import wilson
from pipeline.progress import progress
from pipeline.types import CANNOT_TELL, Attribute, Intersection

KINDS = ("linear", "prototype", "zero_shot")
LABELLED = "labelled.parquet"
EVALUATION = "evaluation.json"
FIGURE = "evaluation.png"
FILES = (WEIGHTS, CONFUSION, LABELLED, FIGURE, DESCRIPTION)
"""Of a probe's folder; the last is written last, so that what was cut short can be done again."""
AT_ONCE = 64
FEWEST = 2
"""Labelled pictures of each level that a fit needs."""
POINTS = 200
"""Of a coverage curve as it is written: each half a percent of the pictures, however many there are."""


class Seen(NamedTuple):
    """The pictures of an album that could be read, embedded."""

    album: Album
    embeddings: Embeddings
    sha256: list[str]
    unreadable: dict[str, str]
    """Why not, by name."""

    def chosen(self, rows: Sequence[int]) -> Seen:
        """Some of them."""
        pictures = tuple(self.album.pictures[row] for row in rows)
        return Seen(
            replace(self.album, pictures=pictures),
            self.embeddings[list(rows)],
            [self.sha256[row] for row in rows],
            self.unreadable,
        )

    def labels(self, attribute: str) -> list[str | None]:
        """The level of each picture, `None` where it has none or where the same pixels are labelled otherwise."""
        said = [picture.labels.get(attribute) for picture in self.album.pictures]
        levels: dict[str, set[str]] = defaultdict(set)
        for sha, label in zip(self.sha256, said, strict=True):
            if label is not None:
                levels[sha].add(label)
        return [None if len(levels[sha]) > 1 else label for sha, label in zip(self.sha256, said, strict=True)]

    def alike(self, attribute: str) -> int:
        """How many labelled pictures no pixel tells apart from one that is labelled otherwise."""
        said = sum(attribute in picture.labels for picture in self.album.pictures)
        return said - sum(label is not None for label in self.labels(attribute))

    def repeated(self) -> int:
        """How many pictures are the same as an earlier one, pixel by pixel."""
        return len(self.sha256) - len(set(self.sha256))

    def groups(self) -> list[str]:
        """A name for each picture, the same for all that are learnt from together or judged together.

        These are the pictures of one group, those of the same pixels, and whatever hangs together by both: what was
        learnt by heart from a picture is no knowledge of its copy.
        """
        named = [picture.group or f"alone {row}" for row, picture in enumerate(self.album.pictures)]
        _, mine = np.unique(named, return_inverse=True)
        _, looks = np.unique(self.sha256, return_inverse=True)
        n = len(named)  # a picture is an edge from its group to its pixels
        edges = sparse.coo_array((np.ones(n), (mine, n + looks)), shape=(2 * n, 2 * n))
        _, part = sparse.csgraph.connected_components(edges, directed=False)
        first = {part[group]: name for group, name in sorted(zip(mine, named, strict=True), reverse=True)}
        return [first[part[group]] for group in mine]


def look(album: Album, clip: ClipModel) -> Seen:
    """Every picture of an album, embedded once."""
    pictures, parts, digests, unreadable = [], [], [], {}
    with progress("embedding", total=len(album.pictures)) as advance:
        for start in range(0, len(album.pictures), AT_ONCE):
            batch = []
            for picture in album.pictures[start : start + AT_ONCE]:
                try:
                    batch.append((picture, picture.pixels()))
                except labelled.UNREADABLE as error:
                    unreadable[picture.name] = str(error) or type(error).__name__
            parts.append(clip.encode_images([pixels for _, pixels in batch]).astype(np.float16))
            digests += [store.sha256(pixels) for _, pixels in batch]
            pictures += [picture for picture, _ in batch]
            advance(min(AT_ONCE, len(album.pictures) - start), "")
    if not pictures:
        some = "; ".join(f"{name}: {why}" for name, why in list(unreadable.items())[: labelled.MOST])
        raise InputError(f"{album.what}: none of its {len(album.pictures)} pictures can be read: {some}")
    return Seen(replace(album, pictures=tuple(pictures)), np.concatenate(parts), digests, unreadable)


# -- fitting -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A head, calibrated, and what it says of the pictures that it was judged by."""

    head: Head
    threshold: float
    temperature: float
    keeps: bool
    """Does the threshold keep the risk?"""
    rows: npt.NDArray[np.int64]
    """The judged pictures `(m,)`."""
    truth: npt.NDArray[np.int64]
    probabilities: Probabilities
    """`(m, K)`: each picture's by a fit and a temperature that have not seen its group."""
    uncalibrated: Probabilities


def fit(
    clip: ClipModel, seen: Seen, kind: str, attributes: Sequence[Attribute], risk: float, *, name: str
) -> tuple[Probe, dict[str, Fitted]]:
    """A probe from labelled pictures; those of the split `test` are not touched.

    A picture of the split `train` is only learnt from. All others are judged too: in folds, by a fit on the rest, with
    the temperature of the other folds, so that no group of pictures is judged by what has seen it. The fit that is kept
    is on all of them.
    """
    one_of(kind, KINDS, where="--kind")
    words = ZeroShot(clip, attributes, threshold=0.0) if kind == "zero_shot" else None
    with progress("fitting", total=len(attributes), unit="attributes") as advance:
        fitted = {}
        for a in attributes:
            fitted[a.name] = _fit(seen, kind, a, risk, words.heads[a.name] if words else None)
            advance(1, "")
    heads = {attribute: each.head for attribute, each in fitted.items()}
    thresholds = {attribute: each.threshold for attribute, each in fitted.items()}
    return Probe(clip, attributes, heads, thresholds, name=name, confusion_file=None), fitted


def _besides_test(seen: Seen) -> list[int]:
    """The pictures that a fit may look at."""
    return [row for row, picture in enumerate(seen.album.pictures) if picture.split != TEST]


def _fit(seen: Seen, kind: str, attribute: Attribute, risk: float, words: Head | None) -> Fitted:
    pictures = seen.album.pictures
    ours = _besides_test(seen)
    labels = dict(zip(ours, seen.chosen(ours).labels(attribute.name), strict=True))
    rows = np.array([row for row, label in labels.items() if label is not None], np.int64)
    truth = np.array([attribute.levels.index(str(labels[row])) for row in rows], np.int64)
    judged = np.array([pictures[row].split != TRAIN for row in rows], bool)
    few = [level for k, level in enumerate(attribute.levels) if (truth == k).sum() < FEWEST]
    if (few and kind != "zero_shot") or not judged.any():
        why = (
            f"fewer than {FEWEST} pictures of {', '.join(few)}" if few else "no picture besides those of train and test"
        )
        raise InputError(f"{seen.album.what}: {attribute.name}: {why}; label more, or leave it out with --attributes")
    groups = seen.chosen(rows.tolist()).groups()

    def learnt(some: npt.NDArray[np.int64]) -> Head:
        """A head from some of the rows."""
        if words is not None:
            return words
        if kind == "prototype":
            return prototypes.fit(seen.embeddings[rows[some]], truth[some], len(attribute.levels))
        mine = [groups[i] for i in some]
        return linear.fit(seen.embeddings[rows[some]], truth[some], len(attribute.levels), mine, judged[some])

    fold = np.full(len(rows), -1)
    logits = np.zeros((len(rows), len(attribute.levels)))
    for number, (learn, held) in enumerate(linear.folds(truth, groups, judged)):
        if len(set(truth[learn])) < len(attribute.levels) and words is None:
            level = next(lv for k, lv in enumerate(attribute.levels) if k not in truth[learn])
            raise InputError(
                f"{seen.album.what}: {attribute.name}: all pictures of {level} are of one person or drawing, so none can "
                "be judged by what has not seen it; label more, or leave it out with --attributes"
            )
        logits[held] = learnt(learn).logits(seen.embeddings[rows[held]])
        fold[held] = number
    if (fold < 0).all():
        raise InputError(f"{seen.album.what}: {attribute.name}: all pictures are of one person or drawing; label more")
    out, mine = np.flatnonzero(fold >= 0), fold[fold >= 0]
    logits, truth_out = logits[out], truth[out]
    shares = np.zeros(logits.shape, np.float32)
    for number in set(mine.tolist()):
        here = mine == number
        shares[here] = softmax(logits[here] / calibration.temperature(logits[~here], truth_out[~here]))
    temperature = calibration.temperature(logits, truth_out)
    threshold, keeps = calibration.threshold_for(shares, truth_out, risk)
    head = learnt(np.arange(len(rows)))
    return Fitted(
        replace(head, scale=head.scale / temperature),
        threshold,
        temperature,
        keeps,
        rows[out],
        truth_out,
        shares,
        softmax(logits),
    )


def write(
    folder: Path,
    probe: Probe,
    fitted: Mapping[str, Fitted],
    seen: Seen,
    *,
    kind: str,
    clip: str,
    pretrained: str | None,
    risk: float,
) -> dict[str, Any]:
    """The folder of a probe, `probe.json` last; returns what is in it. See docs/perception.md for the files."""
    judged = sorted({int(row) for each in fitted.values() for row in each.rows})
    decisions, shares = _decided(probe, fitted, judged)
    part = _as_judged(seen, fitted, judged)
    found = measure(probe, part, decisions, shares)
    learnt_from = seen.chosen(_besides_test(seen))
    for name, each in fitted.items():
        found[name]["ece_uncalibrated"] = calibration.expected_calibration_error(each.uncalibrated, each.truth)
        found[name]["alike"] = learnt_from.alike(name)
    counted = evaluation.count(
        probe,
        decisions,
        {a.name: part.labels(a.name) for a in probe.attributes},
        concepts=[picture.concept for picture in part.album.pictures],
        pictures=f"{seen.album.what}, out of fold",
    )
    described = {
        "kind": kind,
        "clip": clip,
        "pretrained": pretrained,
        "pictures": seen.album.what,
        "risk": risk,
        "n_learnt_from": len(learnt_from.sha256),
        "n_judged": len(judged),
        "repeated": learnt_from.repeated(),
        "unreadable": seen.unreadable,
        "attributes": {
            a.name: {
                "levels": list(a.levels),
                "scale": probe.heads[a.name].scale,
                "temperature": fitted[a.name].temperature,
                "threshold": fitted[a.name].threshold,
                "keeps_the_risk": fitted[a.name].keeps,
            }
            for a in probe.attributes
        },
        "measured": found,
    }
    arrays = {
        f"{name}.{part}": getattr(head, part) for name, head in probe.heads.items() for part in ("weights", "bias")
    }
    with store.appears(folder / WEIGHTS) as file:
        np.savez(file, fingerprint=fingerprint_of(probe.clip), **arrays)
    store.write_json(folder / CONFUSION, counted)
    write_labelled(folder / LABELLED, learnt_from)
    figures.probe(curves(probe, part, shares), found, folder / FIGURE)
    store.write_json(folder / DESCRIPTION, described)
    return described


def _as_judged(seen: Seen, fitted: Mapping[str, Fitted], judged: Sequence[int]) -> Seen:
    """The judged pictures with the labels that each was judged by, and those that nothing was fitted to.

    A picture that is labelled otherwise than its copy is not judged for that, even where the copy is not among these.
    """
    mine = {name: set(each.rows.tolist()) for name, each in fitted.items()}
    part = seen.chosen(judged)
    pictures = tuple(
        replace(picture, labels={name: word for name, word in picture.labels.items() if row in mine.get(name, {row})})
        for row, picture in zip(judged, part.album.pictures, strict=True)
    )
    return part._replace(album=replace(part.album, pictures=pictures))


def _decided(
    probe: Probe, fitted: Mapping[str, Fitted], judged: Sequence[int]
) -> tuple[dict[str, list[str]], dict[str, Probabilities]]:
    """What was said of the judged pictures out of fold; of one that is not labelled for an attribute, nothing."""
    place = {row: i for i, row in enumerate(judged)}
    decisions, shares = {}, {}
    for a in probe.attributes:
        mine = fitted[a.name]
        where = [place[int(row)] for row in mine.rows]
        shares[a.name] = np.full((len(judged), len(a.levels)), np.nan, np.float32)
        shares[a.name][where] = mine.probabilities
        decisions[a.name] = [CANNOT_TELL] * len(judged)
        for i, decision in zip(where, decide(mine.probabilities, a.levels, mine.threshold), strict=True):
            decisions[a.name][i] = decision
    return decisions, shares


def write_labelled(path: Path, seen: Seen) -> None:
    """What the probe learnt from: names, labels and embeddings, no picture. For `explain`, and so that no picture is
    used to judge what has seen it."""
    pictures = seen.album.pictures
    width = seen.embeddings.shape[1]
    flat = pa.array(np.ascontiguousarray(seen.embeddings).reshape(-1))
    columns: dict[str, Any] = {
        "image": [p.name for p in pictures],
        "sha256": seen.sha256,
        "concept": [p.concept for p in pictures],
        **{name: [p.labels.get(name) for p in pictures] for name in seen.album.attributes},
        "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
    }
    with store.appears(path) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")


def read_labelled(folder: Path, columns: Sequence[str] = ()) -> pa.Table | None:
    """What `write_labelled` wrote, or some columns of it; `None` where the file was taken away."""
    file = folder / LABELLED
    if not file.is_file():
        return None
    try:
        table = pq.read_table(file, columns=[*columns] or None)
        table.select(columns or ["image", "sha256", "embedding"])
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own of a damaged file is a ValueError
        raise InputError(f"{file}: not written by `typecast probe fit`: {error}") from None
    return table


# -- measuring ---------------------------------------------------------------------------------------


def evaluate(
    probe: Probe, seen: Seen, *, learnt_from: frozenset[str] | None = frozenset()
) -> tuple[dict[str, Any], Seen]:
    """How wrong a probe is, and the pictures that say so: those of the split `test` if there are any, else all but those
    of `train`.

    A picture whose pixels are in `learnt_from` is left out; `None`: what the probe has learnt from is not known.
    """
    splits = [picture.split for picture in seen.album.pictures]
    tests = TEST in splits
    judged = [i for i, split in enumerate(splits) if (split == TEST if tests else split != TRAIN)]
    rows = [i for i in judged if seen.sha256[i] not in (learnt_from or ())]
    if not rows:
        why = "the probe has learnt from every picture of it" if judged else "all its pictures are of the split train"
        raise InputError(f"{seen.album.what}: {why}; none is left to judge by")
    part = seen.chosen(rows)
    said = probe.from_embeddings(part.embeddings)
    found = measure(probe, part, said.decisions, said.probabilities)
    return {
        "probe": probe.name,
        "pictures": seen.album.what,
        "split": TEST if tests else "",
        "n": len(rows),
        "left_out": len(seen.album.pictures) - len(rows),
        "learnt_from_is_known": learnt_from is not None,
        "repeated": part.repeated(),
        "unreadable": seen.unreadable,
        "measured": found,
    }, part


def learnt_from(folder: Path) -> frozenset[str] | None:
    """Digests of the pixels that a fitted probe has seen; `None` where that file was taken away."""
    table = read_labelled(folder, ["sha256"])
    return None if table is None else frozenset(table["sha256"].to_pylist())


def measure(
    probe: Probe, seen: Seen, decisions: Mapping[str, Sequence[str]], shares: Mapping[str, Probabilities]
) -> dict[str, Any]:
    """Per attribute and pair of attributes: counts, over all and by concept, accuracy by group too, leaks; calibration.

    Groups are of all that the pictures are labelled for, whether the probe reads it or not.
    """
    attributes = [a for a in probe.attributes if any(seen.labels(a.name))]
    read = evaluation.alone_and_in_pairs(attributes)
    truths = {a.name: seen.labels(a.name) for a in attributes}
    labels, said = evaluation.with_intersections(read, truths, decisions)
    known = evaluation.alone_and_in_pairs([ATTRIBUTES[name] for name in seen.album.attributes])
    groups = evaluation.groups(known, {name: seen.labels(name) for name in seen.album.attributes})
    concepts = [picture.concept for picture in seen.album.pictures]
    drawn = curves(probe, seen, shares)
    found: dict[str, Any] = {}
    for a in read:
        rows = evaluation.crossed(a.levels, labels[a.name], said[a.name])
        by_concept = evaluation.crossed_by_concept(a.levels, labels[a.name], said[a.name], concepts)
        entry: dict[str, Any] = {
            "title": a.title,
            "levels": list(a.levels),
            "n": int(rows.sum()),
            "accuracy": evaluation.accuracy(rows)._asdict(),
            "coverage": wilson(int(rows[:, :-1].sum()), int(rows.sum()))._asdict(),
            "confusion": rows.tolist(),
            "by_group": {
                name: {
                    group: estimate._asdict()
                    for group, estimate in evaluation.accuracy_by(labels[a.name], said[a.name], who).items()
                }
                for name, who in groups.items()
            },
            "confusion_by_concept": by_concept,
            "by_concept": {c: evaluation.accuracy(counts)._asdict() for c, counts in by_concept.items()},
            "leaks": evaluation.leaks(by_concept, a.levels),
        }
        if not isinstance(a, Intersection):
            probabilities, truth = _labelled_only(a, labels[a.name], shares[a.name])
            right = int((probabilities.argmax(1) == truth).sum())
            entry |= {
                "alike": seen.alike(a.name),
                "accuracy_of_all": wilson(right, len(truth))._asdict(),
                "ece": calibration.expected_calibration_error(probabilities, truth),
                "ece_by_chance": calibration.noise_of_error(probabilities, np.random.default_rng(0)),
                **_written(drawn[a.name]),
            }
        found[a.name] = entry
    return found


def _labelled_only(
    attribute: Attribute, labels: Sequence[str | None], shares: Probabilities
) -> tuple[Probabilities, npt.NDArray[np.int64]]:
    rows = [i for i, label in enumerate(labels) if label is not None]
    return shares[rows], np.array([attribute.levels.index(str(labels[i])) for i in rows], np.int64)


def curves(probe: Probe, seen: Seen, shares: Mapping[str, Probabilities]) -> dict[str, figures.Curves]:
    """What the figure of a probe draws, per attribute."""
    found: dict[str, figures.Curves] = {}
    for a in probe.attributes:
        probabilities, truth = _labelled_only(a, seen.labels(a.name), shares[a.name])
        if len(truth):
            said, held, n = calibration.calibration_curve(probabilities, truth)
            thresholds, decided, right = calibration.coverage(probabilities, truth)
            found[a.name] = figures.Curves(said, held, n, thresholds, decided, right, probe.thresholds[a.name])
    return found


def _written(curve: figures.Curves) -> dict[str, Any]:
    """Both curves as columns, that of coverage thinned to `POINTS` at equal shares of the pictures and its last."""
    shares = np.arange(1, POINTS + 1) / POINTS
    some = np.unique(np.searchsorted(curve.decided, shares - 1e-9).clip(max=len(curve.decided) - 1))
    return {
        "calibration_curve": {"said": curve.said.tolist(), "right": curve.held.tolist(), "n": curve.n.tolist()},
        "coverage_curve": {
            "threshold": curve.thresholds[some].tolist(),
            "decided": curve.decided[some].tolist(),
            "right": curve.right[some].tolist(),
        },
    }


def shown(found: Mapping[str, Any]) -> Iterator[Table | str]:
    """What was measured, for a terminal."""
    table = Table(title=f"on {found['pictures']}{', test split' if found.get('split') else ''}", box=SIMPLE)
    for column in (
        "attribute",
        "labelled",
        "right of all, %",
        "right of decided, %",
        "cannot tell, %",
        "ECE",
        "by chance",
    ):
        table.add_column(column, justify="left" if column == "attribute" else "right", no_wrap=column == "attribute")
    for name, entry in found["measured"].items():
        if not entry["n"]:  # of two attributes, nothing is labelled for both
            continue
        table.add_row(
            name,
            str(entry["n"]),
            _percent(entry["accuracy_of_all"]) if "accuracy_of_all" in entry else "",
            _percent(entry["accuracy"]),
            f"{100 - 100 * entry['coverage']['value']:.1f}",
            f"{entry['ece']:.3f}" if "ece" in entry else "",
            f"{entry['ece_by_chance']:.3f}" if "ece" in entry else "",
        )
    yield table
    for name, entry in found["measured"].items():
        if "ece" in entry and entry["leaks"]:  # of an attribute by itself
            level, leak = max(
                entry["leaks"].items(), key=lambda item: (float(item[1]["value"]), float(item[1]["high"]))
            )
            low, high = (f"{100 * leak[end]:+.1f}" for end in ("low", "high"))
            if leak["value"] > 0:
                yield (
                    f"{name}: of people labelled {level}, those in {leak['concept']} are misread most: "
                    f"{100 * leak['value']:+.1f} points against all others; the worst of {leak['n_concepts']} concepts is "
                    f"between {low} and {high}, were the pictures independent"
                )
            else:
                yield (
                    f"{name}: in no concept people are misread more than in all others; the worst of {leak['n_concepts']} "
                    f"concepts for people labelled {level} is at most {high} points, were the pictures independent"
                )
        if entry.get("alike"):
            yield f"{name}: {entry['alike']} pictures are left out: the same pixels are labelled otherwise too"
    if found["repeated"]:
        yield f"{found['repeated']} pictures are the same as an earlier one, pixel by pixel; each of them counts"
    if found.get("left_out"):
        yield f"{found['left_out']} pictures are left out: they are not for testing, or the probe has learnt from them"
    if not found.get("learnt_from_is_known", True):
        yield (
            f"the folder of the probe holds no {LABELLED}: it may have learnt from these pictures, and is then less right "
            "about others"
        )
    for name, why in found["unreadable"].items():
        yield f"cannot be read: {name}: {why}"


def _percent(estimate: Mapping[str, Any]) -> str:
    return f"{100 * estimate['value']:.1f} ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


# -- the commands ------------------------------------------------------------------------------------


def fit_folder(
    source: str,
    *,
    clip: str,
    pretrained: str | None,
    kind: str,
    attributes: Sequence[str],
    risk: float,
    out: Path,
) -> dict[str, Any]:
    """`typecast probe fit`: everything that can be known to be wrong is said before a model is loaded."""
    one_of(kind, KINDS, where="--kind")
    if not 0 < risk < 1:
        raise InputError(f"--risk {risk:g}: give a share of the decided pictures between 0 and 1, such as 0.05")
    if out.is_dir() and not {p.name for p in out.iterdir() if p.name != DESCRIPTION} <= {*FILES}:
        raise InputError(f"{out}: holds other files; name another folder with --out")
    if (out / DESCRIPTION).exists():
        raise InputError(f"{out}: holds a probe already; delete it, or name another folder with --out")
    album = labelled.load(source)
    tested, others = ({p.group for p in album.pictures if (p.split == TEST) == test} - {""} for test in (True, False))
    if both := sorted(tested & others):
        some = ", ".join(both[: labelled.MOST]) + (
            f" and {len(both) - labelled.MOST} more" if both[labelled.MOST :] else ""
        )
        raise InputError(
            f"{source}: of the split {TEST} and of another: {some}; what has learnt from a person or drawing cannot be "
            "tested on it: put all pictures of each into one of the two"
        )
    for name in attributes:
        one_of(name, album.attributes, where="--attributes")
        if attributes.count(name) > 1:
            raise InputError(f"--attributes: {name} is named twice; name each attribute once")
    chosen = [ATTRIBUTES[name] for name in attributes or album.attributes]
    model = ClipModel(clip, pretrained)
    seen = look(album, model)
    probe, fitted = fit(model, seen, kind, chosen, risk, name=out.name)
    return write(out, probe, fitted, seen, kind=kind, clip=_absolute(clip), pretrained=pretrained, risk=risk)


def _absolute(clip: str) -> str:
    """A CLIP's name as it is found from any folder."""
    return str(Path(clip).expanduser().resolve()) if clip != "embedded" and Path(clip).is_dir() else clip


def evaluate_folder(probe: Probe, source: str, *, folder: Path | None, out: Path) -> dict[str, Any]:
    """`typecast probe evaluate`: measure a probe on labelled pictures, and write `evaluation.json` and a figure."""
    known = learnt_from(folder) if folder else frozenset()
    seen = look(labelled.load(source), probe.clip)
    found, part = evaluate(probe, seen, learnt_from=known)
    store.write_json(out / EVALUATION, found)
    shares = probe.from_embeddings(part.embeddings).probabilities
    figures.probe(curves(probe, part, shares), found["measured"], out / FIGURE)
    return found
