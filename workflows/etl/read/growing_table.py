"""Build a table from batches of rows; each text column becomes one dictionary."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.threads import map_threads
from workflows.ground.errors import DataError
from workflows.raw import dictionaries

#: Batches of a text column are merged when they have more than `_WAITING` texts, and more than
#: `_TIMES` times as many texts as the merged dictionary.
_WAITING, _TIMES = 1 << 20, 4
#: Integer ids are numbered by a table with one entry for each integer of their range, if it has
#: fewer than `_RANGE` entries, or fewer than `_PER_ROW` per row: a hash table takes ten times as
#: long.
_RANGE, _PER_ROW = 1 << 20, 4


class GrowingTable:
    """A table that is built from batches of rows (pieces), each with its own dictionaries.

    Args:
        where: name of the table, for messages.
        texts: names of the text columns; integers in these columns become text.
    """

    def __init__(self, where: str, texts: Collection[str] = ()) -> None:
        self._where = where
        self._texts = texts
        self._columns: dict[str, _Column] = {}
        self.rows = 0

    def add(self, piece: pa.Table) -> None:
        """Append a batch of rows to the growing table.

        Raises:
            DataError: a column has more text than Arrow can hold.
        """
        for name in piece.column_names:
            if name not in self._columns:
                is_text = name in self._texts
                self._columns[name] = _column(piece[name].type, is_text=is_text)
            try:
                self._columns[name].add(piece[name])
            except pa.ArrowCapacityError:
                raise self._too_long(name) from None
        self.rows += len(piece)

    @property
    def width(self) -> float:
        """Mean number of bytes per row of the table so far; the distinct texts are not counted."""
        return sum(column.nbytes for column in self._columns.values()) / max(1, self.rows)

    def table(self) -> pa.Table:
        """Return all rows as one table, with each column as one array, and release the batches.

        Raises:
            DataError: a column has more text than Arrow can hold.
        """
        columns, self._columns = self._columns, {}
        return pa.table(map_threads(columns, lambda name: self._array(name, columns.pop(name))))

    def _array(self, name: str, column: _Column) -> pa.Array:
        try:
            return column.array()
        except pa.ArrowCapacityError:
            raise self._too_long(name) from None

    def _too_long(self, name: str) -> DataError:
        return DataError(
            f"{self._where}, column {name!r} has more than 2 GiB of distinct text, or more than "
            "2^31 values of lists. Leave it out of the features, or read fewer files."
        )


def _column(kind: pa.DataType, *, is_text: bool) -> _Column:
    if is_text and pa.types.is_integer(kind):
        return _IntegerPieces()
    if pa.types.is_dictionary(kind):
        return _TextPieces()
    if pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type):
        return _ListPieces()
    return _OtherPieces()


class _OtherPieces:
    """The batches so far of a column of the growing table that is not text, such as numbers."""

    def __init__(self) -> None:
        self._pieces: list[pa.Array] = []
        self.nbytes = 0

    def add(self, piece: pa.ChunkedArray) -> None:
        self._pieces += piece.chunks
        self.nbytes += piece.nbytes

    def array(self) -> pa.Array:
        return self._pieces[0] if len(self._pieces) == 1 else pa.concat_arrays(self._pieces)


class _TextPieces:
    """The batches so far of a text column of the growing table, merged to one dictionary.

    Arrow cannot append to a dictionary. So batches are collected, and merged only when there are
    many of them, so that each text is processed only a few times.
    """

    def __init__(self) -> None:
        self._known: pa.Array = None
        self._indices: list[pa.Array] = []
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
        """Merge the collected batches into the dictionary; texts are in order of appearance."""
        first = []
        if self._known is not None:
            none = pa.array([], pa.int32())
            first = [pa.DictionaryArray.from_arrays(none, self._known)]
        chunks = pa.chunked_array([*first, *self._waiting]).unify_dictionaries().chunks
        self._known = chunks[0].dictionary
        self._indices += [chunk.indices for chunk in chunks[len(first) :]]
        self._waiting, self._texts = [], 0

    def array(self) -> pa.DictionaryArray:
        if self._waiting:
            self._merge()
        numbers = self._indices[0] if len(self._indices) == 1 else pa.concat_arrays(self._indices)
        self._indices = []
        return pa.DictionaryArray.from_arrays(numbers, self._known, safe=False)


class _IntegerPieces:
    """The batches so far of a text column of the growing table that files store as integers."""

    def __init__(self) -> None:
        self._pieces: list[pa.Array] = []
        self._ends: list[int] = []
        self.nbytes = 0

    def add(self, piece: pa.ChunkedArray) -> None:
        limits = np.iinfo(np.int32)
        for array in piece.chunks:
            ends = [end for end in pc.min_max(array).as_py().values() if end is not None]
            if ends and all(limits.min <= end <= limits.max for end in ends):
                array = array.cast(pa.int32())
            self._ends += ends
            self._pieces.append(array)
            self.nbytes += array.nbytes

    def array(self) -> pa.DictionaryArray:
        pieces, self._pieces = self._pieces, []
        rows = sum(map(len, pieces))
        low, high = (min(self._ends), max(self._ends)) if self._ends else (0, 0)
        if high - low < min(max(_RANGE, _PER_ROW * rows), np.iinfo(np.int32).max):
            return _number_by_range(pieces, low, high)
        widest = max((piece.type for piece in pieces), key=lambda kind: kind.bit_width)
        found = pa.chunked_array([piece.cast(widest) for piece in pieces]).combine_chunks()
        pieces.clear()
        found = found.dictionary_encode()
        return _as_texts(found.indices, found.dictionary)


def _number_by_range(pieces: list[pa.Array], low: int, high: int) -> pa.DictionaryArray:
    """Look up integer ids in a table of all integers from `low` to `high`; return a dictionary.

    Batches are processed one by one, because a batch fits into a processor's cache.
    """
    occurs = np.zeros(high - low + 1, bool)
    for piece in pieces:
        occurs[_places(piece.drop_null(), low)] = True
    ranks = np.cumsum(occurs, dtype=np.int32)
    ranks -= 1
    numbers = np.empty(sum(map(len, pieces)), np.int32)
    missing = np.zeros(len(numbers), bool) if any(piece.null_count for piece in pieces) else None
    start = 0
    for piece in pieces:
        here = slice(start, start := start + len(piece))
        if piece.null_count:
            assert missing is not None
            missing[here] = piece.is_null().to_numpy(zero_copy_only=False)
            piece = piece.fill_null(0)
        # the 0 of a null may be out of range (`clip`), but the mask hides its result
        np.take(ranks, _places(piece, low), out=numbers[here], mode="clip")
    known = np.flatnonzero(occurs).astype(np.uint64 if low > np.iinfo(np.int64).max else np.int64)
    return _as_texts(pa.array(numbers, mask=missing), pa.array(known + known.dtype.type(low)))


def _places(integers: pa.Array, low: int) -> npt.NDArray[np.int64]:
    """Return integer ids minus the smallest id."""
    values = integers.to_numpy()
    wide = np.uint64 if values.dtype.kind == "u" else np.int64
    return np.subtract(values, wide(low), dtype=wide).astype(np.int64, copy=False)


def _as_texts(numbers: pa.Array, integers: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(numbers, pc.cast(integers, pa.string()), safe=False)


class _ListPieces:
    """The batches so far of a column of the growing table that holds lists of text."""

    def __init__(self) -> None:
        self._lengths: list[pa.Array] = []
        self._values = _TextPieces()
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
        return dictionaries.make_lists(pa.concat_arrays(self._lengths), self._values.array())


#: The batches of one column that have been read so far; the class depends on the column's type.
_Column = _TextPieces | _IntegerPieces | _ListPieces | _OtherPieces
