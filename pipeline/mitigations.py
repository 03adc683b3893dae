"""Arms: named ways to rewrite a prompt. `none` is the baseline that the others are compared with.

The texts are data, with their sources, in `mitigations.yaml`. Chance comes from the unit's seed, which all arms share.
"""

from __future__ import annotations

import math
import re
import runpy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from scipy.optimize import nnls

import prompt_sets
from classifiers.attributes import ATTRIBUTES
from pipeline import checks
from pipeline.errors import InputError, Interrupted, RunError, one_of
from pipeline.estimates import whole
from pipeline.types import Arm, Prompt, Rewrite, digest

if TYPE_CHECKING:
    from pipeline.chat import ChatModel

LEFT_ALONE = "left alone: "
"""How `Rewrite.drawn` begins where an arm sends a prompt as it stands, before the reason."""
DROPPED = "dropped the concept"
"""`Rewrite.drawn` of a rewrite that no longer has the words of the concept."""
ALL_CONCEPTS = "all concepts"
"""The concept of a row that is of all of them together."""
OBEDIENCE = ("arm", "concept", "attribute", "asked", "level", "share", "low", "high", "n")
"""Columns of `obedience-<arm>.csv`, before those of `MEASURED_AT`, which older files do not have."""
MEASURED_AT = ("model", "guidance_scale")
"""What drew the images of which a file of obedience is."""
REACHED = 0.005
"""A target is out of reach where the best weights leave it by more, as total variation."""
DECLARED = ("concept", "attribute", "level", "share")
"""Columns of a target that is a CSV file."""

Rates = tuple[float, ...]
"""A share for each level of an attribute, in its order."""
Position = Literal["before", "after"]
"""Of a term: before the words of the concept, or after the prompt and a comma."""


