"""The nouns of the line. Frozen, and numpy at most: every stage can speak them without loading a model."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""One image, `(height, width, 3)`, RGB, 0..255: what is stored is what was classified."""

ALL_TEMPLATES = "*"
"""In the place of a template's name: all neutral templates of a concept together."""
CANNOT_TELL = "cannot tell"
"""The decision of a perceiver that abstains. An answer, not a gap."""

NOT_ONE_PERSON = "not one person"
"""What is said of a picture of nobody or of several: it is made and counted, and is in no share."""

ROUNDING = 1e-6
"""By so much shares may miss 0, 1 or their sum."""

Status = Literal["made", "blocked", "failed"]


def digest(value: Any) -> str:
    """The sha256 of canonical JSON, as hexadecimal. Numbers that are equal hash alike: 5 and 5.0."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One thing to ask of a model."""

    prompt_set: str
    concept: str
    """What the picture is about: an occupation, trait, identity or object. The key into reference tables."""
    template: str
    """The name of the template in its prompt set."""
    identity: str = ""
    """The identity terms that the prompt names, or empty."""
    text: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a distribution is grouped by, beside its arm."""
        return self.prompt_set, self.concept, self.template, self.identity


class Rewrite(NamedTuple):
    """What an arm sends in place of a prompt."""

    text: str
    negative_prompt: str = ""
    drawn: str = ""
    """What it chose for this sample: a level or a term; or why the prompt was left alone."""


class Arm(Protocol):
    """A named, parametrised way to rewrite a prompt. It may choose per sample."""

    @property
    def name(self) -> str:
        """As it appears in the tables: unique within a study."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that changes a rewrite, in plain JSON."""
        ...

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt to send for one sample; chance comes from `rng` alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Everything besides prompt and seed that changes a pixel."""

    weights: str
    """Digest of the weights, or the resolved revision of a hub model: never a path."""
    scheduler: str
    """Class name of a diffusers scheduler, or empty for the checkpoint's own."""
    num_inference_steps: int
    guidance_scale: float
    """s in eps = eps_u + s (eps_c - eps_u); 1 turns guidance off."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    dtype: str
    batch_size: int
    threads: int
    """CPU threads per worker: two thread counts give different bytes."""
    compile: str | None = None
    """`regional` or `whole`, by torch.compile: other roundings, the same distribution."""
    cache: str | None = None
    """`attention`: kept for every other step. Another distribution."""
    quantization: str | None = None
    """`float8`: the network's weights in 8 bits. Another distribution."""

    @property
    def approximations(self) -> tuple[str, ...]:
        """What makes these images another model's than the one that is named, in words."""
        cached = ("attention kept for every other step",) if self.cache else ()
        return (*cached, "weights in float8") if self.quantization else cached


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """One image to draw."""

    id: str
    prompt: Prompt
    arm: str
    prompt_sent: str
    negative_prompt: str
    drawn: str = ""
    """`Rewrite.drawn`."""
    sample: int
    seed: int
    """Shared across arms and guidance values, so that arms are compared on the same noise."""


Batch = tuple[WorkUnit | None, ...]
"""The units drawn together, the atom of pixels: always `batch_size` places; a place may be empty."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive units of one arm: the atom of scheduling and of writing. `start` and `stop` count units."""

    arm: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The stem of the shard's files."""
        return f"{self.arm}-{self.start:08d}-{self.stop:08d}"


class Worker(NamedTuple):
    """One of several processes on a run: it takes every `of`-th shard, from number `rank` on, and knows no other."""

    rank: int
    of: int


ALONE = Worker(0, 1)


class Drawn(NamedTuple):
    """What a generator gives back for one unit."""

    status: Status
    pixels: Pixels | None
    """`None` unless made."""
    reason: str
    """Why it was blocked or failed; empty when made, unless in a smaller batch than planned, whose bytes differ."""
    tokens: int | None = None
    """Of the prompt and the negative prompt that were sent, by the model's own tokenizer; `None` where it has none."""
    tokens_cut: int | None = None
    """So many of them lie beyond what the model reads."""


