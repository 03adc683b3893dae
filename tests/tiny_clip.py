"""A random CLIP of a few thousand weights in open_clip's own folder layout: made in the test, nothing loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"
TOKENS = 40
"""Length of a text, one token per letter."""
SIZE = 32
"""Side of an image, in pixels."""
WIDTH = 16
"""Of an embedding."""


def tokenizer() -> CLIPTokenizer:
    """One token per letter, another where the letter ends a word; the end of the text has the highest number."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)


def clip(folder: Path, *, seed: int = 0, **preprocess: Any) -> Path:
    """A folder with configuration, weights and tokenizer; `preprocess` overrides open_clip's defaults.

    The weights are larger than at the start of a training, so that random images don't all look alike to it.
    """
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
        "text_cfg": {
            "context_length": TOKENS,
            "vocab_size": len(tokenizer()),
            "hf_tokenizer_name": "in this folder",
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1 and "position" not in name:
                weights.mul_(3)
        model.logit_scale.fill_(4.0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    settings = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer().save_pretrained(folder)
    return folder
