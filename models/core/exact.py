"""Exact search: scores every item of the catalogue, in blocks of queries.

The score of a query and an item is the dot product of their embeddings. A popularity prior is one
more dimension of the item embeddings; in user embeddings, this dimension is 1. The recall of
approximate search is measured against exact search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.core.blas import product, run_in_threads, threads
from models.core.retriever import (
    NO_ITEM,
    Bools,
    BrokenModel,
    Floats,
    Ints,
    Queries,
    Ragged,
    TopK,
    blocks,
    check_k,
    max_rows,
)


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
    hidden = None if candidates is None else np.flatnonzero(~candidates)
    best = TopK.empty(len(vectors), k)
    slack = error_bound(vectors, norm_bound)
    n_threads = max(1, min(threads(), _MAX_THREADS, max_rows(len(items)) // _MIN_ROWS))
    slices = list(blocks(len(vectors), len(items), at_least=_GOOD_ROWS, at_a_time=n_threads))
    remaining = iter(slices)

    def work() -> None:
        buffer = np.empty(0, np.float32)  # reused: new memory takes longer than the product
        for rows in remaining:
            shape = (rows.stop - rows.start, len(items))
            buffer = buffer if len(buffer) >= shape[0] else np.empty(shape, np.float32)
            scores = product(vectors[rows], items, out=buffer[: shape[0]])
            if hidden is not None:
                scores[:, hidden] = -np.inf
            if exclude is not None:
                out = exclude.take(np.arange(rows.start, rows.stop))
                known = out.values >= 0
                scores[out.owners()[known], out.values[known]] = -np.inf
            _rank(
                vectors[rows], items, scores, slack[rows], TopK(best.items[rows], best.scores[rows])
            )

    run_in_threads(work, max(1, min(n_threads, len(slices))))
    return best


#: Number of groups of columns in `_lower_bound`: this many times k, but at least the second number.
_GROUPS_PER_K, _MIN_GROUPS = 4, 512
#: Number of pairs whose scores are summed in float64 at a time; they fit into the cache.
_PAIRS = 512
#: Number of queries that a product should have: BLAS first rearranges the whole catalogue.
_GOOD_ROWS = 128
#: With fewer queries for each product, several threads are slower than one product in them all.
_MIN_ROWS = 16
#: Largest number of threads that exact search uses; more were not measured.
_MAX_THREADS = 8


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


def _rank(queries: Floats, items: Floats, scores: Floats, slack: Floats, into: TopK) -> None:
    """Fill the top-k lists of some queries from float32 scores of all items (-inf: excluded)."""
    width = min(into.items.shape[1], len(items))
    if not width:
        return
    floor = np.maximum(_lower_bound(scores, width) - slack, np.finfo(np.float32).min)
    cells = np.flatnonzero(scores >= floor.astype(np.float32)[:, None])
    rows, columns = np.divmod(cells, scores.shape[1])
    exact = dot_products(queries, items, rows, columns)
    counts = np.bincount(rows, minlength=len(queries))
    positions = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = np.full((len(queries), max(width, counts.max())), _NO_KEY)
    keys[rows, positions] = _sort_keys(exact, columns)
    keys.sort(axis=1)
    best = keys[:, :width]
    into.items[:, :width] = np.where(best == _NO_KEY, NO_ITEM, best & _COLUMN_BITS)
    into.scores[:, :width] = _scores_of_keys(best)


def _lower_bound(scores: Floats, k: int) -> Floats:
    """Return a lower bound of each query's k-th largest score, float32 [n_rows].

    The columns are split into groups, and the bound is the k-th largest of the groups' maxima, so
    that at least k scores reach it. If the number of groups is a few times k, hardly more than k
    scores reach the bound. To compute the bound takes a tenth of the time of a partial sort of all
    scores.
    """
    n_rows, n_columns = scores.shape
    groups = min(max(_GROUPS_PER_K * k, _MIN_GROUPS), n_columns)
    each = n_columns // groups
    maxima = scores[:, : groups * each].reshape(n_rows, each, groups).max(axis=1)
    maxima.sort(axis=1)  # three times as fast as np.partition for so few
    return maxima[:, groups - k]


#: The key of an empty place, larger than all others, and the bits of a key that hold the column.
_NO_KEY, _COLUMN_BITS = np.iinfo(np.int64).max, np.int64(2**32 - 1)


def _sort_keys(scores: npt.NDArray[np.float32], columns: Ints) -> npt.NDArray[np.int64]:
    """Return integer keys whose order is descending score, and at equal scores ascending column."""
    bits = (0.0 - scores).view(np.int32)  # 0 - x, not -x, which would make -0
    # the bits, as integers, sort like floats; for negative floats, in reverse
    rising = np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits)
    return (rising.astype(np.int64) << 32) | columns


def _scores_of_keys(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the scores that are encoded in the integer keys of `_sort_keys`; -inf for no item."""
    rising = (keys >> 32).astype(np.int32)
    bits = np.where(rising < 0, rising ^ np.int32(2**31 - 1), rising)
    return np.where(keys == _NO_KEY, np.float32(-np.inf), 0.0 - bits.view(np.float32))


def dot_products(
    queries: Floats, items: Floats, rows: Ints, columns: Ints
) -> npt.NDArray[np.float32]:
    """Return dot products of pairs of embeddings, float32 [n_pairs], summed in float64."""
    sums = np.empty(len(rows), np.float32)
    queries = queries.astype(np.float64)
    for start in range(0, len(rows), _PAIRS):
        pairs = slice(start, start + _PAIRS)
        # take() is twice as fast as indexing, and a cast before einsum faster than one within it
        left, right = queries.take(rows[pairs], 0), items.take(columns[pairs], 0)
        sums[pairs] = np.einsum("nd,nd->n", left, right.astype(np.float64))
    return sums


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
