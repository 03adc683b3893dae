"""A run under random faults, for a stated time: `python -m scripts.soak [--minutes 5] [--images 40000] [--faults 60]`.

Two drivers work on one folder with the fake model, one as `typecast generate` and one as `typecast run`. At random moments
one that is alive is killed (SIGKILL) or told to stop (SIGTERM), or a finished file of images or perceptions is cut off or has
a bit flipped; a driver that has ended is started again at once. In the end one driver finishes what is left, and every
`unit_id, sha256` and what was perceived are compared with an undisturbed run: nothing may be lost, nothing be there
twice, and nothing be changed. Exit code 1 if anything is.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pipeline import line, store, study
from pipeline.line import Opened

DRIVER = [sys.executable, "-c", "from pipeline.cli import main; main()"]
STAGES = ("generate", "run")
LOOK = 0.2
"""Seconds between two looks at whether a driver has ended."""
KINDS = ("SIGKILL", "SIGTERM", "flipped bit", "cut off")


def a_study(images: int) -> study.Study:
    """So many images of noise, 20 prompts and an attribute."""
    raw = {
        "name": "soak",
        "prompt_sets": ["emoji_occupations"],
        "model": {"path": "fake"},
        "draw": {"height": 32, "width": 32, "threads": 1},
        "images_per_prompt": -(-images // 20),
        "perceive": {"clip": "fake", "attributes": ["gender"]},
    }
    return study.parse(raw, where="soak")


def start(stage: str, file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A driver that does what is missing, of drawing or of all."""
    return subprocess.Popen(
        [*DRIVER, stage, str(file), "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def damage(folder: Path, kind: str, chance: random.Random) -> bool:
    """Cut off a finished file, or flip a bit in it; no, if there is none."""
    files = sorted([*folder.glob("images/*.parquet"), *folder.glob("perceptions/*/*.parquet")])
    if not files:
        return False
    victim = chance.choice(files)
    content = bytearray(victim.read_bytes())
    place = chance.randrange(len(content))
    if kind == "cut off":
        del content[place:]
    else:
        content[place] ^= 1 << chance.randrange(8)
    victim.write_bytes(content)
    return True


def disturb(file: Path, folder: Path, *, seconds: float, faults: int, chance: random.Random) -> Counter[str]:
    """Two drivers and as many faults, evenly over the time; what was done: not what found no file or no driver alive."""
    done = Counter[str]()
    drivers = [start(stage, file, folder) for stage in STAGES]
    began = time.monotonic()
    for number in range(faults):
        until = began + (number + chance.random()) * seconds / faults
        while time.monotonic() < until:
            time.sleep(LOOK)
            for place, stage in enumerate(STAGES):
                if drivers[place].poll() is not None:
                    drivers[place] = start(stage, file, folder)
        kind, alive = chance.choice(KINDS), [driver for driver in drivers if driver.poll() is None]
        if not kind.startswith("SIG"):
            done[kind] += damage(folder, kind, chance)
        elif alive:
            chance.choice(alive).send_signal(signal.Signals[kind])
            done[kind] += 1
    for driver in drivers:
        driver.kill()
        driver.wait()
    return done


def pixels(opened: Opened) -> Counter[tuple[str, str]]:
    """Every row's `unit_id, sha256`, of all files in the folder."""
    run = opened[0]
    return Counter(
        (row["unit_id"], row["sha256"])
        for path in run.folder.glob("images/*.parquet")
        for row in run.read_images(path.stem, ["unit_id", "sha256"]).to_pylist()
    )


def perceived(opened: Opened) -> Counter[tuple[str, str]]:
    """Every row's `unit_id` and decision, of all files of the study's perceiver."""
    run, chosen, _ = opened
    return Counter(
        (row["unit_id"], row["gender"])
        for path in run.folder.glob(f"perceptions/{chosen.perceive.name}/*.parquet")
        for row in run.read_perceptions(chosen.perceive.name, path.stem, ["unit_id", "gender"]).to_pylist()
    )


def main() -> None:
    """Soak, compare and say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home, chosen = Path(name), a_study(asked.images)
        store.write_text(home / "soak.yaml", study.dump(chosen))
        whole = line.begin(chosen, home / "undisturbed")
        line.generate(whole, perceive=True)
        began, chance = time.monotonic(), random.Random(asked.seed)
        folder = home / "run"
        line.begin(chosen, folder)
        done = disturb(home / "soak.yaml", folder, seconds=60 * asked.minutes, faults=asked.faults, chance=chance)
        opened = line.resume(folder)
        line.generate(opened, perceive=True)
        took = time.monotonic() - began
        pairs = [(pixels(whole), pixels(opened)), (perceived(whole), perceived(opened))]
        lost = sum((expected - found).total() for expected, found in pairs)
        more = sum((found - expected).total() for expected, found in pairs)
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(done.items()))
        aside = len(line.status(opened)["set_aside"])
        print(
            f"{len(opened[2]):,} images, {done.total()} faults in {took / 60:.1f} min ({told}), {aside} files set aside: "
            f"{lost} lost, {more} doubled or changed"
        )
        sys.exit(bool(lost or more))


if __name__ == "__main__":
    main()
