"""The engines beside each other on the embedded model: `python -m scripts.bench_engines [--shards 5] [--steps 4]`.

Steady-state rates: from the moment when every worker could have finished a shard (two of them, after the second) to that of
the last, so that starting processes and loading models do not count, nor what one worker had drawn while another finished.
Per second, and per second of processor time of all processes together: on a machine
that has other work to do, only the second says anything. One process is measured before and after: a drift shows.
"""

from __future__ import annotations

import argparse
import contextlib
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
        self.opened, self.ended = opened, threading.Event()
        self.seen: list[tuple[int, int, float, float]] = []
        """Shards, images, the time and the processor time."""
        self.used: dict[psutil.Process, float] = {}
        """Processor seconds of this process and of all that it has started, those that have ended among them."""
        self.start()

    def run(self) -> None:
        """Until it is told to stop."""
        while not self.ended.wait(0.2):
            self.look()

    def look(self) -> None:
        """Is there another one?"""
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self.used[process] = times.user + times.system
        run, chosen, planned = self.opened
        there = [s for s in planned.shards() if run.perceptions(chosen.perceive.name, s).exists()]
        if len(there) > (self.seen[-1][0] if self.seen else 0):
            self.seen.append((len(there), stages.images_in(there), time.monotonic(), sum(self.used.values())))

    def rate(self, workers: int) -> Rate:
        """From the moment when so many shards were finished to that of the last."""
        self.ended.set()
        self.join()
        first, last = next(seen for seen in self.seen if seen[0] >= workers), self.seen[-1]
        images, clock, processors = (after - before for before, after in zip(first[1:], last[1:], strict=True))
        return Rate(images / clock, images / processors)


def measured(engine: str, folder: Path, changes: tuple[str, ...]) -> Rate:
    """The rate of an engine on a new run. Ray has a pair of actors for each core that it may use."""
    opened = line.begin(study.load("emoji", changes), folder)
    watch = Watch(opened)
    workers = 1
    if engine == "ray":
        workers = len(os.sched_getaffinity(0))
        ray.generate(opened, None)
    elif engine == "two processes":
        workers = 2
        local.generate(opened, 2)
    else:
        line.generate(opened, perceive=True)
    return watch.rate(workers)


def main() -> None:
    """All of them in turn, one thread per process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=6, help="more than workers, and a multiple of them")
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