def _something(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


Text = Annotated[str, AfterValidator(_something)]
"""Not blank."""


@cache
def _data() -> dict[str, Any]:
    return checks.read_yaml(Path(__file__).with_suffix(".yaml"))


class Rewriter(BaseModel):
    """What arms have in common: parameters that are checked, and a name in the tables that may be chosen.

    A subclass adds fields, which are its parameters, and `rewrite`; the first line of its docstring and `source` are
    what `typecast arms` prints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: ClassVar[str] = "your own"
    caution: ClassVar[str] = ""
    """What whoever reads a report must know of the arm."""
    written: ClassVar[tuple[str, ...]] = ()
    """Parameters that `prepared` fills in, and nobody else."""
    files: ClassVar[Mapping[str, str]] = {}
    """Parameters that may name a file, each to the one of `written` that keeps what the file says."""
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """As it appears in the tables: that of the arm unless given, so that an arm can be in a study twice."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that changes a rewrite, in plain JSON; of a file what it says, so that it can be moved."""
        ready = self.prepared(()) if self.files else self
        told = ready.model_dump(mode="json", exclude={"name"})
        for file, kept in self.files.items():
            said = told.pop(kept)
            told |= {file: said} if said else {}
        return told

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt to send for one sample; chance comes from `rng` alone."""
        raise NotImplementedError("the class has no method rewrite(self, prompt, sample, rng)")

    def prepared(self, prompts: Sequence[Prompt]) -> Rewriter:
        """The arm with what it must do once for these prompts, before anything is drawn, done."""
        return self

    def among(self, prompts: Sequence[Prompt]) -> Rewriter:
        """The arm, told of all prompts of the study, where what it asks of one depends on the others."""
        return self

    def fetch(self) -> None:
        """Download the models that the arm needs; most need none."""
        return


class Unchanged(Rewriter):
    """The prompt as it stands: the baseline."""

    source = "Typecast"
    name: str = "none"

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The same text."""
        return Rewrite(prompt.text)


class Suffix(Rewriter):
    """The prompt, followed by a text of yours."""

    source = "Typecast"
    text: Text

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The text with the suffix."""
        return Rewrite(prompt.text + self.text)


class Negative(Rewriter):
    """The prompt beside a negative prompt, which classifier-free guidance moves away from."""

    source = "Ho and Salimans (2022), arXiv 2207.12598, with the text in place of the empty prompt"
    text: Text

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The same text and the negative prompt."""
        return Rewrite(prompt.text, self.text)


class Intervention(Rewriter):
    """A sentence that says who can be what: ethical, irrelevant (a control) or antagonistic."""

    source = _data()["intervention"]["source"]
    text: str
    """Which one, by its name in `mitigations.yaml`."""

    @field_validator("text")
    @classmethod
    def _known(cls, text: str) -> str:
        return one_of(text, _data()["intervention"]["texts"], where="text")

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt with the sentence about its concept."""
        sentence: str = _data()["intervention"]["texts"][self.text]
        return Rewrite(prompt.text + sentence.replace("{concept}", prompt.concept))


class DiversitySuffix(Rewriter):
    """A request for diversity "across the batch", of which a prompt that draws one image cannot know."""

    source = _data()["diversity_suffix"]["source"]
    caution = (
        "It asks for diversity “across the batch”, but every image is drawn from a prompt of its own, which knows of no batch: "
        "whatever this arm changed, it is not that."
    )

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt with the request."""
        return Rewrite(prompt.text + _data()["diversity_suffix"]["text"])


class Guardrail(Rewriter):
    """A demographic term drawn at random for each image, where a prompt names a person and no group."""

    source = _data()["guardrail"]["source"]
    written = ("shares",)
    files = {"to": "shares"}
    terms: dict[str, float] = Field(default_factory=lambda: _uniform(_data()["guardrail"]["terms"]))
    """Term to probability; a list is drawn from uniformly."""
    position: Position = "after"
    attribute: str | None = None
    """With `to`: its levels are drawn, by their words in `mitigations.yaml`, as often as the target says."""
    to: str | None = None
    """As that of the arm `target`, in place of `terms`, so that luck can be held against strata."""
    year: int | None = None
    shares: dict[str, Rates] = {}
    """As that of the arm `target`."""

    @field_validator("terms", mode="before")
    @classmethod
    def _listed(cls, terms: Any) -> Any:
        return _uniform(terms) if isinstance(terms, list | tuple) else terms

    @field_validator("terms")
    @classmethod
    def _chances(cls, terms: dict[str, float]) -> dict[str, float]:
        if not all(map(str.strip, terms)):
            raise ValueError("a term is empty")
        return dict(zip(terms, _summing_to_one(terms, "the probabilities of the terms"), strict=True))

    @model_validator(mode="after")
    def _readable(self) -> Guardrail:
        if (self.attribute is None) != (self.to is None):
            raise ValueError("attribute and to: give both, to draw the levels of a target, or neither")
        if self.attribute is None or self.to is None:
            if self.year is not None or self.shares:
                raise ValueError("year and shares: are those of a target, and there is no attribute and no to")
            return self
        one_of(self.attribute, ATTRIBUTES, where="attribute")
        if "terms" in self.model_fields_set:
            raise ValueError("terms: have probabilities of their own, and so has to: leave one of them out")
        _as_kept(self.attribute, [*self.shares.values()])
        self.prepared(())
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Without what is not given, so that an image of a run from before there was a `to` keeps its id."""
        return {name: value for name, value in super().parameters.items() if value is not None}

    @cached_property
    def _said(self) -> dict[str, Rates]:
        """What the file `to` says, read once."""
        if self.attribute is None or self.to is None:
            return {}
        return self.shares or _declared(self.attribute, self.to, self.year)

    def prepared(self, prompts: Sequence[Prompt]) -> Guardrail:
        """The arm with what its file says kept in it."""
        return self.model_copy(update={"shares": self._said})

    @cached_property
    def goal(self) -> Goal | None:
        """What the run is to meet, if it is a target."""
        if self.attribute is None or self.to is None:
            return None
        return Goal(self.attribute, self.to, self.year, tuple(self._said.items()))

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt with a term, or left alone."""
        weights = _in_words(self.goal, prompt.concept) if self.goal else self.terms
        why = why_not(prompt) or weights
        if isinstance(weights, str) or isinstance(why, str):
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        term = str(rng.choice([*weights], p=[*weights.values()]))
        return Rewrite(placed(prompt, term, self.position), drawn=term)


class Asking(Rewriter):
    """What arms have in common that ask for a level of an attribute."""

    attribute: str
    terms: dict[str, str] = {}
    """Level to the word that asks for it; what is not given is in `mitigations.yaml`."""
    position: Position = "before"

    @field_validator("attribute")
    @classmethod
    def _known(cls, attribute: str) -> str:
        return one_of(attribute, ATTRIBUTES, where="attribute")

    @model_validator(mode="after")
    def _levels(self) -> Asking:
        for level, term in self.terms.items():
            one_of(level, self.levels, where=f"terms of {self.attribute}")
            if not term.strip():
                raise ValueError(f"terms: {level}: is empty")
        return self

    @property
    def levels(self) -> tuple[str, ...]:
        """Of the attribute."""
        return ATTRIBUTES[self.attribute].levels

    def asked(self, prompt: Prompt, level: str) -> Rewrite:
        """The prompt with the word for a level."""
        term = self.terms.get(level) or _data()["terms"][self.attribute][level]
        return Rewrite(placed(prompt, term, self.position), drawn=level)


class CounterStereotype(Asking):
    """Asks for the group that a reference table says is the rarest in the occupation."""

    source = "Typecast"
    reference: str
    """A table of `prompt_sets/reference`."""
    year: int | None = None

    @model_validator(mode="after")
    def _there(self) -> CounterStereotype:
        prompt_sets.load_reference(self.reference, self.year)
        return self

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The same request in every image."""
        rarest, why = _rarest(self.reference, self.year, self.attribute, prompt.concept)
        if why := why_not(prompt) or why:
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        return self.asked(prompt, rarest)


@cache
def _rarest(table: str, year: int | None, attribute: str, concept: str) -> tuple[str, str]:
    """The level of which the table has the fewest, or why that is not known."""
    levels = ATTRIBUTES[attribute].levels
    found = prompt_sets.load_reference(table, year).distribution(concept, attribute, levels)
    if isinstance(found, str):
        return "", found
    known = {level: share for level, share in zip(levels, found.shares, strict=True) if not math.isnan(share)}
    rarest = [level for level, share in known.items() if share == min(known.values())]
    return (rarest[0], "") if len(rarest) == 1 else ("", "no group is the rarest")


@dataclass(frozen=True)
class Goal:
    """A declared distribution per concept."""

    attribute: str
    to: str
    """`uniform` (parity), a table of `prompt_sets/reference`, or a CSV file: `concept,attribute,level,share`."""
    year: int | None = None
    kept: tuple[tuple[str, Rates], ...] = ()
    """What the file says: concepts in lower case with their shares."""

    @property
    def title(self) -> str:
        """For a table cell."""
        return f"{self.to}{f' {self.year}' if self.year else ''}"

    def shares(self, concept: str) -> Rates | str:
        """Per level, summing to 1; or the reason why there are none for this concept."""
        levels = ATTRIBUTES[self.attribute].levels
        if self.to == "uniform":
            return (1 / len(levels),) * len(levels)
        if self.to in prompt_sets.tables():
            found = prompt_sets.load_reference(self.to, self.year).distribution(concept, self.attribute, levels)
            if isinstance(found, str):
                return found
            if any(map(math.isnan, found.shares)):
                return f"{self.to} gives no share of some level of {self.attribute}"
            complete = whole(found.shares)
            if complete is None:
                return (
                    f"its shares of {self.attribute} in {self.to} sum to {math.fsum(found.shares):.3f} (people of several "
                    "are in none); declare a CSV file or uniform"
                )
            return tuple(complete)
        return dict(self.kept).get(concept.casefold(), f"{self.to} has no row for {concept!r}")


@cache
def _in_words(goal: Goal, concept: str) -> dict[str, float] | str:
    """The words that ask for each level to their shares, or the reason why there are none for this concept."""
    shares, terms = goal.shares(concept), _data()["terms"][goal.attribute]
    if isinstance(shares, str):
        return shares
    return {terms[level]: share for level, share in zip(ATTRIBUTES[goal.attribute].levels, shares, strict=True)}


def _declared(attribute: str, to: str, year: int | None) -> dict[str, Rates]:
    """What a CSV file declares; nothing where `to` is known without one. Anything else is an error."""
    if to in prompt_sets.tables():
        prompt_sets.load_reference(to, year)
    elif year is not None:
        raise ValueError(f"year: only a table has one, and to is {to!r}")
    elif to != "uniform":
        if not Path(to).is_file():
            raise ValueError(
                f"to: {to!r} is no file; the other choices are: uniform, {', '.join(prompt_sets.tables())}"
            )
        return _target_file(to, attribute)
    return {}


def _as_kept(attribute: str, kept: Sequence[Sequence[float]]) -> None:
    """Refuse rows that `prepared` cannot have written."""
    levels = ATTRIBUTES[attribute].levels
    if any(len(row) != len(levels) for row in kept):
        raise ValueError(
            f"shares and obeyed are written by Typecast, a number for each of {', '.join(levels)}: leave them out"
        )


class Target(Asking):
    """Asks so often for each group that the images meet a declared distribution, by stratified allocation."""

    source = "Typecast; declared targets as in Nizam and Davis (2026), allocation as in Cochran (1977), chapter 5"
    written = ("shares", "obeyed")
    files = {"to": "shares", "obedience": "obeyed"}
    to: str
    """`uniform` (parity), a table such as `bls_cps_table11` (the labour market), or a CSV file."""
    year: int | None = None
    obedience: str | None = None
    """The `obedience-<arm>.csv` of a pilot run: how often each request is followed. Without it every request is taken to be."""
    shares: dict[str, Rates] = {}
    """What the CSV file `to` says, which is not read again: concept in lower case to shares."""
    obeyed: dict[str, tuple[Rates, ...]] = {}
    """What the file `obedience` comes to, likewise: concept to a row for each level that is asked for."""

    @model_validator(mode="after")
    def _readable(self) -> Target:
        _as_kept(self.attribute, [*self.shares.values(), *(row for rows in self.obeyed.values() for row in rows)])
        if self.obeyed and ALL_CONCEPTS not in self.obeyed:
            raise ValueError(f"obeyed: is written by Typecast and holds {ALL_CONCEPTS}: leave it out")
        self.prepared(())
        return self

    @cached_property
    def _said(self) -> dict[str, Any]:
        """What the files say, read once."""
        shares = self.shares or _declared(self.attribute, self.to, self.year)
        obeyed = self.obeyed or (_obedience_file(self.obedience, self.attribute) if self.obedience else {})
        return {"shares": shares, "obeyed": obeyed}

    def prepared(self, prompts: Sequence[Prompt]) -> Target:
        """The arm with what its files say kept in it."""
        return self.model_copy(update=self._said)

    def doubts(self, concepts: Sequence[str], model: str, guidance_scale: float) -> list[str]:
        """Where the obedience of a pilot may mislead, a sentence each: it was measured elsewhere; targets that it puts out of
        reach."""
        said, kept = [], self._said["obeyed"]
        if self.obedience and not self.obeyed:
            lines = [cells for _, cells in checks.csv_lines(Path(self.obedience), Path(self.obedience).read_bytes())]
            there = {(cells["model"], cells["guidance_scale"]) for cells in lines if {*MEASURED_AT} <= cells.keys()}
            if there - {(model, f"{guidance_scale:g}")}:
                at = "; ".join(f"{path} at guidance {guidance}" for path, guidance in sorted(there))
                said.append(
                    f"{self.obedience}: is of {at}, and this study draws with {model} at guidance {guidance_scale:g}"
                )
        known = {c: s for c in dict.fromkeys(concepts) if not isinstance(s := self.goal.shares(c), str)} if kept else {}
        far = 0
        for concept, shares in known.items():
            met = np.array(self.weights(concept)) @ np.array(kept.get(concept, kept[ALL_CONCEPTS]))
            far += float(np.abs(met - shares).sum()) / 2 > REACHED
        if far:
            said.append(
                f"the targets of {far} of {len(known)} concepts are out of reach at this obedience; met as nearly as can be"
            )
        return [f"arms: {self.name}: {one}" for one in said]

    @cached_property
    def goal(self) -> Goal:
        """What the run is to meet."""
        return Goal(self.attribute, self.to, self.year, tuple(self._said["shares"].items()))

    @cached_property  # and not pydantic's own private attribute, by which arms that have drawn would be other arms
    def _weights(self) -> dict[str, Rates | str]:
        return {}

    @cached_property  # no field: it says nothing that the prompts do not
    def _shifts(self) -> dict[tuple[str, ...], list[float]]:
        return {}

    def among(self, prompts: Sequence[Prompt]) -> Target:
        """The arm that lets the R prompts of a concept meet the target together, and each of them by itself.

        Their shifts lie 1/R apart: by Hermite's identity Σ ⌊x + (c + r)/R⌋ over r = 0..R-1 is ⌊R x + c⌋, so that of two levels
        all prompts together, too, ask for each within one image of its weight at every number of samples. The order is
        another for every level: in the same one the levels after the first would hang together with it.
        """
        together = defaultdict(list)
        for prompt in prompts:
            if not why_not(prompt):
                together[prompt.prompt_set, prompt.concept].append(prompt.key)
        shifts: dict[tuple[str, ...], list[float]] = {}
        for concept, keys in together.items():
            for level in self.levels[:-1] if len(keys) > 1 else ():
                for place, (_, key) in enumerate(sorted((digest([key, level]), key) for key in keys)):
                    start = _of_level(concept, level, self.levels)
                    shifts.setdefault(key, []).append((start + place) / len(keys))
        return self.model_copy(update={"_shifts": shifts})

    def weights(self, concept: str) -> Rates | str:
        """How often to ask for each level, or the reason why the concept is not in the target."""
        if concept not in self._weights:
            shares, obeyed = self.goal.shares(concept), self._said["obeyed"]
            if obeyed and not isinstance(shares, str):
                shares = inverted(shares, np.array(obeyed.get(concept, obeyed[ALL_CONCEPTS])))
            self._weights[concept] = shares
        return self._weights[concept]

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The request that is this sample's, whatever the number of samples."""
        weights = self.weights(prompt.concept)
        why = why_not(prompt) or weights
        if isinstance(weights, str) or isinstance(why, str):
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        alone = [_of_level(prompt.key, level, self.levels) for level in self.levels]
        return self.asked(prompt, self.levels[stratum(weights, sample, self._shifts.get(prompt.key, alone))])


def _of_level(key: tuple[str, ...], level: str, levels: Sequence[str]) -> float:
    """A number in 0..1 for a key and a level, independent of those of the other levels, that all are given as often as their
    weight says over keys; that of the first is the key's own."""
    return _between(key if level == levels[0] else (*key, level))


def _between(key: Sequence[str]) -> float:
    """A number in 0..1 of its own, so that rounding evens out over concepts."""
    return int(digest([key])[:8], 16) / 16**8


class Llm(Rewriter):
    """A chat model on this machine rewrites each prompt, once, before anything is drawn."""

    source = "Typecast; greedy decoding, so that the same model writes the same"
    written = ("rewrites", "made_by")
    model: str = Field(min_length=1)
    """A folder, or the name of a hub model that transformers loads as a causal language model with a chat template."""
    revision: str | None = None
    """A branch, tag or commit of a hub model; `null` is its main branch."""
    instruction: Text = _data()["llm"]["instruction"]
    """What the model is told; the prompt follows."""
    max_new_tokens: int = Field(77, ge=1, le=4096)
    rewrites: dict[str, str | None] = {}
    """Prompt to what the model wrote; `None` of an answer that was cut off."""
    made_by: str = ""
    """The model with its commit, or the sha256 of its weights."""

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """What the model wrote; the same in every image."""
        written = self.rewrites.get(prompt.text, "")
        if not written:
            why = "the model wrote nothing" if prompt.text in self.rewrites else "not rewritten yet"
            why = "the answer was cut off at max_new_tokens" if written is None else why
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        concept = re.compile(rf"\b{_in_any_number(prompt.concept)}\b", re.IGNORECASE)
        dropped = concept.search(prompt.text) and not concept.search(written)
        return Rewrite(written, drawn=DROPPED if dropped else "")

    def prepared(self, prompts: Sequence[Prompt]) -> Llm:
        """The arm with the rewrites of these prompts, made by the model where they are not there."""
        missing = [text for text in dict.fromkeys(p.text for p in prompts) if text not in self.rewrites]
        if not missing:
            return self
        writer = self._open()
        answers = writer.answers(self.instruction, missing, max_new_tokens=self.max_new_tokens)
        lines = (answer if answer is None else one_line(answer) for answer in answers)
        rewrites = self.rewrites | dict(zip(missing, lines, strict=True))
        return self.model_copy(update={"rewrites": rewrites, "made_by": writer.made_by})

    def fetch(self) -> None:
        """Download the chat model."""
        self._open()

    def _open(self) -> ChatModel:
        from pipeline.chat import ChatModel

        return ChatModel(self.model, self.revision)


ARMS: dict[str, type[Rewriter]] = {
    "none": Unchanged,
    "suffix": Suffix,
    "negative": Negative,
    "intervention": Intervention,
    "diversity_suffix": DiversitySuffix,
    "guardrail": Guardrail,
    "counter_stereotype": CounterStereotype,
    "target": Target,
    "llm": Llm,
}


def build(arms: Sequence[str | dict[str, dict[str, Any]]], perceived: Sequence[str]) -> tuple[Rewriter, ...]:
    """The arms that a study lists: a name, or `{name: {parameter: value}}`. `FILE.py:CLASS` is an arm of the user's.

    `perceived` are the attributes that the study reads: no other can be seen to meet a target.
    """
    built = tuple(_one(arm) for arm in arms)
    for listed, arm in zip(arms, built, strict=True):
        if arm.name == "none" and not isinstance(arm, Unchanged):
            raise InputError(f"arms: {listed}: the name none is the baseline's; give this arm another")
    names = [arm.name for arm in built]
    if len(set(names)) < len(names):
        raise InputError(f"arms: {', '.join(names)}: each arm once; give the second a `name` of its own")
    for arm in built:
        goal = arm.goal if isinstance(arm, Target | Guardrail) else None
        if goal and goal.attribute not in perceived:
            raise InputError(
                f"arms: {arm.name}: attribute: the study does not perceive {goal.attribute!r}; add it to "
                f"perceive.attributes, or choose one that is there: {', '.join(perceived)}"
            )
    return built


def _one(arm: str | dict[str, dict[str, Any]]) -> Rewriter:
    if isinstance(arm, dict) and len(arm) != 1:
        raise InputError(f"arms: {arm}: write one arm an item, as NAME or NAME: {{PARAMETER: VALUE}}")
    name, parameters = (arm, {}) if isinstance(arm, str) else next(iter(arm.items()))
    return one_arm(name, parameters)


def one_arm(name: str, parameters: Mapping[str, Any]) -> Rewriter:
    """One arm with its parameters checked: a shipped one, or `FILE.py:CLASS`."""
    file, colon, own = name.rpartition(":")
    if colon:
        maker, default = _own(Path(file), own), own
    else:
        maker, default = ARMS[one_of(name, [*ARMS, "FILE.py:CLASS (your own)"], where="arms")], name
    try:
        return maker.model_validate({"name": default} | dict(parameters))
    except ValidationError as error:
        raise checks.explain(error, where=f"arms: {name}", model=maker) from None
    except InputError as error:
        raise InputError(f"arms: {name}: {error}") from None


def _own(file: Path, name: str) -> type[Rewriter]:
    """A class of the user's file."""
    if not file.is_file():
        searched = "" if file.is_absolute() else f" in {Path.cwd()}"
        raise InputError(
            f"arms: {file}: no such Python file{searched}; write its whole path, in the study.yaml of a run too if it was moved"
        )
    try:
        found = runpy.run_path(str(file), run_name=file.stem).get(name)
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"arms: {file}: cannot be run: {type(error).__name__}: {error}") from None
    if not isinstance(found, type) or not issubclass(found, Rewriter):
        raise InputError(f"arms: {file}: {name} must be a class in it, made from pipeline.mitigations.Rewriter")
    return found


