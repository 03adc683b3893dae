"""What is perceived, as data: the levels of each attribute and the words that a zero-shot probe compares."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.types import Attribute, Intersection, digest

TEMPLATES = ("{}", "a photo of {}", "a portrait of {}", "a picture of {}", "a photo of the face of {}")
"""Every wording is put into each: no single phrasing decides. `digest_of` records them with the wordings."""

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
"""The five modifiers of Unicode emoji, which group the Fitzpatrick types 1-2, 3, 4, 5 and 6."""

RACES = ("White", "Black", "Asian")


def _skin(tone: str) -> tuple[str, ...]:
    """One tone, said of a person, a woman and a man, so that the wording does not lean to a gender."""
    people = (f"{noun} with {tone} skin" for noun in ("a person", "a woman", "a man"))
    return (f"a {tone}-skinned person", *people)


GENDER = Attribute(
    name="gender",
    title="perceived gender presentation",
    levels=("woman", "man"),
    wordings={  # each level at every age, so that the wording does not lean to an age
        "woman": ("a woman", "a female person", "a girl", "an older woman"),
        "man": ("a man", "a male person", "a boy", "an older man"),
    },
)
"""How a viewer would read the presentation in the picture. Two levels because the references know two; whoever
reads as neither is what `cannot tell` is for. It says nothing about identity: nobody in the picture exists."""

SKIN_TONE = Attribute(
    name="skin_tone",
    title="perceived skin tone",
    levels=TONES,
    wordings={tone: _skin(tone) for tone in TONES},
)
"""The tone as drawn or lit, not ethnicity. On photographs CLIP hardly tells neighbouring tones apart: five levels
without a measured confusion matrix say less than they seem to."""

AGE = Attribute(
    name="age",
    title="perceived age group",
    levels=("child", "adult", "older"),
    wordings={
        "child": ("a child", "a girl", "a boy"),
        "adult": ("an adult", "an adult woman", "an adult man"),
        "older": ("an older person", "an older woman", "an older man"),
    },
)
"""Three coarse groups as a viewer would name them, not years."""

RACE = Attribute(
    name="race",
    title="perceived race category",
    levels=RACES,
    wordings={race: tuple(f"a {race} {noun}" for noun in ("person", "woman", "man")) for race in RACES},
)
"""For photographs only, and only beside a reference that counts the same categories.

The levels are the columns `White`, `Black or African American` and `Asian` of BLS CPS Table 11, which count what
people said of themselves; here it is the category that a viewer would be likely to name, which is another thing.
It is no ancestry, ethnicity or identity, and no such thing can be seen in a picture. The table's `Hispanic or
Latino` is no level: it is an ethnicity that overlaps all of them (the table's White includes Hispanic). Its people
of two or more races, American Indian and Pacific Islander people are in no column and so in no level: whoever a
viewer would place there is either `cannot tell` or wrong, and the three reference shares do not add up to one.
Emoji and other drawings have a skin tone and no race: don't read this attribute from them.
"""

PEOPLE = Attribute(name="people", title="people in the picture", levels=("nobody", "one", "several"), wordings={})
"""By the faces that a detector finds: whoever turns away is nobody to it."""

MONK_TONE = Attribute(
    name="monk_tone",
    title="skin tone by colour (Monk scale)",
    levels=tuple(str(tone) for tone in range(1, 11)),
    wordings={},
)
"""Ten tones from light to dark by Ellis Monk, read from the colour of a face and not by a probe."""

BY_DETECTOR = (PEOPLE, MONK_TONE)
"""What is read from faces, where a study asks who is in the picture; no probe is asked about it."""

ATTRIBUTES: dict[str, Attribute] = {attribute.name: attribute for attribute in (GENDER, SKIN_TONE, AGE, RACE)}


INTERSECTIONS = (Intersection(of=(GENDER, SKIN_TONE)),)
"""What is estimated together as well as apart: balance in each attribute says nothing of their combinations."""


def readable(attributes: Sequence[Attribute]) -> tuple[Attribute | Intersection, ...]:
    """What can be estimated when these are read: each of them, and the intersections of which every part is there."""
    names = {attribute.name for attribute in attributes}
    return (*attributes, *(i for i in INTERSECTIONS if {part.name for part in i.of} <= names))


def prompts(attribute: Attribute, level: str) -> tuple[str, ...]:
    """Every wording of a level in every template."""
    return tuple(template.format(words) for words in attribute.wordings[level] for template in TEMPLATES)


def digest_of(attribute: Attribute | Intersection) -> str:
    """The sha256 of all that a probe is asked about an attribute: levels, wordings and templates, in order."""
    if isinstance(attribute, Intersection):
        return digest([digest_of(part) for part in attribute.of])
    texts = [[level, list(attribute.wordings[level])] for level in attribute.levels]
    return digest({"levels": texts, "templates": list(TEMPLATES)})
