"""The study file: everything that a run is asked for, checked before anything is loaded."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import prompt_sets
from classifiers.attributes import ATTRIBUTES
from pipeline import checks, mitigations
from pipeline.errors import InputError
from pipeline.types import Arm, Prompt


class Part(BaseModel):
    """A mapping of the study file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Part):
    """The text-to-image model."""

    path: str = "embedded"
    """`embedded`, `fake`, a folder in diffusers' layout, or the name of a hub model."""
    revision: str | None = None
    """A branch, tag or commit of a hub model; `null` is its main branch."""


class Draw(Part):
    """How the model is asked to draw."""

    num_inference_steps: int = Field(25, ge=1, le=1000)
    guidance_scale: float = Field(3.0, ge=0, le=100)
    height: int = Field(64, ge=8, le=4096)
    width: int = Field(64, ge=8, le=4096)
    dtype: str = Field("float32", pattern="^(float32|float16|bfloat16)$")
    scheduler: str | None = None
    """Class name of a diffusers scheduler; `null` is the checkpoint's own."""
    batch_size: int = Field(16, ge=1, le=512)
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """CPU threads per worker; the bytes of an image depend on it."""


class Perceive(Part):
    """How the images are read."""

    clip: str = "embedded"
    """`embedded`, a folder in open_clip's layout, an open_clip model name, or `hf-hub:...`."""
    pretrained: str | None = None
    """The weights of a named open_clip model, such as `openai`."""
    probe: str = Field("zero_shot", pattern="^zero_shot$")
    attributes: tuple[str, ...] = ("gender", "skin_tone", "age")
    threshold: float = Field(0.6, ge=0, le=1)
    """A level is decided when its probability reaches this; below, the answer is `cannot tell`."""

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError("name at least one attribute, each once")
        for name in names:
            if name not in ATTRIBUTES:
                raise ValueError(f"{name!r} is not known; the choices are: {', '.join(ATTRIBUTES)}")
        return names

    @property
    def name(self) -> str:
        """The folder of these perceptions."""
        clip = Path(self.clip).name if Path(self.clip).is_dir() else self.clip.removeprefix("hf-hub:")
        words = "-".join(word for word in (clip, self.pretrained, self.probe) if word)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", words).strip("-.")


class Reference(Part):
    """A table that the shares are held against."""

    table: str
    year: int | None = None
    """`null` is the newest year of the table."""


class Study(Part):
    """One study: one model and one setting."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    prompt_sets: tuple[str, ...] = Field(min_length=1)
    model: Model = Field(default_factory=Model)
    draw: Draw = Field(default_factory=Draw)
    images_per_prompt: int = Field(50, ge=1, le=1_000_000)
    seed: int = Field(0, ge=0)
    arms: tuple[str | dict[str, dict[str, Any]], ...] = Field(default=("none",), min_length=1)
    perceive: Perceive = Field(default_factory=Perceive)
    reference: tuple[Reference, ...] = ()
    grown_from: tuple[int, ...] = ()
    """Earlier values of `images_per_prompt` in this run folder, oldest first. Typecast writes it."""

    @field_validator("arms", "prompt_sets", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _grown(self) -> Study:
        sizes = (*self.grown_from, self.images_per_prompt)
        if any(small >= large for small, large in pairwise(sizes)) or min(sizes) < 1:
            raise ValueError(f"images_per_prompt may only grow: {' -> '.join(map(str, sizes))}")
        return self

    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts of all prompt sets, in the order of the files."""
        prompts = tuple(p for name in self.prompt_sets for p in prompt_sets.load(name).prompts)
        keys = [p.key for p in prompts]
        if len(set(keys)) < len(keys):
            raise InputError(f"prompt_sets: {', '.join(self.prompt_sets)}: a prompt set is named twice")
        return prompts

    def rewriters(self) -> tuple[Arm, ...]:
        """The arms, built and checked against these settings."""
        return mitigations.build(self.arms, guidance_scale=self.draw.guidance_scale)


def load(name_or_path: str, changes: tuple[str, ...] = ()) -> Study:
    """A study that ships, or one from a YAML file, with `KEY=VALUE` changes by dotted path.

    Everything that can be known to be wrong before a model is loaded is an `InputError` here.
    """
    path = prompt_sets.studies().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        ships = ", ".join(sorted(prompt_sets.studies()))
        raise InputError(f"{name_or_path}: no such study file; the studies that ship are: {ships}")
    raw = checks.read_yaml(path)
    raw.setdefault("name", path.stem)
    for change in changes:
        checks.set_by_path(raw, change)
    return parse(raw, where=str(path))


def parse(raw: dict[str, Any], *, where: str) -> Study:
    """A study from plain data, with its prompts, arms and tables looked up once."""
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise checks.explain(error, where=where, model=Study) from None
    try:
        for arm in study.rewriters():
            for prompt in study.prompts():
                mitigations.rewritten(arm, prompt, 0, np.random.default_rng(0))
        for reference in study.reference:
            prompt_sets.load_reference(reference.table, reference.year)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return study


def dump(study: Study) -> str:
    """The study as YAML with every default filled in."""
    plain = study.model_dump(mode="json")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
