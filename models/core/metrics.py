"""Metrics of rankings: one value for each user, from which means and intervals are computed.

Relevance is binary. All metrics are computed from the ranks of the target items. A target that is
given twice counts once. A target -1 (an item that the catalogue does not have) is never found; two
such targets count as two.

Items with equal scores have no order: a metric is its mean over all their orders (McSherry and
Najork 2008, "Computing information retrieval performance measures efficiently in the presence of
tied scores"). So constant scores give the metrics of a random ranking, recall@k = k / N.

T is the set of a user's targets, and h_i is 1 if the item at rank i is in T, else 0. A metric at k
cuts lists at rank k. The function of a metric takes the tie groups of n_users users and returns
float64 [n_users]. The definitions follow Manning, Raghavan and Schütze 2008, sections 8.3-8.4, and
Järvelin and Kekäläinen 2002 for nDCG. Where the literature has several definitions of a metric, the
docstring says which one is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.core.retriever import Bools, Floats, Ints, Ragged, blocks, check_k

#: `TargetRanks.before` of a target that is not in the list: more than any k.
UNRANKED = np.iinfo(np.int64).max // 2


class TargetRanks(NamedTuple):
    """For each target item, how many items have a higher score, and how many the same score.

    Attributes:
        before: number of items with a higher score than the target, int64 [n_targets]; UNRANKED for
            a target that is not in the list.
        tied: number of items with the same score as the target, itself included, int64 [n_targets].
    """

    before: Ints
    tied: Ints

    def take(self, chosen: Ints | Bools) -> TargetRanks:
        """Return the ranks of only the target items with the given numbers."""
        return TargetRanks(self.before[chosen], self.tied[chosen])


def find_ranks(
    items: Ints, targets: Ragged, *, scores: Floats | None = None, beyond: Ints | None = None
) -> TargetRanks:
    """Return the ranks of the users' target items in the users' ranked lists.

    Args:
        items: for each user, the recommended items (row numbers in the item table), best first, int
            [n_users, k]; -1 for no item.
        targets: for each user, the target items (row numbers in the item table); -1 is never found.
        scores: scores of `items`, in descending order, float [n_users, k]; None if no two are
            equal.
        beyond: number of items outside a list that have the score of its last item, int [n_users];
            None if there are none.

    Returns:
        The ranks of the target items, in the order of `targets.values`.

    Raises:
        ValueError: `items` and `targets` differ in length, or a list has an item twice.
    """
    if len(items) != len(targets):
        raise ValueError(f"{len(items)} lists were given for {len(targets)} users with targets.")
    before = np.full(len(targets.values), UNRANKED, np.int64)
    tied = np.ones(len(targets.values), np.int64)
    owners, width = targets.owners(), items.shape[1]
    for rows in blocks(len(items), width):
        mine = np.arange(targets.offsets[rows.start], targets.offsets[rows.stop])
        users = owners[mine] - rows.start
        columns = _columns(np.asarray(items[rows], np.int64), users, targets.values[mine])
        shown = columns >= 0
        mine, users, columns = mine[shown], users[shown], columns[shown]
        if scores is None:
            before[mine] = columns
            continue
        starts, ends = _ties(scores[rows])
        before[mine] = starts[users, columns]
        tied[mine] = (ends - starts)[users, columns]
        if beyond is not None:
            tied[mine] += np.where(ends[users, columns] == width, beyond[rows][users], 0)
    return TargetRanks(before, tied)


def _columns(items: Ints, users: Ints, targets: Ints) -> Ints:
    """Return the position of each target item in the ranked list of its user; -1 if it is absent.

    Args:
        items: the ranked lists, as row numbers in the item table, int64 [n_users, k].
        users: index, in `items`, of the list of each target's user, int64 [n].
        targets: the target items, as row numbers in the item table, int [n].
    """
    order = np.argsort(items, axis=1)
    in_order = np.take_along_axis(items, order, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if twice.any():
        user, place = np.argwhere(twice)[0]
        raise ValueError(
            f"{int(twice.any(axis=1).sum())} lists have an item twice (list {user}: item "
            f"{in_order[user, place]}); a ranking has an item once."
        )
    # a number for each pair (user, item), in order; a target -1 matches empty places: see the end
    width = max(items.max(initial=-1), targets.max(initial=-1)) + 2
    keys = (in_order + 1 + np.arange(len(items))[:, None] * width).ravel()
    pairs = users * width + targets + 1
    at = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
    return np.where((keys[at] == pairs) & (targets >= 0), order.ravel()[at], -1)


def _ties(scores: Floats) -> tuple[Ints, Ints]:
    """Return where the run of equal scores around each list position begins and ends, int64."""
    width = scores.shape[1]
    new = np.ones((len(scores), width + 1), bool)
    new[:, 1:-1] = scores[:, 1:] != scores[:, :-1]
    places = np.arange(width)
    starts = np.maximum.accumulate(np.where(new[:, :-1], places, 0), axis=1)
    ends = np.where(new[:, 1:], places + 1, width)
    return starts, np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


class TieGroups(NamedTuple):
    """Tie groups: all items of a user with the same score, if a target item is among them.

    A target whose score no other item has is a tie group of size 1. A user's groups are in order of
    descending score.

    Attributes:
        users: index of the user of each tie group, int64 [n_groups].
        before: number of items with a higher score than those of the tie group, int64 [n_groups].
        size: number of items in each tie group, int64 [n_groups].
        hits: number of target items in each tie group, at least 1, int64 [n_groups].
        earlier: number of the user's targets with a higher score than the tie group, int64
            [n_groups].
        n_targets: number of target items of each user, |T|, at least 1, int64 [n_users].
    """

    users: Ints
    before: Ints
    size: Ints
    hits: Ints
    earlier: Ints
    n_targets: Ints

    @classmethod
    def of(cls, found: TargetRanks, targets: Ragged) -> TieGroups:
        """Group the distinct targets of each user by their scores.

        Raises:
            ValueError: a user has no target item.
        """
        is_first = distinct(targets)
        users, found = targets.owners()[is_first], found.take(is_first)
        n_targets = np.bincount(users, minlength=len(targets))
        ranked = np.flatnonzero(found.before < UNRANKED)
        order = ranked[np.lexsort((found.before[ranked], users[ranked]))]
        users, before = users[order], found.before[order]
        new = np.ones(len(users), bool)
        new[1:] = (users[1:] != users[:-1]) | (before[1:] != before[:-1])
        first = np.flatnonzero(new)
        # targets are in order: the distance to the user's first one is the number before a run
        start_of_user = np.searchsorted(users, users[first])
        return cls(
            users=users[first],
            before=before[first],
            size=found.tied[order][first],
            hits=np.diff(np.append(first, len(users))),
            earlier=first - start_of_user,
            n_targets=n_targets,
        )

    def inside(self, k: int) -> Ints:
        """Return how many items of each tie group are among the first k, int64 [n_groups]."""
        return np.clip(k - self.before, 0, self.size)

    def sum_over_ranks(self, weights: Floats) -> Floats:
        """Return, for each tie group, the sum of the weights of its ranks up to k.

        Args:
            weights: the weight of each rank from 1 to k, float64 [k].

        Returns:
            The sum of weights of each tie group, float64 [n_groups].
        """
        k = len(weights)
        sums = np.concatenate([[0.0], np.cumsum(weights)])
        start, inside = np.minimum(self.before, k), self.inside(k)
        single = weights[np.minimum(start, k - 1)]  # exact, unlike a difference of two sums
        return np.where(self.size == 1, single * inside, sums[start + inside] - sums[start])

    def by_user(self, values: Floats) -> Floats:
        """Sum the values of tie groups over the groups of each user, float64 [n_users]."""
        return np.asarray(np.bincount(self.users, values, len(self.n_targets)), np.float64)


def distinct(targets: Ragged) -> Bools:
    """Return a mask of the first occurrence of each target item of a user; every -1 is distinct.

    Args:
        targets: for each user, the target items, as row numbers in the item table.

    Returns:
        For each of `targets.values`, whether it is the first occurrence, bool.

    Raises:
        ValueError: a user has no target item, so that metrics are not defined.
    """
    without = np.flatnonzero(targets.lengths == 0)
    if len(without):
        raise ValueError(
            f"{len(without)} of {len(targets)} users have no targets (the first is list "
            f"{without[0]}); a metric is not defined for them. Leave them out first."
        )
    users = targets.owners()
    order = np.lexsort((targets.values, users))  # stable
    in_order, owners = targets.values[order], users[order]
    is_first = np.ones(len(order), bool)
    repeats = (owners[1:] == owners[:-1]) & (in_order[1:] == in_order[:-1]) & (in_order[1:] >= 0)
    is_first[order[1:][repeats]] = False
    return is_first


def recall(ties: TieGroups, *, k: int) -> Floats:
    """Return recall@k = (h_1 + ... + h_k) / |T|.

    The denominator is not min(|T|, k): with more targets than k, a perfect list stays below 1.

    Args:
        ties: the tie groups of n_users users.
        k: the rank at which the ranked lists are cut.

    Returns:
        The recall of each user, float64 [n_users].
    """
    return ties.by_user(ties.hits * ties.inside(k) / ties.size) / ties.n_targets


def precision(ties: TieGroups, *, k: int) -> Floats:
    """Return precision@k = (h_1 + ... + h_k) / k; ranks without an item are misses."""
    return ties.by_user(ties.hits * ties.inside(k) / ties.size) / k


def ndcg(ties: TieGroups, *, k: int) -> Floats:
    """Return nDCG@k, the sum of h_i / log2(i + 1) over i <= k, divided by its best possible value.

    The best possible list has hits at its first min(|T|, k) ranks.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(ties.n_targets, k) - 1]
    return ties.by_user(ties.hits / ties.size * ties.sum_over_ranks(discounts)) / ideal


