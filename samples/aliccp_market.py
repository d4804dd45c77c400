"""Simulate Ali-CCP: users with tastes for categories, shops and brands, and impressions.

The shop shows users items that they may like (a targeted logging policy); they click on some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from models.core.retriever import Bools, Floats, Ints
from samples.lines import hexadecimal
from samples.tastes import (
    Audience,
    Catalogue,
    Shelves,
    draw_favourites,
    mark,
    to_shares,
    zipf,
)

#: Groups of users with a taste in common; the files have them as user_group and in user_profile.
GROUPS = 12
#: The factor of a user's affinity in the logging policy.
_TARGETING = 0.8
#: Log-odds of a click: the value at affinity 0 and position 1; the change for a unit of affinity;
#: the change for each further position.
_BASE, _SLOPE, _DOWN = -3.4, 0.6, -0.3
_POSITIONS = 3
#: Kinds of item values; users have, for each kind, a list of the values that they saw.
CATEGORY, SHOP, BRAND, INTENTION = range(4)
#: Values of a user's single features, and the share of users without one: profile, group, gender,
#: age, consumption levels 1 and 2, occupied, geography.
_SINGLES = ((97, 0.0), (GROUPS, 0.0), (3, 0.0), (8, 0.0), (4, 0.3), (3, 0.3), (2, 0.0), (5, 0.1))


@dataclass(frozen=True)
class Counts:
    """The size of a sample.

    Attributes:
        users, items, categories, shops, brands: their numbers.
        train, test: numbers of lines of the skeletons.
    """

    users: int
    items: int
    categories: int
    shops: int
    brands: int
    train: int
    test: int


@dataclass(frozen=True)
class Market:
    """Users and items.

    Attributes:
        counts: their numbers.
        kinds: the category, shop, brand and intention of each item, int [n_items, 4].
        appeal: the part of an item's affinity that is the same for all users, float64 [n_items].
        log_exposure: how often users without a preference see an item, float64 [n_items].
        audience: the tastes of users; the columns are categories, then shops, then brands.
        liked: the users' favourite categories, shops and brands, int [n_users, n] each.
        singles: values from 0 of each single feature, int [n_users, 8]; -1 where there is none.
    """

    counts: Counts
    kinds: Ints
    appeal: Floats
    log_exposure: Floats
    audience: Audience
    liked: tuple[Ints, Ints, Ints]
    singles: Ints

    def n_values(self, kind: int) -> int:
        """Return the number of values of a kind."""
        of = self.counts
        return (of.categories, of.shops, of.brands, 3 * of.categories)[kind]

    def tastes_at(self, slope: float) -> tuple[Audience, Catalogue]:
        """Return tastes with the affinity `slope` x the users' affinity + log exposure."""
        first = np.cumsum([0, self.counts.categories, self.counts.shops])
        audience = Audience((slope * self.audience.tastes).astype(np.float32), self.audience.styles)
        popularity = self.log_exposure + slope * self.appeal
        return audience, Catalogue.without_looks(self.kinds[:, :INTENTION] + first, popularity)

    def click_tastes(self) -> tuple[Audience, Catalogue]:
        """Return the tastes that explain the clicks.

        An item is shown and then clicked. The logarithm of a logistic function is nearly straight,
        with the slope 1 - chance; 0.3 is the chance of a click where it matters, among the best.
        """
        return self.tastes_at(_TARGETING + _SLOPE * (1 - 0.3))


def open_market(counts: Counts, rng: Generator) -> Market:
    """Draw items and users."""
    category = rng.choice(
        counts.categories, counts.items, p=to_shares(zipf(counts.categories, 0.7, rng))
    )
    # shop s belongs to category (s modulo the number of categories), and so does brand s
    shop = _within(category, counts.categories, counts.shops, rng)
    brand = _within(category, counts.categories, counts.brands, rng)
    intention = 3 * category + rng.integers(0, 3, counts.items)
    group = rng.integers(0, GROUPS, counts.users)
    taste_of_group = rng.normal(0, 1.0, (GROUPS, counts.categories))
    taste = taste_of_group[group] + rng.normal(0, 0.6, (counts.users, counts.categories))
    liked_categories = draw_favourites(0.2 * taste, counts.users, 2, rng)
    liked_shops = _within(liked_categories, counts.categories, counts.shops, rng)
    liked_brands = _within(liked_categories, counts.categories, counts.brands, rng)
    likes = [np.zeros((counts.users, n), np.float32) for n in (counts.shops, counts.brands)]
    np.put_along_axis(likes[0], liked_shops, 2.0, axis=1)
    np.put_along_axis(likes[1], liked_brands, 2.0, axis=1)
    tastes = np.concatenate([(1.2 * taste).astype(np.float32), *likes], axis=1)
    return Market(
        counts,
        np.stack([category, shop, brand, intention], axis=1),
        rng.normal(0, 0.5, counts.items),
        0.4 * zipf(counts.items, 1.0, rng),
        Audience(tastes, np.zeros(counts.users, np.int64)),
        (liked_categories, liked_shops, liked_brands),
        _singles(group, rng),
    )


def _within(categories: Ints, n_categories: int, n: int, rng: Generator) -> Ints:
    """Draw one of the n shops (or brands) that belong to each category."""
    many = (n - 1 - categories) // n_categories + 1
    return categories + n_categories * (rng.random(categories.shape) * many).astype(np.int64)


