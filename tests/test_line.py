"""The line from end to end with the fakes, and every way in which a run can be cut short."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import load_dataset

from classifiers.clip import ClipModel
from pipeline import effects, generate, line, report, stages, store, study, tables
from pipeline.errors import InputError, ModelError, RunError
from pipeline.line import Opened
from pipeline.types import Batch, Drawn, Pixels
from tests import tiny
from tests.conftest import fake_study, pixels_of

DRAW = "import sys; from pathlib import Path; from pipeline import line, stages, study;" + (
    "run, s, p = line.begin(study.load(sys.argv[1]), Path(sys.argv[2]));"
    "Path(sys.argv[2] + '.draws').touch();"
    "stages.draw(run, p, lambda: line.open_generator(s, p), lambda: line.open_perceiver(s))"
)


def test_a_run_has_every_file_of_the_contract(drawn: Callable[..., Opened]) -> None:
    opened = drawn()
    folder = opened[0].folder
    assert "fake at guidance 3" in line.estimate(opened)
    page = line.report(opened)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    for name in ("study.yaml", "estimates.csv", "summary.json", "energy.json"):
        assert (folder / name).is_file()
    with (folder / "estimates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 20 * (2 + 5 + 2 * 5)  # references x occupations x levels, apart and together
    assert {int(row["n"]) for row in rows} == {30}
    for row in rows:
        assert float(row["low"]) <= float(row["share"]) <= float(row["high"])


def test_the_images_open_in_datasets(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    run, _, planned = drawn()
    files = [str(run.images(shard)) for shard in planned.shards()]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["image"].size == (16, 16)
    assert store.sha256(np.asarray(rows[0]["image"])) == rows[0]["sha256"]


def test_continuing_a_finished_run_opens_no_model(drawn: Callable[..., Opened]) -> None:
    run, _, planned = drawn()

    def forbidden() -> None:
        raise AssertionError("a finished shard was drawn again")

    stages.draw(run, planned, forbidden, forbidden)  # type: ignore[arg-type]


def test_growing_keeps_every_finished_shard_and_every_pixel(drawn: Callable[..., Opened]) -> None:
    run, _, planned = drawn(images_per_prompt=50)
    before = {run.images(s).name: run.images(s).stat().st_mtime_ns for s in planned.shards()}
    grown = drawn(images_per_prompt=60)
    assert grown[1].grown_from == (50,)
    assert {name: (run.folder / "images" / name).stat().st_mtime_ns for name in before} == before
    assert pixels_of(grown) == pixels_of(drawn("at once", images_per_prompt=60))


def test_appending_an_arm_keeps_every_finished_shard(drawn: Callable[..., Opened]) -> None:
    first = drawn()
    before = pixels_of(first)
    both = drawn(arms=["none", {"suffix": {"text": ", smiling"}}])
    assert before < pixels_of(both)
    run, _, planned = both
    seeds: dict[str, list[int]] = {}
    for shard in planned.shards():
        seeds.setdefault(shard.arm, []).extend(run.read_images(shard, ["seed"])["seed"].to_pylist())
    assert seeds["none"] == seeds["suffix"]  # the arms start from the same noise


def test_the_folder_of_another_study_is_refused_by_key(drawn: Callable[..., Opened]) -> None:
    drawn()
    with pytest.raises(RunError, match=r"draw\.guidance_scale is 3\.0 there and 5\.0 here"):
        drawn(draw={"height": 16, "width": 16, "threads": 1, "guidance_scale": 5.0})
    with pytest.raises(RunError, match="can only grow"):
        drawn(images_per_prompt=20)


def test_a_dry_run_plans_and_refuses_as_the_run_would(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    run, _, planned = drawn(images_per_prompt=30)
    drawn(images_per_prompt=31)
    victim = run.images(planned.shards()[0])
    text, content = run.study_file.read_bytes(), victim.read_bytes()
    seen = line.look(fake_study(images_per_prompt=32), tmp_path / "run")
    assert "640 in 4 shards, 3 of them finished" in line.preview(seen)
    victim.write_bytes(content[:-100])
    assert "4 shards, 2 of them finished" in line.preview(seen)
    victim.write_bytes(content)
    with pytest.raises(RunError, match="holds another study: images_per_prompt is 31 there and can only grow"):
        line.look(fake_study(images_per_prompt=30), tmp_path / "run")
    (run, study_of_run, other) = line.look(fake_study(images_per_prompt=31), tmp_path / "run")
    others = replace(other, settings=replace(other.settings, weights="other"))
    with pytest.raises(RunError, match="was drawn with other weights"):
        line.preview((run, study_of_run, others))
    assert run.study_file.read_bytes() == text and not list(run.folder.rglob("*unreadable*"))


@pytest.mark.parametrize(
    ("perceive", "message"),
    [
        ({"clip": "ViT-B-23", "pretrained": "openai"}, "ViT-B-32"),
        ({"clip": "ViT-B-32", "pretrained": "opnai"}, "opnai"),
        ({"clip": "nowhere/clip"}, "is no folder"),
        ({"clip": "embedded", "probe": "nowhere/probe"}, "nowhere/probe"),
    ],
)
def test_a_clip_or_a_probe_that_there_is_not_leaves_no_folder_behind(
    perceive: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ModelError, InputError), match=message):
        line.begin(fake_study(perceive=perceive), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds no study\.yaml"):
        line.begin(fake_study(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("keep", [0, 7, 2000])
def test_a_half_written_shard_is_set_aside_and_drawn_again(drawn: Callable[..., Opened], keep: int) -> None:
    opened = drawn()
    whole = pixels_of(opened)
    victim = opened[0].images(opened[2].shards()[0])
    victim.write_bytes(victim.read_bytes()[:keep])
    again = drawn()
    assert pixels_of(again) == whole
    assert [p.name for p in victim.parent.iterdir() if "unreadable" in p.name] == [f"{victim.name}.unreadable-0"]


def test_what_a_shard_from_before_does_not_have_is_null(drawn: Callable[..., Opened]) -> None:
    run, _, planned = drawn(images_per_prompt=2)
    shard = planned.shards()[0]
    now = run.read_images(shard)
    store._write(run.images(shard), now.drop_columns(["tokens", "tokens_cut"]))
    before = run.read_images(shard, ["unit_id", "tokens", "seed"])
    assert before.column_names == ["unit_id", "tokens", "seed"] and before["tokens"].null_count == len(before)
    assert before["seed"] == now["seed"] and b"environment" in before.schema.metadata


def test_a_flipped_byte_in_a_picture_is_noticed_when_it_is_read(drawn: Callable[..., Opened]) -> None:
    run, _, planned = drawn()
    path = run.images(planned.shards()[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="cannot be read"):
        run.read_images(planned.shards()[0])


class Moody:
    """Fails the first image of every batch, and has the second blocked."""

    def draw(self, batch: Batch) -> list[Drawn | None]:
        answers: list[Drawn | None] = [
            Drawn("failed", None, "ValueError: moody"),
            Drawn("blocked", None, "safety checker"),
        ]
        fine = Drawn("made", np.zeros((8, 8, 3), np.uint8), "")
        return [a if unit else None for unit, a in zip(batch, answers + [fine] * (len(batch) - 2), strict=True)]


def test_a_failed_image_is_a_row_and_counts_as_no_group(tmp_path: Path) -> None:
    run, chosen, planned = opened = line.begin(fake_study(), tmp_path / "run")
    stages.draw(run, planned, Moody, lambda: line.noted(run, chosen, line.open_perceiver(chosen)))
    found = line.status(opened)
    assert found["failed"] == found["blocked"] > 0
    assert found["made"] + found["failed"] + found["blocked"] == len(planned)
    line.estimate(opened)
    with (run.folder / "estimates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert int(row["n"]) == int(row["n_one_person"]) + int(row["n_blocked"]) + int(row["n_failed"])
    women = [r for r in rows if (r["attribute"], r["level"]) == ("gender", "woman")]
    assert sum(int(r["n_failed"]) for r in women) == 2 * found["failed"]  # once per reference


def test_perceiving_later_gives_the_same_perceptions(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    on_the_way = drawn()
    later = line.begin(fake_study(), tmp_path / "later")
    line.generate(later, perceive=False)
    line.perceive(later)
    for shard in later[2].shards():
        assert later[0].read_perceptions("fake-zero_shot", shard) == on_the_way[0].read_perceptions(
            "fake-zero_shot", shard
        )


def begin_drawing(tmp_path: Path, folder: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", DRAW, str(tmp_path / "study.yaml"), str(tmp_path / folder)], env=environment
    )


def until_it_draws(process: subprocess.Popen[bytes], mark: Path) -> float:
    """Wait until a process has begun to draw, or has ended; the seconds that it took."""
    start = time.monotonic()
    mark.unlink(missing_ok=True)
    while process.poll() is None and not mark.exists():
        time.sleep(0.02)
    return time.monotonic() - start


def test_a_run_encodes_each_image_once_and_each_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole run with three attributes and two arms. Public tools encode up to three images and eight texts an image."""
    texts, images = Counter[str](), Counter[bytes]()
    read, seen = ClipModel.encode_texts, ClipModel.encode_images

    def reading(clip: ClipModel, some: Sequence[str]) -> Any:
        texts.update(some)
        return read(clip, some)

    def seeing(clip: ClipModel, some: Sequence[Pixels], *more: Any) -> Any:
        images.update(pixels.tobytes() for pixels in some)
        return seen(clip, some, *more)

    monkeypatch.setattr(ClipModel, "encode_texts", reading)
    monkeypatch.setattr(ClipModel, "encode_images", seeing)
    wanted = fake_study(
        images_per_prompt=2,
        arms=["none", {"negative": {"text": "a man"}}],
        perceive={"clip": "embedded", "attributes": ["gender", "skin_tone", "age"]},
        reference=[],
    )
    opened = line.begin(wanted, tmp_path / "run")
    line.generate(opened, perceive=True)
    line.perceive(opened)
    line.estimate(opened)
    line.report(opened)
    assert len(opened[2]) == 80 and set(texts.values()) == {1}
    assert images.total() == 80 + 1  # and once the picture by which the CLIP is told from another of its name
    assert {"a photo of a woman", "a photo of a pilot"} <= set(texts)


