"""A linear item-item model with a closed form, and still the hardest baseline on small catalogues.

EASE (Steck 2019, "Embarrassingly shallow autoencoders for sparse data"): minimise
|X - XB|^2 + lambda |B|^2 with a zero diagonal of B. With P = (X'X + lambda I)^-1, equation 8 gives
B = I - P diag(1 / diag P).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

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
            ValueError: for a catalogue of more than `MAX_ITEMS` items.
        """
        n_items = train.n_items
        if n_items > MAX_ITEMS:
            raise ValueError(
                f"EASE inverts a dense matrix of all items; up to {MAX_ITEMS} fit in memory. "
                f"Received: {n_items} items. Use ItemKNN or ALS, or leave rare items out."
            )
        inverse = _gram(train.histories().to_csr(n_items))
        np.fill_diagonal(inverse, inverse.diagonal() + self.regularization)
        # the matrix is symmetric: its transpose is itself in LAPACK's order, inverted in place
        inverse = scipy.linalg.inv(inverse.T, overwrite_a=True, check_finite=False)
        inverse /= -inverse.diagonal()
        np.fill_diagonal(inverse, 0.0)
        return replace(self, weights=inverse.astype(np.float32, order="C"))

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


def _gram(users: sp.csr_matrix) -> Floats:
    """Return X'X, float64 [n_items, n_items], in blocks: as a sparse matrix it may be larger."""
    n_items = users.shape[1]
    columns = users.tocsc()
    gram = np.empty((n_items, n_items))
    for rows in blocks(n_items, n_items):
        gram[rows] = (columns[:, rows].T @ users).toarray()
    return gram


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
