"""Train the embedded models from scratch: `python -m scripts.train_embedded MODEL`, for each MODEL in turn:
`autoencoder`, `decoder`, `text`, `diffusion`, `refine`, `clip`, `judge`.

The diffusion model needs what stands before it; the CLIP and the judge need the decoder and the tokenizer. Each
training takes a fixed seed, runs on CPU or GPU through accelerate, writes checkpoints under `outputs/training/<name>/`,
and the same command continues from the last one. The finished weights go to `pipeline/embedded/`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import torchvision
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts import emoji_world
from scripts.emoji_world import Picture

CHECKPOINTS = emoji_world.HOME / "outputs" / "training"
TEXT_TO_IMAGE = emoji_world.WORLD / "text_to_image"
CLIP = emoji_world.WORLD / "clip"
JUDGE = CHECKPOINTS / "judge.safetensors"
LATENT_CHANNELS = 12
CONTEXT = 77
"""Tokens of a prompt, as in Stable Diffusion; a caption has at most 20."""
CLIP_CONTEXT = 32
"""Tokens of a text that the CLIP reads: captions and wordings only."""


def train(
    name: str,
    model: nn.Module,
    loss_of: Callable[[int, torch.device], Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    ema_decay: float = 0.0,
    accelerator: Accelerator,
    every: int = 250,
) -> None:
    """Minimise `loss_of(step, device)` by AdamW with a short warm-up and a cosine to zero.

    A step's loss may depend on nothing but the weights and the step number, so that a training that was
    interrupted ends like one that was not. With `ema_decay` the model ends as the running average.
    """
    model = model.to(memory_format=torch.channels_last)  # twice as fast on CPU
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, 0.5 * (1 + math.cos(math.pi * min(s / steps, 1))))
    )
    average = EMAModel(model.parameters(), decay=ema_decay, use_ema_warmup=True, power=3 / 4)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    average.to(accelerator.device)
    accelerator.register_for_checkpointing(average)
    folder = CHECKPOINTS / name
    done = 0
    if (folder / "step.json").exists():
        done = json.loads((folder / "step.json").read_text())["step"]
        accelerator.load_state(str(folder / f"step-{done}"))
        accelerator.print(f"{name}: continuing after step {done}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    smooth, last = math.nan, time.monotonic()
    with Progress(*columns, disable=not accelerator.is_main_process) as progress:
        task = progress.add_task(name, total=steps, completed=done, loss=smooth)
        for step in range(done, steps):
            with accelerator.autocast():
                loss = loss_of(step, accelerator.device)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.step(model.parameters())
            value = float(loss.detach())
            smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
            progress.update(task, advance=1, loss=smooth)
            if not progress.console.is_terminal and time.monotonic() - last > 60:
                last = time.monotonic()
                print(f"{name}: step {step + 1} of {steps}, loss {smooth:.4f}", flush=True)
            if (step + 1) % every == 0 or step + 1 == steps:
                accelerator.save_state(str(folder / f"step-{step + 1}"))
                if accelerator.is_main_process:
                    (folder / "step.json").write_text(json.dumps({"step": step + 1}))
    if ema_decay:
        average.copy_to(model.parameters())
    model.to(memory_format=torch.contiguous_format).eval()


def to_unit(tiles: np.ndarray) -> Tensor:
    """Pixels `(n, 64, 64, 3)` as a float tensor `(n, 3, 64, 64)` in -1..1."""
    return torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 127.5 - 1


def shifted(x: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels on its white ground."""
    padded = F.pad(x, [most] * 4, value=1.0)
    corners = rng.integers(0, 2 * most + 1, (len(x), 2))
    size = x.shape[-1]
    return torch.stack([p[:, i : i + size, j : j + size] for p, (i, j) in zip(padded, corners, strict=True)])


