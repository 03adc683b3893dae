"""The engines: whoever starts the processes, every image is there once, with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import cli, line, stages, store, study
from pipeline import generate as generation
from pipeline.engines import local, slurm
from pipeline.errors import InputError, RunError
from pipeline.line import Opened
from pipeline.types import Worker
from tests import slurm as slurms
from tests import tiny
from tests.conftest import fake_study, pixels_of
from tests.test_cli import HOME, typecast

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
LAUNCH = "import sys; from pathlib import Path; from pipeline import line; from pipeline.engines import local;" + (
    "local.generate(line.resume(Path(sys.argv[1])), 2)"
)


def begun(folder: Path, images_per_prompt: int = 200) -> Opened:
    """A run of which nothing is drawn. A thousand images are drawn in about two seconds."""
    quick = {"clip": "fake", "attributes": ["gender"]}
    return line.begin(fake_study(images_per_prompt=images_per_prompt, perceive=quick, reference=[]), folder)


def done(opened: Opened) -> set[tuple[str, str, str]]:
    """Of every image its id, the digest of its pixels and what was perceived: what no engine may change."""
    run, chosen, planned = opened
    seen = {
        row["unit_id"]: row["gender"]
        for shard in planned.shards()
        for row in run.read_perceptions(chosen.perceive.name, shard, ["unit_id", "gender"]).to_pylist()
    }
    return {(unit, sha, seen[unit]) for unit, sha in pixels_of(opened)}


def alone(folder: Path, images_per_prompt: int = 200) -> set[tuple[str, str, str]]:
    """The same, of an undisturbed run in one process."""
    opened = begun(folder, images_per_prompt)
    line.generate(opened, perceive=True)
    return done(opened)


def modelled(folder: Path) -> tuple[Opened, Opened]:
    """Two runs of one study of a tiny Stable Diffusion, whose bytes may depend on the threads: the first is drawn."""
    model = tiny.stable_diffusion(folder / "model")
    changes = {
        "model": {"path": str(model)},
        "draw": {"height": 32, "width": 32, "num_inference_steps": 2, "batch_size": 8, "threads": 2},
        "arms": ["none", {"suffix": {"text": "smiling"}}],
        "perceive": {"clip": "fake", "attributes": ["gender"]},
    }
    both = [line.begin(fake_study(images_per_prompt=1, reference=[], **changes), folder / n) for n in ("one", "other")]
    line.generate(both[0], perceive=True)
    return both[0], both[1]


def threads_of(opened: Opened) -> set[str]:
    """How many threads each process had that drew a shard, as is written in its file."""
    run, _, planned = opened
    notes = [pq.read_schema(run.images(shard)).metadata[b"environment"] for shard in planned.shards()]
    return {json.loads(note)["threads"] for note in notes}


def until(happened: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.1)


def processes(*words: str) -> list[int]:
    """The running processes with all these words in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (entry / "cmdline").read_text().split("\0")
            if all(word in told for word in words) and entry.name != str(os.getpid()):
                found.append(int(entry.name))
    return found


# -- workers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 3, 7, 100])
def test_the_parts_of_the_workers_are_all_shards_each_once(tmp_path: Path, of: int) -> None:
    planned = begun(tmp_path / "run", 900)[2]
    parts = [planned.shards(Worker(rank, of)) for rank in range(of)]
    assert sorted((s for part in parts for s in part), key=lambda s: s.name) == planned.shards()
    assert sum(map(stages.images_in, parts)) == len(planned)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_three_workers_in_any_order_end_like_one(tmp_path: Path) -> None:
    opened = begun(tmp_path / "run")
    for rank in (2, 0, 1):
        line.generate(opened, perceive=True, worker=Worker(rank, 3))
    assert done(opened) == alone(tmp_path / "alone")
    energy = stages.read_json(opened[0].folder / "energy.json")
    assert sum(session["images"] for session in energy["sessions"]) == len(opened[2])


