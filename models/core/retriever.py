"""What every retriever promises: given queries, the k best items, by one rule for ties and gaps.

A *row* is a position in the user table or the item table of the etl stage (`-1`: not in it). Rows
name entities one by one; codes index embedding tables and may be shared (rare items share an unseen
code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

State = TypeVar("State")

#: What stands in a list that has run out of items.
NO_ITEM = -1
#: Scores of a block of queries against the whole catalogue stay below about 16 MB.
BLOCK_SCORES = 4_000_000


@dataclass(frozen=True)
class Ragged:
    """Lists of varying length: list i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: int [n_values].
        offsets: int64 [n_lists + 1], rising, the first 0.
    """

    values: Ints
    offsets: Ints

    @classmethod
    def from_pairs(cls, lists: Ints, values: Ints, *, n_lists: int) -> Ragged:
        """Gather `values` by their list number; within a list their order is kept.

        Args:
            lists: int [n], the list that each value belongs to, in any order, each in [0, n_lists).
            values: int [n].
            n_lists: how many lists there are, empty ones included.
        """
        order = np.argsort(lists, kind="stable")
        offsets = np.zeros(n_lists + 1, np.int64)
        np.cumsum(np.bincount(lists, minlength=n_lists), out=offsets[1:])
        return cls(np.asarray(values)[order], offsets)

    @classmethod
    def empty(cls, n_lists: int) -> Ragged:
        """Return `n_lists` lists without values."""
        return cls(np.zeros(0, np.int64), np.zeros(n_lists + 1, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Ints:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Ints:
        """int64 [n_lists]."""
        return np.diff(self.offsets)

    def owners(self) -> Ints:
        """Return the list number of each value, int64 [n_values]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def take(self, lists: Ints) -> Ragged:
        """Return the lists at these numbers, in this order; `-1` gives an empty list."""
        lists = np.asarray(lists, np.int64)
        known = lists >= 0
        lengths = np.where(known, self.lengths[lists] if len(self) else 0, 0)
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        starts = np.where(known, self.offsets[:-1][lists] if len(self) else 0, 0)
        index = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, lengths)
        return Ragged(self.values[index], offsets)

    def last(self, n: int) -> Ragged:
        """Return the last `n` values of each list."""
        lengths = np.minimum(self.lengths, n)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        starts = np.repeat(self.offsets[1:] - lengths - offsets[:-1], lengths)
        return Ragged(self.values[np.arange(offsets[-1]) + starts], offsets)

    def to_csr(self, n_columns: int) -> sp.csr_matrix:
        """Return float32 [n_lists, n_columns] with ones where a list holds a value.

        Repeats count once; `-1` has no column and is left out.
        """
        known = self.values >= 0
        ones = np.ones(np.count_nonzero(known), np.float32)
        cells = (self.owners()[known], self.values[known])
        matrix = sp.csr_matrix((ones, cells), (len(self), n_columns))  # adds repeats up
        matrix.data[:] = 1.0
        return matrix


def joined(first: Ragged, second: Ragged) -> Ragged:
    """Return lists with the values of two: those of the first, then those of the second."""
    return Ragged.from_pairs(
        np.concatenate([first.owners(), second.owners()]),
        np.concatenate([first.values, second.values]),
        n_lists=len(first),
    )


@dataclass(frozen=True)
class Interactions:
    """Positive interactions in order of time (ties keep their order in the raw files).

    Attributes:
        users: user row of each interaction, int [n].
        items: item row of each interaction, int [n], none of them -1.
        times: seconds since the epoch, UTC, int64 [n], rising; None where the data has no time.
        n_users: rows of the user table.
        n_items: rows of the item table.
    """

    users: Ints
    items: Ints
    times: npt.NDArray[np.int64] | None
    n_users: int
    n_items: int

    def histories(self) -> Ragged:
        """Return each user's item rows, oldest first: a Ragged of n_users lists."""
        return Ragged.from_pairs(self.users, self.items, n_lists=self.n_users)


@dataclass(frozen=True)
class Queries:
    """Who asks, what they have done so far, and on what occasion.

    Attributes:
        users: user row, int64 [n_queries]; -1 is somebody unknown.
        histories: item rows of each query's user, oldest first; n_queries lists.
        contexts: inputs of the query tower that belong to the occasion, n_queries rows each; what
            is not here is as it was on the user's last occasion.
    """

    users: Ints
    histories: Ragged
    contexts: Mapping[str, npt.NDArray[np.generic] | Ragged] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Ints) -> Queries:
        """Return some of the queries."""
        contexts = {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.contexts.items()
        }
        return Queries(self.users[rows], self.histories.take(rows), contexts)

    def block(self, rows: slice) -> Queries:
        """Return the queries of a slice."""
        return self.take(np.arange(len(self))[rows])


