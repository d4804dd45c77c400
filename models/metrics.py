"""How good a ranked list is: one value a user, so that users can be compared, pooled and resampled.

Relevance is binary. For a user with targets T and a list r_1, r_2, ... the hit at rank i is
h_i = [r_i in T]. A target given twice counts once; a target `-1` (an item that the catalogue does
not have) stays in |T| and is never hit, each one for itself, since two of them may be two items.
Definitions follow Manning, Raghavan and Schütze 2008, sections 8.3-8.4, and Järvelin and
Kekäläinen 2002 (nDCG). Where a metric is defined in several ways, its docstring says which one
this is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.retriever import Floats, Ints, Ragged

Bools = npt.NDArray[np.bool_]


def distinct(targets: Ragged) -> Ragged:
    """Return the targets with each user's repeats left out; every `-1` stays.

    Args:
        targets: item rows, n_users lists.

    Returns:
        n_users lists, each in rising order.

    Raises:
        ValueError: when a user has no target; such users have no metric, leave them out before.
    """
    without = np.flatnonzero(targets.lengths == 0)
    if len(without):
        raise ValueError(
            f"{len(without)} of {len(targets)} users have no targets (the first is list "
            f"{without[0]}); a metric is not defined for them. Leave them out first."
        )
    users = targets.owners()
    order = np.lexsort((targets.values, users))
    users, items = users[order], targets.values[order]
    new = np.ones(len(items), bool)
    new[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1]) | (items[1:] < 0)
    return Ragged.from_pairs(users[new], items[new], n_lists=len(targets))


def hits(items: Ints, targets: Ragged) -> Bools:
    """Mark the places of each list that hold a target.

    Args:
        items: item rows, best first, int [n_users, k]; -1 is a gap and never a hit.
        targets: item rows, n_users lists; -1 is never hit.

    Returns:
        bool [n_users, k].

    Raises:
        ValueError: when the numbers of lists differ, or a list names an item twice (it would be
            rewarded twice).
    """
    if len(items) != len(targets):
        raise ValueError(f"{len(items)} lists were given for {len(targets)} users with targets.")
    _refuse_repeats(items)
    known = targets.values >= 0
    # one number a pair (user, item); the pair (user, -1) falls on a number that no target has
    width = max(items.max(initial=-1), targets.values.max(initial=-1)) + 2
    wanted = np.sort(targets.owners()[known] * width + targets.values[known] + 1)
    wanted = np.append(wanted, -1)
    keys = np.arange(len(items))[:, None] * width + items + 1
    return wanted[np.searchsorted(wanted[:-1], keys)] == keys


def _refuse_repeats(items: Ints) -> None:
    """Raise a ValueError when a list holds an item twice."""
    in_order = np.sort(items, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if twice.any():
        user, place = np.argwhere(twice)[0]
        raise ValueError(
            f"{int(twice.any(axis=1).sum())} lists name an item twice (list {user}: item "
            f"{in_order[user, place]}); a ranking names it once."
        )


def recall(hit: Bools, n_targets: Ints, *, k: int) -> Floats:
    """Return recall@k = (h_1 + ... + h_k) / |T|.

    The denominator is not cut at k: with more targets than k, a perfect list stays below 1.

    Args:
        hit: bool [n_users, k_max], from `hits`.
        n_targets: |T|, int [n_users], each at least 1.
        k: list length, from 1 to k_max.

    Returns:
        float64 [n_users].
    """
    return _cut(hit, k).sum(axis=1) / n_targets


def ndcg(hit: Bools, n_targets: Ints, *, k: int) -> Floats:
    """Return nDCG@k, the sum of h_i / log2(i + 1) over i <= k, over its best possible value.

    The best possible list has min(|T|, k) hits at its head. Arguments and result as in `recall`.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(n_targets, k) - 1]
    return _cut(hit, k) @ discounts / ideal


def mrr(hit: Bools, *, k: int) -> Floats:
    """Return 1 / (rank of the first hit), 0 without a hit among the first k.

    Args:
        hit: bool [n_users, k_max], from `hits`.
        k: list length, from 1 to k_max.

    Returns:
        float64 [n_users].
    """
    head = _cut(hit, k)
    return np.where(head.any(axis=1), 1 / (head.argmax(axis=1) + 1), 0.0)


