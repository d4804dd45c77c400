"""Turn raw feature values and ids of any type into text, numbers or missing values.

Raw values are converted by the same rules in training files, in files at serving and in HTTP
requests. This module does not import Merlin, Dask or TensorFlow, because serving needs none of
them.
"""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.raw import dictionaries

#: The Arrow type of lists of categories, and of histories.
TEXTS = pa.list_(pa.string())
#: The Arrow type of lists of weights.
NUMBERS = pa.list_(pa.float32())
#: Number of bits of a float type → whole numbers below this one are exact in it.
_EXACT = {32: 2**24, 64: 2**53}
#: A decimal number with at most this many digits is exact as a double.
_DIGITS = 15
_GREATEST = float(np.finfo(np.float32).max)
_UUID = 16
#: Positions of the hyphens in the 36 characters of a UUID.
_HYPHENS = (8, 13, 18, 23)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Place:
    """The origin of raw cells (file or request field, column), for error messages.

    Attributes:
        path: the file of the cells, or the option or field that gave them.
        column: the name of the cells' column in the recipe.
        before: the number of rows of the file before the first of the cells.
    """

    path: Path | str
    column: str
    before: int = 0

    def __str__(self) -> str:
        return f"{self.path}, column {self.column!r}"

    def row(self, number: int) -> str:
        """Return a text that names the file, row and column of a cell, given its position."""
        return f"{self}, row {self.before + number + 1}"


