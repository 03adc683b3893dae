"""What the line costs beside the models: `python -m scripts.bench_line [--images-per-prompt 50]`.

Ratios in one process, after loading: absolute times on a shared machine are noise.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from pipeline import line, stages, study
from pipeline.plan import plan


def seconds(block: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    block()
    return time.perf_counter() - start


def run_over_bare(images_per_prompt: int) -> None:
    """`run` of the demo (draw, perceive, encode, write, estimate, report) over the bare calls of both models."""
    chosen = study.load("emoji", (f"images_per_prompt={images_per_prompt}",))
    with tempfile.TemporaryDirectory() as folder:
        run, resolved, planned = opened = line.begin(chosen, Path(folder) / "run")
        generator = line.open_generator(resolved, planned)
        perceiver = line.noted(run, resolved, line.open_perceiver(resolved))
        batches = [batch for shard in planned.shards() for _, batch in planned.batches(shard)]

        def bare() -> None:
            for batch in batches:
                drawn = generator.draw(batch)
                perceiver.perceive([d.pixels for d in drawn if d is not None and d.pixels is not None])

        generator.draw(batches[0])  # warm
        halves = len(batches) // 2
        rest, batches = batches[halves:], batches[:halves]
        first = seconds(bare)
        parts = {
            "draw": seconds(lambda: stages.draw(run, planned, lambda: generator, lambda: perceiver)),
            "estimate": seconds(lambda: line.estimate(opened)),
            "report": seconds(lambda: line.report(opened)),
        }
        line_time = sum(parts.values())
        batches = rest
        bare_time = first + seconds(bare)  # half before and half after: a drift of the machine cancels
    told = ", ".join(f"{name} {took:.1f} s" for name, took in parts.items())
    print(
        f"images {len(planned)}: bare {bare_time:.1f} s, run {line_time:.1f} s ({told}), "
        f"ratio {line_time / bare_time:.3f} (at most 1.05)"
    )
    print(
        f"the demo: {len(planned) / line_time:.1f} images/s, "
        f"1,000 images in {1000 * line_time / len(planned) / 60:.1f} min (about 5)"
    )


def help_over_pass(pairs: int = 7) -> None:
    """`typecast --help` over an interpreter that does nothing, in turn."""
    ask = [sys.executable, "-c", "from pipeline.cli import main; import sys; sys.argv = ['typecast', '--help']; main()"]
    nothing = [sys.executable, "-c", "pass"]
    ratios = [
        seconds(lambda: subprocess.run(ask, capture_output=True)) / seconds(lambda: subprocess.run(nothing))
        for _ in range(pairs)
    ]
    print(f"typecast --help over python -c pass: {median(ratios):.1f} (at most 10)")


def planning() -> None:
    """A million units, from the study to the last batch."""
    chosen = study.load("emoji", ("images_per_prompt=50000",))
    count = 0

    def everything() -> None:
        nonlocal count
        planned = plan(chosen, weights="none")
        for shard in planned.shards():
            for _, batch in planned.batches(shard):
                count += sum(unit is not None for unit in batch)

    took = seconds(everything)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    share = took / (count / 100)
    print(
        f"planning {count:,} units: {took:.0f} s, {share:.4f} of drawing them at 100/s (at most 0.01), "
        f"peak {peak:.2f} GiB"
    )


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images-per-prompt", type=int, default=50)
    args = parser.parse_args()
    planning()  # first: the peak memory is the process's
    help_over_pass()
    run_over_bare(args.images_per_prompt)


if __name__ == "__main__":
    main()
