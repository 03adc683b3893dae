"""What a million perceptions cost to estimate: `python -m scripts.bench_estimate [--largest 1000000] [--batches 4]`.

Shards as a run leaves them (153 occupations, 4 arms, 3 attributes), made up by a fake and without pictures, go through
the real path: read, count, correct, compare, pool, write. The fake's errors were counted on labelled pictures, either of
any concept, or of each one and with each concept's own errors (`--by-concept`). Beside it a few batches are drawn with the
embedded model, in the same process: absolute times on a shared machine are noise. A perception is one attribute of one image.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifiers.attributes import ATTRIBUTES, readable
from pipeline import line, stages, store, study
from pipeline.mitigations import Negative, Suffix, Unchanged
from pipeline.plan import Plan, plan
from pipeline.store import Run
from pipeline.types import CANNOT_TELL, Attribute, ImageRecord, Perceived, Pixels, Shard
from scripts.bench_line import seconds

LABELS = 200
"""Per level, of any concept."""
LABELS_EACH = 10
"""Per level and concept."""
RIGHT, UNDECIDED = 0.9, 0.05
ARMS = (Unchanged(), Suffix(name="plain", text="."), Suffix(name="odd", text="!"), Negative(text="grey"))


class MadeUp:
    """A perceiver that looks at nothing: shares differ between concepts, and a known part is read wrong."""

    name = "made-up-zero_shot"
    attributes = tuple(ATTRIBUTES[name] for name in ("gender", "skin_tone", "age"))

    def __init__(self, concepts: Sequence[str] = ()) -> None:
        """With labelled pictures of each of these concepts, or else of any."""
        self.concepts = concepts

    def perceive(self, images: Sequence[Pixels]) -> Perceived:
        """There are no images."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """There are no words either."""
        raise NotImplementedError

    def confusion(self, attribute: str) -> npt.NDArray[np.int64]:
        """As on labelled pictures `(K, K + 1)`."""
        if self.concepts:
            return np.asarray(sum(self.confusion_by_concept(attribute).values()))
        return np.round(LABELS * chances(self._levels(attribute))).astype(np.int64)

    def confusion_by_concept(self, attribute: str) -> dict[str, npt.NDArray[np.int64]]:
        """Each concept errs in its own way: its chances are Dirichlet about those of all, as if from 20 pictures."""
        rng, around = np.random.default_rng(1), 20 * chances(self._levels(attribute))
        return {
            concept: np.stack([rng.multinomial(LABELS_EACH, rng.dirichlet(row)) for row in around])
            for concept in self.concepts
        }

    def _levels(self, attribute: str) -> int:
        return next(len(a.levels) for a in readable(self.attributes) if a.name == attribute)

    def of(self, concepts: Sequence[int], rng: np.random.Generator) -> Perceived:
        """What is read in one image of each concept."""
        decisions = {a.name: self._decisions(a, np.asarray(concepts), rng) for a in self.attributes}
        n = len(concepts)
        return Perceived(
            rng.random((n, 128)).astype(np.float16),
            {a.name: rng.random((n, len(a.levels)), np.float32) for a in self.attributes},
            decisions,
        )

    def _decisions(self, attribute: Attribute, concepts: npt.NDArray[np.int64], rng: np.random.Generator) -> list[str]:
        levels = len(attribute.levels)
        everyone = np.random.default_rng(0).dirichlet(np.ones(levels), concepts.max(initial=0) + 1)
        seen = (everyone @ chances(levels)).cumsum(1)[concepts]
        chosen = np.minimum((rng.random((len(concepts), 1)) > seen).sum(1), levels)
        return [(*attribute.levels, CANNOT_TELL)[k] for k in chosen]


def chances(levels: int) -> npt.NDArray[np.float64]:
    """What a picture of each level is taken for, `(K, K + 1)`."""
    errors = np.full((levels, levels), (1 - RIGHT) / (levels - 1))
    np.fill_diagonal(errors, RIGHT)
    return np.hstack([errors * (1 - UNDECIDED), np.full((levels, 1), UNDECIDED)])


def make(run: Run, planned: Plan, perceiver: MadeUp) -> None:
    """Write all shards of a run, images and perceptions, as its stages would."""
    rng = np.random.default_rng(0)
    place = {prompt.key: number for number, prompt in enumerate(planned.prompts)}
    for shard in planned.shards():
        _make(run, planned, shard, perceiver, place, rng)
    store.write_json(
        run.perceptions(perceiver.name, "x").with_name("perceiver.json"), stages.describe(perceiver, same_domain=True)
    )


def _make(
    run: Run,
    planned: Plan,
    shard: Shard,
    perceiver: MadeUp,
    place: dict[tuple[str, str, str, str], int],
    rng: np.random.Generator,
) -> None:
    units = planned.units(shard)
    records = [
        ImageRecord(unit=unit, batch=0, status="made", reason="", sha256="0" * 64, seconds=0.01) for unit in units
    ]
    run.write_images(shard, records, [None] * len(units), {})
    seen = perceiver.of([place[unit.prompt.key] for unit in units], rng)
    run.write_perceptions(perceiver.name, shard, [unit.id for unit in units], seen, perceiver.attributes)


def estimating(perceptions: int, folder: Path, *, by_concept: bool) -> tuple[int, float, float]:
    """Images, seconds and the process's peak memory in GiB so far, for about so many perceptions."""
    per_prompt = max(1, round(perceptions / (153 * len(ARMS) * len(MadeUp.attributes))))
    chosen = study.load(
        "fair_diffusion", (f"images_per_prompt={per_prompt}", "perceive.clip=made-up", "perceive.pretrained=null")
    )
    planned = replace(plan(chosen, weights="none"), arms=ARMS)
    run = Run(folder)
    make(run, planned, MadeUp([*dict.fromkeys(p.concept for p in planned.prompts)] if by_concept else ()))
    took = seconds(lambda: line.estimate((run, chosen, planned)))
    return len(planned), took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def drawing(batches: int) -> float:
    """Seconds for an image with the embedded model, as the demo draws."""
    chosen = study.load("emoji")
    planned = stages.plan_of(chosen)
    generator = line.open_generator(chosen, planned)
    some = [batch for _, batch in planned.batches(planned.shards()[0])][: batches + 1]
    generator.draw(some[0])  # warm
    return seconds(lambda: [generator.draw(batch) for batch in some[1:]]) / (batches * chosen.draw.batch_size)


def main() -> None:
    """Three sizes, each ten times the one before; then the drawing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--by-concept", action="store_true", help="labelled pictures of every concept")
    args = parser.parse_args()
    before, images, took = math.nan, 0, math.nan
    for perceptions in (args.largest // 100, args.largest // 10, args.largest):
        with tempfile.TemporaryDirectory() as folder:
            images, took, peak = estimating(perceptions, Path(folder), by_concept=args.by_concept)
        print(
            f"{perceptions:,} perceptions of {images:,} images: {took:.1f} s, {took / before:.1f} times the one before, "
            f"peak {peak:.2f} GiB (under 2)",
            flush=True,
        )
        before = took
    each = drawing(args.batches)
    print(
        f"the embedded model draws an image in {each:.4f} s, all of them in {each * images / 60:.0f} min; "
        f"estimating is {took / (each * images):.4f} of that (at most 0.01)"
    )


if __name__ == "__main__":
    main()
