"""Reads rows of a table in parquet files by their numbers, so that the table is never in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.retriever import Ints, Ragged

Group = TypeVar("Group")


@dataclass(frozen=True)
class Piece(Generic[Group]):
    """Some of the wanted rows, which are in the same row group.

    Attributes:
        positions: the positions of the rows among those that are wanted, int64 [n].
        group: the row group, as `convert` returns it.
        rows: the numbers of the rows within the row group, int64 [n].
    """

    positions: npt.NDArray[np.int64]
    group: Group
    rows: npt.NDArray[np.int64]


class RowGroups(Generic[Group]):
    """The rows of a table in parquet files; row groups are read when they are needed.

    Args:
        files: the files of the table, in the order of its rows.
        columns: names of the columns to read.
        convert: the function that makes of a row group what is kept of it.
        kept: number of row groups that stay in memory once they were read; None for all.
    """

    def __init__(
        self,
        files: Sequence[Path],
        columns: Sequence[str],
        convert: Callable[[pa.Table], Group],
        *,
        kept: int | None = 2,
    ) -> None:
        self._columns, self._convert = list(columns), convert
        #: The file, and the number in the file, of each row group of the table.
        self._places: list[tuple[Path, int]] = []
        sizes = []
        for path in files:
            metadata = pq.read_metadata(path)
            for number in range(metadata.num_row_groups):
                self._places.append((path, number))
                sizes.append(metadata.row_group(number).num_rows)
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.read = lru_cache(kept)(self._read_group)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def load(self) -> None:
        """Read all row groups, for a table whose groups all stay in memory."""
        for number in range(len(self._places)):
            self.read(number)

    def _read_group(self, number: int) -> Group:
        path, inside = self._places[number]
        with pq.ParquetFile(path) as file:
            return self._convert(file.read_row_group(inside, self._columns))

    def pieces(self, rows: Ints) -> Iterator[Piece[Group]]:
        """Yield the wanted rows by row group, each group once.

        Args:
            rows: numbers of rows of the table, int [n], in any order.
        """
        groups = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(groups, kind="stable")
        numbers, starts = np.unique(groups[order], return_index=True)
        for number, positions in zip(numbers, np.split(order, starts)[1:], strict=True):
            before = self._ends[number - 1] if number else 0
            yield Piece(positions, self.read(int(number)), rows[positions] - before)


def take_rows(groups: RowGroups[pa.Table], rows: Ints) -> pa.Table:
    """Return rows of a table by their numbers, in the given order.

    Args:
        groups: the table, whose row groups are kept as Arrow tables.
        rows: numbers of rows, int [n].
    """
    pieces = list(groups.pieces(rows))
    if not pieces:
        return groups.read(0).slice(0, 0)
    table = pa.concat_tables([piece.group.take(pa.array(piece.rows)) for piece in pieces])
    return table.take(pa.array(_places(pieces, len(rows))))


def take_lists(groups: RowGroups[Ragged], rows: Ints) -> Ragged:
    """Return rows of a table of lists by their numbers, in the given order.

    Args:
        groups: the table, whose row groups are kept as lists.
        rows: numbers of rows, int [n]; -1 gives an empty list.
    """
    known = np.flatnonzero(rows >= 0)
    pieces = [
        replace(piece, positions=known[piece.positions]) for piece in groups.pieces(rows[known])
    ]
    if not pieces:
        return Ragged.empty(len(rows))
    taken = [piece.group.take(piece.rows) for piece in pieces]
    lengths = np.concatenate([lists.lengths for lists in taken])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    lists = Ragged(np.concatenate([lists.values for lists in taken]), offsets)
    return lists.take(_places(pieces, len(rows)))


def _places(pieces: Sequence[Piece[Group]], n: int) -> npt.NDArray[np.int64]:
    """Return where each of n wanted rows is among the rows of pieces; -1 for those in no piece."""
    positions = np.concatenate([piece.positions for piece in pieces])
    places = np.full(n, -1)
    places[positions] = np.arange(len(positions))
    return places
