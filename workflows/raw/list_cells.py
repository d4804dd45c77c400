"""Read cells that are lists: parquet lists, text with a separator, lists in JSON or Python.

Blanks around the values of lists, and values without text, are dropped. A cell of text in brackets
is parsed as a list or refused, but never split at a separator.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.raw.values import Place, as_text, bad_cell, plain

#: One value in a bracketed list of Python or JSON: quoted text, or a number or word without quotes.
_QUOTED = r"""u?'(?:[^'\\]|\\.)*'|u?"(?:[^"\\]|\\.)*\""""
_VALUE = rf"(?:{_QUOTED}|[-+.\w]+)"
#: List values that are separated by commas, or by blanks as NumPy writes them.
_LIST = re.compile(
    rf"[\[({{]\s*(?:{_VALUE}(?:(?:\s*,\s*|\s+){_VALUE})*\s*,?\s*)?[\])}}]", re.DOTALL
)
_EACH = re.compile(_VALUE, re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_WORDS = {"true": "true", "True": "true", "false": "false", "False": "false"}
_NOTHING = ("null", "None", "nan", "NaN")
_PAIRS = {"[": "]", "{": "}", "(": ")"}
#: A cell that begins and ends with brackets; blanks may surround it.
_BRACKETED = r"^\s*(\[(?s:.*)\]|\{(?s:.*)\}|\((?s:.*)\))\s*$"


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of an Arrow type holds lists, of fixed or variable length."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def read_lists(
    column: pa.ChunkedArray, separator: str | None, place: Place, *, all_parts: bool = False
) -> pa.ChunkedArray:
    """Parse a raw column of lists or of text (separated, or in brackets) to lists of text.

    Args:
        column: raw column of lists or of text.
        separator: the text between two values of a list; None if text must be a list in brackets.
        place: file and name of the column, for messages.
        all_parts: whether values without text are kept as null, to match weights by position.

    Raises:
        DataError: a cell is not a list, or its values are not single values.
    """
    kind = column.type
    if pa.types.is_null(kind):  # the column of a part file may have only nulls
        return pc.cast(column, pa.list_(pa.string()))
    if pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        column = _as_list(column, place)
    if pa.types.is_list(column.type) and not pa.types.is_nested(column.type.value_type):
        array = column.combine_chunks()
        values = as_text(pa.chunked_array([array.flatten()]), place)
        made = replace_values(array, pc.cast(values, pa.string()).combine_chunks())
    elif pa.types.is_nested(kind):
        raise DataError(
            f"{place} holds {kind}, which cannot be read as list<item: string>. Correct the role "
            f"or kind of features.{place.column}, or the file."
        )
    else:
        text = pc.cast(as_text(plain(column, place), place), pa.string())
        made = _split_text(text, separator, place)
    made = _trim(made)
    return pa.chunked_array([made if all_parts else drop_gaps(made)])


def are_in_brackets(text: pa.ChunkedArray) -> bool:
    """Say whether all cells of text begin and end with brackets, as lists of Python and JSON do."""
    return bool(pc.all(pc.match_substring_regex(text, _BRACKETED), min_count=0).as_py())


def align(values: pa.ListArray, weights: pa.ListArray) -> tuple[pa.ListArray, pa.ListArray]:
    """Drop the null values from a column of lists, and the weight of each.

    Args:
        values: column of lists whose values may be null.
        weights: column of lists of weights. If a row has as many weights as values, nulls included,
            they match by position; otherwise, the null weights of the row are dropped.
    """
    if not (values.flatten().null_count or weights.flatten().null_count):
        return values, weights
    n, m = (pc.fill_null(pc.list_value_length(one), 0).to_numpy() for one in (values, weights))
    keep = values.flatten().is_valid().to_numpy(zero_copy_only=False)
    keep_weights = weights.flatten().is_valid().to_numpy(zero_copy_only=False)
    same = np.repeat(n == m, m)  # for each weight: does its row have as many weights as values?
    keep_weights[same] = keep[np.repeat(n == m, n)]
    return _filter_values(values, keep), _filter_values(weights, keep_weights)


def drop_gaps(lists: pa.ListArray) -> pa.ListArray:
    """Drop the null values from each list of a column."""
    values = lists.flatten()
    if not values.null_count:
        return lists
    return _filter_values(lists, values.is_valid().to_numpy(zero_copy_only=False))


