"""The engines beside each other on the embedded model: `python -m scripts.bench_engines [--shards 5] [--steps 4]`.

Steady-state rates: from the moment when the first shard was finished to that of the last, so that starting processes
and loading models do not count. One process is measured before and after the others: a drift of the machine shows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from pipeline import line, stages, study
from pipeline.engines import local, ray
from pipeline.line import Opened

ORDER = ("one process", "ray", "two processes", "one process")


def steady_rate(opened: Opened) -> float:
    """Images per second after the first shard, by the times at which perceptions appeared."""
    run, chosen, planned = opened
    times = sorted(
        (run.perceptions(chosen.perceive.name, shard).stat().st_mtime, stages.images_in([shard]))
        for shard in planned.shards()
    )
    return sum(n for _, n in times[1:]) / (times[-1][0] - times[0][0])


def measured(engine: str, folder: Path, changes: tuple[str, ...]) -> float:
    """The rate of an engine on a new run."""
    opened = line.begin(study.load("emoji", changes), folder)
    if engine == "ray":
        ray.generate(opened, None)
    elif engine == "two processes":
        local.generate(opened, 2)
    else:
        line.generate(opened, perceive=True)
    return steady_rate(opened)


def main() -> None:
    """All of them in turn, each with one thread per process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--images-per-prompt", type=int, default=4, help="of 20 prompts, in each shard")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--order", nargs="+", default=ORDER, choices=sorted(set(ORDER)))
    args = parser.parse_args()
    arms = [{"suffix": {"text": f", number {number}", "name": f"arm{number}"}} for number in range(1, args.shards)]
    changes = (
        *(f"images_per_prompt={args.images_per_prompt}", f"draw.num_inference_steps={args.steps}", "draw.threads=1"),
        f"arms={['none', *arms]}",
    )
    cores = len(os.sched_getaffinity(0))
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, engine in enumerate(args.order):
            rate = measured(engine, Path(folder) / str(number), changes)
            rates.setdefault(engine, []).append(rate)
            print(f"{engine:14} {rate:6.1f} images/s after the first shard", flush=True)
    base = rates.pop("one process", [])
    for engine, found in rates.items():
        if base:
            ratio = sum(found) / len(found) / (sum(base) / len(base))
            print(f"{engine} over one process, on {cores} cores: {ratio:.2f}")


if __name__ == "__main__":
    main()
