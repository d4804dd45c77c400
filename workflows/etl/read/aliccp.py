"""Read Tianchi's Ali-CCP files: a skeleton with one impression per line, and common features.

A line of the skeleton is `sample, click, conversion, shared, count, features`, and a line of the
common features is `shared, count, features`; `shared` names the line of common features that
belongs to an impression. Each field of the features becomes a column with NVIDIA's name for this
field, and the values of the field become the weights of the column. NVIDIA's `prepare_aliccp`
(Merlin models 23.6) drops the rows after the last whole file, and all but the last value of a list;
this reader keeps every row and every value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Bools, Ints
from workflows.etl.read.aliccp_features import COLUMNS, Column, Features, field_of
from workflows.etl.read.cells import WEIGHT
from workflows.ground.errors import DataError
from workflows.read import files
from workflows.read.dialect import Dialect
from workflows.read.text import TextFile

_OWN = ("sample_id", "click", "conversion")
NAMES = (*_OWN, *(name for column in COLUMNS.values() for name in (column, column + WEIGHT)))
_SKELETON = (*_OWN, "shared", "count", "features")
_COMMON = ("shared", "count", "features")
#: The columns that show whether an impression is possible: there is no conversion without a click.
_FLAGS = ("click", "conversion")


@dataclass(frozen=True)
class Shared:
    """The values of one feature field in all lines of an Ali-CCP file of common features.

    Attributes:
        offsets: int64 [lines + 1]; the values of line l are offsets[l] to offsets[l + 1].
        id_numbers: index, in `ids`, of the id of each value, int32 [n].
        ids: the distinct ids of the field's values, text.
        weights: weight of each value, float32 [n].
    """

    offsets: Ints
    id_numbers: npt.NDArray[np.int32]
    ids: pa.Array
    weights: npt.NDArray[np.float32]

    def of(self, lines: Ints) -> Column:
        """Return the values of some lines of common features; these lines are numbered from 0."""
        counts = self.offsets[lines + 1] - self.offsets[lines]
        before = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(self.offsets[lines] - before, counts)
        numbers = np.repeat(np.arange(len(lines)), counts)
        return Column(
            numbers, self.ids.take(pa.array(self.id_numbers[places])), self.weights[places]
        )


@dataclass(frozen=True)
class Common:
    """The wanted columns of all Ali-CCP common features, which several impressions share.

    Attributes:
        names: name of each line (its field `shared`); names are distinct.
        columns: feature column → its values in all lines of common features.
    """

    names: pa.Array
    columns: dict[str, Shared]


def read_common(paths: Sequence[Path], columns: Sequence[str], block: int) -> Common:
    """Read Ali-CCP files of common features, which several impressions share.

    Args:
        paths: paths of the files, in which no name of a line may occur twice.
        columns: the columns of `NAMES` to keep.
        block: number of bytes of a file to read at a time.

    Raises:
        DataError: a line does not have the format, or the name of a line occurs twice.
    """
    wanted = _fields(columns)
    names, parts, rows = [], {name: [] for name in wanted}, []  # type: ignore[var-annotated]
    for path in paths:
        file = _open(path, _COMMON, block)
        before = 0
        for batch in file.batches(_COMMON):
            found = Features(batch, path, before)
            for name in wanted:
                column = found.column(name)
                lines, ids = column.lines + sum(rows) + before, column.ids.dictionary_encode()
                parts[name].append(Column(lines, ids, column.weights))
            names += batch["shared"].chunks
            before += batch.num_rows
        rows.append(before)
    every = pa.chunked_array(names, pa.string()).combine_chunks()
    _refuse_repeated(every, paths, rows)
    return Common(every, {name: _gather(parts[name], len(every)) for name in wanted})


def _open(path: Path, columns: tuple[str, ...], block: int) -> TextFile:
    file = TextFile(path, Dialect("aliccp", columns=columns), block=block)
    if file.is_empty:
        raise files.no_rows_error(path, is_empty=True)
    return file


def _fields(columns: Sequence[str]) -> list[str]:
    """Return the Ali-CCP columns to parse: those wanted, and those whose weights are wanted."""
    return [c for c in COLUMNS.values() if c in columns or c + WEIGHT in columns]


def _gather(parts: Sequence[Column], lines: int) -> Shared:
    ids = pa.chunked_array([part.ids for part in parts]).unify_dictionaries()
    counts = np.bincount(np.concatenate([part.lines for part in parts]), minlength=lines)
    return Shared(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([chunk.indices.to_numpy() for chunk in ids.chunks]).astype(np.int32),
        ids.chunk(0).dictionary,
        np.concatenate([part.weights for part in parts]),
    )


def _refuse_repeated(names: pa.Array, paths: Sequence[Path], rows: Sequence[int]) -> None:
    first = pc.index_in(names, value_set=names).to_numpy()
    again = np.flatnonzero(first != np.arange(len(names)))
    if len(again) == 0:
        return
    ends = np.cumsum(rows)

    def where(line: int) -> str:
        file = int(np.searchsorted(ends, line, side="right"))
        return f"{paths[file]}, row {line - (ends[file] - rows[file]) + 1}"

    raise DataError(
        f"{where(again[0])}: the common features {names[again[0]].as_py()!r} were defined before, "
        f"in {where(first[again[0]])}; {len(again)} lines repeat a name. A line of the skeleton "
        "can refer to only one of them; remove the others."
    )


class SkeletonFile:
    """An Ali-CCP file of impressions (a skeleton), joined with their common features.

    Args:
        path: path of the raw file.
        common: the common features, which several impressions share.
        listed: names of the columns of lists; any other column has at most one value per line.
        block: number of bytes of a file to read at a time.

    Attributes:
        path: path of the raw file.
        names: names of all columns that the format can have.
        lists: names of the columns of lists, and of their weights.
        approximate_rows: estimated number of rows.
        is_empty: always false, because an empty skeleton is refused.
        notes: warnings about the part of the file that was read.

    Raises:
        DataError: the file is missing, is empty, or is not text.
    """

    def __init__(self, path: Path, common: Common, listed: Sequence[str], block: int) -> None:
        self.path = path
        self.names = list(NAMES)
        self.lists = frozenset([*listed, *(name + WEIGHT for name in listed)])
        self._common = common
        self._text = _open(path, _SKELETON, block)
        self.approximate_rows = self._text.approximate_rows
        self.is_empty, self.notes = False, self._text.notes

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the impressions with the requested columns and always `click` and `conversion`.

        Raises:
            DataError: a line does not have the format, refers to unknown common features, or has
                several values of a column that should have one.
        """
        before = 0
        for batch in self._text.batches(_SKELETON):
            for name in _FLAGS:
                self._refuse_other_than_0_or_1(batch, name, before)
            found = Features(batch, self.path, before)
            lines = self._lines(batch["shared"], before)
            read = {name: batch[name] for name in _OWN}
            for name in _fields(columns):
                column = found.column(name)
                if name in self._common.columns:
                    column = _concatenate(self._common.columns[name].of(lines), column)
                read[name], read[name + WEIGHT] = self._cells(name, column, len(lines), before)
            yield pa.table({name: read[name] for name in dict.fromkeys((*columns, *_FLAGS))})
            before += batch.num_rows

    def _lines(self, names: pa.ChunkedArray, before: int) -> Ints:
        """Return, for each impression, the index of its line in the common features."""
        lines = pc.index_in(names, value_set=self._common.names)
        if lines.null_count:
            row = pc.index(pc.is_null(lines), True).as_py()
            raise DataError(
                f"{self.path}, row {before + row + 1}: there are no common features "
                f"{names[row].as_py()!r} (here and in {lines.null_count - 1} more rows of its "
                "block). Check that the source's `common:` names all files of this split."
            )
        return lines.to_numpy().astype(np.int64)

    def _refuse_other_than_0_or_1(self, batch: pa.Table, name: str, before: int) -> None:
        row = pc.index(pc.is_in(batch[name], value_set=pa.array(["0", "1"])), False).as_py()
        if row >= 0:
            raise DataError(
                f"{self.path}, column {name!r}, row {before + row + 1}: expected 0 or 1, got "
                f"{batch[name][row].as_py()!r}. Correct it; the columns are "
                f"{', '.join(_SKELETON)}."
            )

    def _cells(self, name: str, column: Column, n: int, before: int) -> tuple[pa.Array, pa.Array]:
        """Return the ids and the weights of one feature for n impressions."""
        counts = np.bincount(column.lines, minlength=n)
        if name in self.lists:
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            weights = pa.array(column.weights)
            return (
                pa.ListArray.from_arrays(offsets, column.ids),
                pa.ListArray.from_arrays(offsets, weights),
            )
        row = int(counts.argmax()) if n else 0
        if n and counts[row] > 1:
            raise DataError(
                f"{self.path}, row {before + row + 1}: {counts[row]} values of field "
                f"{field_of(name)} ({name}), of which the recipe expects one. Give "
                f"features.{name} `kind: categories`, or correct the line."
            )
        places = np.full(n, -1)
        places[column.lines] = np.arange(len(column.lines))
        at = pa.array(places, mask=places < 0)
        return column.ids.take(at), pa.array(column.weights).take(at)


def possible_rows(batch: pa.Table) -> Bools:
    """Return a mask of impressions: false for a purchase without a click, which is impossible."""
    impossible = pc.and_(pc.equal(batch["click"], "0"), pc.equal(batch["conversion"], "1"))
    return ~impossible.to_numpy()


def _concatenate(first: Column, second: Column) -> Column:
    """Merge two columns of parsed values by line; in each line, values of `first` come first."""
    if len(second.lines) == 0:
        return first
    if len(first.lines) == 0:
        return second
    lines = np.concatenate([first.lines, second.lines])
    order = np.argsort(lines, kind="stable")
    return Column(
        lines[order],
        pa.concat_arrays([first.ids, second.ids]).take(pa.array(order)),
        np.concatenate([first.weights, second.weights])[order],
    )
