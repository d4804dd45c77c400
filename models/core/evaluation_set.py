"""The evaluation set: held-out queries, their target items, and which items may be recommended.

The validation after each training epoch and the command `evaluate` use the same class, so the
metrics printed during training are computed like those of the evaluation report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.core import metrics
from models.core.columns import Columns, take_rows
from models.core.config import ListRules
from models.core.metrics import TargetRanks
from models.core.retriever import (
    Bools,
    BrokenModel,
    Floats,
    Interactions,
    Ints,
    Queries,
    Ragged,
    Retriever,
    TopK,
    blocks,
    concatenate_lists,
)

#: Metrics whose mean is maximised when models are chosen. At 943 users, recall@10 alone would have
#: a standard error of 0.012.
SELECTION_METRICS = ("recall@10", "recall@20", "recall@50", "ndcg@10")
SELECTION_KS = (10, 20, 50)

#: Largest length of the lists in which the end of a run of equal scores is looked for.
DEEPEST = 10_000


@dataclass(frozen=True)
class Ranking:
    """A retriever's top-k lists for all queries of an evaluation set, and the ranks of the targets.

    Attributes:
        items: for each query, the recommended items as row numbers in the item table, best first,
            int64 [n_queries, k].
        ranks: for each target item, how many items have a higher or an equal score, in the order
            of `targets.values` of the evaluation set.
    """

    items: npt.NDArray[np.int64]
    ranks: TargetRanks


@dataclass(frozen=True)
class EvaluationSet:
    """The queries of the users in a held-out part of the interactions, with their target items.

    Attributes:
        queries: one query for each user, or for each user and context, with the history before the
            held-out part.
        targets: for each query, the items of its held-out interactions, as row numbers in the item
            table; -1 for an item that is not in the table, which always counts as a miss.
        exclude: for each query, the items (row numbers in the item table) that must not be
            recommended; None if the user's seen items may be recommended again.
        candidates: for each item of the catalogue, whether it may be recommended, bool [n_items].
        warm: for each query, whether its user has a history, bool [n_queries].
        also_seen: for each query, further items (row numbers in the item table) that the user saw,
            which are not in the history; None if there are none.
        sampled_from: number of users of the held-out part, of whom the queries are a random sample;
            None if all of them have a query.
    """

    queries: Queries
    targets: Ragged
    exclude: Ragged | None
    candidates: Bools
    warm: Bools
    also_seen: Ragged | None = None
    sampled_from: int | None = None

    @property
    def seen(self) -> Ragged:
        """For each query, the items (row numbers) that the user saw before the held-out part."""
        if self.also_seen is None:
            return self.queries.histories
        return concatenate_lists(self.queries.histories, self.also_seen)

    def n_hidden(self) -> int:
        """Return how many target items may not be recommended, and so are misses of every model."""
        return int((self._hidden() & (self.targets.values >= 0)).sum())

    def _hidden(self) -> Bools:
        """Return, for each target, whether it is among the excluded items of its query."""
        if self.exclude is None:
            return np.zeros(len(self.targets.values), bool)
        n = len(self.candidates)
        return np.isin(
            self.targets.owners() * n + self.targets.values,
            self.exclude.owners() * n + self.exclude.values,
        )

    def chance(self, k: int) -> float:
        """Return the share of the targets that lists of k random allowed items hold on average."""
        can_be_found = self._are_candidates() & ~self._hidden()
        n_allowed = np.maximum(self.n_allowed(), 1)[self.targets.owners()]
        return float((can_be_found * np.minimum(k / n_allowed, 1.0)).mean())

    def of_candidates(self) -> EvaluationSet:
        """Return an evaluation set of those targets that are candidates, and of their queries."""
        kept = self._are_candidates()
        pairs = self.targets.owners()[kept], self.targets.values[kept]
        targets = Ragged.from_pairs(*pairs, n_lists=len(self.queries))
        return replace(self, targets=targets).take(np.flatnonzero(targets.lengths))

    def _are_candidates(self) -> Bools:
        """Return, for each target, whether it is one of the candidates."""
        items = self.targets.values
        return (items >= 0) & self.candidates[items]

    def top_k(self, retriever: Retriever, k: int) -> TopK:
        """Return a retriever's top-k lists for all queries, of items that may be recommended.

        Raises:
            BrokenModel: a score is NaN.
        """
        top = retriever.top_k(self.queries, k, exclude=self.exclude, candidates=self.candidates)
        if np.isnan(top.scores).any():
            raise BrokenModel(f"{int(np.isnan(top.scores).sum())} scores are NaN.")
        return top

    def rank(self, retriever: Retriever, k: int) -> Ranking:
        """Return a retriever's top-k lists for all queries, and the target items' ranks in them.

        If items with equal scores are on both sides of rank k, the metrics need the number of all
        items with this score. Lists of 2k items nearly always contain all items with that score;
        otherwise, lists of up to `DEEPEST` items are used. If even a list of `DEEPEST` items ends
        with equal scores, all remaining items are assumed to have this score, and targets outside
        the list are misses: both assumptions can only lower the metrics.
        """
        top = self.top_k(retriever, 2 * k)
        ranks = metrics.find_ranks(top.items, self.targets, scores=top.scores)
        crossing = (top.scores[:, k - 1] == top.scores[:, -1]) & np.isfinite(top.scores[:, -1])
        self._resolve_ties(retriever, np.flatnonzero(crossing), 2 * k, ranks)
        return Ranking(top.items[:, :k], ranks)

    def _resolve_ties(
        self, retriever: Retriever, open_rows: Ints, k: int, ranks: TargetRanks
    ) -> None:
        """Recompute target ranks of queries with equal scores around rank k, from longer lists."""
        numbers = Ragged(np.arange(len(self.targets.values)), self.targets.offsets)
        depth = min(len(self.candidates), max(k, DEEPEST))
        for some in blocks(len(open_rows), depth):
            rows = open_rows[some]
            few = self.take(rows)
            top = few.top_k(retriever, depth)
            beyond = few.n_allowed() - (top.items >= 0).sum(axis=1)
            found = metrics.find_ranks(top.items, few.targets, scores=top.scores, beyond=beyond)
            mine = numbers.take(rows).values
            ranks.before[mine], ranks.tied[mine] = found

    def n_allowed(self) -> Ints:
        """Return, for each query, how many items of the catalogue may be recommended, int64."""
        total = np.full(len(self.queries), np.count_nonzero(self.candidates))
        if self.exclude is None:
            return total
        owners, items = self.exclude.owners(), self.exclude.values
        out = self.candidates[items] & (items >= 0)
        pairs = np.unique(owners[out] * len(self.candidates) + items[out])
        return total - np.bincount(pairs // len(self.candidates), minlength=len(total))

    def per_user(self, retriever: Retriever, ks: Sequence[int]) -> dict[str, Floats]:
        """Return each ranking metric by its name, with one value per query, float64 [n_queries]."""
        return metrics.per_user(self.rank(retriever, max(ks)).ranks, self.targets, ks)

    def selection_score(self, retriever: Retriever) -> float:
        """Return a retriever's mean of `SELECTION_METRICS`, the criterion for hyper-parameters."""
        per_user = self.per_user(retriever, SELECTION_KS)
        return selection_score({name: float(values.mean()) for name, values in per_user.items()})

    def take(self, rows: Ints) -> EvaluationSet:
        """Return an evaluation set of the queries with the given numbers only."""
        return replace(
            self,
            queries=self.queries.take(rows),
            targets=self.targets.take(rows),
            exclude=None if self.exclude is None else self.exclude.take(rows),
            warm=self.warm[rows],
            also_seen=None if self.also_seen is None else self.also_seen.take(rows),
        )


