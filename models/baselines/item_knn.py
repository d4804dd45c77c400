"""Ranks items by their similarity to the items of the history: cosines of user-item columns.

The model is that of Sarwar et al. 2001; the sum over the history is not normalised, as in Deshpande
and Karypis 2004, section 3.1. If n_i users have item i, and n_ij users have both i and j, the
similarity is s_ij = n_ij / sqrt(n_i * n_j).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from models.baselines.search import Axis, Facts, Grid, Point
from models.core.retriever import (
    Bools,
    Floats,
    Interactions,
    Queries,
    Ragged,
    TopK,
    best_k,
    blocks,
    require_fitted,
    top_k_by_scores,
)

#: Numbers of neighbours from which the search of item-kNN starts.
NEIGHBOURS = (20, 5, 10, 50, 100)


@dataclass(frozen=True, kw_only=True)
class ItemKNN:
    """Scores an item by its summed similarity to items of the history.

    Only those items of the history count that have the scored item among their neighbours.

    Attributes:
        neighbours: the number of neighbours of an item; ties are broken by item row.
        similarities: float32 [n_items, n_items]; row i holds the similarities of item i to its
            neighbours, and zeros elsewhere; set by `fit`.
    """

    neighbours: int = 20
    similarities: sp.csr_matrix | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(
                f"neighbours must be at least 1. Received: neighbours = {self.neighbours}."
            )

    def fit(self, train: Interactions) -> ItemKNN:
        """Return an item-kNN model with the most similar items of each item."""
        n_items = train.n_items
        users = train.histories().to_csr(n_items).tocsc()
        parts = [self._neighbours_of(rows, users) for rows in blocks(n_items, n_items)]
        return replace(self, similarities=sp.vstack(parts, format="csr", dtype=np.float32))

    def _neighbours_of(self, rows: slice, users: sp.csc_matrix) -> sp.csr_matrix:
        """Return similarities of some items to their nearest neighbours, sparse [n_rows, n_items].

        Args:
            rows: the slice of items whose neighbours are computed.
            users: the binary user-item matrix, float32 [n_users, n_items].
        """
        n_users = users.getnnz(axis=0)
        both = (users[:, rows].T @ users).toarray()
        similarities = both / np.sqrt(np.maximum(n_users[rows, None] * n_users, 1))
        n_rows, n_items = similarities.shape
        similarities[np.arange(n_rows), np.arange(rows.start, rows.stop)] = 0.0
        best = best_k(similarities, min(self.neighbours, n_items))
        near = best.scores > 0
        cells = (np.nonzero(near)[0], best.items[near])
        return sp.csr_matrix((best.scores[near], cells), (n_rows, n_items))

    def nearest(self, neighbours: int) -> ItemKNN:
        """Return an item-kNN model with fewer neighbours of each item, without a new fit."""
        similarities = require_fitted(self.similarities, self).tocoo()
        order = np.lexsort((similarities.col, -similarities.data, similarities.row))
        rows = similarities.row[order]  # sorted: an item's place in its row is a difference
        near = order[np.arange(len(order)) - np.searchsorted(rows, rows) < neighbours]
        cells = (similarities.row[near], similarities.col[near])
        kept = sp.csr_matrix((similarities.data[near], cells), similarities.shape)
        return replace(self, neighbours=neighbours, similarities=kept)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank items by summed similarity to the history; without a history all items score 0."""
        n_items = require_fitted(self.similarities, self).shape[1]
        return top_k_by_scores(
            self.score, queries, k, n_items=n_items, exclude=exclude, candidates=candidates
        )

    def score(self, queries: Queries) -> Floats:
        """Return each item's summed similarity to each query's history, float32."""
        similarities = require_fitted(self.similarities, self)
        return (queries.histories.to_csr(similarities.shape[0]) @ similarities).toarray()


def grid(facts: Facts) -> Grid:
    """Return the search space of item-kNN: the number of neighbours."""
    train = facts.train
    widest = [ItemKNN(neighbours=max(NEIGHBOURS)).fit(train)]

    def fit(point: Point) -> ItemKNN:
        neighbours = int(point[0])
        if neighbours > widest[0].neighbours:
            widest[0] = ItemKNN(neighbours=neighbours).fit(train)
        return widest[0].nearest(neighbours)

    axis = Axis(name="neighbours", low=1.0, high=1000.0, whole=True)
    start = tuple((float(neighbours),) for neighbours in NEIGHBOURS)
    return Grid(start=start, fit=fit, axes=(axis,), by_history=True)