def test_a_worker_that_cannot_be_is_one_message(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    for words, said in [
        (["--rank", "3", "--of", "3"], "0 to 2, accelerate, slurm"),
        (["--rank", "accelerate", "--of", "2"], "accelerate started 1 processes"),
        (["--rank", "slurm", "--of", "2"], "no task of a Slurm array"),
    ]:
        ended = typecast("worker", str(tmp_path / "run"), *words)
        assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr


def test_workers_that_begin_a_run_at_one_moment_end_like_one(tmp_path: Path) -> None:
    """On a cluster without Slurm, or with scripts of one's own: nobody has made the folder, and nobody waits for another."""
    quick = {"clip": "fake", "attributes": ["gender"]}
    chosen = fake_study(images_per_prompt=60, perceive=quick, reference=[])
    store.write_text(tmp_path / "fake.yaml", study.dump(chosen))
    command = [sys.executable, "-m", "pipeline.cli", "worker", "fake.yaml", "--out", "run", "--of", "2", "--rank"]
    both = [subprocess.Popen([*command, str(rank)], cwd=tmp_path, env=ENVIRONMENT) for rank in range(2)]
    assert [worker.wait(timeout=240) for worker in both] == [0, 0]
    assert done(line.resume(tmp_path / "run")) == alone(tmp_path / "alone", 60)
    for stage in ("estimate", "report"):
        told = typecast(stage, "run", cwd=tmp_path)
        assert told.returncode == 0, told.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    other = typecast(*command[3:], "0", "--set", "seed=1", cwd=tmp_path)
    assert other.returncode == 2 and "run: holds another study: seed is 0 there and 1 here" in other.stderr


def test_energy_of_processes_that_end_together_is_added_up(tmp_path: Path) -> None:
    from pipeline import energy

    for number in range(3):
        told = {"began": f"2026-01-0{number + 1}", "seconds": 2.0, "images": 10, "kwh": 0.5, "gco2e": 1.0}
        told |= {"gpu_kwh": float(number), "how": "a guess", "country": "USA"}
        store.write_json(tmp_path / energy.SESSIONS / f"{number}.json", told)
    energy.add_up(tmp_path)
    found = stages.read_json(tmp_path / "energy.json")
    assert (found["kwh"], found["images_per_kwh"], found["gpu_seconds"]) == (1.5, 20, 4.0)
    for file in (tmp_path / energy.SESSIONS).iterdir():  # as of a folder of pictures, of which none is drawn
        store.write_json(file, stages.read_json(file) | {"images": 0})
    energy.add_up(tmp_path)
    assert stages.read_json(tmp_path / "energy.json")["images_per_kwh"] is None


@pytest.mark.parametrize(
    ("visible", "kwh"),
    [
        *((None, 1.0), ("", 0.0), ("2,3", 0.3), ("0,1,2,3,4,5,6,7", 1.0)),
        *(("GPU-2,GPU-3", 0.3), (" GPU-6", 0.7), ("MIG-2", 0.0), ("GPU-9", 0.0)),
    ],
)
def test_of_eight_gpus_a_process_counts_the_one_that_it_draws_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, kwh: float
) -> None:
    """As codecarbon takes what it is told: of eight made-up GPUs, of which the first used 1 kWh and others less."""
    import codecarbon
    from codecarbon.core.units import Energy, Power
    from codecarbon.external import hardware

    from pipeline import energy

    used = [1.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    meters = [
        {"gpu_index": i, "delta_energy_consumption": Energy.from_energy(one), "power_usage": Power.from_watts(1)}
        for i, one in enumerate(used)
    ]
    eight = SimpleNamespace(
        device_count=8,
        devices=[],
        get_gpu_static_info=lambda: [{"uuid": f"GPU-{i}", "gpu_index": i} for i in range(8)],
        get_delta=lambda _: meters,
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    told: list[Any] = []
    begin = codecarbon.OfflineEmissionsTracker

    def tracker(**how: Any) -> Any:
        told.append(begin(**how))
        return told[0]

    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", tracker)
    monkeypatch.setattr("codecarbon.core.gpu.AllGPUDevices", lambda: eight)
    with energy.metered(tmp_path, images=lambda: 1, shared=True):
        pass
    assert told[0]._conf["force_mode_cpu_load"]
    monkeypatch.setattr(hardware, "AllGPUDevices", lambda: eight)
    gpu = hardware.GPU.from_utils(told[0]._gpu_ids)
    assert gpu.measure_power_and_energy(10.0)[1].kWh == kwh


@pytest.mark.parametrize(("used", "says"), [(0.2, False), (0.0, True)])
def test_a_gpu_that_is_not_measured_is_said_so(monkeypatch: pytest.MonkeyPatch, used: float, says: bool) -> None:
    """Such as a part of one (MIG)."""
    import torch

    from pipeline import energy

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    told = energy._how(SimpleNamespace(_hardware=[]), SimpleNamespace(gpu_energy=used))
    assert ("the GPU is not measured" in told) is says and ("GPU measured by its own meter" in told) is not says


# -- one machine -------------------------------------------------------------------------------------


def launched(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(folder)], env=ENVIRONMENT, text=True, stderr=subprocess.PIPE
    )


def test_two_processes_of_accelerate_end_like_one_after_a_worker_was_killed(tmp_path: Path) -> None:
    opened = begun(tmp_path / "run", 600)
    run, _, planned = opened
    killed = launched(run.folder)
    until(lambda: any(run.images(shard).exists() for shard in planned.shards()))
    workers = processes("worker", str(run.folder), "--rank")
    os.kill(max(workers), signal.SIGKILL)
    _, said = killed.communicate(timeout=240)
    assert "a worker stopped" in said and "the same command continues" in said
    assert "Signal 9" in (run.folder / local.LOG).read_text()
    assert stages.finished(run, planned.shards()) < len(planned)
    assert processes("worker", str(run.folder)) == []
    again = launched(run.folder)
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert done(opened) == alone(tmp_path / "alone", 600)


def test_the_command_itself_draws_in_several_processes_and_reports(tmp_path: Path) -> None:
    quick = {"clip": "fake", "attributes": ["gender"]}
    chosen = fake_study(images_per_prompt=60, perceive=quick, reference=[])
    store.write_text(tmp_path / "fake.yaml", study.dump(chosen))
    told = typecast("run", str(tmp_path / "fake.yaml"), "--gpus", "2", "--out", str(tmp_path / "run"), cwd=tmp_path)
    assert told.returncode == 0 and "report.html" in told.stdout, told.stderr
    assert done(line.resume(tmp_path / "run")) == alone(tmp_path / "alone", 60)


def test_a_model_draws_the_same_in_processes_of_accelerate(tmp_path: Path) -> None:
    """With as many threads as the study says, whatever the surroundings say."""
    undisturbed, opened = modelled(tmp_path)
    driver = launched(opened[0].folder)
    _, said = driver.communicate(timeout=400)
    assert driver.returncode == 0, said
    assert done(opened) == done(undisturbed) and threads_of(opened) == {"2"}


def test_the_workers_end_with_their_driver(tmp_path: Path) -> None:
    opened = begun(tmp_path / "run", 600)
    run, _, planned = opened
    driver = launched(run.folder)
    until(lambda: any(run.images(shard).exists() for shard in planned.shards()))
    assert len(processes("worker", str(run.folder), "--rank")) >= 2
    driver.kill()
    driver.communicate()
    until(lambda: not processes("worker", str(run.folder)), 60)
    assert stages.finished(run, planned.shards()) < len(planned)
    line.generate(opened, perceive=True)
    assert done(opened) == alone(tmp_path / "alone", 600)


def test_more_gpus_than_there_are_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "gpus", lambda: 2)
    with pytest.raises(InputError, match="this machine has 2; the right answers are: 1 to 2"):
        local.generate(begun(tmp_path / "run"), 3)


