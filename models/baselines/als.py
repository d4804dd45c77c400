"""Matrix factorisation for implicit feedback, by the library `implicit`.

Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets". An observed
pair has confidence alpha, any other pair has confidence 1. Only the item factors are kept: the
factors of a user are computed from the history in the query (equation 4 of the paper), so that new
users and new events need no refit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from models.baselines.search import Axis, Facts, Grid, Point
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

#: Values of factors, regularization and alpha from which the search of ALS starts.
START = (
    (64.0, 30.0, 8.0),
    (64.0, 10.0, 2.0),
    (32.0, 1.0, 2.0),
    (128.0, 50.0, 8.0),
    (128.0, 100.0, 16.0),
)


@dataclass(frozen=True, kw_only=True)
class ALS:
    """Matrix factorisation by ALS, which computes a user's factors from the user's history.

    Attributes:
        factors: the number of latent factors of a user or item, d.
        regularization: lambda, the L2 regularisation of the factors of users and items.
        alpha: confidence of an observed pair; any other pair has confidence 1.
        iterations: number of alternations of the solver; this default, like the others, was tuned
            on MovieLens-100K.
        seed: the seed of the random initial factors.
        item_factors: the learnt factors of the items, float32 [n_items, d], set by `fit`.
    """

    factors: int = 32
    regularization: float = 1.0
    alpha: float = 2.0
    iterations: int = 15
    seed: int = 0
    item_factors: Floats | None = field(default=None, repr=False, compare=False)

    def fit(self, train: Interactions) -> ALS:
        """Return a model with learnt item factors; fits to the same data give equal factors."""
        matrix = train.histories().to_csr(train.n_items)
        # implicit warns if the BLAS uses several threads (it checks once in a process)
        with threadpool_limits(1, user_api="blas"):
            library = self._library()
            library.fit(matrix, show_progress=False)
        return replace(self, item_factors=library.item_factors)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k items with the largest dot products; without a history all items score 0."""
        n_items = len(require_fitted(self.item_factors, self))
        return top_k_by_scores(
            self.score, queries, k, n_items=n_items, exclude=exclude, candidates=candidates
        )

    def score(self, queries: Queries) -> Floats:
        """Return the dot products of queries' and items' factors, float32 [n_queries, n_items]."""
        item_factors = require_fitted(self.item_factors, self)
        matrix = queries.histories.to_csr(len(item_factors))
        with threadpool_limits(1, user_api="blas"):
            library = self._library()
            library.item_factors = item_factors
            users = library.recalculate_user(np.arange(len(queries)), matrix)
            return users @ item_factors.T

    def _library(self) -> AlternatingLeastSquares:
        """Return an untrained ALS model of the library `implicit` with the same hyper-parameters.

        The factors of each user or item are solved by one thread, so the number of threads does not
        change the result.
        """
        return AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.alpha,
            iterations=self.iterations,
            random_state=self.seed,
            num_threads=0,  # all
        )


def grid(facts: Facts) -> Grid:
    """Return the search space of ALS: factors, regularization and alpha."""

    def fit(point: Point) -> ALS:
        factors, regularization, alpha = point
        model = ALS(
            factors=int(factors), regularization=regularization, alpha=alpha, seed=facts.seed
        )
        return model.fit(facts.train)

    axes = (
        Axis(name="factors", low=8.0, high=256.0, whole=True),
        Axis(name="regularization", low=0.01, high=10_000.0),
        Axis(name="alpha", low=1.0, high=1000.0),
    )
    return Grid(start=START, fit=fit, axes=axes, by_history=True)
