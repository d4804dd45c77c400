"""Full-catalogue search: the scores of every item, in blocks of queries. The truth for `ann.py`.

The towers' outputs are taken as they are; a query's score of an item is their dot product. A prior
(say, of recent popularity) is one dimension more, with 1 on the users' side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.core.blas import product, side_by_side, threads
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
    room,
)


@dataclass(frozen=True)
class Exact:
    """Embeddings of users and items, searched by brute force.

    Attributes:
        users: float32 [n_users + 1, d]; the last row stands for every unknown user.
        items: float32 [n_items, d].
        longest: what `looked_through` says of the items; None to look whenever it is asked.
    """

    users: Floats
    items: Floats
    longest: float | None = None

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
        """Rank the catalogue for each query's user; histories are not read.

        Raises:
            ValueError: for a user row outside [-1, n_users).
        """
        vectors = user_vectors(self.users, queries)
        return search(
            *(vectors, self.items, k),
            exclude=exclude,
            candidates=candidates,
            longest=self.longest,
        )


def user_vectors(users: Floats, queries: Queries) -> Floats:
    """Return the embedding of each query's user, float32 [n_queries, d].

    Args:
        users: float32 [n_users + 1, d]; the last row stands for every unknown user.
        queries: n_queries queries.

    Raises:
        ValueError: for a user row outside [-1, n_users).
    """
    n_users = len(users) - 1
    strange = (queries.users < -1) | (queries.users >= n_users)
    if strange.any():
        raise ValueError(
            f"User rows must lie in [-1, {n_users}). Received: {queries.users[strange][0]}."
        )
    return users[queries.users]  # row -1, the unknown user, is the last row for numpy too


def search(
    vectors: Floats,
    items: Floats,
    k: int,
    *,
    exclude: Ragged | None = None,
    candidates: Bools | None = None,
    longest: float | None = None,
) -> TopK:
    """Rank the catalogue for embeddings of queries.

    Scores are sums in float64 rounded to float32. In float32 the last bit depends on an item's
    place in the matrix and on the number of queries, and items with the same embedding (rare items
    share one) would not tie. A product in float32 is twice as fast, though, and its error has a
    bound: it finds the few items that can be among the best, and only those are summed again.

    Args:
        vectors: float32 [n_queries, d].
        items: float32 [n_items, d].
        k: list length.
        exclude: item rows to leave out, one list a query.
        candidates: the only items that may be returned, bool [n_items]; None for all.
        longest: what `looked_through` says of the items, so that they are not looked through for
            every question.

    Raises:
        ValueError: when the two are not equally wide, and for k < 1.
        BrokenModel: for embeddings that are no numbers.
    """
    check_width(vectors, items)
    check_k(k)
    refuse_nan(vectors, "query")
    longest = looked_through(items) if longest is None else longest
    vectors, items = (np.ascontiguousarray(v, np.float32) for v in (vectors, items))
    hidden = None if candidates is None else np.flatnonzero(~candidates)
    lists = np.full((len(vectors), k), NO_ITEM, np.int64)
    bests = np.full((len(vectors), k), -np.inf, np.float32)
    slack = error_bound(vectors, longest)
    n_threads = max(1, min(threads(), _MOST_THREADS, room(len(items)) // _FEW_ROWS))
    parts = list(blocks(len(vectors), len(items), at_least=_ROWS, at_a_time=n_threads))
    todo = iter(parts)

    def work() -> None:
        buffer = np.empty(0, np.float32)  # one for all: fresh memory costs more than the product
        for rows in todo:
            shape = (rows.stop - rows.start, len(items))
            buffer = buffer if len(buffer) >= shape[0] else np.empty(shape, np.float32)
            scores = product(vectors[rows], items, out=buffer[: shape[0]])
            if hidden is not None:
                scores[:, hidden] = -np.inf
            if exclude is not None:
                out = exclude.take(np.arange(rows.start, rows.stop))
                known = out.values >= 0
                scores[out.owners()[known], out.values[known]] = -np.inf
            _rank(vectors[rows], items, scores, slack[rows], TopK(lists[rows], bests[rows]))

    side_by_side(work, max(1, min(n_threads, len(parts))))
    return TopK(lists, bests)


#: Groups of columns whose maxima bound the k-th score from below: so many times k, and at least.
_GROUPS, _MIN_GROUPS = 4, 512
#: Pairs whose scores are summed in float64 at a time: few enough for the cache.
_PAIRS = 512
#: Rows that the product should have at a time: it rearranges the whole catalogue first.
_ROWS = 128
#: Rows that it must have, or two threads that each rearrange are slower than one product in two.
_FEW_ROWS = 16
#: Threads that rank; what many more of them would do for the interpreter's lock was not measured.
_MOST_THREADS = 8


def looked_through(items: Floats) -> float:
    """Return the length of the longest item embedding.

    Raises:
        BrokenModel: for embeddings that are no numbers.
    """
    refuse_nan(items, "item")
    return float(_lengths(items).max(initial=0))


def error_bound(queries: Floats, longest: float) -> Floats:
    """Return how far two float32 scores of a query can be from their true order, [n_queries]."""
    # rounding of a dot product (Higham 2002, section 3.1), once for each of the two compared
    return 2 * (queries.shape[1] + 2) * 2.0**-24 * _lengths(queries) * longest


def _lengths(vectors: Floats) -> Floats:
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def _rank(queries: Floats, items: Floats, scores: Floats, slack: Floats, into: TopK) -> None:
    """Fill the lists of a block of queries from its float32 scores; -inf is never shown."""
    width = min(into.items.shape[1], len(items))
    if not width:
        return
    floor = np.maximum(_bound(scores, width) - slack, np.finfo(np.float32).min)
    cells = np.flatnonzero(scores >= floor.astype(np.float32)[:, None])
    rows, columns = np.divmod(cells, scores.shape[1])
    exact = dot_products(queries, items, rows, columns)
    count = np.bincount(rows, minlength=len(queries))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    keys = np.full((len(queries), max(width, count.max())), _LAST)
    keys[rows, place] = _keys(exact, columns)
    keys.sort(axis=1)
    best = keys[:, :width]
    into.items[:, :width] = np.where(best == _LAST, NO_ITEM, best & _COLUMN)
    into.scores[:, :width] = _scores(best)


def _bound(scores: Floats, k: int) -> Floats:
    """Return a lower bound of the k-th largest of each row, float32 [n_rows].

    The columns are dealt out to groups, and the k-th largest of the groups' maxima is the bound: k
    scores of different groups reach it. With a few times k groups hardly more than k scores lie
    above it, and maxima cost a tenth of a partition of everything.
    """
    n_rows, n_columns = scores.shape
    groups = min(max(_GROUPS * k, _MIN_GROUPS), n_columns)
    each = n_columns // groups
    maxima = scores[:, : groups * each].reshape(n_rows, each, groups).max(axis=1)
    maxima.sort(axis=1)  # of so few, three times as fast as NumPy's partition
    return maxima[:, groups - k]


#: A key of nothing, behind all others; the bits of a key that hold the column.
_LAST, _COLUMN = np.iinfo(np.int64).max, np.int64(2**32 - 1)


def _keys(scores: npt.NDArray[np.float32], columns: Ints) -> npt.NDArray[np.int64]:
    """Return numbers whose order is the tie rule's: score down, then column up."""
    bits = (0.0 - scores).view(np.int32)  # 0 - x, not -x: there is one zero only
    # the bits of a float rise with it, but for negative ones, where they fall
    rising = np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits)
    return (rising.astype(np.int64) << 32) | columns


