"""Arms: named ways to rewrite a prompt. `none` is the baseline that the others are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import InputError, one_of
from pipeline.types import Arm, Prompt, Rewrite


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """The prompt as it stands."""

    name: str = "none"

    @property
    def parameters(self) -> dict[str, Any]:
        """None."""
        return {}

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The same text."""
        return Rewrite(prompt.text, "")


@dataclass(frozen=True, kw_only=True)
class Suffix:
    """The prompt, followed by a fixed text."""

    name: str = "suffix"
    text: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The text that is appended."""
        return {"text": self.text}

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The text with the suffix."""
        return Rewrite(prompt.text + self.text, "")


@dataclass(frozen=True, kw_only=True)
class Negative:
    """The prompt beside a negative prompt, which classifier-free guidance moves away from."""

    name: str = "negative"
    text: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The negative prompt."""
        return {"text": self.text}

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The same text and the negative prompt."""
        return Rewrite(prompt.text, self.text)


ARMS: dict[str, Callable[..., Arm]] = {"none": Unchanged, "suffix": Suffix, "negative": Negative}


def build(arms: Sequence[str | dict[str, dict[str, Any]]], *, guidance_scale: float) -> tuple[Arm, ...]:
    """The arms that a study lists: a name, or `{name: {parameter: value}}`."""
    built = tuple(_one(arm) for arm in arms)
    names = [arm.name for arm in built]
    if len(set(names)) < len(names):
        raise InputError(f"arms: {', '.join(names)}: each arm once")
    if guidance_scale <= 1 and any(isinstance(arm, Negative) for arm in built):
        raise InputError("arms: negative cannot act at draw.guidance_scale 1; raise it above 1 or leave the arm out")
    return built


def _one(arm: str | dict[str, dict[str, Any]]) -> Arm:
    if isinstance(arm, dict) and len(arm) != 1:
        raise InputError(f"arms: {arm}: write one arm an item, as NAME or NAME: {{PARAMETER: VALUE}}")
    name, parameters = (arm, {}) if isinstance(arm, str) else next(iter(arm.items()))
    maker = ARMS[one_of(name, ARMS, where="arms")]
    known = [key for key in getattr(maker, "__dataclass_fields__", {}) if key != "name"]
    wrong = sorted(set(parameters) ^ set(known))
    if wrong:
        raise InputError(f"arms: {name}: its parameters are: {', '.join(known) or 'none'}; check {', '.join(wrong)}")
    if any(not isinstance(value, str) for value in parameters.values()):
        raise InputError(f"arms: {name}: {', '.join(known)} must be text")
    return maker(**parameters)
