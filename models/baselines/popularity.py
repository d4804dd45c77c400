"""Popularity: all users get the items with the most interactions, in total or recently.

With a split by time, recent popularity is the baseline that learned models fail to beat most often;
see Ji et al. 2020, "A re-visit of the popularity baseline in recommender systems".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from models.baselines.errors import CannotFit
from models.baselines.search import Axis, Facts, Grid
from models.core.prior import decayed_counts
from models.core.retriever import (
    Bools,
    Floats,
    Interactions,
    Queries,
    Ragged,
    TopK,
    require_fitted,
    top_k_by_scores,
)

_NO_TIMES = "RecentPopularity needs times; this data has none. Use Popularity."
#: Decays of recent popularity, in days, from which its search starts.
DAYS = (7.0, 1.0, 3.0, 14.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True, kw_only=True)
class Popularity:
    """Ranks items by their number of training interactions, repeats included.

    Attributes:
        counts: number of interactions of each item, float64 [n_items], set by `fit`.
    """

    counts: Floats | None = field(default=None, repr=False, compare=False)

    def fit(self, train: Interactions) -> Popularity:
        """Return a popularity model with the number of training interactions of each item."""
        return replace(self, counts=decayed_counts(train, None))

    def as_of(self, known: Interactions) -> Popularity:
        """Return a popularity model that counts all interactions before a cut in time."""
        return self.fit(known)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank items by their interaction counts; ties are broken by item row."""
        return _top_k_for_all(require_fitted(self.counts, self), queries, k, exclude, candidates)


@dataclass(frozen=True, kw_only=True)
class RecentPopularity:
    """Ranks items by decayed counts: an interaction that is a days old counts exp(-a / days).

    Attributes:
        days: the age, in days, at which an interaction counts 1/e; the last interaction has the age
            0.
        counts: decayed number of interactions of each item, float64 [n_items], set by `fit`.
    """

    days: float = 7.0
    counts: Floats | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.days > 0:
            raise ValueError(f"days must be above 0. Received: days = {self.days}.")

    def fit(self, train: Interactions) -> RecentPopularity:
        """Return a popularity model with decayed interaction counts of each item.

        Raises:
            CannotFit: the interactions have no times.
        """
        if train.times is None:
            raise CannotFit(_NO_TIMES)
        return replace(self, counts=decayed_counts(train, self.days))

    def as_of(self, known: Interactions) -> RecentPopularity:
        """Return a recent popularity model that counts all interactions before a cut in time."""
        return self.fit(known)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank items by decayed interaction counts; ties are broken by item row."""
        return _top_k_for_all(require_fitted(self.counts, self), queries, k, exclude, candidates)


def grid(facts: Facts) -> Grid:
    """Return the search space of popularity: one point, without hyper-parameters."""
    return Grid(start=((),), fit=lambda _: Popularity().fit(facts.train))


def recent_grid(facts: Facts) -> Grid:
    """Return the search space of recent popularity: the decay in days.

    Raises:
        CannotFit: the interactions have no times.
    """
    if facts.train.times is None:
        raise CannotFit(_NO_TIMES)
    return Grid(
        start=tuple((days,) for days in DAYS),
        fit=lambda point: RecentPopularity(days=point[0]).fit(facts.train),
        axes=(Axis(name="days", low=0.01, high=4000.0),),
    )


def _top_k_for_all(
    counts: Floats,
    queries: Queries,
    k: int,
    exclude: Ragged | None,
    candidates: Bools | None,
) -> TopK:
    """Return the k best items of each query, given item scores that are the same for all users."""
    return top_k_by_scores(
        lambda block: np.broadcast_to(counts, (len(block), len(counts))),
        queries,
        k,
        n_items=len(counts),
        exclude=exclude,
        candidates=candidates,
    )
