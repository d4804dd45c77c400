"""Full-catalogue search: the scores of every item, in blocks of queries. The truth for `ann.py`.

The towers' outputs are taken as they are; a query's score of an item is their dot product. A prior
(say, of recent popularity) is one dimension more, with 1 on the users' side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.retriever import Bools, Floats, Queries, Ragged, TopK, top_k_by_scores


@dataclass(frozen=True)
class Exact:
    """Embeddings of users and items, searched by brute force.

    Attributes:
        users: float32 [n_users + 1, d]; the last row stands for every unknown user.
        items: float32 [n_items, d].
    """

    users: Floats
    items: Floats

    def __post_init__(self) -> None:
        if self.users.ndim != 2 or self.items.ndim != 2 or not len(self.users):
            raise ValueError(
                "Embeddings must be [n_users + 1, d] and [n_items, d]. "
                f"Received: {self.users.shape} and {self.items.shape}."
            )
        _check_width(self.users, self.items)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank the catalogue for each query's user; histories are not read.

        Raises:
            ValueError: for a user row outside [-1, n_users).
        """
        n_users = len(self.users) - 1
        strange = (queries.users < -1) | (queries.users >= n_users)
        if strange.any():
            raise ValueError(
                f"User rows must lie in [-1, {n_users}). Received: {queries.users[strange][0]}."
            )
        # row -1, the unknown user, is the last row for numpy too
        vectors = self.users[queries.users]
        return search(vectors, self.items, k, exclude=exclude, candidates=candidates)


def search(
    vectors: Floats,
    items: Floats,
    k: int,
    *,
    exclude: Ragged | None = None,
    candidates: Bools | None = None,
) -> TopK:
    """Rank the catalogue for embeddings of queries.

    Sums are taken in float64 and rounded to float32 at the end. In float32 the last bit depends
    on an item's place in the matrix and on the number of queries, and items with the same
    embedding (rare items share one) would not tie.

    Args:
        vectors: float32 [n_queries, d].
        items: float32 [n_items, d].
        k: list length.
        exclude: item rows to leave out, one list a query.
        candidates: the only items that may be returned, bool [n_items]; None for all.

    Raises:
        ValueError: when the two are not equally wide.
    """
    _check_width(vectors, items)
    columns = items.T.astype(np.float64)
    numbers = np.arange(len(vectors))
    return top_k_by_scores(
        lambda block: vectors[block.users] @ columns,
        Queries(numbers, Ragged.empty(len(numbers))),
        k,
        n_items=len(items),
        exclude=exclude,
        candidates=candidates,
    )


def _check_width(queries: Floats, items: Floats) -> None:
    """Raise a ValueError when two sets of embeddings have no dot product."""
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            "Queries and items must be equally wide. "
            f"Received: {queries.shape[1]} and {items.shape[1]} dimensions."
        )