def selection_score(means: Mapping[str, float]) -> float:
    """Return the mean of `SELECTION_METRICS`, given the means of all metrics by name."""
    return sum(means[name] for name in SELECTION_METRICS) / len(SELECTION_METRICS)


def build_evaluation_set(
    users: Ints,
    items: Ints,
    *,
    history: Interactions,
    item_counts: npt.NDArray[np.integer],
    rules: ListRules,
    contexts: Columns | None = None,
    also_seen: Interactions | None = None,
) -> EvaluationSet:
    """Build the evaluation set of a held-out part: one query for each user, or user and context.

    Args:
        users: the user of each held-out interaction, as a row number in the user table, int [n]. A
            negative number is an unknown user; equal numbers are the same user.
        items: the item of each held-out interaction, as a row number in the item table, int [n]; -1
            for an unknown item.
        history: all interactions before the held-out part; an unknown user has the same negative
            number as in `users`.
        item_counts: number of training interactions of each item, int [n_items].
        rules: which items may be recommended; with `candidates: cold`, only their held-out
            interactions are targets, and users without any have no query.
        contexts: context features of the held-out interactions, n rows each.
        also_seen: further interactions before the held-out part: their items count as seen, but are
            not in the histories.
    """
    contexts = contexts or {}
    first, which = group_by_query(users, contexts)
    query_users = users[first]
    earlier, times = _earlier_rows(history, query_users), history.times
    queries = Queries(
        np.maximum(query_users, -1),
        _values_at(history.items, earlier),
        {name: take_rows(column, first) for name, column in contexts.items()},
        None if times is None else _values_at(times, earlier),
    )
    targets = Ragged.from_pairs(which, items, n_lists=len(query_users))
    built = EvaluationSet(
        queries=queries,
        targets=targets,
        exclude=None,
        candidates=_candidates(rules, item_counts),
        warm=queries.histories.lengths > 0,
        also_seen=_values_at(also_seen.items, _earlier_rows(also_seen, query_users))
        if also_seen
        else None,
    )
    if rules.exclude_seen:
        built = replace(built, exclude=built.seen)
    return built.of_candidates() if rules.candidates == "cold" else built


