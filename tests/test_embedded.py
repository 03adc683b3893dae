"""The models that ship: they load as anybody's would, and do what their cards say."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from classifiers.attributes import ATTRIBUTES
from classifiers.clip import ClipModel
from classifiers.zero_shot import ZeroShot
from pipeline import generate, line, store, study
from pipeline.plan import Plan
from scripts import emoji_world
from tests.conftest import fake_study, pixels_of
from tests.test_line import begin_drawing

EMBEDDED = Path(generate.__file__).parent / "embedded"
SMALL = {"num_inference_steps": 4, "guidance_scale": 3.0, "threads": 1}


def small(**changes: object) -> study.Study:
    asked = {"model": {"path": "embedded"}, "draw": SMALL, "images_per_prompt": 1, "perceive": {"clip": "embedded"}}
    return fake_study(**(asked | changes))


def test_the_weights_are_safetensors_and_under_30_mb() -> None:
    files = [p for p in EMBEDDED.rglob("*") if p.is_file() and p.name not in ("world.webp", "world.csv")]
    assert sum(p.stat().st_size for p in files) < 30e6
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".md", ".csv", ".txt", ".jinja", ".npz", ".parquet"}


def test_diffusers_loads_it_as_a_stable_diffusion_pipeline() -> None:
    from diffusers import AutoencoderTiny, AutoPipelineForText2Image, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    pipe = AutoPipelineForText2Image.from_pretrained(EMBEDDED / "text_to_image")
    assert type(pipe) is StableDiffusionPipeline
    assert isinstance(pipe.unet, UNet2DConditionModel) and isinstance(pipe.vae, AutoencoderTiny)
    assert isinstance(pipe.text_encoder, CLIPTextModel) and isinstance(pipe.tokenizer, CLIPTokenizer)
    text = "a photo of a naïve 🧑‍🚀 cook, 100 % “new”"
    assert pipe.tokenizer.unk_token_id not in pipe.tokenizer(text).input_ids[1:-1]


def test_an_occupation_is_drawn_as_its_own_pictures_look() -> None:
    """Nearest neighbour among the training pictures, by pixels: 18 of 20 occupations at guidance 3, or better."""
    asked = small(draw={"guidance_scale": 3.0, "threads": 2})
    planned: Plan = line.stages.plan_of(asked)
    generator = line.open_generator(asked, planned)
    world = [p for p in emoji_world.pictures() if p.taught and p.occupation and p.split == "train"]
    known = emoji_world.pixels()[[p.tile for p in world]].astype(np.int32)
    right = total = 0
    for _, batch in planned.batches(planned.shards()[0]):
        for unit, drawn in zip(batch, generator.draw(batch), strict=True):
            if unit is None or drawn is None or drawn.pixels is None:
                continue
            nearest = np.abs(known - drawn.pixels.astype(np.int32)).sum((1, 2, 3)).argmin()
            right += world[nearest].concept == unit.prompt.concept
            total += 1
    assert total == 20 and right >= 18


def test_the_clip_reads_held_out_pictures_as_its_card_says() -> None:
    sees = ZeroShot(ClipModel("embedded"), [ATTRIBUTES["gender"], ATTRIBUTES["skin_tone"]], threshold=0.0)
    pictures = [p for p in emoji_world.pictures() if p.taught and p.split == "test"]
    images = emoji_world.pixels()[[p.tile for p in pictures]]
    seen = sees.perceive(list(images))
    assert np.mean([d == p.gender for d, p in zip(seen.decisions["gender"], pictures, strict=True)]) > 0.93
    assert np.mean([d == p.tone for d, p in zip(seen.decisions["skin_tone"], pictures, strict=True)]) > 0.95


def test_its_measured_errors_are_used_for_its_own_pictures_and_for_no_others(tmp_path: Path) -> None:
    run, chosen, _ = line.begin(small(), tmp_path / "own")
    line.noted(run, chosen, line.open_perceiver(chosen))
    own = line.stages.read_json(run.perceptions(chosen.perceive.name, "x").with_name("perceiver.json"))
    assert np.array(own["confusion"]["gender"]).shape == (2, 3)
    other = small(model={"path": "fake"})
    run, chosen, _ = line.begin(other, tmp_path / "other")
    line.noted(run, chosen, line.open_perceiver(chosen))
    foreign = line.stages.read_json(run.perceptions(chosen.perceive.name, "x").with_name("perceiver.json"))
    assert foreign["confusion"]["gender"] is None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, set[tuple[str, str]]]:
    """A study of two shards, an arm each, and the pixels of a run that was left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    wanted = small(images_per_prompt=3, draw=SMALL, arms=["none", {"suffix": {"text": ", dark skin"}}])
    store.write_text(folder / "study.yaml", study.dump(wanted))
    assert begin_drawing(folder, "run").wait() == 0
    return study.dump(wanted), pixels_of(line.resume(folder / "run"))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_killed_with_the_embedded_model_it_ends_with_the_same_pixels(
    tmp_path: Path, seed: int, undisturbed: tuple[str, set[tuple[str, str]]]
) -> None:
    store.write_text(tmp_path / "study.yaml", undisturbed[0])
    process = begin_drawing(tmp_path, "run")
    folder = tmp_path / "run" / "images"
    while process.poll() is None and not list(folder.glob("*.parquet")):
        time.sleep(0.02)  # the first of two shards is there: the moment is in the second
    time.sleep(random.Random(seed).uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.parquet")}
    assert len(before) == 1
    assert begin_drawing(tmp_path, "run").wait() == 0
    assert pixels_of(line.resume(tmp_path / "run")) == undisturbed[1]
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