def plain(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Convert a raw column of any parquet type to plain text or numbers; NaN becomes null.

    Raises:
        DataError: bytes are neither UTF-8 nor UUIDs.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(pc.cast(column, kind.value_type), place)
    if pa.types.is_large_string(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _of_bytes(column, place)
    if pa.types.is_fixed_size_binary(kind):
        return _of_bytes(column, place)
    if pa.types.is_decimal(kind):
        return _of_decimals(column)
    if pa.types.is_float16(kind):
        numbers = column.to_numpy().astype(np.float32)
        column = pa.chunked_array([pa.array(numbers, mask=column.is_null().to_numpy())])
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def as_text(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Convert raw ids, categories or labels to text; a column of integers is returned unchanged.

    A whole float becomes the text of an integer; a boolean becomes `true` or `false`; 16 bytes
    become a UUID.

    Raises:
        DataError: a cell is a list or object, or is a float too large for its digits to be exact.
    """
    column = plain(column, place)
    if pa.types.is_integer(column.type):
        return column
    if pa.types.is_floating(column.type):
        return _text_of_floats(column, place)
    return parse(column, pa.string(), place)


def as_numbers(
    column: pa.ChunkedArray, kind: pa.DataType, place: Place, nulls: Sequence[str] = ()
) -> pa.ChunkedArray:
    """Convert a raw column of numbers or text to float32 or float64; blanks around are ignored.

    Args:
        column: a column of any type.
        kind: the Arrow type to return.
        place: file and name of the column, for messages.
        nulls: texts in cells that mean a missing value, in addition to the empty text.

    Raises:
        DataError: a cell is not a number, or is infinite.
    """
    column = plain(column, place)
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        try:
            column = pc.cast(column, kind)
        except pa.ArrowInvalid:
            column = parse(nullify(column, nulls), kind, place)
    return check_finite(plain(parse(column, kind, place), place), place)


def nullify(column: pa.ChunkedArray, nulls: Sequence[str]) -> pa.ChunkedArray:
    """Replace cells with the empty text or one of the given texts by null."""
    empty = pc.is_in(column, value_set=pa.array(["", *nulls], pa.string()))
    if not pc.any(empty).as_py():
        return column
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)


def plain_with_nulls(
    column: pa.ChunkedArray, place: Place, nulls: Sequence[str]
) -> pa.ChunkedArray:
    """Convert a raw column to plain text or numbers; empty and given texts become null."""
    kind = column.type
    if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        chunks = [dictionaries.nullify(chunk, ("", *nulls)) for chunk in column.chunks]
        return pa.chunked_array(chunks, kind)
    column = plain(column, place)
    return nullify(column, nulls) if pa.types.is_string(column.type) else column


def parse(
    column: pa.ChunkedArray, kind: pa.DataType, place: Place, *, expected: str = ""
) -> pa.ChunkedArray:
    """Convert a raw column to another Arrow type; the error names the first wrong cell.

    Args:
        column: a column of any type.
        kind: the Arrow type to return.
        place: file and name of the column, for messages.
        expected: a sentence on what cells should be, for messages.

    Raises:
        DataError: a cell, or the whole column, cannot be converted to the type.
    """
    if pa.types.is_string(column.type) and not pa.types.is_string(kind):
        column = pc.utf8_trim_whitespace(column)
    try:
        return _cast(column, kind)
    except pa.ArrowNotImplementedError:
        raise DataError(
            f"{place} holds {column.type}, which cannot be read as {kind}. Correct the role or "
            f"kind of features.{place.column}, or the file."
        ) from None
    except pa.ArrowInvalid:
        row, value = find_bad(column, kind)
        raise bad_cell(place, row, value, f"cannot be read as {kind}.", expected) from None


def bad_cell(place: Place, row: int, value: object, what: str, expected: str = "") -> DataError:
    """Return the error that names the place and the value of a wrong raw cell.

    Args:
        place: file and name of the column of the cell.
        row: the row number of the cell, from 0.
        value: the value of the cell.
        what: the predicate of a sentence about the value, such as "is not a number.".
        expected: a sentence on what the value should be.
    """
    remedy = "Correct it"
    if isinstance(value, str):
        remedy += ", or list the text under the source's `nulls` if it stands for no value"
    words = (f"{place.row(row)}: {value!r}", what, expected, remedy)
    return DataError(" ".join(word for word in words if word) + ".")


def check_finite(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Return a column of numbers; raise an error if one is too large for float32."""
    row = pc.index(pc.greater(pc.abs(column), _GREATEST), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: the number is infinite, or too large for a float32. Correct it, or "
            "leave it out and set a `null` policy."
        )
    return column


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast a raw column to an Arrow type; numbers and times may lose digits."""
    loses = pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    return pc.cast(column, kind, safe=not loses)


def find_bad(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, object]:
    """Return the row number, from 0, and the value of the first cell that cannot be cast."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            # for a slice of a column of lists Arrow would cast all values of the column
            _cast(column.take(pa.array(np.arange(low, middle))), kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low, column[low].as_py()


# ── floats and decimals as text ─────────────────────────────────────────────────────────


def _text_of_floats(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Convert floats to text, whole floats without a point or exponent (Arrow writes 1e+15)."""
    _refuse_inexact(column, place)
    text = pc.cast(column, pa.string())
    whole = pc.equal(pc.floor(column), column)
    none = pa.scalar(None, column.type)
    integers = pc.cast(pc.if_else(whole, column, none), pa.int64())
    return pc.coalesce(pc.cast(integers, pa.string()), text)


def _refuse_inexact(column: pa.ChunkedArray, place: Place) -> None:
    """Raise an error if an id or category is a float too large for its last digits to be exact."""
    limit = _EXACT[column.type.bit_width]
    row = pc.index(pc.greater_equal(pc.abs(column), limit), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: {column[row].as_py()!r} is a {column.type}, whose digits are not "
            f"exact from {limit:,} on, so an id may have become another. Write the column as "
            "integers or as text."
        )


def _of_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a decimal column to integers, to doubles if these are exact, or else to text."""
    kind = column.type
    if kind.scale <= 0:
        try:
            return pc.cast(column, pa.int64())
        except pa.ArrowInvalid:
            return _as_digits(column)
    if kind.precision <= _DIGITS:
        return pc.cast(column, pa.float64())
    if pc.all(pc.equal(pc.floor(column), column), min_count=0).as_py():  # ids, say, with a scale
        return _of_decimals(pc.cast(column, pa.decimal256(76, 0)))
    return _as_digits(column)


def _as_digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a decimal column to text, without trailing zeros and without an exponent."""
    texts = [None if one is None else _written(one) for one in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _written(number: decimal.Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# ── bytes ───────────────────────────────────────────────────────────────────────────────


def _of_bytes(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Convert a column of bytes to text: UTF-8, or UUIDs for 16 bytes that are not text."""
    fixed = pa.types.is_fixed_size_binary(column.type)
    column = pc.cast(column, pa.binary()) if column.type != pa.binary() else column
    array = column.combine_chunks()
    uuids = pc.all(pc.equal(pc.binary_length(array), _UUID)).as_py() and len(array.drop_null())
    try:
        text = pc.cast(array, pa.string())
        if not (fixed and uuids and not _is_readable(text)):
            return pa.chunked_array([text])
    except pa.ArrowInvalid:
        if not uuids:
            raise _no_text(column, place) from None
    return pa.chunked_array([uuid_text(array)])


def _is_readable(text: pa.StringArray) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, r"^[[:print:]]*$")).as_py())


def uuid_text(array: pa.BinaryArray) -> pa.StringArray:
    """Convert values of 16 bytes to text such as 6ba7b810-9dad-11d1-80b4-00c04fd430c8."""
    there = array.drop_null()
    raw = np.frombuffer(b"".join(there.to_pylist()), np.uint8).reshape(-1, _UUID)
    text: npt.NDArray[np.uint8] = np.full((len(raw), 36), ord("-"), np.uint8)
    places = [n for n in range(36) if n not in _HYPHENS]
    text[:, places[0::2]] = _HEX[raw >> 4]
    text[:, places[1::2]] = _HEX[raw & 15]
    offsets = np.arange(0, 36 * len(raw) + 1, 36, dtype=np.int32)
    texts = pa.StringArray.from_buffers(
        len(raw), pa.py_buffer(offsets.tobytes()), pa.py_buffer(text.tobytes())
    )
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return texts.take(pa.array(np.cumsum(valid) - 1, mask=~valid))


def _no_text(column: pa.ChunkedArray, place: Place) -> DataError:
    row, value = find_bad(column, pa.string())
    return DataError(
        f"{place.row(row)}: {value!r} are bytes that are no UTF-8 text. Bytes are read as text, or "
        "as UUIDs if each cell has 16 of them. Write the column as text, such as in hexadecimal "
        "digits."
    )
