"""The study file: everything that a run is asked for, checked before anything is loaded."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import prompt_sets
from classifiers.attributes import ATTRIBUTES
from pipeline import checks, mitigations
from pipeline.errors import InputError, without_secrets
from pipeline.types import CANNOT_TELL, NOT_ONE_PERSON, Prompt

ZERO_SHOT = "zero_shot"
"""The probe that asks in words."""
TRIED_PROMPTS, TRIED = 10, 20
"""Prompts, and samples of each, that an arm is tried with before anything is loaded."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Of a study: it is the folder of its run."""


SECRET = "holds a token or a password, which would be kept in the run folder; set HF_TOKEN instead"

Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
"""As YAML has them: `yes` is no 1, and "16" is text."""


def _secret(value: object) -> bool:
    return without_secrets(str(value)) != str(value)


class Part(BaseModel):
    """A mapping of the study file: frozen, and an unknown key is an error, as is a secret: the study is kept in its run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        if not isinstance(value, dict) and _secret(value):
            raise ValueError(SECRET)
        return value


class Model(Part):
    """The text-to-image model."""

    path: str = "embedded"
    """`embedded`, `fake`, a folder in diffusers' layout, or the name of a hub model."""
    revision: str | None = None
    """A branch, tag or commit of a hub model; `null` is its main branch."""


class Draw(Part):
    """How the model is asked to draw."""

    num_inference_steps: Whole = Field(25, ge=1, le=1000)
    guidance_scale: Number = Field(3.0, ge=0, le=100)
    height: Whole = Field(64, ge=8, le=4096)
    width: Whole = Field(64, ge=8, le=4096)
    dtype: str = Field("float32", pattern="^(float32|float16|bfloat16)$")
    scheduler: str | None = None
    """Class name of a diffusers scheduler; `null` is the checkpoint's own."""
    batch_size: Whole = Field(16, ge=1, le=512)
    threads: Whole = Field(default=2, ge=1, le=1024)
    """CPU threads per worker. The bytes of an image that a CPU draws depend on it, and so its unit's id does: as many
    on every machine, whatever it has."""
    compile: Literal["regional", "whole"] | None = None
    """torch.compile: the blocks that repeat, or the whole network and decoder. Pays for many images on a GPU."""
    cache: Literal["attention"] | None = None
    """The network's attention kept for every other step (Zhao et al. 2024): faster, and *not the same distribution*."""
    quantization: Literal["float8"] | None = None
    """The network's weights in 8 bits: half the memory, and *not the same distribution*."""

    @model_validator(mode="after")
    def _compiled_as_it_is(self) -> Draw:
        if self.compile and (self.cache or self.quantization):
            raise ValueError("compile goes with neither cache nor quantization; leave it null, or both of them")
        return self


class Perceive(Part):
    """How the images are read."""

    clip: str = "embedded"
    """`embedded`, a folder in open_clip's layout, an open_clip model name, or `hf-hub:...`."""
    pretrained: str | None = None
    """The weights of a named open_clip model, such as `openai`."""
    probe: str = Field(ZERO_SHOT, min_length=1)
    """`zero_shot`, `embedded` (fitted to the embedded CLIP), or a folder that `typecast probe fit` wrote."""
    attributes: tuple[str, ...] = ("gender", "skin_tone", "age")
    threshold: Number | None = Field(None, ge=0, le=1)
    """A level is decided when its probability reaches this; below, the answer is `cannot tell`. `null` is 0.6 for
    `zero_shot`. A fitted probe has thresholds of its own."""
    people: Literal["keep_all", "largest_face", "exactly_one"] = "keep_all"
    """Which pictures are read, by the faces that a detector finds, which knows photographs: all of them; the largest
    face alone, where there is any; or those with exactly one. The others are counted as `not one person`."""

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError("name at least one attribute, each once")
        for name in names:
            if name not in ATTRIBUTES:
                raise ValueError(f"{name!r} is not known; the choices are: {', '.join(ATTRIBUTES)}")
        return names

    @model_validator(mode="before")
    @classmethod
    def _threshold(cls, raw: Any) -> Any:
        """Written out, as every default is."""
        if not isinstance(raw, dict) or raw.get("probe", ZERO_SHOT) != ZERO_SHOT or raw.get("threshold") is not None:
            return raw
        return raw | {"threshold": 0.6}

    @model_validator(mode="after")
    def _own_threshold(self) -> Perceive:
        if self.probe != ZERO_SHOT and self.threshold is not None:
            raise ValueError(
                f"threshold: the probe {self.probe} has thresholds of its own, on which its errors were measured; leave "
                "it null, or fit the probe again with another --risk"
            )
        return self

    @property
    def name(self) -> str:
        """The folder of these perceptions: by what is written alone, whether or not it is on the disk here and now."""
        at_home = self.clip.removeprefix("hf-hub:") == self.clip and not self.pretrained  # `embedded`, or a folder
        clip = Path(self.clip).name if at_home else self.clip.removeprefix("hf-hub:")
        people = "" if self.people == "keep_all" else self.people
        words = "-".join(word for word in (clip, self.pretrained, Path(self.probe).name, people) if word)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", words).strip("-.")


