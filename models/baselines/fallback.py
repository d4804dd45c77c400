"""What is popular, for those whom a model knows nothing of.

A model of histories gives every item of an empty one the score 0, and would be beaten on new users
by any model that guesses well; a two-tower would answer a stranger with what its unseen rows say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.baselines.popularity import Popularity, RecentPopularity
from models.baselines.search import Grid
from models.core.retriever import NO_ITEM, Bools, Interactions, Queries, Ragged, Retriever, TopK


def without_history(queries: Queries) -> Bools:
    """Say which queries' histories hold no known item, bool [n_queries]."""
    histories = queries.histories
    return np.bincount(histories.owners(), histories.values >= 0, len(histories)) == 0


def strangers(queries: Queries) -> Bools:
    """Say which queries come from users of no table who have no history, bool [n_queries]."""
    return (queries.users < 0) & without_history(queries)


@dataclass(frozen=True)
class Fallback:
    """A model, and popularity for the queries that it has nothing to go by.

    Attributes:
        model: fitted.
        popular: fitted.
        stands_in: says which queries popularity answers, bool [n_queries].
    """

    model: Retriever
    popular: Popularity
    stands_in: Callable[[Queries], Bools]

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank by one of the two, query by query."""
        helped = self.stands_in(queries)
        top = TopK(
            np.full((len(queries), k), NO_ITEM, np.int64),
            np.full((len(queries), k), -np.inf, np.float32),
        )
        for model, rows in (
            (self.model, np.flatnonzero(~helped)),
            (self.popular, np.flatnonzero(helped)),
        ):
            if len(rows):
                some = queries.take(rows)
                out = None if exclude is None else exclude.take(rows)
                answer = model.top_k(some, k, exclude=out, candidates=candidates)
                top.items[rows], top.scores[rows] = answer
        return top


def with_popularity(grid: Grid, train: Interactions) -> Grid:
    """Return a grid whose models leave queries without a history to popularity."""
    popular = Popularity().fit(train)
    return dataclasses.replace(
        grid, fit=lambda point: Fallback(grid.fit(point), popular, without_history)
    )


def as_of(model: Retriever, known: Interactions) -> Retriever:
    """Return the model with its counts of popularity as of a cut; what it has learnt stays.

    Args:
        model: the model of a grid.
        known: all interactions before the cut.
    """
    if isinstance(model, Popularity | RecentPopularity):
        return model.fit(known)
    if isinstance(model, Fallback):
        return dataclasses.replace(model, popular=model.popular.fit(known))
    return model


def parameters(model: Retriever) -> dict[str, float]:
    """Return the hyper-parameters of a grid's model by name; those that are None are left out."""
    chosen: Any = model.model if isinstance(model, Fallback) else model
    values = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.repr}
    return {name: value for name, value in values.items() if value is not None}