def quiet(folder: Path) -> None:
    """Take out of a config where it lay, and of an autoencoder's what diffusers writes into it and then warns about."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.pop("_name_or_path", None)
    if config["_class_name"] == "AutoencoderTiny":
        config.pop("block_out_channels", None)
    file.write_text(json.dumps(config, indent=2) + "\n")


# -- autoencoder -------------------------------------------------------------------------------------


def autoencoder(accelerator: Accelerator, steps: int, seed: int) -> None:
    """64-pixel pictures to 16 x 16 latents of unit spread and back, on the training split."""
    world = emoji_world.pictures()
    tiles = [p.tile for p in world if p.taught and p.split == "train"]
    images = to_unit(emoji_world.pixels()[tiles]).to(accelerator.device)
    wide = (48, 48, 48)
    model = AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=wide,
        decoder_block_out_channels=wide,
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(2, 1, 0),
        scaling_factor=1.0,
    )

    def loss_of(step: int, device: torch.device) -> Tensor:
        rng = np.random.default_rng([seed, step])
        x = shifted(images[rng.integers(0, len(images), 16)], 3, rng)
        x = x.contiguous(memory_format=torch.channels_last)
        z = model.encode(x).latents.float()
        mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
        unit = (mean**2 + (std - 1) ** 2).mean()
        noise = torch.from_numpy(rng.standard_normal(z.shape, dtype=np.float32)).to(device)
        y = model.decode(z + 0.1 * noise).sample.float()
        edges = sum(((y - x).diff(dim=d)).abs().mean() for d in (2, 3))
        return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * edges + 0.1 * unit

    train("autoencoder", model, loss_of, steps=steps, lr=2e-3, ema_decay=0.995, accelerator=accelerator, every=500)
    with torch.no_grad():
        y = torch.cat([model.decode(model.encode(x).latents).sample for x in images.split(64)])
        z = torch.cat([model.encode(x).latents for x in images.split(64)])
    accelerator.print(
        f"autoencoder: PSNR {-10 * math.log10(float(((y.clamp(-1, 1) - images) / 2).square().mean())):.1f} dB"
    )
    accelerator.print(f"latents: mean {z.mean((0, 2, 3))}, std {z.std((0, 2, 3))}")
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).half().save_pretrained(TEXT_TO_IMAGE / "vae")
        quiet(TEXT_TO_IMAGE / "vae")


def decoder(accelerator: Accelerator, steps: int, seed: int) -> None:
    """The decoder alone, longer, for the pictures as they lie and nearly clean latents: sharper faces.

    The encoder stays, and with it the latents that the diffusion model knows.
    """
    world = emoji_world.pictures()
    tiles = [p.tile for p in world if p.taught and p.split == "train"]
    images = to_unit(emoji_world.pixels()[tiles]).to(accelerator.device)
    vae = AutoencoderTiny.from_pretrained(TEXT_TO_IMAGE / "vae", torch_dtype=torch.float32).to(accelerator.device)
    with torch.no_grad():
        latents = torch.cat([vae.encode(x).latents for x in images.split(64)])

    def loss_of(step: int, device: torch.device) -> Tensor:
        rng = np.random.default_rng([seed, step])
        rows = rng.integers(0, len(images), 16)
        noise = torch.from_numpy(rng.standard_normal((16, *latents.shape[1:]), dtype=np.float32)).to(device)
        x, z = images[rows], (latents[rows] + 0.05 * noise).contiguous(memory_format=torch.channels_last)
        y = vae.decoder(z).float()
        edges = sum(((y - x).diff(dim=d)).abs().mean() for d in (2, 3))
        return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * edges

    train("decoder", vae.decoder, loss_of, steps=steps, lr=1.5e-3, ema_decay=0.998, accelerator=accelerator, every=500)
    with torch.no_grad():
        y = torch.cat([vae.decode(z).sample for z in latents.split(64)]).clamp(-1, 1)
    accelerator.print(f"decoder: PSNR {-10 * math.log10(float(((y - images) / 2).square().mean())):.1f} dB")
    if accelerator.is_main_process:
        vae.half().save_pretrained(TEXT_TO_IMAGE / "vae")
        quiet(TEXT_TO_IMAGE / "vae")


# -- text to image -----------------------------------------------------------------------------------


def clip_tokenizer(seed: int) -> CLIPTokenizer:
    """A CLIP tokenizer, byte-level BPE, whose merges are learned from the captions: no text is unknown to it."""
    rng = np.random.default_rng(seed)
    captions = [text for _, text in itertools.islice(emoji_world.lessons(emoji_world.pictures(), seed=seed), 20_000)]
    captions += [emoji_world.padded(text, rng) for text in captions[::4]]
    blank = CLIPTokenizer()
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    # the end of the text has the highest number: CLIP's text towers pool where it stands
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)


def noise_schedule() -> DDIMScheduler:
    """Cosine, v-prediction, pure noise at the last step: the start of a drawing says nothing about its mean."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,  # not used with trailing steps; its absence is warned about
    )


