"""The protocol of all retrievers: for each query the k best items, with one tie rule.

The tie rule: items are sorted by descending score, and items with equal scores by ascending item
row. A list with fewer than k items ends with `NO_ITEM`.

A *row* is a position in the user table or the item table of the etl stage, or -1 for a user or item
that the table does not have. No two users, and no two items, have the same row. A *code* is an
index into an embedding table; several items can share a code: rare items share the code of unknown
values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

State = TypeVar("State")

#: Item row at the end of a list with fewer than k items.
NO_ITEM = -1
#: Number of scores in a block of queries; in float32 they take about 16 MB.
BLOCK_SCORES = 4_000_000


@dataclass(frozen=True)
class Ragged:
    """Lists of varying length: list i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: the values of all lists, one list after the other, int [n_values].
        offsets: where each list starts in `values`, int64 [n_lists + 1], not falling, the first is
            0.
    """

    values: Ints
    offsets: Ints

    @classmethod
    def from_pairs(cls, lists: Ints, values: Ints, *, n_lists: int) -> Ragged:
        """Build lists from pairs (index of a list, value); values of a list keep their order.

        Args:
            lists: index of the list of each value, in [0, n_lists), int [n], in any order.
            values: the values to be grouped, int [n].
            n_lists: number of lists to make, including empty ones.
        """
        order = np.argsort(lists, kind="stable")
        offsets = np.zeros(n_lists + 1, np.int64)
        np.cumsum(np.bincount(lists, minlength=n_lists), out=offsets[1:])
        return cls(np.asarray(values)[order], offsets)

    @classmethod
    def empty(cls, n_lists: int) -> Ragged:
        """Return `n_lists` empty lists."""
        return cls(np.zeros(0, np.int64), np.zeros(n_lists + 1, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Ints:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Ints:
        """The number of values of each list, int64 [n_lists]."""
        return np.diff(self.offsets)

    def owners(self) -> Ints:
        """Return, for each value, the index of the list that holds it, int64 [n_values]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def take(self, lists: Ints) -> Ragged:
        """Return the lists with the given numbers, in the given order; -1 gives an empty list."""
        lists = np.asarray(lists, np.int64)
        offsets = np.zeros(len(lists) + 1, np.int64)
        if not len(self):
            return Ragged(self.values[:0], offsets)
        starts = self.offsets[lists]
        # -1 is the end of the last list, and the list "after" it begins at 0
        lengths = np.maximum(self.offsets[lists + 1] - starts, 0)
        np.cumsum(lengths, out=offsets[1:])
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Ragged(self.values[index], offsets)

    def last(self, n: int) -> Ragged:
        """Return the last `n` values of each list."""
        lengths = np.minimum(self.lengths, n)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        starts = np.repeat(self.offsets[1:] - lengths - offsets[:-1], lengths)
        return Ragged(self.values[np.arange(offsets[-1]) + starts], offsets)

    def to_csr(self, n_columns: int) -> sp.csr_matrix:
        """Return the lists as a sparse matrix [n_lists, n_columns] with 1 at the values of a list.

        A value that a list holds twice gives 1, too; the value -1 is left out.
        """
        known = self.values >= 0
        ones = np.ones(np.count_nonzero(known), np.float32)
        cells = (self.owners()[known], self.values[known])
        matrix = sp.csr_matrix((ones, cells), (len(self), n_columns))  # it adds duplicates up
        matrix.data[:] = 1.0
        return matrix


def concatenate_lists(first: Ragged, second: Ragged) -> Ragged:
    """Concatenate two Ragged list by list: list i of the first, then list i of the second."""
    return Ragged.from_pairs(
        np.concatenate([first.owners(), second.owners()]),
        np.concatenate([first.values, second.values]),
        n_lists=len(first),
    )


@dataclass(frozen=True)
class Interactions:
    """Positive user-item interactions in order of time; at equal times, in the raw files' order.

    Attributes:
        users: the user of each interaction, as a row number in the user table, int [n]; negative
            for an unknown user.
        items: the item of each interaction, as a row number in the item table, int [n]; -1 for an
            item that is not in the table.
        times: the time of each interaction in seconds since 1970, UTC, int64 [n], not falling; None
            if the data has no times.
        n_users: number of rows of the user table.
        n_items: number of rows of the item table.
    """

    users: Ints
    items: Ints
    times: npt.NDArray[np.int64] | None
    n_users: int
    n_items: int

    def of_known_users(self) -> Interactions:
        """Return the interactions whose user and item are in the user and item tables."""
        known = (self.users >= 0) & (self.items >= 0)
        times = None if self.times is None else self.times[known]
        return replace(self, users=self.users[known], items=self.items[known], times=times)

    def item_counts(self) -> npt.NDArray[np.int64]:
        """Return each item's number of interactions, including those of unknown users."""
        return np.bincount(self.items[self.items >= 0], minlength=self.n_items).astype(np.int64)

    def last_time(self) -> int | None:
        """Return the time of the last interaction in seconds; None without rows or times."""
        return None if self.times is None or not len(self.times) else int(self.times.max())

    def histories(self) -> Ragged:
        """Return each user's items, oldest first, as row numbers in the item table.

        All users must be in the user table.
        """
        return Ragged.from_pairs(self.users, self.items, n_lists=self.n_users)

    def history_times(self) -> Ragged | None:
        """Return the time in seconds of each item of `histories`; None if the data has no times."""
        if self.times is None:
            return None
        return Ragged.from_pairs(self.users, self.times, n_lists=self.n_users)


