"""The user and the item table as of the cut: one row an id, the latest values, conflicts counted.

They know what was known at the cut: the rows of a user or item source, and the training
interactions. Rows stand in order of falling training count, ties by id, so that a tie between
scores is broken in favour of the more popular item. The user table ends with a row without id:
somebody unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read.sources import Raw
from workflows.etl.threads import map_threads
from workflows.ground.column_names import IN_TRAIN, TRAIN_COUNT
from workflows.ground.errors import DataError
from workflows.raw import dictionaries, spelling
from workflows.recipe import Join, Recipe

Role = Literal["user", "item"]
ROLES: tuple[Role, ...] = ("user", "item")
log = logging.getLogger(__name__)

#: Ids with more than one row, below which conflicts are not told.
SEVERAL = 10


@dataclass(frozen=True)
class Table:
    """One table before encoding.

    Attributes:
        frame: id as text, features with text as codes, `in_train`, `train_count`.
        conflicts: feature of the interactions → ids that have more than one value of it.
    """

    frame: pa.Table
    conflicts: dict[str, int]

    def ids(self, column: str) -> pa.StringArray:
        """Return the ids in order of rows; the unknown user's is null."""
        return self.frame[column].combine_chunks()


def side_table(recipe: Recipe, raw: Raw, join: Join) -> pa.Table:
    """Return a joined source after checking that it has one row an id.

    Raises:
        DataError: no such column, a null id, or an id that stands there twice.
    """
    table = raw.tables[join.table]
    where = raw.where(join.table)
    raw.require(join.table, join.on)
    if table[join.on].null_count:
        raise DataError(
            f"{where}: {table[join.on].null_count} rows have no {join.on!r}, the first is "
            f"{raw.place(join.table, pc.index(pc.is_null(table[join.on]), True).as_py())}. Give "
            "them one, or remove them."
        )
    counts = pc.value_counts(dictionaries.decode(table[join.on]))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise DataError(
            f"{where}: {len(repeated)} ids of {join.on!r} stand there more than once, the first is "
            f"{first['values']!r} ({first['counts']} times). A joined table has one row an id: "
            "remove the others, or set the source's `latest:` (the latest row of an id counts) or "
            "`long:` (a row is a property of an id)."
        )
    return table


def build(recipe: Recipe, raw: Raw, train: pa.Table, role: Role) -> Table:
    """Build the user or the item table.

    Args:
        recipe: which columns belong to whom.
        raw: sources; a joined one gives its whole catalogue.
        train: raw training rows in order of time.
        role: whose table.
    """
    key = recipe.user_id if role == "user" else recipe.item_id
    roles = ("user", "context") if role == "user" else ("item",)
    columns = [c for c in recipe.columns(*roles) if c != key]
    join = next((j for j in recipe.join if j.on == key), None)
    side = side_table(recipe, raw, join) if join else None

    ids, counts = _ids(train[key], side, key)
    interactions = raw.tables[recipe.interactions]
    latest = _Latest(train[key])
    last = latest.rows(ids)
    found = places(ids, side[key]) if side is not None else None
    data: dict[str, pa.Array] = {key: ids}
    told = []
    for column in columns:
        of_side = None
        if side is not None and column in side.column_names:
            of_side = narrow(recipe, column, side[column])
        if column in interactions.column_names:
            data[column] = _newest(train[column], last, of_side, found)
            if column in recipe.columns(role):
                told.append(column)
        elif of_side is not None:
            assert join is not None
            data[column] = looked_up(of_side, found, raw.fill(join), column)
        else:
            raise _of_nobody(recipe, column, role)
    conflicts = map_threads(told, lambda column: latest.conflicts(train[column]))
    data[IN_TRAIN] = pa.array(counts > 0)
    data[TRAIN_COUNT] = pa.array(counts)
    frame = pa.table(data)
    if role == "user":
        both = pa.concat_tables([frame, _unknown(frame)])
        frame = pa.table({name: dictionaries.combine(both[name]) for name in both.column_names})
        frame = frame.set_column(0, key, dictionaries.decode(frame[key]))
    return Table(frame, conflicts)


