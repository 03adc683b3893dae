"""Which truth do intervals hold least often? `python -m scripts.hardest_truths [--levels 2]`.

For 10 labels of each level and 20 and 200 images, over all shares, errors and abstentions of `pipeline/simulation.py`:
the credible level from which on 95 % of the audits hold the truth. The highest belongs to the hardest truth, which
`typecast validate` needs in its grid to say how wide an interval has to be.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np

from pipeline.progress import progress
from pipeline.simulation import CREDIBLE, RIGHT, SHARES, UNDECIDED, Cell, measure

LABELS, AUDITS = 10, 400


def main() -> None:
    """Simulate, and print the hardest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, choices=SHARES["middle"], default=2)
    levels = parser.parse_args().levels
    truths = [*product([name for name in SHARES if name != "none"], RIGHT, UNDECIDED)]
    for images in (20, 200):
        found = []
        with progress(f"{images} images", total=len(truths), unit="truths") as advance:
            for shares, errors, undecided in truths:
                cell = Cell(
                    levels=levels, shares=shares, images=images, labels=LABELS, errors=errors, undecided=undecided
                )
                rank = measure(cell, AUDITS, np.random.default_rng(0)).rank()
                level = float(np.interp(rank, np.arange(len(CREDIBLE)), CREDIBLE))
                found.append((level, f"{shares}, {errors}, {undecided}"))
                advance(1, "")
        for level, truth in sorted(found, reverse=True):
            print(f"{images} images: {truth}: {level:.3f}")


if __name__ == "__main__":
    main()
