"""Writes Babyshop samples: an event log, a table of items, one of users, and train and test files.

Ids are hashes. A row of the train and test files is a pair of a user and an item.

Every user has few interactions, and no pair of a user and an item occurs twice. Popularity alone
explains little of what is bought; the gender of the user's child, a few brands and a few product
groups explain most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from models.core.retriever import Floats, Ints
from samples.lines import RawFile, as_decimals, as_text, quote, read_text, write_csv
from samples.oracle import HeldOut
from samples.tastes import (
    Audience,
    Catalogue,
    Shelves,
    choose,
    draw_distinct,
    draw_favourites,
    draw_mask,
    to_shares,
    zipf,
)
from samples.truth import Months, write_truth
from samples.words import names

EVENTS, ITEMS, USERS, TRAIN, TEST = (
    "user_item_interactions.csv",
    "item_info.csv",
    "user_info.csv",
    "train.csv",
    "test.csv",
)


@dataclass(frozen=True)
class Counts:
    """The numbers of users, items, brands and product groups of a sample."""

    users: int
    items: int
    brands: int
    groups: int


SIZES = {
    "tiny": Counts(users=60, items=120, brands=10, groups=8),
    "small": Counts(users=1_500, items=3_000, brands=80, groups=40),
    "large": Counts(users=87_795, items=61_704, brands=644, groups=104),  # as the real files
}

GENDERS = ("girls", "boys", "unisex")
_GENDER_SHARES = (0.345, 0.19, 0.465)
_SEASONAL = {
    "boots": {9: 6.0, 10: 6.0, 11: 6.0},
    "coveralls": {9: 6.0, 10: 6.0, 11: 6.0},
    "sandals": {6: 10.0},
    "swimwear": {6: 10.0},
}
_GROUPS = (
    *("boots", "coveralls", "sandals", "swimwear", "jackets", "t-shirts", "trousers", "dresses"),
    *("tops", "sweaters", "socks", "hats", "mittens", "pyjamas", "bodies", "tights", "shorts"),
    *("skirts", "shoes", "sneakers", "slippers", "rain wear", "strollers", "car seats", "toys"),
    *("soft toys", "puzzles", "books", "bedding", "blankets", "furniture", "lamps", "bottles"),
    *("bibs", "pacifiers", "nappies", "bath toys", "bags", "tableware", "baby monitors"),
)
_COLOURS = (
    *("black", "white", "grey", "navy", "blue", "light blue", "turquoise", "teal", "green"),
    *("khaki", "olive", "mint", "yellow", "mustard", "orange", "coral", "red", "burgundy", "pink"),
    *("light pink", "rose", "purple", "lilac", "brown", "beige", "sand", "cream", "gold"),
    *("silver", "multi", "pattern"),
)
_AGES = np.array([0.125, 0.375, 0.625, 0.875, *range(1, 15)])  # years
_MONTHS = np.arange(1, 12)
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
#: The shop grows: November has twice the visitors of January.
_BUSY = np.linspace(1.0, 2.0, 11)
_OTHER_EVENTS = ("pageView", "addToCart", "addToWishlist")


@dataclass(frozen=True)
class _Shop:
    """The items and users of a sample: ids as text, attributes of items and tastes of users."""

    counts: Counts
    item_ids: pa.Array
    catalogue: Catalogue
    user_ids: pa.Array
    audience: Audience


def write(folder: Path, size: str, rng: Generator) -> list[RawFile]:
    """Write the five raw files, and the tastes of the users."""
    counts = SIZES[size]
    shop = _stock(counts, rng)
    files = [_write_items(folder, shop, rng), _write_users(folder, shop, rng)]
    wanted = np.minimum(20, 1 + rng.geometric(0.11, counts.users))
    pairs = draw_distinct(Shelves(shop.catalogue), shop.audience, wanted, rng)
    group = shop.catalogue.values[pairs[:, 1], 1] - counts.brands
    season = to_shares(np.log(_season(counts)))
    month = _MONTHS[choose(np.cumsum(season, axis=1), group, rng)]
    files.append(_write_events(folder, shop, pairs, month, rng))
    files += _write_pairs(folder, shop, pairs, month, rng)
    users, items = (shop.user_ids, shop.audience), (shop.item_ids, shop.catalogue)
    write_truth(folder, users, items, _months(counts, season))
    return files


def held_out(folder: Path) -> HeldOut:
    """Return the user-item pairs of train.csv and of test.csv."""
    columns = {"user_no": "user", "item_no": "item", "first_interaction_month": "month"}
    return HeldOut(*(read_text(folder / name, columns) for name in (TRAIN, TEST)))


def _stock(counts: Counts, rng: Generator) -> _Shop:
    """Draw items and users; the columns of the tastes are brands, product groups and genders."""
    n, users = counts.items, counts.users
    ids = np.unique(rng.integers(-(2**63), 2**63 - 1, 2 * (n + users)))
    ids = rng.permutation(ids)[: n + users]
    brand_weights = zipf(counts.brands, 0.9, rng)
    group_weights = zipf(counts.groups, 0.8, rng)
    brand = rng.choice(counts.brands, n, p=to_shares(brand_weights))
    group = rng.choice(counts.groups, n, p=to_shares(group_weights))
    gender = rng.choice(len(GENDERS), n, p=_GENDER_SHARES)
    first_gender = counts.brands + counts.groups
    values = np.stack([brand, counts.brands + group, first_gender + gender], axis=1)
    tastes = np.zeros((users, first_gender + len(GENDERS)), np.float32)
    np.put_along_axis(tastes, draw_favourites(brand_weights, users, 4, rng), 3.2, axis=1)
    liked = counts.brands + draw_favourites(group_weights, users, 5, rng)
    np.put_along_axis(tastes, liked, 2.6, axis=1)
    child = rng.integers(0, 2, users)
    tastes[np.arange(users), first_gender + child] = 1.5
    tastes[:, first_gender + GENDERS.index("unisex")] = 1.5
    return _Shop(
        counts,
        as_text(ids[:n]),
        Catalogue.without_looks(values, 0.35 * zipf(n, 1.0, rng)),
        as_text(ids[n:]),
        Audience(tastes, np.zeros(users, np.int64)),
    )


def _group_names(n: int) -> list[str]:
    """Return the names of n product groups; from the 41st on, they are for babies and newborns."""
    return [*_GROUPS, *(f"{prefix} {g}" for prefix in ("baby", "newborn") for g in _GROUPS)][:n]


def _season(counts: Counts) -> Floats:
    """Return the relative sales of each product group in each month, float64 [n_groups, 11]."""
    busy = np.tile(_BUSY, (counts.groups, 1))
    for row, name in enumerate(_group_names(counts.groups)):
        for month, times in _SEASONAL.get(name, {}).items():
            busy[row, month - 1] *= times
    return busy


def _months(counts: Counts, season: Floats) -> Months:
    tastes = np.zeros((len(_MONTHS), counts.brands + counts.groups + len(GENDERS)))
    tastes[:, counts.brands : counts.brands + counts.groups] = np.log(season).T
    return Months([str(m) for m in _MONTHS], tastes)


def _write_items(folder: Path, shop: _Shop, rng: Generator) -> RawFile:
    n = len(shop.item_ids)
    low = rng.integers(0, len(_AGES), n)
    high = np.minimum(low + rng.integers(0, 4, n), len(_AGES) - 1)
    min_age, max_age = _AGES[low], _AGES[high]
    unknown = draw_mask(n, 0.195, rng)
    min_age[unknown], max_age[unknown] = np.nan, np.nan
    known = np.flatnonzero(~unknown)
    odd = known[draw_mask(len(known), 0.002, rng)]
    min_age[odd], max_age[odd] = -1, -1
    colour = quote([_COLOURS[c] for c in rng.integers(0, len(_COLOURS), n)])
    columns = [shop.item_ids, colour, *_names_of(shop, np.arange(n))]
    columns += [as_decimals(min_age), as_decimals(max_age)]
    return write_csv(folder, ITEMS, (*_ITEM_HEAD, "min_age", "max_age"), [columns])


_ITEM_HEAD = ("item_no", "colour", "gender_description", "brand", "product_group")


def _names_of(shop: _Shop, items: Ints) -> list[pa.Array]:
    """Return the gender, the brand and the product group of some items as text."""
    brand, group, gender = shop.catalogue.values[items].T
    group, gender = group - shop.counts.brands, gender - shop.counts.brands - shop.counts.groups
    named: list[tuple[Sequence[str], Ints]] = [
        (GENDERS, gender),
        (names(shop.counts.brands), brand),
        (_group_names(shop.counts.groups), group),
    ]
    return [quote(words).take(pa.array(rows)) for words, rows in named]


def _write_users(folder: Path, shop: _Shop, rng: Generator) -> RawFile:
    """Write the table of users, which has only 28 % of the users; no recipe reads the table."""
    chosen = np.flatnonzero(draw_mask(len(shop.user_ids), 0.28, rng))
    columns = [
        shop.user_ids.take(pa.array(chosen)),
        as_text(["sweden"] * len(chosen)),
        as_decimals(np.round(rng.lognormal(6.3, 0.6, len(chosen)), 2)),
        as_decimals(np.round(rng.beta(2, 6, len(chosen)), 4)),
    ]
    return write_csv(folder, USERS, ("user_no", "country", "aov", "avg_markdown"), [columns])


def _write_events(folder: Path, shop: _Shop, pairs: Ints, month: Ints, rng: Generator) -> RawFile:
    """Write the log of events: for each pair a purchase, other events, or both; sorted by time."""
    n = len(pairs)
    first_day = np.cumsum(_DAYS) - _DAYS
    day = first_day[month - 1] + (rng.random(n) * _DAYS[month - 1]).astype(np.int64)
    purchased = draw_mask(n, 0.45, rng)
    looked = ~purchased
    bought = np.flatnonzero(purchased)
    looked[bought[~draw_mask(len(bought), 0.58, rng)]] = True
    again = looked & (rng.random(n) < 0.1)
    rows = np.concatenate([np.flatnonzero(looked), np.flatnonzero(again), bought])
    n_other = len(rows) - len(bought)
    kind = np.full(len(rows), len(_OTHER_EVENTS))
    kind[:n_other] = rng.choice(len(_OTHER_EVENTS), n_other, p=(0.7, 0.2, 0.1))
    # the first event of a pair is in its month; later ones follow a few days after it
    first = np.concatenate(
        [np.ones(looked.sum(), bool), np.zeros(again.sum(), bool), ~looked[bought]]
    )
    later = np.where(first, 0, rng.integers(0, 6, len(rows)))
    when = np.minimum(day[rows] + later, _DAYS.sum() - 1)
    order = np.lexsort((rows, kind, when))
    dates = np.datetime_as_string(np.datetime64("2021-01-01") + np.arange(_DAYS.sum()))
    columns = [
        shop.user_ids.take(pa.array(pairs[rows[order], 0])),
        shop.item_ids.take(pa.array(pairs[rows[order], 1])),
        as_text(dates.tolist()).take(pa.array(when[order])),
        as_text([*_OTHER_EVENTS, "purchased"]).take(pa.array(kind[order])),
    ]
    return write_csv(folder, EVENTS, ("user_no", "item_no", "date", "eventtype"), [columns])


_PAIRS = (
    *("user_no", "item_no", "gender_description", "brand", "product_group"),
    "first_interaction_month",
)


def _write_pairs(
    folder: Path, shop: _Shop, pairs: Ints, month: Ints, rng: Generator
) -> list[RawFile]:
    """Write a row for each user-item pair: 15 % of the rows to the test file, others to train."""
    order = rng.permutation(len(pairs))
    n_test = round(0.15 * len(pairs))
    files = []
    for name, rows in ((TRAIN, order[n_test:]), (TEST, order[:n_test])):
        columns = [
            shop.user_ids.take(pa.array(pairs[rows, 0])),
            shop.item_ids.take(pa.array(pairs[rows, 1])),
            *_names_of(shop, pairs[rows, 1]),
            as_text(month[rows]),
        ]
        files.append(write_csv(folder, name, _PAIRS, [columns]))
    return files
