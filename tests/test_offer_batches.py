"""Batches of about the same day, drawn anew for each epoch."""

from __future__ import annotations

import numpy as np
import pytest

from models.core.partitions import PartitionInMemory
from models.offers.batches import DayLoader, day_batches
from models.training.batches import Batches

DAY = 86_400


def log(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return the user and the time of each row."""
    draw = np.random.default_rng(0)
    return draw.integers(0, 10, n), draw.integers(0, 5 * DAY, n)


def batches(
    n: int = 400,
    *,
    max_per_day: int = 3,
    resample: bool = True,
    seed: int = 1,
    batch_size: int = 20,
    negatives: int = 4,
    drop_last: bool = True,
) -> Batches:
    users, times = log(n)
    rows = PartitionInMemory({"row": np.arange(n), "user_row": users, "when": times})
    loader = DayLoader(["row"], "when", max_per_day, seed, resample)
    return day_batches(
        rows, loader, batch_size=batch_size, negatives=negatives, seed=seed, drop_last=drop_last
    )


def parts(made: Batches) -> list[np.ndarray]:
    return [made[i]["row"] for i in range(len(made))]


def order(made: Batches) -> np.ndarray:
    return np.concatenate(parts(made))


def test_t03_batches_are_sorted_by_day_and_drawn_anew() -> None:
    made, days = batches(), log()[1] // DAY
    first = parts(made)
    for rows in first:
        assert len(rows) == 20
        assert (np.diff(days[rows]) >= 0).all()
    every = np.concatenate(first)
    assert len(set(every)) == len(every)
    assert (np.diff(days[every]) < 0).any(), "the epoch as a whole is not sorted"
    made.on_epoch_end()
    assert {frozenset(rows) for rows in parts(made)}.isdisjoint(frozenset(r) for r in first)


def test_t03_rows_of_a_day_are_in_no_order_of_time() -> None:
    """As published: dates order a batch, and rows of one visit do not stand side by side."""
    made, seconds = batches(max_per_day=400), log()[1]
    same_day = [np.diff(seconds[rows] // DAY) == 0 for rows in parts(made)]
    later = [np.diff(seconds[rows]) > 0 for rows in parts(made)]
    within = np.concatenate(later)[np.concatenate(same_day)]
    assert len(within) > 100
    assert 0.35 < within.mean() < 0.65, "in the order of time all would be later"


def test_t03_the_seed_and_the_epoch_decide() -> None:
    one, same, other = batches(), batches(), batches(seed=2)
    assert order(one).tolist() == order(same).tolist() != order(other).tolist()
    one.start_epoch(5)
    same.start_epoch(5)
    assert order(one).tolist() == order(same).tolist()


def test_e17_a_user_has_so_many_rows_of_a_day() -> None:
    made = batches(drop_last=False)
    users, times = log()
    counts = np.unique(np.stack([users, times // DAY])[:, order(made)], axis=1, return_counts=True)
    assert counts[1].max() == 3
    everything = np.unique(np.stack([users, times // DAY]), axis=1, return_counts=True)[1]
    assert everything.max() > 3, "there must be something to leave out"
    assert len(order(made)) == np.minimum(everything, 3).sum() // 5 * 5


@pytest.mark.parametrize("resample", [True, False])
def test_e17_the_rows_change_between_epochs_only_when_asked(resample: bool) -> None:
    made = batches(resample=resample, drop_last=False, negatives=0)
    first = order(made).tolist()
    made.start_epoch(1)
    assert (set(order(made)) != set(first)) == resample
    assert order(made).tolist() != first


def test_an_incomplete_batch_is_dropped_or_cut_to_whole_mini_batches() -> None:
    dropped, cut = batches(), batches(drop_last=False)
    assert len(order(dropped)) == len(order(cut)) // 20 * 20
    assert len(order(cut)) % 5 == 0
    assert len(parts(cut)[-1]) == len(order(cut)) % 20


def test_m12_a_batch_size_that_leaves_rows_over_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 5, got 21"):
        batches(batch_size=21)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="10 rows make no batch of 20, at most 3 of a user"):
        batches(10)
