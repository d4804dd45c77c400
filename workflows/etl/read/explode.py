"""Turn each row with lists, such as a session or a playlist, into one row (event) per value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read.partitioned import RowFile
from workflows.ground.errors import DataError
from workflows.raw import list_cells
from workflows.raw.values import Place

#: Approximate number of rows of each block, with one row per list value, that is yielded.
_ROWS = 1 << 20


class ExplodedFile:
    """A raw file in which each row becomes one row per value of its lists, in order.

    Args:
        file: the raw file with lists.
        columns: names of the columns of lists; all lists of a row must have the same length.
        separator: text between two values, for lists that are written as text.

    Attributes:
        file: the raw file with lists.
        path, names, is_empty, notes: the attributes of the original file.
        lists: names of the columns of lists that are not exploded.
        approximate_rows: estimated number of rows, from the mean length of the first lists.
        empty: number of rows with empty lists among the rows read so far; these rows are dropped.

    Raises:
        DataError: a column does not exist, or does not hold lists.
    """

    def __init__(self, file: RowFile, columns: Sequence[str], separator: str | None) -> None:
        self.file = file
        self._columns = list(columns)
        self._separator = separator
        self.path, self.names, self.is_empty = file.path, file.names, file.is_empty
        self.notes = file.notes
        self.lists = file.lists - frozenset(columns)
        self.empty = 0
        for name in columns:
            if name not in file.names:
                raise DataError(
                    f"{file.path} has no column {name!r}, which the source's `explode:` names. It "
                    f"has: {', '.join(file.names)}."
                )
        first = next(iter(file.batches(self._columns)), None)
        size = 1.0
        if first is not None and len(first):
            size = int(self._lengths(self._as_lists(first, 0), 0).sum()) / len(first)
        self.approximate_rows = int(file.approximate_rows * size)

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the requested columns of the file, one row per list value, in blocks of rows.

        Args:
            columns: names of the columns of the file to read.
            as_dictionary: names of the columns whose text is returned as Arrow dictionaries;
                exploded columns are returned as plain text.

        Raises:
            DataError: the lists of a row differ in length, or the file cannot be read.
        """
        needed = list(dict.fromkeys([*columns, *self._columns]))
        as_dictionary = [name for name in as_dictionary if name not in self._columns]
        before = self.empty = 0
        for batch in self.file.batches(needed, as_dictionary):
            lists = self._as_lists(batch, before)
            lengths = self._lengths(lists, before)
            self.empty += int((lengths == 0).sum())
            before += len(batch)
            ends = np.cumsum(lengths)
            cuts = np.searchsorted(ends, np.arange(_ROWS, ends[-1] if len(ends) else 0, _ROWS)) + 1
            for rows in np.split(np.arange(len(batch)), np.unique(cuts)):
                places = pa.array(np.repeat(rows, lengths[rows]))
                exploded = {
                    name: pc.list_flatten(lists[name].take(pa.array(rows)))
                    if name in lists
                    else batch[name].take(places)
                    for name in columns
                }
                yield pa.table(exploded)

    def _as_lists(self, batch: pa.Table, before: int) -> dict[str, pa.ChunkedArray]:
        """Return the exploded columns of a batch as Arrow lists, parsed if they are text.

        Args:
            batch: rows of the file.
            before: number of rows of the file before the batch.
        """
        found = {}
        for name in self._columns:
            column = batch[name]
            place = Place(self.path, name, before)
            if list_cells.is_list(column.type):
                found[name] = column.cast(pa.list_(column.type.value_type))
            elif not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise DataError(
                    f"{place} holds {column.type}, not lists, so `explode:` cannot be applied to "
                    "it. Leave it out of `explode:`."
                )
            else:
                found[name] = self._split(column, place)
        return found

    def _split(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Turn cells of text into lists: split at the separator, or parse lists in brackets."""
        if self._separator is None and not list_cells.are_in_brackets(column):
            raise DataError(
                f"{place} holds text. Set the source's `separator:` (such as '|'), so that "
                "`explode:` can split it."
            )
        # when several columns are exploded together, an empty value keeps its place
        together = len(self._columns) > 1
        return list_cells.read_lists(column, self._separator, place, all_parts=together)

    def _lengths(self, lists: dict[str, pa.ChunkedArray], before: int) -> np.ndarray:
        """Return the number of list values in each row of the file, int64 [n]."""
        counts = {
            name: pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
            for name, column in lists.items()
        }
        first, *others = counts
        for other in others:
            odd = np.flatnonzero(counts[other] != counts[first])
            if len(odd):
                raise DataError(
                    f"{self.path}, row {before + int(odd[0]) + 1}: {counts[first][odd[0]]} values "
                    f"of {first!r} and {counts[other][odd[0]]} of {other!r}. All lists that "
                    "`explode:` names must have one length in a row; correct the row."
                )
        return counts[first]
