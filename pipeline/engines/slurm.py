"""A Slurm cluster: an array of independent workers through submitit, and a last job that estimates and reports.

The workers share the run folder and nothing else: no port is opened between them. What is submitted are command
lines, so that nothing is pickled.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import generate as generation
from pipeline import store
from pipeline.errors import InputError, RunError, without_secrets
from pipeline.types import Worker

RANK = "slurm"
"""What `typecast worker --rank` is told, to ask this module who it is."""

FOLDER = "slurm"
"""In the run folder: the submitted scripts, and what the workers said."""

SCRIPT = "_submission.sh"
"""What submitit ends the name of a script with, after the number of its job."""

OURS = {
    "array": "typecast makes an array of `nodes` jobs itself",
    "ntasks": "say it per node: ntasks_per_node, which is the number of GPUs unless it is given",
    "chdir": "start typecast launch in that folder",
    **dict.fromkeys(
        ("requeue", "no_requeue"),
        "it is always on, for a worker that is pre-empted or out of time goes on when it is started again; leave it out",
    ),
    "signal": "a worker is told 90 s before its time is over, and goes on in the queue; leave it out, and say time=…",
    "wrap": "typecast submits commands of its own",
    "wait": "follow it with typecast status",
    "test_only": "see the scripts with --dry-run",
    **dict.fromkeys(("parsable", "quiet"), "typecast reads the job's number from what sbatch says"),
}
"""Keys of sbatch that would change which worker draws what, or what sbatch answers, and what to do instead."""

DEVICES = ("gpu", "gres", "cpus_per_gpu", "mem_per_gpu", "ntasks_per_node", "tres_per")
"""Keys, by their beginning, that the last job does not need."""

SIGNAL = "B:USR2@90"
"""Seconds before the time limit at which the script of a worker is told of it."""

AGAIN = """
# before the time limit: to the queue again, unless no shard was finished in all the time; and when pre-empted, always
run={run}
began=$(date +%s)
task="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"  # the number of one task is that of the whole array too
pre_empted() {{
    scontrol show job "$task" | grep -q "PreemptTime=[0-9]"
}}
again() {{
    if pre_empted || [ -n "$(find "$run/images" -name '*.parquet' -newermt "@$began" -print -quit)" ]; then
        scontrol requeue "$task"
    else
        echo "typecast: no shard was finished within the time limit: ask for more time" >&2
    fi
}}
trap again USR2
# of a pre-emption with a time of grace the workers are told, and not this script: whoever ends in that time has failed
ended() {{
    case $1 in 130 | 143) if pre_empted; then scontrol requeue "$task"; fi ;; esac
    return "$1"
}}"""


@dataclass(frozen=True)
class Asked:
    """What the user wants of the cluster."""

    options: dict[str, str]
    """Of sbatch, by their long names with underscores. `nodes` is the length of the array."""
    container: str | None = None
    """An image that apptainer runs."""
    setup: tuple[str, ...] = ()
    """Lines of shell that come first: `module load`, or a virtual environment."""

    @property
    def nodes(self) -> int:
        """Jobs of the array, each on a node."""
        return _number(self.options.get("nodes", "1"), "nodes")

    @property
    def per_node(self) -> int:
        """Workers of a job: as many as GPUs, unless `ntasks_per_node` is given."""
        if "ntasks_per_node" in self.options:
            return _number(self.options["ntasks_per_node"], "ntasks_per_node")
        for key in ("gpus_per_node", "gpus"):  # a job has one node
            if key in self.options:
                return _number(self.options[key].rpartition(":")[2], key)
        for key in ("gpus_per_socket", "tres_per_socket"):
            if key in self.options:
                raise InputError(f"--slurm: {key}: nobody knows how many that is on a node; give ntasks_per_node too")
        asked = ",".join(self.options.get(key, "") for key in ("gres", "tres_per_node"))  # gpu:a100:8, gres/gpu:8
        devices = re.search(r"\bgpu(?::[^:,]*[^:,\d][^:,]*)?[:=](\d+)", asked)
        return int(devices[1]) if devices else 1


def options(texts: Sequence[str]) -> dict[str, str]:
    """`partition=gpu,time=4:00:00,exclude=n1,n2` as a mapping: a piece without `=` belongs to the value before it.

    A value with `,` and `=` stands in double quotes: `export="ALL,HF_HOME=/scratch/hf",time=60`.
    """
    found: dict[str, str] = {}
    for text in texts:
        last = ""
        if text.count('"') % 2:
            raise InputError(f"--slurm: {text!r}: a double quote is not closed")
        for piece in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text):  # at commas with whole quotes after them
            key, equals, value = piece.replace('"', "").partition("=")
            key = key.strip().replace("-", "_")
            if not equals and last:
                found[last] += "," + piece.replace('"', "")
            elif not equals or not re.fullmatch(r"[a-z][a-z_]*", key):
                raise InputError(
                    f"--slurm: {piece!r} is not KEY=VALUE; such as: --slurm partition=gpu,nodes=4,time=60; a value "
                    """with , and = stands in double quotes: --slurm 'export="ALL,HF_HOME=/scratch/hf"'"""
                )
            elif key in OURS:
                raise InputError(f"--slurm: {key} cannot be set: {OURS[key]}")
            elif key in found:
                raise InputError(f"--slurm: {key} is given twice: {found[key]} and {value.strip()}")
            else:
                found[key] = value.strip()
                last = key
    for key, value in found.items():
        _scriptable(value, f"--slurm: {key}")
    return found


def scripts(folder: Path, name: str, asked: Asked) -> tuple[str, str]:
    """What would be submitted for the study `name` in `folder`: the workers' script, and the last job's."""
    workers, last = _jobs(folder.resolve(), name, asked)
    return workers.text(), last.text()


def look_for_sbatch() -> None:
    """An `InputError` where there is no Slurm."""
    if shutil.which("sbatch") is None:
        raise InputError("there is no Slurm here (sbatch is not in the PATH); see the scripts with: --dry-run")


def launch(folder: Path, name: str, asked: Asked) -> tuple[str, str]:
    """Submit both jobs for the run in `folder`; returns their numbers. If one is refused, neither stays."""
    workers, last = _jobs(folder.resolve(), name, asked)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    number = workers.submit()
    last.options["dependency"] = f"afterok:{number}"
    try:
        return number, last.submit()
    except InputError as error:
        ended = subprocess.run(["scancel", number], capture_output=True).returncode == 0
        what = "is cancelled" if ended else f"is in the queue still; end it with: scancel {number}"
        if ended:
            (folder / FOLDER / f"{number}{SCRIPT}").unlink(missing_ok=True)
        raise InputError(f"{error}; the array of workers, {number}, {what}") from None
    finally:
        _hold(folder)


def _hold(folder: Path) -> None:
    """Keep the run folder for its study while jobs that were submitted may begin, whether they have ended or not."""
    here = folder / FOLDER
    if jobs := sorted(path.name.removesuffix(SCRIPT) for path in here.glob(f"*{SCRIPT}")):
        end = f"end them (scancel {' '.join(jobs)}) and delete {here}"
        store.write_text(here / store.HELD, f"if the jobs that were submitted are not to draw it, {end}")
    else:
        (here / store.HELD).unlink(missing_ok=True)


def worker(of: int) -> Worker:
    """Who this process is among the `of` of the array, and its GPU. Raises `RunError` outside of such an array."""
    names = ("ARRAY_TASK_ID", "ARRAY_TASK_COUNT", "NTASKS", "PROCID", "LOCALID")
    try:
        task, tasks, each, process, local = (int(os.environ[f"SLURM_{name}"]) for name in names)
    except (KeyError, ValueError):
        raise RunError("--rank slurm: this is no task of a Slurm array; start it with: typecast launch") from None
    if tasks * each != of:
        raise RunError(f"--of {of}: Slurm started {tasks} x {each} workers; start them with: typecast launch")
    generation.take_gpu(local)
    return Worker(task * each + process, of)


# -- the jobs ----------------------------------------------------------------------------------------


@dataclass
class _Job:
    """A command line with the parameters of its job, as submitit names them."""

    folder: Path
    command: str
    parameters: dict[str, Any]
    options: dict[str, Any]

    def text(self) -> str:
        """The script."""
        return str(self._executor()._make_submission_file_text(self.command, ""))

    def submit(self) -> str:
        """Submit it; returns its number."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return str(self._executor()._submit_command(self.command).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [line for line in str(error).splitlines() if line.startswith("sbatch:")] or [str(error)]
            raise InputError(f"--slurm: Slurm refuses: {'; '.join(lines)}") from None

    def _executor(self) -> Any:
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise InputError(
                "typecast launch: submitit is not installed; install it in Typecast's checkout with: "
                "pip install -c constraints.txt -e '.[slurm]'"
            ) from None

        class Commands(SlurmExecutor):  # type: ignore[misc]
            """What `submit` would send is a pickle; a command line is sent by what lies below it."""

            @classmethod
            def affinity(cls) -> int:
                """A script can be made on any machine."""
                return 2

        executor = Commands(self.folder / FOLDER)
        # submitit's own defaults for these would not be what the user, or the cluster, has said
        executor.parameters.update(time=None, wckey=None, stderr_to_stdout=True, additional_parameters=self.options)
        executor.parameters.update(self.parameters)
        return executor