def _scores(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the scores that keys were made of; -inf for none."""
    rising = (keys >> 32).astype(np.int32)
    bits = np.where(rising < 0, rising ^ np.int32(2**31 - 1), rising)
    return np.where(keys == _LAST, np.float32(-np.inf), 0.0 - bits.view(np.float32))


def dot_products(
    queries: Floats, items: Floats, rows: Ints, columns: Ints
) -> npt.NDArray[np.float32]:
    """Return dot products of pairs, summed in float64, float32 [n_pairs]."""
    sums = np.empty(len(rows), np.float32)
    queries = queries.astype(np.float64)
    for start in range(0, len(rows), _PAIRS):
        pairs = slice(start, start + _PAIRS)
        # take is twice as fast as an index, and a cast ahead faster than one inside of einsum
        left, right = queries.take(rows[pairs], 0), items.take(columns[pairs], 0)
        sums[pairs] = np.einsum("nd,nd->n", left, right.astype(np.float64))
    return sums


def refuse_nan(vectors: Floats, whose: str) -> None:
    if broken := int(np.count_nonzero(~np.isfinite(vectors).all(axis=1))):
        raise BrokenModel(
            f"{broken} of {len(vectors)} {whose} embeddings hold NaN or infinity; "
            "the model is broken."
        )


def check_width(queries: Floats, items: Floats) -> None:
    """Raise a ValueError when two sets of embeddings have no dot product."""
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            "Queries and items must be equally wide. "
            f"Received: {queries.shape[1]} and {items.shape[1]} dimensions."
        )
