"""A uniformly random ranking: every other retriever should have better metrics.

The score of a pair (user, item) is a hash of the seed and both row numbers, so that a user's
ranking does not depend on the other queries, nor on the division into blocks. The hash is
SplitMix64 (Steele, Lea and Flood 2014): the user gives the start state, and the item's row is the
number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from models.baselines.search import Facts, Grid
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

_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Random:
    """A retriever with a random ranking for each user, fixed by the seed and the user's row.

    Attributes:
        seed: the seed of the rankings, not negative.
        n_items: size of the catalogue, set by `fit`.
    """

    seed: int = 0
    n_items: int | None = field(default=None, repr=False, compare=False)

    def fit(self, train: Interactions) -> Random:
        """Return a random retriever for the catalogue of the training interactions."""
        return replace(self, n_items=train.n_items)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank the catalogue at random; all unknown users (row -1) share one ranking."""
        n_items = require_fitted(self.n_items, self)
        return top_k_by_scores(
            self.score, queries, k, n_items=n_items, exclude=exclude, candidates=candidates
        )

    def score(self, queries: Queries) -> Floats:
        """Return random scores of all items, uniform in [0, 1), float32 [n_queries, n_items]."""
        seed = _mix(np.array([self.seed], np.uint64))
        users = seed ^ queries.users.astype(np.uint64)
        steps = np.arange(1, require_fitted(self.n_items, self) + 1, dtype=np.uint64) * _STEP
        draws = _mix(users[:, None] + steps)
        return (draws >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def grid(facts: Facts) -> Grid:
    """Return the search space of the random baseline: one point, without hyper-parameters."""
    return Grid(start=((),), fit=lambda _: Random(seed=facts.seed).fit(facts.train))


def _mix(states: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return SplitMix64's output for each uint64 state; its multiplications are modulo 2^64."""
    states = (states ^ (states >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    states = (states ^ (states >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return states ^ (states >> np.uint64(31))