@pytest.mark.parametrize("noted", [None, "other weights"])
def test_a_run_is_not_read_by_two_clips_of_one_name(tmp_path: Path, noted: str | None) -> None:
    """The CLIP that ships is trained anew now and then; a folder of weights is overwritten, and `main` moves on the hub."""
    asked = {"clip": "embedded", "attributes": ["gender"]}
    opened = line.begin(fake_study(images_per_prompt=1, perceive=asked), tmp_path / "run")
    line.generate(opened, perceive=True)
    file = opened[0].perceptions("embedded-zero_shot", "x").with_name("perceiver.json")
    known = stages.read_json(file)
    grown = line.begin(fake_study(images_per_prompt=2, perceive=asked), tmp_path / "run")
    sees = known.pop("clip_sees")
    store.write_json(file, known if noted is None else known | {"clip_sees": sees[::-1]})
    with pytest.raises(RunError, match=r"embedded-zero_shot: was read by other weights under the name embedded"):
        line.generate(grown, perceive=True)
    with pytest.raises(RunError, match="other weights"):
        line.perceive(grown, ["perceive.probe=embedded"])  # would take the kept embeddings
    shutil.rmtree(file.parent)
    line.generate(grown, perceive=True)
    line.perceive(grown, ["perceive.probe=embedded"])
    assert stages.read_json(file)["clip_sees"] == sees


