"""Batch -> images: the first seam to the world, and the only module that imports torch and diffusers to draw.

They are imported inside the functions that need them: a plan needs `weights_digest` alone, which loads neither.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError, of_the_device, out_of_memory, without_secrets
from pipeline.types import Batch, Drawn, DrawSettings, Generator, Pixels, WorkUnit

if TYPE_CHECKING:
    import torch

EMBEDDED = Path(__file__).parent / "embedded" / "text_to_image"
"""The text-to-image model that ships, in diffusers' own layout."""

FAKE = "fake"
"""The path of the generator that draws noise without a model."""

ENCODED = {
    "StableDiffusionPipeline": ("prompt_embeds", "negative_prompt_embeds"),
    "StableDiffusionXLPipeline": (
        *("prompt_embeds", "negative_prompt_embeds"),
        *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    ),
    "StableDiffusion3Pipeline": (
        *("prompt_embeds", "negative_prompt_embeds"),
        *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    ),
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds"),
}
"""What `encode_prompt` returns, in order, by the names that the pipeline takes.

Other families are given the texts, one image at a time: some pad a text to the length of its neighbours.
"""

CACHED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")
"""Those that run both branches of guidance in one call of the network, so that attention can be kept."""

FLAGS = ("nsfw_content_detected", "nsfw_detected", "watermark_detected")
"""What the families' safety checkers say of each image; what is flagged is black."""

ENCODED_BYTES = 2**29
"""Embeddings of texts that are kept on the device, so that a text is encoded once for all its images."""

DTYPES = {"cuda": ("float32", "float16", "bfloat16"), "cpu": ("float32", "bfloat16")}
"""By device. Half precision on a CPU overflows or is not implemented."""

TRAINED = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "rescale_betas_zero_snr")
"""What a model was trained with: a scheduler that does not know one of these would draw from another model."""

PATHS = "embedded, fake, a folder that holds model_index.json, or a hub name such as stabilityai/stable-diffusion-2-1"
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHT_FILES = (".safetensors", ".json", ".txt", ".model")
PACKAGES = ("typecast", "torch", "diffusers", "transformers", "accelerate", "numpy")
REASON_LENGTH = 300


# Which model


def resolve(path: str) -> str:
    """The folder of a local model; `fake` and a hub name stay as they are, and anything else is an error."""
    if path == FAKE:
        return path
    folder = EMBEDDED if path == "embedded" else Path(path).expanduser()
    if (folder / "model_index.json").is_file():
        return str(folder)
    if folder.exists() or path == "embedded":
        raise ModelError(f"model.path: {folder} holds no model_index.json; the right answers are: {PATHS}")
    if HUB_NAME.fullmatch(path):
        return path
    raise ModelError(f"model.path: {path!r} does not exist; the right answers are: {PATHS}")


def weights_digest(path: str, revision: str | None) -> str:
    """What the pixels depend on, wherever it lies: the sha256 of a folder's weights, or `name@commit` on the hub."""
    path = resolve(path)
    if path != FAKE and not Path(path).is_dir():
        return f"{path}@{_commit(path, revision)}"
    if revision:
        raise ModelError(f"model.revision: {revision!r} names a version on the hub, and {path} is none; leave it null")
    return path if path == FAKE else _folder_digest(Path(path))


