"""Batches of single training rows, each with the history that etl wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.core.column_names import USER_ROW
from models.core.columns import Column, Columns, as_array, n_rows, take_rows
from models.core.retriever import Ints
from models.training.positives import Positives, PositivesOfUsers


@dataclass(frozen=True)
class RowLoader:
    """Prepares batches of single training rows.

    Attributes:
        names: the columns of a batch.
        max_per_user: largest number of training rows of a user in an epoch, drawn at random; None
            for all.
        positives: how to find the positive items of the users of a batch; None to leave them out.
    """

    names: Sequence[str]
    max_per_user: int | None = None
    positives: PositivesOfUsers | None = None

    @property
    def counted(self) -> list[str]:
        """The columns that `count` needs."""
        return [] if self.max_per_user is None else [USER_ROW]

    def count(self, columns: Columns) -> int:
        """Return how many rows of a partition an epoch takes."""
        return count_capped(as_array(columns[USER_ROW]), self.max_per_user)

    def load(self, columns: Columns, *, complete: bool) -> ShuffledRows:
        """Prepare the rows of a window."""
        owners = None if self.max_per_user is None else as_array(columns[USER_ROW])
        positives = self.positives.find(columns, complete=complete) if self.positives else None
        chosen = {name: columns[name] for name in self.names}
        return ShuffledRows(chosen, owners, self.max_per_user, positives)


@dataclass(frozen=True)
class ShuffledRows:
    """Training rows in memory, which each epoch shuffles.

    Attributes:
        columns: the encoded columns of the training rows, name → [n_rows].
        owners: a number for each training row, int [n_rows], such as its user; required if
            `max_per_owner` is given.
        max_per_owner: largest number of rows with the same owner in an epoch; None for all.
        positives: the positive items of the rows' users; None to leave them out.
    """

    columns: Columns
    owners: Ints | None = None
    max_per_owner: int | None = None
    positives: Positives | None = None

    def shuffle(self, rng: np.random.Generator, epoch: int) -> OrderedRows:
        """Return the rows in a random order, with at most `max_per_owner` of an owner."""
        return OrderedRows(self, self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Ints:
        """Return row numbers in a random order, with at most `max_per_owner` of an owner."""
        order = rng.permutation(n_rows(self.columns))
        if self.max_per_owner is None or self.owners is None:
            return order
        return order[rank_within(self.owners[order]) < self.max_per_owner]


@dataclass(frozen=True)
class OrderedRows:
    """Training rows in memory in the order of an epoch.

    Attributes:
        rows: the training rows.
        order: row numbers of the rows that the epoch takes, int64.
    """

    rows: ShuffledRows
    order: Ints

    def __len__(self) -> int:
        return len(self.order)

    def take(self, start: int, stop: int) -> dict[str, Column]:
        """Return the columns of the rows at the places from start to stop of the order."""
        rows = self.order[start:stop]
        batch = {name: take_rows(column, rows) for name, column in self.rows.columns.items()}
        if self.rows.positives is not None:
            batch |= self.rows.positives.of_rows(rows)
        return batch


def count_capped(owners: Ints, most: int | None) -> int:
    """Return the number of rows of which at most `most` have the same owner; None for all rows."""
    if most is None:
        return len(owners)
    return int(np.minimum(np.unique(owners, return_counts=True)[1], most).sum())


def rank_within(owners: Ints) -> Ints:
    """Return, for each row, how many earlier rows have the same owner, int64 [n]."""
    order = np.argsort(owners, kind="stable")
    _, start, count = np.unique(owners[order], return_index=True, return_counts=True)
    rank = np.empty(len(owners), np.int64)
    rank[order] = np.arange(len(owners)) - np.repeat(start, count)
    return rank
