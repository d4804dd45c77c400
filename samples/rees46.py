"""Writes REES46 samples: five monthly logs of views, carts and purchases, compressed by gzip.

Users have tastes for branches of the category tree, for a few brands and for a price tier. They
also come back to items that they had in a cart, which the tastes in truth.parquet do not explain. A
purchase follows its cart event within minutes, so a history that includes events of the same day
would reveal the purchase that a model should predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.random import Generator

from models.core.retriever import Bools, Floats, Ints
from samples.lines import RawFile, as_text, hexadecimal, read_text, write_csv
from samples.oracle import HeldOut
from samples.rees46_items import (
    BRANCH,
    BRAND,
    LATE,
    N_BRANDS,
    N_TIERS,
    TIER,
    WIDTH,
    Assortment,
    draw_assortment,
)
from samples.tastes import Audience, Shelves, draw_favourites, draw_mask
from samples.truth import Months, write_truth


@dataclass(frozen=True)
class Counts:
    """The numbers of users and items of a sample."""

    users: int
    items: int


SIZES = {
    "tiny": Counts(users=60, items=80),
    "small": Counts(users=6_000, items=3_000),
    "large": Counts(users=400_000, items=40_000),
}

#: Files by month of their first day.
_FILES = {
    "2019-12": "2019-Dec.csv.gz",
    "2020-01": "2020-Jan.csv.gz",
    "2020-02": "2020-Feb.csv.gz",
    "2020-03": "2020-Mar.csv.gz",
    "2020-04": "2020-Apr.csv.gz",
}
_DAYS = np.arange(np.datetime64("2019-12-01"), np.datetime64("2020-05-01"))
_MONTHS = np.datetime_as_string(_DAYS.astype("datetime64[M]"))
#: The month in which the late items are new, and its first day.
_LATE_MONTH = "2020-02"
_LATE_DAY = int(np.searchsorted(_MONTHS, _LATE_MONTH))
#: A taste so low that late items are not drawn before that day.
_NOT_YET = -60.0

#: Share of the carts, after a user's first day, with an item that the user had in a cart before.
_AGAIN = 0.8

_VIEW, _CART, _PURCHASE = range(3)
_EVENTS = ("view", "cart", "purchase")
#: Lines that are written at a time.
_BATCH = 500_000
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class _Carts:
    """The items put into carts, in order of user and day; each array has one value per item.

    Attributes:
        users: the index of the user.
        days: the index of the day in `_DAYS`.
        visits: the index of the visit among the visits of all users; a visit is one day of one
            user.
        nth: the number of the item among the items of its visit, from 0.
        bought: whether the item was bought, bool.
    """

    users: Ints
    days: Ints
    visits: Ints
    nth: Ints
    bought: Bools


@dataclass(frozen=True)
class _Log:
    """The events of the log in order of time; each array has one integer per event.

    Attributes:
        users, items, visits: the indices of the user, the item and the visit.
        kinds: the index of the kind of event in `_EVENTS`.
        seconds: the time in seconds since the start of the first day.
    """

    users: Ints
    items: Ints
    visits: Ints
    kinds: Ints
    seconds: Ints


def write(folder: Path, size: str, rng: Generator) -> list[RawFile]:
    """Write the five raw files, and the tastes of the users."""
    counts = SIZES[size]
    assortment, audience = draw_assortment(counts.items, rng), _draw_users(counts.users, rng)
    user_ids = as_text(512_000_000 + 11 * rng.permutation(counts.users))
    carts = _fill_carts(counts.users, rng)
    log = _draw_events(carts, Shelves(assortment.catalogue), audience, rng)
    sessions = _sessions(int(carts.visits[-1]) + 1, rng)
    files = [
        write_csv(folder, name, _HEAD, _lines(log, month, assortment, user_ids, sessions))
        for month, name in _FILES.items()
    ]
    tastes = np.where(np.array(list(_FILES))[:, None] < _LATE_MONTH, _early(np.zeros(WIDTH)), 0)
    months = Months(list(_FILES), tastes)
    write_truth(folder, (user_ids, audience), (assortment.ids, assortment.catalogue), months)
    return files


def held_out(folder: Path) -> HeldOut:
    """Return the purchases in two parts: the test part has all purchases of 15 % of the users."""
    columns = {"user_id": "user", "product_id": "item", "event_time": "time", "event_type": "kind"}
    log = pa.concat_tables([read_text(folder / name, columns) for name in _FILES.values()])
    log = log.filter(pc.equal(log["kind"], "purchase"))
    month = pc.utf8_slice_codeunits(log["time"], 0, 7)
    rows = log.select(["user", "item"]).append_column("month", month)
    users = pc.unique(rows["user"])
    chosen = users.filter(pa.array(draw_mask(len(users), 0.15, np.random.default_rng(0))))
    test = pc.is_in(rows["user"], value_set=chosen)
    return HeldOut(rows.filter(pc.invert(test)), rows.filter(test))


def _early(tastes: Floats) -> Floats:
    """Return tastes of months before the late items are sold, float32 [..., n_values].

    In these tastes, late items are so unattractive that nobody takes them.
    """
    tastes = tastes.astype(np.float32)
    tastes[..., LATE + 1] = _NOT_YET
    return tastes


def _draw_users(n: int, rng: Generator) -> Audience:
    """Draw the tastes of n users."""
    tastes = np.zeros((n, WIDTH), np.float32)
    for first, last, strength in ((0, BRANCH, 1.12), (BRANCH, BRAND, 0.7)):
        parts = rng.standard_gamma(0.25, (n, last - first)) + 1e-12
        parts /= parts.sum(axis=1, keepdims=True)
        tastes[:, first:last] = strength * np.log(parts + 0.05)
    liked = BRAND + draw_favourites(np.zeros(N_BRANDS), n, 6, rng)
    np.put_along_axis(tastes, liked, 1.12, axis=1)
    tier = rng.integers(0, N_TIERS, n)
    tastes[:, TIER:LATE] = -0.35 * np.abs(np.arange(N_TIERS) - tier[:, None])
    return Audience(tastes, np.zeros(n, np.int64))


def _fill_carts(n_users: int, rng: Generator) -> _Carts:
    """Draw the days on which users visit the shop, and the number of items they put into carts.

    15 % of the users never buy.

    A few users visit so often that they have more than 100 events, and a few buy more than eight
    items on their first day.
    """
    n_few = min(5, n_users // 10)
    often, much = rng.permutation(n_users)[: 2 * n_few].reshape(2, n_few)
    n_days = 1 + rng.poisson(5, n_users)
    n_days[often] = 90
    owners = np.repeat(np.arange(n_users), n_days)
    visits = np.unique(owners * len(_DAYS) + rng.integers(0, len(_DAYS), len(owners)))
    users, days = np.divmod(visits, len(_DAYS))
    each = 1 + rng.poisson(0.8, len(visits))
    spree = np.searchsorted(users, much)
    each[spree] = 12
    buys = ~draw_mask(n_users, 0.15, rng)
    buys[often], buys[much] = True, True
    row = np.repeat(np.arange(len(visits), dtype=np.int32), each)
    bought = buys[users[row]] & ((rng.random(len(row)) < 0.45) | np.isin(row, spree))
    nth = np.arange(len(row)) - np.repeat(np.cumsum(each) - each, each)
    return _Carts(users[row].astype(np.int32), days[row].astype(np.int32), row, nth, bought)


def _draw_events(carts: _Carts, shelves: Shelves, audience: Audience, rng: Generator) -> _Log:
    """Draw the log of events, in order of time.

    Before users put an item into a cart, they view two other items and then this item.
    """
    n = len(carts.users)
    items = _draw_items(carts, np.ones(n, np.int64), shelves, audience, rng)
    items = items[_draw_sources(carts, rng)]
    others = _draw_items(carts, np.full(n, 2), shelves, audience, rng).reshape(n, 2)
    start = rng.integers(6 * 3600, 22 * 3600, int(carts.visits[-1]) + 1, dtype=np.int32)
    filled = carts.days * _DAY + start[carts.visits] + 300 * carts.nth + rng.integers(0, 60, n)
    bought = np.flatnonzero(carts.bought)
    paid = filled[bought] + rng.integers(30, 120, len(bought))
    every = np.arange(n)
    # item, kind, seconds, cart
    parts = [
        (others[:, 0], _VIEW, filled - 90, every),
        (others[:, 1], _VIEW, filled - 60, every),
        (items, _VIEW, filled - 30, every),
        (items, _CART, filled, every),
        (items[bought], _PURCHASE, paid, bought),
    ]
    seconds = np.concatenate([part[2] for part in parts]).astype(np.int32)
    order = np.argsort(seconds, kind="stable")
    cart = np.concatenate([part[3] for part in parts])[order]
    kind = np.repeat([part[1] for part in parts], [len(part[0]) for part in parts])
    return _Log(
        carts.users[cart],
        np.concatenate([part[0] for part in parts])[order],
        carts.visits[cart],
        kind.astype(np.int8)[order],
        seconds[order],
    )


def _draw_items(
    carts: _Carts, each: Ints, shelves: Shelves, audience: Audience, rng: Generator
) -> Ints:
    """Draw items by the tastes of the carts' users, `each[i]` items for cart i.

    Late items are drawn only from the month on in which they are sold.
    """
    n_users, early = len(audience.tastes), carts.days < _LATE_DAY
    before = Audience(_early(audience.tastes), audience.styles)
    items = np.empty(each.sum(), np.int32)
    for someone, when in ((before, early), (audience, ~early)):
        counts = np.bincount(carts.users[when], each[when], n_users).astype(np.int64)
        items[np.repeat(when, each)] = shelves.draw(someone, counts, rng)
    return items


def _draw_sources(carts: _Carts, rng: Generator) -> Ints:
    """Return, for each cart, the cart whose item it holds: itself, or an earlier one of its user.

    An earlier cart must be one of an earlier day.
    """
    n = len(carts.users)
    first = np.searchsorted(carts.users, carts.users)  # the user's first cart
    earlier = np.searchsorted(carts.visits, carts.visits) - first
    again = (earlier > 0) & (rng.random(n) < _AGAIN)
    source = np.where(again, first + (rng.random(n) * earlier).astype(np.int64), np.arange(n))
    while (source != source[source]).any():  # the source has an earlier source itself
        source = source[source]
    return source


def _sessions(n: int, rng: Generator) -> pa.Array:
    """Return a UUID as text for each visit; one visit of a hundred has null instead."""
    digits = hexadecimal(n, 32, rng).take(pa.array(rng.permutation(n)))
    cuts = [pc.utf8_slice_codeunits(digits, *cut) for cut in _CUTS]
    first, second, third, fourth, fifth = cuts
    third = pc.binary_join_element_wise("4", third, "")  # the version, random
    fourth = pc.binary_join_element_wise("a", fourth, "")
    uuids = pc.binary_join_element_wise(first, second, third, fourth, fifth, "-")
    return pc.if_else(pa.array(draw_mask(n, 0.01, rng)), pa.scalar(None, pa.string()), uuids)


@cache
def _clock() -> pa.Array:
    """Return the time of every second of a day as text, "00:00:00" to "23:59:59"."""
    seconds = np.datetime64("2019-12-01T00:00:00") + np.arange(_DAY)
    return pc.utf8_slice_codeunits(as_text(np.datetime_as_string(seconds).tolist()), 11, 19)


_CUTS = ((0, 8), (8, 12), (13, 16), (17, 20), (20, 32))
_HEAD = (
    *("event_time", "event_type", "product_id", "category_id", "category_code", "brand"),
    *("price", "user_id", "user_session"),
)


def _lines(
    log: _Log, month: str, assortment: Assortment, user_ids: pa.Array, sessions: pa.Array
) -> Iterator[list[pa.Array]]:
    """Yield the text columns of a month's log, in batches of lines."""
    days = np.flatnonzero(month == _MONTHS)
    first, last = np.searchsorted(log.seconds, [days[0] * _DAY, (days[-1] + 1) * _DAY])
    dates, kinds = as_text(np.datetime_as_string(_DAYS).tolist()), as_text(list(_EVENTS))
    for start in range(first, last, _BATCH):
        rows = slice(start, min(start + _BATCH, last))
        day, second = np.divmod(log.seconds[rows], _DAY)
        date, time = dates.take(pa.array(day)), _clock().take(pa.array(second))
        items = pa.array(log.items[rows])
        yield [
            pc.binary_join_element_wise(date, time, "UTC", " "),
            kinds.take(pa.array(log.kinds[rows])),
            *(column.take(items) for column in (assortment.ids, *assortment.columns)),
            user_ids.take(pa.array(log.users[rows])),
            sessions.take(pa.array(log.visits[rows])),
        ]
