"""Faults, each injected, then the pixels compared with an undisturbed run: nothing lost, nothing twice, nothing silent."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline import errors, line, stages, store, study
from pipeline.errors import ModelError, RunError
from pipeline.generate import FakeGenerator
from pipeline.line import Opened
from pipeline.types import Batch, Drawn, Generator
from tests import tiny
from tests.conftest import fake_study, pixels_of
from tests.test_generate import full_beyond, raising_on

PERCEIVER = "fake-zero_shot"
COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def typecast(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"} | environment,
    )


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.partial")]


# SIGTERM


def test_sigterm_keeps_what_is_finished_and_the_same_command_continues(tmp_path: Path) -> None:
    wanted = fake_study(name="long", images_per_prompt=100, draw={"height": 96, "width": 96, "threads": 1})
    store.write_text(tmp_path / "long.yaml", study.dump(wanted))
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "generate", str(tmp_path / "long.yaml"), "--out", str(run)], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(run.glob("images/*.parquet")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 130 and "finished shards are kept, and the same command continues" in said
    assert "Traceback" not in said and left_over(run) == []
    kept = {path: path.stat().st_mtime_ns for path in run.glob("images/*.parquet")}
    planned = line.resume(run)[2]
    assert 0 < len(kept) < len(planned.shards())
    assert typecast("generate", tmp_path / "long.yaml", "--out", run).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    undisturbed = line.begin(wanted, tmp_path / "undisturbed")
    line.generate(undisturbed, perceive=False)
    assert pixels_of(line.resume(run)) == pixels_of(undisturbed)


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_message_and_with_more_room_the_run_goes_on(small_disk: Path, tmp_path: Path) -> None:
    wanted = fake_study(name="full", images_per_prompt=80)
    store.write_text(tmp_path / "full.yaml", study.dump(wanted))
    run = small_disk / "run"
    refused = typecast("generate", tmp_path / "full.yaml", "--out", run)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    *_, message = refused.stderr.splitlines()
    assert re.fullmatch(
        rf"typecast: {run}/\S+: No space left on device; make room; what was finished is kept, and the same command continues",
        message,
    )
    kept = list(run.glob("images/*.parquet"))
    assert kept and left_over(run) == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert typecast("generate", tmp_path / "full.yaml", "--out", run).returncode == 0
    undisturbed = line.begin(wanted, tmp_path / "undisturbed")
    line.generate(undisturbed, perceive=False)
    assert pixels_of(line.resume(run)) == pixels_of(undisturbed)


# Damaged files


def flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def test_none_of_400_flipped_bits_changes_anything_silently(drawn: Callable[..., Opened]) -> None:
    """Read in full, each is an error; of a few columns too, unless it lies in the pictures, which were not asked for."""
    run, _, planned = drawn(images_per_prompt=10)
    shard, chance = planned.shards()[0], random.Random(0)
    images, seen = run.images(shard), run.perceptions(PERCEIVER, shard)
    whole, rows = images.read_bytes(), run.read_images(shard, ["unit_id", "status", "sha256", "seed"])
    for _ in range(300):
        images.write_bytes(flipped(whole, chance))
        with pytest.raises(RunError, match="cannot be read"):
            run.read_images(shard)
        with pytest.raises(RunError, match="cannot be read"):
            store.check(images)
        with contextlib.suppress(RunError):
            assert run.read_images(shard, rows.column_names) == rows
    whole = seen.read_bytes()
    for _ in range(100):
        seen.write_bytes(flipped(whole, chance))
        with pytest.raises(RunError, match="cannot be read"):
            run.read_perceptions(PERCEIVER, shard, ["unit_id"])


@pytest.mark.parametrize("seed", range(4))
def test_damaged_shards_are_set_aside_and_drawn_and_perceived_again(
    drawn: Callable[..., Opened], seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, planned = opened = drawn(images_per_prompt=60)
    pixels, shards = pixels_of(opened), planned.shards()
    readings = [run.read_perceptions(PERCEIVER, shard) for shard in shards]
    chance = random.Random(seed)
    victims = [run.images(shards[0]), run.perceptions(PERCEIVER, shards[1]), run.images(shards[2])]
    for victim in victims[:2]:
        victim.write_bytes(flipped(victim.read_bytes(), chance))
    victims[2].write_bytes(victims[2].read_bytes()[: chance.randrange(victims[2].stat().st_size)])
    assert pixels_of(drawn(images_per_prompt=60)) == pixels
    assert [run.read_perceptions(PERCEIVER, shard) for shard in shards] == readings
    said = capsys.readouterr().err
    for victim in victims:
        assert victim.with_name(f"{victim.name}.unreadable-0").exists() and f"{victim.name}.unreadable-0" in said


def test_a_picture_that_is_damaged_between_drawing_and_perceiving_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, planned = opened = line.begin(fake_study(), tmp_path / "run")
    line.generate(opened, perceive=False)
    pixels, victim = pixels_of(opened), run.images(planned.shards()[0])
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    look = stages.drawn

    def damaging(*asked: Any) -> bool:
        """The disk fails just after the shard was looked at."""
        answer = look(*asked)
        if not victim.with_name(f"{victim.name}.unreadable-0").exists():
            victim.write_bytes(content)
        return answer

    monkeypatch.setattr(stages, "drawn", damaging)
    line.generate(opened, perceive=True)
    assert pixels_of(opened) == pixels
    assert all(run.perceptions(PERCEIVER, shard).exists() for shard in planned.shards())


def test_perceiving_alone_sets_a_damaged_picture_aside_and_says_what_to_run(tmp_path: Path) -> None:
    run, _, planned = opened = line.begin(fake_study(), tmp_path / "run")
    line.generate(opened, perceive=False)
    victim, pixels = run.images(planned.shards()[0]), pixels_of(opened)
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"1 shards are set aside; run: typecast generate"):
        line.perceive(opened)
    assert run.perceptions(PERCEIVER, planned.shards()[1]).exists()
    line.generate(opened, perceive=False)
    line.perceive(opened)
    assert pixels_of(opened) == pixels


# Two studies, one folder


def meanwhile(opened: Opened, happens: Callable[[], object]) -> Generator:
    """The same pictures; before the first of them something happens elsewhere."""
    first = [happens]

    class Slow:
        def draw(self, batch: Batch) -> list[Drawn | None]:
            while first:
                first.pop()()
            return fake(opened).draw(batch)

    return Slow()


def other_study(**changes: Any) -> study.Study:
    """Another guidance."""
    return fake_study(draw={"height": 16, "width": 16, "threads": 1, "guidance_scale": 9.0}, **changes)


def test_a_folder_in_which_a_process_draws_is_not_given_to_another_study(tmp_path: Path) -> None:
    opened = line.begin(fake_study(images_per_prompt=2), tmp_path / "run")

    def second() -> None:
        for study_of_another, said in (
            (other_study(), r"draw\.guidance_scale is 3\.0 there and 9\.0 here"),
            (fake_study(images_per_prompt=1), "can only grow"),
        ):
            with pytest.raises(RunError, match=f"holds another study: .*{said}"):
                line.begin(study_of_another, tmp_path / "run")
        assert line.begin(fake_study(images_per_prompt=3), tmp_path / "run")[1].grown_from == (2,)

    stages.draw(opened[0], opened[2], lambda: meanwhile(opened, second))
    line.generate(line.resume(tmp_path / "run"), perceive=False)
    grown = line.resume(tmp_path / "run")
    assert grown[1].draw.guidance_scale == 3 and len(pixels_of(grown)) == 60


@pytest.mark.parametrize("locks", [True, False])
def test_a_process_whose_folder_another_study_has_taken_writes_nothing(
    tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken before this one began to draw; or, where no file can be locked, while it drew."""
    run, _, planned = opened = line.begin(fake_study(images_per_prompt=2), tmp_path / "run")
    if not locks:
        monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))

    def second() -> None:
        line.begin(other_study(images_per_prompt=2), tmp_path / "run")

    if locks:
        second()
    with pytest.raises(RunError, match="run: another study has begun here since, and nothing more is drawn"):
        stages.draw(run, planned, lambda: meanwhile(opened, second))
    assert list(run.folder.glob("images/*")) == []
    with pytest.raises(RunError, match="another study has begun here since"):
        stages.fail(run, planned, planned.shards()[0], "lost")
    taken = line.resume(tmp_path / "run")
    line.generate(taken, perceive=False)
    assert taken[1].draw.guidance_scale == 9 and len(pixels_of(taken)) == 40