@dataclass(frozen=True)
class Queries:
    """A batch of retrieval queries: for each its user, the user's history, and context features.

    Attributes:
        users: the user of each query, as a row number in the user table, int64 [n_queries]; -1 for
            an unknown user.
        histories: for each query, the items of the user's history, as row numbers in the item
            table, oldest first.
        contexts: context features of the queries, n_queries rows each; a missing feature has the
            value of the user's last interaction.
        times: the time of each item of the histories in seconds, a Ragged with one list per query;
            None if the times are not known.
    """

    users: Ints
    histories: Ragged
    contexts: Mapping[str, npt.NDArray[np.generic] | Ragged] = field(default_factory=dict)
    times: Ragged | None = None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Ints) -> Queries:
        """Return the queries with the given numbers, with their histories and contexts."""
        contexts = {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.contexts.items()
        }
        times = None if self.times is None else self.times.take(rows)
        return Queries(self.users[rows], self.histories.take(rows), contexts, times)

    def block(self, rows: slice) -> Queries:
        """Return the queries in a slice of the batch, with their histories and contexts."""
        return self.take(np.arange(len(self))[rows])


class TopK(NamedTuple):
    """The k items with the highest scores for each query, best first.

    Attributes:
        items: row numbers in the item table, int64 [n_queries, k]; a list with fewer items ends
            with NO_ITEM.
        scores: the scores of `items`, float32 [n_queries, k]; -inf for NO_ITEM.
    """

    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, n_queries: int, k: int) -> TopK:
        """Return lists without items: NO_ITEM with the score -inf at all k ranks."""
        return cls(
            np.full((n_queries, k), NO_ITEM, np.int64), np.full((n_queries, k), -np.inf, np.float32)
        )


class Retriever(Protocol):
    """A model or an index that returns the k best items of a query."""

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
            queries: a batch of n_queries queries.
            k: number of items to return per query, at least 1; may be larger than the catalogue.
            exclude: items that must not be returned, as row numbers in the item table, one list per
                query.
            candidates: the only items that may be returned for any query, bool [n_items]; None
                for all.
        """
        ...


class BrokenModel(ValueError):
    """A model gives scores or embeddings that are NaN or infinite."""


def require_fitted(state: State | None, model: object) -> State:
    """Return a model's learnt state, or raise an error if it has not been fitted.

    Args:
        state: the attribute of the model that `fit` sets; None before `fit`.
        model: the model whose class is named in the error message.

    Raises:
        ValueError: the model has not been fitted.
    """
    if state is None:
        name = type(model).__name__
        raise ValueError(f"{name} has learnt nothing yet. Use the model that {name}.fit returns.")
    return state


def check_k(k: int) -> None:
    """Raise an error if the number of items to return is below 1.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k = {k}.")


def best_k(
    scores: Floats, k: int, *, exclude: Ragged | None = None, candidates: Bools | None = None
) -> TopK:
    """Return the k items with the highest scores for each query; ties by ascending item row.

    Args:
        scores: the score of each query and item, float [n_queries, n_items]; -inf means "never
            return".
        k: number of items to return for each query, at least 1.
        exclude: items to leave out, as row numbers in the item table, one list per query; -1 is
            ignored.
        candidates: the only items that may be returned, bool [n_items]; None for all.

    Raises:
        ValueError: k < 1.
        BrokenModel: a score is NaN.
    """
    check_k(k)
    scores = np.array(scores, np.float32)  # a copy, because the next lines change it
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
    padding = ((0, 0), (0, k - width))
    return TopK(
        np.pad(items, padding, constant_values=NO_ITEM),
        np.pad(best, padding, constant_values=-np.inf),
    )


def _top_columns(scores: Floats, width: int) -> npt.NDArray[np.int64]:
    """Return the columns of each row's `width` largest scores; equal scores by ascending column."""
    n_items = scores.shape[1]
    if width == n_items:
        return np.argsort(-scores, axis=1, kind="stable").astype(np.int64)
    columns = np.sort(np.argpartition(-scores, width - 1, axis=1)[:, :width], axis=1)
    chosen = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-chosen, axis=1, kind="stable")
    top = np.take_along_axis(columns, order, axis=1).astype(np.int64)
    # argpartition takes any columns that tie for the last place; rows with such ties are sorted
    last = chosen.min(axis=1, keepdims=True)
    tied = np.flatnonzero((scores >= last).sum(axis=1) > width)
    top[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :width]
    return top


def blocks(n_queries: int, n_items: int) -> Iterator[slice]:
    """Yield slices of queries, so few that their scores of the whole catalogue fit into memory.

    Args:
        n_queries: number of queries.
        n_items: size of the catalogue.
    """
    step = max(1, BLOCK_SCORES // max(1, n_items))
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
    """Return the top k of each query, by a function that scores the whole catalogue for a block.

    Args:
        score: the function that returns the scores of a block of queries, float [n_block, n_items].
        queries: the queries to rank items for.
        k: number of items to return for each query.
        n_items: size of the catalogue.
        exclude: items to leave out, as row numbers in the item table, one list per query.
        candidates: the only items that may be returned, bool [n_items]; None for all.
    """
    parts = []
    for rows in blocks(len(queries), n_items):
        out = None if exclude is None else exclude.take(np.arange(rows.start, rows.stop))
        parts.append(best_k(score(queries.block(rows)), k, exclude=out, candidates=candidates))
    if not parts:
        return TopK.empty(0, k)
    return TopK(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))
