"""One machine with several GPUs: `accelerate launch`, a worker per GPU, each with a fixed part of the shards."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from pipeline import generate as generation
from pipeline import stages
from pipeline.errors import InputError, RunError, without_secrets
from pipeline.line import Opened
from pipeline.progress import progress
from pipeline.types import Worker

RANK = "accelerate"
"""What `typecast worker --rank` is told, to ask this module who it is."""

LOOK = 1.0
"""Seconds between two looks at the disk, for the bar."""

LOG = "workers.log"
"""In the run folder: all that the last launch and its workers said."""


def generate(opened: Opened, gpus: int) -> None:
    """Draw and perceive what is missing with `gpus` workers; on a machine without a GPU they share its processor."""
    run, study, planned = opened
    there = generation.gpus()
    if there and gpus > there:
        raise InputError(f"--gpus {gpus}: this machine has {there}; the right answers are: 1 to {there}")
    stages.say_who_is_idle(len(planned.shards()), gpus)
    missing = [shard for shard in planned.shards() if not run.images(shard).exists()]
    total = len(planned)
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(study.draw.threads)}
    if not there:
        environment |= {"ACCELERATE_USE_CPU": "1", "GLOO_SOCKET_IFNAME": _loopback()}
    with stages.drawing(run, study):
        launch = subprocess.Popen(
            _command(run.folder, gpus), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, text=True,
        )  # fmt: skip
        said = _Said(launch, run.folder / LOG)
        try:
            with progress("drawing", total=total, done=total - stages.images_in(missing)) as advance:
                while missing and launch.poll() is None:
                    time.sleep(LOOK)
                    ready = [shard for shard in missing if run.images(shard).exists()]
                    missing = [shard for shard in missing if shard not in ready]
                    advance(stages.images_in(ready), "")
            failed = launch.wait()
        finally:
            launch.terminate()
            launch.wait()
            said.join()
    if failed:
        raise RunError(
            f"{run.folder}: a worker stopped, and the others with it; what they said is in {run.folder / LOG}. "
            "Finished shards are kept, and the same command continues"
        )


def _command(folder: Path, gpus: int) -> list[str]:
    """`accelerate launch` over `typecast worker`; what a worker says is marked with its number (`--tee`)."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(gpus)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launch += ["--role", "worker", "--tee", "3"]
    return [*launch, "--module", "pipeline.cli", "worker", str(folder), "--rank", RANK, "--of", str(gpus)]


def _loopback() -> str:
    """The name of the interface on which the workers count each other: nobody outside is to reach it."""
    return "lo" if sys.platform == "linux" else "lo0"


class _Said(threading.Thread):
    """Writes all that is said to a log, and tells the user what the workers say, each sentence once."""

    def __init__(self, launch: subprocess.Popen[str], log: Path) -> None:
        super().__init__(daemon=True)
        self._launch, self._log = launch, log
        self.start()

    def run(self) -> None:
        """Until the last process has closed its end."""
        told = set[str]()
        with self._log.open("w", encoding="utf-8") as log:
            for said in self._launch.stdout or ():
                log.write(without_secrets(said))
                log.flush()
                who, _, sentence = said.strip().partition("]:")
                if who.startswith("[worker") and sentence.startswith("typecast: ") and sentence not in told:
                    told.add(sentence)
                    stages.say(sentence)


# -- in a worker -------------------------------------------------------------------------------------


def worker(of: int) -> Worker:
    """Who this process is among the `of` that accelerate started, and its GPU.

    Raises `RunError` if accelerate started another number: a wrong launch gives processes that each believe that
    they are alone.
    """
    from accelerate import PartialState

    _end_with_the_driver()
    generation.take_gpu(int(os.environ.get("LOCAL_RANK", 0)))
    state = PartialState(cpu=not generation.gpus())
    rank, found = int(state.process_index), int(state.num_processes)
    state.destroy_process_group()  # they have counted each other, and need no more of each other
    if found != of:
        raise RunError(f"--of {of}: accelerate started {found} processes; start them with: typecast run --gpus {of}")
    return Worker(rank, of)


def _end_with_the_driver() -> None:
    """End when the process that started all this has died: then nobody holds the other end of the standard input."""

    def wait() -> None:
        with open(0, "rb", closefd=False) as driver:
            driver.read()
        os._exit(130)  # what is finished is on the disk

    if stat.S_ISFIFO(os.fstat(0).st_mode):  # as `generate` starts it; somebody else may have given no input at all
        threading.Thread(target=wait, daemon=True).start()