def average_precision(ties: TieGroups, *, k: int) -> Floats:
    """Return AP@k, the sum of h_i * precision@i over i <= k, divided by min(|T|, k).

    A list with hits at its first min(|T|, k) ranks has AP@k = 1. The mean over users is MAP@k.
    """
    # before a hit at rank i of a run are the user's `earlier` hits and, on average over the orders,
    # `share` of the i - before - 1 other places of the run
    ranks = np.arange(1, k + 1)
    share = (ties.hits - 1) / np.maximum(ties.size - 1, 1)
    inverse = ties.sum_over_ranks(1 / ranks)
    others = ties.inside(k) - (ties.before + 1) * inverse
    precisions = (1 + ties.earlier) * inverse + share * others
    return ties.by_user(ties.hits / ties.size * precisions) / np.minimum(ties.n_targets, k)


def hit_rate(ties: TieGroups, *, k: int) -> Floats:
    """Return hit_rate@k: 1 if the first k items contain a target, else 0."""
    return _first_hit(ties, np.ones(k))


def mrr(ties: TieGroups, *, k: int) -> Floats:
    """Return the reciprocal rank 1 / (rank of the first hit), 0 without a hit up to rank k."""
    return _first_hit(ties, 1 / np.arange(1, k + 1))


def _first_hit(ties: TieGroups, weights: Floats) -> Floats:
    """Return the weight of the rank of each user's first hit, float64 [n_users].

    Args:
        ties: the tie groups of n_users users.
        weights: weights of the ranks 1 to k, float64 [k].
    """
    k, values = len(weights), np.zeros(len(ties.n_targets))
    first = np.flatnonzero((ties.earlier == 0) & (ties.before < k))
    for rows in blocks(len(first), k):
        runs = first[rows]
        width = min(k, int(ties.size[runs].max()))
        hits, left = ties.hits[runs, None], ties.size[runs, None] - np.arange(width)
        # the chance that a place is a hit if no earlier place of the run is
        chances = np.minimum(hits / np.maximum(left, hits), 1.0)
        still = np.cumprod(1 - chances, axis=1)
        chances[:, 1:] *= still[:, :-1]
        ranks = ties.before[runs, None] + np.arange(width)
        weighed = np.where(ranks < k, weights[np.minimum(ranks, k - 1)], 0.0)
        values[ties.users[runs]] = np.minimum((chances * weighed).sum(axis=1), 1.0)
    return values