class Generator(Protocol):
    """The first seam to the world: turns a batch into images, one each, in order."""

    def draw(self, batch: Batch) -> list[Drawn | None]:
        """One result per place of the batch, `None` for an empty place. Never raises for a single image."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One row of an image shard, without the picture."""

    unit: WorkUnit
    batch: int
    """Number of the batch within the arm."""
    status: Status
    reason: str
    sha256: str
    """Of the uint8 pixels, row by row; empty unless made."""
    seconds: float
    """The batch's wall time divided by the images in it."""
    tokens: int | None = None
    """As in `Drawn`."""
    tokens_cut: int | None = None
    file: str = ""
    """The file that it was read from; empty where it was drawn."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """What is perceived, as data: levels and the wordings that a zero-shot probe compares."""

    name: str
    title: str
    """For tables and figures: `perceived gender presentation`."""
    levels: tuple[str, ...]
    wordings: dict[str, tuple[str, ...]]
    """Per level, several ways to say it; `{}` in a template is filled with each."""


@dataclass(frozen=True, kw_only=True)
class Intersection:
    """Attributes read together: a level is one of each, `woman, dark`; undecided in one is undecided."""

    of: tuple[Attribute, ...]

    @property
    def name(self) -> str:
        """`gender_x_skin_tone`."""
        return "_x_".join(attribute.name for attribute in self.of)

    @property
    def title(self) -> str:
        """`perceived gender presentation and perceived skin tone`."""
        return " and ".join(attribute.title for attribute in self.of)

    @property
    def levels(self) -> tuple[str, ...]:
        """Every combination, the first attribute slowest."""
        return tuple(", ".join(some) for some in itertools.product(*(attribute.levels for attribute in self.of)))

    def together(self, decisions: dict[str, list[str]]) -> list[str]:
        """The decisions about each attribute, n of each, as n decisions about their combination."""
        return [self.one(row) for row in zip(*(decisions[attribute.name] for attribute in self.of), strict=True)]

    @staticmethod
    def one(row: Sequence[str]) -> str:
        """The decision about one image, from those about each attribute."""
        whole = next((word for word in (NOT_ONE_PERSON, CANNOT_TELL) if word in row), None)
        return whole or ", ".join(row)


class Perceived(NamedTuple):
    """What a perceiver says of a batch of images. K is the number of levels of the attribute."""

    embeddings: npt.NDArray[np.float16]
    """`(n, d)`, unit length before the rounding."""
    probabilities: dict[str, npt.NDArray[np.float32]]
    """Attribute name to `(n, K)`."""
    decisions: dict[str, list[str]]
    """Attribute name to n levels, `cannot tell` among them."""


class Perceiver(Protocol):
    """The second seam to the world: turns images into what a viewer would perceive."""

    @property
    def name(self) -> str:
        """The folder of its perceptions."""
        ...

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What it reads."""
        ...

    def perceive(self, images: Sequence[Pixels]) -> Perceived:
        """All attributes of all images from one encoding of each."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts as unit vectors `(m, d)` in the space of the images' embeddings."""
        ...

    def confusion(self, attribute: str) -> npt.NDArray[np.int64] | None:
        """Counts on labelled pictures `(K, K + 1)`: rows true, columns decided, the last `cannot tell`.

        `attribute` may be the name of an intersection of those that are read. `None` where no labelled pictures of
        this image domain are known.
        """
        ...

    def confusion_by_concept(self, attribute: str) -> dict[str, npt.NDArray[np.int64]]:
        """The same counts for the labelled pictures of each concept; empty where that is not known."""
        ...


@runtime_checkable
class Rereader(Perceiver, Protocol):
    """A perceiver to which an embedding is all of an image."""

    def from_embeddings(self, embeddings: npt.NDArray[np.float16]) -> Perceived:
        """What `perceive` says, from embeddings `(n, d)` that were kept: no image is touched."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a reference number comes from."""

    publisher: str
    table: str
    year: int | None
    column: str
    licence: str

    def __str__(self) -> str:
        """For a table cell: `BLS CPS Table 11, 2023, Women`."""
        return ", ".join(str(part) for part in (self.publisher, self.table, self.year, self.column) if part)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Shares over the levels of an attribute, observed or from a reference."""

    attribute: str
    group: str
    """The concept."""
    levels: tuple[str, ...]
    shares: tuple[float, ...]
    """In 0..1 per level; NaN where the level is not given."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Of a reference, `low` and `high` are the range over the years of its table, without sampling error: from the
    smallest `least` of them to the largest share."""
    least: tuple[float, ...] = ()
    """The smallest share that is comparable, where the publisher counts people in a level whom a viewer may not name
    so; else the share itself. Empty for what was observed."""
    n: int | None = None
    """Number of images, or of independent answers to a survey; `None` where it is exact or not said."""
    abstentions: int = 0
    source: Source | None = None

    def __post_init__(self) -> None:
        for name in ("shares", "low", "high", "least"):
            values = getattr(self, name)
            if len(values) != len(self.levels) and (values or name != "least"):
                raise ValueError(f"{name} must give a share for each of {len(self.levels)} levels, not {values}")
            if any(value < -ROUNDING or value > 1 + ROUNDING for value in values):
                raise ValueError(f"{name} must be shares in 0..1, NaN where one is not given, not {values}")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be at most high in every level, not {self.low} and {self.high}")
        if self.n is not None and self.n < 0:
            raise ValueError(f"n must be a number from 0 on, or None where it is exact, not {self.n}")


class Estimate(NamedTuple):
    """A number with its interval. Nothing seen is nothing known: the value is NaN and the interval is whole."""

    value: float
    low: float
    high: float
    n: int
    method: str

    @property
    def known(self) -> bool:
        """Is there a value at all?"""
        return not math.isnan(self.value)


@dataclass(frozen=True, kw_only=True)
class Amplification:
    """How far an observed share is from a reference share."""

    observed: Distribution
    reference: Distribution
    estimate: Estimate