@pytest.mark.parametrize(("seen", "taken"), [(None, "3"), ("4,5,6,7", "7"), ("GPU-a,GPU-b", "GPU-b"), ("", "")])
def test_a_worker_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch, seen: str | None, taken: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    generation.take_gpu(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken


def test_a_worker_that_somebody_else_starts_takes_one_gpu_or_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = begun(tmp_path / "run")
    begins: list[tuple[Worker, str | None]] = []
    monkeypatch.setattr(generation, "gpus", lambda: 8)
    monkeypatch.setattr(
        line,
        "generate",
        lambda *_, worker, **__: begins.append((worker, os.environ.get("CUDA_VISIBLE_DEVICES"))),
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which it sets, for this process too
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"CUDA_VISIBLE_DEVICES: this worker sees 8 GPUs"):
        cli.worker(study=str(opened[0].folder), rank="3", of=8)
    cli.worker(study=str(opened[0].folder), rank="0", of=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("LOCAL_RANK", "1")
    cli.worker(study=str(opened[0].folder), rank="3", of=8)
    assert begins == [(Worker(0, 1), None), (Worker(3, 8), "5")]


# -- Slurm -------------------------------------------------------------------------------------------


def test_any_key_of_sbatch_passes_through_with_commas_in_its_value(tmp_path: Path) -> None:
    asked = slurm.Asked(
        slurm.options(["partition=gpu,exclude=n1,n2,time=4:00:00", "gpus-per-node=a100:8,nodes=4,exclusive=true"])
    )
    workers, last = slurm.scripts(tmp_path, "mine", asked)
    for said in ("--exclude=n1,n2", "--time=4:00:00", "--gpus-per-node=a100:8", "--exclusive", "--array=0-3%4"):
        assert f"#SBATCH {said}\n" in workers
    assert "#SBATCH --nodes=1\n" in workers and "--of 32" in workers and "#SBATCH --ntasks-per-node=8\n" in workers
    assert "--partition=gpu" in last and "gpus" not in last and "array" not in last


def test_a_value_in_quotes_keeps_its_commas(tmp_path: Path) -> None:
    texts = ['export="ALL,HF_HOME=/scratch/hf,foo=/x",time=60', "tres-per-node=gres/gpu:2,gpu_bind=none"]
    workers, last = slurm.scripts(tmp_path, "mine", slurm.Asked(slurm.options(texts)))
    for said in ("--export=ALL,HF_HOME=/scratch/hf,foo=/x", "--time=60", "--tres-per-node=gres/gpu:2"):
        assert f"#SBATCH {said}\n" in workers
    assert "#SBATCH --export=ALL,HF_HOME=/scratch/hf,foo=/x\n" in last and "gpu" not in last


@pytest.mark.parametrize(
    ("ends", "said"), [(0, "7, is cancelled"), (1, "7, is in the queue still; end it with: scancel 7")]
)
def test_an_array_whose_last_job_is_refused_does_not_stay(
    tmp_path: Path, ends: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an `sbatch` that takes the first script and refuses the second."""
    asked = tmp_path / "asked"
    refuses = (
        'grep -q array= "$1" && echo "Submitted batch job 7" || { echo "sbatch: error: QOSMaxSubmit" >&2; exit 1; }'
    )
    for name, does in {"sbatch": refuses, "scancel": f'echo "$@" > "{asked}"; exit {ends}'}.items():
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(f"#!/bin/sh\n{does}\n")
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=f"Slurm refuses: sbatch: error: QOSMaxSubmit; the array of workers, {said}"):
        slurm.launch(tmp_path / "run", "mine", slurm.Asked({}))
    assert asked.read_text() == "7\n"
    assert ("scancel 7)" in store.Run(tmp_path / "run").held) == ends and bool(store.Run(tmp_path / "run").held) == ends


def test_the_folder_of_a_study_whose_jobs_wait_is_not_given_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an `sbatch` that takes both scripts, and never starts a job."""
    stub = tmp_path / "bin" / "sbatch"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\ngrep -q array= "$1" && echo "Submitted batch job 7" || echo "Submitted batch job 8"\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    opened, folder = begun(tmp_path / "run", 1), tmp_path / "run"
    assert slurm.launch(folder, "fake", slurm.Asked({})) == ("7", "8")
    other = fake_study(images_per_prompt=1, seed=1)
    with pytest.raises(RunError, match=r"seed is 0 there and 1 here.*scancel 7 8.* delete .*run/slurm"):
        line.begin(other, folder)
    assert begun(folder, 1)[1] == opened[1] and begun(folder, 2)[1].images_per_prompt == 2
    shutil.rmtree(folder / "slurm")
    assert line.begin(other, folder)[1].seed == 1


def test_a_worker_has_the_processors_that_were_asked_for(tmp_path: Path) -> None:
    """sbatch's manual: "Beginning with 22.05, srun will not inherit the --cpus-per-task value requested by salloc or sbatch"."""
    workers, last = slurm.scripts(tmp_path, "mine", slurm.Asked(slurm.options(["cpus_per_task=4"])))
    (started,) = [row for row in workers.splitlines() if row.startswith("srun ")]
    assert "--cpus-per-task=4" in started and "#SBATCH --cpus-per-task=4\n" in last


TOKEN = "hf_" + "SeCrEtSeCrEtSeCrEt" * 2


@pytest.mark.parametrize(
    "words",
    [
        ["--setup", f"export HF_TOKEN={TOKEN}"],
        ["--slurm", f"export=HF_TOKEN={TOKEN}"],
        ["--container", "docker://me:SeCrEt@there/typecast"],
        ["--set", f"model.revision={TOKEN}"],
        ["--set", "model.path=https://me:SeCrEt@there/x"],
        ["--set", f"arms=[{{suffix: {{text: {TOKEN}}}}}]"],
    ],
)
def test_a_secret_comes_into_no_script_and_no_study(tmp_path: Path, words: list[str]) -> None:
    """Scripts and studies are kept in the run folder."""
    told = typecast("launch", "emoji", *words, cwd=tmp_path)
    assert told.returncode == 2 and "holds a token or a password" in told.stderr and "SeCrEt" not in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_secret_in_a_file_that_a_study_names_comes_into_no_run(tmp_path: Path) -> None:
    """A run keeps what its prompt sets say, and their files are not the study's."""
    asks = {"description": "d", "source": "s", "licence": "none", "status": "verified", "concepts": ["pilot"]}
    asks |= {"templates": {"one": f"a photo of {{a_concept}} {TOKEN}"}}
    (tmp_path / "own.yaml").write_text(json.dumps(asks))
    mine = {"prompt_sets": ["own.yaml"], "model": {"path": "fake"}, "perceive": {"clip": "fake"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(mine))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").touch(0o755)  # that there is a Slurm is looked for first
    for command in ("run", "launch"):
        told = typecast(command, "mine.yaml", cwd=tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert told.returncode == 2 and "mine: prompt_sets: own: holds a token or a password" in told.stderr
        assert "SeCrEt" not in told.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "mine.yaml", "own.yaml"]


SAYS = f"""
import logging, sys, threading, warnings
from pipeline import cli, line
def begin(chosen, folder):
    logging.getLogger("hub").warning("logs {TOKEN}")
    warnings.warn("warns of https://me:{TOKEN}@there")
    thread = threading.Thread(target=int, args=("{TOKEN}",))
    thread.start()
    thread.join()
    raise SystemExit
line.begin = begin
sys.argv = ["typecast", "worker", "emoji", "--rank", "0", "--of", "1"]
cli.main()
"""


def test_a_secret_of_a_library_comes_into_no_log(tmp_path: Path) -> None:
    """A worker's standard error is kept, by Slurm and by `--gpus`; and what was said before it began, by the second."""
    told = subprocess.run([sys.executable, "-c", SAYS], env=ENVIRONMENT, capture_output=True, text=True)
    assert "SeCrEt" not in told.stderr
    for said in ("logs …", "warns of https://…@there", "invalid literal for int() with base 10: '…'"):
        assert said in told.stderr
    early = [sys.executable, "-c", f"raise OSError('{TOKEN}')"]
    with subprocess.Popen(early, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launch:
        local._Said(launch, tmp_path / "log").join()
    assert launch.returncode and "OSError: …" in (tmp_path / "log").read_text()
    assert "SeCrEt" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ("gpus_per_node=8", 8),
        ("gres=gpu:4", 4),
        ("gres=gpu:a100:2,license:1", 2),
        ("gres=gpu:h100_80gb:8", 8),
        ("gpus_per_node=8,ntasks_per_node=2", 2),
        ("gpus=a100:8", 8),
        ("tres_per_node=gres/gpu:8", 8),
        ("tres_per_node=gres/gpu:a100:4", 4),
        ("gpus_per_socket=4,sockets_per_node=2,ntasks_per_node=8", 8),
        ("time=60", 1),
    ],
)
def test_a_node_has_a_worker_per_gpu(options: str, workers: int) -> None:
    assert slurm.Asked(slurm.options([options])).per_node == workers


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["gpu"], "not KEY=VALUE"),
        (["array=0-3"], "array cannot be set"),
        (["nodes=2", "nodes=3"], "nodes is given twice: 2 and 3"),
        (["nodes=2-4"], "a whole number"),
        (["gpus_per_socket=4,sockets_per_node=2"], "give ntasks_per_node too"),
        (["no_requeue=true"], "no_requeue cannot be set"),
        (["requeue=false"], "requeue cannot be set: it is always on"),
        (["signal=B:USR1@300"], "signal cannot be set: .* 90 s"),
        (["parsable=true"], "parsable cannot be set"),
        (["export=ALL,HF_HOME=/x"], "stands in double quotes"),
        (['export="ALL,HF_HOME=/x'], "a double quote is not closed"),
        (["comment=a\n#SBATCH --uid=0"], "cannot stand in a script"),
        (["$(id)=1"], "not KEY=VALUE"),
    ],
)
def test_what_slurm_cannot_be_asked_is_one_message(tmp_path: Path, texts: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        slurm.scripts(tmp_path, "mine", slurm.Asked(slurm.options(texts)))


HOSTILE = ["$(touch pwned)", "`touch pwned`", "a; touch pwned", "a' 'b", 'a"b', "a && touch pwned #"]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_user_names_is_run_by_the_script(tmp_path: Path, text: str) -> None:
    """The scripts are run by a real shell, with an `srun` and an `apptainer` that only say what they were given."""
    for name in ("srun", "apptainer"):
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        stub.chmod(0o755)
    folder = tmp_path / text
    asked = slurm.Asked({"comment": text}, container=text)
    for script in slurm.scripts(folder, "mine", asked):
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        told = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        assert str(folder) in told.stdout.splitlines() and text in told.stdout.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_a_folder_that_would_break_the_script_is_one_message(tmp_path: Path) -> None:
    for name, said in (("a\nb", "cannot stand in a script"), ("50%", "name another folder")):
        with pytest.raises(InputError, match=said):
            slurm.scripts(tmp_path / name, "mine", slurm.Asked({}))


def test_a_dry_run_prints_both_scripts_and_makes_nothing(tmp_path: Path) -> None:
    words = ["emoji", "--slurm", "nodes=2,time=60", "--setup", "module load cuda", "--container", "typecast.sif"]
    told = typecast("launch", *words, "--dry-run", cwd=tmp_path)
    assert told.returncode == 0 and list(tmp_path.iterdir()) == []
    for said in ("#SBATCH --array=0-1%2", "module load cuda", "apptainer exec --nv", "worker", "estimate", "report"):
        assert said in told.stdout


@pytest.mark.parametrize(
    "words", [("launch", "mine.yaml", "--slurm", "nodes=4,gpus_per_node=8"), ("run", "mine.yaml", "--gpus", "32")]
)
def test_workers_that_will_have_nothing_to_do_are_told_before(tmp_path: Path, words: tuple[str, ...]) -> None:
    """20 prompts x 125 images are 2,500, and a shard holds 512."""
    mine = {"prompt_sets": ["emoji_occupations"], "model": {"path": "fake"}, "images_per_prompt": 125}
    (tmp_path / "mine.yaml").write_text(json.dumps(mine))
    told = typecast(*words, "--dry-run", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stderr == "5 shards for 32 workers: 27 will be idle; ask for 5, or for more images_per_prompt\n"
    enough = typecast(*words, "--dry-run", "--set", "images_per_prompt=794", cwd=tmp_path)
    assert enough.returncode == 0 and enough.stderr == ""  # 15,880 images, 32 shards


def test_a_launch_without_submitit_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt -e '\.\[slurm\]'"):
        slurm.scripts(tmp_path, "mine", slurm.Asked({}))


NOW = "2026-11-30T07:00:00"
"""As Slurm says when a job is being pre-empted; `None` when it is not."""


def scripted(tmp_path: Path, *, srun: str, preempt_time: str = "None") -> tuple[subprocess.Popen[str], Path]:
    """The workers' script, run by a real shell with other commands in Slurm's place; and what `scontrol requeue` is told."""
    asked = tmp_path / "asked"
    stubs = {"srun": srun, "scontrol": f'[ "$1" = show ] && echo PreemptTime={preempt_time} || echo "$@" >> "{asked}"'}
    for name, does in stubs.items():
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(f"#!/bin/sh\n{does}\n")
        stub.chmod(0o755)
    (tmp_path / "run" / "images").mkdir(parents=True)
    old = tmp_path / "run" / "images" / "before.parquet"
    old.touch()
    os.utime(old, (0, 0))
    script, _ = slurm.scripts(tmp_path / "run", "mine", slurm.Asked({}))
    slurms_own = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    job = subprocess.Popen(
        ["bash", "-c", script], env=os.environ | slurms_own | path, stderr=subprocess.PIPE, text=True
    )
    return job, asked


@pytest.mark.parametrize("preempt_time", ["None", NOW])
@pytest.mark.parametrize("finished", [True, False])
def test_a_worker_that_is_out_of_time_goes_back_to_the_queue_if_a_shard_was_finished(
    tmp_path: Path, finished: bool, preempt_time: str
) -> None:
    """And always where it was pre-empted on a cluster that says so by the same signal."""
    job, asked = scripted(tmp_path, srun="sleep 5", preempt_time=preempt_time)
    time.sleep(2)
    if finished:
        (tmp_path / "run" / "images" / "new.parquet").touch()
    job.send_signal(signal.SIGUSR2)
    _, said = job.communicate(timeout=60)
    again = finished or preempt_time != "None"
    assert asked.exists() == again
    assert not again or asked.read_text() == "requeue 7_3\n"  # 7 would be every worker of the array
    assert ("no shard was finished within the time limit" in said) != again


@pytest.mark.parametrize(
    ("ended", "preempt_time", "again"),
    [(130, NOW, True), (143, NOW, True), (130, "None", False), (1, NOW, False), (0, NOW, False)],
)
def test_a_worker_that_ends_while_it_is_pre_empted_goes_back_to_the_queue(
    tmp_path: Path, ended: int, preempt_time: str, again: bool
) -> None:
    """Not one that was cancelled, that failed, or that was ready."""
    job, asked = scripted(tmp_path, srun=f"exit {ended}", preempt_time=preempt_time)
    job.communicate(timeout=60)
    assert job.returncode == ended
    assert asked.exists() == again


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    why = slurms.missing()
    if why:
        pytest.skip(why)
    with slurms.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment | {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}


def test_slurm_ends_like_local_with_one_worker_requeued_and_one_out_of_time(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    opened = begun(tmp_path / "run", 600)
    run, chosen, planned = opened
    store.write_text(tmp_path / "fake.yaml", study.dump(chosen))
    words = ["launch", str(tmp_path / "fake.yaml"), "--out", str(run.folder), "--slurm", "nodes=2,time=30"]
    told = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words], env=cluster, capture_output=True, text=True, cwd=tmp_path
    )
    assert told.returncode == 0, told.stderr
    assert list(run.folder.rglob("*.pkl")) == []
    number = told.stdout.split("submitted: ")[1].split(",")[0]

    def has_drawn(rank: int) -> bool:
        return any(run.images(shard).exists() for shard in planned.shards(Worker(rank, 2)))

    until(lambda: has_drawn(1))
    subprocess.run(["scontrol", "requeue", f"{number}_1"], env=cluster, check=True)
    until(lambda: has_drawn(0))
    # what Slurm sends when the time limit is near
    subprocess.run(["scancel", "--batch", "--signal=USR2", f"{number}_0"], env=cluster, check=True)
    until(lambda: not slurms.jobs(cluster))
    ask = ["scontrol", "show", "job", number]
    shown = subprocess.run(ask, env=cluster, capture_output=True, text=True).stdout
    assert shown.count("Restarts=1") == 2 and shown.count("JobState=COMPLETED") == 2, shown
    assert done(opened) == alone(tmp_path / "alone", 600)
    logs = "\n".join(log.read_text() for log in (run.folder / slurm.FOLDER).glob("*.out"))
    assert line.status(opened)["report"] and "report.html" in logs, logs


@pytest.mark.slow
def test_a_worker_that_is_pre_empted_is_requeued_and_continues(cluster: dict[str, str], tmp_path: Path) -> None:
    """With a time of grace, in which a worker ends by itself: Slurm would take it for one that failed."""
    opened = begun(tmp_path / "run", 1500)
    run, chosen, planned = opened
    with pytest.MonkeyPatch.context() as patch:
        for key, value in cluster.items():
            patch.setenv(key, value)
        asked = slurm.Asked(slurm.options(["nodes=2,time=30"]))
        number, _ = slurm.launch(run.folder, chosen.name, asked)
        until(lambda: any(run.images(shard).exists() for shard in planned.shards()))
        urgent = ["sbatch", "--partition=urgent", "--exclusive", f"--output={tmp_path / 'urgent'}", "--wrap=sleep 3"]
        subprocess.run(urgent, check=True)
        until(lambda: not slurms.jobs(cluster), 600)
        shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True).stdout
    assert shown.count("Restarts=1") == 2 and shown.count("JobState=COMPLETED") == 2, shown
    assert done(opened) == alone(tmp_path / "alone", 1500)
    assert line.status(opened)["report"]


