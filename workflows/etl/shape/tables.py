"""Build the user table and the item table: one row per id, with its latest values.

The user and item tables are built from the rows of a user or item source, and from the training
interactions. The rows of the tables are sorted by falling training count and then by id, so that of
two items with equal scores the more popular item is recommended first. The last row of the user
table has no id; it stands for unknown users.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Bools, Ints
from workflows.derive.cells import as_float32
from workflows.derive.times import iso_text
from workflows.etl.read.slices import ROW
from workflows.etl.read.sources import Raw
from workflows.etl.threads import map_threads
from workflows.ground import large_text
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

    def without_rows(self) -> Table:
        """Return the facts of the table, without most of its columns."""
        return replace(self, frame=self.frame.select([IN_TRAIN, TRAIN_COUNT]))

    def facts(self, *, unknown_rows: int) -> dict[str, int]:
        """Return the number of users or items, and how many of them are in train.

        Args:
            unknown_rows: number of rows that stand for unknown users.
        """
        in_train = int(pc.sum(self.frame[IN_TRAIN]).as_py() or 0)
        return {"rows": len(self.frame) - unknown_rows, IN_TRAIN: in_train}


def side_table(raw: Raw, join: Join) -> pa.Table:
    """Return the table of a joined source; raise an error unless it has one row per id.

    Raises:
        DataError: the id column is missing, an id is null, or an id occurs twice.
    """
    table = raw.tables[join.table]
    where = raw.where(join.table)
    raw.require(join.table, join.key)
    if raw.numbers:
        return table  # it was checked before the log was cut into partitions
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


@dataclass(frozen=True)
class LastRows:
    """The last training row of each user or item, of all interactions or of one partition.

    Attributes:
        ids: distinct ids that have training rows, text [n].
        counts: number of training rows of each id, int64 [n].
        rows: the features of the last row of each id, as far as the interactions have them.
        order: keys by which rows of different partitions are ordered, the most important first;
            none if there is one partition.
        differ: feature → mask of the ids whose rows have several values, bool [n].
    """

    ids: pa.StringArray
    counts: npt.NDArray[np.int64]
    rows: pa.Table
    order: tuple[npt.NDArray[np.int64], ...]
    differ: dict[str, Bools]

    @classmethod
    def of(
        cls, recipe: Recipe, own: Sequence[str], train: pa.Table, role: Role, partition: int | None
    ) -> LastRows:
        """Find the last row of each user or item.

        Args:
            recipe: recipe that states which columns belong to users and items.
            own: the columns of the interactions that are not joined.
            train: the raw training interactions, in order of time, with all their columns.
            role: `user` or `item`.
            partition: number of the partition; None if `train` has all training rows.
        """
        key, columns = _columns(recipe, role)
        features = [c for c in columns if c in own]
        ids = dictionaries.combine(train[key])
        counts = dictionaries.count_texts(ids)[:-1]
        there = np.flatnonzero(counts)
        numbers = dictionaries.indices(ids)
        last = np.zeros(len(counts), np.int64)
        last[numbers] = np.arange(len(numbers))  # a later row overwrites an earlier one
        chosen = pa.array(last[there])
        rows = {c: as_float32(train[c]) for c in features}
        checked = [c for c in features if c in recipe.columns(role)]
        differ = map_threads(checked, lambda c: _differ(rows[c], numbers, last)[there])
        return cls(
            ids.dictionary.take(pa.array(there)),
            counts[there],
            pa.table({c: dictionaries.take(rows[c], chosen) for c in features}),
            () if partition is None else _order(recipe, train, last[there], partition),
            differ,
        )

    def merge(self, other: LastRows) -> LastRows:
        """Return the last rows of two partitions, of which the other is the later one."""
        ids = pa.concat_arrays([self.ids, other.ids]).dictionary_encode()
        numbers, n = ids.indices.to_numpy(), len(ids.dictionary)
        counts = np.zeros(n, np.int64)
        np.add.at(counts, numbers, np.concatenate([self.counts, other.counts]))
        keys = [np.concatenate(both) for both in zip(self.order, other.order, strict=True)]
        order = np.lexsort((np.arange(len(numbers)), *keys[::-1], numbers))
        last = np.zeros(n, np.int64)
        last[numbers[order]] = order
        stacked = {
            c: dictionaries.stack(self.rows[c], other.rows[c]) for c in self.rows.column_names
        }
        differ = {}
        for c in self.differ:
            differ[c] = _differ(stacked[c], numbers, last)
            found = np.concatenate([self.differ[c], other.differ[c]])
            np.logical_or.at(differ[c], numbers, found)
        chosen = pa.array(last)
        return LastRows(
            ids.dictionary,
            counts,
            pa.table({c: of.take(chosen) for c, of in stacked.items()}),
            tuple(key[last] for key in keys),
            differ,
        )


def _order(
    recipe: Recipe, train: pa.Table, last: npt.NDArray[np.int64], partition: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Return time and row number of each last row; rows that are not those of a file: partition."""
    numbers = np.full(len(last), partition)
    if ROW in train.column_names:
        numbers = train[ROW].to_numpy()[last]
    return (train[recipe.time].to_numpy()[last], numbers) if recipe.time else (numbers,)


