"""The positive items of the users of a batch, which the loss hides from the negatives.

Training reads some partitions of the rows at a time, which are called a window. All rows of a user
are in one partition, so a window has all positives of its users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.core.column_names import BATCH_USER, ITEM_ROW, POSITIVES, USER_ROW
from models.core.columns import Column, Columns, as_array
from models.core.retriever import Ints, Ragged


@dataclass(frozen=True)
class Positives:
    """The positive items of the users in a window (some partitions of the training rows).

    Attributes:
        users: the user of each row of the window, as an index of `items`, int32 [n_rows].
        items: for each user, the items of the user's rows, as row numbers in the item table.
    """

    users: Ints
    items: Ragged

    @classmethod
    def of(cls, columns: Columns) -> Positives:
        """Return the positive items of each user of a window: the items of all rows of the user.

        Args:
            columns: the columns of the rows of the window, `USER_ROW` and `ITEM_ROW` among them.
        """
        users = as_array(columns[USER_ROW])
        order = np.argsort(users, kind="stable")
        numbers, starts = number_users(users, order)
        items = as_array(columns[ITEM_ROW])[order]
        return cls(numbers, Ragged(items, np.append(starts, len(items))))

    def of_rows(self, rows: Ints) -> dict[str, Column]:
        """Return the columns `BATCH_USER` and `POSITIVES` of a batch, given its window rows."""
        users, places = np.unique(self.users[rows], return_inverse=True)
        return {BATCH_USER: places.astype(np.int32), POSITIVES: self.items.take(users)}


def number_users(users: Ints, order: Ints) -> tuple[Ints, Ints]:
    """Number the users of the rows of a window from 0.

    `np.unique` would take several times the memory of the column, and a window is large.

    Args:
        users: the user of each row, as a row number in the user table, int [n_rows].
        order: row numbers in the order of their users, int [n_rows].

    Returns:
        The number of each row's user, int32 [n_rows]; and where the rows of each user start in
        `order`, int64 [n_users].
    """
    ordered = users[order]
    is_first = np.ones(len(users), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    numbers = np.empty(len(users), np.int32)
    numbers[order] = np.cumsum(is_first, dtype=np.int32) - np.int32(1)
    return numbers, np.flatnonzero(is_first)
