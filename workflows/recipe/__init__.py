"""The recipe: the only description of a data set, its model and its training.

A recipe is parsed once, is immutable afterwards, and refuses unknown keys. Merlin's schema and
tags, the NVTabular graph, the tables and the signatures of the exported towers are derived from the
recipe. A recipe holds data, never code.
"""

from __future__ import annotations

from workflows.recipe.features import Events, Feature, History, VocabularyRule
from workflows.recipe.filters import (
    Condition,
    Filter,
    Keep,
    PerDay,
    SampleUsers,
    TopUsers,
    UsersWith,
)
from workflows.recipe.finding import data_folder, default_name, find, known_names
from workflows.recipe.reading import load, override, parse, replace_fields
from workflows.recipe.sources import Fetch, Latest, Long, Source
from workflows.recipe.splits import (
    ByUser,
    GivenFiles,
    GlobalTime,
    LeaveLast,
    RandomRows,
    Split,
)
from workflows.recipe.steps import (
    Bins,
    Clip,
    CyclicMonth,
    DatePart,
    Derive,
    Join,
    Log1p,
    PathLevel,
    Pivot,
    PriceCluster,
    TopValues,
)
from workflows.recipe.whole import Recipe

__all__ = [
    "Bins",
    "ByUser",
    "Clip",
    "Condition",
    "CyclicMonth",
    "DatePart",
    "Derive",
    "Events",
    "Feature",
    "Fetch",
    "Filter",
    "GivenFiles",
    "GlobalTime",
    "History",
    "Join",
    "Keep",
    "Latest",
    "LeaveLast",
    "Log1p",
    "Long",
    "PathLevel",
    "PerDay",
    "Pivot",
    "PriceCluster",
    "RandomRows",
    "Recipe",
    "SampleUsers",
    "Source",
    "Split",
    "TopUsers",
    "TopValues",
    "UsersWith",
    "VocabularyRule",
    "data_folder",
    "default_name",
    "find",
    "known_names",
    "load",
    "override",
    "parse",
    "replace_fields",
]
