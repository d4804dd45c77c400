"""Computes EASE's weights in closed form, by inverting an item-item or a user-user matrix.

X is the binary user-item matrix. With P = (X'X + lambda I)^-1, the weights are B = I - P diag(1 /
diag P) (Steck 2019, equation 8). P has the size n_items x n_items. By Woodbury's identity P = (I -
X'KX) / lambda with K = (XX' + lambda I)^-1, of the size n_users x n_users. So a history x gives the
items the scores

    xB = (r - d x) / (1 - d)    with r = xX'KX and d = diag(X'KX),

where the division is item by item, and no matrix [n_items, n_items] is needed. The user-user form
is used if there are fewer users than items. The user-user form is numerically stable: its formula
does not divide by lambda, and 1 - d is at least lambda / (lambda + n) for an item of n users. One
decomposition of XX' into eigenvectors would serve every lambda, but for 1,892 users it takes as
long as seven inversions by Cholesky, and a search tries only four to eight values of lambda.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from models.baselines.cost import Cost, inverse, limit_threads
from models.core.retriever import Floats, Interactions, blocks


class ItemWeights(Protocol):
    """The protocol of EASE's item-item weights B, stored as a full matrix or as factors of B."""

    @property
    def n_items(self) -> int:
        """Return the number of items in the catalogue."""
        ...

    def score(self, histories: sp.csr_matrix) -> Floats:
        """Return the scores xB of all items for each history x, float32 [n_histories, n_items]."""
        ...


@dataclass(frozen=True)
class ByItems:
    """EASE's item-item weights, stored as the full matrix B.

    Attributes:
        weights: the item-item weights B, float32 [n_items, n_items].
    """

    weights: Floats

    @property
    def n_items(self) -> int:
        """Return the number of items in the catalogue."""
        return len(self.weights)

    def score(self, histories: sp.csr_matrix) -> Floats:
        """Return the scores xB of all items for each history x, float32 [n_histories, n_items]."""
        return np.asarray(histories @ self.weights)


@dataclass(frozen=True)
class ByUsers:
    """EASE's item-item weights, stored as factors of B; this form needs a user-user inverse only.

    Attributes:
        users: the user-item matrix X, float64 [n_users, n_items].
        inverse: K = (XX' + lambda I)^-1, float64 [n_users, n_users].
        shares: d = diag(X'KX), float64 [n_items].
    """

    users: sp.csr_matrix
    inverse: Floats
    shares: Floats

    @property
    def n_items(self) -> int:
        """Return the number of items in the catalogue."""
        return int(self.users.shape[1])

    def score(self, histories: sp.csr_matrix) -> Floats:
        """Return the scores xB of all items for each history x, float32 [n_histories, n_items]."""
        histories = histories.astype(np.float64)
        alike = (histories @ self.users.T).toarray()
        with limit_threads(len(self.inverse)):
            alike = alike @ self.inverse
        scores = np.asarray(alike @ self.users)
        own = histories.tocoo()
        scores[own.row, own.col] -= own.data * self.shares[own.col]
        scores /= 1.0 - self.shares
        return scores.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Solver:
    """Solves EASE's item-item weights for any lambda; the Gram matrix is computed once.

    Attributes:
        train: the training interactions.
    """

    train: Interactions

    @cached_property
    def users(self) -> sp.csr_matrix:
        """The user-item matrix X of the users who have a history, float64 [n_users, n_items]."""
        matrix = self.train.histories().to_csr(self.train.n_items)
        return matrix[matrix.getnnz(axis=1) > 0].astype(np.float64)

    @property
    def by_users(self) -> bool:
        """Whether the user-user form is solved, because there are fewer users than items."""
        return bool(self.users.shape[0] < self.users.shape[1])

    def cost(self, *, fits: int, kept: int = 1) -> Cost:
        """Return the estimated time and memory of solving the weights of one lambda.

        Args:
            fits: the smallest number of fits that the search will need.
            kept: number of weight matrices that are in memory while another one is computed.
        """
        n_users, n_items = self.users.shape
        if self.by_users:
            # the inverse, its products with X, and the scores of every user
            operations = 3.0 * n_users**3 + 6.0 * n_users * self.users.nnz
            return Cost(n_users, operations, 8.0 * (2 + kept) * n_users**2, fits)
        operations = 1.0 * n_items**3 + 4.0 * n_items * self.users.nnz
        return Cost(n_items, operations, (20.0 + 4 * kept) * n_items**2, fits)

    def sentence(self, *, fits: int) -> str:
        """Return a sentence for the log that names the form of the solution and the cost of a fit.

        Raises:
            CannotFit: solving the weights would take too much time or memory.
        """
        n_users, n_items = self.users.shape
        form = (
            f"{n_users:,} users, for {n_items:,} items" if self.by_users else f"{n_items:,} items"
        )
        return self.cost(fits=fits).sentence(f"a dense matrix of the {form}")

    def solve(self, regularization: float) -> ItemWeights:
        """Return EASE's item-item weights for one value of lambda."""
        gram = self._gram.copy()
        np.fill_diagonal(gram, gram.diagonal() + regularization)
        inverted = inverse(gram)
        if self.by_users:
            return ByUsers(self.users, inverted, _shares(self.users, inverted))
        inverted /= -inverted.diagonal()
        np.fill_diagonal(inverted, 0.0)
        return ByItems(inverted.astype(np.float32, order="C"))

    @cached_property
    def _gram(self) -> Floats:
        """Return the Gram matrix XX' or X'X as a dense float64 matrix, computed in blocks."""
        rows = self.users if self.by_users else self.users.T.tocsr()
        columns = rows.T.tocsr()
        n = rows.shape[0]
        gram = np.empty((n, n))
        for some in blocks(n, n):
            gram[some] = (rows[some] @ columns).toarray()
        return gram


def _shares(users: sp.csr_matrix, inverse: Floats) -> Floats:
    """Return d, the diagonal of X'KX in the user-user form of EASE, float64 [n_items]."""
    items = users.T.tocsr()
    n_items, n_users = items.shape
    shares = np.empty(n_items)
    for some in blocks(n_items, n_users):
        rows = items[some]
        shares[some] = np.asarray(rows.multiply(rows @ inverse).sum(axis=1)).ravel()
    return shares