class Reference(Part):
    """A table that the shares are held against."""

    table: str
    year: Whole | None = None
    """`null` is the newest year of the table."""


PromptSets = tuple[str | dict[str, dict[str, Any]], ...]
"""By name, by path, or written out as `{name: what the file would say}`; see `prompt_sets.load`."""


class Study(Part):
    """One study: one model and one setting."""

    name: str = Field(pattern=NAME)
    description: str = ""
    prompt_sets: PromptSets = Field(min_length=1)
    model: Model = Field(default_factory=Model)
    draw: Draw = Field(default_factory=Draw)
    images_per_prompt: Whole = Field(50, ge=1, le=1_000_000)
    seed: Whole = Field(0, ge=0)
    arms: tuple[str | dict[str, dict[str, Any]], ...] = Field(default=("none",), min_length=1)
    perceive: Perceive = Field(default_factory=Perceive)
    reference: tuple[Reference, ...] = ()
    grown_from: tuple[Whole, ...] = ()
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

    @model_validator(mode="after")
    def _as_the_model_can(self) -> Study:
        asked = [name for name in ("compile", "cache", "quantization") if getattr(self.draw, name)]
        if self.model.path == "fake" and asked:
            raise ValueError(f"draw.{asked[0]}: the model fake has no network; leave it null")
        return self

    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts of all prompt sets, in the order of the files."""
        return _prompts(self.prompt_sets)

    def rewriters(self) -> tuple[mitigations.Rewriter, ...]:
        """The arms, built and checked against these settings, each told of the prompts."""
        prompts = self.prompts()
        return tuple(arm.among(prompts) for arm in mitigations.build(self.arms, self.perceive.attributes))

    def prepared(self) -> Study:
        """The study with what its arms must do before anything is drawn: a chat model's rewrites are kept in it."""
        return self.model_copy(update={"arms": tuple(mitigations.prepared(a, self.prompts()) for a in self.arms)})


# -- pictures made elsewhere -------------------------------------------------------------------------


class Columns(Part):
    """Where a file of data made elsewhere says what."""

    concept: str
    count: str | None = None
    """The column with how many pictures a line stands for; without it a line is one picture, named in `image`."""
    image: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Columns:
        if (self.count is None) == (self.image is None):
            raise ValueError("name either count (a line stands for many pictures) or image (a line is one picture)")
        return self


class Said(Part):
    """How the file says one attribute."""

    column: str
    levels: dict[str, str] = Field(min_length=1)
    """What stands in the column, to the letter and the space, to a level, `cannot tell` or `not one person`. The last is
    said of the picture: it is then in no attribute's shares."""


class Made(Part):
    """An arm of pictures made elsewhere: one model, asked in one way."""

    model: str
    lines: dict[str, str] = Field(default_factory=dict)
    """Columns and what stands in them: which lines of the file are of this arm. Without any, all are."""
    baseline: str | None = None
    """The arm that this one is held against, to see what it changed: the same model, asked plainly."""
    caution: str = ""
    """What whoever reads the page must know of the arm, in a sentence."""


class Counted(Part):
    """Lines of the file that are a reference, such as the pictures that a model has learnt from."""

    publisher: str
    table: str
    title: str
    licence: str
    lines: dict[str, str] = Field(min_length=1)


class ReadBy(Part):
    """Who said what the pictures show."""

    who: str
    """For a sentence: `FairFace`, `one person`."""
    kind: Literal["classifier", "person"]


