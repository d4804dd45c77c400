"""The user and the item table as of the cut: one row an id, the latest values, conflicts counted.

They know what was known at the cut: the rows of a user or item source, and the training
interactions. Rows stand in order of falling training count, ties by id, so that a tie between
scores is broken in favour of the more popular item. The user table ends with a row without id:
somebody unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.errors import DataError
from workflows.etl.sources import Raw
from workflows.recipe import Join, Recipe

Role = Literal["user", "item"]
#: Columns of a table beside its features.
IN_TRAIN, COUNT = "in_train", "train_count"


@dataclass(frozen=True)
class Table:
    """One table before encoding.

    Attributes:
        frame: id, features, `in_train`, `train_count`.
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
    counts = pc.value_counts(table[join.on])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise DataError(
            f"{where}: {len(repeated)} ids of {join.on!r} stand there more than once, the first is "
            f"{first['values']!r} ({first['counts']} times). A joined table has one row an id; "
            "remove the others."
        )
    return table


def build(recipe: Recipe, raw: Raw, train: pd.DataFrame, role: Role) -> Table:
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
    latest = train.drop_duplicates(key, keep="last")
    data: dict[str, pa.Array] = {key: ids}
    conflicts = {}
    for column in columns:
        if side is not None and column not in interactions.column_names:
            if column not in side.column_names:
                raise _of_nobody(recipe, column, role)
            assert join is not None
            found = pc.index_in(ids, value_set=side[key].combine_chunks())
            data[column] = looked_up(side[column], found, join, column).combine_chunks()
        else:
            if column not in interactions.column_names:
                raise _of_nobody(recipe, column, role)
            kind = interactions[column].type
            values = pa.array(latest[column], kind, from_pandas=True)
            data[column] = _look_up(ids, pa.array(latest[key], pa.string()), values)
            if column in recipe.columns(role):
                conflicts[column] = _conflicts(train, key, column)
    data[IN_TRAIN] = pa.array(counts > 0)
    data[COUNT] = pa.array(counts)
    frame = pa.table(data)
    if role == "user":
        frame = pa.concat_tables([frame, _unknown(frame)])
    return Table(frame.combine_chunks(), conflicts)


def _of_nobody(recipe: Recipe, column: str, role: Role) -> DataError:
    key = recipe.user_id if role == "user" else recipe.item_id
    return DataError(
        f"features.{column} has role {recipe.features[column].role}, but the column is neither in "
        f"the interactions nor in a table joined on {key!r}. Correct its role, or add the join."
    )


def _ids(
    train: pd.Series, side: pa.Table | None, key: str
) -> tuple[pa.StringArray, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return ids by falling training count, ties by id, and those counts."""
    seen = pc.value_counts(pa.array(train, pa.string()))
    parts = [pa.table({"id": seen.field("values"), "n": seen.field("counts")})]
    if side is not None:
        parts.append(pa.table({"id": side[key], "n": pa.array(np.zeros(len(side), np.int64))}))
    table = pa.concat_tables(parts).group_by("id").aggregate([("n", "sum")])
    table = table.sort_by([("n_sum", "descending"), ("id", "ascending")])
    return table["id"].combine_chunks(), table["n_sum"].to_numpy()


def _look_up(ids: pa.Array, keys: pa.ChunkedArray | pa.Array, values: pa.ChunkedArray) -> pa.Array:
    keys = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return values.take(pc.index_in(ids, value_set=keys))


def looked_up(
    values: pa.ChunkedArray, found: pa.Array | pa.ChunkedArray, join: Join, column: str
) -> pa.ChunkedArray:
    """Return a side table's column for ids, with the join's value where the table has no such id.

    Args:
        values: the column in the side table.
        found: the ids' rows there, null where there is none.
        join: its `fill`.
        column: the column's name.
    """
    taken = values.take(found)
    if column not in join.fill:
        return taken
    fill = pa.scalar(join.fill[column]).cast(values.type)
    return pc.if_else(pc.is_valid(found), taken, fill)


def _conflicts(train: pd.DataFrame, key: str, column: str) -> int:
    values = train[column].map(str)
    distinct = pd.DataFrame({"id": train[key], "value": values}).drop_duplicates()
    return int((distinct["id"].value_counts() > 1).sum())


def _unknown(frame: pa.Table) -> pa.Table:
    row = {f.name: pa.nulls(1, f.type) for f in frame.schema}
    row[IN_TRAIN], row[COUNT] = pa.array([False]), pa.array([0], pa.int64())
    return pa.table(row)
