"""Arms: named ways to rewrite a prompt. `none` is the baseline that the others are compared with.

The texts are data, with their sources, in `mitigations.yaml`. Chance comes from the unit's seed, which all arms share.
"""

from __future__ import annotations

import csv
import math
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from scipy.optimize import nnls

import prompt_sets
from classifiers.attributes import ATTRIBUTES
from pipeline import checks
from pipeline.errors import InputError, one_of
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
"""Columns of `obedience-<arm>.csv`."""

Position = Literal["before", "after"]
"""Of a term: before the words of the concept, or after the prompt and a comma."""


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
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """As it appears in the tables: that of the arm unless given, so that an arm can be in a study twice."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that changes a rewrite, in plain JSON."""
        return self.model_dump(mode="json", exclude={"name"})

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt to send for one sample; chance comes from `rng` alone."""
        raise NotImplementedError("the class has no method rewrite(self, prompt, sample, rng)")

    def prepared(self, prompts: Sequence[Prompt]) -> Rewriter:
        """The arm with what it must do once for these prompts, before anything is drawn, done."""
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
    text: str = Field(min_length=1)

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The text with the suffix."""
        return Rewrite(prompt.text + self.text)


class Negative(Rewriter):
    """The prompt beside a negative prompt, which classifier-free guidance moves away from."""

    source = "Ho and Salimans (2022), arXiv 2207.12598, with the text in place of the empty prompt"
    text: str = Field(min_length=1)

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
    terms: dict[str, float] = Field(default_factory=lambda: _uniform(_data()["guardrail"]["terms"]))
    """Term to probability; a list is drawn from uniformly."""
    position: Position = "after"

    @field_validator("terms", mode="before")
    @classmethod
    def _listed(cls, terms: Any) -> Any:
        return _uniform(terms) if isinstance(terms, list | tuple) else terms

    @field_validator("terms")
    @classmethod
    def _chances(cls, terms: dict[str, float]) -> dict[str, float]:
        return dict(zip(terms, _summing_to_one(terms, "the probabilities of the terms"), strict=True))

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The prompt with a term, or left alone."""
        if why := why_not(prompt):
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        term = str(rng.choice([*self.terms], p=[*self.terms.values()]))
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
    return min(known, key=known.__getitem__), ""


@dataclass(frozen=True)
class Goal:
    """A declared distribution per concept."""

    attribute: str
    to: str
    """`uniform` (parity), a table of `prompt_sets/reference`, or a CSV file: `concept,attribute,level,share`."""
    year: int | None = None

    @property
    def title(self) -> str:
        """For a table cell."""
        return f"{self.to}{f' {self.year}' if self.year else ''}"

    def shares(self, concept: str) -> tuple[float, ...] | str:
        """Per level, summing to 1; or the reason why there are none for this concept."""
        levels = ATTRIBUTES[self.attribute].levels
        if self.to == "uniform":
            return (1 / len(levels),) * len(levels)
        if self.to in prompt_sets.tables():
            found = prompt_sets.load_reference(self.to, self.year).distribution(concept, self.attribute, levels)
            if isinstance(found, str):
                return found
            complete = whole(found.shares)
            return (
                f"{self.to} gives no share of some level of {self.attribute}" if complete is None else tuple(complete)
            )
        return _target_file(self.to, self.attribute).get(concept.casefold(), f"{self.to} has no row for {concept!r}")


class Target(Asking):
    """Asks so often for each group that the images meet a declared distribution, by stratified allocation."""

    source = "Typecast; declared targets as in Nizam and Davis (2026), allocation as in Cochran (1977), chapter 5"
    to: str
    """`uniform` (parity), a table such as `bls_cps_table11` (the labour market), or a CSV file."""
    year: int | None = None
    obedience: str | None = None
    """The `obedience-<arm>.csv` of a pilot run: how often each request is followed. Without it every request is taken to be."""
    _weights: dict[str, tuple[float, ...] | str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _readable(self) -> Target:
        if self.to in prompt_sets.tables():
            prompt_sets.load_reference(self.to, self.year)
        elif self.year is not None:
            raise ValueError(f"year: only a table has one, and to is {self.to!r}")
        elif self.to != "uniform":
            if not Path(self.to).is_file():
                known = ", ".join(prompt_sets.tables())
                raise ValueError(f"to: {self.to!r} is no file; the other choices are: uniform, {known}")
            _target_file(self.to, self.attribute)
        if self.obedience is not None:
            _obedience_file(self.obedience, self.attribute)
        return self

    @property
    def goal(self) -> Goal:
        """What the run is to meet."""
        return Goal(self.attribute, self.to, self.year)

    def weights(self, concept: str) -> tuple[float, ...] | str:
        """How often to ask for each level, or the reason why the concept is not in the target."""
        if concept not in self._weights:
            shares = self.goal.shares(concept)
            if self.obedience is not None and not isinstance(shares, str):
                shares = inverted(shares, obedience_of(concept, self.obedience, self.attribute))
            self._weights[concept] = shares
        return self._weights[concept]

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """The request that is this sample's, whatever the number of samples."""
        weights = self.weights(prompt.concept)
        why = why_not(prompt) or weights
        if isinstance(weights, str) or isinstance(why, str):
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        shift = int(digest([prompt.key])[:8], 16) / 16**8  # of its own, so that rounding evens out over concepts
        return self.asked(prompt, self.levels[stratum(weights, sample, shift)])


