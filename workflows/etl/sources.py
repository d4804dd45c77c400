"""Raw files → canonical tables, read in chunks: one row a row, in the order of the files."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.errors import DataError
from workflows.etl import aliccp, canonical, codes, files, partitioned, snapshots
from workflows.etl.aliccp import Skeleton
from workflows.etl.cells import WEIGHT, Cells
from workflows.etl.columnar import ParquetFile
from workflows.etl.dialect import Dialect
from workflows.etl.explode import Exploded
from workflows.etl.growing import Growing
from workflows.etl.jsonlines import JsonLines
from workflows.etl.memory import Memory
from workflows.etl.partitioned import Partitioned
from workflows.etl.text import TextFile
from workflows.etl.workers import Workers
from workflows.recipe import Feature, Join, Recipe, Source

log = logging.getLogger(__name__)

#: Bytes of raw text that are read at a time; no row of text may be longer.
BLOCK = 8 << 20
#: Why rows of `Raw.skipped` are left out, for the report.
SKIPPED = "bought without a click"

#: What is said of rows that `explode:` made.
EXPLODED = ", after `explode:`"
#: So many files are named in a message.
_NAMED = 4
#: A name of a column that is a date, or a number.
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{4}.*")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")

RawFile = TextFile | ParquetFile | JsonLines | Partitioned | Exploded | Skeleton


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
                return f"{path}{self.shaped.get(source, '')}, row {row + 1}"
            row -= n
        raise IndexError(f"{source} has no such row")

    def name(self, path: Path) -> str:
        """Name a file within the data folder, so that no path of this machine is told."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name


class _Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        rows: how many.
        table: without those skipped.
        skipped: their numbers.
        empty: rows with lists without a value, so that `explode:` made nothing of them.
        notes: what is odd in the file.
    """

    rows: int
    table: pa.Table
    skipped: npt.NDArray[np.int64]
    empty: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file and what to read of it: a job that may be done in another process.

    Attributes:
        recipe: what columns are.
        file: the file.
        wanted: name → raw name.
        memory: what may be taken.
        nulls: texts that stand for no value.
    """

    recipe: Recipe
    file: RawFile
    wanted: dict[str, str]
    memory: Memory
    nulls: tuple[str, ...] = ()

    def chunks(self) -> Iterator[_Chunk]:
        """Yield the rows in order."""
        cells = Cells(self.recipe, self._told, self.nulls)
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
        cells.finish()

    @property
    def _told(self) -> Path:
        """What the file is called where its rows are numbered."""
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

    def read(self) -> _Chunk:
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
        return _Chunk(rows, table, np.concatenate(skipped), empty, notes)


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
        rows, empty = list[int](), 0
        for found in workers.map(_File.read, jobs) if workers else map(_File.read, jobs):
            if found.rows:
                growing.add(found.table)
            skipped.append(found.skipped + sum(rows))
            rows.append(found.rows)
            empty += found.empty
            for note in found.notes:
                log.warning("%s", note)
        if not sum(rows):
            raise files.without_rows(jobs[0].file.path, is_empty=False)
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
        if source.latest:
            _keep_latest(raw, name, recipe)
        if source.long:
            _make_wide(raw, name, recipe)
    return raw


def _keep_latest(raw: Raw, name: str, recipe: Recipe) -> None:
    """Leave out the rows that are not the latest of their id."""
    table, latest = raw.tables[name], recipe.sources[name].latest
    assert latest is not None
    kept = snapshots.latest(table[latest.id], table[latest.time], lambda row: raw.place(name, row))
    raw.skipped[name] = np.flatnonzero(~kept)
    wanted = [column for column in table.column_names if column in recipe.features]
    rows = table.select(wanted).filter(pa.array(kept))
    raw.tables[name] = pa.table({column: codes.one(rows[column]) for column in wanted})
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
    there = codes.present(table[long.property]).to_pylist()
    called = {source.rename.get(text, text): text for text in sorted(there)}
    wanted = {c: called[c] for c in recipe.features if c in called and c != long.id}
    if not wanted:
        raise DataError(
            f"{raw.where(name)} has no property that the recipe names; it has: "
            f"{', '.join(list(called)[:40])}. Name one among the features, or set `rename:`."
        )
    texts = snapshots.wide(table, long, wanted, lambda row: raw.place(name, row))
    path = Path(f"{raw.files[name][0]}, after `long:`")
    cells = Cells(recipe, path, source.nulls)
    made = canonical.settled(recipe, path, cells.canonical(texts))
    cells.finish()
    raw.tables[name] = pa.table({column: codes.one(made[column]) for column in made.column_names})
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
    for job in _Opened(recipe, source, folder, block).jobs(Memory.of()):
        for chunk in job.chunks():
            growing = job.growing()
            growing.add(chunk.table)
            yield growing.table()


