"""Exact search: scores every item of the catalogue, in blocks of queries.

The score of a query and an item is the dot product of their embeddings. A popularity prior is one
more dimension of the item embeddings; in user embeddings, this dimension is 1. The recall of
approximate search is measured against exact search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.core import tiles
from models.core.blas import run_in_threads, threads
from models.core.retriever import Bools, BrokenModel, Floats, Queries, Ragged, TopK, check_k


@dataclass(frozen=True)
class Exact:
    """A retriever that scores all items by dot products with the stored embedding of a user.

    Attributes:
        users: the embedding of each user, float32 [n_users + 1, d]; last row: unknown users.
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        norm_bound: largest norm of an item embedding; None to compute it in each search.
    """

    users: Floats
    items: Floats
    norm_bound: float | None = None

    def __post_init__(self) -> None:
        if self.users.ndim != 2 or self.items.ndim != 2 or not len(self.users):
            raise ValueError(
                "Embeddings must be [n_users + 1, d] and [n_items, d]. "
                f"Received: {self.users.shape} and {self.items.shape}."
            )
        check_width(self.users, self.items)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k best items for each query's user, by the stored embedding of the user.

        Raises:
            ValueError: a user row is outside [-1, n_users).
        """
        vectors = user_vectors(self.users, queries)
        return search(
            *(vectors, self.items, k),
            exclude=exclude,
            candidates=candidates,
            norm_bound=self.norm_bound,
        )


def user_vectors(users: Floats, queries: Queries) -> Floats:
    """Return the embedding of each query's user, float32 [n_queries, d].

    Args:
        users: the embedding of each user, float32 [n_users + 1, d]; last row: unknown users.
        queries: queries whose users are row numbers in `users`, or -1 for an unknown user.

    Raises:
        ValueError: the user of a query is neither a row number of the user table nor -1.
    """
    n_users = len(users) - 1
    outside = (queries.users < -1) | (queries.users >= n_users)
    if outside.any():
        raise ValueError(
            f"User rows must lie in [-1, {n_users}). Received: {queries.users[outside][0]}."
        )
    return users[queries.users]  # row -1, the unknown user, is the last row for numpy too


def search(
    vectors: Floats,
    items: Floats,
    k: int,
    *,
    exclude: Ragged | None = None,
    candidates: Bools | None = None,
    norm_bound: float | None = None,
) -> TopK:
    """Return the k items with the largest dot products for each query embedding, by exact search.

    Scores are sums in float64, rounded to float32. With sums in float32, the last bit depends on
    the position of an item in the matrix and on the number of queries, so that items with the same
    embedding (rare items share one) would not tie. Because a product in float32 is twice as fast
    and its error has a bound, float32 scores select the few items that can be among the best, and
    only the scores of these are summed in float64.

    Args:
        vectors: the embedding of each query, float32 [n_queries, d].
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        k: number of items to return for each query.
        exclude: items to leave out, as row numbers in the item table, one list per query.
        candidates: for each item, whether it may be returned, bool [n_items]; None for all.
        norm_bound: largest norm of an item embedding; None to compute it.

    Raises:
        ValueError: queries and items have different numbers of dimensions, or k < 1.
        BrokenModel: an embedding holds NaN or infinity.
    """
    check_width(vectors, items)
    check_k(k)
    refuse_nan(vectors, "query")
    norm_bound = max_norm(items) if norm_bound is None else norm_bound
    vectors, items = (np.ascontiguousarray(v, np.float32) for v in (vectors, items))
    width = min(k, len(items))
    if not width or not len(vectors):
        return TopK.empty(len(vectors), k)
    hidden = None if candidates is None else ~candidates
    slack = error_bound(vectors, norm_bound)
    plan = _Plan.of(len(vectors), len(items), width, threads())
    keys = np.full((len(vectors), len(plan.ranges) * width), tiles.NO_KEY)
    remaining = iter([(rows, n) for rows in plan.blocks for n in range(len(plan.ranges))])

    def work() -> None:
        buffer = np.empty(plan.buffer, np.float32)
        for rows, n in remaining:
            out = None if exclude is None else exclude.take(np.arange(rows.start, rows.stop))
            block = tiles.Block(vectors[rows], slack[rows], out, hidden)
            found = tiles.rank(block, items, plan.ranges[n], width, buffer)
            keys[rows, n * width : (n + 1) * width] = found

    run_in_threads(work, plan.n_threads)
    if len(plan.ranges) > 1:
        keys.sort(axis=1)
    best = TopK.empty(len(vectors), k)
    best.items[:, :width] = tiles.items_of_keys(keys[:, :width])
    best.scores[:, :width] = tiles.scores_of_keys(keys[:, :width])
    return best


