from __future__ import annotations

import numpy as np
import pytest

from models.core.column_names import BATCH_USER, POSITIVES
from models.training.positives import Positives, number_users

USERS = np.array([7, 3, 7, 9, 3, 7])
ITEMS = np.array([50, 51, 52, 53, 54, 50])


@pytest.mark.parametrize("rows", [[0, 1], [3], [5, 4, 3, 2, 1, 0], []])
def test_a_batch_has_all_items_of_the_users_of_its_rows(rows):
    positives = Positives.of({"user_row": USERS, "item_row": ITEMS})
    found = positives.of_rows(np.array(rows, int))
    assert len(found[POSITIVES]) == len(set(USERS[rows])), "one list for each user of the batch"
    for row, user in zip(rows, found[BATCH_USER], strict=True):
        assert sorted(found[POSITIVES][user]) == sorted(ITEMS[USERS[row] == USERS])


@pytest.mark.parametrize("users", [USERS, USERS[:1], USERS[:0]])
def test_users_are_numbered_by_their_rows_in_the_user_table(users):
    numbers, starts = number_users(users, np.argsort(users, kind="stable"))
    distinct, expected = np.unique(users, return_inverse=True)
    assert numbers.tolist() == expected.tolist()
    assert np.sort(users)[starts].tolist() == distinct.tolist()
