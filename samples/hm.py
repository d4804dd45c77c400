"""Writes H&M samples as on Kaggle: articles.csv, customers.csv and transactions_train.csv.

What users buy depends on their age (Divided below 30, Baby/Children around 38), on their tastes for
garment groups, on a hidden style that is in no file, and on the month: jackets sell in December,
swimwear in June.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.random import Generator

from models.core.retriever import Bools, Floats, Ints
from samples.hm_items import (
    CHILDREN,
    DIVIDED,
    GARMENTS,
    INDEX_GROUPS,
    LADIES,
    Assortment,
    draw_assortment,
    write_items,
)
from samples.lines import RawFile, as_decimals, as_text, hexadecimal, read_text, write_csv
from samples.oracle import HeldOut
from samples.tastes import (
    Audience,
    Catalogue,
    Shelves,
    choose,
    draw_kinds,
    draw_mask,
    to_shares,
    zipf,
)
from samples.truth import Months, write_truth

USERS, TRANSACTIONS = "customers.csv", "transactions_train.csv"


@dataclass(frozen=True)
class Counts:
    """The numbers of users, items and transactions of a sample."""

    users: int
    items: int
    transactions: int


SIZES = {
    "tiny": Counts(users=80, items=90, transactions=900),
    "small": Counts(users=1_500, items=600, transactions=40_000),
    "large": Counts(users=1_371_980, items=105_542, transactions=31_788_324),  # as Kaggle's
}

_FIRST, _LAST = np.datetime64("2018-09-20"), np.datetime64("2020-09-22")
DAYS = np.arange(_FIRST, _LAST + 1)
_MONTHS = DAYS.astype("datetime64[M]").astype(int) % 12 + 1
#: Number of looks (hidden attributes of items), and of styles (tastes of users for looks).
_N_LOOKS, _N_STYLES = 6, 64
_UNIT = 590.0  # Kaggle's prices are the shop's divided by this: 29.99 is 0.05083050847457627
_DISCOUNTS, _DISCOUNT_SHARES = np.array([1.0, 0.8, 0.5]), (0.85, 0.1, 0.05)
#: Lines that are written at a time: 110 MB.
_BATCH = 1_000_000


@dataclass(frozen=True)
class Users:
    """The users, in ascending order of their ids.

    Attributes:
        ids: 64 hexadecimal digits each, text [n], ascending.
        ages: age in whole years, float64 [n]; NaN if the file does not give it.
        audience: the tastes of the users; columns are index groups, then garment groups.
    """

    ids: pa.Array
    ages: Floats
    audience: Audience


@dataclass(frozen=True)
class Sales:
    """The purchases of all users.

    Attributes:
        users: the index of each purchase's user in `Users`, int32 [n], ascending.
        items: the index of the item in `Assortment`, int32 [n].
        days: the index of the day in `DAYS`, int16 [n].
        twice: whether the purchase has two lines in the file (two pieces on one receipt), bool [n].
    """

    users: Ints
    items: Ints
    days: Ints
    twice: Bools


class Receipts(NamedTuple):
    """Lines of the transactions file; each array has one value per line.

    Attributes:
        users, items, days: as in `Sales`.
        prices: prices in Kaggle's unit, float64.
        channels: the sales channel, 1 or 2.
    """

    users: Ints
    items: Ints
    days: Ints
    prices: Floats
    channels: Ints


@dataclass(frozen=True)
class Shop:
    """The items, the users and the sales from which the raw files are written."""

    assortment: Assortment
    catalogue: Catalogue
    prices: Floats
    users: Users
    sales: Sales


def write(folder: Path, size: str, rng: Generator) -> list[RawFile]:
    """Write the three raw files, and the tastes of the users."""
    shop = open_shop(SIZES[size], rng)
    files = [
        _write_transactions(folder, shop, rng),
        write_items(folder, shop.assortment, rng),
        _write_users(folder, shop.users, rng),
    ]
    write_tastes(folder, shop)
    return files


def held_out(folder: Path) -> HeldOut:
    """Return the transactions in two parts; the test part is a random tenth of them."""
    columns = {"t_dat": "date", "customer_id": "user", "article_id": "item"}
    rows = by_month(read_text(folder / TRANSACTIONS, columns))
    tenth = np.zeros(rows.num_rows, bool)
    tenth[: round(rows.num_rows / 10)] = True
    tenth = np.random.default_rng(0).permutation(tenth)
    return HeldOut(rows.filter(pa.array(~tenth)), rows.filter(pa.array(tenth)))


def by_month(rows: pa.Table) -> pa.Table:
    """Return interactions with the column `month` ("01" to "12") in place of `date`."""
    months = pc.utf8_slice_codeunits(rows["date"], 5, 7)
    return rows.select(["user", "item"]).append_column("month", months)


def open_shop(counts: Counts, rng: Generator) -> Shop:
    """Draw the items, the users with their tastes, and the sales of the shop."""
    assortment = draw_assortment(counts.items, rng)
    n = counts.items
    values = np.stack([assortment.index_groups, len(INDEX_GROUPS) + assortment.garments], axis=1)
    looks = rng.normal(0, 0.6, (n, _N_LOOKS))
    styles = rng.normal(0, 0.6, (_N_STYLES, _N_LOOKS))
    catalogue = Catalogue(values, 0.6 * zipf(n, 1.0, rng), looks, styles)
    usual = np.array([g.price for g in GARMENTS])[assortment.garments]
    prices = usual * rng.lognormal(0, 0.35, n)
    users = _draw_users(counts.users, rng)
    sales = _draw_sales(counts, catalogue, assortment, users.audience, rng)
    return Shop(assortment, catalogue, prices, users, sales)


def _draw_users(n: int, rng: Generator) -> Users:
    """Draw users with ages and tastes; tastes depend on the age even if the file lacks it."""
    young = rng.random(n) < 0.6
    ages = np.where(young, rng.normal(24, 4, n), rng.normal(50, 8, n))
    ages = np.clip(np.round(ages), 16, 90)
    alpha = np.full((n, len(INDEX_GROUPS)), 0.3)
    numbers = [number for number, *_ in INDEX_GROUPS]
    alpha[:, numbers.index(LADIES)] = 1.2
    alpha[:, numbers.index(CHILDREN)] += 2.0 * np.exp(-(((ages - 38) / 8) ** 2))
    alpha[:, numbers.index(DIVIDED)] += 1.5 * (ages < 30)
    index_shares = _dirichlet(alpha, rng)
    garment_shares = _dirichlet(np.full((n, len(GARMENTS)), 0.25), rng)
    tastes = np.concatenate(
        [
            1.1 * np.log(index_shares + 0.03).astype(np.float32),
            0.7 * np.log(garment_shares + 0.03).astype(np.float32),
        ],
        axis=1,
    )
    audience = Audience(tastes, rng.integers(0, _N_STYLES, n))
    ages[draw_mask(n, 0.0116, rng)] = np.nan
    return Users(hexadecimal(n, 64, rng), ages, audience)


def _dirichlet(alpha: Floats, rng: Generator) -> Floats:
    """Draw shares from a Dirichlet distribution per row, with parameters `alpha`, float64."""
    parts = rng.standard_gamma(alpha) + 1e-12
    return np.asarray(parts / parts.sum(axis=1, keepdims=True))


def _draw_sales(
    counts: Counts,
    catalogue: Catalogue,
    assortment: Assortment,
    audience: Audience,
    rng: Generator,
) -> Sales:
    """Draw the purchases of all users; one user in a hundred buys nothing."""
    n_twice = round(0.05 * counts.transactions)
    n = counts.transactions - n_twice
    buys = ~draw_mask(counts.users, 0.01, rng)
    activity = rng.gamma(0.8, size=counts.users) * buys
    each = buys + rng.multinomial(n - buys.sum(), activity / activity.sum())
    users = np.repeat(np.arange(counts.users, dtype=np.int32), each)
    items = Shelves(catalogue).draw(audience, each, rng)
    steps = np.cumsum(_season(), axis=1)
    days = np.empty(n, np.int16)
    for start in range(0, n, _BATCH):
        rows = slice(start, start + _BATCH)
        days[rows] = choose(steps, assortment.garments[items[rows]], rng)
    twice = np.zeros(n, bool)
    twice[rng.permutation(n)[:n_twice]] = True
    return Sales(users, items, days, twice)


def _season() -> Floats:
    """Return each garment group's share of sales by day, float64 [n_garments, n_days]."""
    peak = np.array([[g.peak] for g in GARMENTS])
    season = np.array([[g.season] for g in GARMENTS])
    return to_shares(1.6 * season * np.cos(2 * np.pi * (_MONTHS - peak) / 12))


