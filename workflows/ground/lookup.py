"""Raw ids → rows of a table, for one question, many, or millions at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Ints

#: Beyond so many ids Arrow is quicker, although it hashes the whole table for each look-up.
FEW = 1000


class Lookup:
    """Where raw ids stand.

    Args:
        ids: the ids of the rows, each once.
    """

    def __init__(self, ids: pa.StringArray) -> None:
        self.ids = ids
        self._row_of: dict[str, int] | None = None

    def prepare(self) -> None:
        """Hash the table once, for a process that is asked again and again."""
        self._row_of = {i: row for row, i in enumerate(self.ids.to_pylist()) if i is not None}

    def rows(self, asked: pa.Array) -> Ints:
        """Return the rows of ids, int64 [n_asked]; -1 for what is not there and for null."""
        if self._row_of is not None and len(asked) <= FEW:
            return np.array([self._row_of.get(i, -1) for i in asked.to_pylist()], np.int64)
        found = pc.index_in(asked, value_set=self.ids, skip_nulls=True)
        return found.fill_null(-1).to_numpy().astype(np.int64)