def text(accelerator: Accelerator, steps: int, seed: int, batch: int = 64) -> None:
    """The text encoder of the text-to-image model, before it and alone, as Stable Diffusion's was a CLIP's.

    What a caption says of concept, gender, tone and age, or leaves open, is to be read by a linear map from the end
    of the text and from all the padding after it, whatever else the caption says. Trained along with the UNet instead,
    it learned the occupations and nothing else.
    """
    tokenizer = clip_tokenizer(seed)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            max_position_embeddings=CONTEXT,
        )
    )
    world = [p for p in emoji_world.pictures() if p.taught and p.split == "train"]
    concepts = sorted({p.concept for p in world})
    answers = [[None, *concepts], [None, *emoji_world.GENDERS], [None, *emoji_world.TONES.values()]]
    answers.append([None, *emoji_world.AGES])
    model = nn.ModuleDict({"encoder": encoder, "heads": nn.Linear(128, sum(map(len, answers)))})

    def lesson(rng: np.random.Generator) -> tuple[str, tuple[str | None, ...]]:
        """A caption and what it says."""
        if rng.random() < 0.05:
            return "", (None,) * 4
        picture = world[rng.integers(len(world))]
        naming = str(rng.choice(list(emoji_world.NAMINGS)))
        words = emoji_world.caption(picture, naming, rng)
        gender = picture.gender if naming in ("gender", "both") else None
        tone = picture.tone if naming in ("tone", "both") else None
        said = picture.concept, gender, tone, picture.age if emoji_world.aged(words) else None
        return (emoji_world.padded(words, rng) if rng.random() < 0.3 else words), said

    def loss_of(step: int, device: torch.device) -> Tensor:
        rng = np.random.default_rng([seed, step])
        texts, said = zip(*(lesson(rng) for _ in range(batch)), strict=True)
        ids = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        truth = torch.tensor([[a.index(s) for a, s in zip(answers, row, strict=True)] for row in said], device=device)
        ended = (ids == tokenizer.eos_token_id).cumsum(1) > 0  # the padding is the same token
        states = encoder(ids).last_hidden_state[ended]
        rows = ended.nonzero()[:, 0]
        parts = model["heads"](states).float().split([len(a) for a in answers], dim=1)
        return sum((F.cross_entropy(part, truth[rows, i]) for i, part in enumerate(parts)), torch.zeros(()))

    train("text", model, loss_of, steps=steps, lr=1e-3, accelerator=accelerator)
    if accelerator.is_main_process:
        encoder.half().save_pretrained(TEXT_TO_IMAGE / "text_encoder")
        tokenizer.save_pretrained(TEXT_TO_IMAGE / "tokenizer")


