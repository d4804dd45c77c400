"""Writes H&M samples as in the tutorial of a feature store: one joined table in two files.

The users, items and sales are those of hm.py with the same size and seed. Of every ten rows, eight
are for training and one is for validation. The tenth row would be in the tutorial's test file,
which is not written, because the tutorial never reads it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from models.core.retriever import Ints
from samples import hm
from samples.hm_items import GARMENTS, INDEX_GROUPS
from samples.lines import RawFile, as_decimals, quote, read_text, write_csv
from samples.oracle import HeldOut

TRAIN, VALID = "train_df.csv", "val_df.csv"

SIZES = {
    "tiny": hm.SIZES["tiny"],
    "small": hm.SIZES["small"],
    # the published table has 672,157 training rows of 32,353 users and 64,267 items
    "large": hm.Counts(users=33_000, items=66_000, transactions=850_000),
}

_HEAD = (
    *("user_id", "item_id", "t_dat", "price", "month_sin", "month_cos", "age"),
    *("garment_group_name", "index_group_name"),
)


def write(folder: Path, size: str, rng: Generator) -> list[RawFile]:
    """Write the two raw files, and the tastes of the users."""
    shop = hm.open_shop(SIZES[size], rng)
    batches = list(hm.receipts(shop.sales, shop.prices, rng))
    sales = hm.Receipts(*(np.concatenate(column) for column in zip(*batches, strict=True)))
    known = np.flatnonzero(~np.isnan(shop.users.ages[sales.users]))
    tenths = rng.permutation(np.arange(len(known)) * 10 // len(known))
    parts = {TRAIN: known[tenths < 8], VALID: known[tenths == 8]}
    files = [
        write_csv(folder, name, _HEAD, [_join(shop, sales, rows)]) for name, rows in parts.items()
    ]
    hm.write_tastes(folder, shop)
    return files


def held_out(folder: Path) -> HeldOut:
    """Return the rows of train_df.csv and val_df.csv."""
    columns = {"t_dat": "date", "user_id": "user", "item_id": "item"}
    return HeldOut(*(hm.by_month(read_text(folder / name, columns)) for name in (TRAIN, VALID)))


def _join(shop: hm.Shop, sales: hm.Receipts, rows: Ints) -> list[pa.Array]:
    users, items, days = sales.users[rows], sales.items[rows], sales.days[rows]
    months = hm.DAYS[days].astype("datetime64[M]").astype(int) % 12  # January is 0
    garments = quote([g.name for g in GARMENTS])
    indexes = quote([name for _, name, *_ in INDEX_GROUPS])
    return [
        shop.users.ids.take(pa.array(users)),
        shop.assortment.ids.take(pa.array(items)),
        hm.dates(days),
        as_decimals(sales.prices[rows]),
        as_decimals(np.sin(2 * np.pi * months / 12)),
        as_decimals(np.cos(2 * np.pi * months / 12)),
        as_decimals(shop.users.ages[users]),
        garments.take(pa.array(shop.assortment.garments[items])),
        indexes.take(pa.array(shop.assortment.index_groups[items])),
    ]
