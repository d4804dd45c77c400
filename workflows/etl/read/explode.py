"""One row with lists → one row a value: sessions and playlists become events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read.cells import is_list
from workflows.etl.read.partitioned import RowFile
from workflows.ground.errors import DataError
from workflows.raw import list_cells
from workflows.raw.values import Place

#: A table that is yielded has about so many rows, however long lists are.
_ROWS = 1 << 20


class Exploded:
    """A file of which each row with lists becomes a row for each of their values, in order.

    Args:
        file: the file itself.
        columns: names of the file's columns of lists; the lists of a row have one length.
        separator: what stands between the values where they are text.

    Attributes:
        file: the file itself.
        path, names, is_bare, notes: as for the file.
        lists: names of the columns that hold lists afterwards.
        about: how many rows there may be, by the mean length of the first lists.
        empty: rows met so far that have no value, so that no row came of them.

    Raises:
        DataError: a column is not there, or holds no lists.
    """

    def __init__(self, file: RowFile, columns: Sequence[str], separator: str | None) -> None:
        self.file = file
        self._columns = list(columns)
        self._separator = separator
        self.path, self.names, self.is_bare = file.path, file.names, file.is_bare
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
            size = int(self._lengths(self._listed(first, 0), 0).sum()) / len(first)
        self.about = int(file.about * size)

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns in blocks of rows.

        Args:
            columns: which.
            coded: those columns whose text comes as codes; columns that are taken apart do not.

        Raises:
            DataError: lists of one row that are of several lengths; what the file raises.
        """
        asked = list(dict.fromkeys([*columns, *self._columns]))
        coded = [name for name in coded if name not in self._columns]
        before = self.empty = 0
        for batch in self.file.batches(asked, coded):
            lists = self._listed(batch, before)
            lengths = self._lengths(lists, before)
            self.empty += int((lengths == 0).sum())
            before += len(batch)
            ends = np.cumsum(lengths)
            cuts = np.searchsorted(ends, np.arange(_ROWS, ends[-1] if len(ends) else 0, _ROWS)) + 1
            for rows in np.split(np.arange(len(batch)), np.unique(cuts)):
                places = pa.array(np.repeat(rows, lengths[rows]))
                made = {
                    name: pc.list_flatten(lists[name].take(pa.array(rows)))
                    if name in lists
                    else batch[name].take(places)
                    for name in columns
                }
                yield pa.table(made)

    def _listed(self, batch: pa.Table, before: int) -> dict[str, pa.ChunkedArray]:
        """Return the columns that are taken apart, as lists."""
        found = {}
        for name in self._columns:
            column = batch[name]
            place = Place(self.path, name, before)
            if is_list(column.type):
                found[name] = column.cast(pa.list_(column.type.value_type))
            elif not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise DataError(
                    f"{place} holds {column.type}, not lists, so `explode:` cannot take it apart. "
                    "Leave it out of `explode:`."
                )
            else:
                found[name] = self._parts(column, place)
        return found

    def _parts(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return text as lists: split at the separator, or read as lists in brackets."""
        if self._separator is None and not list_cells.are_in_brackets(column):
            raise DataError(
                f"{place} holds text. Set the source's `separator:` (such as '|'), so that "
                "`explode:` can take it apart."
            )
        # where lists are taken apart together, a part without text keeps its place
        together = len(self._columns) > 1
        return list_cells.lists(column, self._separator, place, all_parts=together)

    def _lengths(self, lists: dict[str, pa.ChunkedArray], before: int) -> np.ndarray:
        """Return the number of values of each row, int64 [n]."""
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
                    f"of {first!r} and {counts[other][odd[0]]} of {other!r}. Lists that `explode:` "
                    "takes apart together must be of one length; mend the row."
                )
        return counts[first]