def prepared(listed: str | dict[str, dict[str, Any]], prompts: Sequence[Prompt]) -> str | dict[str, dict[str, Any]]:
    """An arm as a study lists it, with what it must do once before anything is drawn done and written into it."""
    listed = _anywhere(listed)
    name, parameters = (listed, {}) if isinstance(listed, str) else next(iter(listed.items()))
    ready = _one(listed).prepared(prompts)
    kept = ready.model_dump(mode="json", include={*ready.written}, exclude_defaults=True)
    return {name: {**parameters, **kept}} if kept else listed


def _anywhere(listed: str | dict[str, dict[str, Any]]) -> str | dict[str, dict[str, Any]]:
    """An arm as a study lists it, a file of the user's by its whole path, so that its run can be opened from any folder."""
    if not isinstance(listed, str):
        return {str(_anywhere(name)): parameters for name, parameters in listed.items()}
    file, colon, own = listed.rpartition(":")
    return f"{Path(file).absolute()}:{own}" if colon else listed


def remembered(
    wanted: str | dict[str, dict[str, Any]], began: str | dict[str, dict[str, Any]]
) -> str | dict[str, dict[str, Any]]:
    """`began`, an arm of the study that is in a folder, if it is the same as `wanted` but for what `prepared` wrote.

    A file that has another name by now, and says what it said, is the same; one that says something else is an error.
    """
    now, then = _one(wanted), _one(began)

    def asked(listed: str | dict[str, dict[str, Any]]) -> Any:
        if isinstance(listed, str):
            return listed
        return {n: {k: v for k, v in p.items() if k not in then.written} for n, p in listed.items()}

    if asked(_anywhere(wanted)) != asked(_anywhere(began)):
        moved = now.files and type(now) is type(then) and (now.name, now.parameters) == (then.name, then.parameters)
        return began if moved else wanted
    for file in now.files:
        if now.parameters.get(file) != then.parameters.get(file):
            raise RunError(
                f"{getattr(now, file)}: does not say what it said when the arm {now.name} of this run began; put the "
                "file back as it was, or name another folder with --out"
            )
    return began


