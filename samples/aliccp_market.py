"""Simulates users with tastes for categories, shops and brands, and impressions, as in Ali-CCP.

The shop shows users items that they probably like (a targeted logging policy), and the users click
on some of these items.
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
    draw_mask,
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
    """The numbers of users, items, attribute values and impressions of a sample.

    Attributes:
        users, items, categories, shops, brands: the number of each of these in the sample.
        train, test: the number of impressions in the train and the test part.
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
    """The simulated users with their tastes, and the items with their attributes.

    Attributes:
        counts: the numbers of users, items and attribute values.
        kinds: the category, shop, brand and intention of each item, int [n_items, 4].
        appeal: the part of an item's affinity that is the same for all users, float64 [n_items].
        log_exposure: the log of how often an item is shown to users without preference, float64
            [n_items].
        audience: the tastes of users; columns of the matrix are categories, then shops, then
            brands.
        liked: the users' favourite categories, shops and brands, int [n_users, n] each.
        singles: the value, from 0, of each user's single-valued features, int [n_users, 8]; -1 for
            none.
    """

    counts: Counts
    kinds: Ints
    appeal: Floats
    log_exposure: Floats
    audience: Audience
    liked: tuple[Ints, Ints, Ints]
    singles: Ints

    def n_values(self, kind: int) -> int:
        """Return the number of values of a kind: category, shop, brand or intention."""
        of = self.counts
        return (of.categories, of.shops, of.brands, 3 * of.categories)[kind]

    def tastes_at(self, slope: float) -> tuple[Audience, Catalogue]:
        """Return tastes whose affinities are `slope` x those of the users, plus log exposure."""
        first = np.cumsum([0, self.counts.categories, self.counts.shops])
        audience = Audience((slope * self.audience.tastes).astype(np.float32), self.audience.styles)
        popularity = self.log_exposure + slope * self.appeal
        return audience, Catalogue.without_looks(self.kinds[:, :INTENTION] + first, popularity)

    def click_tastes(self) -> tuple[Audience, Catalogue]:
        """Return the tastes and items whose softmax is nearly the distribution of clicked items.

        An item is shown and then clicked, so the log probabilities of both steps are added. The log
        of the click probability p is nearly linear in the affinity, with the slope 1 - p; p is
        about 0.3 for the items that matter, which are the best ones of a user.
        """
        return self.tastes_at(_TARGETING + _SLOPE * (1 - 0.3))


def open_market(counts: Counts, rng: Generator) -> Market:
    """Draw the items with their attributes and the users with their tastes."""
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
    """Draw, for each category in an array, one of the shops (or of the brands) of the category."""
    many = (n - 1 - categories) // n_categories + 1
    return categories + n_categories * (rng.random(categories.shape) * many).astype(np.int64)


def _singles(group: Ints, rng: Generator) -> Ints:
    columns: list[Ints] = []
    for n_values, without in _SINGLES:
        values = rng.integers(0, n_values, len(group))
        if without:
            values[draw_mask(len(group), without, rng)] = -1
        columns.append(values)
    columns[0] = group * 8 + rng.integers(0, 8, len(group))
    columns[1] = group
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class UserLists:
    """The users' lists of one kind of values (such as shops), with weights, one list per snapshot.

    A snapshot is the state of a user at some time. The values are sorted by snapshot and then by
    value.

    Attributes:
        owners: the index of the snapshot of each value, int [n].
        values: the values of the lists, one list after the other, int [n].
        weights: log(1 + number of times that the user saw the value), float64 [n].
        n_values: number of possible values.
    """

    owners: Ints
    values: Ints
    weights: Floats
    n_values: int

    def weight(self, owners: Ints, values: Ints) -> Floats:
        """Return the weights of some values in lists; NaN if a list lacks the value.

        The arguments are equally long: the index of the snapshot, and the value to look up.
        """
        keys = self.owners * self.n_values + self.values
        wanted = owners * self.n_values + values
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, self.weights[at], np.nan)

    def offsets(self, n: int) -> pa.Array:
        """Return the offsets of the lists of n snapshots in `values`, int32 [n + 1]."""
        return pa.array(np.searchsorted(self.owners, np.arange(n + 1)).astype(np.int32))


@dataclass(frozen=True)
class Snapshots:
    """Snapshots of users: their features and lists at the time of some of their impressions.

    Attributes:
        names: the key of each snapshot in the raw files, 16 hexadecimal digits.
        users: the index of the user of each snapshot, int [n]; each user has one or two snapshots.
        nameless: whether a snapshot lacks the id of its user, bool [n].
        lists: the lists of categories, of shops, of brands and of intentions.
    """

    names: pa.Array
    users: Ints
    nameless: Bools
    lists: tuple[UserLists, ...]


def take_snapshots(market: Market, rng: Generator) -> Snapshots:
    """Draw one snapshot of every user, and a second one of every fifth user."""
    n_users = market.counts.users
    users = np.append(np.arange(n_users), np.flatnonzero(draw_mask(n_users, 0.2, rng)))
    names = hexadecimal(len(users), 16, rng).take(pa.array(rng.permutation(len(users))))
    lists = [_draw_lists(market, kind, users, rng) for kind in (CATEGORY, SHOP, BRAND)]
    met = lists[CATEGORY]
    intentions = 3 * met.values + rng.integers(0, 3, len(met.values))
    lists.append(UserLists(met.owners, intentions, met.weights, market.n_values(INTENTION)))
    return Snapshots(names, users, draw_mask(len(users), 0.002, rng), tuple(lists))


def _draw_lists(market: Market, kind: int, users: Ints, rng: Generator) -> UserLists:
    """Draw, for each snapshot, a list of the user's favourites and of one or two random values."""
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
    """The impressions of a part: users, given by their snapshots, to whom an item was shown.

    Attributes:
        snapshots: the index of each impression's snapshot in `Snapshots`, int [n].
        items: the index of the item that was shown, int [n].
        positions: the position at which the item was shown, from 1 to 3, int [n].
        click: whether the item was clicked, bool [n].
        conversion: whether the item was bought, bool [n]. A few items are bought without a click,
            which imitates errors of the real log.
    """

    snapshots: Ints
    items: Ints
    positions: Ints
    click: Bools
    conversion: Bools

    def rows(self, chosen: slice | Bools) -> Impressions:
        """Return the impressions that a slice or a mask chooses."""
        return Impressions(
            self.snapshots[chosen],
            self.items[chosen],
            self.positions[chosen],
            self.click[chosen],
            self.conversion[chosen],
        )


def draw_impressions(market: Market, snapshots: Snapshots, n: int, rng: Generator) -> Impressions:
    """Draw n impressions with their clicks and purchases, in random order."""
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
    """Return the index of a snapshot of each user; of two snapshots, one is drawn at random."""
    second = np.full(n_users, -1)
    second[snapshots.users[n_users:]] = np.arange(n_users, len(snapshots.users))
    later = (second[users] >= 0) & (rng.random(len(users)) < 0.5)
    return np.where(later, second[users], users)


def _draw_conversions(click: Bools, affinity: Floats, rng: Generator) -> Bools:
    """Draw the purchases: 2 % of the clicks, by affinity, and a few impressions without a click."""
    clicked, rest = np.flatnonzero(click), np.flatnonzero(~click)
    n = min(len(clicked), max(1, round(0.02 * len(clicked))))
    bought = np.zeros(len(click), bool)
    bought[clicked[draw_favourites(0.8 * affinity[clicked], 1, n, rng)[0]]] = True
    bought[rest[draw_mask(len(rest), 0.0005, rng)]] = True
    return bought
