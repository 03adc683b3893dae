"""What to ask of a model, and what to hold its answers against: prompt sets, studies and reference tables."""

from __future__ import annotations

from prompt_sets.prompts import FOLDER, PERSON, PromptSet, article, load, names, studies, written_out
from prompt_sets.references import Match, Reference, counted_reference, load_reference, occupations, tables

__all__ = [
    "FOLDER",
    "PERSON",
    "Match",
    "PromptSet",
    "Reference",
    "article",
    "counted_reference",
    "load",
    "load_reference",
    "names",
    "occupations",
    "studies",
    "tables",
    "written_out",
]