@pytest.mark.parametrize("wanted_kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_pixels(tmp_path: Path, wanted_kills: int) -> None:
    """SIGKILL while the folder is made, a shard is drawn, encoded or written; then the same command again."""
    wanted = fake_study(name="killed", images_per_prompt=130, draw={"height": 64, "width": 64, "threads": 1})
    store.write_text(tmp_path / "study.yaml", study.dump(wanted))
    process = begin_drawing(tmp_path, "undisturbed")
    starting, start = until_it_draws(process, tmp_path / "undisturbed.draws"), time.monotonic()
    assert process.wait() == 0
    drawing = time.monotonic() - start
    whole = pixels_of(line.resume(tmp_path / "undisturbed"))
    chance = random.Random(0)
    kills, midway, number, times = 0, 0, 0, dict[Path, int]()
    shards = len(line.resume(tmp_path / "undisturbed")[2].shards())
    for attempt in range(200):
        if kills == wanted_kills:
            break
        folder = tmp_path / f"killed-{number}"
        process = begin_drawing(tmp_path, folder.name)
        if attempt % 4:
            until_it_draws(process, tmp_path / f"{folder.name}.draws")
            wanted_shards = chance.randint(len([*folder.glob("images/*.parquet")]), shards - 1)
            while process.poll() is None and len([*folder.glob("images/*.parquet")]) < wanted_shards:
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, drawing / shards))
        else:
            time.sleep(chance.uniform(0.0, starting))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = [*folder.glob("images/*.parquet")]
        midway += 0 < len(finished) < shards
        number += len(finished) == shards
        for path in finished:
            times.setdefault(path, path.stat().st_mtime_ns)
    assert kills == wanted_kills and midway >= wanted_kills // 4
    for each in range(number + 1):
        assert begin_drawing(tmp_path, f"killed-{each}").wait() == 0
        assert pixels_of(line.resume(tmp_path / f"killed-{each}")) == whole
    assert {
        path: path.stat().st_mtime_ns for path in times
    } == times  # no finished shard was drawn again, after any kill


