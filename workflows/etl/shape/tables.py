"""Build the user table and the item table: one row per id, with its latest values.

The user and item tables are built from the rows of a user or item source, and from the training
interactions. The rows of the tables are sorted by falling training count and then by id, so that of
two items with equal scores the more popular item is recommended first. The last row of the user
table has no id; it stands for unknown users.
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

from models.core.retriever import Bools, Ints
from workflows.derive.cells import as_float32
from workflows.derive.times import iso_text
from workflows.etl.read.sources import Raw
from workflows.etl.threads import map_threads
from workflows.ground.column_names import IN_TRAIN, TRAIN_COUNT
from workflows.ground.errors import DataError
from workflows.raw import dictionaries, spelling
from workflows.recipe import Join, Recipe
from workflows.recipe.raw_inputs import columns_of_roles

Role = Literal["user", "item"]
ROLES: tuple[Role, ...] = ("user", "item")
log = logging.getLogger(__name__)

#: A warning of conflicts is logged only if at least this number of ids has more than one row.
SEVERAL = 10


@dataclass(frozen=True)
class Table:
    """A user or item table before its values are encoded.

    Attributes:
        frame: the id as text, the features with text as dictionaries, `in_train`, `train_count`.
        conflicts: feature of the interactions → number of ids whose rows have several values.
    """

    frame: pa.Table
    conflicts: dict[str, int]

    def ids(self, column: str) -> pa.StringArray:
        """Return the id of each row of the user or item table; null for unknown users."""
        return self.frame[column].combine_chunks()


def side_table(raw: Raw, join: Join) -> pa.Table:
    """Return the table of a joined source; raise an error unless it has one row per id.

    Raises:
        DataError: the id column is missing, an id is null, or an id occurs twice.
    """
    table = raw.tables[join.table]
    where = raw.where(join.table)
    raw.require(join.table, join.key)
    if table[join.key].null_count:
        raise DataError(
            f"{where}: {table[join.key].null_count} rows have no {join.key!r}, the first is "
            f"{raw.place(join.table, pc.index(pc.is_null(table[join.key]), True).as_py())}. Give "
            "them one, or remove them."
        )
    counts = pc.value_counts(dictionaries.decode(table[join.key]))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise DataError(
            f"{where}: {len(repeated)} ids of {join.key!r} occur more than once, the first is "
            f"{first['values']!r} ({first['counts']} times). A joined table must have one row per "
            "id: remove the others, or set the source's `latest:` (the latest row of an id counts) "
            "or `long:` (a row is a property of an id)."
        )
    return table


def build(recipe: Recipe, raw: Raw, train: pa.Table, role: Role) -> Table:
    """Build the user or the item table, with one row per id and its latest feature values.

    Args:
        recipe: recipe that states which columns belong to users and items.
        raw: tables of the sources; all ids of a joined source get a row.
        train: the raw training interactions, in order of time, with all their columns.
        role: `user` or `item`, for the table to build.
    """
    key = recipe.user_id if role == "user" else recipe.item_id
    roles = ("user", "context") if role == "user" else ("item",)
    columns = [c for c in recipe.columns(*roles) if c != key]
    columns += columns_of_roles(recipe, *roles)  # towers that take raw values need these
    train = pa.table({c: as_float32(train[c]) for c in (key, *columns) if c in train.column_names})
    join = next((j for j in recipe.join if j.key == key), None)
    side = side_table(raw, join) if join else None

    ids, counts = _ids(train[key], side, key)
    interactions = raw.tables[recipe.interactions]
    latest = _LastRows(train[key])
    last = latest.rows(ids)
    found = find_rows(ids, side[key]) if side is not None else None
    data: dict[str, pa.Array] = {key: ids}
    checked = []
    for column in columns:
        joined = None
        if side is not None and column in side.column_names:
            joined = as_float32(side[column])
        if column in interactions.column_names:
            data[column] = _latest_values(train[column], last, joined, found)
            if column in recipe.columns(role):
                checked.append(column)
        elif joined is not None:
            assert join is not None
            data[column] = take_or_fill(joined, found, raw.fill(join), column)
        else:
            raise _no_source_error(recipe, column, role)
    conflicts = map_threads(checked, lambda column: latest.conflicts(train[column]))
    if recipe.time in data:
        data[recipe.time] = iso_text(data[recipe.time])
    data[IN_TRAIN] = pa.array(counts > 0)
    data[TRAIN_COUNT] = pa.array(counts)
    frame = pa.table(data)
    if role == "user":
        both = pa.concat_tables([frame, _unknown_user(frame)])
        frame = pa.table({name: dictionaries.combine(both[name]) for name in both.column_names})
        frame = frame.set_column(0, key, dictionaries.decode(frame[key]))
    return Table(frame, conflicts)


def _latest_values(
    train: pa.ChunkedArray,
    last: pa.Array,
    side: pa.ChunkedArray | None,
    found: pa.Array | None,
) -> pa.Array:
    """Return a feature's value for each user or item, from its last training row or the side table.

    Args:
        train: the column of the feature in the training rows.
        last: number of the last training row of each id, null for an id without rows.
        side: the column of the feature in the side table; None if the side table lacks it.
        found: row number of each id in the side table, null for an id that is not there.
    """
    if side is None:
        return dictionaries.take(train, last)
    places = pc.coalesce(pc.cast(last, pa.int64()), pc.add(pc.cast(found, pa.int64()), len(train)))
    return dictionaries.take(dictionaries.stack(train, side), places)


class _LastRows:
    """The last training interaction of each user or item id.

    Args:
        ids: id of each row, text [n] without nulls, in order of time.
    """

    def __init__(self, ids: pa.ChunkedArray) -> None:
        self._texts = dictionaries.combine(ids).dictionary
        self._numbers = dictionaries.indices(ids)
        self._last = np.full(len(self._texts), -1)
        self._last[self._numbers] = np.arange(
            len(self._numbers)
        )  # a later row overwrites an earlier one

    def rows(self, ids: pa.StringArray) -> pa.Array:
        """Return the last training row number of each id; null for an id without rows."""
        found = pc.index_in(ids, value_set=self._texts)
        rows = pa.array(self._last, mask=self._last < 0)
        return rows.take(found)

    def conflicts(self, column: pa.ChunkedArray) -> int:
        """Count the user or item ids for which training rows have several values of a feature."""
        has_row = self._last >= 0
        array, last = dictionaries.combine(column), np.where(has_row, self._last, 0)
        last_cells = _ComparableCells(array.take(pa.array(last)))
        odd = np.zeros(len(self._texts), bool)
        for rows in dictionaries.blocks(len(array)):
            numbers = self._numbers[rows]
            odd[numbers[_ComparableCells(array[rows]).differ(last_cells, numbers)]] = True
        return int(odd.sum())


class _ComparableCells:
    """The cells of a feature column in a comparable form; two missing cells are equal.

    Args:
        array: text as a dictionary, lists of such text, or numbers.
    """

    def __init__(self, array: pa.Array) -> None:
        self._missing: Bools | np.bool_ = np.False_
        # the index of a missing text differs from those of all texts
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

    def differ(self, others: _ComparableCells, places: Ints) -> Bools:
        """Return a mask, bool [n]: whether cell i differs from cell places[i] of `others`."""
        gap, other_gap = self._missing, others._missing
        if isinstance(other_gap, np.ndarray):
            other_gap = other_gap[places]
        if self._lengths is None or others._lengths is None:
            odd: Bools = self._values != others._values[places]
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
    """Warn of user or item features that have several values for most ids: they may be context."""
    several = int(pc.sum(pc.greater(table.frame[TRAIN_COUNT], 1)).as_py() or 0)
    for column, n in table.conflicts.items():
        if 2 * n > several >= SEVERAL and not recipe.features[column].meaning.is_label:
            role = recipe.features[column].role
            log.warning(
                "column %r has role %s, but differs between the rows of %s of %s %ss that have "
                "more than one row of train; the latest value is used for all of them. A property "
                "of an event should have role context or weight, or should not be a feature.",
                column,
                role,
                f"{n:,}",
                f"{several:,}",
                role,
            )


def _no_source_error(recipe: Recipe, column: str, role: Role) -> DataError:
    """Return the error for a user or item feature that is a column of no source."""
    key = recipe.user_id if role == "user" else recipe.item_id
    return DataError(
        f"features.{column} has role {recipe.features[column].role}, but the column is neither in "
        f"the interactions nor in a table joined on {key!r}. Correct its role, or add the join."
    )


def _ids(
    train: pa.ChunkedArray, side: pa.Table | None, key: str
) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """Return user or item ids and their training counts, sorted by descending count, then by id."""
    seen, counts = dictionaries.combine(train).dictionary, dictionaries.count_texts(train)[:-1]
    table = pa.table({"id": seen, "n": counts}).filter(pa.array(counts > 0))
    if side is not None:
        ids = dictionaries.decode(side[key])
        ids = ids.filter(pc.invert(pc.is_in(ids, value_set=table["id"].combine_chunks())))
        others = pa.table({"id": ids, "n": np.zeros(len(ids), np.int64)})
        table = pa.concat_tables([table, others])
    table = table.sort_by([("n", "descending"), ("id", "ascending")])
    return table["id"].combine_chunks(), table["n"].to_numpy()


def find_rows(ids: pa.Array | pa.ChunkedArray, column: pa.ChunkedArray) -> pa.Array:
    """Return, for each id, its position in a column of distinct ids; null if it is not there."""
    among = dictionaries.decode(column)
    found = dictionaries.map_distinct(ids, lambda texts: pc.index_in(texts, value_set=among))
    return dictionaries.combine(found)


def take_or_fill(
    values: pa.ChunkedArray, found: pa.Array, fills: Mapping[str, float | str], column: str
) -> pa.Array:
    """Return each id's value in a side table, or a fill value for ids that the table lacks.

    Args:
        values: the column of a feature in the side table.
        found: row number of each id in the side table, null for an id that is not there.
        fills: column → fill value; a column without one keeps nulls.
        column: name of the column.
    """
    taken = dictionaries.take(values, found)
    fill = fills.get(column)
    if fill is None:
        return taken
    if isinstance(fill, str):
        fill = spelling.respell_one(fill, dictionaries.combine(values).dictionary)
        return dictionaries.put_text(taken, fill, found.is_null())
    return pc.if_else(found.is_valid(), taken, pa.scalar(fill).cast(taken.type))


def _unknown_user(frame: pa.Table) -> pa.Table:
    """Return the last row of the user table, which stands for unknown users."""
    row = {f.name: pa.nulls(1, f.type) for f in frame.schema}
    row[IN_TRAIN], row[TRAIN_COUNT] = pa.array([False]), pa.array([0], pa.int64())
    return pa.table(row)