class Llm(Rewriter):
    """A chat model on this machine rewrites each prompt, once, before anything is drawn."""

    source = "Typecast; greedy decoding, so that the same model writes the same"
    written = ("rewrites", "made_by")
    model: str = Field(min_length=1)
    """A folder, or the name of a hub model that transformers loads as a causal language model with a chat template."""
    revision: str | None = None
    """A branch, tag or commit of a hub model; `null` is its main branch."""
    instruction: str = Field(_data()["llm"]["instruction"], min_length=1)
    """What the model is told; the prompt follows."""
    max_new_tokens: int = Field(77, ge=1, le=4096)
    rewrites: dict[str, str] = {}
    """Prompt to what the model wrote."""
    made_by: str = ""
    """The model with its commit, or the sha256 of its weights."""

    def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
        """What the model wrote; the same in every image."""
        written = self.rewrites.get(prompt.text)
        if not written:
            why = "not rewritten yet" if written is None else "the model wrote nothing"
            return Rewrite(prompt.text, drawn=f"{LEFT_ALONE}{why}")
        kept = re.search(rf"\b{re.escape(prompt.concept)}(?:s|es)?\b", written, re.IGNORECASE)
        return Rewrite(written, drawn="" if kept else DROPPED)

    def prepared(self, prompts: Sequence[Prompt]) -> Llm:
        """The arm with the rewrites of these prompts, made by the model where they are not there."""
        missing = [text for text in dict.fromkeys(p.text for p in prompts) if text not in self.rewrites]
        if not missing:
            return self
        writer = self._open()
        answers = writer.answers(self.instruction, missing, max_new_tokens=self.max_new_tokens)
        rewrites = self.rewrites | dict(zip(missing, map(one_line, answers), strict=True))
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


def build(arms: Sequence[str | dict[str, dict[str, Any]]], *, guidance_scale: float) -> tuple[Rewriter, ...]:
    """The arms that a study lists: a name, or `{name: {parameter: value}}`. `FILE.py:CLASS` is an arm of the user's."""
    built = tuple(_one(arm) for arm in arms)
    names = [arm.name for arm in built]
    if len(set(names)) < len(names):
        raise InputError(f"arms: {', '.join(names)}: each arm once; give the second a `name` of its own")
    if guidance_scale <= 1 and any(isinstance(arm, Negative) for arm in built):
        raise InputError("arms: negative cannot act at draw.guidance_scale 1; raise it above 1 or leave the arm out")
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
        raise InputError(f"arms: {file}: no such Python file")
    try:
        found = runpy.run_path(str(file), run_name=file.stem).get(name)
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"arms: {file}: cannot be run: {type(error).__name__}: {error}") from None
    if not isinstance(found, type) or not issubclass(found, Rewriter):
        raise InputError(f"arms: {file}: {name} must be a class in it, made from pipeline.mitigations.Rewriter")
    return found


