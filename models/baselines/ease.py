"""EASE, a linear item-item model with a closed form, the strongest baseline on small catalogues.

Steck 2019, "Embarrassingly shallow autoencoders for sparse data": minimise |X - XB|^2 + lambda
|B|^2 with a zero diagonal of B. The module `closed_form` computes B.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from models.baselines.closed_form import ItemWeights, Solver
from models.baselines.errors import CannotFit
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

#: Values of lambda from which the search of EASE starts.
REGULARIZATIONS = (100.0, 50.0, 200.0, 300.0, 500.0)
#: Values of lambda, and of the decay with each, from which the search with a decay starts.
DECAYED_REGULARIZATIONS = (300.0, 100.0, 1000.0)
DECAYS = (10.0, 5.0, 20.0, 50.0, 200.0)


@dataclass(frozen=True, kw_only=True)
class EASE:
    """The linear autoencoder EASE: a history x gives the items the scores xB.

    Attributes:
        regularization: lambda, the factor of the L2 penalty on B.
        decay: the position at which an item of the history x has the weight 1/e: position p (0 is
            the latest) has the weight exp(-p / decay), and an item that occurs twice has its latest
            position. None means that x is binary. The user-item matrix X of the fit is always
            binary.
        learnt: the item-item weights B, set by `fit`.
    """

    regularization: float = 100.0
    decay: float | None = None
    learnt: ItemWeights | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("regularization", self.regularization), ("decay", self.decay)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0. Received: {name} = {value}.")

    def fit(self, train: Interactions) -> EASE:
        """Return an EASE model whose item-item weights are computed in closed form.

        Raises:
            CannotFit: the fit would take too much memory or time on this machine.
        """
        solver = Solver(train)
        solver.sentence(fits=1)
        return replace(self, learnt=solver.solve(self.regularization))

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k items with the highest scores xB; without a history all items score 0."""
        n_items = require_fitted(self.learnt, self).n_items
        return top_k_by_scores(
            self.score, queries, k, n_items=n_items, exclude=exclude, candidates=candidates
        )

    def score(self, queries: Queries) -> Floats:
        """Return the scores xB of all items for each query's history x, float32."""
        learnt = require_fitted(self.learnt, self)
        if self.decay is None:
            return learnt.score(queries.histories.to_csr(learnt.n_items))
        return learnt.score(_decayed_rows(queries.histories, learnt.n_items, self.decay))


def grid(facts: Facts) -> Grid:
    """Return the search space of EASE: lambda.

    Raises:
        CannotFit: a fit would take too much memory or time on this machine.
    """
    solver = Solver(facts.train)
    notice = solver.sentence(fits=len(REGULARIZATIONS))

    def fit(point: Point) -> EASE:
        (regularization,) = point
        return EASE(regularization=regularization, learnt=solver.solve(regularization))

    start = tuple((value,) for value in REGULARIZATIONS)
    axes = (_lambda(ratio=2.0),)
    return Grid(start=start, fit=fit, axes=axes, notice=notice, by_history=True)


def decayed_grid(facts: Facts) -> Grid:
    """Return the search space of EASE with a position decay: lambda and decay.

    Raises:
        CannotFit: a fit would take too much memory or time, or the interactions have no times, so
            that the order of a history is unknown.
    """
    if facts.train.times is None:
        raise CannotFit("a decayed history needs times; this data has none")
    solver = Solver(facts.train)
    notice = solver.sentence(fits=len(DECAYED_REGULARIZATIONS))
    last: dict[float, ItemWeights] = {}  # points that differ in the decay only follow each other

    def fit(point: Point) -> EASE:
        decay, regularization = point
        if regularization not in last:
            last.clear()
            last[regularization] = solver.solve(regularization)
        return EASE(regularization=regularization, decay=decay, learnt=last[regularization])

    start = tuple((decay, value) for value in DECAYED_REGULARIZATIONS for decay in DECAYS)
    axes = (Axis(name="decay", low=0.5, high=2000.0), _lambda(ratio=3.0))
    return Grid(start=start, fit=fit, axes=axes, notice=notice, by_history=True)


def _lambda(*, ratio: float) -> Axis:
    return Axis(name="regularization", low=0.5, high=100_000.0, ratio=ratio)


def _decayed_rows(histories: Ragged, n_items: int, decay: float) -> sp.csr_matrix:
    """Return histories as rows [n_lists, n_items]: an item at position p has exp(-p / decay).

    Args:
        histories: row numbers of the users' items, oldest first. The last item of a list has
            position 0. An unknown item (-1) has a position, but no weight.
        n_items: size of the catalogue, which is the number of columns.
        decay: the position of the history at which an item has the weight 1/e.
    """
    lists = histories.owners()
    positions = histories.offsets[1:][lists] - 1 - np.arange(len(lists))
    newest_first = np.flatnonzero(histories.values >= 0)[::-1]
    lists, items = lists[newest_first], histories.values[newest_first]
    _, first = np.unique(lists * n_items + items, return_index=True)
    weights = np.exp(-positions[newest_first][first] / decay).astype(np.float32)
    return sp.csr_matrix((weights, (lists[first], items[first])), (len(histories), n_items))