def test_a_model_draws_the_same_on_slurm(cluster: dict[str, str], tmp_path: Path) -> None:
    """Whatever processors a task has, the study's threads draw."""
    undisturbed, opened = modelled(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in cluster.items():
            patch.setenv(key, value)
        slurm.launch(opened[0].folder, "model", slurm.Asked(slurm.options(["nodes=2,time=30"])))
    until(lambda: not slurms.jobs(cluster))
    assert done(opened) == done(undisturbed) and threads_of(opened) == {"2"}


def test_what_slurm_refuses_is_one_message(cluster: dict[str, str], tmp_path: Path) -> None:
    opened = begun(tmp_path / "run")
    for options in ("partition=nowhere", "partiton=debug"):
        with pytest.MonkeyPatch.context() as patch:
            for key, value in cluster.items():
                patch.setenv(key, value)
            with pytest.raises(InputError, match="Slurm refuses: sbatch:"):
                slurm.launch(opened[0].folder, "fake", slurm.Asked(slurm.options([options])))


def test_a_worker_of_a_wrong_array_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [("ARRAY_TASK_ID", 1), ("ARRAY_TASK_COUNT", 2), ("NTASKS", 8), ("PROCID", 3), ("LOCALID", 3)]:
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    assert slurm.worker(16) == Worker(11, 16)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    with pytest.raises(RunError, match="Slurm started 2 x 8"):
        slurm.worker(32)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "ray", "--gpus", "2"], "every GPU of the cluster draws"),
        (["--address", "10.0.0.1:6379"], "it needs --engine ray"),
        (["--address", ""], "--address: is empty"),
        (["--engine", "ray", "--address", ""], "--address: is empty"),
        (["--retry-failed", "--gpus", "2"], "--retry-failed draws in this process"),
        (["--retry-failed", "--engine", "ray"], "--retry-failed draws in this process"),
    ],
)
def test_options_of_another_engine_are_one_message(tmp_path: Path, words: list[str], said: str) -> None:
    ended = typecast("run", "emoji", *words, cwd=tmp_path)
    assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []
