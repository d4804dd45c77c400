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
class PositivesOfUsers:
    """Finds the positive items of the users in a window (some partitions of the training rows).

    Attributes:
        n_users: number of rows of the user table, without the row of unknown users.
    """

    n_users: int

    def find(self, columns: Columns, *, complete: bool) -> Positives:
        """Return the positive items of each user of a window: the items of all rows of the user.

        Args:
            columns: the columns of the rows of the window, `USER_ROW` and `ITEM_ROW` among them.
            complete: whether the window is the whole table of training rows.
        """
        users, n_lists = number_users(
            as_array(columns[USER_ROW]), self.n_users if complete else None
        )
        items = as_array(columns[ITEM_ROW])
        return Positives(users, Ragged.from_pairs(users, items, n_lists=n_lists))


@dataclass(frozen=True)
class Positives:
    """The positive items of the users in a window (some partitions of the training rows).

    Attributes:
        users: the user of each row of the window, as an index of `items`, int [n_rows].
        items: for each user, the items of the user's rows, as row numbers in the item table.
    """

    users: Ints
    items: Ragged

    def of_rows(self, rows: Ints) -> dict[str, Column]:
        """Return the columns `BATCH_USER` and `POSITIVES` of a batch, given its window rows."""
        users, places = np.unique(self.users[rows], return_inverse=True)
        return {BATCH_USER: places.astype(np.int32), POSITIVES: self.items.take(users)}


def number_users(users: Ints, n_users: int | None) -> tuple[Ints, int]:
    """Return a user number for each row of a window, int [n_rows], and the count of numbers.

    Args:
        users: the user of each row, as a row number in the user table, int [n_rows].
        n_users: the number of rows of the user table, to keep its row numbers as user numbers; None
            to number the users that occur in the window from 0, which are few.
    """
    if n_users is not None:
        return users, n_users
    distinct, numbers = np.unique(users, return_inverse=True)
    return numbers, len(distinct)
