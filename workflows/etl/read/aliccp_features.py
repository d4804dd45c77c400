"""Parse the text of the features in lines of Ali-CCP files.

A feature is `field \\x02 id \\x03 value`; features are joined by \\x01. For speed the text is
not split into Python strings: NumPy finds the places of all separators in the bytes of a block, and
the pieces between them become one Arrow array over the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Bools, Ints
from workflows.ground.errors import DataError

#: Number of an Ali-CCP feature field → name of its column, as in NVIDIA's converter.
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
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
#: The separator bytes of an Ali-CCP feature in order: after the field, after the id, after the
#: value.
_ORDER = np.array([2, 3, 1], np.uint8)


class Column(NamedTuple):
    """The values of one feature field in a block of lines of an Ali-CCP file.

    Attributes:
        lines: index of the line of each value, int64 [n], in rising order.
        ids: id of each value, text [n].
        weights: weight of each value, float32 [n].
    """

    lines: Ints
    ids: pa.Array
    weights: npt.NDArray[np.float32]


def field_of(column: str) -> str:
    """Return the number of the Ali-CCP field (such as 101) that becomes the named column."""
    return next(field for field, name in COLUMNS.items() if name == column)


class Features:
    """The parsed features of a block of lines of an Ali-CCP file.

    Args:
        batch: the columns `features` and `count` of the lines, as text.
        path: path of the raw file, for messages.
        before: number of rows of the file before the block.

    Raises:
        DataError: a line does not have the format, or does not have as many features as it states.
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
        r"""Cut the text of features into pieces: field, \x02, id, \x03, value, \x01, and so on."""
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
        is_filled: Bools,
    ) -> Ints:
        """Return the number of features in each line; raise an error for misplaced separators."""
        marks = np.diff(first)
        nth = np.arange(len(kinds)) - np.repeat(first[:-1], marks)
        wrong = np.repeat(np.arange(len(text)), marks)[kinds != _ORDER[nth % 3]]
        incomplete = np.flatnonzero((marks % 3 != 2) & is_filled)
        if len(wrong) or len(incomplete):
            row = min([*wrong[:1], *incomplete[:1]])
            raise DataError(
                f"{self._row(row)}: the features are not `field \\x02 id \\x03 value`, joined by "
                f"\\x01: {text[row].as_py()[:80]!r}. Correct the line, or fetch the file again."
            )
        return (marks + 1) // 3

    def _refuse_other_counts(self, stated: pa.ChunkedArray, counts: Ints) -> None:
        is_same = pc.equal(stated, pc.cast(pa.array(counts), pa.string()))
        row = pc.index(is_same, False).as_py()
        if row >= 0:
            raise DataError(
                f"{self._row(row)}: the line states {stated[row].as_py()!r} features, and has "
                f"{counts[row]}. It may be cut off; fetch the file again, or correct the line."
            )

    def _known_fields(self) -> npt.NDArray[np.int32]:
        texts = self._piece(0, np.arange(len(self._lines)))
        fields = pc.index_in(texts, value_set=_FIELDS)
        if fields.null_count:
            at = pc.index(pc.is_null(fields), True).as_py()
            raise DataError(
                f"{self._row(self._lines[at])}: Ali-CCP has no field {texts[at].as_py()!r}. "
                f"Expected one of {', '.join(COLUMNS)}. Correct the line, or fetch the file again."
            )
        return np.asarray(fields.to_numpy(), np.int32)

    def column(self, name: str) -> Column:
        """Return the ids and the weights of one feature column in the block of lines.

        Raises:
            DataError: a feature has no id, or its weight is not a finite number.
        """
        at = np.flatnonzero(self._fields == _FIELDS.index(field_of(name)).as_py())
        ids, texts = self._piece(2, at), self._piece(4, at)
        empty = pc.index(ids, "").as_py()
        if empty >= 0:
            raise DataError(
                f"{self._row(self._lines[at[empty]])}: a feature of field {field_of(name)} "
                f"({name}) has no id. Correct the line."
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
                f"{self._row(self._lines[at[bad[0]]])}: the value of field {field_of(name)} "
                f"({name}) is {texts[int(bad[0])].as_py()!r}. Expected a finite number; "
                "correct the line."
            )
        return weights

    def _piece(self, number: int, at: Ints) -> pa.Array:
        """Return one piece (field, id, value or separator) of each of some features."""
        return self._pieces.take(pa.array(6 * at + number))

    def _row(self, row: int) -> str:
        return f"{self._path}, row {self._before + int(row) + 1}"
