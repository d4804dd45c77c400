"""Planted tastes: users choose items by known affinities, so a perfect ranking can be computed.

A user's affinity for an item is the sum of the user's tastes for the item's attribute values, plus
two terms that differ between items with the same values: the item's popularity, and the dot product
of its looks (hidden attributes) and the user's style (tastes for looks). Users choose by a softmax
of their affinities (McFadden 1974, "Conditional logit analysis of qualitative choice behavior").

Items with equal attribute values form a group, here called a shelf. First a shelf is drawn, and
then an item on it. This gives the same distribution as a softmax over the catalogue at a fraction
of the cost: a million users draw from a hundred thousand items in minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from models.core.retriever import Bools, Floats, Ints

#: Numbers, users × shelves or values, that are worked on at a time: 32 MB of float64.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Audience:
    """The users, described by their tastes.

    Attributes:
        tastes: each user's taste for each attribute value, float32 [n_users, n_values].
        styles: the index of each user's style in `Catalogue.styles`, int [n_users].
    """

    tastes: Floats
    styles: Ints


@dataclass(frozen=True)
class Catalogue:
    """The items, described by their attributes.

    Attributes:
        values: the values of each item's attributes, as columns of `Audience.tastes`, int [n_items,
            n_attributes].
        log_popularity: the part of the affinity that is the same for all users and differs between
            items with the same values, float64 [n_items].
        looks: hidden attributes of the items, float64 [n_items, n_looks].
        styles: the styles, each of which is a taste for each of the looks, float64 [n_styles,
            n_looks].
    """

    values: Ints
    log_popularity: Floats
    looks: Floats
    styles: Floats

    @classmethod
    def without_looks(cls, values: Ints, log_popularity: Floats) -> Catalogue:
        """Return a catalogue whose items have no looks, for users who all have style 0."""
        return cls(values, log_popularity, np.zeros((len(values), 0)), np.zeros((1, 0)))


class Shelves:
    """Draws items for users by the softmax of their affinities, first a shelf and then its item.

    A shelf is a group of items with equal attribute values.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._values, of_item = np.unique(catalogue.values, axis=0, return_inverse=True)
        self._items = np.argsort(of_item, kind="stable")
        starts = np.searchsorted(of_item[self._items], np.arange(len(self._values) + 1))
        fit = np.einsum("sl,il->si", catalogue.styles, catalogue.looks)
        weights = np.exp(catalogue.log_popularity + fit)
        weights = weights[:, self._items]  # [n_styles, n_items], in the order of shelves
        sums = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
        self._mass = np.diff(sums[:, starts], axis=1)  # [n_styles, n_shelves]
        # rising numbers: the integer part is the style and shelf, the fraction the place on the
        # shelf
        shelf = np.repeat(np.arange(len(self._values)), np.diff(starts))
        share = (sums[:, 1:] - sums[:, starts[shelf]]) / self._mass[:, shelf]
        numbers = np.arange(self._mass.size).reshape(self._mass.shape)
        self._steps = (numbers[:, shelf] + share).ravel()
        self._last = (np.arange(len(weights))[:, None] * len(of_item) + starts[1:] - 1).ravel()

    def draw(self, audience: Audience, counts: Ints, rng: Generator) -> Ints:
        """Draw items with replacement.

        Args:
            audience: the users, with their tastes and styles.
            counts: number of items that each user draws, int [n_users].
            rng: the generator of random numbers.

        Returns:
            The indices of the items of the first user, then of the second, and so on, int32 [sum of
            counts].
        """
        ends = np.concatenate([[0], np.cumsum(counts)])
        items = np.empty(ends[-1], np.int32)
        for users in _blocks(len(counts), len(self._values)):
            owners = np.repeat(np.arange(users.stop - users.start), counts[users])
            shelves = self._draw_shelves(audience, users, owners, rng)
            numbers = audience.styles[users][owners] * len(self._values) + shelves
            steps = np.searchsorted(self._steps, numbers + rng.random(len(owners)), side="right")
            # rounding may lift the sum to the next shelf's number
            steps = np.minimum(steps, self._last[numbers])
            items[ends[users.start] : ends[users.stop]] = self._items[steps % len(self._items)]
        return items

    def _draw_shelves(self, audience: Audience, users: slice, owners: Ints, rng: Generator) -> Ints:
        tastes = audience.tastes[users].astype(np.float64)
        # sums in a fixed order: a matrix product may differ in its last bit on another machine
        affinity = np.zeros((len(tastes), len(self._values)))
        for column in self._values.T:
            affinity += tastes[:, column]
        affinity -= affinity.max(axis=1, keepdims=True)
        steps = np.cumsum(np.exp(affinity) * self._mass[audience.styles[users]], axis=1)
        steps /= steps[:, -1:]
        steps += np.arange(len(tastes))[:, None]
        found = np.searchsorted(steps.ravel(), owners + rng.random(len(owners)), side="right")
        return np.minimum(found - owners * len(self._values), len(self._values) - 1)