def prepared(listed: str | dict[str, dict[str, Any]], prompts: Sequence[Prompt]) -> str | dict[str, dict[str, Any]]:
    """An arm as a study lists it, with what it must do once before anything is drawn done and written into it."""
    arm = _one(listed)
    ready = arm.prepared(prompts)
    if ready is arm:
        return listed
    name, parameters = (listed, {}) if isinstance(listed, str) else next(iter(listed.items()))
    return {name: {**parameters, **{key: ready.parameters[key] for key in arm.written}}}


def remembered(
    wanted: str | dict[str, dict[str, Any]], began: str | dict[str, dict[str, Any]]
) -> str | dict[str, dict[str, Any]]:
    """`began`, an arm of the study that is in a folder, if it is the same as `wanted` but for what `prepared` wrote."""
    written = _one(began).written

    def asked(listed: str | dict[str, dict[str, Any]]) -> Any:
        if isinstance(listed, str):
            return listed
        return {n: {k: v for k, v in p.items() if k not in written} for n, p in listed.items()}

    return began if asked(wanted) == asked(began) else wanted


def one_line(answer: str) -> str:
    """The first line of a model's answer that says something, without the quotation marks around it."""
    lines = [line.strip().strip("\"'“”`").strip() for line in answer.splitlines()]
    return next(filter(None, lines), "")


def rewritten(arm: Arm, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
    """What an arm sends, which must be something; an arm of the user's may do anything else."""
    try:
        found = arm.rewrite(prompt, sample, rng)
        if not isinstance(found, Rewrite):
            raise TypeError(f"rewrite must give a pipeline.types.Rewrite, not {found!r}")
    except InputError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise InputError(f"arms: {arm.name}: cannot rewrite {prompt.text!r} (sample {sample}): {said}") from error
    if not found.text.strip():
        raise InputError(f"arms: {arm.name}: makes {prompt.text!r} (sample {sample}) an empty prompt")
    return found


def tried(name: str, text: str, changes: Sequence[str] = (), samples: int = 10) -> list[Rewrite]:
    """What an arm would send for the first samples of a prompt whose concept is the longest occupation in it."""
    parameters: dict[str, Any] = {}
    for change in changes:
        checks.set_by_path(parameters, change)
    arm = one_arm(name, parameters)
    known = [
        concept for concept in prompt_sets.occupations() if re.search(rf"\b{re.escape(concept)}\b", text.casefold())
    ]
    concept = max(known, key=len, default=prompt_sets.PERSON)
    prompt = Prompt(prompt_set="tried", concept=concept, template="tried", text=text)
    arm = arm.prepared([prompt])
    return [rewritten(arm, prompt, k, np.random.default_rng([k, 1])) for k in range(samples)]


# -- words -------------------------------------------------------------------------------------------


@cache
def _any_of(key: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, _data()[key]))})\b", re.IGNORECASE)


@cache
def why_not(prompt: Prompt) -> str:
    """Why a prompt is not to be given a group, or nothing: as far as its words and the list of occupations tell."""
    if prompt.identity or _any_of("group_words").search(prompt.text):
        return "names a group"
    about = prompt.concept.casefold() in prompt_sets.occupations() or _any_of("person_words").search(prompt.text)
    return "" if about else "names no person"


@cache
def placed(prompt: Prompt, term: str, position: Position) -> str:
    """The prompt with a term: `a photo of a female nurse`, or `a photo of a nurse, female`."""
    if position == "after":
        return f"{prompt.text}, {term}"
    words = rf"\b(?:(a|an)\s+)?(?={re.escape(prompt.concept)}\b)"
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


def stratum(weights: Sequence[float], sample: int, shift: float) -> int:
    """Which of K levels sample k = 0, 1, … is given, so that the first n samples hold each about n times its weight.

    A level of weight w is given where ⌊(k + 1) w + shift⌋ exceeds ⌊k w + shift⌋ (systematic sampling: Madow and Madow
    1944, Annals of Mathematical Statistics 15:1); what is left goes to the other levels by the same rule. So the first
    level's count differs from n w by less than 1 at every n, and no sample's level depends on n. `shift` in 0..1.
    """
    left = 1.0
    for level, weight in enumerate(weights[:-1]):
        share = min(weight / left, 1.0) if left > 0 else 0.0
        before = math.floor(sample * share + shift)
        if math.floor((sample + 1) * share + shift) > before:
            return level
        sample, left = sample - before, left - weight
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
    if complete is None or any(not 0 <= share <= 1 for share in shares.values()) or "" in shares:
        said = ", ".join(f"{level or 'an empty term'}: {share:g}" for level, share in shares.items())
        raise ValueError(f"{what} must be shares that sum to 1; they are {said}, in sum {math.fsum(shares.values()):g}")
    return list(complete.tolist())


