"""Images perceived per second, against loops written the way public tools write them: `python -m scripts.bench_perceive`.

All read the same PNG files, with the same weights, in one run, and three attributes of each image:

- `one by one`: per image and attribute the file is opened, the image encoded, and the texts of the attribute encoded
  again (as in UCE's `CLIP_classify.py`);
- `batched, per attribute`: a `DataLoader` with workers; the texts once and the images once per attribute (as in
  ITI-GEN's `evaluation.py`);
- `batched, in one pass`: the same, but every image encoded once for all attributes: as good as such a loop gets;
- `Typecast`: `stages.perceive`'s way, with all wordings of every level, and everything else that it does to an image.

Loading the model is in none of the times; encoding texts is in all. `--clip ViT-B-32` takes random weights of that size,
which are as slow as trained ones.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from classifiers import clip as clips
from classifiers.attributes import ATTRIBUTES
from classifiers.clip import ClipModel
from classifiers.zero_shot import ZeroShot
from pipeline import stages, store
from scripts import emoji_world

ASKED = [ATTRIBUTES[name] for name in ("gender", "skin_tone", "age")]
TEXTS = {a.name: [f"a photo of {a.wordings[level][0]}" for level in a.levels] for a in ASKED}
BATCH = 64


def random_clip(name: str, folder: Path) -> Path:
    """A folder with random weights of a model that open_clip knows."""
    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    save_file(open_clip.create_model(name).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / clips.CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder


class Files(torch.utils.data.Dataset):  # type: ignore[misc]  # torch is not looked into
    """Preprocessed images of files."""

    def __init__(self, files: Sequence[Path], preprocess: Callable[[Image.Image], torch.Tensor]) -> None:
        self.files, self.preprocess = files, preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.preprocess(Image.open(self.files[place]).convert("RGB"))


def unit(features: torch.Tensor) -> torch.Tensor:
    """Rows of length 1."""
    return features / features.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Plain:
    """A CLIP as open_clip gives it, which is what the public tools use."""

    model: Any
    preprocess: Any
    tokenize: Any

    @property
    def scale(self) -> torch.Tensor:
        """What a cosine is multiplied by."""
        return self.model.logit_scale.detach().exp()


def plain(folder: Path) -> Plain:
    """The CLIP of a folder."""
    where = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(where)
    return Plain(model.eval(), preprocess, open_clip.get_tokenizer(where))


def one_by_one(clip: Plain, files: Sequence[Path]) -> None:
    """See above."""
    for file in files:
        for texts in TEXTS.values():
            with torch.no_grad():
                pixels = clip.preprocess(Image.open(file).convert("RGB")).unsqueeze(0)
                image = unit(clip.model.encode_image(pixels))
                read = unit(clip.model.encode_text(clip.tokenize(texts)))
            (clip.scale * image @ read.T).softmax(dim=-1).argmax(-1).tolist()


def batched(clip: Plain, files: Sequence[Path], passes: Sequence[Sequence[Sequence[str]]], workers: int) -> None:
    """See above: per pass, some lists of texts."""
    for lists in passes:
        with torch.no_grad():
            read = [unit(clip.model.encode_text(clip.tokenize(list(texts)))) for texts in lists]
            loader = torch.utils.data.DataLoader(Files(files, clip.preprocess), BATCH, num_workers=workers)
            for images in loader:
                seen = unit(clip.model.encode_image(images))
                for texts in read:
                    (clip.scale * seen @ texts.T).softmax(dim=-1).argmax(-1).tolist()


def typecast(clip: ClipModel, files: Sequence[Path]) -> None:
    """See above."""
    probe = ZeroShot(clip, ASKED, threshold=0.6)
    batches = [[file.read_bytes() for file in files[i : i + BATCH]] for i in range(0, len(files), BATCH)]
    with ThreadPoolExecutor() as decoders:
        for images in stages._decoded_ahead(batches, decoders):
            probe.perceive(images)


def rate(loop: Callable[[Sequence[Path]], None], files: Sequence[Path]) -> npt.NDArray[np.float64]:
    """Images per second, and per second of CPU time, workers included: that is what a busy machine does not change."""
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    loop(files)
    return len(files) / np.array([time.perf_counter() - start, sum(os.times()[:4]) - cpu])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="embedded", help="embedded, or a model of open_clip, with random weights")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--side", type=int, default=64, help="of the PNG files, in pixels")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of the DataLoader")
    parser.add_argument("--rounds", type=int, default=3, help="in turn; the best of each counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        named = args.clip if args.clip == "embedded" else str(random_clip(args.clip, place))
        clip = ClipModel(named, device="cpu")
        theirs = plain(clips.EMBEDDED if named == "embedded" else place)
        tiles = emoji_world.pixels()[: args.images]
        files = [place / f"{number}.png" for number in range(len(tiles))]
        for file, tile in zip(files, tiles, strict=True):
            file.write_bytes(store.encode(np.asarray(Image.fromarray(tile).resize((args.side, args.side)))))
        few = files[: max(len(files) // 16, 1)]  # the slowest loop is as slow on few
        loops: dict[str, tuple[Callable[[Sequence[Path]], None], Sequence[Path]]] = {
            "one by one": (lambda some: one_by_one(theirs, some), few),
            "batched, per attribute": (
                lambda some: batched(theirs, some, [[texts] for texts in TEXTS.values()], args.workers),
                files,
            ),
            "batched, in one pass": (lambda some: batched(theirs, some, [list(TEXTS.values())], args.workers), files),
            "Typecast": (lambda some: typecast(clip, some), files),
        }
        typecast(clip, few)  # warm
        found = {name: np.zeros(2) for name in loops}
        for _ in range(args.rounds):
            found |= {name: np.maximum(found[name], rate(loop, some)) for name, (loop, some) in loops.items()}
    print(f"{args.clip}, {len(files)} PNG files of {args.side} pixels, {torch.get_num_threads()} threads, CPU")
    print(
        f"{args.workers} workers; images per second, and per second of CPU time; in brackets, Typecast in multiples of it"
    )
    for name, rates in found.items():
        times = found["Typecast"] / rates
        print(f"{name:24} {rates[0]:8.1f} ({times[0]:4.1f}) {rates[1]:8.1f} ({times[1]:4.1f})")


if __name__ == "__main__":
    main()
