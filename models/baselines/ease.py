"""A linear item-item model with a closed form, and still the hardest baseline on small catalogues.

EASE (Steck 2019, "Embarrassingly shallow autoencoders for sparse data"): minimise
|X - XB|^2 + lambda |B|^2 with a zero diagonal of B. With P = (X'X + lambda I)^-1, equation 8 gives
B = I - P diag(1 / diag P).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from models.baselines.errors import CannotFit
from models.retriever import (
    Bools,
    Floats,
    Interactions,
    Queries,
    Ragged,
    TopK,
    blocks,
    fitted,
    top_k_by_scores,
)

#: P is dense: 20 000 items take 3.2 GB in float64, and 1.6 GB more for B in float32.
MAX_ITEMS = 20_000
#: Values of lambda to choose from.
REGULARIZATIONS = (100.0, 50.0, 200.0, 300.0, 500.0, 1000.0)
#: Values of lambda, and of the decay with each, to choose from.
DECAYED_REGULARIZATIONS = (300.0, 100.0, 1000.0)
DECAYS = (10.0, 5.0, 20.0, 50.0)
#: Below so many items one thread inverts faster than several that share a busy machine.
_SMALL = 4_000


@dataclass(frozen=True, kw_only=True)
class EASE:
    """Scores xB of a history x.

    Attributes:
        regularization: lambda.
        decay: None takes x binary. A number weighs the item at position p of the history, the
            latest at 0, with exp(-p / decay); an item met twice has its latest position. The fit
            is on the binary matrix in both cases.
        weights: B, float32 [n_items, n_items], learnt by `fit`.
    """

    regularization: float = 100.0
    decay: float | None = None
    weights: Floats | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("regularization", self.regularization), ("decay", self.decay)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0. Received: {name} = {value}.")

    def fit(self, train: Interactions) -> EASE:
        """Return a model with the closed-form weights.

        Raises:
            CannotFit: for a catalogue of more than `MAX_ITEMS` items.
        """
        return replace(self, weights=_solve(_gram(train), self.regularization))

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank by xB; with no history all items tie at 0."""
        n_items = len(fitted(self.weights, self))
        return top_k_by_scores(
            self.score, queries, k, n_items=n_items, exclude=exclude, candidates=candidates
        )

    def score(self, queries: Queries) -> Floats:
        """Return float32 [n_queries, n_items]."""
        weights = fitted(self.weights, self)
        if self.decay is None:
            return queries.histories.to_csr(len(weights)) @ weights
        return _decayed(queries.histories, len(weights), self.decay) @ weights


def grid(train: Interactions) -> Iterator[EASE]:
    """Yield a fitted EASE for each of `REGULARIZATIONS`.

    Raises:
        CannotFit: as `EASE.fit`.
    """
    gram = _gram(train)
    for regularization in REGULARIZATIONS:
        weights = _solve(gram.copy(), regularization)
        yield EASE(regularization=regularization, weights=weights)


def decayed_grid(train: Interactions) -> Iterator[EASE]:
    """Yield a fitted EASE for each of `DECAYED_REGULARIZATIONS` and `DECAYS`.

    Raises:
        CannotFit: as `EASE.fit`; and without times, for a history without order has no latest item.
    """
    if train.times is None:
        raise CannotFit("a decayed history needs times; this data has none")
    gram = _gram(train)
    for regularization in DECAYED_REGULARIZATIONS:
        weights = _solve(gram.copy(), regularization)
        for decay in DECAYS:
            yield EASE(regularization=regularization, decay=decay, weights=weights)


def _gram(train: Interactions) -> Floats:
    """Return X'X, float64 [n_items, n_items], in blocks: as a sparse matrix it may be larger.

    Raises:
        CannotFit: for a catalogue of more than `MAX_ITEMS` items.
    """
    n_items = train.n_items
    if n_items > MAX_ITEMS:
        raise CannotFit(
            f"EASE inverts a dense matrix of all items; up to {MAX_ITEMS} fit in memory. "
            f"Received: {n_items} items. Use ItemKNN or ALS, or leave rare items out."
        )
    users = train.histories().to_csr(n_items)
    columns = users.tocsc()
    gram = np.empty((n_items, n_items))
    for rows in blocks(n_items, n_items):
        gram[rows] = (columns[:, rows].T @ users).toarray()
    return gram


def _solve(gram: Floats, regularization: float) -> Floats:
    """Return B, float32 [n_items, n_items]; the Gram matrix is used up."""
    np.fill_diagonal(gram, gram.diagonal() + regularization)
    with _threads(len(gram)):
        # symmetric and positive definite: its transpose is itself in LAPACK's order, and Cholesky
        # takes half the work of a general inverse
        factor, fault = scipy.linalg.lapack.dpotrf(gram.T, overwrite_a=True, clean=False)
        inverse, _ = scipy.linalg.lapack.dpotri(factor, overwrite_c=True)
    if fault:
        raise np.linalg.LinAlgError(f"X'X + {regularization} I is not positive definite.")
    for i in range(len(inverse)):  # the upper half is filled in
        inverse[i + 1 :, i] = inverse[i, i + 1 :]
    inverse /= -inverse.diagonal()
    np.fill_diagonal(inverse, 0.0)
    return inverse.astype(np.float32, order="C")


def _threads(n_items: int) -> AbstractContextManager[object]:
    """Keep a small inversion to one thread, where the library for that is installed."""
    try:
        from threadpoolctl import threadpool_limits  # of the extra `baselines`
    except ImportError:
        return nullcontext()
    return threadpool_limits(1 if n_items < _SMALL else None, user_api="blas")


def _decayed(histories: Ragged, n_items: int, decay: float) -> sp.csr_matrix:
    """Return float32 [n_lists, n_items] with exp(-p / decay) at the item in position p.

    Args:
        histories: item rows, oldest first; the last of a list has position 0; -1 is left out, but
            keeps its position.
        n_items: number of columns.
        decay: the position that weighs 1/e.
    """
    lists = histories.owners()
    positions = histories.offsets[1:][lists] - 1 - np.arange(len(lists))
    newest_first = np.flatnonzero(histories.values >= 0)[::-1]
    lists, items = lists[newest_first], histories.values[newest_first]
    _, first = np.unique(lists * n_items + items, return_index=True)
    weights = np.exp(-positions[newest_first][first] / decay).astype(np.float32)
    return sp.csr_matrix((weights, (lists[first], items[first])), (len(histories), n_items))
