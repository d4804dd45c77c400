"""Feature kinds that follow from the role, not from `kind:`: the time and weight of a row."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from models.core.column_names import ROW_WEIGHT
from workflows.ground.statistics import NumberFact
from workflows.recipe.kinds.base import Encoded, Fields, Kind, PassOn, Reading
from workflows.recipe.kinds.number import Number


class RowWeight(Number):
    """The feature kind of role `weight`: a number by which a row counts in the training loss.

    Row weights are not an input of any tower.
    """

    has_statistics = False

    def check(self, feature: Fields) -> None:
        """Refuse fields that a feature with role `weight` cannot have."""
        if feature.kind != Number.name or feature.fill in ("median", "mean") or feature.indicator:
            raise ValueError("a weight has kind number, fill: error or a number, and no indicator")

    def form(self, feature: Fields) -> None:
        """Return None: only training rows have weights, so towers take no raw weights."""

    def columns(self, name: str, feature: Fields) -> list[str]:
        """Return the name of the encoded column from which the loss reads row weights."""
        return [ROW_WEIGHT]

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the encoded column from which the loss reads row weights."""
        fill = feature.fill if isinstance(feature.fill, float) else None
        return [Encoded(ROW_WEIGHT, name, PassOn(fill))]


class Time(Kind):
    """The feature kind of role `time`: seconds since the epoch.

    Times are read by workflows/derive/times.py, because their unit depends on all times of a
    file.
    """

    name = "time"
    cells = "time"
    dtype = "int64"

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Raise NotImplementedError, because the unit of times depends on all times of a file."""
        raise NotImplementedError("times are read by workflows/derive/times.py")

    def cell_bytes(self, feature: Fields) -> int:
        """Return the bytes of one time, which is an int64."""
        return 8

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the encoded time column, which no tower takes."""
        return [Encoded(name, name, PassOn())]