def _singles(group: Ints, rng: Generator) -> Ints:
    columns: list[Ints] = []
    for n_values, without in _SINGLES:
        values = rng.integers(0, n_values, len(group))
        if without:
            values[mark(len(group), without, rng)] = -1
        columns.append(values)
    columns[0] = group * 8 + rng.integers(0, 8, len(group))
    columns[1] = group
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class UserLists:
    """The values in the lists of snapshots, in order of snapshot and value.

    Attributes:
        owners: snapshot of each value, int [n].
        values: int [n].
        weights: log(1 + number of times that the user saw the value), float64 [n].
        n_values: number of possible values.
    """

    owners: Ints
    values: Ints
    weights: Floats
    n_values: int

    def weight(self, owners: Ints, values: Ints) -> Floats:
        """Return the weights of values in the lists of snapshots; NaN where one is missing."""
        keys = self.owners * self.n_values + self.values
        wanted = owners * self.n_values + values
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, self.weights[at], np.nan)

    def offsets(self, n: int) -> pa.Array:
        """Return the start of the list of each of n snapshots, and the end; int32 [n + 1]."""
        return pa.array(np.searchsorted(self.owners, np.arange(n + 1)).astype(np.int32))


@dataclass(frozen=True)
class Snapshots:
    """The state of users at the time of their impressions.

    Attributes:
        names: the name of each snapshot, 16 hexadecimal digits.
        users: user row of each, int [n]; each user has one, some have two.
        nameless: whether a snapshot lacks the user's id, bool [n].
        lists: the lists of categories, shops, brands, intentions.
    """

    names: pa.Array
    users: Ints
    nameless: Bools
    lists: tuple[UserLists, ...]


def take_snapshots(market: Market, rng: Generator) -> Snapshots:
    """Draw a snapshot of each user, and a second one of every fifth user."""
    n_users = market.counts.users
    users = np.append(np.arange(n_users), np.flatnonzero(mark(n_users, 0.2, rng)))
    names = hexadecimal(len(users), 16, rng).take(pa.array(rng.permutation(len(users))))
    lists = [_history(market, kind, users, rng) for kind in (CATEGORY, SHOP, BRAND)]
    met = lists[CATEGORY]
    intentions = 3 * met.values + rng.integers(0, 3, len(met.values))
    lists.append(UserLists(met.owners, intentions, met.weights, market.n_values(INTENTION)))
    return Snapshots(names, users, mark(len(users), 0.002, rng), tuple(lists))


def _history(market: Market, kind: int, users: Ints, rng: Generator) -> UserLists:
    """List a user's favourites, often seen, and one or two values seen by chance."""
    n, n_values = len(users), market.n_values(kind)
    liked = market.liked[kind][users]
    chance = rng.integers(0, n_values, (n, 2))
    chance[:, 1] = np.where(rng.random(n) < 0.5, chance[:, 0], chance[:, 1])
    met = np.concatenate([liked, chance], axis=1)
    keys = np.unique(np.arange(n)[:, None] * n_values + met)
    owners, values = np.divmod(keys, n_values)
    often = (liked[owners] == values[:, None]).any(axis=1)
    times = 1 + rng.poisson(np.where(often, 6.0, 0.5))
    return UserLists(owners, values, np.round(np.log1p(times), 5), n_values)


@dataclass(frozen=True)
class Impressions:
    """The lines of a skeleton; each array has n values.

    Attributes:
        snapshots: row of `Snapshots`.
        items: item row.
        positions: 1 to 3.
        click: whether the item was clicked.
        conversion: whether the item was bought; a few without a click, as errors of the log.
    """

    snapshots: Ints
    items: Ints
    positions: Ints
    click: Bools
    conversion: Bools

    def rows(self, chosen: slice | Bools) -> Impressions:
        """Return some lines."""
        return Impressions(
            self.snapshots[chosen],
            self.items[chosen],
            self.positions[chosen],
            self.click[chosen],
            self.conversion[chosen],
        )


def show(market: Market, snapshots: Snapshots, n: int, rng: Generator) -> Impressions:
    """Draw n impressions, in random order."""
    n_users = market.counts.users
    each = rng.multinomial(n, to_shares(np.log(rng.standard_gamma(1.5, n_users))))
    audience, catalogue = market.tastes_at(_TARGETING)
    items = Shelves(catalogue).draw(audience, each, rng)
    users = np.repeat(np.arange(n_users), each)
    order = rng.permutation(n)
    users, items = users[order], items[order]
    columns = catalogue.values[items]
    affinity = market.appeal[items].copy()
    for column in columns.T:
        affinity += market.audience.tastes[users, column]
    positions = rng.integers(1, _POSITIONS + 1, n)
    odds = _BASE + _SLOPE * affinity + _DOWN * (positions - 1)
    click = rng.random(n) < 1 / (1 + np.exp(-odds))
    return Impressions(
        _snapshot_of(users, snapshots, n_users, rng),
        items,
        positions,
        click,
        _draw_conversions(click, affinity, rng),
    )


def _snapshot_of(users: Ints, snapshots: Snapshots, n_users: int, rng: Generator) -> Ints:
    """Return a snapshot of each user, drawn at random if the user has two."""
    second = np.full(n_users, -1)
    second[snapshots.users[n_users:]] = np.arange(n_users, len(snapshots.users))
    later = (second[users] >= 0) & (rng.random(len(users)) < 0.5)
    return np.where(later, second[users], users)


def _draw_conversions(click: Bools, affinity: Floats, rng: Generator) -> Bools:
    """Mark 2 % of the clicks, by affinity, and a few lines without a click."""
    clicked, rest = np.flatnonzero(click), np.flatnonzero(~click)
    n = min(len(clicked), max(1, round(0.02 * len(clicked))))
    bought = np.zeros(len(click), bool)
    bought[clicked[draw_favourites(0.8 * affinity[clicked], 1, n, rng)[0]]] = True
    bought[rest[mark(len(rest), 0.0005, rng)]] = True
    return bought
