"""Prompt-set file -> prompts: the start of the line. What the files look like is in `prompt_sets/README.md`."""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, field_validator, model_validator

from pipeline import checks
from pipeline.errors import InputError
from pipeline.types import Prompt

FOLDER = Path(__file__).resolve().parent
"""Where the files that ship are."""

PERSON = "person"
"""The concept of a prompt whose template names none."""

Status = Literal["verified", "secondary", "remembered"]
"""Read in the primary source; read in somebody's account of it; not read, only remembered."""

WEAKNESS: dict[Status, int] = {"verified": 0, "secondary": 1, "remembered": 2}

PLACEHOLDERS = ("concept", "a_concept", "identity", "an_identity")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Article = Literal["a", "an"]


# -- the file ----------------------------------------------------------------------------------------


class Part(BaseModel):
    """A mapping of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Template(Part):
    """A sentence with placeholders. In the file: the sentence alone, or `{text, status}`."""

    text: Text
    status: Status | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"text": value}

    @field_validator("text")
    @classmethod
    def _known_placeholders(cls, text: str) -> str:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        try:
            fields = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}; the placeholders are: {known}") from None
        for name, form, conversion in fields:
            if name not in PLACEHOLDERS or form or conversion:
                raise ValueError(f"{text!r}: unknown placeholder {{{name}}}; the placeholders are: {known}")
        return text

    def names(self, what: str) -> bool:
        """Does the sentence mention a `concept`, or an `identity`?"""
        return any(part[1] in (what, f"a_{what}", f"an_{what}") for part in string.Formatter().parse(self.text))


class Named(Part):
    """Words for a placeholder, with the article that goes before them."""

    phrase: Text | None = None
    article: Article | None = None
    """Only where the rule in `article` gets it wrong: `an MRI technologist`."""
    status: Status | None = None


class Concept(Named):
    """An occupation, trait or object. In the file: its name alone, or `{concept, phrase, article, status}`."""

    concept: Text

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"concept": value}


class Identity(Named):
    """Identity terms. In the file: the phrase alone, or `{phrase, article, status}`."""

    phrase: Text

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"phrase": value}


def _name_of_template(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
        raise ValueError(f"{name!r} is no name for a template; write a short word, such as face or at_work")
    return name


class Written(Part):
    """A prompt written out, for what is no cross of templates, concepts and identities."""

    text: Text
    concept: Text
    template: Text = "written"
    identity: str = ""
    status: Status | None = None

    @field_validator("template")
    @classmethod
    def _short_name(cls, template: str) -> str:
        return _name_of_template(template)


class File(Part):
    """A prompt-set file."""

    description: Text
    source: Text
    licence: Text
    status: Status
    templates: dict[str, Template] = {}
    identities: dict[Text, Identity] = {}
    concepts: tuple[Concept, ...] = ()
    prompts: tuple[Written, ...] = ()
    left_out: tuple[Text, ...] = ()

    @field_validator("templates")
    @classmethod
    def _short_names(cls, templates: dict[str, Template]) -> dict[str, Template]:
        return {_name_of_template(name): template for name, template in templates.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> File:
        if not self.templates and not self.prompts:
            raise ValueError("no prompts: give templates and concepts, or prompts that are written out")
        for what, given in (("concept", self.concepts), ("identity", self.identities)):
            key = "concepts" if what == "concept" else "identities"
            users = [name for name, template in self.templates.items() if template.names(what)]
            if users and not given:
                raise ValueError(f"templates.{users[0]} names {{{what}}}, but there are no {key}")
            if given and not users:
                raise ValueError(f"{key} are given, but no template names {{{what}}}")
        return self


# -- the prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts with where they come from."""

    name: str
    """The stem of the file."""
    description: str
    source: str
    licence: str
    status: Status
    """Of the file as a whole; a single prompt may differ."""
    prompts: tuple[Prompt, ...]
    statuses: tuple[Status, ...]
    """One per prompt: the weakest of its template's, its concept's and its identity's."""
    left_out: tuple[str, ...]
    """What the source has and this set has not, each with the reason."""


