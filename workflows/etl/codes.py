"""Text as codes: a text column holds int32 numbers into one array of the distinct texts it met.

A log repeats its ids and categories many times, so what is done to text is done to the distinct
texts, once, and looked up. No result may depend on which code a text has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: A column of text, and of lists of text.
TEXT = pa.dictionary(pa.int32(), pa.string())
TEXTS = pa.list_(TEXT)

#: Rows that are worked on at a time, where a whole column's worth of int64 would be in the way.
BLOCK = 1 << 20


Ints = npt.NDArray[np.integer]


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type is text, as codes or not."""
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


def holds_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type is text as codes, or lists of it."""
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_dictionary(inner) and pa.types.is_string(inner.value_type))


def one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; text as codes."""
    if isinstance(column, pa.ChunkedArray):
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column.dictionary_encode() if pa.types.is_string(column.type) else column


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, text as such."""
    array = one(column)
    if pa.types.is_dictionary(array.type):
        return array.dictionary.take(array.indices)
    if pa.types.is_list(array.type) and pa.types.is_dictionary(array.type.value_type):
        return pc.cast(array, pa.list_(pa.string()))
    return array


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return a text column's codes, int32 [n]; that of null is the number of distinct texts."""
    array = one(column)
    codes = array.indices
    if codes.null_count:
        codes = codes.fill_null(len(array.dictionary))
    return codes.to_numpy()


def counts(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Count the cells of each distinct text of a column, and last the nulls: int64 [n_texts + 1].

    Of lists it counts their values.
    """
    array = flat(column)
    codes, size = numbers(array), len(array.dictionary) + 1
    total = np.zeros(size, np.int64)
    for start in range(0, len(codes), max(BLOCK, size)):
        total += np.bincount(codes[start : start + max(BLOCK, size)], minlength=size)
    return total


def in_order(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a text column whose codes rise with the texts."""
    array = one(column)
    order = pc.array_sort_indices(array.dictionary)
    ranks = np.empty(len(order), np.int32)
    ranks[order.to_numpy()] = np.arange(len(order))
    return pa.DictionaryArray.from_arrays(
        pa.array(ranks).take(array.indices), array.dictionary.take(order)
    )


def present(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return the distinct texts that a column has, no null, in no order."""
    array = flat(column)
    return array.dictionary.filter(pa.array(counts(array)[:-1] > 0))


def flat(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a text column, or all values of a column of lists."""
    array = one(column)
    return one(array.flatten()) if pa.types.is_list(array.type) else array


def taken(values: pa.Array | pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """Return the values at some places, null at a null; text as codes, each distinct text once."""
    return one(values).take(places)


def stacked(*columns: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return columns of one type one after the other, as one array."""
    arrays = [one(column) for column in columns]
    if pa.types.is_list(arrays[0].type):
        lengths = pa.concat_arrays([pc.list_value_length(array) for array in arrays])
        return listed(lengths, stacked(*(array.flatten() for array in arrays)))
    return one(pa.chunked_array(arrays))


def each(
    column: pa.Array | pa.ChunkedArray, function: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> pa.ChunkedArray:
    """Return what a function makes of each cell; of text it is asked once for each distinct one.

    Args:
        column: any.
        function: makes one cell of one cell, and null of null.
    """
    if not is_text(column.type):
        return function(column)
    array = one(column)
    made = function(pa.chunked_array([array.dictionary]))
    return pa.chunked_array([taken(made, array.indices)])


def mapped(
    column: pa.Array | pa.ChunkedArray, function: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> pa.ChunkedArray:
    """Return codes of what a function makes of each distinct value, which it is asked for once.

    Args:
        column: a dictionary of any values.
        function: makes text of values, or null; of two values it may make the same text.
    """
    array = one(column)
    made = one(function(pa.chunked_array([array.dictionary])))
    indices = made.indices.take(array.indices)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, made.dictionary)])


def without(column: pa.DictionaryArray, texts: Sequence[str]) -> pa.DictionaryArray:
    """Return a text column whose cells with one of some texts are null."""
    known = column.dictionary
    found = [
        pc.index(known, text) if text else pc.index(pc.binary_length(known), 0) for text in texts
    ]
    places = [place.as_py() for place in found if place.as_py() >= 0]
    if not places:
        return column
    hit = pc.is_in(column.indices, value_set=pa.array(places, pa.int32()))
    indices = pc.if_else(hit, pa.scalar(None, pa.int32()), column.indices)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary)


def filled(column: pa.Array, text: str, where: pa.Array) -> pa.Array:
    """Return a text column with a text where a mask is true."""
    known = column.dictionary
    place = pc.index(known, text).as_py()
    if place < 0:
        place, known = len(known), pa.concat_arrays([known, pa.array([text], pa.string())])
    codes = pc.if_else(where, pa.scalar(place, pa.int32()), column.indices)
    return pa.DictionaryArray.from_arrays(codes, known)


def listed(lengths: pa.Array, values: pa.Array) -> pa.ListArray:
    """Cut values into lists.

    Args:
        lengths: int32 [n], null for a null list.
        values: those of all lists, one after the other.
    """
    ends = np.cumsum(lengths.fill_null(0).to_numpy(), dtype=np.int64)
    if len(values) > np.iinfo(np.int32).max:
        raise pa.ArrowCapacityError("more values of lists than int32 can count")
    missing = np.append(lengths.is_null().to_numpy(zero_copy_only=False), False)
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets, mask=missing if missing.any() else None), values
    )


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield the slices of at most `size` rows that n rows are made of."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