class ImportStudy(Part):
    """A study of pictures that were made and read elsewhere: one CSV of counts, or of a line per labelled picture."""

    name: str = Field(pattern=NAME)
    description: str = ""
    source: str
    """Where the file comes from, for whoever quotes a number."""
    licence: str
    prompt_sets: PromptSets = Field(min_length=1)
    """What was asked: one prompt for each concept of the file."""
    data: str
    """The CSV, beside this file or in a folder below."""
    images: str | None = None
    """The folder of the pictures, if they are here; a line whose picture is not in it is counted as failed."""
    columns: Columns
    concepts: dict[str, str] = Field(default_factory=dict)
    """What the file calls a concept, where the prompt set calls it otherwise."""
    attributes: dict[str, Said] = Field(min_length=1)
    read_by: ReadBy
    arms: dict[str, Made] = Field(min_length=1)
    own_references: tuple[Counted, ...] = ()
    reference: tuple[Reference, ...] = ()
    seed: Whole = Field(0, ge=0)
    """Of the posterior draws."""

    @field_validator("data", "images")
    @classmethod
    def _stays_inside(cls, path: str | None) -> str | None:
        if path is not None and not _inside(path):
            raise ValueError(f"{path!r} leaves the folder of the study; put it beside the study and name it from there")
        return path

    @field_validator("own_references")
    @classmethod
    def _told_apart(cls, references: tuple[Counted, ...]) -> tuple[Counted, ...]:
        """By what every number that is held against one is quoted with."""
        named = [f"{own.publisher}, {own.table}" for own in references]
        if twice := [name for name in dict.fromkeys(named) if named.count(name) > 1]:
            raise ValueError(
                f"{'; '.join(twice)}: several references are called so, and no number says which it is held against; give "
                "each a table of its own, such as the year or the source"
            )
        return references

    @model_validator(mode="after")
    def _known_levels(self) -> ImportStudy:
        if self.images is not None and self.columns.image is None:
            raise ValueError(
                "images is a folder of pictures, but columns.image does not say where a line names its own"
            )
        for name, made in self.arms.items():
            others = [other for other in self.arms if other != name]
            if made.baseline is not None and made.baseline not in others:
                raise ValueError(
                    f"arms.{name}.baseline: {made.baseline!r} is no other arm; the choices are: {', '.join(others)}"
                )
        for name, said in self.attributes.items():
            if name not in ATTRIBUTES:
                raise ValueError(f"attributes: {name!r} is not known; the choices are: {', '.join(ATTRIBUTES)}")
            known = (*ATTRIBUTES[name].levels, CANNOT_TELL, NOT_ONE_PERSON)
            for word, level in said.levels.items():
                if level not in known:
                    raise ValueError(
                        f"attributes.{name}.levels: {word!r} is put to {level!r}; the choices are: {', '.join(known)}"
                    )
        return self

    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts of all prompt sets, in the order of the files; one for each concept."""
        prompts = _prompts(self.prompt_sets)
        twice = [c for c, n in Counter(p.concept.casefold() for p in prompts).items() if n > 1]
        if twice:
            raise InputError(f"prompt_sets: several prompts for {twice[0]!r}, and the data do not say which was asked")
        return prompts


class FolderStudy(Part):
    """A study of a folder of pictures that were made elsewhere and are read here. `typecast import FOLDER` writes it."""

    name: str = Field(pattern=NAME)
    description: str = ""
    model: str
    """Who or what made the pictures, for a sentence."""
    pictures: str
    """The folder they were read from; after the import nothing is read from it."""
    files: int = Field(ge=1)
    """How many there were."""
    sha256: str
    """Of the names and the bytes of all files."""
    concepts: tuple[str, ...] = Field(min_length=1)
    """What the pictures are of: one for all, or the names of the sub-folders."""
    grid: bool = False
    """Is each file a 2 x 2 grid of pictures?"""
    perceive: Perceive = Field(default_factory=Perceive)
    reference: tuple[Reference, ...] = (Reference(table="bls_cps_table11"),)
    seed: Whole = Field(0, ge=0)
    """Of the posterior draws."""
    prompt_sets: tuple[str, ...] = Field((), max_length=0)
    """None: what was asked is not known."""
    arms: tuple[str, ...] = Field(("none",), min_length=1, max_length=1)

    def prompts(self) -> tuple[Prompt, ...]:
        """One for each concept; the words that were sent are not known."""
        return tuple(Prompt(prompt_set="pictures", concept=c, template="picture", text=c) for c in self.concepts)


def _inside(path: str) -> bool:
    """Does a relative path stay below where it starts?"""
    parts = PurePosixPath(path.replace("\\", "/"))
    return not parts.is_absolute() and not PureWindowsPath(path).drive and ".." not in parts.parts


def _prompts(chosen: PromptSets) -> tuple[Prompt, ...]:
    sets = [prompt_sets.load(one) for one in chosen]
    prompts = tuple(prompt for one in sets for prompt in one.prompts)
    keys = [p.key for p in prompts]
    if len(set(keys)) < len(keys):
        raise InputError(f"prompt_sets: {', '.join(one.name for one in sets)}: a prompt set is named twice")
    seen: dict[tuple[str, ...], str] = {}
    for p in prompts:
        # the seed is of concept, template, identity and sample (`plan.seed_of`): with one text the pictures are the same
        before = seen.setdefault((p.concept, p.template, p.identity, p.text), p.prompt_set)
        if before != p.prompt_set:
            raise InputError(
                f"prompt_sets: {p.text!r} (concept {p.concept}, template {p.template}) is in {before} and in {p.prompt_set}: "
                "the same pictures would be drawn and counted twice; leave out one of the sets, or put its other prompts "
                "into a set of yours"
            )
    return prompts


# -- reading -----------------------------------------------------------------------------------------


def load(name_or_path: str, changes: tuple[str, ...] = ()) -> Study:
    """A study that ships, or one from a YAML file, with `KEY=VALUE` changes by dotted path.

    Everything that can be known to be wrong before a model is loaded is an `InputError` here.
    """
    path, raw = _read(name_or_path)
    for change in changes:
        checks.set_by_path(raw, change)
    return parse(raw, where=" ".join([str(path), *(f"--set {change}" for change in changes)]))


def load_import(name_or_path: str) -> tuple[ImportStudy, Path]:
    """A study of pictures made elsewhere, and the folder in which its data lie."""
    path, raw = _read(name_or_path)
    return parse_import(raw, where=str(path)), path.parent


def _read(name_or_path: str) -> tuple[Path, dict[str, Any]]:
    path = prompt_sets.studies().get(name_or_path, Path(name_or_path))
    if (path / "study.yaml").is_file():
        raise InputError(f"{path}: is a run; go on with it by: typecast run {path / 'study.yaml'} --out {path}")
    if not path.is_file():
        ships = ", ".join(sorted(prompt_sets.studies()))
        raise InputError(f"{name_or_path}: no such study file; the studies that ship are: {ships}")
    raw = checks.read_yaml(path)
    raw.setdefault("name", path.stem)
    return path, raw


def made_elsewhere(raw: dict[str, Any]) -> bool:
    """Is this the plain data of an `ImportStudy`?"""
    return "data" in raw


def of_a_folder(raw: dict[str, Any]) -> bool:
    """Is this the plain data of a `FolderStudy`?"""
    return "pictures" in raw


def is_import(name_or_path: str) -> bool:
    """Is this a study of pictures made elsewhere?"""
    return made_elsewhere(_read(name_or_path)[1])


def parse(raw: dict[str, Any], *, where: str) -> Study:
    """A study from plain data, with its prompts, arms and tables looked up once."""
    if made_elsewhere(raw):
        raise InputError(f"{where}: names data of pictures that were made elsewhere; read it with: typecast import")
    if of_a_folder(raw):
        raise InputError(
            f"{where}: is of a folder of pictures made elsewhere (typecast import FOLDER), which cannot be drawn or compared"
        )
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise checks.explain(error, where=where, model=Study) from None
    try:
        prompts = study.prompts()
        for arm in study.rewriters():
            _can_act(arm, prompts, study)
        _looked_up(study.reference)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return study.model_copy(update={"prompt_sets": tuple(map(prompt_sets.written_out, study.prompt_sets))})


def _can_act(arm: mitigations.Rewriter, prompts: tuple[Prompt, ...], study: Study) -> None:
    """An arm sends the same again for the same sample, no negative prompt where none can act, and what it asks for is known of
    some prompt that it may touch. The first sample of every prompt is tried, of the first prompts more."""
    acts, reasons = False, []
    tried = [(prompt, 0) for prompt in prompts]
    tried += [(p, sample) for p in prompts[:TRIED_PROMPTS] for sample in range(1, min(study.images_per_prompt, TRIED))]
    for prompt, sample in tried:
        once, again = (mitigations.rewritten(arm, prompt, sample, np.random.default_rng(sample)) for _ in range(2))
        if once != again:
            raise InputError(
                f"arms: {arm.name}: sends {once.text!r} and then {again.text!r} for the same sample, so that no run "
                "could continue; draw from the rng that rewrite is given"
            )
        if once.negative_prompt and study.draw.guidance_scale <= 1:
            raise InputError(
                f"arms: {arm.name}: sends a negative prompt, which cannot act at draw.guidance_scale "
                f"{study.draw.guidance_scale:g}; raise it above 1 or leave the arm out"
            )
        if not once.drawn.startswith(mitigations.LEFT_ALONE):
            acts = True
        elif not acts and not mitigations.why_not(prompt):
            reasons.append(once.drawn)
    if reasons and not acts and not isinstance(arm, mitigations.Llm):  # its rewrites are made later
        raise InputError(
            f"arms: {arm.name}: would leave every prompt alone; of the first: {reasons[0].removeprefix(mitigations.LEFT_ALONE)}"
        )


def parse_import(raw: dict[str, Any], *, where: str) -> ImportStudy:
    """A study of pictures made elsewhere from plain data, with its prompts and tables looked up once."""
    if not made_elsewhere(raw):
        raise InputError(f"{where}: names no data to import (a CSV, under the key data); draw it with: typecast run")
    try:
        study = ImportStudy.model_validate(raw)
    except ValidationError as error:
        raise checks.explain(error, where=where, model=ImportStudy) from None
    try:
        _put_to_concepts(study.concepts, study.prompts())
        _looked_up(study.reference)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return study.model_copy(update={"prompt_sets": tuple(map(prompt_sets.written_out, study.prompt_sets))})


def _put_to_concepts(concepts: dict[str, str], prompts: tuple[Prompt, ...]) -> None:
    """Every word is put to a concept that is asked for, and to one: upper and lower case do not matter."""
    known = sorted({prompt.concept for prompt in prompts})
    for word, concept in concepts.items():
        if concept.casefold() not in {one.casefold() for one in known}:
            raise InputError(f"concepts.{word}: {concept!r} is no concept of the prompts; they are: {', '.join(known)}")
    folded = Counter(word.casefold() for word in concepts)
    if twice := [word for word in concepts if folded[word.casefold()] > 1]:
        raise InputError(
            f"concepts: {', '.join(map(repr, twice))} are one word but for upper and lower case; put it once"
        )


def _looked_up(references: tuple[Reference, ...]) -> None:
    """Every table that is named is there, and named once."""
    tables = [prompt_sets.load_reference(reference.table, reference.year) for reference in references]
    named = [f"{table.table}, {table.year}" if table.year else table.table for table in tables]
    if twice := [name for name in dict.fromkeys(named) if named.count(name) > 1]:
        raise InputError(f"reference: {'; '.join(twice)}: named twice; leave out `year` for the newest")


def of_run(path: Path) -> Study | ImportStudy | FolderStudy:
    """The study of a run, of whichever kind, from its `study.yaml`."""
    raw = checks.read_yaml(path)
    kind = parse_import if made_elsewhere(raw) else parse_folder if of_a_folder(raw) else parse
    return kind(raw, where=str(path))


def parse_folder(raw: dict[str, Any], *, where: str) -> FolderStudy:
    """A study of a folder of pictures from plain data, with its tables looked up once."""
    try:
        study = FolderStudy.model_validate(raw)
    except ValidationError as error:
        raise checks.explain(error, where=where, model=FolderStudy) from None
    try:
        _looked_up(study.reference)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return study


def dump(study: Study | ImportStudy | FolderStudy) -> str:
    """The study as YAML with every default filled in, for its run folder.

    It has also what the files say that it names: an `InputError` if one of them holds a secret.
    """
    plain = study.model_dump(mode="json")
    for key in ("prompt_sets", "arms"):
        for one in plain[key]:
            if _secret(one):
                named = next(iter(one), one) if isinstance(one, dict) else one
                raise InputError(f"{study.name}: {key}: {named}: {SECRET}")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def differences(there: Study | FolderStudy, here: Study | FolderStudy, may_change: set[str]) -> list[str]:
    """What two studies of a kind say differently, by dotted key, in words."""
    old, new = (_flat(s.model_dump(mode="json", exclude=may_change)) for s in (there, here))
    return [
        f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in old | new
        if old.get(key) != new.get(key)
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
