"""Reduce tables with several rows per id to the latest row, or the latest value per property."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.derive.times import iso
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe.sources import Long

#: Function from the number of a row, from 0, to a text that names its file and row, for messages.
Place = Callable[[int], str]


def are_latest(ids: pa.ChunkedArray, times: pa.ChunkedArray, place: Place) -> npt.NDArray[np.bool_]:
    """Return the mask of the latest row of each user or item id, bool [n]; true for a null id.

    Args:
        ids: id of each row, text [n].
        times: time of each row [n]: seconds, or text that holds numbers or ISO 8601.
        place: function that names the file and number of a row, for messages.

    Raises:
        DataError: a time is missing, or cannot be read.
    """
    kept = ids.is_null().to_numpy().astype(bool)
    kept[_last(dictionaries.indices(ids), _moments(times, place))] = True
    return kept


def _last(ids: npt.NDArray[np.integer], times: npt.NDArray[np.number]) -> npt.NDArray[np.int64]:
    """Return, for each id, the row with the latest time; of rows with equal times, the last one."""
    order = np.lexsort((times, ids))  # a stable sort
    ends = np.append(ids[order][1:] != ids[order][:-1], True)[: len(order)]
    return order[ends]


def _moments(times: pa.ChunkedArray, place: Place) -> npt.NDArray[np.number]:
    """Convert the times of rows (seconds, or text of numbers or ISO 8601) to comparable numbers."""
    row = pc.index(times.is_null(), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place(row)}: the time is missing, so the latest row of this id is unknown. Give it "
            "a time, or remove the row."
        )
    if not dictionaries.is_text(times.type):
        return np.asarray(times.to_numpy())
    array = dictionaries.combine(times)
    texts = pc.utf8_trim_whitespace(array.dictionary)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            found = pc.cast(texts if not pa.types.is_timestamp(kind) else iso(texts), kind)
        except pa.ArrowInvalid:
            continue
        if pa.types.is_timestamp(kind):
            found = pc.cast(found, pa.int64())
        return np.asarray(found.to_numpy(zero_copy_only=False)[dictionaries.indices(array)])
    first = texts[0].as_py()
    raise DataError(
        f"{place(0)}: the times, such as {first!r}, are neither all numbers nor all ISO 8601, such "
        "as 2021-03-04 05:06:07. Correct them, or name another column."
    )


def widen(table: pa.Table, long: Long, properties: Mapping[str, str], place: Place) -> pa.Table:
    """Turn a table with one row per id and property into one row per id, one column per property.

    Args:
        table: the columns that `long` names, with text as dictionaries.
        long: names of the columns of id, property, value and time.
        properties: new column → the property that it holds; other properties are left out.
        place: function that names the file and number of a row, for messages.

    Raises:
        DataError: a row has no id or time; or, without a time column, an id has a property twice.
    """
    row = pc.index(table[long.id].is_null(), True).as_py()
    if row >= 0:
        raise DataError(f"{place(row)}: {long.id!r} is missing. Give it one, or remove the row.")
    ids = dictionaries.combine(table[long.id])
    numbers = dictionaries.indices(ids)
    _, first = np.unique(numbers, return_index=True)
    firsts = np.sort(first)
    rank = np.full(len(ids.dictionary), -1)
    rank[numbers[firsts]] = np.arange(len(firsts))
    names = dictionaries.combine(table[long.property])
    times = _moments(table[long.time], place) if long.time else np.zeros(len(table), np.int8)
    values = dictionaries.combine(table[long.value])
    columns = {long.id: ids.take(pa.array(firsts))}
    for column, name in properties.items():
        of = pc.index(names.dictionary, name).as_py()
        rows = np.flatnonzero(dictionaries.indices(names) == of)
        chosen = rows[_last(numbers[rows], times[rows])]
        if long.time is None and len(chosen) < len(rows):
            again = np.setdiff1d(rows, chosen)[0]
            raise DataError(
                f"{place(int(again))}: {ids[int(again)].as_py()!r} has the property {name!r} more "
                "than once. Set `time` in the source's `long:`, so that the latest value counts, "
                "or remove the others."
            )
        where = np.full(len(firsts), -1)
        where[rank[numbers[chosen]]] = chosen
        columns[column] = values.take(pa.array(where, mask=where < 0))
    return pa.table(columns)