def diffusion(accelerator: Accelerator, steps: int, seed: int) -> None:
    """The UNet, on the latents of the training split and the states of the finished text encoder."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(80, 128, 128),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    train_unet(
        "diffusion", unet, accelerator, emoji_world.lessons(emoji_world.pictures(), seed=seed), steps, seed, lr=8e-4
    )


def refine(accelerator: Accelerator, steps: int, seed: int) -> None:
    """The same UNet further, on captions that name both genders and all tones equally often."""
    unet = UNet2DConditionModel.from_pretrained(TEXT_TO_IMAGE / "unet", torch_dtype=torch.float32)
    namings = emoji_world.NAMINGS_EVENLY
    lessons = emoji_world.lessons(emoji_world.pictures(), seed=seed + 1, namings=namings, evenly=True)
    train_unet("refine", unet, accelerator, lessons, steps, seed + 1, lr=6e-4)


def train_unet(
    name: str,
    unet: UNet2DConditionModel,
    accelerator: Accelerator,
    lessons: Iterator[tuple[int, str]],
    steps: int,
    seed: int,
    *,
    lr: float,
    batch: int = 40,
) -> None:
    """Train on v-prediction and save the whole pipeline."""
    world = emoji_world.pictures()
    vae = AutoencoderTiny.from_pretrained(TEXT_TO_IMAGE / "vae", torch_dtype=torch.float32).to(accelerator.device)
    train_tiles = [p.tile for p in world if p.taught and p.split == "train"]
    with torch.no_grad():
        images = to_unit(emoji_world.pixels()[train_tiles]).to(accelerator.device)
        latents = torch.cat([vae.encode(x).latents for x in images.split(64)])
    row_of = {tile: row for row, tile in enumerate(train_tiles)}
    tokenizer = CLIPTokenizer.from_pretrained(TEXT_TO_IMAGE / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(TEXT_TO_IMAGE / "text_encoder", torch_dtype=torch.float32)
    text_encoder.to(accelerator.device)
    unet.set_attn_processor(AttnProcessor())  # quicker than the fused kernel at this size on CPU; not saved
    scheduler = noise_schedule()
    stream = enumerate(lessons)

    def lesson(step: int) -> tuple[list[int], list[str]]:
        """The pictures and captions of a step; a resumed training skips what it has had."""
        mine = list(itertools.islice(itertools.dropwhile(lambda item: item[0] < step * batch, stream), batch))
        return [row_of[tile] for _, (tile, _) in mine], [text for _, (_, text) in mine]

    def varied(text: str, rng: np.random.Generator) -> str:
        """One caption in ten is empty, for the unconditional branch of guidance; one in ten says more."""
        chance = rng.random()
        return "" if chance < 0.1 else emoji_world.padded(text, rng) if chance < 0.2 else text

    @functools.lru_cache(maxsize=20_000)  # 20 kB each
    def encoded(text: str, device: torch.device) -> Tensor:
        ids = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        with torch.no_grad():
            return text_encoder(ids).last_hidden_state[0].bfloat16()

    def loss_of(step: int, device: torch.device) -> Tensor:
        rows, texts = lesson(step)
        rng = np.random.default_rng([seed, step])
        prompt_embeds = torch.stack([encoded(varied(text, rng), device) for text in texts]).float()
        x = latents[rows]
        noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32)).to(device)
        # every stretch of noise levels once in a batch: less noise in the gradient than independent draws
        t = torch.from_numpy(((rng.permutation(batch) + rng.random(batch)) / batch * 1000).astype(np.int64)).to(device)
        noisy = scheduler.add_noise(x, noise, t).contiguous(memory_format=torch.channels_last)
        target = scheduler.get_velocity(x, noise, t)
        return F.mse_loss(unet(noisy, t, prompt_embeds).sample.float(), target)

    train(name, unet, loss_of, steps=steps, lr=lr, ema_decay=0.9995, accelerator=accelerator, every=500)
    if accelerator.is_main_process:
        StableDiffusionPipeline(
            vae=AutoencoderTiny.from_pretrained(TEXT_TO_IMAGE / "vae"),
            text_encoder=text_encoder.half(),
            tokenizer=tokenizer,
            unet=unet.half(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(TEXT_TO_IMAGE)
        for part in ("vae", "unet"):
            quiet(TEXT_TO_IMAGE / part)


# -- CLIP and the judge ------------------------------------------------------------------------------


def recoloured(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures whose channels went through curves between none and random ones: fair hair may be dark, a dark suit light."""
    straight, random = np.linspace(-1, 1, 5), rng.uniform(-1, 1, (len(x), 3, 5))
    strength = rng.random((len(x), 1, 1))
    knots = torch.from_numpy(((1 - strength) * straight + strength * random).astype(np.float32)).to(x.device)
    place = (x.flatten(2) + 1) * 2
    below = place.floor().clamp(0, 3)
    low, high = (knots.gather(2, below.long() + step) for step in (0, 1))
    return torch.lerp(low, high, place - below).reshape(x.shape)


def shuffled(x: Tensor, rng: np.random.Generator, patch: int = 16) -> Tensor:
    """Pictures cut into patches and put together in random order: colours as they were, and no shape."""
    n, side = len(x), x.shape[-1] // patch
    pieces = (
        x.reshape(n, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, 3, patch, patch)
    )
    pieces = torch.stack([p[rng.permutation(side * side)] for p in pieces])
    return pieces.reshape(n, side, side, 3, patch, patch).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