#: Name → the function that computes the ranking metric, in the order of results.
METRICS = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": average_precision,
    "hit_rate": hit_rate,
    "precision": precision,
}


def per_user(found: TargetRanks, targets: Ragged, ks: Sequence[int]) -> dict[str, Floats]:
    """Return every ranking metric (recall, nDCG, ...) of every user at every list length k.

    Args:
        found: ranks of the target items, in lists that are at least as long as the largest k.
        targets: for each user, the target items (row numbers in the item table), at least one;
            repeated targets count once.
        ks: the list lengths k, each at least 1, at which the metrics are computed.

    Returns:
        float64 [n_users] by name, in this order: "recall@10", "ndcg@10", "mrr@10", "map@10",
        "hit_rate@10", "precision@10", and so on for the next k.

    Raises:
        ValueError: a user has no targets, or a k is below 1.
    """
    ties = TieGroups.of(found, targets)
    values = {}
    for k in ks:
        check_k(k)
        for name, metric in METRICS.items():
            values[f"{name}@{k}"] = metric(ties, k=k)
    return values


def hits_by_user(found: TargetRanks, targets: Ragged, *, k: int) -> Floats:
    """Return the number of each user's targets among the first k; repeated targets count each time.

    The sum of hits over users, divided by the number of targets, is the recall over rows (also
    called micro recall, or top-k accuracy).

    Args:
        found: the ranks of the target items.
        targets: for each user, the target items (row numbers in the item table); a list may be
            empty.
        k: the rank at which the ranked lists are cut, at least 1.

    Returns:
        The number of hits of each user, float64 [n_users].
    """
    check_k(k)
    chances = np.clip(k - found.before, 0, found.tied) / found.tied
    return np.asarray(np.bincount(targets.owners(), chances, len(targets)), np.float64)


