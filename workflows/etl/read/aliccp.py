"""Ali-CCP as Tianchi gives it: a skeleton of impressions and the features that many of them share.

A line of the skeleton is `sample, click, conversion, shared, count, features`, one of the common
features is `shared, count, features`. A feature is `field \\x02 id \\x03 value`; they are joined by
\\x01. Here a field becomes a column of NVIDIA's name for it, and its values the column's weights.
Unlike `prepare_aliccp` (Merlin models 23.6, which drops the rows after the last whole file, and all
but the last value of a list), this reader keeps every row and every value.

Nothing is split into small strings: the separators' places in the bytes of a whole block are found
at once, and the pieces between them are one Arrow array over the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read import files
from workflows.etl.read.cells import WEIGHT
from workflows.etl.read.dialect import Dialect
from workflows.etl.read.text import TextFile
from workflows.ground.errors import DataError

Ints = npt.NDArray[np.int64]

#: Field → column, as NVIDIA's converter calls it.
COLUMNS = {
    "101": "user_id",
    "109_14": "user_categories",
    "110_14": "user_shops",
    "127_14": "user_brands",
    "150_14": "user_intentions",
    "121": "user_profile",
    "122": "user_group",
    "124": "user_gender",
    "125": "user_age",
    "126": "user_consumption_1",
    "127": "user_consumption_2",
    "128": "user_is_occupied",
    "129": "user_geography",
    "205": "item_id",
    "206": "item_category",
    "207": "item_shop",
    "216": "item_brand",
    "210": "item_intention",
    "508": "user_item_categories",
    "509": "user_item_shops",
    "702": "user_item_brands",
    "853": "user_item_intentions",
    "301": "position",
}
_FIELDS = pa.array(list(COLUMNS))
_OWN = ("sample_id", "click", "conversion")
NAMES = (*_OWN, *(name for column in COLUMNS.values() for name in (column, column + WEIGHT)))
_SKELETON = (*_OWN, "shared", "count", "features")
_COMMON = ("shared", "count", "features")
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
#: What is needed to see that a row is possible.
_FLAGS = ("click", "conversion")
#: The order of the separators within a line: field, id, value, and the next feature.
_ORDER = np.array([2, 3, 1], np.uint8)


class Column(NamedTuple):
    """The values of one field in some lines.

    Attributes:
        lines: int64 [n], the line of each value, rising.
        ids: text [n].
        weights: float32 [n].
    """

    lines: Ints
    ids: pa.Array
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shared:
    """The values of one field in all common features: those of line l begin at offsets[l]."""

    offsets: Ints
    codes: npt.NDArray[np.int32]
    ids: pa.Array
    weights: npt.NDArray[np.float32]

    def of(self, lines: Ints) -> Column:
        """Return the values of some lines, which are numbered anew in this order."""
        counts = self.offsets[lines + 1] - self.offsets[lines]
        before = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(self.offsets[lines] - before, counts)
        numbers = np.repeat(np.arange(len(lines)), counts)
        return Column(numbers, self.ids.take(pa.array(self.codes[places])), self.weights[places])


@dataclass(frozen=True)
class Common:
    """The wanted fields of all common features.

    Attributes:
        names: what the lines are called; each once.
        columns: column → its values.
    """

    names: pa.Array
    columns: dict[str, Shared]


def read_common(paths: Sequence[Path], columns: Sequence[str], block: int) -> Common:
    """Read files of common features.

    Args:
        paths: the paths of the files; a name stands in one of them, once.
        columns: which to keep, of `NAMES`.
        block: bytes to read at a time.

    Raises:
        DataError: a line that is not in the format, or a name that stands there twice.
    """
    wanted = _fields(columns)
    names, parts, rows = [], {name: [] for name in wanted}, []  # type: ignore[var-annotated]
    for path in paths:
        file = _opened(path, _COMMON, block)
        before = 0
        for batch in file.batches(_COMMON):
            found = _Features(batch, path, before)
            for name in wanted:
                column = found.column(name)
                lines, ids = column.lines + sum(rows) + before, column.ids.dictionary_encode()
                parts[name].append(Column(lines, ids, column.weights))
            names += batch["shared"].chunks
            before += batch.num_rows
        rows.append(before)
    every = pa.chunked_array(names, pa.string()).combine_chunks()
    _refuse_repeated(every, paths, rows)
    return Common(every, {name: _shared(parts[name], len(every)) for name in wanted})


def _opened(path: Path, columns: tuple[str, ...], block: int) -> TextFile:
    file = TextFile(path, Dialect("aliccp", columns=columns), block=block)
    if file.is_bare:
        raise files.without_rows(path, is_empty=True)
    return file


def _fields(columns: Sequence[str]) -> list[str]:
    """Return the columns of fields that are asked for, or whose weights are."""
    return [c for c in COLUMNS.values() if c in columns or c + WEIGHT in columns]


def _shared(parts: Sequence[Column], lines: int) -> Shared:
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
        f"{where(again[0])}: the common features {names[again[0]].as_py()!r} stand there already "
        f"in {where(first[again[0]])}; {len(again)} lines repeat a name. A line of the skeleton "
        "must mean one of them; remove the others."
    )


class Skeleton:
    """A file of impressions, joined with their common features.

    Args:
        path: the path of the file.
        common: the features that they share.
        listed: columns that are lists; another one may have one value a line.
        block: bytes to read at a time.

    Attributes:
        path: the path of the file.
        names: the names of the columns that there may be.
        lists: columns that are lists.
        about: how many rows there may be.

    Raises:
        DataError: the file is missing, empty, or no text.
    """

    def __init__(self, path: Path, common: Common, listed: Sequence[str], block: int) -> None:
        self.path = path
        self.names = list(NAMES)
        self.lists = frozenset([*listed, *(name + WEIGHT for name in listed)])
        self._common = common
        self._text = _opened(path, _SKELETON, block)
        self.about = self._text.about

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns, and always `click` and `conversion`; none comes as codes.

        Raises:
            DataError: a line that is not in the format, whose common features are nowhere, or that
                has several values of a column that is not of lists.
        """
        before = 0
        for batch in self._text.batches(_SKELETON):
            for name in _FLAGS:
                self._refuse_other_than_0_or_1(batch, name, before)
            found = _Features(batch, self.path, before)
            lines = self._lines(batch["shared"], before)
            made = {name: batch[name] for name in _OWN}
            for name in _fields(columns):
                column = found.column(name)
                if name in self._common.columns:
                    column = _together(self._common.columns[name].of(lines), column)
                made[name], made[name + WEIGHT] = self._cells(name, column, len(lines), before)
            yield pa.table({name: made[name] for name in dict.fromkeys((*columns, *_FLAGS))})
            before += batch.num_rows

    def _lines(self, names: pa.ChunkedArray, before: int) -> Ints:
        """Return the line of each row's common features."""
        lines = pc.index_in(names, value_set=self._common.names)
        if lines.null_count:
            row = pc.index(pc.is_null(lines), True).as_py()
            raise DataError(
                f"{self.path}, row {before + row + 1}: there are no common features "
                f"{names[row].as_py()!r} (here and in {lines.null_count - 1} more rows of its "
                "block). See that the source's `common:` names all files of this split."
            )
        return lines.to_numpy().astype(np.int64)

    def _refuse_other_than_0_or_1(self, batch: pa.Table, name: str, before: int) -> None:
        row = pc.index(pc.is_in(batch[name], value_set=pa.array(["0", "1"])), False).as_py()
        if row >= 0:
            raise DataError(
                f"{self.path}, column {name!r}, row {before + row + 1}: expected 0 or 1, got "
                f"{batch[name][row].as_py()!r}. Mend it; the columns are "
                f"{', '.join(_SKELETON)}."
            )

    def _cells(self, name: str, column: Column, n: int, before: int) -> tuple[pa.Array, pa.Array]:
        """Return the ids and the weights of n rows: lists of them, or one each, or null."""
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
                f"{_field(name)} ({name}), which the recipe takes for one. Give "
                f"features.{name} `kind: categories`, or mend the line."
            )
        places = np.full(n, -1)
        places[column.lines] = np.arange(len(column.lines))
        at = pa.array(places, mask=places < 0)
        return column.ids.take(at), pa.array(column.weights).take(at)


