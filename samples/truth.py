"""Reads and writes truth.parquet: the planted tastes of users, items and months as vectors.

A row of the file is a user, an item or a month. The dot product (user + month) · item is, except
for a constant that does not depend on the item, the log probability that the user takes the item in
that month.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.retriever import Floats
from samples.tastes import Audience, Catalogue

NAME = "truth.parquet"

_SCHEMA = pa.schema([("side", pa.string()), ("id", pa.string()), ("taste", pa.list_(pa.float32()))])
#: Numbers in a row group: 40 MB.
_BLOCK = 10_000_000


@dataclass(frozen=True)
class Months:
    """What each month adds to the tastes of all users.

    Attributes:
        ids: names of the months.
        tastes: the number that a month adds to the taste for each attribute value, float [n_months,
            n_values].
    """

    ids: list[str]
    tastes: Floats


@dataclass(frozen=True)
class Truth:
    """The content of truth.parquet: ids and taste vectors of users, items and months.

    Attributes:
        users, items, months: the ids as text, [n] each; `months` is empty if tastes do not depend
            on the month.
        user_tastes, item_tastes, month_tastes: the vectors, float32 [n, d], in the order of the
            ids.
    """

    users: pa.Array
    items: pa.Array
    months: pa.Array
    user_tastes: Floats
    item_tastes: Floats
    month_tastes: Floats


def write_truth(
    folder: Path,
    users: tuple[pa.Array, Audience],
    items: tuple[pa.Array, Catalogue],
    months: Months | None = None,
) -> None:
    """Write the planted tastes to truth.parquet.

    Args:
        folder: the folder of the sample.
        users: the ids of the users as text, and their tastes.
        items: the ids of the items as text, and their attributes.
        months: the months and their tastes; None if tastes do not depend on the month.
    """
    audience, catalogue = users[1], items[1]
    n_values, n_looks = audience.tastes.shape[1], catalogue.looks.shape[1]
    step = max(1, _BLOCK // (n_values + 1 + n_looks))
    with pq.ParquetWriter(folder / NAME, _SCHEMA, compression="zstd") as file:
        for start in range(0, len(users[0]), step):
            rows = slice(start, start + step)
            file.write_table(_table("user", users[0][rows], _of_users(audience, catalogue, rows)))
        for start in range(0, len(items[0]), step):
            rows = slice(start, start + step)
            vectors = _of_items(catalogue, n_values, rows)
            file.write_table(_table("item", items[0][rows], vectors))
        if months is not None:
            vectors = np.pad(months.tastes, ((0, 0), (0, 1 + n_looks)))
            file.write_table(_table("month", pa.array(months.ids), vectors))


def _of_users(audience: Audience, catalogue: Catalogue, rows: slice) -> Floats:
    tastes = audience.tastes[rows]
    looks = catalogue.styles[audience.styles[rows]]
    return np.concatenate([tastes, np.ones((len(tastes), 1)), looks], axis=1)


def _of_items(catalogue: Catalogue, n_values: int, rows: slice) -> Floats:
    values = catalogue.values[rows]
    has = np.zeros((len(values), n_values), np.float32)
    np.put_along_axis(has, values, 1, axis=1)
    return np.concatenate(
        [has, catalogue.log_popularity[rows, None], catalogue.looks[rows]], axis=1
    )


def _table(side: str, ids: pa.Array, vectors: Floats) -> pa.Table:
    n, width = vectors.shape
    offsets = np.arange(n + 1, dtype=np.int32) * width
    flat = np.ascontiguousarray(vectors, np.float32).ravel()
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
    return pa.table([pa.array([side] * n), ids, lists], schema=_SCHEMA)


def read_truth(folder: Path) -> Truth:
    """Read the planted tastes from truth.parquet."""
    table = pq.read_table(folder / NAME)
    sides = table["side"].to_numpy()
    parts = [chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in table["taste"].chunks]
    vectors = np.concatenate(parts)
    chosen = {side: np.flatnonzero(sides == side) for side in ("user", "item", "month")}
    ids = [table["id"].take(chosen[side]).combine_chunks() for side in chosen]
    return Truth(ids[0], ids[1], ids[2], *(vectors[chosen[side]] for side in chosen))