def write_tastes(folder: Path, shop: Shop) -> None:
    """Write the tastes of users, items and months to truth.parquet."""
    by_day = _season()
    tastes = np.zeros((12, shop.users.audience.tastes.shape[1]))
    for month in range(1, 13):
        of_garment = by_day[:, month == _MONTHS].sum(axis=1)
        tastes[month - 1, len(INDEX_GROUPS) :] = np.log(of_garment)
    months = Months([f"{m:02d}" for m in range(1, 13)], tastes)
    users = (shop.users.ids, shop.users.audience)
    write_truth(folder, users, (shop.assortment.ids, shop.catalogue), months)


def _write_users(folder: Path, users: Users, rng: Generator) -> RawFile:
    n = len(users.ids)
    post = rng.integers(1, max(2, n // 4), n)
    post[draw_mask(n, 0.09, rng)] = 0  # unknown postal codes share one code
    flags = [np.where(draw_mask(n, 0.65, rng), np.nan, 1.0) for _ in range(2)]
    status = (("ACTIVE", 0.927), ("PRE-CREATE", 0.068), ("LEFT CLUB", 0.0003), (None, 0.0045))
    news = (("NONE", 0.64), ("Regularly", 0.35), ("Monthly", 0.0006), (None, 0.012))
    columns = [
        users.ids,
        *map(as_decimals, flags),
        pa.array(draw_kinds(n, status, rng)),
        pa.array(draw_kinds(n, news, rng)),
        as_decimals(users.ages),
        hexadecimal(post.max() + 1, 64, rng).take(pa.array(post)),
    ]
    return write_csv(folder, USERS, _USER_HEAD, [columns])


_USER_HEAD = (
    *("customer_id", "FN", "Active", "club_member_status", "fashion_news_frequency", "age"),
    "postal_code",
)


def receipts(sales: Sales, prices: Floats, rng: Generator) -> Iterator[Receipts]:
    """Yield the lines of all purchases in order of date and user, in batches.

    Args:
        sales: the purchases.
        prices: the price of each item, in the shop's unit, float64 [n_items].
        rng: the generator of random numbers.
    """
    order = np.argsort(sales.days, kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        discount = rng.choice(_DISCOUNTS, len(rows), p=_DISCOUNT_SHARES)
        paid = np.round(prices[sales.items[rows]] * discount) - 0.01
        paid = np.clip(paid, 0.0005 * _UNIT, 0.5 * _UNIT) / _UNIT
        channels = np.where(rng.random(len(rows)) < 0.3, 1, 2)
        copies = 1 + sales.twice[rows]
        rows = np.repeat(rows, copies)
        whole = (sales.users[rows], sales.items[rows], sales.days[rows])
        yield Receipts(*whole, np.repeat(paid, copies), np.repeat(channels, copies))


def dates(days: Ints) -> pa.Array:
    """Return days, given as indices of `DAYS`, as text such as "2018-09-20"."""
    return as_text(np.datetime_as_string(DAYS).tolist()).take(pa.array(days))


def _write_transactions(folder: Path, shop: Shop, rng: Generator) -> RawFile:
    header = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")
    batches = (
        [
            dates(batch.days),
            shop.users.ids.take(pa.array(batch.users)),
            shop.assortment.ids.take(pa.array(batch.items)),
            as_decimals(batch.prices),
            as_text(batch.channels),
        ]
        for batch in receipts(shop.sales, shop.prices, rng)
    )
    return write_csv(folder, TRANSACTIONS, header, batches)