# Models that fail


def fails(generator: Generator, broken: Callable[[str], bool]) -> Generator:
    """The same pictures, but for the prompts that are broken."""

    class Failing:
        def draw(self, batch: Batch) -> list[Drawn | None]:
            drawn = generator.draw(batch)
            return [
                Drawn("failed", None, "ValueError: bad day") if unit and broken(unit.prompt_sent) else one
                for unit, one in zip(batch, drawn, strict=True)
            ]

    return Failing()


def fake(opened: Opened) -> FakeGenerator:
    return FakeGenerator(opened[2].settings)


@pytest.mark.parametrize("size", [1, 16])
def test_a_model_that_fails_at_every_image_is_stopped_after_the_first_batches(tmp_path: Path, size: int) -> None:
    draw = {"height": 16, "width": 16, "threads": 1, "batch_size": size}
    run, _, planned = opened = line.begin(fake_study(draw=draw), tmp_path / "run")
    asked: list[Batch] = []

    def broken(prompt: str) -> bool:
        return True

    class Counting:
        def draw(self, batch: Batch) -> list[Drawn | None]:
            asked.append(batch)
            return fails(fake(opened), broken).draw(batch)

    with pytest.raises(
        ModelError, match=r"all of the first (16|48) images failed, (16|48) of them with: ValueError: bad day"
    ):
        stages.draw(run, planned, Counting)
    assert len(asked) == max(stages.HOPELESS, stages.TREND // size) and not list(run.folder.glob("images/*"))
    stages.draw(run, planned, lambda: fake(opened))
    assert len(pixels_of(opened)) == len(planned)


def test_a_model_from_which_something_came_may_fail_at_a_whole_shard(tmp_path: Path) -> None:
    """Else an arm that fails throughout would end a run whose workers each draw some shards, and no other."""
    wanted = fake_study(images_per_prompt=30, arms=["none", {"suffix": {"text": "smiling"}}])
    run, _, planned = opened = line.begin(wanted, tmp_path / "run")
    for shard in planned.shards():
        stages.draw(
            run, planned, lambda: fails(fake(opened), lambda prompt: prompt.endswith("smiling")), shards=[shard]
        )
    found = line.status(opened)
    assert (found["made"], found["failed"]) == (600, 600)


def test_energy_counts_what_a_session_has_put_on_the_disk(
    drawn: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less the damaged shard that it set aside, a session that then failed would have drawn -512 images."""
    opened = drawn()
    run, _, planned = opened
    victim = run.images(planned.shards()[0])
    victim.write_bytes(flipped(victim.read_bytes(), random.Random(0)))

    def broken(*_: object) -> Generator:
        raise ModelError("no GPU today")

    with monkeypatch.context() as today, pytest.raises(ModelError):
        today.setattr(line, "open_generator", broken)
        line.generate(opened, perceive=True)
    line.generate(opened, perceive=True)
    sessions = stages.read_json(run.folder / "energy.json")["sessions"]
    assert sorted(session["images"] for session in sessions) == [0, 512, 600]


def test_perceptions_of_images_that_were_drawn_again_meanwhile_are_made_anew(tmp_path: Path) -> None:
    """A second process had read a shard before the first drew its failed images again, and wrote after it."""
    run, chosen, planned = opened = line.begin(fake_study(images_per_prompt=5), tmp_path / "run")

    def reader() -> Any:
        return line.noted(run, chosen, line.open_perceiver(chosen))

    stages.draw(run, planned, lambda: fails(fake(opened), lambda prompt: "pilot" in prompt), reader)
    late = run.perceptions(PERCEIVER, planned.shards()[0])
    content = late.read_bytes()
    line.retry(opened)
    late.parent.mkdir(exist_ok=True)
    late.write_bytes(content)
    line.generate(opened, perceive=True)
    seen = run.read_perceptions(PERCEIVER, planned.shards()[0])
    assert line.status(opened)["failed"] == 0 and seen["embedding"].null_count == 0


def test_what_a_killed_process_left_half_written_is_removed_once_it_is_old(tmp_path: Path) -> None:
    run, _, _ = opened = line.begin(fake_study(images_per_prompt=1), tmp_path / "run")
    (run.folder / "images").mkdir()
    left = [run.folder / "images" / f".none-00000000-00000020.parquet.node{n}.1.partial" for n in range(2)]
    for partial in left:
        partial.touch()
    old = time.time() - store.STALE - 1
    os.utime(left[0], (old, old))
    line.begin(opened[1], run.folder)
    assert [partial.exists() for partial in left] == [False, True]


def test_failed_units_are_drawn_again_on_request_and_the_others_keep_their_bytes(
    drawn: Callable[..., Opened], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = drawn("undisturbed", images_per_prompt=60)
    run, chosen, planned = opened = line.begin(fake_study(images_per_prompt=60), tmp_path / "run")

    def reader() -> Any:
        return line.noted(run, chosen, line.open_perceiver(chosen))

    stages.draw(run, planned, lambda: fails(fake(opened), lambda prompt: "pilot" in prompt), reader)
    assert line.status(opened)["failed"] == 60 and line.status(opened)["reasons"] == {"failed: ValueError: bad day": 60}
    line.generate(opened, perceive=True)  # without being asked, a failed unit is a result like any other
    assert line.status(opened)["failed"] == 60
    where = {shard: run.environment(shard) for shard in planned.shards()}
    monkeypatch.setattr(line, "open_generator", lambda *_: fails(fake(opened), lambda prompt: "pilot" in prompt))
    line.retry(opened)  # it fails again: no reason to stop
    assert line.status(opened)["failed"] == 60
    monkeypatch.undo()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(stages.generate, "environment", lambda: {"cpu": "another"})
        line.retry(opened)
    for shard, environment in where.items():
        now = run.environment(shard)
        there = [again["cpu"] for again in now.pop("drawn_again_in")]
        units = sum("pilot" in unit.prompt_sent for unit in planned.units(shard))
        assert now == environment | {"failed_drawn_again": str(2 * units)}
        assert there == [environment["cpu"], "another"]
    assert sorted(s["images"] for s in stages.read_json(run.folder / "energy.json")["sessions"]) == [0, 60, 60]
    line.generate(opened, perceive=True)
    assert pixels_of(opened) == pixels_of(undisturbed)
    for shard in planned.shards():
        assert run.read_perceptions(PERCEIVER, shard) == undisturbed[0].read_perceptions(PERCEIVER, shard)
    times = {path: path.stat().st_mtime_ns for path in run.folder.glob("images/*.parquet")}
    line.retry(opened)
    line.generate(opened, perceive=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_another_perceiver_is_told_how_to_read_what_was_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = fake_study(images_per_prompt=5, reference=[])
    run, _, planned = opened = line.begin(chosen, tmp_path / "run")

    def reader() -> Any:
        return line.noted(run, chosen, line.open_perceiver(chosen))

    stages.draw(run, planned, lambda: fails(fake(opened), lambda prompt: "pilot" in prompt), reader)
    other = ["perceive.clip=fake", "perceive.pretrained=two"]
    line.perceive(opened, other)
    line.estimate(opened)
    written = [run.folder / "perceptions/fake-two-zero_shot" / name for name in ("estimates.csv", "summary.json")]
    assert all(file.exists() for file in written)
    line.retry(opened)
    line.perceive(opened)
    capsys.readouterr()
    line.estimate(opened)  # of what the other has not read nothing is said, and nothing stale is left
    said = f"typecast perceive {run.folder} --set perceive.pretrained=two"
    assert said in capsys.readouterr().err and not any(file.exists() for file in written)
    line.perceive(opened, [said.rpartition(" ")[2]])
    line.estimate(opened)
    assert all(file.exists() for file in written)


@pytest.mark.parametrize("folder", ["images", f"perceptions/{PERCEIVER}"])
def test_a_shard_that_may_not_be_opened_is_not_taken_for_damaged(
    drawn: Callable[..., Opened], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, *_ = opened = drawn(images_per_prompt=2)
    (victim,) = (run.folder / folder).glob("*.parquet")
    opening = Path.open

    def refused(self: Path, *how: Any, **more: Any) -> Any:
        if self == victim:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opening(self, *how, **more)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):
        line.generate(opened, perceive=True)
    assert victim.exists() and len(list(victim.parent.glob("*unreadable*"))) == 0


@pytest.mark.parametrize("folder", ["images", f"perceptions/{PERCEIVER}"])
@pytest.mark.parametrize(("number", "times"), [(errno.ESTALE, 1), (errno.ESTALE, 9), (errno.EIO, 9), (errno.EMFILE, 9)])
def test_a_shard_that_the_file_system_does_not_give_is_not_taken_for_damaged(
    drawn: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch, folder: str, number: int, times: int
) -> None:
    """Over NFS a file that another machine has replaced is a stale handle, once; what stays so is told."""
    run, *_ = opened = drawn(images_per_prompt=2)
    (victim,) = (run.folder / folder).glob("*.parquet")
    checking, before = store._check, pixels_of(opened)
    left = [times]

    def troubled(file: Any, *, pictures: bool) -> None:
        if file.name == str(victim) and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))  # as what an open file says, it names none
        checking(file, pictures=pictures)

    monkeypatch.setattr(store, "_check", troubled)
    if times == 1:
        line.generate(opened, perceive=True)
        assert not left[0] and pixels_of(opened) == before
    else:
        with pytest.raises(OSError, match=os.strerror(number)) as told:
            line.generate(opened, perceive=True)
        assert (told.value.errno, told.value.filename) == (number, str(victim))
    assert victim.exists() and not list(run.folder.rglob("*unreadable*"))


def test_what_a_damaged_file_of_a_run_asks_for_helps(drawn: Callable[..., Opened]) -> None:
    """A summary that is cut off, and perceptions that nothing says the perceiver of."""
    run, study, _ = opened = drawn(images_per_prompt=2, perceive={"clip": "fake", "attributes": ["gender"]})
    line.estimate(opened)
    (run.folder / "summary.json").write_text("{")
    with pytest.raises(RunError, match="make it again with: typecast estimate"):
        line.status(opened)
    line.estimate(opened)
    assert line.status(opened)["estimated_of"] == 40
    seen = run.perceptions(study.perceive.name, "x").parent
    (seen / "perceiver.json").unlink()
    with pytest.raises(RunError, match=r"perceiver\.json: is missing.*delete its folder and run: typecast perceive"):
        line.estimate(opened)
    shutil.rmtree(seen)
    line.perceive(opened)
    line.estimate(opened)


def a_model(tmp_path: Path) -> dict[str, Any]:
    """A study of a tiny Stable Diffusion, two images for each of twenty prompts."""
    model = tiny.stable_diffusion(tmp_path / "model")
    draw = {"height": 32, "width": 32, "num_inference_steps": 2, "batch_size": 8, "threads": 1}
    return {"model": {"path": str(model)}, "draw": draw, "images_per_prompt": 2}


def test_a_model_that_raises_on_one_prompt_loses_those_images_alone(
    drawn: Callable[..., Opened], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = a_model(tmp_path)
    undisturbed = drawn("undisturbed", **asked)
    opened = line.begin(fake_study(**asked), tmp_path / "run")
    opening = line.open_generator

    def broken(*what: Any) -> Any:
        generator: Any = opening(*what)
        raising_on("a photo of a pilot", generator._pipe.unet, monkeypatch, ValueError("bad day"), generator._pipe)
        return generator

    monkeypatch.setattr(line, "open_generator", broken)
    line.generate(opened, perceive=True)
    monkeypatch.undo()
    assert line.status(opened)["reasons"] == {"failed: ValueError: bad day": 2}
    kept = {(unit, sha) for unit, sha in pixels_of(opened) if sha}
    assert len(kept) == 38 and kept < pixels_of(undisturbed)
    line.retry(opened)
    line.generate(opened, perceive=True)
    assert pixels_of(opened) == pixels_of(undisturbed)


def test_images_of_a_full_device_are_flagged_and_all_but_the_same(
    drawn: Callable[..., Opened], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = a_model(tmp_path)
    run, _, planned = drawn("undisturbed", **asked)
    opened = line.begin(fake_study(**asked), tmp_path / "run")
    opening = line.open_generator

    def small(*what: Any) -> Any:
        generator: Any = opening(*what)
        full_beyond(6, generator._pipe.unet, monkeypatch)
        return generator

    monkeypatch.setattr(line, "open_generator", small)
    line.generate(opened, perceive=True)
    found = line.status(opened)
    assert found["made"] == found["made_in_smaller_batches"] == 40 and found["reasons"] == {}
    for shard in planned.shards():
        both = [which.read_images(shard, ["image", "reason"]).to_pylist() for which in (run, opened[0])]
        for before, after in zip(*both, strict=True):
            assert before["reason"] == "" and after["reason"].startswith("made in a batch of 2 in place of 8")
            one, other = (store.decode(row["image"]["bytes"]).astype(int) for row in (before, after))
            assert np.abs(one - other).max() <= 2


# Security


HOSTILE = (
    "../../etc/passwd",
    "/etc/passwd",
    "</pre><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$(touch exploded); `touch exploded`",
    "{{ 7 * 7 }} {% include '/etc/passwd' %}",
    "a\\b é",
)


def test_hostile_prompts_stay_texts(tmp_path: Path) -> None:
    """They reach tables, figures and the page as what they are, and no path is made of them."""
    hostile = {"templates": {"photo": "a photo of {concept}"}, "concepts": list(HOSTILE)}
    about = {"description": "hostile", "source": "test", "licence": "none", "status": "verified"}
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(about | hostile), encoding="utf-8")
    home = tmp_path / "home"
    home.mkdir()
    chosen = study.parse(
        fake_study().model_dump(mode="json") | {"prompt_sets": [str(tmp_path / "hostile.yaml")], "name": "hostile"},
        where="hostile.yaml",
    )
    opened = line.begin(chosen, home / "run")
    line.generate(opened, perceive=True)
    line.estimate(opened)
    page = line.report(opened).read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page
    files = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert files == {"hostile.yaml", "home"} and not list(tmp_path.rglob("exploded"))
    for path in (home / "run").rglob("*"):
        assert re.fullmatch(r"[\w.-]+", path.name), path.name


TOKEN = "hf_" + "SeCrEtSeCrEtSeCrEt" * 2


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        TOKEN.upper(),
        "api_org_" + "SeCrEtSeCrEtSeCrEt" * 2,
        "authorization: bearer SeCrEtSeCrEtSeCrEtSeCrEt",
        "https://me:SeCrEt@hub.example/model",
        "https://hub.example/model?token=SeCrEt&part=1",
        "https://hub.example/model?part=1&X-Amz-Signature=SeCrEt",
        "HF_TOKEN=SeCrEt",
        "what the user's own variable holds: cReTsEcReTsE",
    ],
)
def test_secrets_are_blotted_out_of_texts(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "cReTsEcReTsE")
    kept = errors.without_secrets(f"401 for {secret}: try again")
    assert "secret" not in kept.lower().replace("api_org_", "") and "cretsecret" not in kept.lower()
    assert kept.startswith("401 for ") and "…" in kept


RAISING = "import sys, torch; from pipeline import cli, line;" + (
    "line.preview = lambda *_: (_ for _ in ()).throw({error});"
    "sys.argv = ['typecast', 'run', 'emoji', '--dry-run']; cli.main()"
)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (f"ValueError('401 for https://me:{TOKEN}@hub.example')", 3, "a fault of Typecast's own"),
        ("torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')", 2, "the device: CUDA out of memory"),
        ("MemoryError()", 2, "the device: MemoryError"),
    ],
)
def test_faults_of_the_machine_are_a_message_and_our_own_a_traceback_without_secrets(
    error: str, code: int, said: str
) -> None:
    ran = subprocess.run([sys.executable, "-c", RAISING.format(error=error)], capture_output=True, text=True)
    assert ran.returncode == code and said in ran.stderr and TOKEN not in ran.stderr
    assert ("Traceback" in ran.stderr) == (code == 3)


def test_a_token_reaches_no_file_and_no_message(tmp_path: Path) -> None:
    wanted = fake_study(name="quiet", images_per_prompt=2, perceive={"clip": "fake", "attributes": ["gender"]})
    store.write_text(tmp_path / "quiet.yaml", study.dump(wanted))
    secrets = {"HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}
    ran = typecast("run", tmp_path / "quiet.yaml", "--out", tmp_path / "run", **secrets)
    absent = typecast("run", "emoji", "--set", "model.path=nobody/nothing", HF_HUB_OFFLINE="1", **secrets)
    assert (ran.returncode, absent.returncode) == (0, 2)
    said = [ran.stdout, ran.stderr, absent.stdout, absent.stderr]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for text in [*(text.encode() for text in said), *(path.read_bytes() for path in files)]:
        assert TOKEN.encode() not in text
    rows = line.resume(tmp_path / "run")[0].read_images("none-00000000-00000040").to_pylist()
    assert TOKEN not in str(rows)
