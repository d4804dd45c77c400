"""The evaluation set: queries with their targets, and the rules of the lists. All figures use it.

Training validates and evaluate compares with the same class, so that a figure that is printed while
fitting is the figure of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.core import metrics
from models.core.columns import Columns, take_rows
from models.core.fields import Part
from models.core.metrics import Places
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

#: What models are chosen by: at 943 users recall@10 alone has a standard error of 0.012.
STEADY = ("recall@10", "recall@20", "recall@50", "ndcg@10")
STEADY_KS = (10, 20, 50)

#: How far a run of equal scores is followed.
DEEPEST = 10_000


class ListRules(Part, frozen=True):
    """The rules by which items may stand in a list.

    Attributes:
        candidates: `catalogue` (every row of the item table) or `train` (items seen in training).
        exclude_seen: leave out what the user had before the cut.
    """

    candidates: Literal["catalogue", "train"] = "catalogue"
    exclude_seen: bool = True


@dataclass(frozen=True)
class Ranking:
    """The lists of a retriever for an evaluation set.

    Attributes:
        items: the lists as they would be shown, item rows, int64 [n_queries, k].
        places: where the targets stand, in the order of the evaluation set's `targets.values`.
    """

    items: npt.NDArray[np.int64]
    places: Places


@dataclass(frozen=True)
class EvaluationSet:
    """Queries of the users of a held-out part, with their targets.

    Attributes:
        queries: one a user, or one a user and context; histories are what they did before the part.
        targets: item rows of the part, one list a query; -1 is an item of no table: always a miss.
        exclude: item rows that may not be returned; None where seen items may.
        candidates: item rows that may be returned, bool [n_items].
        warm: which queries' users have a history, bool [n_queries].
        also_seen: item rows that users saw, but that stand in no history; None for none.
    """

    queries: Queries
    targets: Ragged
    exclude: Ragged | None
    candidates: Bools
    warm: Bools
    also_seen: Ragged | None = None

    @property
    def seen(self) -> Ragged:
        """Item rows that each query's user saw before the part."""
        if self.also_seen is None:
            return self.queries.histories
        return concatenate_lists(self.queries.histories, self.also_seen)

    def n_hidden(self) -> int:
        """Return how many targets may not be returned, so that they are misses for every model."""
        if self.exclude is None:
            return 0
        n = len(self.candidates)
        hidden = np.isin(
            self.targets.owners() * n + self.targets.values,
            self.exclude.owners() * n + self.exclude.values,
        )
        return int((hidden & (self.targets.values >= 0)).sum())

    def ask(self, retriever: Retriever, k: int) -> TopK:
        """Return a retriever's lists of length k under this evaluation set's rules.

        Raises:
            BrokenModel: for NaN scores.
        """
        top = retriever.top_k(self.queries, k, exclude=self.exclude, candidates=self.candidates)
        if np.isnan(top.scores).any():
            raise BrokenModel(f"{int(np.isnan(top.scores).sum())} scores are NaN.")
        return top

    def rank(self, retriever: Retriever, k: int) -> Ranking:
        """Find the targets in a retriever's lists of length k, equal scores counted as in no order.

        Where a run of equal scores crosses rank k, its size decides what a target in it is worth.
        Lists of 2k hold nearly all such runs; for the others, lists of up to `DEEPEST` are asked
        for. A run that even these do not end is taken to hold all the items that are left, and
        targets that it does not show are misses: both count against the model.
        """
        top = self.ask(retriever, 2 * k)
        places = metrics.places(top.items, self.targets, scores=top.scores)
        crossing = (top.scores[:, k - 1] == top.scores[:, -1]) & np.isfinite(top.scores[:, -1])
        self._settle(retriever, np.flatnonzero(crossing), 2 * k, places)
        return Ranking(top.items[:, :k], places)

    def _settle(self, retriever: Retriever, open_rows: Ints, k: int, places: Places) -> None:
        """Put the places of some queries' targets right, from lists longer than k."""
        numbers = Ragged(np.arange(len(self.targets.values)), self.targets.offsets)
        depth = min(len(self.candidates), max(k, DEEPEST))
        for some in blocks(len(open_rows), depth):
            rows = open_rows[some]
            few = self.take(rows)
            top = few.ask(retriever, depth)
            beyond = few.n_allowed() - (top.items >= 0).sum(axis=1)
            found = metrics.places(top.items, few.targets, scores=top.scores, beyond=beyond)
            mine = numbers.take(rows).values
            places.before[mine], places.tied[mine] = found

    def n_allowed(self) -> Ints:
        """Return how many items each query's list may show, int64 [n_queries]."""
        total = np.full(len(self.queries), np.count_nonzero(self.candidates))
        if self.exclude is None:
            return total
        owners, items = self.exclude.owners(), self.exclude.values
        out = self.candidates[items] & (items >= 0)
        pairs = np.unique(owners[out] * len(self.candidates) + items[out])
        return total - np.bincount(pairs // len(self.candidates), minlength=len(total))

    def per_user(self, retriever: Retriever, ks: Sequence[int]) -> dict[str, Floats]:
        """Return every metric of every user, float64 [n_queries] by name."""
        return metrics.per_user(self.rank(retriever, max(ks)).places, self.targets, ks)

    def steady(self, retriever: Retriever) -> float:
        """Return the mean of the `STEADY` metrics, by which models are chosen."""
        per_user = self.per_user(retriever, STEADY_KS)
        return mean_of_steady({name: float(values.mean()) for name, values in per_user.items()})

    def take(self, rows: Ints) -> EvaluationSet:
        """Return the evaluation set of some of the queries."""
        return replace(
            self,
            queries=self.queries.take(rows),
            targets=self.targets.take(rows),
            exclude=None if self.exclude is None else self.exclude.take(rows),
            warm=self.warm[rows],
            also_seen=None if self.also_seen is None else self.also_seen.take(rows),
        )


def mean_of_steady(means: Mapping[str, float]) -> float:
    """Return the mean of the `STEADY` metrics among others."""
    return sum(means[name] for name in STEADY) / len(STEADY)


def evaluation_set(
    users: Ints,
    items: Ints,
    *,
    history: Interactions,
    item_counts: npt.NDArray[np.integer],
    rules: ListRules,
    contexts: Columns | None = None,
    also_seen: Interactions | None = None,
) -> EvaluationSet:
    """Gather the rows of a held-out part into one query a user and context.

    Args:
        users: user row of each held-out interaction, int [n]; negative: of no table, equal numbers
            being the same person.
        items: item row of each, int [n]; -1: of no table.
        history: all interactions before the part; its user rows may be negative in the same way.
        item_counts: training interactions of each item, int [n_items].
        rules: the rules of the lists.
        contexts: inputs that belong to the interaction, n rows each; none where nothing does.
        also_seen: what users saw before the part without that it counts as history.
    """
    contexts = contexts or {}
    first, which = occasions(users, contexts)
    persons = users[first]
    queries = Queries(
        np.maximum(persons, -1),
        _histories(history, persons),
        {name: take_rows(column, first) for name, column in contexts.items()},
    )
    targets = Ragged.from_pairs(which, items, n_lists=len(persons))
    everything = np.ones(history.n_items, bool)
    made = EvaluationSet(
        queries=queries,
        targets=targets,
        exclude=None,
        candidates=item_counts > 0 if rules.candidates == "train" else everything,
        warm=queries.histories.lengths > 0,
        also_seen=_histories(also_seen, persons) if also_seen else None,
    )
    return replace(made, exclude=made.seen) if rules.exclude_seen else made


def occasions(users: Ints, contexts: Columns) -> tuple[Ints, Ints]:
    """Tell the queries apart that rows ask: a user each, and where there are contexts, one of them.

    Args:
        users: user row of each row, int [n].
        contexts: n rows each; a row with a list asks a query of its own.

    Returns:
        The first row of each query, users rising; and the query of each row, int64 [n].
    """
    key = users
    for column in contexts.values():
        codes = np.arange(len(users))
        if not isinstance(column, Ragged):
            codes = np.unique(column, return_inverse=True)[1]
        key = np.unique(key, return_inverse=True)[1] * len(users) + codes
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    return first, which


def _histories(history: Interactions, persons: Ints) -> Ragged:
    """Return what each person did, oldest first; items of no table are left out.

    Args:
        history: the history of everybody.
        persons: user rows, rising; who stands there twice gets their history twice.
    """
    distinct, which = np.unique(persons, return_inverse=True)
    place = np.searchsorted(distinct, history.users)
    place = np.minimum(place, len(distinct) - 1)
    mine = (distinct[place] == history.users) & (history.items >= 0)
    found = Ragged.from_pairs(place[mine], history.items[mine], n_lists=len(distinct))
    return found.take(which)