class _Opened:
    """A source of which all files are known to be there, and to have the same wanted columns."""

    def __init__(self, recipe: Recipe, name: str, folder: Path, block: int) -> None:
        self._name = name
        self._source = recipe.sources[name]
        self._recipe = _with_said(recipe, self._source)
        self.shared = files.find(name, self._source.common or (), folder)
        paths = files.find(name, self._source.files, folder)
        self.files = self._with_rows(self._open(paths, folder, block))
        named = [self._renamed(file) for file in self.files]
        self.columns = list(dict.fromkeys(column for names in named for column in names))
        self._wanted = [
            self._choose(file, names) for file, names in zip(self.files, named, strict=True)
        ]
        self._refuse_unlike()

    @property
    def _raw_names(self) -> dict[str, str]:
        """Name in the recipe → name in the files, of those that are renamed."""
        return {new: old for old, new in self._source.rename.items()}

    def _open(self, paths: Sequence[Path], folder: Path, block: int) -> list[RawFile]:
        back = self._raw_names
        named = [back.get(name, name) for name in self._recipe.features]
        if self._source.format == "aliccp":
            listed = [back.get(name, name) for name in _lists(self._recipe)]
            common = aliccp.read_common(self.shared, named, block)
            return [Skeleton(path, common, listed, block) for path in paths]
        found: list[RawFile] = []
        for path in paths:
            file = _open(path, self._source, block, named)
            of_path = partitioned.told(path, folder)
            more = {key: value for key, value in of_path.items() if key not in file.names}
            found.append(Partitioned(file, more) if more else file)
        return _agreed(found)

    def _with_rows(self, found: list[RawFile]) -> list[RawFile]:
        """Pass over files without a row, unless there is no other; take the others' rows apart."""
        bare = [file for file in found if not isinstance(file, Skeleton) and file.is_bare]
        if len(bare) == len(found):
            raise files.without_rows(found[0].path, is_empty=not found[0].names)
        if bare:
            log.warning(
                "source %r: %d of %d files have no rows and are passed over: %s",
                self._name, len(bare), len(found), ", ".join(str(file.path) for file in bare),
            )  # fmt: skip
        kept = [file for file in found if file not in bare]
        if not self._source.explode:
            return kept
        columns = [self._raw_names.get(name, name) for name in self._source.explode]
        return [
            Exploded(file, columns, self._source.separator)
            for file in kept
            if not isinstance(file, Exploded | Skeleton)
        ]

    def _renamed(self, file: RawFile) -> list[str]:
        """Return the names of a file's columns in the recipe."""
        for name in self._source.rename:
            if name not in file.names and not self._source.long:
                raise DataError(
                    f"{file.path} has no column {name!r}, which the source's `rename:` names"
                    f"{files.nearest(name, file.names)}. It has: {', '.join(file.names)}."
                )
        return [self._source.rename.get(name, name) for name in file.names]

    def _choose(self, file: RawFile, names: Sequence[str]) -> dict[str, str]:
        """Return the wanted columns of a file, in the recipe's order: name → raw name."""
        raw = dict(zip(names, file.names, strict=True))
        said = _said(self._source)
        chosen = {
            name: raw[name]
            for name in self._recipe.features
            if name in raw and (not self._source.long or name in said)
        }
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
            raise _of_nothing(file.path, names)
        for name in said:
            if name not in chosen:
                raise DataError(
                    f"{file.path} has no column {name!r}, which the source's `latest:` or `long:` "
                    f"names{files.nearest(name, names)}. It has: {', '.join(names)}."
                )
        self._refuse_lists(file, chosen)
        if file is self.files[0]:
            self._refuse_data_for_names(file, chosen)
        return chosen

    def _refuse_lists(self, file: RawFile, chosen: dict[str, str]) -> None:
        """Refuse lists in a column that has one value a row."""
        for name, raw in chosen.items():
            feature = self._recipe.features.get(name)
            if feature is None or raw not in file.lists or isinstance(file, Skeleton):
                continue
            if feature.kind not in ("categories", "weights"):
                raise DataError(
                    f"{file.path}, column {name!r} holds lists, and the recipe takes it for single "
                    "values. If each value is an event of its own, list the column in the source's "
                    f"`explode:`; if the list is one thing's, set features.{name}.kind to "
                    "categories."
                )

    def _refuse_data_for_names(self, file: RawFile, chosen: dict[str, str]) -> None:
        """Refuse a first row that was taken for the names, and is visibly data."""
        inside: object = file
        while isinstance(inside, Partitioned | Exploded):
            inside = inside.file
        if isinstance(inside, TextFile) and inside.has_header:
            self._refuse_data_in(inside, chosen)

    def _refuse_data_in(self, file: TextFile, chosen: dict[str, str]) -> None:
        if any(file.names == [str(n + first) for n in range(len(file.names))] for first in (0, 1)):
            return  # columns that are numbered, as pandas does where they have no names
        chosen = {name: raw for name, raw in chosen.items() if raw in file.names}
        echoes = file.echoes([raw for name, raw in chosen.items() if name != raw])
        for name, raw in chosen.items():
            feature = self._recipe.features.get(name)
            is_key = feature is not None and (feature.id or feature.role == "time")
            is_number = _NUMBER.fullmatch(raw)
            if _DATE.fullmatch(raw) or raw in echoes or (is_key and is_number):
                raise DataError(
                    f"{file.path}: the first row is taken for the names of the columns, and looks "
                    f"like data: {', '.join(file.names)[:120]}. ({raw!r} is {name!r}.) It would be "
                    "lost as a row. List the names of all columns, in their order, in the "
                    "source's `columns:`, and leave `rename:` out."
                )

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
            _File(self._recipe, file, wanted, memory, self._source.nulls)
            for file, wanted in zip(self.files, self._wanted, strict=True)
        ]
        width = sum(8 if self._is_wide(name) else 4 for name in self._wanted[0])
        memory.refuse(f"source {self._name!r}", sum(file.about for file in self.files), width)
        return jobs

    def _is_wide(self, name: str) -> bool:
        return _is_time(self._recipe, name) or name in self._recipe.compared


