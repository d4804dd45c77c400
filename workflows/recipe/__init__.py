"""The only description of a data set: parsed once, frozen, unknown keys refused.

Schema, tags, the NVTabular graph, tables and signatures are derived from it. It holds data, never
code.
"""

from __future__ import annotations

from workflows.recipe.features import Feature, History, VocabularyRule
from workflows.recipe.reading import find, load, parse, replaced
from workflows.recipe.sources import Fetch, Join, PositiveRule, Source
from workflows.recipe.splits import (
    ByUser,
    GivenFiles,
    GlobalTime,
    LeaveLast,
    RandomRows,
    Split,
)
from workflows.recipe.whole import Recipe

__all__ = [
    "ByUser",
    "Feature",
    "Fetch",
    "GivenFiles",
    "GlobalTime",
    "History",
    "Join",
    "LeaveLast",
    "PositiveRule",
    "RandomRows",
    "Recipe",
    "Source",
    "Split",
    "VocabularyRule",
    "find",
    "load",
    "parse",
    "replaced",
]
