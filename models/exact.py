"""Full-catalogue search: the scores of every item, in blocks of queries. The truth for `ann.py`.

The towers' outputs are taken as they are; a query's score of an item is their dot product. A prior
(say, of recent popularity) is one dimension more, with 1 on the users' side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

from models.retriever import (
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
)


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

    Raises:
        ValueError: when the two are not equally wide, and for k < 1.
        BrokenModel: for embeddings that are no numbers.
    """
    _check_width(vectors, items)
    check_k(k)
    _refuse_nan(vectors, "query")
    _refuse_nan(items, "item")
    vectors, items = (np.ascontiguousarray(v, np.float32) for v in (vectors, items))
    hidden = None if candidates is None else np.flatnonzero(~candidates)
    lists = np.full((len(vectors), k), NO_ITEM, np.int64)
    bests = np.full((len(vectors), k), -np.inf, np.float32)
    slack = _error(vectors, items)
    buffer = np.empty(0, np.float32)  # one for all blocks: fresh memory costs more than the product
    for rows in blocks(len(vectors), len(items)):
        shape = (rows.stop - rows.start, len(items))
        buffer = buffer if buffer.size else np.empty(shape, np.float32)
        scores = _product(vectors[rows], items, out=buffer[: shape[0]])
        if hidden is not None:
            scores[:, hidden] = -np.inf
        if exclude is not None:
            out = exclude.take(np.arange(rows.start, rows.stop))
            known = out.values >= 0
            scores[out.owners()[known], out.values[known]] = -np.inf
        into = TopK(lists[rows], bests[rows])
        _rank(vectors[rows], items, scores, min(k, len(items)), slack[rows], into)
    return TopK(lists, bests)


#: Columns that a first bound for the k-th score is taken from.
_SAMPLE = 8192
#: Pairs whose scores are summed in float64 at a time.
_PAIRS = 1 << 18


def _product(queries: Floats, items: Floats, *, out: Floats) -> Floats:
    """Write all scores into `out`, float32 [n_queries, n_items].

    By SciPy's BLAS, not NumPy's: NumPy 1.23 brings one of 2022, which does not know the processors
    made since and then uses the instructions of 2004 (4 times slower, benchmarks/NOTES.md).
    """
    if out.size:
        blas.sgemm(1.0, items.T, queries.T, trans_a=True, c=out.T, overwrite_c=True)
    return out


def _error(queries: Floats, items: Floats) -> Floats:
    """Return how far two float32 scores of a query can be from their true order, [n_queries]."""
    if not len(items):
        return np.zeros(len(queries))
    lengths = [np.sqrt(np.einsum("nd,nd->n", v, v, dtype=np.float64)) for v in (queries, items)]
    # rounding of a dot product (Higham 2002, section 3.1), once for each of the two compared
    return 2 * (items.shape[1] + 2) * 2.0**-24 * lengths[0] * lengths[1].max()


def _rank(
    queries: Floats, items: Floats, scores: Floats, width: int, slack: Floats, into: TopK
) -> None:
    """Fill the lists of a block of queries from its float32 scores; -inf is never shown."""
    if not width:
        return
    sample = scores[:, :_SAMPLE] if width <= _SAMPLE // 4 else scores
    floor = _kth(sample, width) - slack
    floor = np.maximum(floor, np.finfo(np.float32).min).astype(np.float32)
    rows, columns = np.divmod(np.flatnonzero(scores >= floor[:, None]), scores.shape[1])
    if sample.shape[1] < scores.shape[1]:
        kept = _narrow(scores[rows, columns], rows, len(queries), width, slack)
        rows, columns = rows[kept], columns[kept]
    exact = _sums(queries, items, rows, columns)
    order = np.lexsort((columns, -exact, rows))
    rows, columns, exact = rows[order], columns[order], exact[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(queries)))[rows]
    best = rank < width
    into.items[rows[best], rank[best]] = columns[best]
    into.scores[rows[best], rank[best]] = exact[best]


def _kth(scores: Floats, k: int) -> Floats:
    """Return the k-th largest of each row, float32 [n_rows]."""
    place = scores.shape[1] - k
    return np.partition(scores, place, axis=1)[:, place]


def _narrow(scores: Floats, rows: Ints, n_rows: int, width: int, slack: Floats) -> Bools:
    """Say which of some rows' scores can be among the `width` best of their row."""
    ends = np.searchsorted(rows, np.arange(n_rows + 1))
    kept = np.ones(len(scores), bool)
    for row in np.flatnonzero(np.diff(ends) > width):
        of_row = slice(ends[row], ends[row + 1])
        kept[of_row] = scores[of_row] >= _kth(scores[None, of_row], width) - slack[row]
    return kept


def _sums(queries: Floats, items: Floats, rows: Ints, columns: Ints) -> npt.NDArray[np.float32]:
    """Return dot products of pairs, summed in float64, float32 [n_pairs]."""
    sums = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _PAIRS):
        pairs = slice(start, start + _PAIRS)
        sums[pairs] = np.einsum(
            "nd,nd->n", queries[rows[pairs]], items[columns[pairs]], dtype=np.float64
        )
    return sums


def _refuse_nan(vectors: Floats, whose: str) -> None:
    if broken := int(np.count_nonzero(~np.isfinite(vectors).all(axis=1))):
        raise BrokenModel(
            f"{broken} of {len(vectors)} {whose} embeddings hold NaN or infinity; "
            "the model is broken."
        )


def _check_width(queries: Floats, items: Floats) -> None:
    """Raise a ValueError when two sets of embeddings have no dot product."""
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            "Queries and items must be equally wide. "
            f"Received: {queries.shape[1]} and {items.shape[1]} dimensions."
        )
