"""Read one raw file: all its rows, with the types of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.etl.memory import Memory
from workflows.etl.read import aliccp, canonical
from workflows.etl.read.aliccp import SkeletonFile
from workflows.etl.read.cells import BatchConverter
from workflows.etl.read.explode import ExplodedFile
from workflows.etl.read.growing_table import GrowingTable
from workflows.etl.read.partitioned import PartitionedFile
from workflows.read.opening import DataFile
from workflows.read.parquet import ParquetFile
from workflows.read.text import TextFile
from workflows.recipe import Recipe

RawFile = DataFile | PartitionedFile | ExplodedFile | SkeletonFile

#: A note that messages append to a file's path if row numbers count the rows that `explode:` made
#: from lists.
EXPLODED = ", after `explode:`"


#: Least number of bytes of a piece of a text file, and of rows of a piece of a parquet file.
_TEXT, _ROWS = 64 << 20, 1 << 20


class Chunk(NamedTuple):
    """Some consecutive rows of a raw file, with the columns and types of the recipe.

    Attributes:
        rows: number of rows, skipped rows included.
        table: the rows of the chunk, without skipped rows.
        skipped: row numbers, within the chunk, of rows that the reader leaves out of `table`.
        empty: number of rows with empty lists, which `explode:` drops.
        notes: warnings about the raw file.
    """

    rows: int
    table: pa.Table
    skipped: npt.NDArray[np.int64]
    empty: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileJob:
    """A job that reads one raw file (path, columns, types), and can be sent to a worker process.

    Attributes:
        recipe: recipe that describes the raw columns and the features.
        file: the file to read.
        wanted: the columns to read: name in the recipe → name in the file.
        memory: the memory limit of etl.
        nulls: texts in cells that mean a missing value.
    """

    recipe: Recipe
    file: RawFile
    wanted: dict[str, str]
    memory: Memory
    nulls: tuple[str, ...] = ()

    def pieces(self) -> list[FileJob]:
        """Return jobs that read consecutive pieces of the file, or this one, if it has no pieces.

        The pieces depend on the file alone.
        """
        file = self.file
        if isinstance(file, TextFile):
            return [replace(self, file=piece) for piece in file.pieces(_TEXT)]
        if isinstance(file, ParquetFile):
            return [replace(self, file=piece) for piece in file.pieces(_ROWS)]
        return [self]

    @property
    def is_piece(self) -> bool:
        """Whether the job reads a piece of a file."""
        return isinstance(self.file, TextFile | ParquetFile) and self.file.is_piece

    @property
    def empty(self) -> int:
        """Number of rows with empty lists, which `explode:` dropped, among the rows read so far."""
        return self.file.empty if isinstance(self.file, ExplodedFile) else 0

    def converter(self) -> BatchConverter:
        """Return a converter of the cells of the file to the types of the recipe."""
        return BatchConverter(self.recipe, self._numbered_path, self.nulls)

    def chunks(self, converter: BatchConverter | None = None) -> Iterator[Chunk]:
        """Read the raw file, and yield its rows, in order, as chunks."""
        converter = converter or self.converter()
        features = self.recipe.features
        as_dictionary = [
            raw
            for name, raw in self.wanted.items()
            if name in features and features[name].meaning.reads_dictionary
        ]
        for batch in self.file.batches(list(self.wanted.values()), as_dictionary):
            raw = batch.select(list(self.wanted.values())).rename_columns(list(self.wanted))
            table, skipped = converter.convert(raw), np.array([], np.int64)
            if isinstance(self.file, SkeletonFile):
                is_possible = aliccp.possible_rows(batch)
                skipped = np.flatnonzero(~is_possible)
                table = table.filter(pa.array(is_possible))
            if batch.num_rows:
                yield Chunk(batch.num_rows, table, skipped)
        converter.finish()

    @property
    def _numbered_path(self) -> Path:
        """Return the raw file's path for messages, with a note if lists were exploded into rows."""
        exploded = isinstance(self.file, ExplodedFile)
        return Path(f"{self.file.path}{EXPLODED}") if exploded else self.file.path

    def growing(self) -> GrowingTable:
        """Return an empty growing table, to which the chunks of rows of the file are appended."""
        texts = [
            name
            for name, feature in self.recipe.features.items()
            if feature.meaning.cells == "text"
        ]
        return GrowingTable(str(self.file.path), texts)

    def slices(self, converter: BatchConverter, size: int) -> Iterator[Chunk]:
        """Read the rows of the file, and yield them, in order, as tables of a bounded size.

        Args:
            converter: converter of the cells, which notes what it finds.
            size: number of bytes of cells, distinct texts not counted, from which a table ends.
        """
        growing, rows, skipped = self.growing(), 0, [np.array([], np.int64)]
        for chunk in _prefetch(self.chunks(converter)):
            growing.add(chunk.table)
            skipped.append(chunk.skipped + rows)
            rows += chunk.rows
            if growing.rows * growing.width >= size:
                yield Chunk(rows, growing.table(), np.concatenate(skipped))
                growing, rows, skipped = self.growing(), 0, [np.array([], np.int64)]
        if rows:
            yield Chunk(rows, growing.table(), np.concatenate(skipped))

    def read(self) -> Chunk:
        """Read all rows of the raw file, and return them as one chunk."""
        growing, rows = self.growing(), 0
        skipped = [np.array([], np.int64)]
        for chunk in _prefetch(self.chunks()):
            growing.add(chunk.table)
            skipped.append(chunk.skipped + rows)
            rows += chunk.rows
            self.memory.refuse(str(self.file.path), growing.rows, growing.width)
        table = canonical.canonicalize(self.recipe, self.file.path, growing.table())
        return Chunk(rows, table, np.concatenate(skipped), self.empty, tuple(self.file.notes))


def _prefetch(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks of rows of a file, while a thread reads the next chunk."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk
