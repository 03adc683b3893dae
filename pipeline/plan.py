"""Study -> shards -> work units. Pure: no disk, no model, no clock; a million units are planned lazily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

import prompt_sets
from pipeline import mitigations
from pipeline.study import Study
from pipeline.types import ALONE, Arm, Batch, DrawSettings, Prompt, Shard, Worker, WorkUnit, digest

SHARD_SIZE = 512
"""Images a shard holds at most."""


class Named(Protocol):
    """What has a name: an arm, for whoever only groups by it."""

    @property
    def name(self) -> str:
        """Unique within a study."""
        ...


class Asking(Named, Protocol):
    """What the estimates need of a study."""

    @property
    def seed(self) -> int:
        """Of the posterior draws."""
        ...


class Asked(Protocol):
    """What the estimates need of a run, whoever made its pictures: a `Plan`, or what was imported."""

    @property
    def study(self) -> Asking:
        """Its name and its seed."""
        ...

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """With the arms, the keys."""
        ...

    @property
    def arms(self) -> Sequence[Named]:
        """The headline is about `none`, or where there is no such arm about the first."""
        ...

    @property
    def references(self) -> tuple[prompt_sets.Reference, ...]:
        """The tables that the shares are held against."""
        ...

    @property
    def made_with(self) -> dict[str, Any]:
        """The model and its setting, for `summary.json`."""
        ...

    def model_of(self, arm: str) -> str:
        """The model that made an arm, for a sentence."""
        ...

    def __len__(self) -> int:
        """The number of images that were asked for."""
        ...


class Sharded(Asked, Protocol):
    """What reading and counting need of a run: a `Plan`, or an `Album` of pictures made elsewhere."""

    def shards(self) -> list[Shard]:
        """All shards, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study draws, and in which pieces.

    The units of an arm are numbered sample by sample, prompt by prompt: unit j is sample j // P of prompt
    j % P. Unit j is drawn in batch j // batch_size at place j % batch_size, always: a run that has grown
    draws the shared batch again with its finished places empty, so no finished pixel depends on the growth.
    """

    study: Study
    settings: DrawSettings
    prompts: tuple[Prompt, ...]
    arms: tuple[Arm, ...]

    def shards(self, worker: Worker = ALONE) -> list[Shard]:
        """The shards of one worker, or all: the same list in every process, whatever is finished.

        Growing `images_per_prompt` starts new shards where the old ones ended, appending an arm adds its own.
        """
        ends = [n * len(self.prompts) for n in (*self.study.grown_from, self.study.images_per_prompt)]
        step = max(1, SHARD_SIZE // self.settings.batch_size) * self.settings.batch_size
        found = []
        for arm in self.arms:
            for begin, end in zip([0, *ends], ends, strict=False):
                cuts = [begin, *range(begin // step * step + step, end, step), end]
                found += [Shard(arm=arm.name, start=a, stop=b) for a, b in pairwise(cuts)]
        return found[worker.rank :: worker.of]

    @property
    def references(self) -> tuple[prompt_sets.Reference, ...]:
        """The tables that the study names."""
        return tuple(prompt_sets.load_reference(r.table, r.year) for r in self.study.reference)

    @property
    def made_with(self) -> dict[str, Any]:
        """The model and its setting."""
        return {
            "model": self.study.model.path,
            "guidance_scale": self.study.draw.guidance_scale,
            "approximations": list(self.settings.approximations),
        }

    def model_of(self, arm: str) -> str:
        """The model with its guidance, the same for every arm."""
        how = "".join(f", {told}" for told in self.settings.approximations)
        return f"{self.study.model.path} at guidance {self.study.draw.guidance_scale:g}{how}"

    def __len__(self) -> int:
        """The number of images."""
        return len(self.arms) * len(self.prompts) * self.study.images_per_prompt

    def units(self, shard: Shard) -> list[WorkUnit]:
        """The images of one shard, in order."""
        arm = next(arm for arm in self.arms if arm.name == shard.arm)
        chosen = {name: value for name, value in asdict(self.settings).items() if value is not None}
        how = {"arm": [arm.name, arm.parameters], "settings": chosen}
        settings = digest(how)
        return [self._unit(arm, settings, j) for j in range(shard.start, shard.stop)]

    def batches(self, shard: Shard) -> Iterator[tuple[int, Batch]]:
        """The batches of a shard with their numbers; places that belong to other shards are empty."""
        units, size = self.units(shard), self.settings.batch_size
        for number in range(shard.start // size, -(-shard.stop // size)):
            places = range(number * size, (number + 1) * size)
            yield number, tuple(units[j - shard.start] if shard.start <= j < shard.stop else None for j in places)

    def _unit(self, arm: Arm, settings: str, j: int) -> WorkUnit:
        sample, place = divmod(j, len(self.prompts))
        prompt = self.prompts[place]
        seed = seed_of(self.study.seed, prompt, sample)
        sent = mitigations.rewritten(arm, prompt, sample, np.random.default_rng([seed, 1]))
        what: list[Any] = [settings, prompt.key, prompt.text, sample, self.study.seed]
        if (sent.text, sent.negative_prompt) != (prompt.text, ""):
            what.append([sent.text, sent.negative_prompt])  # code and files of an arm change where parameters do not
        return WorkUnit(
            id=digest(what)[:24],
            prompt=prompt,
            arm=arm.name,
            prompt_sent=sent.text,
            negative_prompt=sent.negative_prompt,
            drawn=sent.drawn,
            sample=sample,
            seed=seed,
        )


def seed_of(study_seed: int, prompt: Prompt, sample: int) -> int:
    """The seed of one image, 63 bits: of what is asked and not of how, so arms and guidance values share noise."""
    return int(digest([study_seed, prompt.concept, prompt.template, prompt.identity, sample])[:16], 16) >> 1


def plan(study: Study, *, weights: str) -> Plan:
    """The plan of a study for a model whose weights have this digest."""
    draw = study.draw
    settings = DrawSettings(
        weights=weights,
        scheduler=draw.scheduler or "",
        num_inference_steps=draw.num_inference_steps,
        guidance_scale=draw.guidance_scale,
        height=draw.height,
        width=draw.width,
        dtype=draw.dtype,
        batch_size=draw.batch_size,
        threads=draw.threads,
        compile=draw.compile,
        cache=draw.cache,
        quantization=draw.quantization,
    )
    return Plan(study=study, settings=settings, prompts=study.prompts(), arms=study.rewriters())
