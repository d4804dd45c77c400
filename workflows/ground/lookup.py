"""Map raw ids to row numbers of a table, fast for a single id and for millions of ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Ints

#: For look-ups of more ids than this, Arrow is faster than a dictionary, although it hashes the
#: whole table for each look-up.
FEW = 1000


class Lookup:
    """A map from raw user or item ids to row numbers of a table.

    Args:
        ids: the id of each row of the table; no id occurs twice.
    """

    def __init__(self, ids: pa.StringArray) -> None:
        self.ids = ids
        self._row_of: dict[str, int] | None = None

    def prepare(self) -> None:
        """Build the hash table of ids now, for a process that does many small look-ups."""
        self._row_of = {i: row for row, i in enumerate(self.ids.to_pylist()) if i is not None}

    def rows(self, ids: pa.Array) -> Ints:
        """Return the row number of each id in the table, int64 [n_ids]; -1 if unknown or null."""
        if self._row_of is not None and len(ids) <= FEW:
            return np.array([self._row_of.get(i, -1) for i in ids.to_pylist()], np.int64)
        found = pc.index_in(ids, value_set=self.ids, skip_nulls=True)
        return found.fill_null(-1).to_numpy().astype(np.int64)
