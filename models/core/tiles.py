"""Ranks items for a block of queries: scores them tile by tile, and keeps the best of each query.

A tile holds the float32 scores of the block's queries and of some thousand items; it fits into the
cache of a core. An item can be among a query's k best only if its score in the tile reaches the
query's floor: the k-th best score so far, less the rounding error. Only the scores of such items
are summed in float64. After n items in random order, the next item reaches the floor with
probability k / n. So in most tiles the largest score of a query, which is found in a tenth of the
time of the matrix product, is below its floor, and nothing else is to be done.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.core.blas import product
from models.core.retriever import NO_ITEM, Bools, Floats, Ints, Ragged

Keys = npt.NDArray[np.int64]

#: Number of queries of a block, of items in its first tile, and of items in each further tile. The
#: first floors come from the first tile, which is scored for `_FIRST_SCORES` scores at a time.
_ROWS, _FIRST, _TILE = 512, 1 << 15, 1 << 11
_FIRST_SCORES = 1 << 22
#: Fewer queries get wider tiles, with so many scores.
_SCORES = 1 << 21
#: The first tile has at least this many times as many items as the lists.
_FIRST_PER_K = 64
#: New items are ranked when the number of scored items has grown by this factor, or when so many
#: pairs of a query and an item wait.
_GROWTH, _WAITING = 1.25, 1 << 20
#: Number of groups of columns in `_lower_bound`: this many times k, but at least the second number.
_GROUPS_PER_K, _MIN_GROUPS = 4, 512
#: Number of pairs whose scores are summed in float64 at a time; they fit into the cache.
_PAIRS = 512
#: Number of keys that are sorted at a time.
_SORTED = 1 << 22


class Pairs(NamedTuple):
    """Pairs of a query and an item, by rising row number of the item.

    Attributes:
        rows: the query of each pair, int64 [n_pairs].
        columns: the item of each pair, rising row numbers in the item table, int [n_pairs].
    """

    rows: Ints
    columns: Ints

    @classmethod
    def of(cls, lists: Ragged) -> Pairs:
        """Return the pairs of lists of items, one list per query."""
        order = np.argsort(lists.values, kind="stable")
        return cls(lists.owners()[order], lists.values[order])

    def among(self, items: slice) -> Pairs:
        """Return the pairs whose items are in a range of the item table."""
        first, last = np.searchsorted(self.columns, [items.start, items.stop])
        return Pairs(self.rows[first:last], self.columns[first:last])


@dataclass(frozen=True)
class Block:
    """Some queries and the items that they may not return.

    Attributes:
        queries: the embedding of each query, float32 [n_queries, d].
        slack: the largest error of a difference of two float32 scores of a query, [n_queries].
        exclude: items to leave out, as row numbers in the item table, one list per query; None for
            none.
        hidden: for each item of the catalogue, whether no query may return it; None for none.
    """

    queries: Floats
    slack: Floats
    exclude: Ragged | None
    hidden: Bools | None

    @cached_property
    def _excluded(self) -> Pairs:
        """The pairs of a query and an item that the query may not return."""
        return Pairs.of(self.exclude or Ragged.empty(len(self.queries)))

    def _excluded_among(self, items: slice, n_items: int) -> Pairs:
        """Return the pairs whose items are in a range of the item table, which has `n_items`."""
        if self.exclude is None or items != slice(0, n_items):
            return self._excluded.among(items)
        known = self.exclude.values >= 0  # one tile has all items: there is nothing to sort
        return Pairs(self.exclude.owners()[known], self.exclude.values[known])

    def scores(self, items: Floats, rows: slice, among: slice, buffer: Floats) -> Floats:
        """Return the float32 scores of some queries and items; -inf for excluded items.

        Args:
            items: the embedding of each item of the catalogue, float32 [n_items, d].
            rows: the queries to score.
            among: the items to score.
            buffer: memory for the scores.
        """
        shape = (rows.stop - rows.start, among.stop - among.start)
        out = buffer[: shape[0] * shape[1]].reshape(shape)
        scores = product(self.queries[rows], items[among], out=out)
        if self.hidden is not None and self.hidden[among].any():
            np.copyto(scores, -np.inf, where=self.hidden[among])
        owners, columns = self._excluded_among(among, len(items))
        if shape[0] < len(self.queries):
            mine = np.flatnonzero((owners >= rows.start) & (owners < rows.stop))
            owners, columns = owners[mine], columns[mine]
        scores[owners - rows.start, columns - among.start] = -np.inf
        return scores


def rank(block: Block, items: Floats, among: slice, width: int, buffer: Floats) -> Keys:
    """Return the sort keys of each query's best items, best first, int64 [n_queries, width].

    Args:
        block: the queries.
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        among: the consecutive items that are ranked; at least one.
        width: number of items to return for each query; missing ones have `NO_KEY`.
        buffer: memory for `buffer_size` float32 scores; new memory takes longer than the product.
    """
    n = len(block.queries)
    keys = np.full((n, width), NO_KEY)
    n_first = _first_tile(n, among.stop - among.start, width)
    first = slice(among.start, among.start + n_first)
    step = _first_rows(n, n_first)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        scores = block.scores(items, rows, first, buffer)
        floors = _floors(_lower_bound(scores, width), block.slack[rows])
        cells = np.flatnonzero(scores >= floors[:, None])
        found, columns = np.divmod(cells, scores.shape[1])
        new = _keys_of_pairs(block.queries[rows], items, found, columns + first.start)
        keys[rows] = _sorted_by_query(new, found, len(scores), width)
    if first.stop < among.stop:
        _rank_tiles(keys, block, items, slice(first.stop, among.stop), among.start, buffer)
    return keys


def max_rows(n_items: int) -> int:
    """Return the largest number of queries that a block should have."""
    return max(_ROWS, _FIRST_SCORES // n_items)


def buffer_size(n_queries: int, n_items: int, width: int) -> int:
    """Return the number of scores that `rank` needs memory for."""
    first = _first_tile(n_queries, n_items, width)
    others = min(_tile(n_queries), n_items - first) * n_queries
    return max(first * _first_rows(n_queries, first), others)


def _first_tile(n_queries: int, n_items: int, width: int) -> int:
    wanted = max(_FIRST, min(2 * _FIRST, 4 * _FIRST_PER_K * width), _FIRST_PER_K * width)
    return min(n_items, max(wanted, _SCORES // n_queries))


def _first_rows(n_queries: int, n_first: int) -> int:
    """Return for how many queries at a time the first tile, of `n_first` items, is scored."""
    return max(1, min(n_queries, _FIRST_SCORES // n_first))


def _tile(n_queries: int) -> int:
    return max(_TILE, _SCORES // n_queries)


def _rank_tiles(
    keys: Keys, block: Block, items: Floats, among: slice, begin: int, buffer: Floats
) -> None:
    """Add items to ranked lists, tile by tile.

    Args:
        keys: the sort keys of the best of the items from `begin` on; they are changed.
        block: the queries.
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        among: the consecutive items to add.
        begin: the row number of the first item that was ranked.
        buffer: memory for the scores of a tile.
    """
    n, width = keys.shape
    every, numbers, step = slice(0, n), np.arange(n), _tile(n)
    floors = _floors(scores_of_keys(keys[:, -1]), block.slack)
    waiting: list[tuple[Ints, Ints]] = []
    due = among.start
    for start in range(among.start, among.stop, step):
        stop = min(start + step, among.stop)
        scores = block.scores(items, every, slice(start, stop), buffer)
        some = np.flatnonzero(scores[numbers, scores.argmax(axis=1)] >= floors)
        if len(some):
            rows, columns = _reaching(scores, some, floors, block.slack, width)
            waiting.append((rows, columns + start))
        n_waiting = sum(len(rows) for rows, _ in waiting)
        is_due = stop - begin >= _GROWTH * (due - begin) or stop == among.stop
        if n_waiting and (is_due or n_waiting > _WAITING):
            rows, columns = (np.concatenate(each) for each in zip(*waiting, strict=True))
            _add(keys, block.queries, items, rows, columns)
            floors = np.maximum(floors, _floors(scores_of_keys(keys[:, -1]), block.slack))
            waiting, due = [], stop


def _reaching(
    scores: Floats, some: Ints, floors: Floats, slack: Floats, width: int
) -> tuple[Ints, Ints]:
    """Return rows and columns of the scores that reach the floors of their queries.

    If there are many, the floors are raised by the scores of this tile.

    Args:
        scores: the scores of a tile, float32 [n_queries, n_columns].
        some: the rows of queries with a score that reaches the floor.
        floors: the floor of each query, float32 [n_queries]; it may be raised.
        slack: see `Block`.
        width: length of the lists.
    """
    scores = scores[some]
    reach = scores >= floors[some, None]
    if np.count_nonzero(reach) > _GROUPS_PER_K * width * len(some):
        bound = _floors(_lower_bound(scores, width), slack[some])
        floors[some] = np.maximum(floors[some], bound)
        reach = scores >= floors[some, None]
    rows, columns = np.divmod(np.flatnonzero(reach), scores.shape[1])
    return some[rows], columns


def _floors(bounds: Floats, slack: Floats) -> npt.NDArray[np.float32]:
    """Return the smallest float32 score of an item that may be among the best, [n_queries].

    Args:
        bounds: a lower bound of each query's k-th largest score; -inf if there is none.
        slack: see `Block`.
    """
    floors = np.maximum(bounds - slack, np.finfo(np.float32).min)  # -inf is excluded
    return np.asarray(floors, np.float32)


def _lower_bound(scores: Floats, k: int) -> Floats:
    """Return a lower bound of each query's k-th largest score, float32 [n_rows].

    The columns are split into groups, and the bound is the k-th largest of the groups' maxima, so
    that at least k scores reach it. If the number of groups is a few times k, hardly more than k
    scores reach the bound. To compute the bound takes a tenth of the time of a partial sort of all
    scores.
    """
    n_rows, n_columns = scores.shape
    if n_columns < k:
        return np.full(n_rows, -np.inf, np.float32)
    groups = min(max(_GROUPS_PER_K * k, _MIN_GROUPS), n_columns)
    each = n_columns // groups
    maxima = scores[:, : groups * each].reshape(n_rows, each, groups).max(axis=1)
    maxima.sort(axis=1)  # three times as fast as np.partition for so few
    return maxima[:, groups - k]


def _add(keys: Keys, queries: Floats, items: Floats, rows: Ints, columns: Ints) -> None:
    """Add pairs of a query and an item to the ranked lists of the queries.

    Args:
        keys: the sort keys of each query's list, int64 [n_queries, width]; they are changed.
        queries: the embedding of each query, float32 [n_queries, d].
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        rows: the query of each pair, int [n_pairs].
        columns: the item of each pair, int [n_pairs].
    """
    new = _keys_of_pairs(queries, items, rows, columns)
    lists = Ragged.from_pairs(rows, new, n_lists=len(keys))
    # queries with many new items apart from those with few: a matrix is as wide as its longest row
    ranked = np.argsort(-lists.lengths, kind="stable")[: np.count_nonzero(lists.lengths)]
    width, done = keys.shape[1], 0
    while done < len(ranked):
        step = max(1, _SORTED // (width + int(lists.lengths[ranked[done]])))
        some = np.sort(ranked[done : done + step])
        found = lists.take(some)
        more = _sorted_by_query(found.values, found.owners(), len(some), 0)
        merged = np.concatenate([keys[some], more], axis=1)
        merged.sort(axis=1)
        keys[some] = merged[:, :width]
        done += step


def _keys_of_pairs(queries: Floats, items: Floats, rows: Ints, columns: Ints) -> Keys:
    """Return the sort keys of pairs of a query and an item, int64 [n_pairs]."""
    return _sort_keys(dot_products(queries, items, rows, columns), columns)


def _sorted_by_query(keys: Ints, rows: Ints, n_rows: int, width: int) -> Keys:
    """Sort the keys of each query.

    Args:
        keys: sort keys, int64 [n].
        rows: the query of each key, rising, int [n].
        n_rows: number of queries.
        width: number of keys to return for each query; 0 for all of them.

    Returns:
        int64 [n_rows, width]; missing keys are `NO_KEY`.
    """
    counts = np.bincount(rows, minlength=n_rows)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    wide = np.full((n_rows, max(width, int(counts.max()))), NO_KEY)
    wide[rows, places] = keys
    wide.sort(axis=1)
    return wide[:, :width] if width else wide


#: The key of an empty place, larger than all others, and the bits of a key that hold the column.
NO_KEY, _COLUMN_BITS = np.iinfo(np.int64).max, np.int64(2**32 - 1)


def _sort_keys(scores: npt.NDArray[np.float32], columns: Ints) -> Keys:
    """Return integer keys whose order is descending score, and at equal scores ascending column."""
    bits = (0.0 - scores).view(np.int32)  # 0 - x, not -x, which would make -0
    # the bits, as integers, sort like floats; for negative floats, in reverse
    rising = np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits)
    return (rising.astype(np.int64) << 32) | columns


def scores_of_keys(keys: Keys) -> npt.NDArray[np.float32]:
    """Return the scores that are encoded in the sort keys of items; -inf for no item."""
    rising = (keys >> 32).astype(np.int32)
    bits = np.where(rising < 0, rising ^ np.int32(2**31 - 1), rising)
    return np.where(keys == NO_KEY, np.float32(-np.inf), 0.0 - bits.view(np.float32))


def items_of_keys(keys: Keys) -> npt.NDArray[np.int64]:
    """Return the row numbers of items that are encoded in their sort keys; NO_ITEM for no item."""
    return np.where(keys == NO_KEY, NO_ITEM, keys & _COLUMN_BITS)


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
