"""Raw files → canonical tables, read in chunks: one row a row, in the order of the files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.errors import DataError
from workflows.etl import aliccp, files
from workflows.etl.aliccp import Skeleton
from workflows.etl.cells import WEIGHT, Cells
from workflows.etl.columnar import ParquetFile
from workflows.etl.growing import Growing
from workflows.etl.memory import Memory
from workflows.etl.text import TextFile
from workflows.etl.workers import Workers
from workflows.recipe import Join, Recipe, Source

#: Bytes of raw text that are read at a time; no row of text may be longer.
BLOCK = 8 << 20
#: Why rows of `Raw.skipped` are left out, for the report.
SKIPPED = "bought without a click"

RawFile = TextFile | ParquetFile | Skeleton


@dataclass(frozen=True)
class Raw:
    """What was read.

    Attributes:
        tables: source name → its columns that the recipe names, canonical types, one array each.
        files: source name → the files it came from.
        rows: source name → rows of each of these files.
        columns: source name → all columns of these files, `rename:` applied.
        folder: the data folder.
        skipped: source name → numbers, from 0 and over all its files, of the rows left out of
            its table: those of aliccp that were bought without a click.
        filled: joined source → column → its value for ids that are not in the table; what is made
            of a join's `fill`, beside it.
    """

    tables: dict[str, pa.Table]
    files: dict[str, list[Path]]
    rows: dict[str, list[int]]
    columns: dict[str, list[str]]
    folder: Path
    skipped: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    filled: dict[str, dict[str, float | str]] = field(default_factory=dict)

    def fill(self, join: Join) -> dict[str, float | str]:
        """Return column → value for ids that are not in a joined table."""
        return {**join.fill, **self.filled.get(join.table, {})}

    def where(self, source: str) -> str:
        """Name a source and its files, for messages."""
        return f"source {source!r} ({', '.join(p.name for p in self.files[source])})"

    def without_rows(self, names: Sequence[str]) -> Raw:
        """Return it with some tables emptied, so that memory is freed."""
        empty = {name: self.tables[name].schema.empty_table() for name in names}
        return dataclasses.replace(self, tables={**self.tables, **empty})

    def require(self, source: str, column: str, *joined: str) -> None:
        """Check that a source, or one of those joined to it, has a column.

        Raises:
            DataError: names the columns that are there and the nearest one.
        """
        there = [name for s in (source, *joined) for name in self.columns[s]]
        if column not in there:
            also = f", nor {', '.join(map(self.where, joined))}" if joined else ""
            raise DataError(
                f"{self.where(source)} has no column {column!r}{also}"
                f"{files.nearest(column, there)}. Correct the name in the recipe, or give a raw "
                f"column this name with `rename:`. Columns: {', '.join(dict.fromkeys(there))}."
            )

    def place(self, source: str, row: int) -> str:
        """Name the file of a table's row (from 0) and its number there (from 1, without header)."""
        skipped = self.skipped.get(source, np.array([], np.int64))
        # as many rows were left out before it as have no more kept rows before them than it has
        row += int(np.searchsorted(skipped - np.arange(len(skipped)), row, side="right"))
        for path, n in zip(self.files[source], self.rows[source], strict=True):
            if row < n:
                return f"{path}, row {row + 1}"
            row -= n
        raise IndexError(f"{source} has no such row")

    def name(self, path: Path) -> str:
        """Name a file within the data folder, so that no path of this machine is told."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name


class _Chunk(NamedTuple):
    """Some rows of a file; the table is without those skipped."""

    rows: int
    table: pa.Table
    skipped: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _File:
    """A file and what to read of it: a job that may be done in another process.

    Attributes:
        recipe: what columns are.
        file: the file.
        wanted: name → raw name.
        memory: what may be taken.
    """

    recipe: Recipe
    file: RawFile
    wanted: dict[str, str]
    memory: Memory

    def chunks(self) -> Iterator[_Chunk]:
        """Yield the rows in order."""
        cells = Cells(self.recipe, self.file.path)
        features = self.recipe.features
        coded = [
            raw
            for name, raw in self.wanted.items()
            if name in features
            and (features[name].kind not in ("number", "weights") or _is_time(self.recipe, name))
        ]
        for batch in self.file.batches(list(self.wanted.values()), coded):
            raw = batch.select(list(self.wanted.values())).rename_columns(list(self.wanted))
            table, skipped = cells.canonical(raw), np.array([], np.int64)
            if isinstance(self.file, Skeleton):
                kept = aliccp.kept(batch)
                skipped = np.flatnonzero(~kept)
                table = table.filter(pa.array(kept))
            if batch.num_rows:
                yield _Chunk(batch.num_rows, table, skipped)

    def growing(self) -> Growing:
        """Return a table without rows that grows by chunks."""
        texts = [
            name
            for name, feature in self.recipe.features.items()
            if feature.kind in ("category", "label") and feature.role != "time"
        ]
        return Growing(str(self.file.path), texts)

    def read(self) -> _Chunk:
        """Return all rows."""
        growing, rows = self.growing(), 0
        skipped = [np.array([], np.int64)]
        for chunk in _ahead(self.chunks()):
            growing.add(chunk.table)
            skipped.append(chunk.skipped + rows)
            rows += chunk.rows
            self.memory.refuse(str(self.file.path), growing.rows, growing.width)
        return _Chunk(rows, growing.table(), np.concatenate(skipped))


def _ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Yield what an iterator yields, the next one being made meanwhile by a thread."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk


def read(
    recipe: Recipe,
    folder: Path,
    *,
    block: int = BLOCK,
    workers: Workers | None = None,
    memory: Memory | None = None,
) -> Raw:
    """Read every source of a recipe.

    Args:
        recipe: which columns to keep and what they are.
        folder: where the raw files lie.
        block: bytes of raw text to read at a time.
        workers: who reads the files, one a job; this thread where nobody is named.
        memory: what may be taken.

    Raises:
        DataError: a missing file or column, a row or cell that cannot be parsed, too many rows.
    """
    raw = Raw({}, {}, {}, {}, folder)
    memory = memory or Memory.of()
    for name, source in recipe.sources.items():
        opened = _Opened(recipe, name, folder, block)
        jobs = opened.jobs(memory)
        growing, skipped = Growing(f"source {name!r}"), []
        rows: list[int] = []
        for found in workers.map(_File.read, jobs) if workers else map(_File.read, jobs):
            if found.rows:
                growing.add(found.table)
            skipped.append(found.skipped + sum(rows))
            rows.append(found.rows)
        if not sum(rows):
            raise DataError(f"{jobs[0].file.path} has no rows. Put data there, or another file.")
        raw.tables[name] = growing.table()
        raw.files[name] = [*(file.path for file in opened.files), *opened.shared]
        raw.rows[name] = [*rows, *(0 for _ in opened.shared)]
        raw.columns[name] = opened.columns
        if source.format == "aliccp":
            raw.skipped[name] = np.concatenate(skipped)
    return raw


def stream(recipe: Recipe, source: str, folder: Path, *, block: int = BLOCK) -> Iterator[pa.Table]:
    """Yield the rows of a source in order, in pieces with texts of their own.

    Args:
        recipe: which columns to keep and what they are.
        source: name of the source.
        folder: where the raw files lie.
        block: bytes of raw text to read at a time; a chunk of another format is about as large.

    Raises:
        DataError: as `read`; what is wrong further down is found only there.
    """
    for job in _Opened(recipe, source, folder, block).jobs(Memory.of()):
        for chunk in job.chunks():
            growing = job.growing()
            growing.add(chunk.table)
            yield growing.table()


class _Opened:
    """A source of which all files are known to be there, and to have the same wanted columns."""

    def __init__(self, recipe: Recipe, name: str, folder: Path, block: int) -> None:
        self._recipe = recipe
        self._name = name
        self._source = recipe.sources[name]
        self.shared = files.find(name, self._source.common or (), folder)
        paths = files.find(name, self._source.files, folder)
        self.files = self._open(paths, block)
        named = [self._renamed(file) for file in self.files]
        self.columns = list(dict.fromkeys(column for names in named for column in names))
        self._wanted = [
            self._choose(file, names) for file, names in zip(self.files, named, strict=True)
        ]
        self._refuse_unlike()

    def _open(self, paths: Sequence[Path], block: int) -> list[RawFile]:
        if self._source.format == "aliccp":
            back = {new: old for old, new in self._source.rename.items()}
            named = [back.get(name, name) for name in self._recipe.features]
            listed = [back.get(name, name) for name in _lists(self._recipe)]
            common = aliccp.read_common(self.shared, named, block)
            return [Skeleton(path, common, listed, block) for path in paths]
        return [_open(path, self._source, block) for path in paths]

    def _renamed(self, file: RawFile) -> list[str]:
        """Return the names of a file's columns in the recipe."""
        for name in self._source.rename:
            if name not in file.names:
                raise DataError(
                    f"{file.path} has no column {name!r}, which the source's `rename:` names"
                    f"{files.nearest(name, file.names)}. It has: {', '.join(file.names)}."
                )
        return [self._source.rename.get(name, name) for name in file.names]

    def _choose(self, file: RawFile, names: Sequence[str]) -> dict[str, str]:
        """Return the wanted columns of a file, in the recipe's order: name → raw name."""
        raw = dict(zip(names, file.names, strict=True))
        chosen = {name: raw[name] for name in self._recipe.features if name in raw}
        for name in _lists(self._recipe):
            weights = raw.get(name + WEIGHT, raw.get(name, "") + WEIGHT)
            if name in chosen and weights in file.lists:
                chosen.setdefault(name + WEIGHT, weights)
        for name in chosen:
            if names.count(name) > 1:
                raise DataError(
                    f"{file.path} has more than one column {name!r}, `rename:` applied. Rename one "
                    "of them."
                )
        if not chosen:
            raise DataError(
                f"{file.path} has none of the columns that the recipe names; it has: "
                f"{', '.join(names)}. See that its first row names the columns, and set the "
                "source's `rename:`, or its `format:`."
            )
        return chosen

    def _refuse_unlike(self) -> None:
        """Refuse files of which one has a column that another has not."""
        every = dict.fromkeys(column for wanted in self._wanted for column in wanted)
        for file, wanted in zip(self.files, self._wanted, strict=True):
            for column in every:
                if column not in wanted:
                    raise DataError(
                        f"{file.path} has no column {column!r}, which another file of the same "
                        "source has. Make their headers alike, or list fewer `files:`."
                    )

    def jobs(self, memory: Memory) -> list[_File]:
        """Return the work of reading the files, if they look as if they will fit.

        Raises:
            DataError: they will not.
        """
        jobs = [
            _File(self._recipe, file, wanted, memory)
            for file, wanted in zip(self.files, self._wanted, strict=True)
        ]
        width = sum(8 if self._is_wide(name) else 4 for name in self._wanted[0])
        memory.refuse(f"source {self._name!r}", sum(file.about for file in self.files), width)
        return jobs

    def _is_wide(self, name: str) -> bool:
        return _is_time(self._recipe, name) or name in self._recipe.compared


def _open(path: Path, source: Source, block: int) -> TextFile | ParquetFile:
    kind = files.kind(path, source)
    if kind == "parquet":
        if source.nulls != Source(files="").nulls:
            raise DataError(
                f"{path} is parquet, where a cell without a value is null: `nulls` is for csv and "
                "tsv. Take it out of the source, or write nulls into the file."
            )
        return ParquetFile(path, block=block)
    return TextFile(path, kind=kind, nulls=source.nulls, block=block)


def _is_time(recipe: Recipe, name: str) -> bool:
    return name in recipe.features and recipe.features[name].role == "time"


def _lists(recipe: Recipe) -> list[str]:
    return [name for name, feature in recipe.features.items() if feature.kind == "categories"]
