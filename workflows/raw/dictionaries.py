"""Work on text columns as Arrow dictionaries: int32 indices into an array of the distinct texts.

A log repeats its ids and categories many times. Therefore a function of text is called once for
each distinct text of a column, and the results are looked up by the dictionary index of each cell.
A dictionary index is valid in its column only, and no result may depend on the order of the
distinct texts. A vocabulary code, the index into an embedding table, is another number
(workflows/ground/vocabulary.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: The Arrow type of a text column: a dictionary of texts with int32 indices.
TEXT = pa.dictionary(pa.int32(), pa.string())

#: Number of rows that are processed at a time where a whole column would need too much memory.
BLOCK = 1 << 20


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of an Arrow type is text, plain or as a dictionary."""
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


def holds_text(kind: pa.DataType) -> bool:
    """Return whether a column of an Arrow type is a dictionary of text, or lists of text."""
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_dictionary(inner) and pa.types.is_string(inner.value_type))


def combine(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one Arrow array; text becomes a dictionary of its distinct texts."""
    if isinstance(column, pa.ChunkedArray):
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.dictionary_encode() if is_text else column


def decode(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one Arrow array; a dictionary becomes plain text."""
    array = combine(column)
    if pa.types.is_dictionary(array.type):
        return array.dictionary.take(array.indices)
    if pa.types.is_list(array.type) and pa.types.is_dictionary(array.type.value_type):
        return pc.cast(array, pa.list_(pa.string()))
    return array


def indices(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return a text column's dictionary indices, int32 [n]; a null gets the number of texts."""
    array = combine(column)
    found = array.indices
    if found.null_count:
        found = found.fill_null(len(array.dictionary))
    return found.to_numpy()


def count_texts(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Count the cells of each distinct text of a column; the last count is of nulls.

    In a column of lists, the values of the lists are counted in place of the cells.

    Returns:
        The number of cells of each distinct text, and of nulls, int64 [n_texts + 1].
    """
    array = flatten(column)
    found, size = indices(array), len(array.dictionary) + 1
    total = np.zeros(size, np.int64)
    for start in range(0, len(found), max(BLOCK, size)):
        total += np.bincount(found[start : start + max(BLOCK, size)], minlength=size)
    return total


def sort_dictionary(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Sort the dictionary of a text column, so that indices are in the order of the texts."""
    array = combine(column)
    order = pc.array_sort_indices(array.dictionary)
    ranks = np.empty(len(order), np.int32)
    ranks[order.to_numpy()] = np.arange(len(order))
    return pa.DictionaryArray.from_arrays(
        pa.array(ranks).take(array.indices), array.dictionary.take(order)
    )


def distinct_texts(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return the distinct texts of a column, without null, in any order."""
    array = flatten(column)
    return array.dictionary.filter(pa.array(count_texts(array)[:-1] > 0))


def text_bytes(texts: pa.StringArray) -> bytes:
    """Return the buffer of bytes with all texts of an Arrow array, and perhaps other texts."""
    data = texts.buffers()[2]
    return data.to_pybytes() if data is not None else b""


def flatten(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Return all values of a column of lists of text; a text column is returned unchanged."""
    array = combine(column)
    return combine(array.flatten()) if pa.types.is_list(array.type) else array


def take(values: pa.Array | pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """Return the cells of a column at the given row numbers; a null row number gives null."""
    return combine(values).take(places)


def stack(*columns: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Concatenate columns of one type to one Arrow array."""
    arrays = [combine(column) for column in columns]
    if pa.types.is_list(arrays[0].type):
        lengths = pa.concat_arrays([pc.list_value_length(array) for array in arrays])
        return make_lists(lengths, stack(*(array.flatten() for array in arrays)))
    return combine(pa.chunked_array(arrays))


def are_same(first: pa.Array, second: pa.Array) -> bool:
    """Say whether two arrays of text are one array in memory, and not only equal."""
    return len(first) == len(second) and all(
        (a is None) == (b is None) and (a is None or a.address == b.address)
        for a, b in zip(first.buffers(), second.buffers(), strict=True)
    )


def map_distinct(
    column: pa.Array | pa.ChunkedArray, function: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> pa.ChunkedArray:
    """Apply a function to each cell of a column, but only once to each distinct text.

    Args:
        column: a column of any type.
        function: the function to apply, which returns one cell for each cell, and null for null.
    """
    if not is_text(column.type):
        return function(column)
    array = combine(column)
    results = function(pa.chunked_array([array.dictionary]))
    return pa.chunked_array([take(results, array.indices)])


def map_dictionary(
    column: pa.Array | pa.ChunkedArray, function: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> pa.ChunkedArray:
    """Apply a function to the distinct values of a column, and return a dictionary of texts.

    Args:
        column: an Arrow dictionary of any values.
        function: the function to apply, which returns a text or null for each value; two values may
            give the same text.
    """
    array = combine(column)
    texts = combine(function(pa.chunked_array([array.dictionary])))
    return pa.chunked_array(
        [pa.DictionaryArray.from_arrays(texts.indices.take(array.indices), texts.dictionary)]
    )


def nullify(column: pa.DictionaryArray, texts: Sequence[str]) -> pa.DictionaryArray:
    """Return a text column in which each cell that has one of the given texts is null."""
    known = column.dictionary
    found = [
        pc.index(known, text) if text else pc.index(pc.binary_length(known), 0) for text in texts
    ]
    places = [place.as_py() for place in found if place.as_py() >= 0]
    if not places:
        return column
    hit = pc.is_in(column.indices, value_set=pa.array(places, pa.int32()))
    kept = pc.if_else(hit, pa.scalar(None, pa.int32()), column.indices)
    return pa.DictionaryArray.from_arrays(kept, column.dictionary)


def put_text(column: pa.Array, text: str, where: pa.Array) -> pa.Array:
    """Return a text column that has one text in all cells where a mask is true."""
    known = column.dictionary
    place = pc.index(known, text).as_py()
    if place < 0:
        place, known = len(known), pa.concat_arrays([known, pa.array([text], pa.string())])
    changed = pc.if_else(where, pa.scalar(place, pa.int32()), column.indices)
    return pa.DictionaryArray.from_arrays(changed, known)


def make_lists(lengths: pa.Array, values: pa.Array) -> pa.ListArray:
    """Cut an array of values into a column of lists of the given lengths.

    Args:
        lengths: length of each list, int32 [n]; null makes a null list.
        values: the values of all lists, one list after the other.
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
    """Yield slices of at most `size` rows that together cover n rows."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