def _rows(file: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """A CSV file that has these columns."""
    try:
        with Path(file).open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{file}: lacks rows with the columns {', '.join(missing)}; it must have {', '.join(columns)}")
    return rows


def _share(file: str, row: Mapping[str, str]) -> float:
    try:
        return float(row["share"])
    except (TypeError, ValueError):
        raise InputError(f"{file}: {row['concept']}: {row['share']!r} is no share; write a number in 0..1") from None


@cache
def _target_file(file: str, attribute: str) -> dict[str, tuple[float, ...]]:
    """Concept in lower case to shares per level; a level that is not there is 0."""
    levels, found = ATTRIBUTES[attribute].levels, dict[str, dict[str, float]]()
    for row in _rows(file, ("concept", "attribute", "level", "share")):
        if row["attribute"] == attribute:
            level = one_of(row["level"], levels, where=f"{file}: {row['concept']}: level")
            found.setdefault(row["concept"].casefold(), dict.fromkeys(levels, 0.0))[level] = _share(file, row)
    if not found:
        raise InputError(f"{file}: has no row about {attribute}")
    try:
        return {c: tuple(_summing_to_one(shares, f"{file}: {c}: the shares")) for c, shares in found.items()}
    except ValueError as error:
        raise InputError(str(error)) from None


@cache
def _obedience_file(file: str, attribute: str) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Concept to what was drawn when each level was asked for: shares `(K, K)` (rows asked) and images `(K,)`."""
    levels = ATTRIBUTES[attribute].levels
    found: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    rows = [row for row in _rows(file, OBEDIENCE) if row["attribute"] == attribute]
    arms = sorted({row["arm"] for row in rows})
    if len(arms) > 1:
        raise InputError(
            f"{file}: is of several arms: {', '.join(arms)}; keep the rows of the one that asks as this does"
        )
    for row in rows:
        asked, level = (levels.index(one_of(row[key], levels, where=f"{file}: {key}")) for key in ("asked", "level"))
        blank = np.full((len(levels), len(levels)), math.nan), np.zeros(len(levels))
        shares, n = found.setdefault(row["concept"], blank)
        if row["share"]:
            shares[asked, level], n[asked] = _share(file, row), float(row["n"])
    if ALL_CONCEPTS not in found or np.isnan(found[ALL_CONCEPTS][0]).any():
        raise InputError(
            f"{file}: does not say what every level of {attribute} gives when it is asked for, over {ALL_CONCEPTS}; "
            "take the obedience-<arm>.csv of an arm `target` that asks for all of them"
        )
    return found


def obedience_of(concept: str, file: str, attribute: str) -> npt.NDArray[np.float64]:
    """What is drawn when each level is asked for `(K, K)`: a concept's own pilot, drawn towards all concepts'.

    By as much as its own images are uncertain beside how far the concepts lie apart: the empirical Bayes weight of
    Morris (1983), J. American Statistical Association 78:47, with the variance between by moments.
    """
    found = _obedience_file(file, attribute)
    mean, _ = found[ALL_CONCEPTS]
    own, n = found.get(concept, (np.full(mean.shape, math.nan), np.zeros(len(mean))))
    apart = [(s, m[:, None]) for c, (s, m) in found.items() if c != ALL_CONCEPTS and not np.isnan(s).any()]
    if np.isnan(own).any() or len(apart) < 3:
        return mean
    within = np.mean([mean * (1 - mean) / m for _, m in apart], 0)
    between = np.maximum(np.var([s for s, _ in apart], 0, ddof=1) - within, 0)
    weight = between / np.maximum(between + mean * (1 - mean) / n[:, None], 1e-12)
    mixed: npt.NDArray[np.float64] = weight * own + (1 - weight) * mean
    return np.asarray(mixed / mixed.sum(1, keepdims=True))
