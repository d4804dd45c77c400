"""`kind: vector`: a cell is a list of `dim` numbers, such as the embedding of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.core.column_names import NORMALIZE, VECTOR_DROPOUT
from workflows.ground.errors import DataError
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries, list_cells
from workflows.raw.values import NUMBERS, Place, parse, plain_with_nulls
from workflows.recipe.kinds.base import Encoded, Fields, Kind, PassOn, Reading, role_tags
from workflows.recipe.kinds.form import Form


class Vector(Kind):
    """The feature kind whose cells are lists of `dim` finite numbers, or missing (all zeros)."""

    name = "vector"
    takes = frozenset({"separator", "dim", "normalize", "dropout"})
    cells = "lists"
    is_list = True
    reads_dictionary = False
    dtype = "float32"

    def check(self, feature: Fields) -> None:
        """Refuse a vector feature without `dim`, or with a role that does not allow lists."""
        if feature.dim is None:
            raise ValueError("kind vector needs dim, the number of its numbers")
        if feature.role in ("time", "weight"):
            raise ValueError("kind vector is for roles user, item and context")

    def cell_bytes(self, feature: Fields) -> int:
        """Return the bytes of the numbers in one vector."""
        return 4 * _dim(feature)

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return a raw column as lists of float32 of one length; a missing list stays missing.

        Raises:
            DataError: a list does not have `dim` numbers, or one of its numbers is missing or not
                finite.
        """
        column = plain_with_nulls(column, how.place, how.nulls)
        if dictionaries.is_text(column.type):
            column = list_cells.read_lists(column, feature.separator, how.place, all_parts=True)
        vectors = parse(column, NUMBERS, how.place).combine_chunks()
        lengths = pc.list_value_length(vectors)
        row = pc.index(pc.not_equal(lengths, _dim(feature)), True).as_py()
        if row >= 0:
            raise DataError(
                f"{how.place.row(row)}: {lengths[row].as_py()} numbers, where "
                f"features.{how.place.column}.dim says {_dim(feature)}. Correct the cell or `dim`, "
                "or leave the cell empty."
            )
        _refuse_infinite(vectors, how.place)
        return pa.chunked_array([vectors])

    def form(self, feature: Fields) -> Form:
        """Return the form of the feature's raw values: a list of `dim` numbers."""
        return Form(is_text=False, is_list=True, width=feature.dim)

    def dims(self, feature: Fields) -> tuple[Any, ...]:
        """Return the dimensions of the vector column; a missing vector is an empty list."""
        return (None, (0, _dim(feature)))

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the encoded vector column, whose values are those of the raw data."""
        tags = role_tags(feature)
        tags = (*tags, "continuous") if feature.input else tags
        properties = {NORMALIZE: "true"} if feature.normalize else {}
        if feature.dropout:
            properties[VECTOR_DROPOUT] = str(feature.dropout)
        return [Encoded(name, name, PassOn(), tags, properties)]


def _dim(feature: Fields) -> int:
    assert feature.dim is not None, "check() refuses it"
    return feature.dim


def _refuse_infinite(vectors: pa.ListArray, place: Place) -> None:
    flat = vectors.flatten()
    at = pc.index(pc.fill_null(pc.is_finite(flat), False), False).as_py()
    if at >= 0:
        row = pc.list_parent_indices(vectors)[at].as_py()
        raise DataError(
            f"{place.row(row)}: the vector holds {flat[at].as_py()}. Expected finite numbers; "
            "correct the cell, or leave it empty."
        )
