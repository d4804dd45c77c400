"""`kind: number`: a cell is one number, which is standardised for the towers."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from workflows.ground.statistics import NumberFact
from workflows.raw.values import as_numbers
from workflows.recipe.kinds.base import (
    Encoded,
    Fields,
    Kind,
    MarkMissing,
    Reading,
    Standardise,
    role_tags,
)
from workflows.recipe.kinds.form import NUMBER, Form

#: An input column `<number>_missing` says whether the number was missing.
MISSING = "_missing"


class Number(Kind):
    """The feature kind whose cells are single numbers, which are standardised."""

    name = "number"
    takes = frozenset({"fill", "indicator"})
    cells = "number"
    has_statistics = True
    reads_dictionary = False
    dtype = "float32"

    def refuses_gaps(self, feature: Fields) -> bool:
        """Return True if the recipe has no value that replaces a missing number."""
        return feature.fill == "error"

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return a raw column as float32, or as float64 if a filter compares the number."""
        kind = pa.float64() if how.exact else pa.float32()
        return as_numbers(column, kind, how.place, how.nulls)

    def form(self, feature: Fields) -> Form | None:
        """Return the form of the feature's raw values: a number."""
        return NUMBER

    def columns(self, name: str, feature: Fields) -> list[str]:
        """Return the names of the number column, and of the column that marks missing numbers."""
        if not feature.input:
            return []
        return [name, name + MISSING] if feature.indicator else [name]

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the standardised number column, and the column that marks missing numbers."""
        if not feature.input:
            return []
        tags = (*role_tags(feature), "continuous")
        found = [Encoded(name, name, Standardise(facts[name]), tags)]
        if feature.indicator:
            found.append(Encoded(name + MISSING, name, MarkMissing(), tags))
        return found
