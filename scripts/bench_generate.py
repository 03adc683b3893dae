"""How fast a GPU draws, beside the loops that are in use: `python -m scripts.bench_generate [--model sdxl] [--images 64]`.

Needs no network: Stable Diffusion 1.5, SDXL and ViT-L-14 in their real shapes, with random weights. In one process, at
the same steps, guidance, size and scheduler: the loop that public tools use (half precision, one image a call), the
best public one (batches of ten of one prompt), ours, the whole line around ours, and the floor: what the multiplications
of text encoder, network and decoder would take at the rate of matrix products measured here. Ratios count; absolute
times are this machine's. `--small` is a few thousand weights, to see on a CPU that it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import open_clip
import safetensors.torch
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from classifiers.clip import CONFIG
from pipeline import line, plan, stages, study
from pipeline.generate import DiffusersGenerator
from pipeline.line import Opened
from pipeline.types import Batch, Drawn

GUIDANCE = 7.5
PUBLIC_BATCH = 10
SHARDS = 3
"""That the whole line's rate is of at least: one shard is written while the next is drawn."""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What a model is made of, beside the text encoders' and the autoencoder's usual sizes."""

    network: dict[str, Any]
    texts: tuple[dict[str, Any], ...]
    """Of each text encoder."""
    channels: tuple[int, ...]
    """Of the autoencoder."""
    scaling: float


CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
TIMES = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True}
DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SHAPES = {
    "sd15": Shapes(
        network={
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": (DOWN, DOWN, DOWN, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", UP, UP, UP),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        texts=(CLIP_L | {"projection_dim": 768},),
        channels=(128, 256, 512, 512),
        scaling=0.18215,
    ),
    "sdxl": Shapes(
        network={
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", DOWN, DOWN),
            "up_block_types": (UP, UP, "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "projection_class_embeddings_input_dim": 6 * 256 + 1280,
            **TIMES,
        },
        texts=(CLIP_L | {"projection_dim": 768}, CLIP_G | {"projection_dim": 1280, "hidden_act": "gelu"}),
        channels=(128, 256, 512, 512),
        scaling=0.13025,
    ),
    "small": Shapes(
        network={
            "block_out_channels": (32, 64),
            "down_block_types": (DOWN, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", UP),
            "cross_attention_dim": 32,
            "attention_head_dim": 8,
        },
        texts=(
            {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
            | {"projection_dim": 32},
        ),
        channels=(32, 32, 32, 32),
        scaling=0.18215,
    ),
}


# Models of random weights


def save_pipeline(shapes: Shapes, folder: Path, device: str) -> None:
    """A pipeline of these shapes, in diffusers' layout."""
    torch.manual_seed(0)
    with torch.device(device):
        network = diffusers.UNet2DConditionModel(sample_size=64, layers_per_block=2, **shapes.network)
        vae = diffusers.AutoencoderKL(
            block_out_channels=shapes.channels,
            down_block_types=("DownEncoderBlock2D",) * len(shapes.channels),
            up_block_types=("UpDecoderBlock2D",) * len(shapes.channels),
            layers_per_block=2,
            latent_channels=4,
            scaling_factor=shapes.scaling,
        )
        first, *second = [encoder(number, told) for number, told in enumerate(shapes.texts)]
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    parts = {"vae": vae, "unet": network, "scheduler": scheduler, "text_encoder": first, "tokenizer": tokenizer()}
    if second:
        more = {"text_encoder_2": second[0], "tokenizer_2": tokenizer()}
        pipe: Any = diffusers.StableDiffusionXLPipeline(**parts, **more, add_watermarker=False)
    else:
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = diffusers.StableDiffusionPipeline(**parts, **none)
    pipe.to(torch.bfloat16 if device != "cpu" else torch.float32).save_pretrained(folder, safe_serialization=True)


def encoder(number: int, told: dict[str, Any]) -> Any:
    """The first text encoder of a pipeline gives tokens alone, the second is pooled and projected."""
    config = transformers.CLIPTextConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1, **told)
    return (transformers.CLIPTextModelWithProjection if number else transformers.CLIPTextModel)(config)


def tokenizer() -> Any:
    """One that spells: no vocabulary is fetched, and the encoder's work does not depend on it."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def save_clip(folder: Path, name: str = "ViT-L-14") -> None:
    """A CLIP of random weights, in open_clip's layout."""
    model = open_clip.create_model(name)
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    told = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": model.visual.preprocess_cfg}
    (folder / CONFIG).write_text(json.dumps(told))


# What is timed


def timed(block: Callable[[], object], device: str) -> float:
    """Seconds of a call, until the device has done it."""
    wait(device)
    start = time.perf_counter()
    block()
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    """For everything that a GPU was asked to do."""
    if device != "cpu":
        torch.cuda.synchronize()


def public_loop(folder: Path, asked: argparse.Namespace, device: str, batch: int) -> float:
    """Images a second of `pipe(prompt)` as the public tools call it, with so many images of one prompt a call."""
    half = torch.float16 if device != "cpu" else torch.float32
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=half)
    pipe = pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": asked.steps, "guidance_scale": GUIDANCE, "height": asked.size, "width": asked.size}

    def call() -> object:
        return pipe("a photo of a nurse", num_images_per_prompt=batch, **how)

    call()  # warm
    calls = max(1, asked.images // (16 * batch))
    return float(calls * batch / timed(lambda: [call() for _ in range(calls)], device))


def begin(folder: Path, asked: argparse.Namespace, device: str, compiled: str | None, home: Path) -> Opened:
    """A run of our own with these models, in a folder of its own."""
    prompts = 20  # of the prompt set
    whole = asked.batch // math.gcd(asked.batch, prompts)  # of each, so that every batch that is drawn is full
    draw = {"num_inference_steps": asked.steps, "guidance_scale": GUIDANCE, "height": asked.size, "width": asked.size}
    draw |= {"dtype": "bfloat16" if device != "cpu" else "float32", "batch_size": asked.batch, "compile": compiled}
    raw = {
        "name": "bench",
        "prompt_sets": ["emoji_occupations"],
        "model": {"path": str(folder / "model")},
        "draw": draw | ({"threads": torch.get_num_threads()} if device == "cpu" else {}),
        "images_per_prompt": whole * max(1, round(asked.images / prompts / whole)),
        "perceive": {
            "clip": "embedded" if asked.model == "small" else str(folder / "clip"),
            "attributes": ["gender", "skin_tone", "age"],
        },
    }
    return line.begin(study.parse(raw, where="bench"), home)


def batches(planned: plan.Plan, images: int) -> list[Batch]:
    """The first full batches of a plan."""
    some = [batch for shard in planned.shards() for _, batch in planned.batches(shard)]
    return some[: max(1, images // planned.settings.batch_size)]


def flops(block: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call; 2 for a multiplication and addition."""
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        block()
    return int(counted.get_total_flops())


def matrix_rate(device: str) -> float:
    """Operations a second of a large product of bf16 matrices: what the device can do at best."""
    n, kind = (8192, torch.bfloat16) if device != "cpu" else (512, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    times = [timed(lambda: a @ b, device) for _ in range(20)]
    return float(2 * n**3 / sorted(times)[len(times) // 2])


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an image costs in operations, and how well the network does its part."""

    text: float
    network: float
    decoder: float
    utilisation: float
    """Of the network: its operations over its time and the rate of matrix products."""


def work_of(generator: DiffusersGenerator, asked: argparse.Namespace, rate: float) -> Work:
    """Operations per image: a text encoded once, guided steps of the network, one decoding."""
    pipe, device = generator._pipe, generator.device
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, args, told: seen.append((args, told)), with_kwargs=True)
    generator.draw(some_batch(asked))
    hook.remove()
    args, told = seen[-1]
    latents = torch.randn(asked.batch, 4, asked.size // 8, asked.size // 8, device=device, dtype=pipe.vae.dtype)
    network = flops(lambda: pipe.unet.forward(*args, **told))

    def steps() -> None:
        with torch.no_grad():
            for _ in range(5):
                pipe.unet(*args, **told)

    steps()
    each = timed(steps, device) / 5
    return Work(
        text=flops(lambda: generator._encode("a photo of a pilot")),
        network=network * asked.steps / asked.batch,
        decoder=flops(lambda: type(pipe.vae).decode(pipe.vae, latents)) / asked.batch,
        utilisation=network / each / rate,
    )


def some_batch(asked: argparse.Namespace) -> Batch:
    """A full batch of the demo's prompts."""
    chosen = study.load("emoji", (f"draw.batch_size={asked.batch}",))
    planned = plan.plan(chosen, weights="none")
    return next(iter(planned.batches(planned.shards()[0])))[1]


# The table


def measure(asked: argparse.Namespace, device: str, folder: Path) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    save_pipeline(SHAPES[asked.model], folder / "model", device)
    if asked.model != "small":
        save_clip(folder / "clip")
    where = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    yield (
        f"{asked.model}, {asked.size} x {asked.size}, {asked.steps} steps, guidance {GUIDANCE}, on {where}; "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    rate = matrix_rate(device)
    yield f"matrix products: {rate / 1e12:.2f} TFLOP/s"
    one = public_loop(folder / "model", asked, device, 1)
    yield f"public loop, one image a call: {one:.3f} images/s"
    ten = public_loop(folder / "model", asked, device, PUBLIC_BATCH)
    yield f"public loop, {PUBLIC_BATCH} of one prompt a call: {ten:.3f} images/s, {ten / one:.2f} of the first"
    for compiled in asked.compile:
        yield from ours(asked, device, folder, None if compiled == "none" else compiled, (one, ten, rate))


def ours(
    asked: argparse.Namespace, device: str, folder: Path, compiled: str | None, beside: Sequence[float]
) -> Iterator[str]:
    """Drawing alone, the floor, and the whole line around it."""
    one, ten, rate = beside
    run, chosen, planned = begin(folder, asked, device, compiled, folder / f"run-{compiled}")
    generator = line.open_generator(chosen, planned)
    assert isinstance(generator, DiffusersGenerator)
    perceiver = line.noted(run, chosen, line.open_perceiver(chosen))
    some = batches(planned, asked.images // 4)
    starting = timed(lambda: generator.draw(some[0]), device)
    drawn: list[list[Drawn | None]] = []
    seconds = timed(lambda: drawn.extend(generator.draw(batch) for batch in some), device)
    alone = sum(one is not None and one.status == "made" for images in drawn for one in images) / seconds
    name = f"ours, compile {compiled or 'null'}"
    yield (
        f"{name}: {alone:.3f} images/s, {alone / one:.2f} of the first (to reach 4), {alone / ten:.2f} of the second (1.5); "
        f"the first batch took {starting:.0f} s"
    )
    work = work_of(generator, asked, rate)
    texts = len({unit.prompt_sent for batch in some for unit in batch if unit}) + 1  # each once; the empty one guides
    floor = rate / (work.network + work.decoder + work.text * texts / (len(some) * asked.batch))
    yield (
        f"{name}: floor {floor:.3f} images/s ({work.network / 1e12:.3f} TFLOP network, {work.decoder / 1e12:.3f} decoder, "
        f"{work.text / 1e12:.4f} a text), reached {alone / floor:.2f} of it; the network alone at {work.utilisation:.2f} of "
        "the matrix rate (0.50)"
    )
    whole = timed(lambda: stages.draw(run, planned, lambda: generator, lambda: perceiver), device)
    made, shards = stages.status(run, planned, perceiver.name)["made"], len(planned.shards())
    rate = made / whole
    yield (
        f"{name}: drawn, perceived, encoded, written: {rate:.3f} images/s, {rate / alone:.3f} of drawing alone (0.95); "
        f"{made} of {len(planned)} were made, in {shards} shards"
        + ("" if shards >= SHARDS else f", of which it takes {SHARDS} to tell: give more --images")
    )


def main() -> None:
    """Measure and print."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument(
        "--images",
        type=int,
        default=1536,
        help="of the whole line; ours alone draws a quarter, the public loops a sixteenth",
    )
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compile", nargs="+", choices=("none", "regional", "whole"), default=["none", "whole"])
    parser.add_argument("--small", action="store_true", help="a few thousand weights, 64 x 64, two steps, not compiled")
    asked = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if asked.small:
        asked.model, asked.size, asked.steps, asked.batch, asked.compile = "small", 64, 2, 4, ["none"]
    with tempfile.TemporaryDirectory() as folder:
        for text in measure(asked, device, Path(folder)):
            print(text, flush=True)


if __name__ == "__main__":
    main()