def _differ(
    column: pa.Array | pa.ChunkedArray, numbers: Ints, last: npt.NDArray[np.int64]
) -> Bools:
    """Return the mask of the ids of which a row has another value than the last row.

    Args:
        column: value of each row.
        numbers: number of the id of each row.
        last: the last row of each id.
    """
    array = dictionaries.combine(column)
    odd = np.zeros(len(last), bool)
    if not len(array):
        return odd
    last_cells = _ComparableCells(array.take(pa.array(last)))
    for rows in dictionaries.blocks(len(array)):
        of = numbers[rows]
        odd[of[_ComparableCells(array[rows]).differ(last_cells, of)]] = True
    return odd


def _columns(recipe: Recipe, role: Role) -> tuple[str, list[str]]:
    """Return the id of the user or item table, and the names of its other columns."""
    key = recipe.user_id if role == "user" else recipe.item_id
    roles = ("user", "context") if role == "user" else ("item",)
    columns = [c for c in recipe.columns(*roles) if c != key]
    # towers that take raw values need the latter
    return key, list(dict.fromkeys([*columns, *columns_of_roles(recipe, *roles)]))


def build(
    recipe: Recipe, raw: Raw, last: LastRows, role: Role, *, has_unknown: bool = True
) -> Table:
    """Build the user or the item table, with one row per id and its latest feature values.

    Args:
        recipe: recipe that states which columns belong to users and items.
        raw: tables of the sources; all ids of a joined source get a row.
        last: the last training row of each id.
        role: `user` or `item`, for the table to build.
        has_unknown: whether a user table gets the row that stands for unknown users.
    """
    key, columns = _columns(recipe, role)
    join = next((j for j in recipe.join if j.key == key), None)
    side = side_table(raw, join) if join else None

    ids, counts = _ids(last, side, key)
    interactions = raw.tables[recipe.interactions]
    places = pc.index_in(ids, value_set=last.ids)
    found = find_rows(ids, side[key]) if side is not None else None
    data: dict[str, pa.Array] = {key: ids}
    for column in columns:
        joined = None
        if side is not None and column in side.column_names:
            joined = as_float32(side[column])
        if column in interactions.column_names:
            data[column] = _latest_values(last.rows[column], places, joined, found)
        elif joined is not None:
            assert join is not None
            data[column] = take_or_fill(joined, found, raw.fill(join), column)
        else:
            raise _no_source_error(recipe, column, role)
    conflicts = {column: int(differ.sum()) for column, differ in last.differ.items()}
    if recipe.time in data:
        data[recipe.time] = iso_text(data[recipe.time])
    data[IN_TRAIN] = pa.array(counts > 0)
    data[TRAIN_COUNT] = pa.array(counts)
    frame = pa.table(data)
    return Table(
        add_unknown_user(frame, key) if role == "user" and has_unknown else frame, conflicts
    )


def add_unknown_user(frame: pa.Table, key: str) -> pa.Table:
    """Append the row that stands for unknown users, which has no id, to the user table."""
    both = pa.concat_tables([frame, _unknown_user(frame)])
    columns = {
        name: both[name].combine_chunks() if name == key else dictionaries.combine(both[name])
        for name in both.column_names
    }
    return pa.table(columns)


def merge_users(tables: Sequence[Table], key: str) -> Table:
    """Merge the user tables of all partitions, without unknown users, in the order of `build`.

    Args:
        tables: the user table of each partition, which have different users.
        key: name of the column of ids.
    """
    conflicts = {c: sum(of.conflicts[c] for of in tables) for c in tables[0].conflicts}
    columns = tables[0].frame.column_names
    ids = large_text.concatenate([of.ids(key) for of in tables])
    counts = pa.concat_arrays([of.ids(TRAIN_COUNT) for of in tables])
    keys = pa.table({"id": ids, "n": counts})
    order = pc.sort_indices(keys, [("n", "descending"), ("id", "ascending")])
    frame = {
        c: ids.take(order)
        if c == key
        else dictionaries.stack(*(of.frame[c] for of in tables)).take(order)
        for c in columns
    }
    return Table(add_unknown_user(pa.table(frame), key), conflicts)


def _latest_values(
    train: pa.ChunkedArray,
    last: pa.Array,
    side: pa.ChunkedArray | None,
    found: pa.Array | None,
) -> pa.Array:
    """Return a feature's value for each user or item, from its last training row or the side table.

    Args:
        train: the feature in the last training rows.
        last: number of the last training row of each id, null for an id without rows.
        side: the column of the feature in the side table; None if the side table lacks it.
        found: row number of each id in the side table, null for an id that is not there.
    """
    if side is None:
        return dictionaries.take(train, last)
    places = pc.coalesce(pc.cast(last, pa.int64()), pc.add(pc.cast(found, pa.int64()), len(train)))
    return dictionaries.take(dictionaries.stack(train, side), places)


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
    last: LastRows, side: pa.Table | None, key: str
) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """Return user or item ids and their training counts, sorted by descending count, then by id."""
    table = pa.table({"id": last.ids, "n": last.counts})
    if side is not None:
        ids = dictionaries.decode(side[key])
        ids = ids.filter(pc.invert(pc.is_in(ids, value_set=last.ids)))
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
