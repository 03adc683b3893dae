"""Which truth do intervals hold least often? `python -m scripts.hardest_truths [--levels 2] [--labels 10] [--audits 400]`.

For 20 and 200 images, over all shares, errors and abstentions of `pipeline/simulation.py`: the credible level from which
on 95 % of the audits hold the truth. The highest belongs to the hardest truth, which `typecast validate` needs in its
grid to say how wide an interval has to be.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np

from pipeline.progress import progress
from pipeline.simulation import CREDIBLE, RIGHT, SHARES, UNDECIDED, Cell, measure


def main() -> None:
    """Simulate, and print the hardest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("levels", 2), ("labels", 10), ("audits", 400), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    truths = [*product([name for name in SHARES if name != "none"], RIGHT, UNDECIDED)]
    for images in (20, 200):
        found = []
        with progress(f"{images} images", total=len(truths) * args.audits, unit="audits") as advance:
            for shares, errors, undecided in truths:
                cell = Cell(
                    levels=args.levels,
                    shares=shares,
                    images=images,
                    labels=args.labels,
                    errors=errors,
                    undecided=undecided,
                )
                rank = measure(cell, args.audits, np.random.default_rng(args.seed), advance).rank()
                level = float(np.interp(rank, np.arange(len(CREDIBLE)), CREDIBLE))
                found.append((level, f"{shares}, {errors}, {undecided}"))
        for level, truth in sorted(found, reverse=True):
            print(f"{images} images: {truth}: {level:.3f}")


if __name__ == "__main__":
    main()