def one_line(answer: str) -> str:
    """The first line of a model's answer that says something, without the quotation marks around it.

    What the model thought before it, up to `</think>`, is no part of it, and no line that announces the next with a colon.
    """
    said = answer.rpartition("</think>")[2].partition("<think>")[0]
    lines = [*filter(None, (line.strip().strip("\"'“”`").strip() for line in said.splitlines())), ""]
    return lines[1] if lines[0].endswith(":") and lines[1] else lines[0]


def rewritten(arm: Arm, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
    """What an arm sends, which must be something; an arm of the user's may do anything else."""
    try:
        found = arm.rewrite(prompt, sample, rng)
        if not isinstance(found, Rewrite) or not all(isinstance(part, str) for part in found):
            raise TypeError(f"rewrite must give a pipeline.types.Rewrite of texts, not {found!r}")
        "".join(found).encode()  # what cannot be written down
    except (InputError, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise InputError(f"arms: {arm.name}: cannot rewrite {prompt.text!r} (sample {sample}): {said}") from error
    if not found.text.strip():
        raise InputError(f"arms: {arm.name}: makes {prompt.text!r} (sample {sample}) an empty prompt")
    return found


def tried(name: str, text: str, changes: Sequence[str] = (), samples: int = 10) -> list[Rewrite]:
    """What an arm would send for the first samples of a prompt whose concept is the longest occupation in it."""
    if not text.strip():
        raise InputError("PROMPT: is empty; such as: a photo of a nurse")
    parameters: dict[str, Any] = {}
    for change in changes:
        checks.set_by_path(parameters, change)
    arm = one_arm(name, parameters)
    known = [
        concept
        for concept in prompt_sets.occupations()
        if re.search(rf"\b{_in_any_number(concept)}\b", text, re.IGNORECASE)
    ]
    somebody = _signs_of_a_person().search(text.casefold())
    concept = max(known, key=len, default=prompt_sets.PERSON if somebody else text)
    prompt = Prompt(prompt_set="tried", concept=concept, template="tried", text=text)
    arm = arm.prepared([prompt])
    return [rewritten(arm, prompt, k, np.random.default_rng([k, 1])) for k in range(samples)]


# -- words -------------------------------------------------------------------------------------------


def _in_any_number(word: str) -> str:
    """A pattern for a word and its plural: `nurses`, `ladies`, `salesmen`; a hyphen may be a space, and a space a hyphen."""
    pattern = re.sub(r"\\[- ]", "[- ]", re.escape(word))
    if word.endswith("man"):
        return f"{pattern.removesuffix('man')}m[ae]ns?"
    return f"{pattern.removesuffix('y')}(?:ys?|ies)" if word.endswith("y") else f"{pattern}(?:s|es)?"


def _any_of(words: Iterable[str]) -> str:
    """A pattern for a text in lower case, by first letters: to ignore the case of hundreds of words, or to try all of them at
    every place, takes several times as long."""
    by_letter: dict[str, list[str]] = {}
    for pattern in map(_in_any_number, words):
        by_letter.setdefault(pattern[0], []).append(pattern[1:])
    some = "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in by_letter.items())
    return rf"\b(?:{some})\b"


@cache
def _groups() -> re.Pattern[str]:
    colours, shades, adjectives, not_between = (
        _any_of(_data()[key]) for key in ("groups_of_a_person", "shades_of_a_person", "adjectives", "not_between")
    )
    person = rf"\b{_in_any_number(prompt_sets.PERSON)}\b"
    ways = [
        _any_of(_data()["group_words"]),
        rf"(?:{'|'.join(map(_in_any_number, _data()['group_endings']))})\b",
        rf"{colours} (?:(?!{not_between})[\w'’-]+ ){{0,2}}{person}",
        rf"(?:{colours}|{shades}),? (?:{adjectives},? ){{0,2}}{person}",
        rf"{person}(?:, {adjectives}){{0,2}} ?[,(\[] ?{colours}(?= ?(?:[,.;)\]]|$))",
        rf"(?:\bwho|{person} that)(?:['’]s| is| are) (?:{colours}|{shades})(?!-)",
    ]
    return re.compile("|".join(ways))


@cache
def _signs_of_a_person() -> re.Pattern[str]:
    return re.compile(_any_of([*_data()["person_words"], *_data()["signs_of_a_person"]]))


@cache
def _people() -> re.Pattern[str]:
    return re.compile(_any_of([*prompt_sets.occupations(), *_data()["person_words"]]))


@cache
def why_not(prompt: Prompt) -> str:
    """Why a prompt is not to be given a group, or nothing: as far as its words and the list of occupations tell.

    The words are also read with `person` in place of whoever they are about, so that *white* is found in "a white nurse" and in
    "a white emergency room nurse", and not in "a nurse in a white coat".
    """
    text, concept = prompt.text.casefold(), prompt.concept.casefold()
    plain = _people().sub(prompt_sets.PERSON, text).replace(concept, prompt_sets.PERSON)
    if prompt.identity or _groups().search(text) or _groups().search(plain):
        return "names a group"
    return "" if _people().fullmatch(concept) or _signs_of_a_person().search(text) else "names no person"


@cache
def placed(prompt: Prompt, term: str, position: Position) -> str:
    """The prompt with a term: `a photo of a female nurse`, or `a photo of a nurse, female`."""
    if position == "after":
        return f"{prompt.text}, {term}"
    words = rf"\b(?:(a|an)\s+)?(?={_in_any_number(prompt.concept)}\b)"
    found = re.search(words, prompt.text, re.IGNORECASE)
    if found is None:
        raise InputError(
            f"position: before: the words {prompt.concept!r} are not in {prompt.text!r}; write position: after"
        )
    article = found[1]
    if article:
        other = prompt_sets.article(term)
        article = f"{other.capitalize() if article[0].isupper() else other} "
    return f"{prompt.text[: found.start()]}{article or ''}{term} {prompt.text[found.end() :]}"


# -- targets -----------------------------------------------------------------------------------------


def stratum(weights: Sequence[float], sample: int, shifts: Sequence[float]) -> int:
    """Which of K levels sample k = 0, 1, … is given, so that the first n samples hold each about n times its weight.

    A level of weight w is given where ⌊(k + 1) w + shift⌋ exceeds ⌊k w + shift⌋ (systematic sampling: Madow and Madow
    1944, Annals of Mathematical Statistics 15:1); what is left goes to the other levels by the same rule. So the first
    level's count differs from n w by less than 1 at every n, and no sample's level depends on n. `shifts` in 0..1, one for
    each level but the last.
    """
    left = 1.0
    for level, (weight, shift) in enumerate(zip(weights[:-1], shifts, strict=False)):
        share = min(weight / left, 1.0) if left > 0 else 0.0
        before = math.floor(sample * share + shift)
        if math.floor((sample + 1) * share + shift) > before:
            return level
        # the rest, and not what is left of 1: by a rounding the last level would be given at weight 0
        sample, left = sample - before, math.fsum(weights[level + 1 :])
    return len(weights) - 1


def inverted(target: Sequence[float], obedience: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """How often to ask for each level `(K,)`, so that what is drawn comes nearest to the target.

    `obedience` `(K, K)`: rows asked, columns drawn. Least squares over weights that are shares; exact where some weights
    reach the target at all.
    """
    heavy = 1e4  # the weights must sum to 1
    equations = np.vstack([obedience.T, np.full((1, len(target)), heavy)])
    found = nnls(equations, np.append(target, heavy))[0]
    return tuple((found / found.sum()).tolist())


def stratified_factor(weights: npt.ArrayLike, obedience: npt.ArrayLike) -> float:
    """Variance of a share under stratified allocation over that under independent draws.

    Of n images a part w_a is asked for a and o_a of those are of the level: Σ w_a o_a (1 − o_a) over p (1 − p), with
    p = Σ w_a o_a (Cochran 1977, Sampling Techniques, chapter 5: proportional
    allocation). `weights` `(K,)`, `obedience` `(K,)`.
    NaN where nothing varies.
    """
    w, o = np.asarray(weights, float), np.asarray(obedience, float)
    p = float(w @ o)
    return float(w @ (o * (1 - o))) / (p * (1 - p)) if 0 < p < 1 else math.nan


def _uniform(terms: Sequence[str]) -> dict[str, float]:
    if len(set(terms)) < len(terms) or not terms:
        raise ValueError("terms: give at least one, each once")
    return dict.fromkeys(terms, 1 / len(terms))


def _summing_to_one(shares: Mapping[str, float], what: str) -> list[float]:
    """The shares, rid of their rounding."""
    complete = whole([*shares.values()])
    if complete is None or any(not 0 <= share <= 1 for share in shares.values()):
        said = ", ".join(f"{level}: {share:g}" for level, share in shares.items())
        raise ValueError(f"{what} must be shares that sum to 1; they are {said}, in sum {math.fsum(shares.values()):g}")
    return list(complete.tolist())


def _rows(file: str, attribute: str, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file that are about an attribute, each with where it stands, for a message.

    The file has these columns, and every row a concept and levels that are the attribute's.
    """
    try:
        content = Path(file).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    found = []
    for number, cells in checks.csv_lines(Path(file), content, [(name, "") for name in columns]):
        where, row = f"{file}: line {number}", {name: cell.strip() for name, cell in cells.items()}
        if not row["concept"]:
            raise InputError(f"{where}: concept: is empty; write what the prompts are about, such as nurse")
        if one_of(row["attribute"], ATTRIBUTES, where=f"{where}: attribute") == attribute:
            for name in ("asked", "level"):
                if name in columns:
                    one_of(row[name], ATTRIBUTES[attribute].levels, where=f"{where}: {name}")
            found.append((where, row))
    if not found:
        raise InputError(f"{file}: has no row about {attribute}")
    return found


def _share(where: str, row: Mapping[str, str]) -> float:
    try:
        share = float(row["share"])
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(f"{where}: share: {row['share']!r} is no share; write a number in 0..1")
    return share


def _images(where: str, row: Mapping[str, str]) -> int:
    if not row["n"].isdecimal() or int(row["n"]) == 0:
        raise InputError(f"{where}: n: {row['n']!r} is no number of images; write a whole number above 0")
    return int(row["n"])


def _target_file(file: str, attribute: str) -> dict[str, Rates]:
    """Concept in lower case to shares; a level that is not there is 0."""
    found: dict[str, dict[str, float]] = {}
    for where, row in _rows(file, attribute, DECLARED):
        shares = found.setdefault(row["concept"].casefold(), {})
        if row["level"] in shares:
            raise InputError(f"{where}: {row['concept']}: level: {row['level']} is there already; keep one of the rows")
        shares[row["level"]] = _share(where, row)
    blank = dict.fromkeys(ATTRIBUTES[attribute].levels, 0.0)
    try:
        return {c: tuple(_summing_to_one(blank | shares, f"{file}: {c}: the shares")) for c, shares in found.items()}
    except ValueError as error:
        raise InputError(str(error)) from None


def _obedience_file(file: str, attribute: str) -> dict[str, tuple[Rates, ...]]:
    """Concept to what is drawn when each level is asked for; that of a concept which is not there is `ALL_CONCEPTS`'."""
    levels = ATTRIBUTES[attribute].levels
    found: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    rows = _rows(file, attribute, OBEDIENCE)
    arms = sorted({row["arm"] for _, row in rows})
    if len(arms) > 1:
        raise InputError(
            f"{file}: is of several arms: {', '.join(arms)}; keep the rows of the one that asks as this does"
        )
    seen: set[tuple[str, ...]] = set()
    for where, row in rows:
        cell = row["concept"], row["asked"], row["level"]
        if cell in seen:
            raise InputError(f"{where}: {', '.join(cell)}: is there already; keep one of the rows")
        seen.add(cell)
        blank = np.full((len(levels), len(levels)), math.nan), np.zeros(len(levels))
        shares, n = found.setdefault(row["concept"], blank)
        if row["share"]:  # the run that wrote the file could not tell
            asked = levels.index(row["asked"])
            shares[asked, levels.index(row["level"])], n[asked] = _share(where, row), _images(where, row)
    for concept, (obeyed, _) in found.items():
        for level, row in zip(levels, obeyed.tolist(), strict=True):
            if not np.isnan(row).any():
                try:
                    _summing_to_one(
                        dict(zip(levels, row, strict=True)), f"{file}: {concept}: asked {level}: the shares"
                    )
                except ValueError as error:
                    raise InputError(str(error)) from None
    if ALL_CONCEPTS not in found or np.isnan(found[ALL_CONCEPTS][0]).any():
        raise InputError(
            f"{file}: does not say what every level of {attribute} gives when it is asked for, over {ALL_CONCEPTS}; "
            "take the obedience-<arm>.csv of an arm `target` that asks for all of them"
        )
    return {c: tuple(map(tuple, obeyed.tolist())) for c, obeyed in _drawn_together(found).items()}


def _drawn_together(
    found: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
) -> dict[str, npt.NDArray[np.float64]]:
    """What is drawn when each level is asked for `(K, K)`: every concept's own pilot, drawn towards all concepts'.

    `found` are the shares (rows asked) and the images `(K,)`. Each is drawn by as much as its own images are uncertain
    beside how far the concepts lie apart: the empirical Bayes weight of Morris (1983), J. American Statistical
    Association 78:47, with the variance between by moments.
    """
    mean, _ = found[ALL_CONCEPTS]
    apart = {c: (s, m[:, None]) for c, (s, m) in found.items() if c != ALL_CONCEPTS and not np.isnan(s).any()}
    if len(apart) < 3:
        return {ALL_CONCEPTS: mean}
    within = np.mean([mean * (1 - mean) / m for _, m in apart.values()], 0)
    between = np.maximum(np.var([s for s, _ in apart.values()], 0, ddof=1) - within, 0)
    weights = {c: between / np.maximum(between + mean * (1 - mean) / m, 1e-12) for c, (_, m) in apart.items()}
    mixed = {c: weights[c] * s + (1 - weights[c]) * mean for c, (s, _) in apart.items()}
    return {ALL_CONCEPTS: mean} | {c: own / own.sum(1, keepdims=True) for c, own in mixed.items()}
