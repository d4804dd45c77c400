"""Text as codes: a text column holds int32 numbers into one array of the distinct texts it met.

A log repeats its ids and categories many times, so what is done to text is done to the distinct
texts, once, and looked up. Codes rise by first appearance; no result may depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.errors import DataError

#: A column of text, and of lists of text.
TEXT = pa.dictionary(pa.int32(), pa.string())
TEXTS = pa.list_(TEXT)

#: Rows that are worked on at a time, where a whole column's worth of int64 would be in the way.
BLOCK = 1 << 20
#: Texts that wait to be merged: at least so many, and at most so many times those merged already.
_WAITING, _TIMES = 1 << 20, 4

Ints = npt.NDArray[np.integer]


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type is text, as codes or not."""
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


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


def filled(column: pa.Array, text: str, where: pa.Array) -> pa.Array:
    """Return a text column with a text where a mask is true."""
    known = column.dictionary
    place = pc.index(known, text).as_py()
    if place < 0:
        place, known = len(known), pa.concat_arrays([known, pa.array([text], pa.string())])
    codes = pc.if_else(where, pa.scalar(place, pa.int32()), column.indices)
    return pa.DictionaryArray.from_arrays(codes, known)


class Growing:
    """A table that comes in pieces, each with distinct texts of its own.

    Args:
        where: names the table, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._columns: dict[str, _Texts | _Lists | _Others] = {}
        self.rows = 0

    def add(self, piece: pa.Table) -> None:
        """Append rows.

        Raises:
            DataError: a column has too much distinct text.
        """
        for name in piece.column_names:
            if name not in self._columns:
                self._columns[name] = _column(piece[name].type)
            try:
                self._columns[name].add(piece[name])
            except pa.ArrowCapacityError:
                raise self._too_long(name) from None
        self.rows += len(piece)

    @property
    def width(self) -> float:
        """Bytes of a row so far, the texts themselves left out."""
        return sum(column.nbytes for column in self._columns.values()) / max(1, self.rows)

    def table(self) -> pa.Table:
        """Return all rows, each column one array, and forget them.

        Raises:
            DataError: a column has too much distinct text.
        """
        made = {}
        for name in list(self._columns):
            try:
                made[name] = self._columns.pop(name).array()
            except pa.ArrowCapacityError:
                raise self._too_long(name) from None
        return pa.table(made)

    def _too_long(self, name: str) -> DataError:
        return DataError(
            f"{self._where}, column {name!r} has more than 2 GiB of distinct text, or more than "
            "2^31 values of lists. Leave it out of the features, or read fewer files."
        )


def _column(kind: pa.DataType) -> _Texts | _Lists | _Others:
    if pa.types.is_dictionary(kind):
        return _Texts()
    if pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type):
        return _Lists()
    return _Others()


class _Others:
    """Pieces of a column of numbers."""

    def __init__(self) -> None:
        self._pieces: list[pa.Array] = []
        self.nbytes = 0

    def add(self, piece: pa.ChunkedArray) -> None:
        self._pieces += piece.chunks
        self.nbytes += piece.nbytes

    def array(self) -> pa.Array:
        return self._pieces[0] if len(self._pieces) == 1 else pa.concat_arrays(self._pieces)


class _Texts:
    """Pieces of a text column.

    Arrow has no table of texts that grows, so pieces wait until there are many of them: then each
    text is looked at a small number of times, however many pieces there are.
    """

    def __init__(self) -> None:
        self._known: pa.Array = None
        self._codes: list[pa.Array] = []
        self._waiting: list[pa.DictionaryArray] = []
        self._texts = 0
        self.nbytes = 0

    def add(self, piece: pa.ChunkedArray) -> None:
        for array in piece.chunks:
            self._waiting.append(array)
            self._texts += len(array.dictionary)
            self.nbytes += array.indices.nbytes
        if self._texts > max(_WAITING, _TIMES * len(self._known or ())):
            self._merge()

    def _merge(self) -> None:
        """Give what waits the codes of all texts known so far, in order of appearance."""
        first = []
        if self._known is not None:
            none = pa.array([], pa.int32())
            first = [pa.DictionaryArray.from_arrays(none, self._known)]
        chunks = pa.chunked_array([*first, *self._waiting]).unify_dictionaries().chunks
        self._known = chunks[0].dictionary
        self._codes += [chunk.indices for chunk in chunks[len(first) :]]
        self._waiting, self._texts = [], 0

    def array(self) -> pa.DictionaryArray:
        if self._waiting:
            self._merge()
        codes = self._codes[0] if len(self._codes) == 1 else pa.concat_arrays(self._codes)
        self._codes = []
        known = self._known
        if not pa.types.is_string(known.type):
            known = pc.cast(known, pa.string())
        return pa.DictionaryArray.from_arrays(codes, known, safe=False)


class _Lists:
    """Pieces of a column of lists of text."""

    def __init__(self) -> None:
        self._lengths: list[pa.Array] = []
        self._values = _Texts()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        return self._bytes + self._values.nbytes

    def add(self, piece: pa.ChunkedArray) -> None:
        for array in piece.chunks:
            self._lengths.append(pc.list_value_length(array))
            self._bytes += self._lengths[-1].nbytes
            self._values.add(pa.chunked_array([array.flatten()]))

    def array(self) -> pa.ListArray:
        return listed(pa.concat_arrays(self._lengths), self._values.array())


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