def _open(
    path: Path, source: Source, block: int, named: Sequence[str]
) -> TextFile | ParquetFile | JsonLines:
    """Open a file; `named` are the columns that the recipe names, as the files call them."""
    kind = files.kind(path, source)
    if kind == "parquet":
        if source.told:
            raise DataError(
                f"{path} is parquet, which says itself how its cells are written: "
                f"`{source.told[0]}` is for csv and tsv. Take it out of the source."
            )
        return ParquetFile(path, block=block)
    if kind == "jsonl":
        return JsonLines(
            path, encoding=source.encoding, nulls=("", *source.nulls), block=block, wanted=named
        )
    return TextFile(path, Dialect.of(source, kind), block=block)


def _of_nothing(path: Path, names: Sequence[str]) -> DataError:
    """Return the error that says that a file has no column that the recipe names."""
    found = [text for text in ("::", ";", "\t", "|", ",") if len(names) < 2 and text in names[0]]
    guess = f" It looks as if {found[0]!r} stands between two cells." if found else ""
    return DataError(
        f"{path} has none of the columns that the recipe names; it has: {', '.join(names)}. If "
        "these are names, set the source's `rename:`, or its `delimiter:` or `format:`. If they "
        "are the cells of a first row, there is no row of names: list the columns in the source's "
        f"`columns:`, so that no row is lost.{guess}"
    )


def _agreed(found: list[RawFile]) -> list[RawFile]:
    """Return files after those of JSON lines were told each other's columns and lists."""
    objects = [file for file in found if isinstance(file, JsonLines)]
    names = list(dict.fromkeys(name for file in objects for name in file.names))
    for file in objects:
        if file.names:
            file.names = names
        file.lists = frozenset().union(*(other.lists for other in objects))
    return found


def _said(source: Source) -> list[str]:
    """Return the columns that `latest` or `long` of a source names."""
    if source.latest:
        return [source.latest.id, source.latest.time]
    if source.long:
        long = source.long
        return [n for n in (long.id, long.property, long.value, long.time) if n]
    return []


def _with_said(recipe: Recipe, source: Source) -> Recipe:
    """Return the recipe by which a source is read, with features of what only that one reads."""
    text = Feature(role="context", kind="label")
    said = {n: text for n in _said(source) if n not in recipe.features or n in _texts(source)}
    return msgspec.structs.replace(recipe, features={**recipe.features, **said})


def _texts(source: Source) -> tuple[str, ...]:
    """Return the columns of a source that are text, whatever features are called like them."""
    return (source.long.property, source.long.value) if source.long else ()


def _is_time(recipe: Recipe, name: str) -> bool:
    return name in recipe.features and recipe.features[name].role == "time"


def _lists(recipe: Recipe) -> list[str]:
    return [name for name, feature in recipe.features.items() if feature.kind == "categories"]