def _jobs(folder: Path, name: str, asked: Asked) -> tuple[_Job, _Job]:
    """The array of workers, and the job that is to come after it."""
    _scriptable(str(folder), "--out")
    if "%" in str(folder):
        raise InputError(f"--out: {folder}: Slurm gives % a meaning of its own; name another folder")
    typecast = [*_python(folder, asked), "-P", "-m", "pipeline.cli"]
    work = [*typecast, "worker", str(folder), "--rank", RANK, "--of", str(asked.nodes * asked.per_node)]
    end = " && ".join(shlex.join([*typecast, stage, str(folder)]) for stage in ("estimate", "report"))
    for line in asked.setup:
        _scriptable(line, "--setup")
    setup = list(asked.setup)
    given = {key: True if value == "true" else value for key, value in asked.options.items() if key != "nodes"}
    plain = {key: value for key, value in given.items() if not key.startswith(DEVICES) and key != "dependency"}
    workers = _Job(
        folder,
        f"{shlex.join(work)} & wait $! || ended $?",  # a trap is only run while the shell itself waits
        {
            "job_name": f"typecast-{name}",
            "map_count": asked.nodes,
            "array_parallelism": asked.nodes,
            "nodes": 1,
            # srun does not take this over from sbatch since Slurm 22.05, and a worker would have one processor
            "srun_args": [f"--cpus-per-task={given['cpus_per_task']}"] if "cpus_per_task" in given else [],
            "setup": [*setup, *AGAIN.format(run=shlex.quote(str(folder))).splitlines()],
        },
        {"requeue": True, "signal": SIGNAL, **given, "ntasks_per_node": asked.per_node},
    )
    last = _Job(
        folder,
        end,
        {"job_name": f"typecast-{name}-report", "nodes": 1, "setup": setup, "use_srun": False},
        {"kill_on_invalid_dep": "yes", **plain, "ntasks_per_node": 1},
    )
    return workers, last


def _python(folder: Path, asked: Asked) -> list[str]:
    """This Python; or the one that is first after the setup; or the container's."""
    if asked.container is None:
        return ["python" if asked.setup else sys.executable]
    _scriptable(asked.container, "--container")
    if not asked.container.strip():
        raise InputError("--container: is empty; it is an image, such as: --container typecast.sif")
    if set(":,") & set(str(folder)):
        raise InputError(f"--out: {folder}: apptainer gives : and , a meaning of their own; name another folder")
    return ["apptainer", "exec", "--nv", "--bind", str(folder), asked.container, "python3"]


def _scriptable(text: str, where: str) -> None:
    """A line break would end a line of the script and begin another; and the script is kept in the run folder."""
    if without_secrets(text) != text:
        raise InputError(
            f"{where}: holds a token or a password, which would be kept in the run folder; "
            "Slurm hands the environment on: set HF_TOKEN there"
        )
    if not text.isprintable():
        raise InputError(f"{where}: {text!r} has a character that cannot stand in a script")


def _number(text: str, key: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise InputError(f"--slurm: {key}={text}: a whole number of at least 1")
    return int(text)
