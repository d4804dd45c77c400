"""The work of reading one file: all its rows in canonical types, in this process or another one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.etl.memory import Memory
from workflows.etl.read import aliccp, canonical
from workflows.etl.read.aliccp import Skeleton
from workflows.etl.read.cells import Cells
from workflows.etl.read.columnar import ParquetFile
from workflows.etl.read.explode import Exploded
from workflows.etl.read.growing import Growing
from workflows.etl.read.jsonlines import JsonLines
from workflows.etl.read.partitioned import Partitioned
from workflows.etl.read.text import TextFile
from workflows.recipe import Recipe

RawFile = TextFile | ParquetFile | JsonLines | Partitioned | Exploded | Skeleton

#: What messages say of rows that `explode:` made.
EXPLODED = ", after `explode:`"


class Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        rows: number of rows.
        table: the rows without those skipped.
        skipped: numbers of the rows that are skipped.
        empty: number of rows whose lists have no value, so that `explode:` made nothing of them.
        notes: sentences on what looks wrong in the file.
    """

    rows: int
    table: pa.Table
    skipped: npt.NDArray[np.int64]
    empty: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileJob:
    """A file and the columns to read from it. The job may be done in another process.

    Attributes:
        recipe: what each column is.
        file: the file.
        wanted: name of a column in the recipe → its name in the file.
        memory: how much memory may be taken.
        nulls: texts that stand for no value.
    """

    recipe: Recipe
    file: RawFile
    wanted: dict[str, str]
    memory: Memory
    nulls: tuple[str, ...] = ()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in order."""
        cells = Cells(self.recipe, self._numbered_path, self.nulls)
        features = self.recipe.features
        coded = [
            raw
            for name, raw in self.wanted.items()
            if name in features
            and (features[name].kind not in ("number", "weights") or is_time(self.recipe, name))
        ]
        for batch in self.file.batches(list(self.wanted.values()), coded):
            raw = batch.select(list(self.wanted.values())).rename_columns(list(self.wanted))
            table, skipped = cells.canonical(raw), np.array([], np.int64)
            if isinstance(self.file, Skeleton):
                kept = aliccp.kept(batch)
                skipped = np.flatnonzero(~kept)
                table = table.filter(pa.array(kept))
            if batch.num_rows:
                yield Chunk(batch.num_rows, table, skipped)
        cells.finish()

    @property
    def _numbered_path(self) -> Path:
        """The name under which messages number the rows."""
        exploded = isinstance(self.file, Exploded)
        return Path(f"{self.file.path}{EXPLODED}") if exploded else self.file.path

    def growing(self) -> Growing:
        """Return a table without rows that grows by chunks."""
        texts = [
            name
            for name, feature in self.recipe.features.items()
            if feature.kind in ("category", "label") and feature.role != "time"
        ]
        return Growing(str(self.file.path), texts)

    def read(self) -> Chunk:
        """Return all rows."""
        growing, rows = self.growing(), 0
        skipped = [np.array([], np.int64)]
        for chunk in _ahead(self.chunks()):
            growing.add(chunk.table)
            skipped.append(chunk.skipped + rows)
            rows += chunk.rows
            self.memory.refuse(str(self.file.path), growing.rows, growing.width)
        empty = self.file.empty if isinstance(self.file, Exploded) else 0
        notes = () if isinstance(self.file, Skeleton) else tuple(self.file.notes)
        table = canonical.settled(self.recipe, self.file.path, growing.table())
        return Chunk(rows, table, np.concatenate(skipped), empty, notes)


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the items of an iterator, while a thread makes the next one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk


def is_time(recipe: Recipe, name: str) -> bool:
    """Say whether a column is the time of an event."""
    return name in recipe.features and recipe.features[name].role == "time"
