"""What to ask of a model, and what to hold its answers against: prompt sets, studies and reference tables."""

from __future__ import annotations

from prompt_sets.prompts import FOLDER, PromptSet, load, names, studies
from prompt_sets.references import Match, Reference, counted_reference, load_reference, tables

__all__ = [
    "FOLDER",
    "Match",
    "PromptSet",
    "Reference",
    "counted_reference",
    "load",
    "load_reference",
    "names",
    "studies",
    "tables",
]