def test_a_study_that_was_refused_before_anything_was_drawn_can_be_put_right(tmp_path: Path) -> None:
    wrong = fake_study(draw={"height": 32, "width": 32, "threads": 1}, images_per_prompt=1)
    line.begin(wrong, tmp_path / "run")  # as far as a run gets whose model refuses its settings
    right = line.begin(fake_study(images_per_prompt=1), tmp_path / "run")
    line.generate(right, perceive=False)
    assert line.resume(tmp_path / "run")[1] == right[1]
    with pytest.raises(RunError, match=r"draw\.height is 16 there and 32 here"):
        line.begin(wrong, tmp_path / "run")


def test_a_run_is_read_where_its_model_is_not_and_says_which_drew_it(tmp_path: Path) -> None:
    model = tiny.stable_diffusion(tmp_path / "model")
    draw = {"height": 32, "width": 32, "num_inference_steps": 1, "batch_size": 8, "threads": 1}
    opened = line.begin(fake_study(model={"path": str(model)}, draw=draw, images_per_prompt=1), tmp_path / "run")
    line.generate(opened, perceive=False)
    run, _, planned = opened
    assert run.environment(planned.shards()[0])["weights"] == planned.settings.weights
    model.rename(tmp_path / "elsewhere")
    there = line.reopen(tmp_path / "run")
    line.perceive(there)
    line.estimate(there)
    assert line.status(there)["made"] == 20 and planned.settings.weights in line.report(there).read_text()
    with pytest.raises(ModelError, match=r"model\.path"):
        line.resume(tmp_path / "run")


