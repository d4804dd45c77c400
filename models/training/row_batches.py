"""Batches of single training rows, each with the history that etl wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.core.column_names import USER_ROW
from models.core.columns import Column, Columns, as_array, n_rows, take_rows
from models.core.retriever import Ints
from models.training.positives import Positives, number_users


class CapsUsers:
    """A loader by which an epoch takes a limited number of rows of each user.

    Attributes:
        max_per_user: largest number of training rows of a user in an epoch; None for all.
    """

    max_per_user: int | None

    @property
    def counted(self) -> list[str]:
        """The names of the columns that `count` reads."""
        return [] if self.max_per_user is None else [USER_ROW]

    def count(self, columns: Columns) -> int:
        """Return how many rows of a partition an epoch takes."""
        return count_capped(as_array(columns[USER_ROW]), self.max_per_user)


@dataclass(frozen=True)
class RowLoader(CapsUsers):
    """Makes the rows of a window (some partitions in memory) ready for batches of single rows.

    Attributes:
        names: the names of the columns of a batch.
        max_per_user: largest number of training rows of a user in an epoch, drawn at random; None
            for all.
        with_positives: whether a batch has the positive items of the users of its rows.
    """

    names: Sequence[str]
    max_per_user: int | None = None
    with_positives: bool = False

    def load(self, columns: Columns, *, complete: bool) -> ShuffledRows:
        """Return the rows of some partitions in memory, ready to be shuffled."""
        owners = None if self.max_per_user is None else as_array(columns[USER_ROW])
        positives = Positives.of(columns) if self.with_positives else None
        chosen = {name: columns[name] for name in self.names}
        return ShuffledRows(chosen, owners, self.max_per_user, positives)


@dataclass(frozen=True)
class ShuffledRows:
    """Training rows in memory that each epoch shuffles, with a limit on the rows of an owner.

    Attributes:
        columns: the encoded columns of the training rows, name → [n_rows].
        owners: the owner of each training row as a number, int [n_rows], such as its user; required
            if `max_per_owner` is given.
        max_per_owner: largest number of rows of an owner in an epoch; None for all.
        positives: the positive items of the rows' users; None if batches do not need them.
    """

    columns: Columns
    owners: Ints | None = None
    max_per_owner: int | None = None
    positives: Positives | None = None

    def shuffle(self, rng: np.random.Generator, epoch: int) -> OrderedRows:
        """Return the rows in a random order, at most `max_per_owner` rows of each owner."""
        return OrderedRows(self, self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Ints:
        """Return row numbers in a random order, at most `max_per_owner` of each owner."""
        # int32, because the order stays in memory for an epoch
        order = rng.permutation(n_rows(self.columns)).astype(np.int32)
        if self.max_per_owner is None or self.owners is None:
            return order
        return order[rank_within(self.owners[order]) < self.max_per_owner]


@dataclass(frozen=True)
class OrderedRows:
    """Training rows in memory in the order of an epoch.

    Attributes:
        rows: the training rows.
        order: row numbers of the rows that the epoch takes, in the order of the epoch, int64.
    """

    rows: ShuffledRows
    order: Ints

    def __len__(self) -> int:
        return len(self.order)

    def take(self, start: int, stop: int) -> dict[str, Column]:
        """Return the columns of the rows at the positions from start to stop of the order."""
        rows = self.order[start:stop]
        batch = {name: take_rows(column, rows) for name, column in self.rows.columns.items()}
        if self.rows.positives is not None:
            batch |= self.rows.positives.of_rows(rows)
        return batch


def count_capped(owners: Ints, most: int | None) -> int:
    """Return the number of rows if each owner keeps at most `most` rows; None keeps all rows.

    Args:
        owners: the owner of each row as a number, int [n], such as its user.
        most: the largest number of rows that an owner keeps.
    """
    if most is None:
        return len(owners)
    return int(np.minimum(np.unique(owners, return_counts=True)[1], most).sum())


def rank_within(owners: Ints) -> Ints:
    """Return, for each row, how many earlier rows have the same owner (a number), int64 [n]."""
    order = np.argsort(owners, kind="stable")
    _, starts = number_users(owners, order)
    lengths = np.diff(np.append(starts, len(owners)))
    rank = np.empty(len(owners), np.int64)
    rank[order] = np.arange(len(owners)) - np.repeat(starts, lengths)
    return rank
