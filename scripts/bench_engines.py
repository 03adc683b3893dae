"""The engines beside each other on the embedded model: `python -m scripts.bench_engines [--shards 5] [--steps 4]`.

Steady-state rates: from the moment when the first shard was finished to that of the last, so that starting processes
and loading models do not count. Per second, and per second of processor time of all processes together: on a machine
that has other work to do, only the second says anything. One process is measured before and after: a drift shows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from pipeline import line, stages, study
from pipeline.engines import local, ray
from pipeline.line import Opened

ORDER = ("one process", "ray", "two processes", "one process")


class Rate(NamedTuple):
    """Images per second of the clock, and of the processors."""

    clock: float
    processors: float


class Watch(threading.Thread):
    """Notes, whenever another shard is finished, the time, the processor time, and the images."""

    def __init__(self, opened: Opened) -> None:
        """Begin to look."""
        super().__init__(daemon=True)
        self.opened, self.seen, self.ended = opened, [(0.0, 0.0, 0)], threading.Event()
        self.start()

    def run(self) -> None:
        """Until it is told to stop."""
        while not self.ended.wait(0.2):
            self.look()

    def look(self) -> None:
        """Is there another one?"""
        run, chosen, planned = self.opened
        there = [s for s in planned.shards() if run.perceptions(chosen.perceive.name, s).exists()]
        images = stages.images_in(there)
        if images > self.seen[-1][2]:
            self.seen.append((time.monotonic(), processor_seconds(), images))

    def rate(self) -> Rate:
        """From the first shard to the last."""
        self.ended.set()
        self.join()
        first, last = self.seen[1], self.seen[-1]
        images = last[2] - first[2]
        return Rate(images / (last[0] - first[0]), images / (last[1] - first[1]))


def processor_seconds() -> float:
    """What this process and all that it has started have used."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue
        total += used.user + used.system
    return total


def measured(engine: str, folder: Path, changes: tuple[str, ...]) -> Rate:
    """The rate of an engine on a new run."""
    opened = line.begin(study.load("emoji", changes), folder)
    watch = Watch(opened)
    if engine == "ray":
        ray.generate(opened, None)
    elif engine == "two processes":
        local.generate(opened, 2)
    else:
        line.generate(opened, perceive=True)
    return watch.rate()


def main() -> None:
    """All of them in turn, one thread per process. Ray has a pair of actors for each core that it may use."""
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
    rates: dict[str, list[Rate]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, engine in enumerate(args.order):
            rate = measured(engine, Path(folder) / str(number), changes)
            rates.setdefault(engine, []).append(rate)
            print(f"{engine:14} {rate.clock:6.2f} images/s, {rate.processors:6.2f} per processor second", flush=True)
    base = rates.pop("one process", [])
    if not base:
        return
    print(f"over one process, on {len(os.sched_getaffinity(0))} cores:")
    for engine, found in rates.items():
        for name in Rate._fields:
            mean = sum(getattr(rate, name) for rate in found) / len(found)
            print(f"{engine:14} {mean / (sum(getattr(rate, name) for rate in base) / len(base)):.2f} by the {name}")


if __name__ == "__main__":
    main()