class TopK(NamedTuple):
    """The k best items of each query, best first.

    Attributes:
        items: item rows, int64 [n_queries, k]; where fewer than k remain, NO_ITEM at the end.
        scores: float32 [n_queries, k]; -inf beside NO_ITEM.
    """

    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class Retriever(Protocol):
    """Anything that can be asked for the k best items."""

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k best items of each query.

        Args:
            queries: n_queries queries.
            k: list length, at least 1; may be larger than the catalogue.
            exclude: item rows that must not be returned, one list a query.
            candidates: the only items that may be returned, to anybody, bool [n_items]; None for
                all of them.
        """
        ...


class BrokenModel(ValueError):
    """A model gives scores that are no numbers."""


def fitted(state: State | None, model: object) -> State:
    """Return what a model has learnt, or say that it has not been fitted.

    Raises:
        ValueError: for a state that is None.
    """
    if state is None:
        name = type(model).__name__
        raise ValueError(f"{name} has learnt nothing yet. Use the model that {name}.fit returns.")
    return state


def check_k(k: int) -> None:
    """Refuse lists of no length.

    Raises:
        ValueError: for k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k = {k}.")


def best_k(
    scores: Floats, k: int, *, exclude: Ragged | None = None, candidates: Bools | None = None
) -> TopK:
    """Return the k best items of each row of scores: score down, then item row up.

    Args:
        scores: float [n_queries, n_items]; -inf means "never return".
        k: list length, at least 1.
        exclude: item rows to leave out, one list a query; `-1` leaves out nothing.
        candidates: the only items that may be returned, bool [n_items]; None for all.

    Raises:
        ValueError: for k < 1.
        BrokenModel: for NaN scores; they must not be ranked.
    """
    check_k(k)
    scores = np.array(scores, np.float32)  # a copy: the caller's block is not ours to mask
    if np.isnan(scores).any():
        raise BrokenModel(
            f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN; the model is broken."
        )
    if exclude is not None:
        known = exclude.values >= 0
        scores[exclude.owners()[known], exclude.values[known]] = -np.inf
    if candidates is not None:
        scores[:, ~candidates] = -np.inf
    n_items = scores.shape[1]
    width = min(k, n_items)
    items = _top_columns(scores, width)
    best = np.take_along_axis(scores, items, axis=1)
    items[np.isneginf(best)] = NO_ITEM
    gap = ((0, 0), (0, k - width))
    return TopK(
        np.pad(items, gap, constant_values=NO_ITEM), np.pad(best, gap, constant_values=-np.inf)
    )


def _top_columns(scores: Floats, width: int) -> npt.NDArray[np.int64]:
    """Return the columns of the `width` largest scores a row: score down, then column up."""
    n_items = scores.shape[1]
    if width == n_items:
        return np.argsort(-scores, axis=1, kind="stable").astype(np.int64)
    columns = np.sort(np.argpartition(-scores, width - 1, axis=1)[:, :width], axis=1)
    chosen = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-chosen, axis=1, kind="stable")
    top = np.take_along_axis(columns, order, axis=1).astype(np.int64)
    # argpartition takes any of the columns that tie for the last place; such rows are sorted whole
    last = chosen.min(axis=1, keepdims=True)
    tied = np.flatnonzero((scores >= last).sum(axis=1) > width)
    top[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :width]
    return top


def room(n_items: int) -> int:
    """Return of how many queries the scores of the whole catalogue may be in memory."""
    return 4 * (BLOCK_SCORES // max(1, n_items))


def blocks(
    n_queries: int, n_items: int, *, at_least: int = 1, at_a_time: int = 1
) -> Iterator[slice]:
    """Cut queries into slices whose scores against the whole catalogue fit in memory.

    Args:
        n_queries: to be cut.
        n_items: size of the catalogue.
        at_least: queries that a slice should have; for them it may be four times as large.
        at_a_time: slices that share that memory.
    """
    step = max(1, room(n_items) // 4 // at_a_time, min(at_least, room(n_items) // at_a_time))
    for start in range(0, n_queries, step):
        yield slice(start, min(start + step, n_queries))


def top_k_by_scores(
    score: Callable[[Queries], Floats],
    queries: Queries,
    k: int,
    *,
    n_items: int,
    exclude: Ragged | None = None,
    candidates: Bools | None = None,
) -> TopK:
    """Rank queries block by block with a function that scores the whole catalogue.

    Args:
        score: gives float [n_block, n_items] for a block of queries.
        queries: n_queries queries.
        k: list length.
        n_items: size of the catalogue.
        exclude: item rows to leave out, one list a query.
        candidates: the only items that may be returned, bool [n_items]; None for all.
    """
    parts = []
    for rows in blocks(len(queries), n_items):
        out = None if exclude is None else exclude.take(np.arange(rows.start, rows.stop))
        parts.append(best_k(score(queries.block(rows)), k, exclude=out, candidates=candidates))
    if not parts:
        return TopK(np.zeros((0, k), np.int64), np.zeros((0, k), np.float32))
    return TopK(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))
