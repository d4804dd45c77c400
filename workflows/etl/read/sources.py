"""Read all sources of a recipe into one table each, with the rows in the order of the files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.etl.memory import Memory
from workflows.etl.read import canonical, snapshots
from workflows.etl.read.cells import BatchConverter
from workflows.etl.read.file_job import EXPLODED, FileJob
from workflows.etl.read.growing_table import GrowingTable
from workflows.etl.read.source_files import SourceFiles
from workflows.etl.workers import Workers
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.read import files
from workflows.read.opening import BLOCK
from workflows.recipe import GivenFiles, Join, Recipe, Source
from workflows.recipe.text import nearest_name

log = logging.getLogger(__name__)

#: The cause that the report states for Ali-CCP impressions that are left out: a purchase without a
#: click.
SKIPPED = "bought without a click"

#: Largest number of raw files that a message names.
_NAMED = 4


@dataclass(frozen=True)
class Raw:
    """The raw tables of all sources of the recipe, with the files that their rows came from.

    Attributes:
        tables: source → its columns that the recipe names, with the recipe's types; each column is
            one array.
        files: source → the raw files that it was read from.
        rows: source → number of rows of each of its raw files.
        columns: source → names of all columns of its raw files, after `rename:`.
        folder: folder of the raw files.
        skipped: source → row numbers, from 0 over all files of the source, of the rows that are not
            in its table: Ali-CCP impressions with a purchase but no click, and rows that are not
            the latest of their id.
        filled: joined source → column → value for ids that the joined table lacks: the join's
            `fill` values, and the values that are derived from these.
        shaped: source → note for messages, if `explode:` or `long:` changed the rows of its files.
        numbers: source → number, in the source's whole table, of each row of its table here, if
            these are the rows of one partition.
    """

    tables: dict[str, pa.Table]
    files: dict[str, list[Path]]
    rows: dict[str, list[int]]
    columns: dict[str, list[str]]
    folder: Path
    skipped: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    filled: dict[str, dict[str, float | str]] = field(default_factory=dict)
    shaped: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def fill(self, join: Join) -> dict[str, float | str]:
        """Return column → value that interactions get if their id is not in the joined table."""
        return {**join.fill, **self.filled.get(join.table, {})}

    def where(self, source: str) -> str:
        """Return a text that names a source of the recipe and its files, for messages."""
        names = [self.name(path) for path in self.files[source]]
        if len(names) > _NAMED:
            names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more files"]
        return f"source {source!r} ({', '.join(names)})"

    def without_rows(self, names: Sequence[str]) -> Raw:
        """Return a copy in which the named tables have no rows, so that their memory is freed."""
        empty = {name: self.tables[name].schema.empty_table() for name in names}
        return dataclasses.replace(self, tables={**self.tables, **empty})

    def require(self, source: str, column: str, *joined: str) -> None:
        """Raise an error unless a source, or a table that is joined to it, has a column.

        Raises:
            DataError: no table has the column; the message lists all columns and the most similar
                name.
        """
        there = [name for s in (source, *joined) for name in self.columns[s]]
        if column not in there:
            also = f", nor {', '.join(map(self.where, joined))}" if joined else ""
            raise DataError(
                f"{self.where(source)} has no column {column!r}{also}"
                f"{nearest_name(column, there)}. Correct the name in the recipe, or give a raw "
                f"column this name with `rename:`. Columns: {', '.join(dict.fromkeys(there))}."
            )

    def place(self, source: str, row: int) -> str:
        """Return a text that names the file of a table row and the row's number in the file.

        Args:
            source: name of the source.
            row: number of the row in the source's table, from 0. In the file, rows are counted from
                1, without the header.
        """
        if source in self.numbers:
            row = int(self.numbers[source][row])
        skipped = self.skipped.get(source, np.array([], np.int64))
        # skipped row number i has skipped[i] - i kept rows before it
        row += int(np.searchsorted(skipped - np.arange(len(skipped)), row, side="right"))
        for path, n in zip(self.files[source], self.rows[source], strict=True):
            if row < n:
                return f"{path}{self.shaped.get(source, '')}, row {row + 1}"
            row -= n
        raise IndexError(f"{source} has no such row")

    def name(self, path: Path) -> str:
        """Return the path of a raw file relative to the data folder, for messages."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name


def read(
    recipe: Recipe,
    folder: Path,
    *,
    block: int = BLOCK,
    workers: Workers | None = None,
    memory: Memory | None = None,
) -> Raw:
    """Read the raw files of every source of a recipe into one table per source.

    Args:
        recipe: recipe that names the sources and describes the columns.
        folder: folder of the raw files.
        block: number of bytes of raw text to read at a time.
        workers: workers that read the files, one file per job; None for this thread.
        memory: memory limit of etl; None for the default.

    Raises:
        DataError: a file or column is missing, a row or cell cannot be parsed, or the rows do not
            fit into memory.
    """
    memory = memory or Memory.of()
    return read_tables(recipe, open_sources(recipe, folder, block), folder, workers, memory)


def open_sources(recipe: Recipe, folder: Path, block: int) -> dict[str, SourceFiles]:
    """Open the raw files of every source of a recipe: source → its files.

    Raises:
        DataError: a file or column is missing.
    """
    return {name: SourceFiles(recipe, name, folder, block) for name in recipe.sources}


def read_tables(
    recipe: Recipe,
    opened: Mapping[str, SourceFiles],
    folder: Path,
    workers: Workers | None,
    memory: Memory,
) -> Raw:
    """Read opened sources into one table per source.

    Raises:
        DataError: a row or cell cannot be parsed, or the rows do not fit into memory.
    """
    raw = Raw({}, {}, {}, {}, folder)
    for name, source_files in opened.items():
        source = recipe.sources[name]
        source_files.refuse_more(memory)
        _read_source(raw, name, source, source_files, source_files.jobs(memory), workers)
        if source.latest:
            _keep_latest(raw, name, recipe)
        if source.long:
            _widen(raw, name, recipe)
    return raw


