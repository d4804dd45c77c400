"""truth.parquet: the planted tastes as vectors; a user's affinity is their product with an item's.

A row is a user, an item or a month. Up to a constant that does not depend on the item, the product
(user + month) · item is the logarithm of the chance that the user takes the item in that month.
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
    """The tastes that each month adds to the tastes of all users.

    Attributes:
        ids: names of the months.
        tastes: float [n_months, n_values].
    """

    ids: list[str]
    tastes: Floats


@dataclass(frozen=True)
class Truth:
    """The planted tastes.

    Attributes:
        users, items, months: ids, text; there may be no months.
        user_tastes, item_tastes, month_tastes: float32 [n, d].
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
    """Write truth.parquet.

    Args:
        folder: the folder of the sample.
        users: their ids as text, and their tastes.
        items: their ids as text, and their attributes.
        months: None where taste has no season.
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
    """Read truth.parquet."""
    table = pq.read_table(folder / NAME)
    sides = table["side"].to_numpy()
    parts = [chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in table["taste"].chunks]
    vectors = np.concatenate(parts)
    chosen = {side: np.flatnonzero(sides == side) for side in ("user", "item", "month")}
    ids = [table["id"].take(chosen[side]).combine_chunks() for side in chosen]
    return Truth(ids[0], ids[1], ids[2], *(vectors[chosen[side]] for side in chosen))
