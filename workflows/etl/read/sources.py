"""Raw files → canonical tables, read in chunks: one row a row, in the order of the files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.etl.memory import Memory
from workflows.etl.read import canonical, files, snapshots
from workflows.etl.read.cells import Cells
from workflows.etl.read.file_job import EXPLODED, FileJob
from workflows.etl.read.growing import GrowingTable
from workflows.etl.read.source_files import SourceFiles
from workflows.etl.workers import Workers
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe import Join, Recipe, Source
from workflows.recipe.text import nearest_name

log = logging.getLogger(__name__)

#: Bytes of raw text that are read at a time; no row of text may be longer.
BLOCK = 8 << 20
#: Why rows of `Raw.skipped` are left out, for the report.
SKIPPED = "bought without a click"

#: So many files are named in a message.
_NAMED = 4


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
            its table: those of aliccp that were bought without a click, and those that are not
            the latest of their id.
        filled: joined source → column → its value for ids that are not in the table; what is made
            of a join's `fill`, beside it.
        shaped: source name → what made other rows of those of its files, for messages.
    """

    tables: dict[str, pa.Table]
    files: dict[str, list[Path]]
    rows: dict[str, list[int]]
    columns: dict[str, list[str]]
    folder: Path
    skipped: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    filled: dict[str, dict[str, float | str]] = field(default_factory=dict)
    shaped: dict[str, str] = field(default_factory=dict)

    def fill(self, join: Join) -> dict[str, float | str]:
        """Return column → value for ids that are not in a joined table."""
        return {**join.fill, **self.filled.get(join.table, {})}

    def where(self, source: str) -> str:
        """Name a source and its files, for messages."""
        names = [self.name(path) for path in self.files[source]]
        if len(names) > _NAMED:
            names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more files"]
        return f"source {source!r} ({', '.join(names)})"

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
                f"{nearest_name(column, there)}. Correct the name in the recipe, or give a raw "
                f"column this name with `rename:`. Columns: {', '.join(dict.fromkeys(there))}."
            )

    def place(self, source: str, row: int) -> str:
        """Name the file of a table's row (from 0) and its number there (from 1, without header)."""
        skipped = self.skipped.get(source, np.array([], np.int64))
        # as many rows were left out before it as have no more kept rows before them than it has
        row += int(np.searchsorted(skipped - np.arange(len(skipped)), row, side="right"))
        for path, n in zip(self.files[source], self.rows[source], strict=True):
            if row < n:
                return f"{path}{self.shaped.get(source, '')}, row {row + 1}"
            row -= n
        raise IndexError(f"{source} has no such row")

    def name(self, path: Path) -> str:
        """Name a file within the data folder, so that no path of this machine is told."""
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
        opened = SourceFiles(recipe, name, folder, block)
        _read_source(raw, name, source, opened, opened.jobs(memory), workers)
        if source.latest:
            _keep_latest(raw, name, recipe)
        if source.long:
            _make_wide(raw, name, recipe)
    return raw


def _read_source(
    raw: Raw,
    name: str,
    source: Source,
    opened: SourceFiles,
    jobs: Sequence[FileJob],
    workers: Workers | None,
) -> None:
    """Read the files of a source, and add its rows to what was read before."""
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
    if not sum(rows):
        raise files.no_rows_error(jobs[0].file.path, is_empty=False)
    raw.tables[name] = growing.table()
    raw.files[name] = [*(file.path for file in opened.files), *opened.shared]
    raw.rows[name] = [*rows, *(0 for _ in opened.shared)]
    raw.columns[name] = opened.columns
    if source.format == "aliccp":
        raw.skipped[name] = np.concatenate(skipped)
    if empty:
        log.warning(
            "%s: %d rows have no value in %s, so `explode:` makes no row of them",
            raw.where(name), empty, " and ".join(source.explode or ()),
        )  # fmt: skip
    if source.explode:
        raw.shaped[name] = EXPLODED


def _keep_latest(raw: Raw, name: str, recipe: Recipe) -> None:
    """Leave out the rows that are not the latest of their id."""
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


def _make_wide(raw: Raw, name: str, recipe: Recipe) -> None:
    """Make one row an id of a table with one row a property.

    Raises:
        DataError: the recipe names none of the properties; of cells, as `read`.
    """
    table, source = raw.tables[name], recipe.sources[name]
    long = source.long
    assert long is not None
    there = dictionaries.distinct_texts(table[long.property]).to_pylist()
    called = {source.rename.get(text, text): text for text in sorted(there)}
    wanted = {c: called[c] for c in recipe.features if c in called and c != long.id}
    if not wanted:
        raise DataError(
            f"{raw.where(name)} has no property that the recipe names; it has: "
            f"{', '.join(list(called)[:40])}. Name one among the features, or set `rename:`."
        )
    texts = snapshots.widen(table, long, wanted, lambda row: raw.place(name, row))
    path = Path(f"{raw.files[name][0]}, after `long:`")
    cells = Cells(recipe, path, source.nulls)
    made = canonical.canonicalize(recipe, path, cells.canonical(texts))
    cells.finish()
    raw.tables[name] = pa.table(
        {column: dictionaries.combine(made[column]) for column in made.column_names}
    )
    raw.shaped[name] = ", after `long:`"
    raw.columns[name] = [long.id, *(column for column in called if column != long.id)]
    raw.rows[name] = [len(raw.tables[name]), *(0 for _ in raw.rows[name][1:])]


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
    for job in SourceFiles(recipe, source, folder, block).jobs(Memory.of()):
        for chunk in job.chunks():
            growing = job.growing()
            growing.add(chunk.table)
            yield growing.table()
