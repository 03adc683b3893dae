"""Do pooled intervals hold the truth where the classifier's errors differ between concepts? `python -m
scripts.validate_pooled`: simulated audits of twenty concepts, corrected by one matrix for all of them and by concept; the
table is written into docs/validation.md.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np
from scipy import special

from pipeline.amplification import directional_bias_amplification, mean_difference, pooled
from pipeline.estimates import Floats, Ints
from pipeline.progress import progress
from pipeline.types import Estimate
from scripts.emoji_world import HOME, women_shares
from scripts.pages import fill

REFERENCE = np.array([*women_shares().values()])
"""Women's shares in the twenty occupations of the emoji world, from 2 % to 92 %."""
BASE = float(REFERENCE.mean())
TRUTH = (0.0, 1.0, 0.3)
"""Shift, stretch and scatter of the model that is audited."""
SIZES = ((6, 25), (6, 400), (30, 100))
"""Labelled pictures of each level in each concept, and images of it."""
NUMBERS = ("shift", "stretch", "scatter", "mean difference", "directional")


def alike(rng: np.random.Generator) -> Floats:
    """Every concept is read alike: 93 % of women and 96 % of men right."""
    return np.tile([0.93, 0.96], (len(REFERENCE), 1))


def each_its_own(rng: np.random.Generator) -> Floats:
    """The same on average, but each concept's chances are its own, with an intraclass correlation of .15."""
    kappa, right = 1 / 0.15 - 1, np.array([0.93, 0.96])
    return np.asarray(rng.beta(kappa * right, kappa * (1 - right), (len(REFERENCE), 2)), dtype=np.float64)


def leaning(rng: np.random.Generator) -> Floats:
    """98 % are read right, but where women are six in ten or more, 60 % of them."""
    return np.column_stack([np.where(REFERENCE > 0.6, 0.6, 0.98), np.full(len(REFERENCE), 0.98)])


ERRORS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "alike": alike,
    "each its own": each_its_own,
    "leaning": leaning,
}


def audit(right: Floats, labels: int, images: int, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """What is predicted `(C, 2)`, the counts on labelled pictures `(C, 2, 2)`, and the true shares `(C, 2)`, women first."""
    x = special.logit(REFERENCE) - special.logit(BASE)
    shift, stretch, scatter = TRUTH
    p = special.expit(special.logit(BASE) + shift + stretch * x + scatter * rng.standard_normal(len(x)))
    women = rng.binomial(images, p)
    hits = rng.binomial(women, right[:, 0]) + rng.binomial(images - women, 1 - right[:, 1])
    told = rng.binomial(labels, right)
    table = np.array([[[w, labels - w], [labels - m, m]] for w, m in told])
    return np.column_stack([hits, images - hits]), table, np.column_stack([p, 1 - p])


def held(predicted: Ints, matrix: Ints, truth: Floats, rng: np.random.Generator) -> list[tuple[bool, float, float]]:
    """Of each of `NUMBERS`: is the truth in its interval, the interval's width, and the value's error."""
    reference = np.column_stack([REFERENCE, 1 - REFERENCE])
    fit = pooled(predicted, matrix, REFERENCE, BASE, rng=rng)
    mean = mean_difference(predicted, matrix, reference, rng=rng)[0]
    directional = directional_bias_amplification(predicted, matrix, reference, [BASE, 1 - BASE], rng=rng)
    away = truth[:, 0] - REFERENCE
    true = (*TRUTH, float(away.mean()), float((np.sign(REFERENCE - BASE) * away).mean()))
    found: tuple[Estimate, ...] = (fit.shift, fit.stretch, fit.scatter, mean, directional)
    return [(e.low <= t <= e.high, e.high - e.low, e.value - t) for e, t in zip(found, true, strict=True)]


def main() -> None:
    """Simulate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audits", type=int, default=100, help="of each row (default: %(default)s; some 25 minutes)")
    audits = parser.parse_args().audits
    lines = [
        f"By `python -m scripts.validate_pooled --audits {audits}`. Coverage, and mean width, of each interval by one "
        "matrix for all concepts → by concept.",
        "",
        f"| errors | labels | images | {' | '.join(NUMBERS)} |",
        f"|---|---|---|{'---|' * len(NUMBERS)}",
    ]
    rows = [*itertools.product(ERRORS, SIZES)]
    with progress("simulating", total=len(rows) * audits, unit="audits") as advance:
        for place, (name, (labels, images)) in enumerate(rows):
            found = []
            for number in range(audits):
                rng = np.random.default_rng([place, number])
                predicted, table, truth = audit(ERRORS[name](rng), labels, images, rng)
                found.append([held(predicted, matrix, truth, rng) for matrix in (table.sum(0), table)])
                advance(1, name)
            one, own = np.nanmean(np.array(found, dtype=np.float64), 0)
            scale = np.array([1, 1, 1, 100, 100])  # the last two are in points
            cells = [
                f"{a[0]:.2f} → {b[0]:.2f}; {a[1] * by:.2g} → {b[1] * by:.2g}"
                for a, b, by in zip(one, own, scale, strict=True)
            ]
            lines.append(f"| {name} | {labels} | {images} | {' | '.join(cells)} |")
    fill(HOME / "docs" / "validation.md", lines, mark="pooled")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
