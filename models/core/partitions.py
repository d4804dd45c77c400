"""Reads the encoded rows of a table in partitions, so that a large table is never in memory.

All rows of a user are in the same partition. So what depends on all rows of a user, such as the
user's history or positive items, can be computed from one partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.columns import Column, Columns, from_arrow, n_rows
from models.core.retriever import Ints, Ragged

#: Bytes of a value of each physical type of parquet in memory.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
_WIDEST = 8


class Partitions(Protocol):
    """The protocol of tables in partitions; all rows of a user are in the same partition."""

    @property
    def n_rows(self) -> Ints:
        """Return the number of rows of each partition, int64 [n_partitions]."""

    @property
    def n_bytes(self) -> Ints:
        """Return roughly the memory that each partition takes once it is read, int64, in bytes."""

    def read(self, numbers: Sequence[int]) -> Columns:
        """Return the columns of some partitions, in the given order, name → [n_rows]."""

    def select(self, names: Sequence[str]) -> Partitions:
        """Return a table of the same rows with only the given columns."""


@dataclass(frozen=True)
class PartitionInMemory:
    """A table in memory, which is a single partition.

    Attributes:
        columns: the columns of the rows, name → [n_rows].
    """

    columns: Columns

    @property
    def n_rows(self) -> Ints:
        """The number of rows, int64 [1]."""
        return np.array([n_rows(self.columns)])

    @property
    def n_bytes(self) -> Ints:
        """The memory of the columns, int64 [1], in bytes."""
        return np.array([sum(_memory(column) for column in self.columns.values())])

    def read(self, numbers: Sequence[int]) -> Columns:
        """Return the columns of the table, name → [n_rows]."""
        return self.columns

    def select(self, names: Sequence[str]) -> PartitionInMemory:
        """Return a table of the same rows with only the given columns."""
        return PartitionInMemory({name: self.columns[name] for name in names})


@dataclass(frozen=True)
class ParquetPartitions:
    """A table in parquet files; each partition consists of one or several files.

    Attributes:
        files: for each partition, its files in order.
        names: names of the columns to read; all files have them.
    """

    files: Sequence[Sequence[Path]]
    names: Sequence[str]

    @cached_property
    def _metadata(self) -> list[list[pq.FileMetaData]]:
        return [[pq.read_metadata(path) for path in paths] for paths in self.files]

    @cached_property
    def n_rows(self) -> npt.NDArray[np.int64]:
        """The number of rows of each partition, int64 [n_partitions]."""
        return np.array([sum(of.num_rows for of in files) for files in self._metadata], np.int64)

    @cached_property
    def n_bytes(self) -> npt.NDArray[np.int64]:
        """Roughly the memory that each partition takes once it is read, int64, in bytes."""
        found = [sum(_n_bytes(of, set(self.names)) for of in files) for files in self._metadata]
        return np.array(found, np.int64)

    def read(self, numbers: Sequence[int]) -> dict[str, Column]:
        """Return the columns of some partitions, in the given order, name → [n_rows].

        Besides the returned columns, only one file at a time is in memory.
        """
        metadata = [of for number in numbers for of in self._metadata[number]]
        total = sum(of.num_rows for of in metadata)
        sizes = {name: sum(_n_values(of).get(name, 0) for of in metadata) for name in self.names}
        columns = {name: _Column(total, sizes[name]) for name in self.names}
        for table in self._tables(numbers):
            for name, column in columns.items():
                column.append(from_arrow(table[name]))
        return {name: column.filled() for name, column in columns.items()}

    def select(self, names: Sequence[str]) -> ParquetPartitions:
        """Return a table of the same rows with only the given columns."""
        return replace(self, names=names)

    def refuse_missing_columns(self) -> None:
        """Raise an error if a file lacks one of the columns.

        Raises:
            KeyError: a file lacks a column.
        """
        for paths, metadata in zip(self.files, self._metadata, strict=True):
            for path, of in zip(paths, metadata, strict=True):
                lacking = set(self.names) - set(of.schema.to_arrow_schema().names)
                if lacking:
                    raise KeyError(f"{path.name} has no column {min(lacking)}")

    def _tables(self, numbers: Sequence[int]) -> Iterator[pa.Table]:
        for number in numbers:
            for path in self.files[number]:
                # Arrow's threads would take the cores of the training step
                yield pq.read_table(path, columns=list(self.names), use_threads=False)


class _Column:
    """A column to which the rows of several files are appended, in memory that is allocated once.

    Args:
        n_rows: number of rows of all files together.
        n_values: upper bound for the number of values of all files; a column of lists may have more
            values than rows.
    """

    def __init__(self, n_rows: int, n_values: int) -> None:
        self._n_rows, self._n_values = n_rows, n_values
        self._values: npt.NDArray[np.generic] = np.zeros(0, np.int32)
        self._offsets: npt.NDArray[np.int64] | None = None
        self._rows = self._end = 0

    def append(self, column: Column) -> None:
        """Append the rows of the next file to the column."""
        values = column.values if isinstance(column, Ragged) else column
        if not self._rows:
            self._values = np.empty(self._n_values, values.dtype)
            if isinstance(column, Ragged):
                self._offsets = np.zeros(self._n_rows + 1, np.int64)
        self._values[self._end : self._end + len(values)] = values
        if isinstance(column, Ragged) and self._offsets is not None:
            places = slice(self._rows + 1, self._rows + 1 + len(column))
            self._offsets[places] = column.offsets[1:] + self._end
        self._end += len(values)
        self._rows += len(column)

    def filled(self) -> Column:
        """Return the column, once the rows of all files are appended."""
        values = self._values[: self._end]
        if self._offsets is None:
            return values
        return Ragged(values, self._offsets)  # type: ignore[arg-type]


def _memory(column: Column) -> int:
    if isinstance(column, Ragged):
        return column.values.nbytes + column.offsets.nbytes
    return column.nbytes


def _n_values(metadata: pq.FileMetaData) -> dict[str, int]:
    """Return the number of values of each column of a file; an empty list counts as one."""
    found: dict[str, int] = {}
    for name, number, _, _ in _chunks(metadata):
        found[name] = found.get(name, 0) + number
    return found


def _n_bytes(metadata: pq.FileMetaData, names: set[str]) -> int:
    """Return roughly the memory, in bytes, that some columns of a parquet file take once read."""
    chunks = [chunk for chunk in _chunks(metadata) if chunk.name in names]
    lists = {chunk.name for chunk in chunks if chunk.is_list}
    # the offsets of lists are int64
    return sum(c.n_values * c.width for c in chunks) + 8 * len(lists) * metadata.num_rows


class _Chunk(NamedTuple):
    """One column in one row group: its name, number of values, their bytes, and if it has lists."""

    name: str
    n_values: int
    width: int
    is_list: bool


def _chunks(metadata: pq.FileMetaData) -> Iterator[_Chunk]:
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            chunk = row_group.column(i)
            name, list_, _ = chunk.path_in_schema.partition(".list.")
            width = _WIDTHS.get(chunk.physical_type, _WIDEST)
            yield _Chunk(name, chunk.num_values, width, bool(list_))