def test_shards_of_two_models_are_not_estimated_or_shown_together(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    """Workers on nodes with a cache of their own each find the weights that `main` was there."""
    opened = drawn(images_per_prompt=60)
    run, _, planned = opened
    shards = planned.shards()
    one, other = "org/m@" + "a" * 40, "org/m@" + "b" * 40
    for shard, weights in zip(shards, (one, other, one), strict=True):
        table = run.read_images(shard)
        notes = json.dumps(run.environment(shard) | {"weights": weights})
        store._write(run.images(shard), table.replace_schema_metadata({"environment": notes}))
    said = f"run: .* mixed: {one} drew {shards[0].name}, {shards[2].name}; {other} drew {shards[1].name}. Delete"
    for stage in (line.estimate, line.report):
        with pytest.raises(RunError, match=said):
            stage(opened)
    assert line.status(opened)["weights"] == [one, other]
    assert not (run.folder / "estimates.csv").exists()


def test_what_was_read_of_deleted_images_is_not_taken_for_the_new_ones(
    drawn: Callable[..., Opened], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever has mixed two models' weights is told to do."""
    opened = drawn(images_per_prompt=60)
    run, chosen, planned = opened
    shard = planned.shards()[1]
    before = run.read_perceptions(chosen.perceive.name, shard)
    run.images(shard).unlink()
    noise = generate.FakeGenerator._noise
    monkeypatch.setattr(generate.FakeGenerator, "_noise", lambda self, seed: 255 - noise(self, seed))
    line.generate(opened, perceive=False)
    line.perceive(opened)
    (undisturbed := tmp_path / "undisturbed").mkdir()
    shutil.copy(run.study_file, undisturbed)
    shutil.copytree(run.folder / "images", undisturbed / "images")
    there = line.reopen(undisturbed)
    line.perceive(there)
    seen = run.read_perceptions(chosen.perceive.name, shard)
    assert seen.equals(there[0].read_perceptions(chosen.perceive.name, shard)) and not seen.equals(before)


def test_two_processes_on_one_folder_do_not_corrupt_it(tmp_path: Path) -> None:
    store.write_text(tmp_path / "study.yaml", study.dump(fake_study(name="twice", images_per_prompt=60)))
    both = [begin_drawing(tmp_path, "run") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert begin_drawing(tmp_path, "alone").wait() == 0
    assert pixels_of(line.resume(tmp_path / "run")) == pixels_of(line.resume(tmp_path / "alone"))


def test_what_grows_with_the_shards_has_a_bar(drawn: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two arms of two shards each: every one is counted in a bar that ends full."""
    simple = {"clip": "fake", "attributes": ["gender"]}
    opened = drawn(arms=["none", {"suffix": {"text": "smiling"}}], perceive=simple, reference=[])
    bars: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def noted(label: str, *, total: int, **_: Any) -> Iterator[Callable[[int, str], None]]:
        bars[label] = [0, total]

        def advance(n: int, note: str) -> None:
            bars[label][0] += n

        yield advance

    for module in (stages, tables, effects, report):
        monkeypatch.setattr(module, "progress", noted)
    line.retry(opened)
    line.perceive(opened)
    n = len(opened[2])
    assert bars == {"checking": [n, n], "checking perceptions": [n, n]}
    bars.clear()
    line.estimate(opened)
    line.report(opened)
    assert len(opened[2].shards()) == 4
    assert bars == {"counting": [4, 4], "adding up the arms": [2, 2], "thumbnails": [4, 4]}


def test_a_run_that_another_process_begins_meanwhile_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the other one writes while this one looks into the folder, or once it has looked."""
    chosen = fake_study(images_per_prompt=1)
    theirs = study.dump(chosen) + "# as the other process wrote it\n"

    def begun_by_another(folder: Path) -> None:
        if not (folder / "study.yaml").exists():
            store.write_text(folder / "study.yaml", theirs)
            store.write_text(folder / "images" / "x", "")

    looks, prepares = Path.iterdir, study.Study.prepared
    early, late = tmp_path / "early", tmp_path / "late"
    for folder in (early, late):
        folder.mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda path: [path == early and begun_by_another(path), *looks(path)][1:])
    monkeypatch.setattr(study.Study, "prepared", lambda own: [begun_by_another(late), prepares(own)][1])
    for folder in (early, late):
        run, found = stages.open_run(chosen, folder)
        assert (found, run.study_file.read_text()) == (chosen, theirs)
        assert sorted(path.name for path in looks(folder)) == ["images", "study.yaml"]


def test_two_that_write_a_file_at_once_do_not_share_what_is_not_whole_yet(tmp_path: Path) -> None:
    """As processes of two containers do, which are number 1 in both on a machine of one name."""
    with store.appears(tmp_path / "file") as slow:
        slow.write(b"sl")
        store.write_text(tmp_path / "file", "quick")
        slow.write(b"ow")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["slow"]


@pytest.mark.parametrize("links", [True, False])
def test_of_several_that_write_a_file_first_just_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    assert store.write_first(tmp_path / "file", "one")
    if links:
        assert not store.write_first(tmp_path / "file", "two")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one"]


def test_the_same_run_gives_the_same_table(drawn: Callable[..., Opened]) -> None:
    one, two = drawn("one"), drawn("two")
    line.estimate(one)
    line.estimate(two)
    assert (one[0].folder / "estimates.csv").read_bytes() == (two[0].folder / "estimates.csv").read_bytes()


@pytest.mark.parametrize("country", [None, ""])
def test_energy_says_how_it_was_obtained(
    drawn: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch, country: str | None
) -> None:
    monkeypatch.delenv("TYPECAST_COUNTRY", raising=False)
    if country is not None:
        monkeypatch.setenv("TYPECAST_COUNTRY", country)
    energy = json.loads((drawn()[0].folder / "energy.json").read_text())
    assert energy["how"].startswith(("a guess", "processor measured", "GPU measured"))
    assert energy["assumptions"] == "mean grid intensity of USA"


def test_what_codecarbon_cannot_measure_is_not_measured_and_nothing_is_lost(
    drawn: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no cpuinfo for you")

    monkeypatch.setattr("codecarbon.core.resource_tracker.get_or_run_setup", refused)
    opened = drawn()
    line.estimate(opened)
    energy = json.loads((opened[0].folder / "energy.json").read_text())
    assert energy["kwh"] is None and energy["gco2e"] is None and energy["images_per_kwh"] is None
    assert energy["how"] == "not measured: codecarbon could not begin here"
    assert "not measured" in line.report(opened).read_text()


def test_a_country_whose_grid_is_not_known_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TYPECAST_COUNTRY", "XYZ")
    with pytest.raises(InputError, match=r"TYPECAST_COUNTRY: 'XYZ' is no ISO code"):
        line.generate(line.begin(fake_study(images_per_prompt=1), tmp_path / "run"), perceive=False)


def test_estimates_that_are_of_fewer_images_are_said_so(
    drawn: Callable[..., Opened], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, _ = drawn(images_per_prompt=2)
    line.estimate(line.reopen(run.folder))
    assert line.status(line.reopen(run.folder))["estimated_of"] == 40
    grown = drawn(images_per_prompt=3)
    told = line.status(grown)
    assert (told["made"], told["estimated_of"]) == (60, 40)
    report.write_report(run.folder)
    assert "holds 60 images, and the estimates are of 40" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["perceive.attributes=[age]", "perceive.threshold=0.9"])
def test_the_studys_own_perceiver_is_not_taken_over(drawn: Callable[..., Opened], change: str) -> None:
    run, _, _ = drawn(images_per_prompt=1, perceive={"clip": "fake", "attributes": ["gender"]})
    with pytest.raises(InputError, match=r"the right answers are: perceive\.clip"):
        line.perceive(line.reopen(run.folder), (change,))


def test_a_run_with_prompts_of_its_own_goes_on_by_what_they_say(tmp_path: Path) -> None:
    """Wherever their file is now, and whatever it says of itself; but not with other prompts, nor in another order."""

    def asked(concepts: list[str], **about: str) -> study.Study:
        words = {"description": "d", "source": "s", "licence": "none", "status": "verified"} | about
        file = tmp_path / "own.yaml"
        file.write_text(yaml.safe_dump(words | {"templates": {"one": "a photo of {a_concept}"}, "concepts": concepts}))
        found = fake_study(prompt_sets=[str(file)], images_per_prompt=2, reference=[])
        file.unlink()
        return found

    opened = line.begin(asked(["pilot", "nurse"]), tmp_path / "run")
    line.generate(opened, perceive=True)
    line.estimate(line.reopen(tmp_path / "run"))
    line.begin(asked(["pilot", "nurse"], description="said better"), tmp_path / "run")
    assert stages.finished(opened[0], line.resume(tmp_path / "run")[2].shards()) == 4
    for concepts, said in (
        (["nurse", "pilot"], "in another order"),
        (["pilot", "nurse", "cook"], "own: 'a photo of a cook' is asked only here"),
        (["pilot"], "own: 'a photo of a nurse' is asked only there"),
    ):
        with pytest.raises(RunError, match=f"holds another study: prompt_sets: .*{said}"):
            line.begin(asked(concepts), tmp_path / "run")


@pytest.mark.parametrize(
    ("device", "dtype", "told"), [("cuda", "float32", True), ("cuda", "bfloat16", False), ("cpu", "float32", False)]
)
def test_float32_on_a_gpu_is_told(
    device: str,
    dtype: str,
    told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = {"height": 16, "width": 16, "threads": 1, "dtype": dtype}
    _, chosen, planned = line.begin(fake_study(draw=draw), tmp_path / "run")
    monkeypatch.setattr(line.generation, "open_generator", lambda *_: SimpleNamespace(device=device))
    line.open_generator(chosen, planned)
    assert ("draw.dtype is float32" in capsys.readouterr().err) == told
