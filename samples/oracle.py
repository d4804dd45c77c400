"""Learning marks of a sample: the recall of popularity, and of an oracle that knows all tastes.

The oracle ranks items by the planted tastes, by which the simulated users chose their items.

The recall of a model that has learnt something lies between that of popularity and that of the
oracle. Popularity and the oracle rank the whole catalogue for the same held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core import metrics
from models.core.exact import search
from models.core.retriever import Floats, Ints, Ragged
from samples.truth import Truth


@dataclass(frozen=True)
class HeldOut:
    """Positive interactions, split into training rows and held-out rows.

    Attributes:
        train: the training rows as columns of text: user, item and, if tastes depend on the month,
            month.
        test: the held-out rows, with the same columns.
    """

    train: pa.Table
    test: pa.Table


@dataclass(frozen=True)
class Marks:
    """Learning marks: the share of held-out rows whose item is among the k best of a ranking.

    Attributes:
        k: the length of the recommendation lists.
        rows: number of held-out rows of known users.
        popularity: the recall if items are ranked by their number of training rows.
        popularity_in_month: the recall if items are ranked by their number of training rows in the
            month of the held-out row; None if rows have no months.
        oracle_without_month: the recall if items are ranked by the planted tastes of users; None if
            rows have no months.
        oracle: the recall if items are ranked by the planted tastes of users and months.
    """

    k: int
    rows: int
    popularity: float
    popularity_in_month: float | None
    oracle_without_month: float | None
    oracle: float


@dataclass(frozen=True)
class _Rows:
    """Interactions as indices of users, items and months in the truth, int64 [n] each."""

    users: Ints
    items: Ints
    months: Ints


def marks(truth: Truth, parts: HeldOut, *, k: int, exclude_seen: bool = False) -> Marks:
    """Return the learning marks of a sample: the recall of popularity and of the oracle.

    Args:
        truth: the planted tastes of users, items and months.
        parts: the training rows and the held-out rows.
        k: the length of the recommendation lists.
        exclude_seen: whether a user's list leaves out the items of the user's training rows.
    """
    train, test = _locate(truth, parts.train), _locate(truth, parts.test)
    n_users, n_items = len(truth.users), len(truth.items)
    seen = Ragged.from_pairs(train.users, train.items, n_lists=n_users) if exclude_seen else None
    counts = np.bincount(train.items, minlength=n_items)[:, None].astype(np.float32)
    one = np.ones((n_users, 1), np.float32)
    no_month = np.zeros_like(test.months)
    still = np.zeros((1, truth.item_tastes.shape[1]), np.float32)

    def recall(users: Floats, months: Floats, items: Floats, month: Ints) -> float:
        asked = _Rows(test.users, test.items, month)
        return _recall(asked, users, months, items, k, seen)

    popularity = recall(one, np.zeros((1, 1), np.float32), counts, no_month)
    without = recall(truth.user_tastes, still, truth.item_tastes, no_month)
    if not len(truth.months):
        return Marks(k, len(test.users), popularity, None, None, without)
    by_month = np.zeros((n_items, len(truth.months)), np.float32)
    np.add.at(by_month, (train.items, train.months), 1)
    own = np.eye(len(truth.months), dtype=np.float32)
    in_month = recall(np.zeros((n_users, len(own)), np.float32), own, by_month, test.months)
    oracle = recall(truth.user_tastes, truth.month_tastes, truth.item_tastes, test.months)
    return Marks(k, len(test.users), popularity, in_month, without, oracle)


def _locate(truth: Truth, table: pa.Table) -> _Rows:
    """Return ids as their indices in the truth; rows with a user outside the truth are left out."""
    table = table.filter(pc.is_in(table["user"], value_set=truth.users))

    def place(column: str, ids: pa.Array) -> Ints:
        return np.asarray(pc.index_in(table[column], value_set=ids).to_numpy(), np.int64)

    n = table.num_rows
    months = place("month", truth.months) if len(truth.months) else np.zeros(n, np.int64)
    return _Rows(place("user", truth.users), place("item", truth.items), months)


def _recall(
    rows: _Rows, users: Floats, months: Floats, items: Floats, k: int, seen: Ragged | None
) -> float:
    """Return the recall over rows; there is one ranking for each pair of user and month."""
    keys, query = np.unique(rows.users * len(months) + rows.months, return_inverse=True)
    user, month = np.divmod(keys, len(months))
    exclude = None if seen is None else seen.take(user)
    top = search(users[user] + months[month], items, k, exclude=exclude)
    targets = Ragged.from_pairs(query, rows.items, n_lists=len(keys))
    hits = metrics.hits_by_user(metrics.find_ranks(top.items, targets), targets, k=k)
    return float(hits.sum() / len(rows.users))


def mini_batch_auc(truth: Truth, parts: HeldOut, *, size: int = 5) -> tuple[float, float]:
    """Return the AUC of popularity and of the oracle over pairs within mini-batches of rows.

    In each mini-batch, every user is scored with every item. The item of the user's own row is the
    positive, and the other items are negatives, except items that equal the positive. The oracle's
    score is log p(item | user) - log p(item), because the popularity of an item says nothing about
    which of the users took it.

    Args:
        truth: the planted tastes of users, items and months.
        parts: the training rows, which popularity counts, and the held-out rows, which are cut into
            mini-batches in their order.
        size: the number of rows of a mini-batch.
    """
    train, test = _locate(truth, parts.train), _locate(truth, parts.test)
    n = len(test.users) // size * size
    users, items = test.users[:n].reshape(-1, size), test.items[:n].reshape(-1, size)
    counts = np.bincount(train.items, minlength=len(truth.items))
    met, user = np.unique(users, return_inverse=True)
    logits = truth.user_tastes[met] @ truth.item_tastes.T
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    lift = np.log(chances) - np.log(chances[user].mean(axis=0))
    pairs = (user.reshape(-1, size)[:, :, None], items[:, None, :])
    own = np.broadcast_to(np.eye(size, dtype=bool), (len(users), size, size))
    kept = own | (items[:, :, None] != items[:, None, :])
    popular = np.broadcast_to(counts[items][:, None, :], own.shape)
    return _auc(popular[kept], own[kept]), _auc(lift[pairs][kept], own[kept])


def _auc(scores: Floats, positive: Floats) -> float:
    """Return the share of pairs (positive, negative) in which the positive scores higher.

    Pairs with equal scores count half.
    """
    negatives = np.sort(scores[~positive])
    mine = scores[positive]
    below = np.searchsorted(negatives, mine, "left") + np.searchsorted(negatives, mine, "right")
    return float(below.mean() / (2 * len(negatives)))