class Album:
    """The pictures of a split as drawn and as the autoencoder renders them, and random views of them."""

    def __init__(self, split: str, device: torch.device) -> None:
        mine = [p for p in emoji_world.pictures() if p.split == split]
        self.pictures = [p for p in mine if p.taught]
        yellow = [p for p in mine if replace(p, tone="light").taught and not p.taught]
        self.drawn = to_unit(emoji_world.pixels()[[p.tile for p in [*self.pictures, *yellow]]])
        vae = AutoencoderTiny.from_pretrained(TEXT_TO_IMAGE / "vae", torch_dtype=torch.float32)
        with torch.no_grad():
            self.rendered = torch.cat([vae.decode(vae.encode(x).latents).sample for x in self.drawn.split(64)])
        self.rendered = self.rendered.clamp(-1, 1)
        self.device = device
        drawings: dict[tuple[str, ...], list[int]] = {}
        for row, p in enumerate([*self.pictures, *yellow]):
            drawings.setdefault((p.vendor, p.concept, p.gender, p.age), []).append(row)
        self.tones_of = [drawings[p.vendor, p.concept, p.gender, p.age] for p in self.pictures]
        """The rows of each picture's drawing in all its tones, yellow too."""
        occupation = np.array([p.occupation for p in self.pictures])
        self.chance = np.where(occupation, 0.7 / occupation.sum(), 0.3 / (~occupation).sum())

    def views(self, n: int, rng: np.random.Generator, toneless: int = 0) -> tuple[list[Picture], Tensor]:
        """n random pictures: moved, perhaps mirrored, a little brighter or darker, with noise and a hole.

        In the first `toneless` of them skin and hair, which is what differs between the tones of a drawing, have any colour.
        """
        rows = rng.choice(len(self.pictures), n, p=self.chance)
        rendered = torch.from_numpy(rng.random(n) < 0.5)[:, None, None, None]
        x = torch.where(rendered, self.rendered[rows], self.drawn[rows])
        if toneless:
            others = [rng.choice([other for other in self.tones_of[row] if other != row]) for row in rows[:toneless]]
            other = torch.where(rendered[:toneless], self.rendered[others], self.drawn[others])
            differs = (other - x[:toneless]).abs().amax(1, keepdim=True) > 0.05
            x[:toneless] = torch.where(differs, recoloured(x[:toneless], rng), x[:toneless])
        x = shifted(x, 5, rng)
        mirrored = torch.from_numpy(rng.random(n) < 0.5)
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = x * torch.from_numpy(rng.uniform(0.97, 1.03, (n, 1, 1, 1)).astype(np.float32))
        x = x + torch.from_numpy(rng.normal(0, 0.04, x.shape).astype(np.float32))
        for picture, (i, j), size in zip(x, rng.integers(0, 56, (n, 2)), rng.integers(0, 18, n), strict=True):
            picture[:, i : i + size, j : j + size] = 1.0
        return [self.pictures[row] for row in rows], x.clamp(-1, 1).to(self.device)


