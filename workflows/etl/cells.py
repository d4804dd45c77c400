"""Raw columns → canonical ones: ids and categories as codes of text, numbers float32, seconds.

Nothing is guessed from the values: the recipe says what a column is, so '0108775015' stays text.
The one exception is how a time is written, which the first cell of a file decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows import separated
from workflows.errors import DataError
from workflows.etl import codes
from workflows.recipe import Feature, Recipe

#: What the name of a column of lists is followed by in the name of the weights of their values.
WEIGHT = "_weight"
#: A number as text, a whole number as text; ISO 8601 text that ends in a zone.
_NUMBER = r"^-?\d+(\.\d*)?([eE][-+]?\d+)?$"
_WHOLE = r"^[-+]?\d+$"
_ZONE = r"\d:\d\d.*(Z|[-+]\d\d(:?\d\d)?)$"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: The years 1 to 9999 in seconds since the epoch, as far as dates can be written.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
#: Whole numbers up to here are exact in a float of so many bits.
_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
_GREATEST = float(np.finfo(np.float32).max)
#: What a cell should hold, for messages.
_EXPECTED = {
    pa.timestamp("us"): "Expected ISO 8601, such as 2021-03-04 05:06:07, as in the first row.",
    pa.timestamp("us", "UTC"): "Expected ISO 8601 with a zone, such as 2021-03-04T05:06:07Z, as "
    "in the first row.",
}


@dataclass(frozen=True)
class Place:
    """Where cells come from, for messages.

    Attributes:
        path: their file.
        column: their column, as the recipe calls it.
        before: rows of the file that stand before them.
    """

    path: Path
    column: str
    before: int = 0

    def __str__(self) -> str:
        return f"{self.path}, column {self.column!r}"

    def row(self, number: int) -> str:
        """Name a cell by its place, from 0, among these."""
        return f"{self}, row {self.before + number + 1}"


class Cells:
    """Makes the batches of one file canonical, and knows how far it got.

    Args:
        recipe: what each column is.
        path: the file, for messages.
    """

    def __init__(self, recipe: Recipe, path: Path) -> None:
        self._recipe = recipe
        self._path = path
        self._rows = 0
        self._written: dict[str, pa.DataType] = {}

    def canonical(self, batch: pa.Table) -> pa.Table:
        """Return the next batch of the file with canonical columns.

        Raises:
            DataError: a cell that is not what the recipe says.
        """
        columns = {}
        for name in batch.column_names:
            place = Place(self._path, name, self._rows)
            columns[name] = self._convert(batch[name], place)
        for name, weights in self._weighed(columns):
            place = Place(self._path, weights, self._rows)
            _refuse_unlike(columns[name], columns[weights], place)
        self._rows += batch.num_rows
        return pa.table(columns)

    def _weighed(self, columns: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the lists of a file that have weights, and those."""
        features = self._recipe.features
        for name in columns:
            weights = features[name].weights if name in features else None
            if weights is None and name + WEIGHT not in features:
                weights = name + WEIGHT
            if weights is not None and weights in columns:
                yield name, weights

    def _convert(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        feature = self._recipe.features.get(place.column)
        if feature is None:
            return _weights(_plain(column), place)  # no other column is read that is no feature
        if feature.role == "time":
            return self._times(column, feature, place)
        if feature.kind == "number":
            exact = place.column in self._recipe.compared
            kind = pa.float64() if exact else pa.float32()
            return _finite(_plain(_parsed(_plain(column), kind, place)), place)
        if feature.kind == "weights":
            return _not_negative(_weights(_split(column, feature, place), place), place)
        if feature.kind == "categories":
            return _coded_lists(lists(_plain(column), feature.separator, place))
        return _coded(column, place)

    def _times(self, column: pa.ChunkedArray, feature: Feature, place: Place) -> pa.ChunkedArray:
        """Parse each distinct text once; where one is no time, each cell, to find its row."""
        if not _is_coded(column.type):
            return self._seconds(_plain(column), feature, place)
        self._note_how_written(_plain(column), place.column)
        try:
            return codes.each(column, lambda texts: self._seconds(texts, feature, place))
        except DataError:
            return self._seconds(_plain(column), feature, place)

    def _note_how_written(self, text: pa.ChunkedArray, name: str) -> pa.DataType | None:
        """Remember how the first time of the file is written."""
        written = self._written.get(name) or _how_written(pc.utf8_trim_whitespace(text))
        if written is not None:
            self._written[name] = written
        return written

    def _seconds(self, column: pa.ChunkedArray, feature: Feature, place: Place) -> pa.ChunkedArray:
        """Return int64 seconds since the epoch, UTC, from numbers, dates or ISO 8601 text."""
        if pa.types.is_string(column.type):
            written = self._note_how_written(column, place.column)
            if written is None:
                return pa.chunked_array([pa.nulls(len(column), pa.int64())])
            column = pc.utf8_trim_whitespace(column)
            if pa.types.is_timestamp(written):
                column = _parsed(iso(column), written, place)
        if pa.types.is_temporal(column.type) and not pa.types.is_timestamp(column.type):
            column = _parsed(column, pa.timestamp("s"), place)
        if pa.types.is_timestamp(column.type):
            unit = column.type.unit
            seconds = _floor_divide(pc.cast(column, pa.int64()), _PER_SECOND[unit])
        else:
            seconds = _number_of_seconds(column, _PER_SECOND[feature.unit], place)
        return _within_calendar(seconds, column, place)


def _how_written(text: pa.ChunkedArray) -> pa.DataType | None:
    """Return what the first cell with a value shows times to be."""
    first = text.drop_null().slice(0, 1)
    if len(first) == 0:
        return None
    if pc.all(pc.match_substring_regex(first, _NUMBER)).as_py():
        return pa.int64()
    zoned = pc.any(pc.match_substring_regex(iso(first), _ZONE)).as_py()
    return pa.timestamp("us", "UTC" if zoned else None)


def iso(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write the zone `UTC` as ISO 8601 does, and a second's fraction with at most six digits."""
    text = pc.replace_substring_regex(text, pattern=r" ?UTC$", replacement="Z")
    return pc.replace_substring_regex(text, pattern=r"(:\d\d\.\d{6})\d+", replacement=r"\1")


def _number_of_seconds(column: pa.ChunkedArray, per_second: int, place: Place) -> pa.ChunkedArray:
    """Divide and round down; whole numbers as such, so that no digit of theirs is lost."""
    if pa.types.is_string(column.type):
        is_whole = pc.match_substring_regex(column, _WHOLE)
        if not pc.all(is_whole, min_count=0).as_py():
            none = pa.scalar(None, pa.string())
            whole, other = pc.if_else(is_whole, column, none), pc.if_else(is_whole, none, column)
            number = _parsed(other, pa.float64(), place)
            return pc.coalesce(
                _number_of_seconds(whole, per_second, place),
                _number_of_seconds(number, per_second, place),
            )
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
        return _floor_divide(_parsed(column, pa.int64(), place), per_second)
    number = _plain(_parsed(column, pa.float64(), place))
    return _parsed(pc.floor(pc.divide(number, per_second)), pa.int64(), place)


def _floor_divide(column: pa.ChunkedArray, by: int) -> pa.ChunkedArray:
    """Divide int64, rounding down: Arrow rounds towards 0."""
    if by == 1:
        return column
    towards_0 = pc.divide(column, by)
    is_above = pc.less(pc.subtract(column, pc.multiply(towards_0, by)), 0)
    return pc.subtract(towards_0, pc.cast(is_above, pa.int64()))


def _within_calendar(
    seconds: pa.ChunkedArray, raw: pa.ChunkedArray, place: Place
) -> pa.ChunkedArray:
    outside = pc.or_(pc.less(seconds, _FIRST), pc.greater(seconds, _LAST))
    row = pc.index(outside, True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: {raw[row].as_py()!r} lies outside the years 1 to 9999. Set "
            f"features.{place.column}.unit to ms, us or ns if it is not in seconds, or mend it."
        )
    return seconds


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo how a writer of parquet stored text, and make NaN null where it cannot be a number."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_large_string(column.type):
        column = pc.cast(column, pa.string())
    if pa.types.is_floating(column.type) and not pa.types.is_float16(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _is_coded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))


def _coded(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Return a column as codes of text; integers as such, which are written as text at the end."""
    if _is_coded(column.type):
        return column
    column = _plain(column)
    if pa.types.is_integer(column.type):
        return column
    return _parsed(column, pa.string(), place).dictionary_encode()


def _coded_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return lists of text as lists of codes."""
    array = codes.one(column)
    values = array.flatten().dictionary_encode()
    return pa.chunked_array([codes.listed(pc.list_value_length(array), values)])


def _parsed(column: pa.ChunkedArray, kind: pa.DataType, place: Place) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) and not pa.types.is_string(kind):
        column = pc.utf8_trim_whitespace(column)
    if pa.types.is_floating(column.type) and pa.types.is_string(kind):
        _refuse_inexact(column, place)
    try:
        return _cast(column, kind)
    except pa.ArrowNotImplementedError:
        raise DataError(
            f"{place} holds {column.type}, which cannot be read as {kind}. Correct the role or "
            f"kind of features.{place.column}, or the file."
        ) from None
    except pa.ArrowInvalid:
        row, value = _first_bad(column, kind)
        raise DataError(
            f"{place.row(row)}: {value!r} is no {kind}. {_EXPECTED.get(kind, '')}"
            f"{' ' * (kind in _EXPECTED)}Mend it, or list the text under the source's `nulls` if "
            "it stands for no value."
        ) from None


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast; a number or time may lose digits, text may not be anything but UTF-8."""
    loses = pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    return pc.cast(column, kind, safe=not loses)


def _first_bad(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, object]:
    """Return number (from 0) and value of the first cell that does not parse."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            # a slice of lists would be cast with all values of the whole column
            _cast(column.take(pa.array(np.arange(low, middle))), kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low, column[low].as_py()


def _refuse_inexact(column: pa.ChunkedArray, place: Place) -> None:
    """Refuse floats that are to be text, but are so large that their last digits are lost."""
    if pa.types.is_float16(column.type):
        return
    limit = _EXACT[column.type.bit_width]
    row = pc.index(pc.greater_equal(pc.abs(column), limit), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: {column[row].as_py()!r} is a {column.type}, whose digits are not "
            f"exact from {limit:,} on, so an id may have become another. Write the column as "
            "integers or as text."
        )


def _finite(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    row = pc.index(pc.greater(pc.abs(column), _GREATEST), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: the number is infinite, or too large for a float32. Mend it, or "
            "leave it out and set a `null` policy."
        )
    return column


# ── lists ───────────────────────────────────────────────────────────────────────────────


def lists(column: pa.ChunkedArray, separator: str | None, place: Place) -> pa.ChunkedArray:
    """Return lists of text, from lists of anything or from text with a separator."""
    if is_list(column.type) or pa.types.is_nested(column.type) or pa.types.is_null(column.type):
        return _parsed(column, pa.list_(pa.string()), place)  # a part file may have nulls alone
    if separator is None:
        raise DataError(
            f"{place} holds {column.type}, not lists; set its `separator` (such as '|') to split "
            "text."
        )
    return separated.split(_parsed(column, pa.string(), place), separator)


def is_list(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds lists of any width."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _refuse_unlike(values: pa.ChunkedArray, weights: pa.ChunkedArray, place: Place) -> None:
    """Refuse a row that has another number of weights than of values."""
    n, m = (pc.fill_null(pc.list_value_length(column), 0) for column in (values, weights))
    row = pc.index(pc.not_equal(n, m), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: {m[row].as_py()} weights for {n[row].as_py()} values. Expected one "
            "each; mend it, or leave the column out."
        )


def _split(column: pa.ChunkedArray, feature: Feature, place: Place) -> pa.ChunkedArray:
    """Return weights as lists, where they are text."""
    column = _plain(column)
    if feature.separator is None or not pa.types.is_string(column.type):
        return column
    texts = lists(column, feature.separator, place).combine_chunks()
    trimmed = pc.utf8_trim_whitespace(texts.flatten())
    return pa.chunked_array([codes.listed(pc.list_value_length(texts), trimmed)])


def _not_negative(weights: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Refuse weights below 0: their sum could be 0, and a mean would be anything."""
    array = weights.combine_chunks()
    flat = pc.list_flatten(array)
    at = pc.index(pc.less(flat, 0), True).as_py()
    if at >= 0:
        row = pc.list_parent_indices(array)[at].as_py()
        raise DataError(f"{place.row(row)}: the weight {flat[at].as_py()} is below 0. Mend it.")
    return weights


def _weights(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    weights = _parsed(column, pa.list_(pa.float32()), place).combine_chunks()
    flat = pc.list_flatten(weights)
    bad = pc.invert(pc.fill_null(pc.is_finite(flat), False))
    at = pc.index(bad, True).as_py()
    if at >= 0:
        row = pc.list_parent_indices(weights)[at].as_py()
        raise DataError(
            f"{place.row(row)}: {flat[at].as_py()} is no weight. Expected a finite number for each "
            "value of the list; mend it."
        )
    return pa.chunked_array([weights])
