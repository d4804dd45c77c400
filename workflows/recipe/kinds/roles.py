"""Feature kinds that the role decides, not `kind:`: the time and the weight of a row."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from models.core.columns import ROW_WEIGHT
from workflows.ground.statistics import NumberFact
from workflows.recipe.kinds.base import Encoded, Fields, Kind, PassOn, Reading
from workflows.recipe.kinds.number import Number


class RowWeight(Number):
    """A number with role `weight`: how much a row counts in the loss. No tower takes it."""

    has_statistics = False

    def check(self, feature: Fields) -> None:
        """Refuse fields that a weight cannot have."""
        if feature.kind != Number.name or feature.null in ("median", "mean") or feature.indicator:
            raise ValueError("a weight has kind number, null: error or a number, and no indicator")

    def form(self, feature: Fields) -> None:
        """Return None: only training rows have weights, so raw towers take none."""

    def columns(self, name: str, feature: Fields) -> list[str]:
        """Return the name of the column that the loss reads."""
        return [ROW_WEIGHT]

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the column under the name that the loss reads."""
        fill = feature.null if isinstance(feature.null, float) else None
        return [Encoded(ROW_WEIGHT, name, PassOn(fill))]


class Time(Kind):
    """A feature with role `time`, whatever its kind: seconds since the epoch.

    Its cells are read by workflows/etl/read/times.py, which looks at a file as a whole.
    """

    name = "time"
    cells = "time"
    dtype = "int64"

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Raise NotImplementedError, because the unit of times depends on all times of a file."""
        raise NotImplementedError("times are read by workflows/etl/read/times.py")

    def cell_bytes(self, feature: Fields) -> int:
        """Return the bytes of an int64."""
        return 8

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the column, which no tower takes."""
        return [Encoded(name, name, PassOn())]