def coverage(items: Ints, *, k: int, n_items: int) -> float:
    """Return the share of the catalogue that is among the first k items of any list.

    Args:
        items: for each user, the recommended items (row numbers in the item table), int [n_users,
            k_max]; -1 for no item.
        k: the rank at which the ranked lists are cut, from 1 to k_max.
        n_items: size of the catalogue.
    """
    head = _cut(items, k)
    return len(np.unique(head[head >= 0])) / n_items


def popularity_bias(items: Ints, counts: Ints, *, k: int) -> float | None:
    """Return the mean popularity percentile of the first k items of all lists; None without items.

    The percentile of an item is the share of the catalogue that is less popular; items of equal
    popularity count half. So lists of uniformly random items have the popularity bias 0.5 in any
    catalogue. A value near 1 means that lists contain only the most popular items.

    Args:
        items: for each user, the recommended items (row numbers in the item table), int [n_users,
            k_max]; -1, for no item, is left out.
        counts: number of training interactions of each item, int [n_items].
        k: the rank at which the ranked lists are cut, from 1 to k_max.
    """
    head = _cut(items, k)
    shown = head[head >= 0]
    if not len(shown):
        return None
    in_order = np.sort(counts)
    below = np.searchsorted(in_order, counts, "left")
    up_to = np.searchsorted(in_order, counts, "right")
    percentiles = (below + up_to) / (2 * len(counts))
    return float(percentiles[shown].mean())


def _cut(lists: npt.NDArray, k: int) -> npt.NDArray:
    """Cut ranked lists to their first k items; refuse a k that is larger than the lists' length."""
    if not 1 <= k <= lists.shape[1]:
        raise ValueError(
            f"k must lie between 1 and the lists' {lists.shape[1]}. Received: k = {k}."
        )
    return lists[:, :k]
