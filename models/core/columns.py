"""Encoded columns in memory: a numpy array for a column of numbers, a Ragged for lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.column_names import ITEM_ROW, ROW_WEIGHT, USER_ROW
from models.core.retriever import Floats, Ints, Ragged

Column = npt.NDArray[np.generic] | Ragged
Columns = Mapping[str, Column]

#: Number of rows of a parquet file that are in memory at a time where a file is read in blocks.
BLOCK_ROWS = 1 << 20

LOSS_COLUMNS = [USER_ROW, ITEM_ROW, ROW_WEIGHT]


def read_columns(
    path: Path | Sequence[Path], names: Sequence[str] | None = None
) -> dict[str, Column]:
    """Read columns of encoded data from parquet files into memory.

    Args:
        path: a file, a folder of files, or several files in order.
        names: names of the columns; None for all.
    """
    table = pq.read_table(path, columns=None if names is None else list(names))
    return table_columns(table)


def table_columns(table: pa.Table) -> dict[str, Column]:
    """Return the columns of an arrow table as numpy arrays and Ragged."""
    return {name: from_arrow(table[name]) for name in table.column_names}


def read_rows(files: Sequence[Path], names: Sequence[str], key: str, among: Ints) -> pa.Table:
    """Read those rows of parquet files whose key is one of the given numbers, block by block.

    Args:
        files: the files, in the order in which their rows are returned; at least one.
        names: names of the columns to return.
        key: the column of whole numbers by which rows are selected.
        among: the numbers to look for, distinct and rising, int [n].
    """
    kept = []
    for path in files:
        with pq.ParquetFile(path) as file:
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            for block in file.iter_batches(BLOCK_ROWS, columns=list(names)):
                numbers = block.column(names.index(key)).to_numpy()
                place = np.minimum(np.searchsorted(among, numbers), max(len(among) - 1, 0))
                is_kept = among[place] == numbers if len(among) else np.zeros(len(numbers), bool)
                kept.append(block.filter(pa.array(is_kept)))
    return pa.Table.from_batches(kept, schema)


def from_arrow(values: pa.ChunkedArray) -> Column:
    """Convert an arrow column to a numpy array, or to a Ragged if it has lists."""
    chunks = values.chunks or [pa.array([], values.type)]
    if not pa.types.is_list(values.type):
        return pa.concat_arrays(chunks).to_numpy(zero_copy_only=False)
    # chunk by chunk: the offsets of one arrow array of all lists end at 2^31
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in chunks]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    parts = [chunk.flatten().to_numpy() for chunk in chunks]
    return Ragged(np.concatenate(parts) if len(parts) > 1 else parts[0], offsets)


def to_arrow(column: Column) -> pa.Array:
    """Convert a column, a numpy array or a Ragged, to an arrow array."""
    if isinstance(column, Ragged):
        if column.offsets[-1] > np.iinfo(np.int32).max:
            raise OverflowError(
                f"{column.offsets[-1]:,} values do not fit into one arrow array of lists."
            )
        return pa.ListArray.from_arrays(column.offsets.astype(np.int32), pa.array(column.values))
    return pa.array(column)


def fixed_lists(vectors: Floats) -> pa.FixedSizeListArray:
    """Return the rows of a matrix as an arrow array of lists of equal length.

    Args:
        vectors: the matrix, such as embeddings, float32 [n, d].
    """
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def write_vectors(table: pa.Table, path: Path) -> None:
    """Write a table with an embedding column to a parquet file, without dictionary encoding.

    In embeddings hardly any number occurs twice, so a dictionary of the values would save no space,
    and building it would take longer than writing the file.
    """
    pq.write_table(table, path, use_dictionary=False)


class GrowingFile:
    """A parquet file to which tables are appended; each table becomes a row group.

    Args:
        path: the path of the file; the first table that is appended gives its columns.
        use_dictionary: see `write_vectors`.
    """

    def __init__(self, path: Path, *, use_dictionary: bool = True) -> None:
        self._path, self._use_dictionary = path, use_dictionary
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        """Write a table at the end of the file."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, use_dictionary=self._use_dictionary
            )
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def as_array(column: Column) -> npt.NDArray[np.integer]:
    """Return a column with one integer per row as a numpy array, and refuse a column of lists.

    Raises:
        TypeError: the column has lists.
    """
    if isinstance(column, Ragged):
        raise TypeError("Expected a column with one number per row. Received: a column of lists.")
    return column  # type: ignore[return-value]


def n_rows(columns: Columns) -> int:
    """Return the number of rows of a table in memory, the length of each of its columns."""
    return len(next(iter(columns.values())))


def take_rows(column: Column, rows: Ints) -> Column:
    """Return the values of a column (a numpy array or a Ragged) at the given row numbers."""
    return column.take(rows) if isinstance(column, Ragged) else column[rows]


def take(columns: Columns, rows: Ints) -> dict[str, npt.NDArray[np.generic]]:
    """Return a batch of rows as Merlin's loader does, with lists as `__values` and `__offsets`.

    Args:
        columns: the encoded columns, name → column of n_rows rows.
        rows: row numbers of the batch, int [B].
    """
    return to_batch({name: take_rows(column, rows) for name, column in columns.items()})


def to_batch(columns: Columns) -> dict[str, npt.NDArray[np.generic]]:
    """Return columns as a batch of Merlin's loader, with lists as `__values` and `__offsets`."""
    batch: dict[str, npt.NDArray[np.generic]] = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            batch[f"{name}__values"] = column.values
            batch[f"{name}__offsets"] = column.offsets.astype(np.int32)
        else:
            batch[name] = column
    return batch


def concatenate(parts: Sequence[Columns]) -> dict[str, Column]:
    """Return the rows of several tables that have the same columns, one after the other."""
    if len(parts) == 1:
        return dict(parts[0])
    found: dict[str, Column] = {}
    for name, first in parts[0].items():
        if not isinstance(first, Ragged):
            found[name] = np.concatenate([part[name] for part in parts])
            continue
        lists = [column for part in parts if isinstance(column := part[name], Ragged)]
        offsets = np.zeros(sum(map(len, lists)) + 1, np.int64)
        np.cumsum(np.concatenate([column.lengths for column in lists]), out=offsets[1:])
        found[name] = Ragged(np.concatenate([column.values for column in lists]), offsets)
    return found
