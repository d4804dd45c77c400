"""The catalogue's items as documents of a vector database: raw id, embedding, readable columns."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Floats
from workflows.ground.arguments import argument_names
from workflows.ground.column_names import EMBEDDING
from workflows.stages.index import Catalogue

log = logging.getLogger(__name__)

#: Names of the document fields for item id and embedding, which are not columns of the recipe.
ID, VECTOR = "id", EMBEDDING
#: Number of items that are handed to the database at a time.
BATCH = 1000


@dataclass(frozen=True)
class Documents:
    """The items that may be recommended, as documents of a vector database.

    The inner product of an item's and a user's embedding is the score by which evaluate ranks; the
    item bias is one of the dimensions.

    Attributes:
        ids: raw ids of the items.
        vectors: item embeddings, float32 [n_items, dim].
        columns: the readable (not encoded) columns of the items, one row per item.
    """

    ids: pa.StringArray
    vectors: Floats
    columns: pa.Table

    @classmethod
    def of(cls, catalogue: Catalogue) -> Documents:
        """Return the items of a catalogue that may be recommended, as documents."""
        recipe, offered = catalogue.recipe, np.flatnonzero(catalogue.offered)
        names = [n for n in catalogue.items.column_names if n in recipe.features]
        names.remove(recipe.item_id)
        rows = pa.array(offered)
        columns = catalogue.items.select(names).take(rows)
        return cls(catalogue.ids.take(rows), catalogue.vectors[offered], columns)

    def __len__(self) -> int:
        return len(self.ids)

    def named(self, allowed: re.Pattern[str]) -> Documents:
        """Return the documents with columns renamed to names that a database accepts.

        Args:
            allowed: the pattern of the column names that a database accepts. Columns with other
                names, or named like the id or the embedding, are renamed with letters, digits and
                _, with a warning.
        """
        names = self.columns.column_names
        kept = [n for n in names if allowed.fullmatch(n) and n not in (ID, VECTOR)]
        others = [name for name in names if name not in kept]
        fields = argument_names(others, taken=[*kept, ID, VECTOR])
        for name, field in fields.items():
            log.warning("the column %r is the field %r in the database", name, field)
        columns = self.columns.rename_columns([fields.get(name, name) for name in names])
        return replace(self, columns=columns)

    def text_bytes(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the number of bytes of each item's text, int64 [n_items], by text column."""
        return {
            name: _text_bytes(column.combine_chunks())
            for name, column in zip(self.columns.column_names, self.columns.columns, strict=True)
            if pa.types.is_string(column.type) or column.type == pa.list_(pa.string())
        }

    def longest_id(self) -> int:
        """Return the length of the longest item id in bytes."""
        return max((len(str(i).encode()) for i in self.ids), default=0)

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the items as lists of `BATCH` documents; null values are left out."""
        for start in range(0, len(self), BATCH):
            ids = self.ids.slice(start, BATCH).to_pylist()
            rows = self.columns.slice(start, BATCH).to_pylist() or [{}] * len(ids)
            vectors = self.vectors[start : start + BATCH].tolist()
            yield [
                {ID: i, VECTOR: vector, **{n: v for n, v in row.items() if v is not None}}
                for i, vector, row in zip(ids, vectors, rows, strict=True)
            ]


def _text_bytes(column: pa.Array) -> npt.NDArray[np.int64]:
    if pa.types.is_string(column.type):
        return pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
    flat = pc.fill_null(pc.binary_length(column.flatten()), 0).to_numpy()
    rows = pc.list_parent_indices(column).to_numpy()
    return np.bincount(rows, flat, minlength=len(column)).astype(np.int64)
