"""The door, as a user meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline import line, study
from tests.conftest import fake_study

HOME = Path(__file__).parents[1]


def typecast(*words: str, cwd: Path = HOME, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "from pipeline.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    environment |= variables
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=cwd, env=environment, timeout=300
    )


@pytest.fixture
def fake(tmp_path: Path) -> str:
    path = tmp_path / "fake.yaml"
    quick = {"perceive": {"clip": "fake", "attributes": ["gender"]}, "reference": [{"table": "taught_shares"}]}
    path.write_text(study.dump(fake_study(**quick)))
    return str(path)


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['typecast', '--help']\nfrom pipeline.cli import main\ntry: main()\n"
        "except SystemExit: assert not {'torch', 'diffusers', 'open_clip', 'pandas'} & set(sys.modules)"
    )
    assert "continue" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_run_says_the_finding_and_where_the_report_is(fake: str, tmp_path: Path) -> None:
    done = typecast("run", fake, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Against" in done.stdout and "report: outputs/fake/report.html" in done.stdout
    assert (tmp_path / "outputs/fake/report.html").stat().st_size > 10_000
    state = json.loads(typecast("status", "outputs/fake", "--json", cwd=tmp_path).stdout)
    assert (state["made"], state["shards_perceived"]) == (600, 2)


def test_the_stages_one_by_one_end_like_the_run(fake: str, tmp_path: Path) -> None:
    assert typecast("run", fake, "--out", "whole", cwd=tmp_path).returncode == 0
    for words in (["generate", fake, "--out", "parts"], *(["perceive"], ["estimate"], ["report"])):
        done = typecast(*words, *([] if len(words) > 1 else ["parts"]), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for name in ("estimates.csv", "summary.json", "study.yaml"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_dry_run_makes_nothing(fake: str, tmp_path: Path) -> None:
    done = typecast("run", fake, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "600" in done.stdout and "a photo of a mechanic" in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("command", [["run"], ["launch"]])
def test_a_dry_run_in_the_folder_of_another_study_is_refused_as_the_run_is(
    fake: str, tmp_path: Path, command: list[str]
) -> None:
    opened = line.begin(fake_study(seed=1, images_per_prompt=1), tmp_path / "run")
    line.generate(opened, perceive=False)
    done = typecast(*command, fake, "--dry-run", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2 and "run: holds another study: seed is 1 there and 0 here" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere"], "nowhere: no such study file"),
        (["run", "emoji", "--set", "model.path=./nowhere"], "emoji: model.path: './nowhere'"),
        (["run", "emoji", "--set", "draw.stpes=3"], "emoji.yaml --set draw.stpes=3: draw.stpes"),
        (["run", "emoji", "--set", "seed=2020-13-45"], "--set seed=2020-13-45: the value is not YAML"),
        (["status", "nowhere"], "no run here"),
        (["perceive", "nowhere"], "no run here"),
        (["prompts", "nowhere"], "nowhere"),
        (["compare", "nowhere", "elsewhere"], "no run here"),
        (["plan", "emoji", "--precision", "3", "--rate", "0"], "--rate 0"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = typecast(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_the_place_of_a_study_is_told_how_to_go_on(fake: str, tmp_path: Path) -> None:
    assert typecast("generate", fake, "--out", "run", cwd=tmp_path).returncode == 0
    told = typecast("run", "run", cwd=tmp_path)
    assert told.returncode == 2 and told.stderr.endswith("go on with it by: typecast run run/study.yaml --out run\n")
    assert typecast(*told.stderr.split("typecast ")[-1].split(), cwd=tmp_path).returncode == 0


def test_a_launch_that_cannot_be_leaves_no_folder_behind(fake: str, tmp_path: Path) -> None:
    for words, said in (([], "no Slurm here"), (["--container", " ", "--dry-run"], "--container: is empty")):
        told = typecast("launch", fake, *words, cwd=tmp_path, PATH="/nowhere")
        assert told.returncode == 2 and said in told.stderr
    assert not (tmp_path / "outputs").exists()


def test_what_a_user_typed_is_repeated_without_its_password(tmp_path: Path) -> None:
    ended = typecast("run", "https://me:SeCrEt@there/study.yaml", cwd=tmp_path)
    assert ended.returncode == 2 and "https://…@there/study.yaml: no such study file" in ended.stderr


@pytest.mark.parametrize(("out", "said"), [("/proc/typecast", "/proc/typecast"), ("{fake}/run", "Not a directory")])
def test_a_folder_that_cannot_be_written_is_one_message(fake: str, out: str, said: str) -> None:
    done = typecast("run", fake, "--out", out.format(fake=fake))
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert "continues" not in done.stderr and "--out" in done.stderr


def test_interrupted_exits_with_130_and_continues(fake: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(Path(fake).read_text()) | {"images_per_prompt": 3000}
    Path(fake).write_text(yaml.safe_dump(raw))
    code = "from pipeline.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "generate", fake, "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        cwd=HOME,
    ) as process:
        while not list((tmp_path / "run").glob("images/*.parquet")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()  # or the test would wait for it
    assert process.returncode == 130
    assert "the same command continues" in stderr and "Traceback" not in stderr


def test_interrupted_within_the_code_of_a_lock_it_ends_all_the_same() -> None:
    """As a drawing did once that was interrupted while it handed a picture to its encoders, whose lock stayed locked."""
    code = """
import signal, threading, time
from pipeline import cli
cli.PATIENCE = 1
signal.signal(signal.SIGTERM, cli._interrupted)
lock = threading.Lock()
lock.acquire()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    lock.acquire()
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOME) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        try:
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130 and "the same command continues" in stderr


def test_what_ships_is_listed() -> None:
    studies = typecast("studies").stdout
    for name in ("emoji", "bianchi2023", "stable_bias", "dalleval", "fair_diffusion", "identities"):
        assert re.search(rf"^{name} ", studies, re.MULTILINE)
    assert "a photo of an astronaut" in typecast("prompts", "emoji_occupations").stdout


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    line.begin(fake_study(images_per_prompt=1), tmp_path / "run")
    told = typecast("generate", str(tmp_path / "run"), "--set", "images_per_prompt=3")
    assert told.returncode == 2 and "belong to the study that it is of: STUDY --set" in told.stderr