def _blocks(n_users: int, width: int) -> Iterator[slice]:
    """Yield slices of users so small that `width` numbers per user fit into a block of memory."""
    step = max(1, _BLOCK // width)
    for start in range(0, n_users, step):
        yield slice(start, min(start + step, n_users))


def draw_distinct(shelves: Shelves, audience: Audience, counts: Ints, rng: Generator) -> Ints:
    """Draw items for users without replacement: no user gets an item twice.

    More than four times as many items as wanted are drawn with replacement, and repeated ones are
    dropped. A user whose draws have too few different items gets fewer items than wanted.

    Returns:
        Pairs (index of the user, index of the item), users in ascending order, int64 [n, 2].
    """
    many = 4 * counts + 20
    users = np.repeat(np.arange(len(counts)), many)
    items = shelves.draw(audience, many, rng)
    first = _first_of(users * (int(items.max()) + 1) + items)
    users, items = users[first], items[first]
    rank = np.arange(len(users)) - np.searchsorted(users, users)
    wanted = rank < counts[users]
    return np.stack([users[wanted], items[wanted]], axis=1)


def _first_of(keys: Ints) -> Ints:
    """Return the index of the first occurrence of each distinct key, in ascending order."""
    return np.sort(np.unique(keys, return_index=True)[1])


def zipf(n: int, exponent: float, rng: Generator) -> Floats:
    """Return the logs of n Zipf weights, rank ** -exponent, in random order, float64 [n]."""
    return -exponent * np.log(rng.permutation(n) + 1.0)


def to_shares(log_weights: Floats) -> Floats:
    """Return the softmax of log weights: shares that sum to 1 along the last axis."""
    weights = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def draw_favourites(log_weights: Floats, n_users: int, n: int, rng: Generator) -> Ints:
    """Draw `n` different values for each user, with the given weights, int64 [n_users, n].

    Args:
        log_weights: the log of the weight of each value, float64 [n_values], or [n_users,
            n_values].
        n_users: number of users.
        n: number of values for each user; at most n_values.
        rng: the generator of random numbers.
    """
    n_values = log_weights.shape[-1]
    n = min(n, n_values)
    each = np.broadcast_to(log_weights, (n_users, n_values))
    best = np.empty((n_users, n), np.int64)
    for users in _blocks(n_users, n_values):
        keys = each[users] + rng.gumbel(size=each[users].shape)
        best[users] = np.argpartition(-keys, n - 1, axis=1)[:, :n]
    return best


def choose(steps: Floats, rows: Ints, rng: Generator) -> Ints:
    """Draw a column of a table of probabilities for each of the given rows.

    Args:
        steps: cumulative probabilities along each row, float64 [n_rows, n_columns]; the last column
            is 1.
        rows: the row of the table of each draw, int [n].
        rng: the generator of random numbers.

    Returns:
        The drawn columns, int64 [n].
    """
    width = steps.shape[1]
    rising = (steps + np.arange(len(steps))[:, None]).ravel()
    found = np.searchsorted(rising, rows + rng.random(len(rows)), side="right")
    return np.minimum(found - rows * width, width - 1)


def draw_mask(n: int, share: float, rng: Generator) -> Bools:
    """Return a random mask with the given share of n rows, but at least one row, bool [n].

    So even a tiny sample has at least one row of every rare kind.
    """
    chosen = np.zeros(n, bool)
    chosen[rng.permutation(n)[: max(1, round(n * share))]] = True
    return chosen


def draw_kinds(
    n: int, by_share: tuple[tuple[str | None, float], ...], rng: Generator
) -> list[str | None]:
    """Return n values in random order, whose frequencies are the given shares.

    A rare value occurs at least once; the first value fills the remaining rows.
    """
    rare = [max(1, round(n * share)) for _, share in by_share[1:]]
    of_row = np.repeat(np.arange(len(by_share)), [n - sum(rare), *rare])
    return [by_share[kind][0] for kind in rng.permutation(of_row)]