def kept(batch: pa.Table) -> npt.NDArray[np.bool_]:
    """Say which rows of a skeleton are possible: nobody can buy without a click."""
    impossible = pc.and_(pc.equal(batch["click"], "0"), pc.equal(batch["conversion"], "1"))
    return ~impossible.to_numpy()


def _field(column: str) -> str:
    return next(field for field, name in COLUMNS.items() if name == column)


def _together(one: Column, other: Column) -> Column:
    """Return the values of both in order of their lines, those of the first one first."""
    if len(other.lines) == 0:
        return one
    if len(one.lines) == 0:
        return other
    lines = np.concatenate([one.lines, other.lines])
    order = np.argsort(lines, kind="stable")
    return Column(
        lines[order],
        pa.concat_arrays([one.ids, other.ids]).take(pa.array(order)),
        np.concatenate([one.weights, other.weights])[order],
    )


class _Features:
    """The features of a block of lines, found in its bytes.

    Args:
        batch: columns `features` and `count`, text.
        path: the path of the file, for messages.
        before: rows of the file that stand before the block.

    Raises:
        DataError: a line that is not in the format, or another number of features than it says.
    """

    def __init__(self, batch: pa.Table, path: Path, before: int) -> None:
        self._path = path
        self._before = before
        text = batch["features"].combine_chunks()
        self._pieces, counts = self._cut(text)
        self._lines = np.repeat(np.arange(len(text)), counts)
        self._refuse_other_counts(batch["count"], counts)
        self._fields = self._known_fields()

    def _cut(self, text: pa.StringArray) -> tuple[pa.StringArray, Ints]:
        """Cut at every separator: field, \x02, id, \x03, value, \x01, and so on."""
        bounds = np.frombuffer(text.buffers()[1], np.int32)
        bounds = bounds[text.offset : text.offset + len(text) + 1].astype(np.int64)
        data = text.buffers()[2] or pa.py_buffer(b"")
        inside = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
        marks = np.flatnonzero(inside < 4)
        kinds, marks = inside[marks], marks + bounds[0]
        first = np.searchsorted(marks, bounds)
        counts = self._count(text, kinds, first, np.diff(bounds) > 0)

        last = np.cumsum(counts)[counts > 0] - 1
        begins, ends = np.empty((2, counts.sum()), np.int64)
        is_last = np.zeros(len(ends), bool)
        is_last[last] = True
        ends[is_last], ends[~is_last] = bounds[1:][counts > 0], marks[kinds == 1]
        begins[:1] = bounds[0]
        begins[1:] = ends[:-1] + ~is_last[:-1]
        ids, values = marks[kinds == 2], marks[kinds == 3]
        cuts = np.stack([begins, ids, ids + 1, values, values + 1, ends], axis=1).ravel()
        cuts = np.append(cuts, bounds[-1]).astype(np.int32)
        return pa.StringArray.from_buffers(len(cuts) - 1, pa.py_buffer(cuts), data), counts

    def _count(
        self,
        text: pa.StringArray,
        kinds: npt.NDArray[np.uint8],
        first: Ints,
        is_filled: npt.NDArray[np.bool_],
    ) -> Ints:
        """Return the number of features of each line, after a look at its separators' order."""
        marks = np.diff(first)
        nth = np.arange(len(kinds)) - np.repeat(first[:-1], marks)
        wrong = np.repeat(np.arange(len(text)), marks)[kinds != _ORDER[nth % 3]]
        incomplete = np.flatnonzero((marks % 3 != 2) & is_filled)
        if len(wrong) or len(incomplete):
            row = min([*wrong[:1], *incomplete[:1]])
            raise DataError(
                f"{self._row(row)}: the features are not `field \\x02 id \\x03 value`, joined by "
                f"\\x01: {text[row].as_py()[:80]!r}. Mend the line, or fetch the file again."
            )
        return (marks + 1) // 3

    def _refuse_other_counts(self, said: pa.ChunkedArray, counts: Ints) -> None:
        is_same = pc.equal(said, pc.cast(pa.array(counts), pa.string()))
        row = pc.index(is_same, False).as_py()
        if row >= 0:
            raise DataError(
                f"{self._row(row)}: the line says that it has {said[row].as_py()!r} features, and "
                f"has {counts[row]}. It may be cut off; fetch the file again, or mend the line."
            )

    def _known_fields(self) -> npt.NDArray[np.int32]:
        texts = self._piece(0, np.arange(len(self._lines)))
        fields = pc.index_in(texts, value_set=_FIELDS)
        if fields.null_count:
            at = pc.index(pc.is_null(fields), True).as_py()
            raise DataError(
                f"{self._row(self._lines[at])}: Ali-CCP has no field {texts[at].as_py()!r}. "
                f"Expected one of {', '.join(COLUMNS)}. Mend the line, or fetch the file again."
            )
        return np.asarray(fields.to_numpy(), np.int32)

    def column(self, name: str) -> Column:
        """Return the values of one column.

        Raises:
            DataError: a feature without an id, or a weight that is no finite number.
        """
        at = np.flatnonzero(self._fields == _FIELDS.index(_field(name)).as_py())
        ids, texts = self._piece(2, at), self._piece(4, at)
        empty = pc.index(ids, "").as_py()
        if empty >= 0:
            raise DataError(
                f"{self._row(self._lines[at[empty]])}: a feature of field {_field(name)} ({name}) "
                "has no id. Mend the line."
            )
        return Column(self._lines[at], ids, self._weights(texts, at, name))

    def _weights(self, texts: pa.Array, at: Ints, name: str) -> npt.NDArray[np.float32]:
        try:
            weights = pc.cast(texts, pa.float32()).to_numpy()
            bad = np.flatnonzero(~np.isfinite(weights))
        except pa.ArrowInvalid:
            is_number = pc.match_substring_regex(texts, _NUMBER)
            bad = np.flatnonzero(~is_number.to_numpy(zero_copy_only=False))
        if len(bad):
            raise DataError(
                f"{self._row(self._lines[at[bad[0]]])}: the value of field {_field(name)} ({name}) "
                f"is {texts[int(bad[0])].as_py()!r}. Expected a finite number; mend the line."
            )
        return weights

    def _piece(self, number: int, at: Ints) -> pa.Array:
        """Return one of the six pieces of some features."""
        return self._pieces.take(pa.array(6 * at + number))

    def _row(self, row: int) -> str:
        return f"{self._path}, row {self._before + int(row) + 1}"
