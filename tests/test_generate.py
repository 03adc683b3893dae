"""Drawing: the same bytes whatever the neighbours, a row for every failure, one clear error for every wrong setting."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch

from pipeline import generate
from pipeline.errors import ModelError
from pipeline.generate import DiffusersGenerator, FakeGenerator, open_generator, weights_digest
from pipeline.types import Batch, Drawn, DrawSettings, Pixels, Prompt, Status, WorkUnit
from tests import tiny

SETTINGS = DrawSettings(
    weights="",
    scheduler="",
    num_inference_steps=2,
    guidance_scale=3.0,
    height=32,
    width=32,
    dtype="float32",
    batch_size=4,
    threads=1,
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def unit(text: str, seed: int, negative: str = "") -> WorkUnit:
    prompt = Prompt(prompt_set="p", concept="c", template="t", text=text)
    name = f"{text} {seed} {negative}"
    return WorkUnit(id=name, prompt=prompt, arm="none", prompt_sent=text, negative_prompt=negative, sample=0, seed=seed)


NURSE, PILOT, COOK, CLERK = (unit(text, seed) for seed, text in enumerate(("a nurse", "a pilot", "a cook", "a clerk")))


def pixels(drawn: Drawn | None) -> Pixels:
    assert drawn is not None and drawn.status == "made", drawn
    assert drawn.pixels is not None and drawn.reason == ""
    return drawn.pixels


def same(one: Drawn | None, other: Drawn | None) -> bool:
    return hashlib.sha256(pixels(one).tobytes()).digest() == hashlib.sha256(pixels(other).tobytes()).digest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name) for name, make in tiny.FAMILIES.items()}


@pytest.fixture(scope="module")
def generators(models: dict[str, Path]) -> dict[str, DiffusersGenerator]:
    return {name: drawing(path) for name, path in models.items()}


def drawing(path: Path, **changes: Any) -> DiffusersGenerator:
    return DiffusersGenerator(str(path), None, replace(SETTINGS, **changes), device="cpu")


@pytest.fixture
def sd(generators: dict[str, DiffusersGenerator]) -> DiffusersGenerator:
    return generators["stable_diffusion"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache on a machine without a network, where a token is set."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return tmp_path / "hub"


def put_in_cache(cache: Path, model: Path, name: str = "someone/tiny") -> None:
    """Lay a model into the cache as a download would."""
    home = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)


# Every family


@pytest.mark.parametrize(("family", "room"), [("stable_diffusion", 22), ("sdxl", 22), ("sd3", 255), ("flux", 511)])
def test_a_token_that_is_counted_as_cut_changes_no_pixel_and_the_last_that_is_read_does(
    generators: dict[str, DiffusersGenerator], family: str, room: int
) -> None:
    """The tiny CLIP reads 24 with a mark at both ends, T5 what diffusers gives it, 256 or 512, with one at the end."""

    def drawn(text: str) -> Drawn:
        found = generators[family].draw((unit(text, 5), None, None, None))[0]
        assert found is not None
        return found

    text = "a" * (room if room == 22 else room - 1)  # T5 marks the beginning of a word with a token
    full, more = drawn(text), drawn(text + "b")
    assert (full.tokens, full.tokens_cut, more.tokens, more.tokens_cut) == (room, 0, room + 1, 1)
    assert same(more, drawn(text + "c"))
    assert not same(drawn(text[:-1] + "b"), drawn(text[:-1] + "c"))


def test_the_negative_prompts_tokens_are_counted_and_a_model_without_a_tokenizer_counts_none(
    sd: DiffusersGenerator,
) -> None:
    """The tokenizer spells: a token for each letter."""
    both = sd.draw((unit("a nurse", 5, "male"), None, None, None))[0]
    assert both is not None and (both.tokens, both.tokens_cut) == (6 + 4, 0)
    assert generate._tokens_of(object()) is None
    noise = FakeGenerator(SETTINGS).draw((NURSE,))[0]
    assert noise is not None and noise.tokens is None


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_draws_one_uint8_image_per_unit(generators: dict[str, DiffusersGenerator], family: str) -> None:
    drawn = generators[family].draw((NURSE, PILOT, None, COOK))
    assert [one is None for one in drawn] == [False, False, True, False]
    images = [pixels(drawn[place]) for place in (0, 1, 3)]
    assert {(image.shape, image.dtype.name, image.flags.c_contiguous) for image in images} == {
        ((32, 32, 3), "uint8", True)
    }
    assert len({image.tobytes() for image in images}) == 3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_image_does_not_depend_on_its_neighbours(generators: dict[str, DiffusersGenerator], family: str) -> None:
    generator = generators[family]
    among = generator.draw((NURSE, PILOT, COOK, CLERK))[1]
    assert same(among, generator.draw((CLERK, PILOT, replace(COOK, seed=77), NURSE))[1])
    assert same(among, generator.draw((None, PILOT, None, None))[1])
    other = unit("a much longer text, of a cook", 5, "x" if generator.takes_negative_prompt else "")
    assert same(among, generator.draw((other, PILOT, None, COOK))[1])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_seed_and_the_text_both_change_the_image(generators: dict[str, DiffusersGenerator], family: str) -> None:
    first, other_seed, other_text = (NURSE, replace(NURSE, seed=9), replace(NURSE, prompt_sent="xyz"))
    images = [generators[family].draw((one, None, None, None))[0] for one in (first, other_seed, other_text)]
    assert not same(images[0], images[1])
    assert not same(images[0], images[2])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_images_are_those_that_diffusers_draws_from_the_texts(
    models: dict[str, Path], generators: dict[str, DiffusersGenerator], family: str
) -> None:
    """The pipeline alone, given texts in place of embeddings: at most one grey level of rounding apart."""
    pipe = diffusers.AutoPipelineForText2Image.from_pretrained(models[family])
    pipe.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(one.seed) for one in (NURSE, PILOT, COOK, CLERK)]
    images = pipe(
        prompt=[one.prompt_sent for one in (NURSE, PILOT, COOK, CLERK)],
        generator=seeds,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=32,
        width=32,
    ).images
    drawn = generators[family].draw((NURSE, PILOT, COOK, CLERK))
    for image, one in zip(images, drawn, strict=True):
        assert np.abs(np.asarray(image).astype(int) - pixels(one)).max() <= 1


def test_a_negative_prompt_is_the_one_that_diffusers_would_send(models: dict[str, Path]) -> None:
    for family in ("stable_diffusion", "sdxl", "sd3"):
        pipe = diffusers.AutoPipelineForText2Image.from_pretrained(models[family])
        pipe.set_progress_bar_config(disable=True)
        image = pipe(
            prompt="a nurse",
            negative_prompt="male",
            generator=torch.Generator().manual_seed(3),
            num_inference_steps=2,
            guidance_scale=3.0,
            height=32,
            width=32,
        ).images[0]
        generator = drawing(models[family])
        (drawn,) = generator.draw((unit("a nurse", 3, "male"),))
        assert np.abs(np.asarray(image).astype(int) - pixels(drawn)).max() <= 1, family
        assert not same(drawn, generator.draw((unit("a nurse", 3),))[0])


@pytest.mark.parametrize("make", [tiny.deepfloyd_if, tiny.kandinsky3])
def test_a_family_without_a_processor_of_images_keeps_what_diffusers_draws(tmp_path: Path, make: Any) -> None:
    """They give -1..1 where they are asked for tensors; and Kandinsky 3 puts zeros where no negative prompt is given."""
    pipe = diffusers.AutoPipelineForText2Image.from_pretrained(make(tmp_path / "model"))
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        prompt=[NURSE.prompt_sent],
        generator=[torch.Generator().manual_seed(NURSE.seed)],
        num_inference_steps=2,
        guidance_scale=3.0,
        height=32,
        width=32,
    ).images[0]
    drawn = drawing(tmp_path / "model").draw((NURSE, None))
    assert np.abs(np.asarray(image).astype(int) - pixels(drawn[0])).max() <= 1 and drawn[1] is None


@pytest.mark.parametrize(("family", "binned"), [("PixArtSigmaPipeline", False), ("StableDiffusionPipeline", None)])
def test_the_size_is_the_study_s_where_a_family_would_take_one_near_by(family: str, binned: bool | None) -> None:
    """PixArt, Sana and HunyuanDiT do, unless they are told not to."""
    kind = getattr(diffusers, family)
    pipe = kind.__new__(kind)
    pipe._internal_dict = {}
    assert generate._arguments(pipe, SETTINGS).get("use_resolution_binning") is binned


# Texts and guidance


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_text_is_encoded_once_and_alone(
    models: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = drawing(models[family])
    seen: list[tuple[int, ...]] = []
    generator._pipe.text_encoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    for seed in range(3):
        generator.draw((replace(NURSE, seed=seed), PILOT, NURSE, None))
    texts = 2 + (family in ("stable_diffusion", "sd3"))  # the empty negative prompt; SDXL has zeros, FLUX has none
    assert seen == [(1, tiny.TOKENS)] * texts


def rows_seen(generator: DiffusersGenerator, batch: Batch) -> list[int]:
    """The batch size of each call of the network."""
    rows: list[int] = []
    network = generate._network(generator._pipe)
    hook = network.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
    )
    generator.draw(batch)
    hook.remove()
    return rows


@pytest.mark.parametrize("family", ["stable_diffusion", "sdxl", "sd3"])
def test_guidance_1_does_not_run_the_unconditional_branch(models: dict[str, Path], family: str) -> None:
    batch = (NURSE, None, None, None)
    assert rows_seen(drawing(models[family], guidance_scale=3.0), batch) == [8, 8]
    assert rows_seen(drawing(models[family], guidance_scale=1.0), batch) == [4, 4]


def test_flux_runs_the_unconditional_branch_only_if_its_guidance_is_not_distilled(
    generators: dict[str, DiffusersGenerator], tmp_path: Path
) -> None:
    batch = (NURSE, None, None, None)
    assert rows_seen(generators["flux"], batch) == [4, 4]
    plain = tiny.flux(tmp_path / "flux", distilled=False)
    assert rows_seen(drawing(plain), batch) == [4, 4, 4, 4]
    assert rows_seen(drawing(plain, guidance_scale=1.0), batch) == [4, 4]
    guided = drawing(plain)
    assert not same(guided.draw(batch)[0], guided.draw((unit("a nurse", 0, "male"), None, None, None))[0])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_guidance_changes_the_picture(
    models: dict[str, Path], generators: dict[str, DiffusersGenerator], family: str
) -> None:
    batch = (NURSE, None, None, None)
    assert not same(generators[family].draw(batch)[0], drawing(models[family], guidance_scale=7.5).draw(batch)[0])


def test_a_negative_prompt_that_cannot_act_is_an_error(
    models: dict[str, Path], generators: dict[str, DiffusersGenerator]
) -> None:
    for generator in (generators["flux"], drawing(models["stable_diffusion"], guidance_scale=1.0)):
        with pytest.raises(ModelError, match="a negative prompt does nothing"):
            generator.draw((unit("a nurse", 0, "male"), NURSE, None, None))


def test_a_family_that_is_not_in_the_table_draws_from_the_texts(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, sd: DiffusersGenerator
) -> None:
    monkeypatch.setattr(generate, "ENCODED", {})
    drawn = drawing(models["stable_diffusion"]).draw((NURSE, None, unit("a pilot", 1, "male")))
    expected = [sd.draw((one,))[0] for one in (NURSE, unit("a pilot", 1, "male"))]
    assert drawn[1] is None
    assert np.abs(pixels(drawn[0]).astype(int) - pixels(expected[0])).max() <= 1
    assert np.abs(pixels(drawn[2]).astype(int) - pixels(expected[1])).max() <= 1


def test_a_family_that_is_guided_only_against_a_text_is_given_the_empty_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Qwen-Image is: of FLUX, told in texts, the network runs both branches."""
    monkeypatch.setattr(generate, "ENCODED", {})
    plain = drawing(tiny.flux(tmp_path / "flux", distilled=False))
    assert rows_seen(plain, (NURSE,)) == [1] * 4