def average_precision(hit: Bools, n_targets: Ints, *, k: int) -> Floats:
    """Return AP@k, the sum of h_i * precision@i over i <= k, over min(|T|, k).

    A list with hits at its first min(|T|, k) places earns 1. The mean over users is MAP@k.
    Arguments and result as in `recall`.
    """
    head = _cut(hit, k)
    precision_at = np.cumsum(head, axis=1) / np.arange(1, k + 1)
    return (head * precision_at).sum(axis=1) / np.minimum(n_targets, k)


def hit_rate(hit: Bools, *, k: int) -> Floats:
    """Return 1 where the first k hold a hit, else 0. Arguments and result as in `mrr`."""
    return _cut(hit, k).any(axis=1).astype(np.float64)


def precision(hit: Bools, *, k: int) -> Floats:
    """Return (h_1 + ... + h_k) / k; gaps count as misses. Arguments and result as in `mrr`."""
    return _cut(hit, k).mean(axis=1, dtype=np.float64)


def per_user(items: Ints, targets: Ragged, ks: Sequence[int]) -> dict[str, Floats]:
    """Compute every metric of a user at every k, the hits found once.

    Args:
        items: item rows, best first, int [n_users, k_max]; -1 is a gap.
        targets: item rows, n_users lists, none of them empty; repeats count once.
        ks: list lengths, each from 1 to k_max.

    Returns:
        float64 [n_users] by name, in this order: "recall@10", "ndcg@10", "mrr@10", "map@10",
        "hit_rate@10", "precision@10", and so on for the next k.

    Raises:
        ValueError: for users without targets, other faults of `hits`, and a k out of range.
    """
    targets = distinct(targets)
    n_targets = targets.lengths
    hit = hits(items, targets)
    values = {}
    for k in ks:
        values[f"recall@{k}"] = recall(hit, n_targets, k=k)
        values[f"ndcg@{k}"] = ndcg(hit, n_targets, k=k)
        values[f"mrr@{k}"] = mrr(hit, k=k)
        values[f"map@{k}"] = average_precision(hit, n_targets, k=k)
        values[f"hit_rate@{k}"] = hit_rate(hit, k=k)
        values[f"precision@{k}"] = precision(hit, k=k)
    return values


def coverage(items: Ints, *, k: int, n_items: int) -> float:
    """Return the share of the catalogue that stands in the first k of anybody's list.

    Args:
        items: item rows, int [n_users, k_max]; -1 is a gap.
        k: list length, from 1 to k_max.
        n_items: size of the catalogue.
    """
    head = _cut(items, k)
    return len(np.unique(head[head >= 0])) / n_items


def popularity_bias(items: Ints, counts: Ints, *, k: int) -> float:
    """Return the mean popularity percentile of all items in the first k of all lists.

    The percentile of an item is the share of the catalogue that is less popular, items of equal
    popularity counted half. So a uniformly random list earns 0.5, whatever the distribution; near
    1 means that only the head of the catalogue is ever shown.

    Args:
        items: item rows, int [n_users, k_max]; -1 is a gap and left out.
        counts: training interactions of each item, int [n_items].
        k: list length, from 1 to k_max.

    Raises:
        ValueError: when no list holds an item.
    """
    head = _cut(items, k)
    shown = head[head >= 0]
    if not len(shown):
        raise ValueError(f"None of {len(items)} lists holds an item; no popularity to average.")
    in_order = np.sort(counts)
    below = np.searchsorted(in_order, counts, "left")
    up_to = np.searchsorted(in_order, counts, "right")
    percentiles = (below + up_to) / (2 * len(counts))
    return float(percentiles[shown].mean())


def _cut(lists: npt.NDArray, k: int) -> npt.NDArray:
    """Return the first k columns; a k beyond the lists would be a metric of another list."""
    if not 1 <= k <= lists.shape[1]:
        raise ValueError(
            f"k must lie between 1 and the lists' {lists.shape[1]}. Received: k = {k}."
        )
    return lists[:, :k]