def _filter_values(
    lists: pa.ListArray, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> pa.ListArray:
    """Keep only the values of a column of lists for which `keep` is true, bool [n_values]."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    before = np.concatenate([[0], np.cumsum(keep)])
    kept = np.diff(before[np.concatenate([[0], np.cumsum(lengths)])])
    gone = lists.is_null().to_numpy(zero_copy_only=False)
    return dictionaries.make_lists(
        pa.array(kept, pa.int32(), mask=gone), lists.flatten().filter(pa.array(keep))
    )


def replace_values(lists: pa.ListArray, values: pa.Array) -> pa.ListArray:
    """Replace the values of a column of lists; the lengths of the lists stay the same."""
    return dictionaries.make_lists(pc.list_value_length(lists), values)


def _trim(lists: pa.ListArray) -> pa.ListArray:
    """Remove blanks around the values of lists; values without text become null."""
    values = lists.flatten()
    if _may_have_blanks(values):
        values = pc.utf8_trim_whitespace(values)
    elif not pc.any(pc.equal(pc.binary_length(values), 0)).as_py():
        return lists
    empty = pc.equal(pc.binary_length(values), 0)
    if pc.any(empty).as_py():
        values = pc.if_else(empty, pa.scalar(None, pa.string()), values)
    return replace_values(lists, values)


def _may_have_blanks(texts: pa.StringArray) -> bool:
    """Say whether the texts have blanks, or characters outside ASCII, which may be blanks."""
    whole = dictionaries.text_bytes(texts)
    return not whole.isascii() or any(blank in whole for blank in (b" ", b"\t", b"\n", b"\r"))


def _as_list(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    try:
        return pc.cast(column, pa.list_(column.type.value_type))
    except pa.ArrowNotImplementedError:
        raise DataError(
            f"{place} holds {column.type}, which cannot be read as list. Correct the role or kind "
            f"of features.{place.column}, or the file."
        ) from None


# ── text ────────────────────────────────────────────────────────────────────────────────


def _split_text(text: pa.ChunkedArray, separator: str | None, place: Place) -> pa.ListArray:
    """Split cells of text into lists at the separator; cells in brackets are parsed as lists."""
    found = _bracketed(text)
    bracketed: dict[int, list[str | None]] = {}
    for row, cell in zip(found.tolist(), text.take(pa.array(found)).to_pylist(), strict=True):
        parts = _in_brackets(cell.strip(), separator, place, row)
        if parts is not None:
            bracketed[row] = parts
    if separator is None and len(text) - text.null_count > len(bracketed):
        rest = text.is_valid().to_numpy()
        rest[list(bracketed)] = False
        row = int(np.argmax(rest))
        raise DataError(
            f"{place.row(row)}: {text[row].as_py()!r} is text, not a list. Set "
            f"features.{place.column}.separator (such as '|') to split text."
        )
    split = pc.split_pattern(text, pattern=separator or "\0").combine_chunks()
    if not bracketed:
        return split
    parts = split.to_pylist()
    for row, cells in bracketed.items():
        parts[row] = cells
    return pa.array(parts, pa.list_(pa.string()))


def _bracketed(text: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the row numbers of the cells of text that begin and end with brackets."""
    whole = [dictionaries.text_bytes(chunk) for chunk in text.chunks]
    if not any(bracket in part for part in whole for bracket in (b"]", b"}", b")")):
        return np.array([], np.int64)
    hits = pc.fill_null(pc.match_substring_regex(text, _BRACKETED), False)
    return np.flatnonzero(hits.to_numpy())


def _in_brackets(
    cell: str, separator: str | None, place: Place, row: int
) -> list[str | None] | None:
    """Parse a cell with a list in Python's or JSON's notation; None for any other text.

    Raises:
        DataError: the cell holds lists or objects, or its separator would split brackets.
    """
    if _LIST.fullmatch(cell) and _PAIRS[cell[0]] == cell[-1]:
        words = _EACH.findall(cell[1:-1])
        if cell[0] == "[" or any(word[0] in "'\"" for word in words):
            with contextlib.suppress(_NoValue):
                return [_value(word) for word in words]
    if _is_nested(cell):
        raise bad_cell(
            place,
            row,
            cell,
            "holds objects or lists within a list.",
            "Expected a list of values, such as ['a', 'b']: write the names or the ids alone "
            "before it is read.",
        )
    if separator is None or cell[0] == "(":
        return None
    halves = [part for part in cell.split(separator) if _is_half(part)]
    if halves:
        raise bad_cell(
            place,
            row,
            cell,
            f"begins and ends with brackets, but is no list that can be read: cut at the separator "
            f"{separator!r}, {halves[0].strip()!r} would be a value.",
            "Expected values in quotes, such as ['a', 'b'], or no brackets.",
        )
    return None


class _NoValue(Exception):
    """The error for a word in a bracketed list that is neither quoted nor a number."""


def _value(word: str) -> str | None:
    """Return the value of one word (quoted text or number) of a bracketed list; None for null.

    Raises:
        _NoValue: the word is neither quoted nor a number.
    """
    if word in _NOTHING:
        return None
    if word in _WORDS:
        return _WORDS[word]
    if word[-1] not in "'\"":
        if _NUMBER.fullmatch(word):
            return re.sub(r"\.0*$", "", word)
        raise _NoValue
    for read in (json.loads, ast.literal_eval) if word[0] == '"' else (ast.literal_eval,):
        with contextlib.suppress(ValueError, SyntaxError):
            return str(read(word))
    raise _NoValue


def _is_nested(cell: str) -> bool:
    """Say whether a cell's text is an object, or a list that holds lists or objects."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict):
            return True
        if isinstance(found, list | tuple | set):
            return any(isinstance(value, dict | list | tuple | set) for value in found)
    return False


def _is_half(part: str) -> bool:
    return any(part.count(left) != part.count(right) for left, right in _PAIRS.items())