def interaction_sources(recipe: Recipe) -> list[str]:
    """Return the sources of the recipe whose rows are interactions, not users or items."""
    given = recipe.split if isinstance(recipe.split, GivenFiles) else None
    others = [name for name in (given.valid, given.test) if name] if given else []
    return list(dict.fromkeys([recipe.interactions, *others]))


def _read_source(
    raw: Raw,
    name: str,
    source: Source,
    source_files: SourceFiles,
    jobs: Sequence[FileJob],
    workers: Workers | None,
) -> None:
    """Read the raw files of one source, and add the source's table to `raw`."""
    growing, skipped = GrowingTable(f"source {name!r}"), []
    rows, empty = list[int](), 0
    for found in workers.map(FileJob.read, jobs) if workers else map(FileJob.read, jobs):
        if found.rows:
            growing.add(found.table)
        skipped.append(found.skipped + sum(rows))
        rows.append(found.rows)
        empty += found.empty
        for note in found.notes:
            log.warning("%s", note)
    add_facts(raw, name, source, source_files, rows, skipped, empty)
    raw.tables[name] = growing.table()


def add_facts(
    raw: Raw,
    name: str,
    source: Source,
    source_files: SourceFiles,
    rows: Sequence[int],
    skipped: Sequence[npt.NDArray[np.int64]],
    empty: int,
) -> None:
    """Add to `raw` what is known of the files of a source after they were read.

    Args:
        raw: the object to complete.
        name: name of the source.
        source: the source in the recipe.
        source_files: the raw files of the source.
        rows: number of rows of each file.
        skipped: row numbers, over all files, of the rows that are left out.
        empty: number of rows with empty lists, which `explode:` dropped.

    Raises:
        DataError: no file has rows.
    """
    if not sum(rows):
        raise files.no_rows_error(source_files.files[0].path, is_empty=False)
    raw.files[name] = [*(file.path for file in source_files.files), *source_files.shared]
    raw.rows[name] = [*rows, *(0 for _ in source_files.shared)]
    raw.columns[name] = source_files.columns
    if source.format == "aliccp":
        raw.skipped[name] = np.concatenate(skipped)
    if empty:
        log.warning(
            "%s: %d rows have no value in %s, so `explode:` drops them",
            raw.where(name), empty, " and ".join(source.explode or ()),
        )  # fmt: skip
    if source.explode:
        raw.shaped[name] = EXPLODED


def _keep_latest(raw: Raw, name: str, recipe: Recipe) -> None:
    """Keep only the latest row of each id in the table of a source (`latest:` in the recipe)."""
    table, latest = raw.tables[name], recipe.sources[name].latest
    assert latest is not None
    kept = snapshots.are_latest(
        table[latest.id], table[latest.time], lambda row: raw.place(name, row)
    )
    raw.skipped[name] = np.flatnonzero(~kept)
    wanted = [column for column in table.column_names if column in recipe.features]
    rows = table.select(wanted).filter(pa.array(kept))
    raw.tables[name] = pa.table({column: dictionaries.combine(rows[column]) for column in wanted})
    log.info(
        "%s: %d of %d rows are not the latest of their %s, and are left out",
        raw.where(name), len(raw.skipped[name]), len(kept), latest.id,
    )  # fmt: skip


def _widen(raw: Raw, name: str, recipe: Recipe) -> None:
    """Turn a source's table with one row per property into one with one row per id (`long:`).

    Raises:
        DataError: the recipe names none of the properties, or a cell cannot be read.
    """
    table, source = raw.tables[name], recipe.sources[name]
    long = source.long
    assert long is not None
    there = dictionaries.distinct_texts(table[long.property]).to_pylist()
    named = {source.rename.get(text, text): text for text in sorted(there)}
    wanted = {c: named[c] for c in recipe.features if c in named and c != long.id}
    if not wanted:
        raise DataError(
            f"{raw.where(name)} has no property that the recipe names; it has: "
            f"{', '.join(list(named)[:40])}. Name one among the features, or set `rename:`."
        )
    texts = snapshots.widen(table, long, wanted, lambda row: raw.place(name, row))
    path = Path(f"{raw.files[name][0]}, after `long:`")
    converter = BatchConverter(recipe, path, source.nulls)
    table = canonical.canonicalize(recipe, path, converter.convert(texts))
    converter.finish()
    raw.tables[name] = pa.table(
        {column: dictionaries.combine(table[column]) for column in table.column_names}
    )
    raw.shaped[name] = ", after `long:`"
    raw.columns[name] = [long.id, *(column for column in named if column != long.id)]
    raw.rows[name] = [len(raw.tables[name]), *(0 for _ in raw.rows[name][1:])]


def stream(recipe: Recipe, source: str, folder: Path, *, block: int = BLOCK) -> Iterator[pa.Table]:
    """Yield the rows of one source in order, in chunks that each have their own dictionaries.

    Args:
        recipe: recipe that names the source and describes the columns.
        source: name of the source.
        folder: folder of the raw files.
        block: number of bytes of raw text to read at a time; chunks of other formats are about as
            large.

    Raises:
        DataError: a file, column, row or cell cannot be read; raised with the chunk that has the
            fault.
    """
    for job in SourceFiles(recipe, source, folder, block).jobs(Memory.of()):
        for chunk in job.chunks():
            growing = job.growing()
            growing.add(chunk.table)
            yield growing.table()