def test_an_empty_batch_draws_nothing(sd: DiffusersGenerator) -> None:
    assert sd.draw((None, None, None, None)) == [None] * 4


# Failures are rows


def raising_on(text: str, network: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, pipe: Any) -> None:
    """Make the second step raise while `text` is in the batch, so that the scheduler is left half way."""
    marked: list[torch.Tensor] = []
    encode, forward, step = pipe.encode_prompt, network.forward, [0]

    def marking(*args: Any, **kwargs: Any) -> Any:
        told = encode(*args, **kwargs)
        if kwargs.get("prompt") == text:
            marked.append(told[0])
        return told

    marking.__signature__ = inspect.signature(encode)  # type: ignore[attr-defined]

    def failing(*args: Any, **kwargs: Any) -> Any:
        step[0] += 1
        states = kwargs["encoder_hidden_states"]
        if step[0] % 2 == 0 and any(torch.equal(row, marked[0][0]) for row in states):
            raise error
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipe, "encode_prompt", marking)
    monkeypatch.setattr(network, "forward", failing)


def test_one_prompt_that_raises_fails_alone_and_the_others_keep_their_bytes(
    models: dict[str, Path], sd: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sd.draw((NURSE, PILOT, COOK, None))
    generator = drawing(models["stable_diffusion"])
    error = ZeroDivisionError("by nought " * 100 + "\nsecond line")
    raising_on("a pilot", generator._pipe.unet, monkeypatch, error, generator._pipe)
    rows = rows_seen(generator, (NURSE, PILOT, COOK, None))
    assert set(rows) == {8}, "drawn again at the same shape: elsewhere another shape means other bytes"
    drawn = generator.draw((NURSE, PILOT, COOK, None))
    assert same(drawn[0], expected[0]) and same(drawn[2], expected[2]) and drawn[3] is None
    failed = drawn[1]
    assert failed is not None and (failed.status, failed.pixels) == ("failed", None)
    assert failed.reason.startswith("ZeroDivisionError: by nought by nought") and len(failed.reason) <= 320
    assert "\n" not in failed.reason


@pytest.mark.parametrize(
    ("trouble", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
        (torch.OutOfMemoryError("full"), ModelError),  # not even one image fits
    ],
)
def test_an_interruption_and_a_full_memory_are_not_failed_images(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, trouble: BaseException, raised: type[BaseException]
) -> None:
    generator = drawing(models["stable_diffusion"])
    raising_on("a pilot", generator._pipe.unet, monkeypatch, trouble, generator._pipe)
    with pytest.raises(raised):
        generator.draw((NURSE, PILOT, COOK, None))


FULL = torch.OutOfMemoryError("full")


def full_beyond(rows: int, network: Any, monkeypatch: pytest.MonkeyPatch, full: Exception = FULL) -> None:
    """A device whose memory holds so many rows of a batch, the unconditional ones among them."""
    forward = network.forward

    def limited(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(sample) > rows:
            raise full
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(network, "forward", limited)


@pytest.mark.parametrize(
    "full",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_full_memory_by_any_name_is_one_and_each_part_says_its_own_size(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, full: Exception
) -> None:
    """Ten fit in parts of three: 3, 3, 3 and 1."""
    generator = drawing(models["stable_diffusion"], batch_size=10)
    full_beyond(6, generator._pipe.unet, monkeypatch, full)
    drawn = generator.draw((NURSE, PILOT, COOK, CLERK) * 2 + (NURSE, PILOT))
    said = [one.reason.partition(":")[0] for one in drawn if one and one.status == "made"]
    assert said == ["made in a batch of 3 in place of 10"] * 9 + ["made in a batch of 1 in place of 10"]


def test_a_batch_that_does_not_fit_is_drawn_in_parts_and_flagged(
    models: dict[str, Path], sd: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = (NURSE, PILOT, COOK, CLERK)
    expected = sd.draw(batch)
    generator = drawing(models["stable_diffusion"])
    full_beyond(2, generator._pipe.unet, monkeypatch)
    tries = rows_seen(generator, batch)
    assert tries[-8:] == [2] * 8 and set(tries) == {8, 4, 2}, "two steps for each of four images, one by one"
    drawn = generator.draw(batch)
    for one, whole in zip(drawn, expected, strict=True):
        assert one is not None and one.pixels is not None
        assert one.reason == "made in a batch of 1 in place of 4: the device's memory was full"
        assert np.abs(one.pixels.astype(int) - pixels(whole)).max() <= 2
    assert [one is None for one in generator.draw((None, None, COOK, None))] == [True, True, False, True]
    with pytest.raises(ModelError, match=r"memory of cpu does not hold one image of 32 x 32"):
        full_beyond(1, generator._pipe.unet, monkeypatch)
        generator.draw(batch)


def test_a_decoder_that_did_not_fit_in_float32_is_in_float16_again(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDXL's decodes in float32, and diffusers takes it back only where it succeeds."""
    monkeypatch.setitem(generate.DTYPES, "cpu", ("float16",))
    generator = drawing(models["sdxl"], dtype="float16")
    decode, full = generator._pipe.vae.decode, Mock(side_effect=[FULL, *[None] * 4])

    def limited(*args: Any, **kwargs: Any) -> Any:
        full()
        return decode(*args, **kwargs)

    monkeypatch.setattr(generator._pipe.vae, "decode", limited)
    batch = (NURSE, PILOT, COOK, CLERK)
    assert [one and one.status for one in (*generator.draw(batch), *generator.draw(batch))] == ["made"] * 8
    assert full.call_count == 5 and generator._pipe.vae.dtype == torch.float16


@pytest.mark.parametrize(
    "said",
    [
        f"401 for https://me:hf_{'abcDEF123' * 4}@huggingface.co/x",
        f"token hf_{'abcDEF123' * 4}",
        "password https://me:abcDEF123@there/x",
        f"Authorization: Bearer {'abcDEF123' * 4}",
    ],
)
def test_a_reason_holds_no_token(sd: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise OSError(said)

    monkeypatch.setattr(sd._pipe.unet, "forward", raising)
    failed = sd.draw((NURSE, None, None, None))[0]
    assert failed is not None and failed.reason.startswith("OSError: ") and "abcDEF123" not in failed.reason


def test_pixels_that_are_not_numbers_fail_and_leave_their_neighbours_alone(
    models: dict[str, Path], sd: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sd.draw((NURSE, PILOT, COOK, CLERK))
    generator = drawing(models["stable_diffusion"])
    decode = generator._pipe.vae.decode

    def spoiled(*args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        (images,) = decode(*args, **kwargs)
        images[1, 0, 5, 5] = float("nan")
        images[2] = -1
        return (images,)

    monkeypatch.setattr(generator._pipe.vae, "decode", spoiled)
    drawn = generator.draw((NURSE, PILOT, COOK, CLERK))
    assert drawn[1:3] == [Drawn("failed", None, "NaN pixels", 6, 0), Drawn("failed", None, "black image", 5, 0)]
    assert same(drawn[0], expected[0]) and same(drawn[3], expected[3])


def from_diffusers(image: Any) -> torch.Tensor:
    """One image `(height, width, 3)` as a pipeline gives it back."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("image", "flagged", "status", "reason"),
    [
        (np.full((2, 2, 3), np.nan), False, "failed", "NaN pixels"),
        (np.full((2, 2, 3), np.inf), False, "failed", "NaN pixels"),
        (np.full((2, 2, 3), 0.001), False, "failed", "black image"),
        (np.full((2, 2, 3), np.nan), True, "blocked", "safety checker"),
        (np.full((2, 2, 3), 0.5), True, "blocked", "safety checker"),
        (np.full((2, 2, 3), -0.001), False, "failed", "black image"),  # but for rounding
    ],
)
def test_an_image_that_is_none_says_why(image: Any, flagged: bool, status: Status, reason: str) -> None:
    (drawn,) = generate._drawn(from_diffusers(image.astype(np.float32)), [flagged])
    assert drawn == Drawn(status, None, reason)


def test_pixels_are_rounded_as_pillow_gets_them_from_diffusers() -> None:
    image = np.linspace(0, 1, 16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)
    (expected,) = diffusers.image_processor.VaeImageProcessor.numpy_to_pil(image)
    (drawn,) = generate._drawn(from_diffusers(image), [False])
    np.testing.assert_array_equal(pixels(drawn), np.asarray(expected))


@pytest.mark.parametrize("outside", [-0.01, 1.01, -1.0])
def test_pixels_that_are_none_are_an_error(outside: float) -> None:
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
    image[1, 1, 1] = outside
    with pytest.raises(ModelError, match=r"model\.path: its pixels are between .* not between 0 and 1"):
        generate._drawn(image[None], [False])


@pytest.mark.parametrize(("unsafe", "marked"), [(True, False), (False, True), (False, False)])
def test_what_the_safety_checker_of_deepfloyd_flags_is_blocked(tmp_path: Path, unsafe: bool, marked: bool) -> None:
    generator = drawing(tiny.deepfloyd_if(tmp_path / "if"))
    checker = tiny.if_safety_checker(unsafe=unsafe, marked=marked)
    generator._pipe.register_modules(safety_checker=checker, feature_extractor=tiny.eyes())
    drawn = generator.draw((NURSE,))[0]
    assert drawn is not None
    assert drawn[:3:2] == (("blocked", "safety checker") if unsafe or marked else ("made", ""))


def test_a_safety_checker_that_cannot_be_loaded_says_what_to_do_and_that_helps(tmp_path: Path) -> None:
    pipe = diffusers.IFPipeline.from_pretrained(tiny.deepfloyd_if(tmp_path / "if"))
    pipe.register_modules(
        safety_checker=tiny.if_safety_checker(unsafe=True, marked=True), feature_extractor=tiny.eyes()
    )
    pipe.save_pretrained(tmp_path / "if")
    with pytest.raises(ModelError, match=r'"safety_checker": \[null, null\]') as told:
        drawing(tmp_path / "if")
    assert "all_tied_weights_keys" not in str(told.value)
    index = tmp_path / "if" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"safety_checker": [None, None]}))
    pixels(drawing(tmp_path / "if").draw((NURSE,))[0])


def test_what_the_safety_checker_flags_is_blocked(tmp_path: Path, sd: DiffusersGenerator) -> None:
    flagging = drawing(tiny.stable_diffusion(tmp_path / "flags", flags=True))
    assert flagging.draw((NURSE, None, PILOT, None)) == [
        Drawn("blocked", None, "safety checker", 6, 0),
        None,
        Drawn("blocked", None, "safety checker", 6, 0),
        None,
    ]
    content = drawing(tiny.stable_diffusion(tmp_path / "content", flags=False))
    pixels(content.draw((NURSE, None, PILOT, None))[0])


# Wrong settings: one clear error each


def test_a_scheduler_that_fits_is_used_and_changes_the_picture(models: dict[str, Path], sd: DiffusersGenerator) -> None:
    euler = drawing(models["stable_diffusion"], scheduler="EulerDiscreteScheduler")
    assert type(euler._pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    assert euler._pipe.scheduler.config.prediction_type == "v_prediction"
    assert not same(euler.draw((NURSE, None, None, None))[0], sd.draw((NURSE, None, None, None))[0])


def test_a_scheduler_with_noise_of_its_own_takes_it_from_the_image_s_seed(models: dict[str, Path]) -> None:
    ancestral = drawing(models["stable_diffusion"], scheduler="EulerAncestralDiscreteScheduler")
    among = ancestral.draw((NURSE, PILOT, COOK, CLERK))[1]
    assert same(among, ancestral.draw((None, PILOT, None, None))[1])


class Unseeded(diffusers.EulerDiscreteScheduler):
    """With the signatures of `DPMSolverSDEScheduler`, which needs torchsde."""

    @diffusers.configuration_utils.register_to_config
    def __init__(
        self, beta_schedule: str = "", prediction_type: str = "", noise_sampler_seed: int | None = None
    ) -> None:
        pass

    def step(self, model_output: Any, timestep: Any, sample: Any) -> Any:
        raise AssertionError


def test_a_scheduler_that_draws_unseeded_noise_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [Unseeded, diffusers.DDIMScheduler]
    monkeypatch.setattr(diffusers.EulerDiscreteScheduler, "_get_compatibles", classmethod(lambda _: kinds))
    with pytest.raises(ModelError, match=r"'Unseeded' does not .* null, DDIMScheduler, EulerDiscreteScheduler$"):
        generate._scheduler(diffusers.EulerDiscreteScheduler(), "Unseeded")
    with pytest.raises(ModelError, match=r"null, which is Unseeded, does not .* are: DDIMScheduler$"):
        generate._scheduler(Unseeded(), "")


@pytest.mark.parametrize(
    ("family", "name", "right"),
    [
        ("stable_diffusion", "EulerScheduler", "DDIMScheduler"),
        ("stable_diffusion", "FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler"),
        ("stable_diffusion", "PNDMScheduler", "DDIMScheduler"),  # knows no zero terminal SNR
        ("stable_diffusion", "UNet2DConditionModel", "DDIMScheduler"),
        ("sd3", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_scheduler_that_does_not_fit_is_an_error_that_lists_those_that_do(
    models: dict[str, Path], family: str, name: str, right: str
) -> None:
    with pytest.raises(ModelError, match=rf"draw\.scheduler: '{name}' does not fit.*null, .*{right}") as caught:
        drawing(models[family], scheduler=name)
    assert name not in str(caught.value).partition("right answers")[2].replace(",", "").split()


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_scheduler_of_the_checkpoint_can_be_named(models: dict[str, Path], family: str) -> None:
    drawing(models[family], scheduler="FlowMatchEulerDiscreteScheduler")


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("stable_diffusion", {"height": 36}, r"draw\.height: 36 is no multiple of 8.*: 32 and 40"),
        ("sdxl", {"width": 4}, r"draw\.width: 4 is no multiple of 8.*: 8$"),
        ("sd3", {"width": 34}, r"draw\.width: 34 is no multiple of 4.*: 32 and 36"),
        ("flux", {"height": 30}, r"draw\.height: 30 is no multiple of 4.*: 28 and 32"),
        ("stable_diffusion", {"dtype": "float16"}, r"draw\.dtype: 'float16' .* on cpu.*: float32, bfloat16"),
        ("stable_diffusion", {"dtype": "int8"}, r"draw\.dtype: 'int8'"),
    ],
)
def test_a_size_or_dtype_that_does_not_fit_is_an_error_with_the_right_values(
    models: dict[str, Path], family: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        drawing(models[family], **changes)


def test_bfloat16_draws_on_a_cpu(models: dict[str, Path]) -> None:
    pixels(drawing(models["stable_diffusion"], dtype="bfloat16").draw((NURSE, None, None, None))[0])


def test_compiling_a_model_without_repeated_blocks_by_region_is_an_error(models: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"draw\.compile: SD3Transformer2DModel .*: null, whole"):
        drawing(models["sd3"], compile="regional")


def test_a_pipeline_without_an_autoencoder_of_that_name_is_made_quick_all_the_same(models: dict[str, Path]) -> None:
    """Kandinsky calls its `movq`. On a GPU, where the convolutions are laid out otherwise."""
    network = torch.nn.Conv2d(3, 4, 3)
    generate._make_quick(SimpleNamespace(unet=network, movq=torch.nn.Conv2d(4, 3, 3)), "cuda", None)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_an_autoencoder_of_videos_keeps_its_layout() -> None:
    """Qwen-Image has one: of weights with five dimensions channels cannot be the last of four."""
    network, vae = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(4, 3, 3)
    generate._make_quick(SimpleNamespace(transformer=network, vae=vae), "cuda", None)
    assert network.weight.is_contiguous(memory_format=torch.channels_last) and vae.weight.is_contiguous()


def test_a_pipeline_without_a_vae_is_compiled_whole_and_no_kernel_wins_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor, "deterministic", False)
    network = torch.nn.Conv2d(3, 4, 3)
    generate._make_quick(SimpleNamespace(unet=network, movq=torch.nn.Conv2d(4, 3, 3)), "cpu", "whole")
    assert network._compiled_call_impl is not None and inductor.deterministic


@pytest.mark.slow
@pytest.mark.parametrize("how", ["regional", "whole"])
def test_compiled_code_draws_the_same_but_for_rounding(
    models: dict[str, Path], sd: DiffusersGenerator, how: str
) -> None:
    batch = (NURSE, PILOT, None, COOK)
    compiled = drawing(models["stable_diffusion"], compile=how).draw(batch)
    for one, whole in zip(compiled, sd.draw(batch), strict=True):
        assert (one is None) == (whole is None)
        if one is not None:
            assert np.abs(pixels(one).astype(int) - pixels(whole)).max() <= 2


@pytest.mark.parametrize("family", ["stable_diffusion", "sdxl", "sd3"])
def test_kept_attention_is_computed_in_seven_of_ten_steps_and_draws_another_picture(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Kept where between 100 and 800 of 1,000 timesteps are left, at every other step: the 4th, 6th and 8th of ten."""
    exact = drawing(models[family], num_inference_steps=10)
    kept = drawing(models[family], num_inference_steps=10, cache="attention")
    names = (diffusers.models.attention_processor.Attention, diffusers.models.attention.AttentionModuleMixin)
    attention = next(m for m in generate._network(kept._pipe).modules() if isinstance(m, names))
    computing = Mock(wraps=attention._diffusers_hook._fn_refs[0].original_forward)
    monkeypatch.setattr(attention._diffusers_hook._fn_refs[0], "original_forward", computing)
    first = kept.draw((NURSE, PILOT, None, COOK))
    assert computing.call_count == 7
    assert not same(first[0], exact.draw((NURSE, None, None, None))[0])
    assert same(first[0], kept.draw((NURSE, None, CLERK, None))[0])


def test_attention_is_not_kept_where_one_branch_of_guidance_would_be_given_the_other_s(
    models: dict[str, Path], tmp_path: Path
) -> None:
    two_branches = tiny.flux(tmp_path / "flux", distilled=False)
    with pytest.raises(ModelError, match=r"draw\.cache: FluxPipeline .* null, or one of StableDiffusionPipeline"):
        drawing(two_branches, cache="attention")
    batch = (NURSE, None, None, None)
    for path, settings in ((two_branches, {"guidance_scale": 1.0}), (models["flux"], {})):
        exact = drawing(path, num_inference_steps=10, **settings)
        assert not same(
            exact.draw(batch)[0], drawing(path, num_inference_steps=10, cache="attention", **settings).draw(batch)[0]
        )


@pytest.mark.parametrize("family", ["stable_diffusion", "sdxl", "sd3", "flux"])
def test_weights_in_8_bits_draw_another_picture_whatever_the_neighbours(
    models: dict[str, Path], generators: dict[str, DiffusersGenerator], family: str
) -> None:
    coarse = drawing(models[family], quantization="float8")
    assert torch.float8_e4m3fn in {p.dtype for p in generate._network(coarse._pipe).parameters()}
    one, other = coarse.draw((NURSE, PILOT, None, COOK)), coarse.draw((NURSE, None, CLERK, None))
    assert same(one[0], other[0])
    assert not same(one[0], generators[family].draw((NURSE, None, None, None))[0])


def test_a_study_of_many_texts_keeps_a_bounded_number_of_embeddings(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = tiny.TOKENS * tiny.WIDTH * 4
    monkeypatch.setattr(generate, "ENCODED_BYTES", 3 * size)
    generator = drawing(models["stable_diffusion"])
    drawn = generator.draw((NURSE, PILOT, COOK, CLERK))
    assert generator._kept.cache_info().currsize == 3
    assert all(one is not None and one.status == "made" for one in drawn)


# Paths and digests


@pytest.mark.parametrize("path", ["./nothing", "/nothing/here", "~/nothing", "a/b/c", "embeded", "", "../x", "a b/c"])
def test_a_path_that_does_not_exist_is_an_error_with_the_right_answers(path: str) -> None:
    with pytest.raises(ModelError, match=r"model\.path: .*embedded, fake, a folder .*, or a hub name"):
        generate.resolve(path)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model_index\.json"):
        generate.resolve(str(tmp_path))


def test_a_folder_of_something_else_is_an_error(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "AudioLDMPipeline"}')
    with pytest.raises(ModelError, match=r"model\.path: .* cannot be loaded"):
        drawing(tmp_path)


def test_pickled_weights_are_not_loaded(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["stable_diffusion"], tmp_path / "pickled")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="safetensors"):
        drawing(folder)


def test_the_digest_ignores_the_card_and_the_place_and_sees_a_changed_weight(
    models: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(models["stable_diffusion"], tmp_path / "elsewhere")
    before = weights_digest(str(models["stable_diffusion"]), None)
    (folder / "README.md").write_text("a card")
    (folder / "sheet.json").write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.json").write_text("{}")
    assert weights_digest(str(folder), None) == before
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert weights_digest(str(folder), None) != before
    weights.write_bytes(changed[:-1] + bytes([changed[-1] ^ 1]))
    assert weights_digest(str(folder), None) == before
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "epsilon"}))
    assert weights_digest(str(folder), None) != before


def test_a_revision_of_something_that_is_not_on_the_hub_is_an_error(models: dict[str, Path]) -> None:
    for path in ("fake", str(models["sdxl"])):
        with pytest.raises(ModelError, match=r"model\.revision: 'main'.*leave it null"):
            weights_digest(path, "main")


def test_a_hub_model_in_the_cache_is_digested_and_drawn_without_a_network(
    cache: Path, models: dict[str, Path], sd: DiffusersGenerator
) -> None:
    put_in_cache(cache, models["stable_diffusion"])
    assert weights_digest("someone/tiny", None) == f"someone/tiny@{COMMIT}"
    assert weights_digest("someone/tiny", "main") == f"someone/tiny@{COMMIT}"
    generate.fetch("someone/tiny", None)
    settings = replace(SETTINGS, weights=weights_digest("someone/tiny", None))
    generator = open_generator("someone/tiny", None, settings)
    assert same(generator.draw((NURSE, None, None, None))[0], sd.draw((NURSE, None, None, None))[0])


def test_fetch_asks_the_hub_what_the_copy_in_the_cache_lacks(
    cache: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_pretrained(..., variant="fp16")` had left it."""
    put_in_cache(cache, models["stable_diffusion"])
    unet = cache / "models--someone--tiny" / "snapshots" / COMMIT / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".fp16.safetensors"))
    asked = Mock(side_effect=[str(cache)])
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", asked)
    generate.fetch("someone/tiny", None)
    ((_, told),) = asked.call_args_list
    assert told == {"revision": COMMIT, "use_safetensors": True}


def test_what_is_drawn_is_the_commit_that_was_planned(
    cache: Path, models: dict[str, Path], sd: DiffusersGenerator
) -> None:
    put_in_cache(cache, models["stable_diffusion"])
    planned = replace(SETTINGS, weights=weights_digest("someone/tiny", None))
    home = cache / "models--someone--tiny"
    (home / "refs" / "main").write_text(COMMIT[::-1])
    shutil.copytree(models["sdxl"], home / "snapshots" / COMMIT[::-1])
    generator = DiffusersGenerator("someone/tiny", None, planned, device="cpu")
    assert type(generator._pipe).__name__ == "StableDiffusionPipeline"


@pytest.mark.parametrize("commit", [None, COMMIT])
def test_a_hub_model_that_is_not_in_the_cache_says_to_fetch_it(cache: Path, commit: str | None) -> None:
    with pytest.raises(
        ModelError, match=r"someone/absent is no folder here, is not in the local cache.*typecast fetch STUDY"
    ):
        DiffusersGenerator("someone/absent", commit, SETTINGS)


def refusing(kind: str) -> Exception:
    """An error of the hub's client, with a token in its words."""
    error: Exception = getattr(huggingface_hub.errors, kind).__new__(getattr(huggingface_hub.errors, kind))
    error.args = ("401 for https://user:hf_secret@huggingface.co",)
    return error


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", r"gated: accept its licence on https://huggingface.co/someone/absent, then set HF_TOKEN"),
        ("RepositoryNotFoundError", r"neither a folder here nor a model on the hub.*embedded, fake"),
        ("RevisionNotFoundError", r"model\.revision: someone/absent has no 'v9'"),
        ("RemoteEntryNotFoundError", r"holds no model_index\.json"),
        ("HfHubHTTPError", r"cannot be fetched \(HfHubHTTPError\).*typecast fetch STUDY"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do_and_never_the_token(
    cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refusing(kind)

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    with pytest.raises(ModelError, match=message) as caught:
        weights_digest("someone/absent", "v9")
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None


# Without a model


def test_the_fake_generator_draws_each_unit_s_own_noise() -> None:
    settings = replace(SETTINGS, height=8, width=16)
    one, gap, two = FakeGenerator(settings).draw((NURSE, None, PILOT))
    assert gap is None and pixels(one).shape == (8, 16, 3) and not same(one, two)
    assert same(two, FakeGenerator(settings).draw((PILOT,))[0])


def test_planning_and_the_fake_generator_load_neither_torch_nor_diffusers(models: dict[str, Path]) -> None:
    code = f"""
import sys
from pipeline import generate
from tests_units import settings
generate.weights_digest({str(models["sd3"])!r}, None)
generator = generate.open_generator("fake", None, settings)
generate.environment()
assert not {{"torch", "diffusers", "transformers"}} & set(sys.modules)
"""
    made = f"from pipeline.types import DrawSettings\nsettings = {SETTINGS!r}"
    code = code.replace("from tests_units import settings", made)
    root = Path(generate.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_environment_names_versions_hardware_and_threads() -> None:
    found = generate.environment()
    assert found["diffusers"] == diffusers.__version__
    assert found["threads"] == str(torch.get_num_threads())
    assert found["cpu"] and json.loads(json.dumps(found)) == found