def clip(accelerator: Accelerator, steps: int, seed: int, batch: int = 96) -> None:
    """A CLIP with a ResNet for pictures, trained contrastively.

    Many captions are true of many pictures ("a photo of a woman"), so the target of each row and column is spread
    evenly over all the pairs in the batch that are true. Every tone is missing for some occupation and gender, and the
    fair hair that goes with it: the towers must not take what is held out for impossible. So gender is learnt only
    where skin and hair have any colour (two thirds of the pictures, in half of them everything has), and a sixth of the
    pictures have no shape; what a picture does not tell is left out of its row.
    """
    tokenizer = CLIPTokenizer.from_pretrained(TEXT_TO_IMAGE / "tokenizer")
    config: dict[str, dict[str, Any]] = {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": 64, "layers": [2, 2, 2, 1], "width": 24, "head_width": 64, "patch_size": None},
            "text_cfg": {
                "context_length": CLIP_CONTEXT,
                "vocab_size": len(tokenizer),
                "width": 128,
                "heads": 4,
                "layers": 3,
                "hf_tokenizer_name": "here",
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    model = open_clip.CLIP(**config["model_cfg"])
    album = Album("train", accelerator.device)
    half, toneless, shuffled_ones = batch // 3, 2 * batch // 3, batch // 6
    tells = [("concept", "gender", "age")] * toneless + [("tone",)] * shuffled_ones
    tells += [("concept", "tone", "age")] * (batch - len(tells))

    def loss_of(step: int, device: torch.device) -> Tensor:
        rng = np.random.default_rng([seed, step])
        pictures, x = album.views(batch, rng, toneless)
        x[:half] = recoloured(x[:half], rng)
        x[toneless : toneless + shuffled_ones] = shuffled(x[toneless : toneless + shuffled_ones], rng)
        claims = [emoji_world.claim(p, rng, told) for p, told in zip(pictures, tells, strict=True)]
        facts = [
            tuple(getattr(p, fact) if fact in told else "" for fact in emoji_world.FACTS)
            for p, told in zip(pictures, tells, strict=True)
        ]
        true, open_ = (torch.from_numpy(m).to(device) for m in verdicts(facts, [c.said for c in claims]))
        texts = [c.text for c in claims]
        asked = {"padding": "max_length", "max_length": CLIP_CONTEXT, "truncation": True, "return_tensors": "pt"}
        ids = tokenizer(texts, **asked).input_ids
        seen, read, scale = model(x.contiguous(memory_format=torch.channels_last), ids.to(device))
        logits = (scale.float() * seen.float() @ read.float().T).masked_fill(open_, -1e4)
        rows = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
        columns = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
        return (rows + columns) / 2

    train("clip", model, loss_of, steps=steps, lr=1e-3, weight_decay=0.05, accelerator=accelerator)
    if accelerator.is_main_process:
        CLIP.mkdir(parents=True, exist_ok=True)
        (CLIP / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file(accelerator.unwrap_model(model).half().state_dict(), CLIP / "open_clip_model.safetensors")
        tokenizer.save_pretrained(CLIP)


def verdicts(facts: Sequence[tuple[str, ...]], said: Sequence[tuple[str | None, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Which captions (columns) are true of which pictures (rows), and which may be; the others are false.

    `facts` are a picture's concept, gender, tone and age, empty where it doesn't tell; `said` is a caption's, None
    where it leaves open.
    """
    known, claimed = np.array(facts)[:, None], np.array([["" if s is None else s for s in row] for row in said])[None]
    wrong = ((claimed != "") & (known != "") & (claimed != known)).any(2)
    untold = ((claimed != "") & (known == "")).any(2)
    return (~wrong & ~untold).astype(np.float32), ~wrong & untold


OCCUPATIONS = tuple(sorted(emoji_world.women_shares()))


class JudgeNetwork(nn.Module):  # type: ignore[misc]  # torch is not looked into
    """Two ResNets, so that neither can guess a tone from an occupation or a gender from a tone.

    `shape` sees grey pictures and answers occupation and gender; `tone` sees patches in random order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape = torchvision.models.resnet18(num_classes=len(OCCUPATIONS) + len(emoji_world.GENDERS))
        self.shape.conv1 = nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False)
        self.tone = torchvision.models.resnet18(num_classes=len(emoji_world.TONES))
        self.tone.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures `(n, 3, 64, 64)` to logits of occupation `(n, 20)`, gender `(n, 2)` and tone `(n, 5)`."""
        occupation, gender = self.shape(x.mean(1, keepdim=True)).split([len(OCCUPATIONS), 2], dim=1)
        return occupation, gender, torch.stack([self.tone(shuffled(x, rng)) for _ in range(4)]).mean(0)


def judge_truth(pictures: Sequence[Picture]) -> Tensor:
    """The right answers `(n, 3)`: occupation (-100 for none), gender, tone."""
    tones = list(emoji_world.TONES.values())
    return torch.tensor(
        [
            (
                OCCUPATIONS.index(p.concept) if p.occupation else -100,
                emoji_world.GENDERS.index(p.gender),
                tones.index(p.tone),
            )
            for p in pictures
        ]
    )


def judge(accelerator: Accelerator, steps: int, seed: int, batch: int = 64) -> None:
    """The classifier that judges the drawings, trained on the real pictures and not on any drawing.

    Half of them are of no tone, of which only the shape is learnt: fair hair, which some tones have, is nobody's.
    """
    network = JudgeNetwork()
    album = Album("train", accelerator.device)

    def loss_of(step: int, device: torch.device) -> Tensor:
        rng = np.random.default_rng([seed, step])
        half = batch // 2
        pictures, x = album.views(batch, rng, half)
        truth = judge_truth(pictures).to(device)
        tone = network.tone(shuffled(x[half:], rng)).float()
        x[1::2] = recoloured(x[1::2], rng)
        occupation, gender = network.shape(x.mean(1, keepdim=True)).float().split([len(OCCUPATIONS), 2], dim=1)
        of_shape = F.cross_entropy(occupation, truth[:, 0]) + F.cross_entropy(gender, truth[:, 1])
        return of_shape + F.cross_entropy(tone, truth[half:, 2])

    train("judge", network, loss_of, steps=steps, lr=1e-3, weight_decay=0.05, accelerator=accelerator)
    if accelerator.is_main_process:
        save_file(accelerator.unwrap_model(network).state_dict(), JUDGE)


def main() -> None:
    """Read the command line and train one model."""
    steps = {
        "autoencoder": 2500,
        "decoder": 6000,
        "text": 800,
        "diffusion": 5000,
        "refine": 7000,
        "clip": 3000,
        "judge": 2000,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(steps))
    parser.add_argument("--steps", type=int, help=f"default: {steps}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["no", "bf16"], default="bf16")
    args = parser.parse_args()
    set_seed(args.seed)
    accelerator = Accelerator(mixed_precision=args.precision)
    globals()[args.model](accelerator, args.steps or steps[args.model], args.seed)


if __name__ == "__main__":
    main()