def _candidates(rules: ListRules, item_counts: npt.NDArray[np.integer]) -> Bools:
    """Return, for each item of the catalogue, whether it may be recommended, bool [n_items]."""
    if rules.candidates == "catalogue":
        return np.ones(len(item_counts), bool)
    return (item_counts > 0) == (rules.candidates == "train")


def group_by_query(users: Ints, contexts: Columns) -> tuple[Ints, Ints]:
    """Group interactions by their user and context features: each group becomes one query.

    Args:
        users: for each interaction, the user's row number in the user table, int [n].
        contexts: context features, n rows each; if a feature has lists, each row is its own query.

    Returns:
        The index of each query's first row, queries ordered by user; and the index of each row's
        query, int64 [n].
    """
    key = users
    for column in contexts.values():
        codes = np.arange(len(users))
        if not isinstance(column, Ragged):
            codes = np.unique(column, return_inverse=True)[1]
        key = np.unique(key, return_inverse=True)[1] * len(users) + codes
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    return first, which


def _values_at(values: Ints, rows: Ragged) -> Ragged:
    """Replace each row number in lists of row numbers by the value of that row."""
    return Ragged(values[rows.values], rows.offsets)


def _earlier_rows(history: Interactions, users: Ints) -> Ragged:
    """Return each user's interactions with known items, oldest first, as row numbers of `history`.

    Args:
        history: the interactions of all users.
        users: row numbers in the user table, in ascending order; a repeated user gets the same
            history again.
    """
    distinct, which = np.unique(users, return_inverse=True)
    place = np.searchsorted(distinct, history.users)
    place = np.minimum(place, len(distinct) - 1)
    mine = np.flatnonzero((distinct[place] == history.users) & (history.items >= 0))
    return Ragged.from_pairs(place[mine], mine, n_lists=len(distinct)).take(which)
