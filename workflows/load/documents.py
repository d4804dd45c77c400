"""Items as a vector database takes them: raw id, embedding, readable columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.retriever import Floats
from workflows.catalogue import Catalogue
from workflows.errors import DataError

#: Names of the fields that are not columns of the recipe.
ID, VECTOR = "id", "embedding"
#: Items that are handed over at a time.
BATCH = 1000


@dataclass(frozen=True)
class Documents:
    """The items that may be recommended.

    The inner product of an item's and a user's embedding is the score that evaluate ranks by: an
    item bias is a dimension of both.

    Attributes:
        ids: raw ids.
        vectors: float32 [n_items, dim].
        columns: readable columns, one row an item.
    """

    ids: pa.StringArray
    vectors: Floats
    columns: pa.Table

    @classmethod
    def of(cls, catalogue: Catalogue) -> Documents:
        """Return the items of a catalogue that may be shown.

        Raises:
            DataError: a column has the name of a field.
        """
        recipe, offered = catalogue.recipe, np.flatnonzero(catalogue.offered)
        names = [n for n in catalogue.items.column_names if n in recipe.features]
        names.remove(recipe.item_id)
        for name in (ID, VECTOR):
            if name in names:
                raise DataError(
                    f"The item column {name!r} has the name of a field of its own in the database. "
                    "Give it another name in the recipe."
                )
        rows = pa.array(offered)
        columns = catalogue.items.select(names).take(rows)
        return cls(catalogue.ids.take(rows), catalogue.vectors[offered], columns)

    def __len__(self) -> int:
        return len(self.ids)

    def longest_id(self) -> int:
        """Return the bytes of the longest id."""
        return max((len(str(i).encode()) for i in self.ids), default=0)

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield documents, `BATCH` at a time; what an item lacks is left out."""
        for start in range(0, len(self), BATCH):
            ids = self.ids.slice(start, BATCH).to_pylist()
            rows = self.columns.slice(start, BATCH).to_pylist() or [{}] * len(ids)
            vectors = self.vectors[start : start + BATCH].tolist()
            yield [
                {ID: i, VECTOR: vector, **{n: v for n, v in row.items() if v is not None}}
                for i, vector, row in zip(ids, vectors, rows, strict=True)
            ]