def narrow(recipe: Recipe, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a number as float32; what filters compare was read with all its digits."""
    is_number = name in recipe.features and pa.types.is_float64(column.type)
    return pc.cast(column, pa.float32(), safe=False) if is_number else column


def _newest(
    train: pa.ChunkedArray,
    last: pa.Array,
    side: pa.ChunkedArray | None,
    found: pa.Array | None,
) -> pa.Array:
    """Return the values of ids in their last row, or in the side table where they have no row.

    Args:
        train: the column in the training rows.
        last: the ids' last rows, null where there is none.
        side: the column in the side table, if it has one, too.
        found: the ids' rows there, null where there is none.
    """
    if side is None:
        return dictionaries.take(train, last)
    places = pc.coalesce(pc.cast(last, pa.int64()), pc.add(pc.cast(found, pa.int64()), len(train)))
    return dictionaries.take(dictionaries.stack(train, side), places)


class _Latest:
    """The last row of each id.

    Args:
        ids: text [n], no nulls, in order of time.
    """

    def __init__(self, ids: pa.ChunkedArray) -> None:
        self._texts = dictionaries.combine(ids).dictionary
        self._who = dictionaries.indices(ids)
        self._last = np.full(len(self._texts), -1)
        self._last[self._who] = np.arange(len(self._who))  # of equal places the last one stays

    def rows(self, ids: pa.StringArray) -> pa.Array:
        """Return the last row of each of some ids; null where it has none."""
        found = pc.index_in(ids, value_set=self._texts)
        rows = pa.array(self._last, mask=self._last < 0)
        return rows.take(found)

    def conflicts(self, column: pa.ChunkedArray) -> int:
        """Count the ids of which some row has another value than the last one."""
        met = self._last >= 0
        array, last = dictionaries.combine(column), np.where(met, self._last, 0)
        of_last = _Cells(array.take(pa.array(last)))
        odd = np.zeros(len(self._texts), bool)
        for rows in dictionaries.blocks(len(array)):
            who = self._who[rows]
            odd[who[_Cells(array[rows]).differ(of_last, who)]] = True
        return int(odd.sum())


class _Cells:
    """Cells that can be compared, a missing one being equal to another.

    Args:
        array: text as codes, lists of it, or numbers.
    """

    def __init__(self, array: pa.Array) -> None:
        self._missing: npt.NDArray[np.bool_] | np.bool_ = np.False_
        # a missing text has a code of its own
        if array.null_count and not pa.types.is_dictionary(array.type):
            self._missing = array.is_null().to_numpy(zero_copy_only=False)
        self._lengths: npt.NDArray[np.int64] | None = None
        if pa.types.is_list(array.type):
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
            self._lengths = lengths.astype(np.int64)
            self._starts = np.cumsum(self._lengths) - self._lengths
            array = array.flatten()
        if pa.types.is_dictionary(array.type):
            self._values: npt.NDArray[np.generic] = dictionaries.indices(array)
        else:
            self._values = array.to_numpy(zero_copy_only=False)

    def differ(self, others: _Cells, places: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Say of each cell whether it is another than one of the others."""
        gap, other_gap = self._missing, others._missing
        if isinstance(other_gap, np.ndarray):
            other_gap = other_gap[places]
        if self._lengths is None or others._lengths is None:
            odd: npt.NDArray[np.bool_] = self._values != others._values[places]
            return (odd & ~(gap & other_gap)) | (gap != other_gap)
        odd = (self._lengths != others._lengths[places]) | (gap != other_gap)
        same = np.flatnonzero(~odd)
        lengths = self._lengths[same]
        rows = np.repeat(np.arange(len(same)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        mine = self._values[self._starts[same][rows] + within]
        theirs = others._values[others._starts[places[same]][rows] + within]
        odd[same[rows[mine != theirs]]] = True
        return odd


def warn_of_conflicts(recipe: Recipe, table: Table) -> None:
    """Warn of columns that differ between the rows of most ids: they say what an event was."""
    several = int(pc.sum(pc.greater(table.frame[TRAIN_COUNT], 1)).as_py() or 0)
    for column, n in table.conflicts.items():
        if 2 * n > several >= SEVERAL and not recipe.features[column].meaning.is_label:
            role = recipe.features[column].role
            log.warning(
                "column %r has role %s, but differs between the rows of %s of %s %ss that have "
                "more than one row of train; the latest value is taken for all of them. What "
                "belongs to an event has role context or weight, or is no feature.",
                column,
                role,
                f"{n:,}",
                f"{several:,}",
                role,
            )


def _of_nobody(recipe: Recipe, column: str, role: Role) -> DataError:
    key = recipe.user_id if role == "user" else recipe.item_id
    return DataError(
        f"features.{column} has role {recipe.features[column].role}, but the column is neither in "
        f"the interactions nor in a table joined on {key!r}. Correct its role, or add the join."
    )


def _ids(
    train: pa.ChunkedArray, side: pa.Table | None, key: str
) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """Return ids by falling training count, ties by id, and those counts."""
    seen, counts = dictionaries.combine(train).dictionary, dictionaries.count_texts(train)[:-1]
    table = pa.table({"id": seen, "n": counts}).filter(pa.array(counts > 0))
    if side is not None:
        ids = dictionaries.decode(side[key])
        ids = ids.filter(pc.invert(pc.is_in(ids, value_set=table["id"].combine_chunks())))
        others = pa.table({"id": ids, "n": np.zeros(len(ids), np.int64)})
        table = pa.concat_tables([table, others])
    table = table.sort_by([("n", "descending"), ("id", "ascending")])
    return table["id"].combine_chunks(), table["n"].to_numpy()


def places(ids: pa.Array | pa.ChunkedArray, of: pa.ChunkedArray) -> pa.Array:
    """Return where ids stand in a column that has each once; null where they do not."""
    among = dictionaries.decode(of)
    found = dictionaries.map_distinct(ids, lambda texts: pc.index_in(texts, value_set=among))
    return dictionaries.combine(found)


def looked_up(
    values: pa.ChunkedArray, found: pa.Array, filled: Mapping[str, float | str], column: str
) -> pa.Array:
    """Return a side table's column for ids, with another value where the table has no such id.

    Args:
        values: the column in the side table.
        found: the ids' rows there, null where there is none.
        filled: column → that value.
        column: the column's name.
    """
    taken = dictionaries.take(values, found)
    fill = filled.get(column)
    if fill is None:  # nothing is said, or a step makes nothing of what is
        return taken
    if isinstance(fill, str):
        fill = spelling.as_in(fill, dictionaries.combine(values).dictionary)
        return dictionaries.put_text(taken, fill, found.is_null())
    return pc.if_else(found.is_valid(), taken, pa.scalar(fill).cast(taken.type))


def _unknown(frame: pa.Table) -> pa.Table:
    row = {f.name: pa.nulls(1, f.type) for f in frame.schema}
    row[IN_TRAIN], row[TRAIN_COUNT] = pa.array([False]), pa.array([0], pa.int64())
    return pa.table(row)