def names() -> list[str]:
    """The prompt sets that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def studies() -> dict[str, Path]:
    """The study files that ship, by name."""
    return {path.stem: path for path in sorted((FOLDER / "studies").glob("*.yaml"))}


def written_out(chosen: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """A prompt set as a run keeps it: one that ships by its name, any other with all that its file says, for the file may be
    moved or changed."""
    name, raw, _ = _read(chosen)
    return name if name in names() else {name: raw}


def load(chosen: str | Mapping[str, Any]) -> PromptSet:
    """A prompt set that ships, one from a YAML file, or one that is written out: `{name: what its file would say}`."""
    name, raw, where = _read(chosen)
    try:
        file = File.model_validate(raw)
    except ValidationError as error:
        raise checks.explain(error, where=where, model=File) from None
    pairs = list(_prompts(file, name))
    twice = [key for key, count in Counter(prompt.key for prompt, _ in pairs).items() if count > 1]
    if twice:
        _, concept, template, identity = twice[0]
        key = f"concept ({concept}), template ({template}) and identity ({identity or 'none'})"
        raise InputError(f"{where}: two prompts are of the same {key}: their keys must differ")
    return PromptSet(
        name=name,
        description=file.description,
        source=file.source,
        licence=file.licence,
        status=file.status,
        prompts=tuple(prompt for prompt, _ in pairs),
        statuses=tuple(status for _, status in pairs),
        left_out=file.left_out,
    )


def _read(chosen: str | Mapping[str, Any]) -> tuple[str, dict[str, Any], str]:
    """The name of a prompt set, the plain data of its file, and where they are from."""
    if not isinstance(chosen, str):
        match list(chosen.items()):
            case [(str(name), dict(raw))] if name not in ("", *names()):
                return name, raw, f"prompt_sets: {name}"
        raise InputError(
            f"prompt_sets: {', '.join(chosen) or 'nothing'}: one that is written out is a name, other than those "
            "of the sets that ship, with what its file would say"
        )
    ships = names()
    path = FOLDER / f"{chosen}.yaml" if chosen in ships else Path(chosen)
    if not os.path.exists(path):
        looked = f" ({os.path.abspath(path)})" if len(path.parts) > 1 or path.suffix else ""
        raise InputError(f"{chosen}: no such prompt set or file{looked}; the sets that ship are: {', '.join(ships)}")
    raw = checks.read_yaml(path)
    if path.stem in ships and not path.samefile(FOLDER / f"{path.stem}.yaml"):
        raise InputError(
            f"{path}: has the name of a prompt set that ships, which the results would bear; rename the file"
        )
    return path.stem, raw, str(path)


def _prompts(file: File, name: str) -> Iterator[tuple[Prompt, Status]]:
    """Every template crossed with what it names, concept by concept, then the prompts written out."""
    nobody = Concept(concept=PERSON)
    for concept in (*file.concepts, None):
        for label, template in file.templates.items():
            if template.names("concept") != (concept is not None):
                continue
            people: list[tuple[str, Identity | None]] = [("", None)]
            for terms, identity in file.identities.items() if template.names("identity") else people:
                thing = concept or nobody
                text = template.text.format(**_words(thing, identity))
                prompt = Prompt(prompt_set=name, concept=thing.concept, template=label, identity=terms, text=text)
                yield prompt, _weakest(file, template, concept, identity)
    for one in file.prompts:
        prompt = Prompt(
            prompt_set=name, concept=one.concept, template=one.template, identity=one.identity, text=one.text
        )
        yield prompt, _weakest(file, one)


def _words(concept: Concept, identity: Identity | None) -> dict[str, str]:
    """What stands for each placeholder."""
    thing = concept.phrase or concept.concept
    who = identity.phrase if identity else ""
    return {
        "concept": thing,
        "a_concept": f"{concept.article or article(thing)} {thing}",
        "identity": who,
        "an_identity": f"{(identity.article if identity else None) or article(who)} {who}",
    }


def _weakest(file: File, *parts: Template | Named | Written | None) -> Status:
    """The weakest status of the parts; one that states none has that of the file."""
    return max((part.status or file.status for part in parts if part), key=WEAKNESS.__getitem__)


_VOWEL_SOUND = re.compile(r"[aeiou]|hono|hones|hour|heir", re.IGNORECASE)
_CONSONANT_SOUND = re.compile(r"uni(?![nm])|us[aeiu]|uk|uga|uru|ut[ei]|eu|one\b|once\b", re.IGNORECASE)


def article(phrase: str) -> str:
    """`a` or `an`, by the sound that the phrase begins with: `a European`, `an hour`. Acronyms need it said."""
    return "an" if _VOWEL_SOUND.match(phrase) and not _CONSONANT_SOUND.match(phrase) else "a"
