"""Popularity as the fallback for queries without a known user or history.

A baseline that represents a user by the history gives every item the score 0 if the history is
empty. A two-tower model represents an unknown user by the embedding of the unknown user id, which
is hardly trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from models.baselines.popularity import Popularity
from models.baselines.search import Grid
from models.core.retriever import Bools, Interactions, Queries, Ragged, Retriever, TopK


def without_history(queries: Queries) -> Bools:
    """Return, for each query, whether its history has no known item, bool [n_queries]."""
    histories = queries.histories
    return np.bincount(histories.owners(), histories.values >= 0, len(histories)) == 0


def unknown_users(queries: Queries) -> Bools:
    """Return, for each query, whether its user is unknown and has no history, bool [n_queries]."""
    return (queries.users < 0) & without_history(queries)


@dataclass(frozen=True)
class Fallback:
    """Ranks by a model, or by popularity if the query has no known user or no history.

    Attributes:
        model: the fitted model that ranks for queries with a known user or history.
        popular: the fitted popularity model that ranks for queries without a known user or history.
        uses_popularity: the function that returns whether popularity ranks each query, bool
            [n_queries].
    """

    model: Retriever
    popular: Popularity
    uses_popularity: Callable[[Queries], Bools]

    def as_of(self, known: Interactions) -> Fallback:
        """Return a fallback whose popularity counts all interactions before a cut in time."""
        return dataclasses.replace(self, popular=self.popular.fit(known))

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k best items of each query, by the model or by popularity."""
        helped = self.uses_popularity(queries)
        top = TopK.empty(len(queries), k)
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


@runtime_checkable
class CountBased(Protocol):
    """The protocol of retrievers that rank by interaction counts; new data needs no fit."""

    def as_of(self, known: Interactions) -> Retriever:
        """Return a retriever that counts all interactions before a cut in time."""
        ...


def with_popularity(grid: Grid, train: Interactions) -> Grid:
    """Return a search space whose models answer queries without a history by popularity."""
    popular = Popularity().fit(train)
    return dataclasses.replace(
        grid, fit=lambda point: Fallback(grid.fit(point), popular, without_history)
    )


def as_of(model: Retriever, known: Interactions) -> Retriever:
    """Return a baseline that counts all interactions before a cut in time; other weights stay.

    Args:
        model: a fitted baseline.
        known: all interactions before the cut.
    """
    return model.as_of(known) if isinstance(model, CountBased) else model


def parameters(model: Retriever) -> dict[str, float]:
    """Return the hyper-parameters of a fitted baseline by name, without those that are None."""
    chosen: Any = model.model if isinstance(model, Fallback) else model
    values = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.repr}
    return {name: value for name, value in values.items() if value is not None}
