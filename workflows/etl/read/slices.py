"""Write rows of raw files to disk, ordered by the partition of their user, and read them again.

A slice is a table of consecutive rows of one raw file, small enough to be sorted in memory. It
becomes two Arrow files: one with a record batch per partition, in which each text is an int32
number, and one with the distinct texts of each column. The texts of the user id are ordered by
partition, so that a partition reads only its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.memory import release_unused
from workflows.etl.read.file_job import FileJob
from workflows.etl.read.routing import assign_partitions
from workflows.ground.errors import DataError
from workflows.raw import dictionaries, list_cells
from workflows.read.text import UnsafePiece

#: The column with the number of each row in the table of its slice, from 0.
ROW = "\x00row"
#: Number of bytes of cells of a slice, distinct texts not counted.
SLICE = 32 << 20


@dataclass(frozen=True)
class Slice:
    """Two files with some rows of a raw file, ordered by partition.

    Attributes:
        path: path of the file of rows; `.texts` is appended for the file of texts.
        rows: number of rows.
        partition_rows: number of rows of each partition, int64 [n_partitions].
        bounds: position, in the texts of the user id, of the first text of each partition; and the
            number of texts, int64 [n_partitions + 1].
        nulls: column → number of missing cells.
        longest: column of lists → greatest length of a list.
    """

    path: Path
    rows: int
    partition_rows: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    nulls: dict[str, int]
    longest: dict[str, int]

    @property
    def texts_path(self) -> Path:
        """The path of the file of texts."""
        return self.path.with_suffix(".texts")

    def texts(self, column: str) -> pa.StringArray:
        """Return the distinct texts of a column of the slice."""
        return read_batch(self.texts_path, 0)[column].values

    def columns(self) -> list[str]:
        """Return the names of the columns that hold text, or lists of text."""
        with pa.memory_map(str(self.texts_path)) as file:
            return list(pa.ipc.open_file(file).schema.names)

    def batch(self, partition: int) -> pa.RecordBatch:
        """Return the rows of a partition, with numbers in place of texts."""
        return read_batch(self.path, partition)


def read_batch(path: Path, number: int) -> pa.RecordBatch:
    """Return a record batch of an Arrow file, whose bytes stay on disk until they are used."""
    # with a choice of columns, Arrow would copy them into memory
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(number)


@dataclass(frozen=True)
class Spilled:
    """The slices of a piece of a raw file, and the facts of the piece.

    Attributes:
        slices: the slices, in the order of their rows.
        rows: number of rows of the piece, skipped rows included.
        skipped: row numbers, within the piece, of rows that are left out.
        empty: number of rows with empty lists, which `explode:` drops.
        notes: warnings about the raw file.
        time_types: time column → type of its first time, number or timestamp.
    """

    slices: list[Slice]
    rows: int
    skipped: npt.NDArray[np.int64]
    empty: int
    notes: tuple[str, ...]
    time_types: dict[str, str]


@dataclass(frozen=True)
class SpillJob:
    """A job that reads a raw file or a piece of one, and writes its rows as slices.

    Attributes:
        job: the job that reads the rows.
        user: name of the column of user ids.
        partitions: number of partitions.
        path: beginning of the paths of the slices.
    """

    job: FileJob
    user: str
    partitions: int
    path: Path

    def run(self) -> Spilled | None:
        """Read the rows, and write the slices; return None for a piece that has a fault.

        A fault is reported only by a job that reads the whole file, which knows the number of the
        row, and whether lines are rows.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            return self._run()
        except (DataError, UnsafePiece):
            if self.job.is_piece:
                return None
            raise

    def _run(self) -> Spilled:
        converter = self.job.converter()
        slices, rows, skipped = list[Slice](), 0, [np.array([], np.int64)]
        for chunk in self.job.slices(converter, SLICE):
            if len(chunk.table):
                path = Path(f"{self.path}-{len(slices):05d}.rows")
                slices.append(write_slice(chunk.table, self.user, self.partitions, path))
            skipped.append(chunk.skipped + rows)
            rows += chunk.rows
        release_unused()
        return Spilled(
            slices,
            rows,
            np.concatenate(skipped),
            self.job.empty,
            tuple(self.job.file.notes),
            converter.time_types,
        )


def write_slice(table: pa.Table, user: str, partitions: int, path: Path) -> Slice:
    """Write a table as a slice.

    Args:
        table: the rows, each column one array, text as dictionaries.
        user: name of the column of user ids; rows without one are in partition 0.
        partitions: number of partitions.
        path: path of the file of rows; a file that exists is replaced.
    """
    ids = dictionaries.combine(table[user])
    owners = assign_partitions(ids.dictionary, partitions)
    of_texts = np.argsort(owners, kind="stable")
    ranks = np.empty(len(owners), np.int32)
    ranks[of_texts] = np.arange(len(owners), dtype=np.int32)
    of_rows = np.append(owners, np.uint16(0))[dictionaries.indices(ids)]
    order = pa.array(np.argsort(of_rows, kind="stable").astype(np.int32))
    sizes = np.bincount(of_rows, minlength=partitions)
    columns, texts, nulls, longest = {}, {}, {}, {}
    for name in table.column_names:
        array = dictionaries.combine(table[name])
        nulls[name] = array.null_count
        if dictionaries.holds_text(array.type):
            texts[name] = dictionaries.flatten(array).dictionary
        if pa.types.is_list(array.type):
            longest[name] = pc.max(pc.list_value_length(array)).as_py() or 0
        array = _with_numbers(array)
        if name == user:
            texts[name] = texts[name].take(pa.array(of_texts))
            array = pa.array(ranks).take(array)
        columns[name] = array.take(order)
    columns[ROW] = order
    write_batches(path, pa.table(columns), np.cumsum(sizes))
    lists = {name: pa.ListArray.from_arrays([0, len(of)], of) for name, of in texts.items()}
    write_batches(path.with_suffix(".texts"), pa.table(lists), np.array([1]))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=partitions))])
    return Slice(path, len(table), sizes, bounds, nulls, longest)


def remove_slices(slices: Iterable[Slice]) -> None:
    """Delete the files of slices."""
    for of in slices:
        of.path.unlink()
        of.texts_path.unlink()


def _with_numbers(array: pa.Array) -> pa.Array:
    """Return a column with dictionary indices in place of text; null stays null."""
    if pa.types.is_dictionary(array.type):
        return array.indices
    if dictionaries.holds_text(array.type):
        return list_cells.replace_values(array, array.flatten().indices)
    return array


def write_batches(path: Path, table: pa.Table, ends: npt.NDArray[np.int64]) -> None:
    """Write a table to an Arrow file, with a record batch up to each of the given rows."""
    aside = path.with_name(f"{path.name}.new")
    arrays = [dictionaries.combine(table[name]) for name in table.column_names]
    whole = pa.RecordBatch.from_arrays(arrays, names=table.column_names)
    start = 0
    with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, whole.schema) as writer:
        for end in ends.tolist():
            writer.write_batch(whole.slice(start, end - start))
            start = end
    aside.replace(path)