#: Largest number of threads that exact search uses; more were not measured.
_MAX_THREADS = 8
#: Number of scores for which another thread is worth its start.
_SCORES_PER_THREAD = 1 << 21
#: Number of queries, or of items, that a thread must have: with fewer, one product in several
#: threads of BLAS is faster.
_MIN_ROWS, _MIN_ITEMS = 16, 1 << 18


@dataclass(frozen=True)
class _Plan:
    """How an exact search is divided among threads: each ranks a range of items for some queries.

    Attributes:
        blocks: the blocks of queries.
        ranges: the ranges of items; there are several if there are fewer blocks than threads.
        n_threads: number of threads.
        buffer: number of scores that a thread needs memory for.
    """

    blocks: list[slice]
    ranges: list[slice]
    n_threads: int
    buffer: int

    @classmethod
    def of(cls, n_queries: int, n_items: int, width: int, n_threads: int) -> _Plan:
        """Divide an exact search for lists of `width` items among at most `n_threads` threads."""
        wanted = max(1, min(n_threads, _MAX_THREADS, n_queries * n_items // _SCORES_PER_THREAD))
        rows = max(_MIN_ROWS, -(-n_queries // wanted))
        rows = min(n_queries, rows, tiles.max_rows(n_items))
        blocks = list(_slices(n_queries, rows))
        n_ranges = max(1, min(wanted // len(blocks), n_items // _MIN_ITEMS))
        ranges = list(_slices(n_items, -(-n_items // n_ranges)))
        n_threads = min(wanted, len(blocks) * len(ranges))
        return cls(blocks, ranges, n_threads, tiles.buffer_size(rows, n_items, width))


def _slices(n: int, step: int) -> Iterator[slice]:
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def max_norm(items: Floats) -> float:
    """Return the largest Euclidean norm of an item embedding in a matrix.

    Raises:
        BrokenModel: an embedding holds NaN or infinity.
    """
    refuse_nan(items, "item")
    return float(_norms(items).max(initial=0))


def error_bound(queries: Floats, norm_bound: float) -> Floats:
    """Return the largest rounding error of the difference of two float32 scores of each query."""
    # twice the rounding error of a dot product (Higham 2002, section 3.1)
    return 2 * (queries.shape[1] + 2) * 2.0**-24 * _norms(queries) * norm_bound


def _norms(vectors: Floats) -> Floats:
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def refuse_nan(vectors: Floats, side: str) -> None:
    """Raise a BrokenModel error if an embedding holds NaN or infinity.

    Args:
        vectors: embeddings of queries or of items, float32 [n, d].
        side: which embeddings the error message names, "query" or "item".
    """
    if broken := int(np.count_nonzero(~np.isfinite(vectors).all(axis=1))):
        raise BrokenModel(
            f"{broken} of {len(vectors)} {side} embeddings hold NaN or infinity; "
            "the model is broken."
        )


def check_width(queries: Floats, items: Floats) -> None:
    """Raise a ValueError if embeddings of queries and items differ in their dimensions."""
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            "Queries and items must be equally wide. "
            f"Received: {queries.shape[1]} and {items.shape[1]} dimensions."
        )