def _folder_digest(folder: Path) -> str:
    """The sha256 over the names and contents of what is loaded: `model_index.json` and the components' folders."""
    files = [file for file in folder.glob("*/**/*") if file.suffix in WEIGHT_FILES and file.is_file()]
    named = {file.relative_to(folder).as_posix(): file for file in (folder / "model_index.json", *files)}
    total = hashlib.sha256()
    for name in sorted(name for name in named if not name.startswith(".")):
        with named[name].open("rb") as content:
            total.update(f"{name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _commit(name: str, revision: str | None) -> str:
    """The commit of a revision: of the copy in the local cache, else as the hub says."""
    import huggingface_hub

    if revision and COMMIT.fullmatch(revision):
        return revision
    cached = huggingface_hub.try_to_load_from_cache(name, "model_index.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent.name
    with _hub_errors(name, revision):
        return str(huggingface_hub.model_info(name, revision=revision).sha)


def fetch(path: str, revision: str | None) -> None:
    """Download what the local cache lacks of a hub model's safetensors and configuration.

    The hub is asked what belongs to it, for an interrupted download does not know; without a network the copy counts.
    """
    _folder(resolve(path), revision, local_first=False)


def _folder(path: str, revision: str | None, *, local_first: bool = True) -> str:
    """The folder of a resolved path: of the local cache, filled if need be, for a hub name."""
    if path == FAKE or Path(path).is_dir():
        return path
    from diffusers import DiffusionPipeline

    commit = _commit(path, revision)
    download = functools.partial(DiffusionPipeline.download, path, revision=commit, use_safetensors=True)
    if local_first:
        with contextlib.suppress(OSError):  # a node without a network must not wait for it when everything is there
            return str(download(local_files_only=True))
    with _hub_errors(path, commit):
        return str(download())


@contextlib.contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Say what to do about each way in which the hub refuses. The hub's own words may hold a token: none is kept."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        advice = f"accept its licence on https://huggingface.co/{name}, then set HF_TOKEN to a token of that account"
        raise ModelError(f"model.path: {name} is gated: {advice}") from None
    except errors.RevisionNotFoundError:
        advice = "a branch, a tag or a commit, or null for the newest"
        raise ModelError(f"model.revision: {name} has no {revision!r}; the right answers are: {advice}") from None
    except errors.RepositoryNotFoundError:
        missing = "is neither a folder here nor a model on the hub that this account may see"
        raise ModelError(f"model.path: {name} {missing}; the right answers are: {PATHS}") from None
    except errors.RemoteEntryNotFoundError:
        raise ModelError(f"model.path: {name} holds no model_index.json: not a checkpoint of diffusers") from None
    except Exception as error:  # the classes of a network's troubles depend on the version of huggingface_hub
        if "safetensors" in str(error):
            raise ModelError(f"model.path: {name} has no safetensors weights, and no others are loaded") from None
        missing = f"is no folder here, is not in the local cache and cannot be fetched ({type(error).__name__})"
        advice = "run `typecast fetch STUDY` on a machine with a network and the same cache (HF_HOME)"
        raise ModelError(f"model.path: {name} {missing}: {advice}") from None


# On which device


def gpus() -> int:
    """The GPUs that this process can see."""
    import torch

    return int(torch.cuda.device_count())


def take_gpu(number: int) -> None:
    """Let this process see one GPU of those that it can see, before it has looked: one of several on a machine."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", str(number)).split(",") if name]
    if seen:  # an empty list of them means the processor
        os.environ["CUDA_VISIBLE_DEVICES"] = seen[number % len(seen)]


# The generators


def open_generator(path: str, revision: str | None, settings: DrawSettings) -> Generator:
    """The generator of a study's model."""
    return FakeGenerator(settings) if path == FAKE else DiffusersGenerator(path, revision, settings)


class FakeGenerator:
    """Noise from each unit's own seed: a whole run in a second, without torch or weights."""

    def __init__(self, settings: DrawSettings) -> None:
        """Only the size matters."""
        self._shape = settings.height, settings.width, 3

    def draw(self, batch: Batch) -> list[Drawn | None]:
        """One image of noise per unit, `None` for an empty place."""
        return [Drawn("made", self._noise(unit.seed), "") if unit else None for unit in batch]

    def _noise(self, seed: int) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, 256, self._shape, dtype=np.uint8)


class DiffusersGenerator:
    """Any text-to-image checkpoint that diffusers loads, in safetensors, without remote code."""

    def __init__(
        self, model_path: str, revision: str | None, settings: DrawSettings, *, device: str | None = None
    ) -> None:
        """Load the model and refuse settings that do not fit it."""
        import torch

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = _dtype(settings.dtype, self.device)
        path = resolve(model_path)
        _, _, planned = settings.weights.partition("@")  # what is drawn is the commit that the units' ids name
        pipe = _load(_folder(path, planned or revision), dtype)
        if settings.scheduler or not _seeded(type(pipe.scheduler)):
            pipe.scheduler = _scheduler(pipe.scheduler, settings.scheduler)
        _check_size(pipe, settings)
        self._arguments = _arguments(pipe, settings)
        self._guided = settings.guidance_scale > 1 and not _distilled(pipe)
        self._pipe = pipe.to(self.device)
        _make_repeatable(self.device, settings.threads)
        _make_quick(pipe, self.device, settings.compile)
        self._forget = _approximate(pipe, settings, dtype, guided=self._guided)
        self._tokens = _tokens_of(pipe)
        self._fits = settings.batch_size
        self._decodes = getattr(getattr(pipe, "vae", None), "dtype", None)
        self._names = ENCODED.get(type(pipe).__name__, ())
        if self._names:
            self._prepare_texts()

    @property
    def takes_negative_prompt(self) -> bool:
        """Does a negative prompt change the picture, with this model at this guidance?"""
        return self._guided and (bool(self._names) or "negative_prompt" in inspect.signature(self._pipe).parameters)

    def draw(self, batch: Batch) -> list[Drawn | None]:
        """One result per place, `None` for an empty place, with the tokens that were sent."""
        pairs = zip(self._draw(batch), batch, strict=True)
        return [self._counted(drawn, unit) if drawn and unit else None for drawn, unit in pairs]

    def _counted(self, drawn: Drawn, unit: WorkUnit) -> Drawn:
        """With the tokens, where the model has a tokenizer."""
        if self._tokens is None:
            return drawn
        (n, cut), (more, more_cut) = (self._tokens(text) for text in (unit.prompt_sent, unit.negative_prompt))
        return drawn._replace(tokens=n + more, tokens_cut=cut + more_cut)

    def _draw(self, batch: Batch) -> list[Drawn | None]:
        """One result per place.

        A unit's pixels depend on its place and on the size of the batch, never on its neighbours. So a batch that fails
        is drawn again once per unit, at the same size, and the unit that is to blame fails alone.
        """
        units = [unit for unit in batch if unit is not None]
        if not self.takes_negative_prompt and any(unit.negative_prompt for unit in units):
            model = type(self._pipe).__name__
            raise ModelError(f"a negative prompt does nothing: at this guidance_scale {model} has no place for it")
        if not self._names:
            return [self._draw_alone(0, unit, 1) if unit else None for unit in batch]
        if not units:
            return [None] * len(batch)
        try:
            return self._draw_fitting(batch)
        except Exception as error:
            _raise_trouble(error)
            return [self._draw_alone(i, unit, len(batch)) if unit else None for i, unit in enumerate(batch)]

    def _draw_fitting(self, batch: Batch) -> list[Drawn | None]:
        """Draw a batch in as many parts of one size as the device's memory asks for, and no longer try what did not fit.

        An image of a smaller batch differs by rounding: it is flagged in its `reason`.
        """
        import torch

        size = min(self._fits, len(batch))
        try:
            parts = [batch[start : start + size] for start in range(0, len(batch), size)]
            drawn = [(one, len(part)) for part in parts for one in self._draw_together(part)]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                height, width = self._arguments["height"], self._arguments["width"]
                advice = "draw smaller, in half precision (draw.dtype: bfloat16), or on a larger device"
                raise ModelError(
                    f"the memory of {self.device} does not hold one image of {height} x {width}: {advice}"
                ) from None
            self._fits = -(-size // 2)
        else:
            return [_in_parts(one, of, len(batch)) for one, of in drawn]
        torch.cuda.empty_cache()
        return self._draw_fitting(batch)

    def _draw_alone(self, place: int, unit: WorkUnit, size: int) -> Drawn | None:
        try:
            return self._draw_fitting((*[None] * place, unit, *[None] * (size - place - 1)))[place]
        except Exception as error:
            _raise_trouble(error)
            return Drawn("failed", None, f"{type(error).__name__}: {_first_line(error)}")

    def _draw_together(self, batch: Batch) -> list[Drawn | None]:
        """Draw all places at once. An empty one repeats the first unit with seed 0, to keep every shape the same."""
        import torch

        some = next((unit for unit in batch if unit is not None), None)
        if some is None:
            return [None] * len(batch)
        padding = replace(some, seed=0)
        places = [unit or padding for unit in batch]
        noise = [torch.Generator("cpu").manual_seed(unit.seed) for unit in places]
        self._forget()
        if self._decodes and self._pipe.vae.dtype != self._decodes:  # SDXL's is in float32 where its decoding failed
            self._pipe.vae.to(self._decodes)
        with torch.no_grad():
            output = self._pipe(**self._told(places), **self._arguments, generator=noise)
        said = [flags for flags in (getattr(output, name, None) for name in FLAGS) if flags]
        flagged = [any(flags) for flags in zip(*said, strict=True)] or [False] * len(places)
        return [one if unit else None for unit, one in zip(batch, _drawn(output.images, flagged), strict=True)]

    def _told(self, units: Sequence[WorkUnit]) -> dict[str, Any]:
        """What the pipeline is told of the prompts: their embeddings, or the texts where the family is not known."""
        import torch

        if not self._names:
            texts = {"prompt": [unit.prompt_sent for unit in units]}
            negatives = [unit.negative_prompt for unit in units]
            # an empty one is left to the pipeline: Kandinsky 3 and CogView 3 put zeros in its place. But where the scale is
            # called `true_cfg_scale`, guidance is against a text alone, and without one there would be none
            sent = any(negatives) or "true_cfg_scale" in self._arguments
            return texts | ({"negative_prompt": negatives} if sent and self.takes_negative_prompt else {})
        told = [self._kept(unit.prompt_sent) for unit in units]
        if self._guided:
            told = [one | self._kept_negative(unit.negative_prompt) for one, unit in zip(told, units, strict=True)]
        return {name: torch.cat([one[name] for one in told]) for name in told[0]}

    def _prepare_texts(self) -> None:
        """Encode the empty text, which shows how many there is room for and stands beside each negative one."""
        self._blank = self._encode("")
        room = max(1, ENCODED_BYTES // sum(tensor.nbytes for tensor in self._blank.values()))
        self._kept = functools.lru_cache(room)(self._encode)
        self._kept_negative = functools.lru_cache(room)(self._encode_negative)

    def _encode(self, text: str) -> dict[str, torch.Tensor]:
        """One text, alone: `(1, tokens, width)`, and `(1, width)` where the family pools."""
        return self._call_encoder(prompt=text, do_classifier_free_guidance=False)

    def _encode_negative(self, text: str) -> dict[str, torch.Tensor]:
        """One negative text, alone. An empty one is left to the pipeline: SDXL sends zeros in its place."""
        if "negative_prompt" not in inspect.signature(self._pipe.encode_prompt).parameters:
            return {f"negative_{name}": tensor for name, tensor in self._encode(text).items()}
        asked = {"prompt": None, "negative_prompt": text or None, "do_classifier_free_guidance": True}
        told = self._call_encoder(**self._blank, **asked)
        return {name: tensor for name, tensor in told.items() if name.startswith("negative_")}

    def _call_encoder(self, **asked: Any) -> dict[str, torch.Tensor]:
        import torch

        encode = self._pipe.encode_prompt
        asked |= {"prompt_2": None, "prompt_3": None, "device": self.device, "num_images_per_prompt": 1}
        known = inspect.signature(encode).parameters
        with torch.no_grad():
            told = encode(**{name: value for name, value in asked.items() if name in known})
        return {name: tensor for name, tensor in zip(self._names, told, strict=False) if tensor is not None}


# What a pipeline is asked


def _load(folder: str, dtype: torch.dtype) -> Any:
    """The pipeline of a local folder, silent. `trust_remote_code` stays off, and pickled weights are refused."""
    import logging

    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()  # it warns of every autoencoder that is not the usual one
    # What the checker blocks is a row; a line per batch would only break the progress bar.
    logging.getLogger("diffusers.pipelines.stable_diffusion.safety_checker").setLevel(logging.ERROR)
    try:
        pipe: Any = diffusers.AutoPipelineForText2Image.from_pretrained(folder, use_safetensors=True, dtype=dtype)
    except Exception as error:  # whatever is wrong with a checkpoint, it is the checkpoint that cannot be used
        if "IFSafetyChecker" in str(error):  # of which diffusers never calls `post_init`
            raise ModelError(
                f"model.path: {folder}: transformers 5 cannot load the safety checker of DeepFloyd IF; it can be drawn without "
                'one, and then nothing is blocked: name a copy of the folder whose model_index.json says "safety_checker": '
                "[null, null]"
            ) from error
        needs = "a text-to-image checkpoint of diffusers, in safetensors"
        raise ModelError(f"model.path: {folder} cannot be loaded ({_first_line(error)}); it must be {needs}") from error
    pipe.set_progress_bar_config(disable=True)
    if hasattr(pipe, "watermark"):
        pipe.watermark = None  # SDXL writes one where a package happens to be installed: pixels would depend on it
    return pipe


def _dtype(name: str, device: str) -> torch.dtype:
    import torch

    known = DTYPES["cpu" if device == "cpu" else "cuda"]
    if name not in known:
        raise ModelError(f"draw.dtype: {name!r} cannot be used on {device}; the right answers are: {', '.join(known)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _make_repeatable(device: str, threads: int) -> None:
    """The same bytes for the same batch: a fixed number of threads on a CPU, fixed algorithms on a GPU."""
    import torch

    if device == "cpu":
        torch.set_num_threads(threads)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _make_quick(pipe: Any, device: str, how: str | None) -> None:
    """What changes an image by rounding alone: the layout in memory that a GPU's convolutions want, and compiled code.

    `regional` compiles the blocks that repeat, which is quicker to start; `whole` the network and the decoder. Neither
    tries kernels that round differently against each other: which of them won would differ from process to process, and
    so would the bytes.
    """
    import torch

    network = _network(pipe)
    if device != "cpu":
        for part in (network, getattr(pipe, "vae", None)):
            if part is not None and all(weights.dim() < 5 for weights in part.parameters()):  # videos' have another
                part.to(memory_format=torch.channels_last)
    if how:
        import torch._inductor.config

        torch._inductor.config.deterministic = True
    if how == "regional":
        if not getattr(network, "_repeated_blocks", None):
            model = type(network).__name__
            raise ModelError(
                f"draw.compile: {model} says of no block that it repeats; the right answers are: null, whole"
            )
        network.compile_repeated_blocks()
    elif how == "whole":
        network.compile()
        if getattr(pipe, "vae", None) is not None:
            pipe.vae.decode = torch.compile(pipe.vae.decode)


def _approximate(pipe: Any, settings: DrawSettings, dtype: torch.dtype, *, guided: bool) -> Callable[[], None]:
    """What a study may ask for that draws from another distribution; returns what is to be called before each batch.

    Attention is kept by Pyramid Attention Broadcast (Zhao et al. 2024, arXiv 2408.12588) for every other step, but not in
    the first fifth of them nor the last tenth. Of the methods that diffusers has it goes by the step alone: one that
    looks at how much changed would make an image depend on its neighbours.
    """
    import torch

    network = _network(pipe)
    if settings.quantization:
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    if not settings.cache:
        return lambda: None
    from diffusers import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
    from diffusers.hooks import HookRegistry

    if guided and type(pipe).__name__ not in CACHED:
        answers = f"null, or one of {', '.join(CACHED)}, or a guidance that runs one branch"
        raise ModelError(
            f"draw.cache: {type(pipe).__name__} may run its two branches one after the other, and would keep the one for "
            f"the other; the right answers are: {answers}"
        )
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    def left() -> float:  # in timesteps, of which there are 1,000: those of flow matching are counted otherwise
        return 1000 * (1 - (calls - 1) / len(pipe.scheduler.timesteps))

    def forget() -> None:
        nonlocal calls
        calls = 0
        HookRegistry.check_if_exists_or_initialize(network).reset_stateful_hooks()

    network.register_forward_pre_hook(count)
    every_other = {f"{kind}_attention_block_skip_range": 2 for kind in ("spatial", "cross")}
    config = PyramidAttentionBroadcastConfig(**every_other, current_timestep_callback=left)
    apply_pyramid_attention_broadcast(network, config)
    return forget


def _scheduler(own: Any, name: str) -> Any:
    """Another scheduler for a model, if it knows everything that the model was trained with and each image's seed."""
    kinds = [type(own), *(kind for kind in own.compatibles if _knows(kind, own.config))]
    fitting = {kind.__name__: kind for kind in kinds if _seeded(kind)}
    if name not in fitting:
        choices = ", ".join([*["null"] * _seeded(type(own)), *sorted(fitting)])
        asked = repr(name) if name else f"null, which is {type(own).__name__},"
        raise ModelError(f"draw.scheduler: {asked} does not fit this model; the right answers are: {choices}")
    return fitting[name].from_config(own.config)


def _knows(scheduler: Any, config: Any) -> bool:
    known = inspect.signature(scheduler.__init__).parameters
    return all(key in known for key in TRAINED if config.get(key))


def _seeded(scheduler: Any) -> bool:
    """Does it draw no noise of its own, or from the image's generator? `DPMSolverSDEScheduler` has one for all images."""
    own = "noise_sampler_seed" in inspect.signature(scheduler).parameters
    return not own or "generator" in inspect.signature(scheduler.step).parameters


def _check_size(pipe: Any, settings: DrawSettings) -> None:
    """Height and width must be whole numbers of what the autoencoder and the network divide them by."""
    step = _size_step(pipe)
    for key, value in (("height", settings.height), ("width", settings.width)):
        if value % step:
            nearest = sorted({max(step, value // step * step), (value // step + 1) * step})
            answers = " and ".join(map(str, nearest))
            raise ModelError(f"draw.{key}: {value} is no multiple of {step}; the nearest right values are: {answers}")


def _size_step(pipe: Any) -> int:
    """Pixels. Pipelines with a UNet ask for multiples of 8, and those with a transformer for whole patches."""
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    processor = getattr(pipe, "image_processor", None)
    packed = int(processor.config.vae_scale_factor) if processor else factor  # FLUX packs 2 x 2 latents, says so here
    if not hasattr(pipe, "transformer"):
        return math.lcm(factor, packed, 8)
    patch = _network(pipe).config.get("patch_size", 1)
    return math.lcm(factor * (patch if isinstance(patch, int) else max(patch)), packed)


def _network(pipe: Any) -> Any:
    return getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)


def _distilled(pipe: Any) -> bool:
    """Is the guidance scale an input of the network itself (FLUX.1-dev, LCM)? Then no unconditional branch runs."""
    config = getattr(_network(pipe), "config", {})
    return bool(config.get("guidance_embeds")) or config.get("time_cond_proj_dim") is not None


def _tokens_of(pipe: Any) -> Callable[[str], tuple[int, int]] | None:
    """What counts a text's tokens, and those of them that no encoder reads; `None` where a pipeline has no tokenizer.

    Of several tokenizers the one that reads furthest: in SD3 and FLUX a text that CLIP cuts off goes on in T5. A family
    that has a `max_sequence_length` means its last tokenizer by it. The marks of beginning and end take up room and are
    no tokens of the text.
    """
    names = [name for name in getattr(pipe, "components", {}) if re.fullmatch(r"tokenizer(_\d)?", name)]
    known = inspect.signature(pipe.encode_prompt).parameters if names and hasattr(pipe, "encode_prompt") else {}
    given = getattr(known.get("max_sequence_length"), "default", None)
    rooms = []
    for name in names:
        reader, most = getattr(pipe, name), given if name == names[-1] else None
        if reader is not None:
            rooms.append(((most or reader.model_max_length) - reader.num_special_tokens_to_add(), reader))
    if not rooms:
        return None
    room, furthest = max(rooms, key=lambda one: one[0])

    def count(text: str) -> tuple[int, int]:
        n = len(furthest(text, add_special_tokens=False, verbose=False).input_ids)
        return n, max(0, n - room)

    return count


def _arguments(pipe: Any, settings: DrawSettings) -> dict[str, Any]:
    """What every batch is drawn with. In FLUX the scale of eps_u + s (eps_c - eps_u) is called `true_cfg_scale`.

    Families without a `VaeImageProcessor` (DeepFloyd IF, Kandinsky) give -1..1 as tensors and look at no safety checker;
    as arrays all give 0..1.
    """
    from diffusers.image_processor import VaeImageProcessor

    asked = {name: getattr(settings, name) for name in ("num_inference_steps", "guidance_scale", "height", "width")}
    known = inspect.signature(pipe).parameters
    if "true_cfg_scale" in known and not _distilled(pipe):
        asked["true_cfg_scale"] = asked.pop("guidance_scale")
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ModelError(f"model.path: {type(pipe).__name__} takes no {', '.join(unknown)}, so a study cannot set it")
    if "use_resolution_binning" in known:
        asked["use_resolution_binning"] = False  # it would draw at another size than the study's, near by
    processed = isinstance(getattr(pipe, "image_processor", None), VaeImageProcessor)
    return asked | {"output_type": "pt" if processed else "np"}


# What comes back


def _drawn(images: torch.Tensor | npt.NDArray[np.float32], flagged: Sequence[bool]) -> list[Drawn]:
    """A tensor `(n, 3, height, width)` or an array `(n, height, width, 3)` in 0..1 to uint8: 255 x, rounded to the
    nearest, halves to even, as diffusers does.

    On the device, so that a quarter of the bytes comes back from it. `ModelError` where a number rounds to no byte.
    """
    import torch

    wide = torch.from_numpy(images) if isinstance(images, np.ndarray) else images.permute(0, 2, 3, 1).float()
    finite = torch.isfinite(wide).flatten(1).all(1).cpu()
    grey = (wide.nan_to_num(0.0, 0.0, 0.0) * 255).round()
    low, high = (float(value) for value in torch.aminmax(grey))
    if low < 0 or high > 255:
        raise ModelError(
            f"model.path: its pixels are between {low / 255:.2f} and {high / 255:.2f}, and not between 0 and 1; "
            "choose a model of another family"
        )
    whole = grey.to(torch.uint8).contiguous().cpu().numpy()
    return [_said(*one) for one in zip(whole, finite.tolist(), flagged, strict=True)]


def _said(pixels: Pixels, finite: bool, flagged: bool) -> Drawn:
    if flagged:
        return Drawn("blocked", None, "safety checker")
    if not finite:
        return Drawn("failed", None, "NaN pixels")
    return Drawn("made", pixels, "") if pixels.any() else Drawn("failed", None, "black image")


def _in_parts(drawn: Drawn | None, size: int, planned: int) -> Drawn | None:
    """What was drawn in a smaller batch than planned, flagged."""
    if drawn is None or drawn.status != "made" or size == planned:
        return drawn
    return drawn._replace(reason=f"made in a batch of {size} in place of {planned}: the device's memory was full")


def _raise_trouble(error: Exception) -> None:
    """Let the machine's own troubles through: memory or a broken GPU is no property of an image."""
    if isinstance(error, ModelError) or of_the_device(error):
        raise error


def _first_line(error: Exception) -> str:
    """What an error says, in a row of the run or in a message: without a token of the hub or a password in an address."""
    lines = str(error).strip().splitlines() or [""]
    return without_secrets(lines[0])[:REASON_LENGTH]


# Where it was drawn


def environment() -> dict[str, str]:
    """Versions, hardware and threads of this process, for a shard's metadata. Loads nothing that is not loaded."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _cpu()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    torch = sys.modules.get("torch")
    if torch is None:
        return found
    found["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found |= {"gpu": ", ".join(names), "cuda": str(torch.version.cuda)}
    return found


def _cpu() -> str:
    """The model's name: Linux keeps it in /proc, other systems give it to `platform`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
