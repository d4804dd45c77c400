from __future__ import annotations

import numpy as np
import pytest

from models.core.column_names import BATCH_USER, POSITIVES
from models.training.positives import PositivesOfUsers

USERS = np.array([7, 3, 7, 9, 3, 7])
ITEMS = np.array([50, 51, 52, 53, 54, 50])
COLUMNS = {"user_row": USERS, "item_row": ITEMS}


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("rows", [[0, 1], [3], [5, 4, 3, 2, 1, 0], []])
def test_a_batch_has_all_items_of_the_users_of_its_rows(complete, rows):
    found = PositivesOfUsers(12).find(COLUMNS, complete=complete).of_rows(np.array(rows, int))
    assert len(found[POSITIVES]) == len(set(USERS[rows])), "one list for each user of the batch"
    for row, user in zip(rows, found[BATCH_USER], strict=True):
        assert set(found[POSITIVES][user]) == set(ITEMS[USERS[row] == USERS])


def test_the_users_of_a_window_are_few():
    positives = PositivesOfUsers(10**9).find(COLUMNS, complete=False)
    assert len(positives.items) == 3
