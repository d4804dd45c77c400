"""Batches sorted by day, so that negatives are from the same or nearly the same day."""

from __future__ import annotations

import numpy as np

from models.core.columns import Columns
from models.core.retriever import Ints
from models.offers.negatives import check_divisible
from models.training.batches import Batches

_DAY = 86_400


class DayBatches(Batches):
    """Batches of training rows, drawn and shuffled in each epoch; each batch is sorted by day.

    Rows of the same day are in random order, because in order of time the rows of one visit of a
    user would be neighbours, and neighbours are the negatives.

    Args:
        columns: the encoded columns of the training rows, name → [n_rows].
        users: the index of the user of each training row, int [n_rows].
        times: the time of each training row, in seconds since 1970 (UTC), int64 [n_rows].
        batch_size: number of training rows in a batch; a multiple of `negatives` + 1.
        negatives: number of neighbouring rows that are the negatives of a row.
        max_per_day: largest number of training rows of a user and day in an epoch, drawn at random.
        seed: the random seed; together with the epoch number it determines draw and order.
        resample: whether each epoch draws rows anew; otherwise all epochs have the same rows in
            different orders.
        drop_last: whether an incomplete last batch is left out; otherwise the last batch is cut to
            whole mini-batches.

    Raises:
        ValueError: the batch size is not a multiple of `negatives` + 1, or larger than the number
            of rows.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        users: Ints,
        times: Ints,
        batch_size: int,
        negatives: int,
        max_per_day: int,
        seed: int,
        resample: bool = True,
        drop_last: bool = True,
    ) -> None:
        check_divisible(batch_size, negatives)
        self.days = times // _DAY
        self.resample = resample
        self.unit = batch_size if drop_last else negatives + 1
        _, visits = np.unique(np.stack([users, self.days]), axis=1, return_inverse=True)
        super().__init__(
            columns,
            batch_size=batch_size,
            seed=seed,
            owners=visits.reshape(-1),
            max_per_owner=max_per_day,
        )
        if not len(self):
            raise ValueError(
                f"{self.n_rows} rows make no batch of {self.unit}, at most {max_per_day} of a "
                "user and day; lower train.batch_size"
            )

    def start_epoch(self, epoch: int) -> None:
        """Draw the training rows of an epoch and their order; epochs are numbered from 0."""
        super().start_epoch(epoch if self.resample else 0)
        order = self.order
        if not self.resample:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        order = order[: len(order) // self.unit * self.unit]
        batch = np.arange(len(order)) // self.batch_size
        self.order = order[np.lexsort((self.days[order], batch))]  # stable
        self.epoch = epoch
