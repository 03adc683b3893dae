"""Pixels and texts -> unit embeddings: the only module that imports open_clip, and torch to perceive."""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError, out_of_memory
from pipeline.types import Pixels

if TYPE_CHECKING:
    import torch

EMBEDDED = Path(__file__).parents[1] / "pipeline" / "embedded" / "clip"
"""The CLIP that ships, in open_clip's own layout."""

HUB = "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = ".safetensors"

WELL_KNOWN = ("ViT-B-32", "ViT-L-14", "ViT-B-16-SigLIP", "MobileCLIP-S2")
TEXTS_AT_ONCE = 128
RESIZERS = 8
"""Threads that resize pictures, whatever number of processors other workers on the machine share."""
REASON_LENGTH = 300


class ClipModel:
    """An image tower and a text tower. Both give unit vectors of the same length d, as float32."""

    def __init__(self, name_or_path: str, pretrained: str | None = None, *, device: str | None = None) -> None:
        """Load `embedded`, a folder, `hf-hub:ORG/NAME`, or a model of open_clip with its `pretrained` weights.

        `device` is the GPU where there is one, else the CPU. A GPU computes in half precision.
        """
        import open_clip
        import torch

        asked, self.folder = source(name_or_path, pretrained)
        """`folder` is `None` unless the weights lie in one."""
        self.name = _slug(name_or_path, pretrained, self.folder)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        half = self.device.type == "cuda"
        self._dtype = torch.float16 if half else torch.float32
        # a tag trained with another activation than its model's default loads without it, and embeds wrongly
        tag = open_clip.get_pretrained_cfg(asked, pretrained) if pretrained else {}
        with _loading(name_or_path, pretrained, self.folder):
            self._model, self._preprocess = open_clip.create_model_from_pretrained(
                asked,
                pretrained,
                precision="fp16" if half else "fp32",
                device=self.device,
                force_quick_gelu=bool(tag.get("quick_gelu")),
                weights_only=True,
            )
            self._tokenize = open_clip.get_tokenizer(asked)
            self._width = int(open_clip.get_model_config(asked)["embed_dim"])
        self._resizers = ThreadPoolExecutor(RESIZERS)
        self._model.eval()
        _make_quick(self._model.visual)
        size = self._model.visual.preprocess_cfg["size"]
        self._size = (size, size) if isinstance(size, int) else tuple(size)
        self.logit_scale = float(self._model.logit_scale.detach().exp())
        """What a cosine is multiplied by before the softmax."""

    def encode_images(self, images: Sequence[Pixels], batch_size: int = 64) -> npt.NDArray[np.float32]:
        """`n` images of any sizes -> `(n, d)`: fewer at a time where the device's memory does not hold so many."""
        import torch

        try:
            parts = [np.empty((0, self._width), np.float32)]
            with torch.inference_mode():
                for start in range(0, len(images), batch_size):
                    inputs = self.preprocessed(images[start : start + batch_size])
                    inputs = inputs.to(self._dtype, memory_format=torch.channels_last)
                    parts.append(self._unit(self._model.encode_image(inputs)))
            return np.concatenate(parts)
        except RuntimeError as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return self.encode_images(images, batch_size // 2)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """`m` texts -> `(m, d)`."""
        import torch

        parts = [np.empty((0, self._width), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                tokens = self._tokenize(list(texts[start : start + TEXTS_AT_ONCE])).to(self.device)
                parts.append(self._unit(self._model.encode_text(tokens)))
        return np.concatenate(parts)

    def preprocessed(self, images: Sequence[Pixels]) -> torch.Tensor:
        """`n` images -> `(n, 3, height, width)` float32 on the device, bit for bit as open_clip's own transform.

        Images that have the model's size already are scaled and normalised together. The others are resized one by
        one through PIL, in threads, as the model was trained: torchvision's resize of a batch of tensors rounds otherwise.
        """
        import torch
        from PIL import Image

        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"an image must be uint8 (height, width, 3), not {image.dtype} {image.shape}")
        if any(image.shape[:2] != self._size for image in images):
            # PIL lets other threads run, and a GPU would wait for one
            resized = list(self._resizers.map(lambda image: self._preprocess(Image.fromarray(image)), images))
            return torch.stack(resized).to(self.device)
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        # by a tensor: a GPU would multiply by the reciprocal of a plain number, which rounds otherwise
        scaled = pixels.contiguous().float() / torch.full((1,), 255.0, device=self.device)
        normalised: torch.Tensor = self._preprocess.transforms[-1](scaled)
        return normalised

    def _unit(self, features: torch.Tensor) -> npt.NDArray[np.float32]:
        """Rows of any length -> rows of length 1 on the host."""
        import torch

        if not bool(torch.isfinite(features).all()):
            raise ModelError(
                f"perceive.clip: {self.name} gives embeddings that are not finite on {self.device.type} as "
                f"{str(self._dtype).removeprefix('torch.')}: its weights are damaged or too large for it"
            )
        unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        return unit


# Which model


def source(name: str, pretrained: str | None) -> tuple[str, Path | None]:
    """What open_clip is to be asked for, and the folder that it means, if it means one. A `ModelError` for what is neither."""
    import open_clip

    folder = EMBEDDED if name == "embedded" else Path(name).expanduser()
    if name == "embedded" or folder.is_dir():
        _check_folder(folder)
    if folder.is_dir() or name.startswith(HUB):
        if pretrained:
            raise ModelError(f"perceive.pretrained: {pretrained!r} does not apply to {name}; leave it null")
        return (f"local-dir:{folder}", folder) if folder.is_dir() else (name, None)
    model = name.replace("/", "-")
    known = sorted({model for model, _ in open_clip.list_pretrained()} & set(open_clip.list_models()))
    if model not in known:
        raise ModelError(f"perceive.clip: {name!r} is no folder and no model of open_clip; {_answers(model, known)}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not pretrained or not open_clip.get_pretrained_cfg(model, pretrained):
        problem = f"{pretrained!r} are no weights of {name}" if pretrained else f"{name} needs the name of its weights"
        raise ModelError(f"perceive.pretrained: {problem}; the right answers are: {', '.join(tags)}")
    return model, None


def _check_folder(folder: Path) -> None:
    """Without weights open_clip would say so, but about itself; and the embedded model may not be there."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"perceive.clip: {folder} holds no {CONFIG}; {_answers('', ())}")
    if not any(file.suffix == WEIGHTS for file in folder.iterdir()):
        raise ModelError(f"perceive.clip: {folder} holds no weights in safetensors (open_clip_model.safetensors)")


def _answers(name: str, known: Sequence[str]) -> str:
    """The right answers, with the names that come close to what was written."""
    folded = {model.lower(): model for model in known}
    close = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=5)]
    some = ", ".join(close or WELL_KNOWN)
    return f"the right answers are: embedded, a folder that holds {CONFIG}, hf-hub:ORG/NAME, or a model such as {some}"


def _slug(name: str, pretrained: str | None, folder: Path | None) -> str:
    """A short name for folders: `embedded`, `ViT-L-14-openai`, the name of the folder."""
    if folder is not None and folder != EMBEDDED:
        name = folder.resolve().name
    words = "-".join(part for part in (name.removeprefix(HUB), pretrained) if part)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words).strip("-.") or "clip"


def _make_quick(tower: torch.nn.Module) -> None:
    """What changes an embedding by rounding alone: the layout in memory that convolutions want; and a ResNet's batch norms,
    which are fixed by now, become a part of the convolutions before them."""
    import torch
    from open_clip.modified_resnet import ModifiedResNet
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    tower.to(memory_format=torch.channels_last)
    if not isinstance(tower, ModifiedResNet):
        return
    for block in [*tower.modules()]:
        parts = dict(block.named_children())
        pairs = [(name, name.replace("conv", "bn")) for name in parts if name.startswith("conv")]
        if isinstance(block, torch.nn.Sequential) and [*parts] == ["-1", "0", "1"]:  # the way past a block
            pairs.append(("0", "1"))
        for conv, norm in pairs:
            setattr(block, conv, fuse_conv_bn_eval(parts[conv], parts[norm]))
            setattr(block, norm, torch.nn.Identity())


@contextlib.contextmanager
def _loading(name: str, pretrained: str | None, folder: Path | None) -> Iterator[None]:
    """One message about whatever goes wrong, and none of open_clip's own beside it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with _no_pickle():
            yield
    except _PickleError:
        advice = "name weights that are in safetensors, or convert them on a machine that has nothing to lose"
        raise ModelError(f"perceive.clip: the weights of {name} are a pickle, and none is loaded; {advice}") from None
    except Exception as error:  # each weight format, the hub and the network have their own
        if folder is not None:
            reason = " ".join(str(error).split())[:REASON_LENGTH]
            raise ModelError(f"perceive.clip: {folder} cannot be loaded by open_clip: {reason}") from error
        what = f"{name} ({pretrained})" if pretrained else name
        # the hub's own words may hold a token: none is kept
        raise ModelError(
            f"perceive.clip: {what} is not in the local cache and could not be downloaded ({type(error).__name__}); "
            "run `typecast fetch STUDY` once on a machine with a network; whether an hf-hub: name exists and is open "
            "to you is to be seen on https://huggingface.co"
        ) from None
    finally:
        logging.disable(before)


class _PickleError(Exception):
    """Something is about to read a pickle."""


@contextlib.contextmanager
def _no_pickle() -> Iterator[None]:
    """Refuse what open_clip falls back to where there are no safetensors: `torch.load`, if only with `weights_only`."""
    import torch

    load, script = torch.load, torch.jit.load

    def refuse(*_: object, **__: object) -> None:
        raise _PickleError

    torch.load = torch.jit.load = refuse
    try:
        yield
    finally:
        torch.load, torch.jit.load = load, script
