from __future__ import annotations

import numpy as np
import pytest

from models.core.partitions import PartitionInMemory
from models.core.retriever import Ragged
from models.training.batches import Batches
from models.training.row_batches import RowLoader

N = 23
#: Users 0..4 with 1, 2, 4, 6 and 10 rows, in mixed order.
OWNERS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [1, 2, 4, 6, 10]))
LISTS = Ragged(np.arange(2 * N), np.arange(N + 1) * 2)  # row r holds 2r and 2r + 1
COLUMNS = {"row": np.arange(N), "pair": LISTS}


def made(*, batch_size: int, seed: int, most: int | None = None) -> Batches:
    rows = PartitionInMemory({**COLUMNS, "user_row": OWNERS})
    return Batches(rows, RowLoader(list(COLUMNS), most), batch_size=batch_size, seed=seed)


def rows_of(batches: Batches) -> list[int]:
    """Go through an epoch as Keras does."""
    return [row for i in range(len(batches)) for row in batches[i]["row"].tolist()]


@pytest.mark.parametrize("batch_size", [1, 4, N, 100])
def test_an_epoch_holds_every_row_once(batch_size):
    batches = made(batch_size=batch_size, seed=1)
    for _ in range(3):
        assert sorted(rows_of(batches)) == list(range(N))
        batches.on_epoch_end()


def test_the_last_batch_holds_what_is_left():
    batches = made(batch_size=4, seed=1)
    assert len(batches) == 6
    assert [len(batches[i]["row"]) for i in range(6)] == [4, 4, 4, 4, 4, 3]


def test_the_columns_of_a_row_stay_together():
    batch = made(batch_size=6, seed=2)[1]
    assert batch["pair__values"].tolist() == [v for r in batch["row"] for v in (2 * r, 2 * r + 1)]
    assert batch["pair__offsets"].tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    a, b = (made(batch_size=size, seed=3) for size in (4, 7))
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    first = rows_of(a)
    np.random.seed(1)  # noqa: NPY002
    assert rows_of(b) == first
    a.on_epoch_end()
    b.on_epoch_end()
    second = rows_of(a)
    assert rows_of(b) == second
    assert second != first
    assert first != list(range(N))
    assert rows_of(made(batch_size=4, seed=4)) != first


@pytest.mark.parametrize("most", [None, 3])
def test_a_resumed_epoch_is_the_one_that_would_have_come(most):
    went_on = made(batch_size=4, seed=5, most=most)
    for _ in range(3):
        went_on.on_epoch_end()
    resumed = made(batch_size=4, seed=5, most=most)
    resumed.start_epoch(3)
    assert rows_of(resumed) == rows_of(went_on)
    resumed.on_epoch_end()
    went_on.on_epoch_end()
    assert rows_of(resumed) == rows_of(went_on)


def test_the_rows_of_an_owner_are_capped():
    batches = made(batch_size=4, seed=6, most=3)
    rows = rows_of(batches)
    assert len(set(rows)) == len(rows)
    assert np.bincount(OWNERS[rows]).tolist() == [1, 2, 3, 3, 3]
    assert len(batches) == 3


def test_capped_rows_are_drawn_anew_until_all_have_had_their_turn():
    batches = made(batch_size=4, seed=7, most=3)
    epochs = []
    for _ in range(60):
        epochs.append(set(rows_of(batches)))
        batches.on_epoch_end()
    assert set.union(*epochs) == set(range(N))
    assert len({frozenset(rows) for rows in epochs}) > 50
    # each of the ten rows of owner 4 stands in about 3 of 10 epochs
    shares = [np.mean([row in rows for rows in epochs]) for row in np.flatnonzero(OWNERS == 4)]
    assert min(shares) > 0.1
    assert max(shares) < 0.5


@pytest.mark.parametrize("most", [None, 3])
def test_the_rows_of_one_window_are_the_permutation_of_the_seed_and_the_epoch(most):
    batches = made(batch_size=4, seed=8, most=most)
    for epoch in (0, 1, 5):
        batches.start_epoch(epoch)
        expected, taken = [], dict.fromkeys(range(5), 0)
        for row in np.random.default_rng([8, epoch]).permutation(N):
            taken[OWNERS[row]] += 1
            if most is None or taken[OWNERS[row]] <= most:
                expected.append(row)
        assert rows_of(batches) == expected
