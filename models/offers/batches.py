"""Batches that are sorted by day, so that negatives are of the day of their positive or near it."""

from __future__ import annotations

import numpy as np

from models.core.columns import Columns
from models.core.retriever import Ints
from models.offers.negatives import check_divisible
from models.training.batches import Batches

_DAY = 86_400


class DayBatches(Batches):
    """Rows drawn and shuffled for each epoch, cut into batches, each sorted by day.

    Rows of a day stay in the order of the shuffle: in the order of time, a user's rows of one visit
    would stand side by side, and meet each other in place of negatives.

    Args:
        columns: name → [n_rows].
        users: a number for each row's user, int [n_rows].
        times: seconds since the epoch, UTC, int64 [n_rows].
        batch_size: rows of a batch; a multiple of `negatives` + 1.
        negatives: rows beside each row that its user is paired with.
        max_per_day: rows of a user and day in an epoch, drawn at random.
        seed: with the epoch's number it fixes draw and order.
        resample: draw anew in each epoch; otherwise only the order changes.
        drop_last: leave out the rows of an incomplete batch; otherwise it is cut to whole
            mini-batches.

    Raises:
        ValueError: a batch size that does not divide, or fewer rows than a batch.
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
        """Draw the rows and their order for an epoch (from 0)."""
        super().start_epoch(epoch if self.resample else 0)
        order = self.order
        if not self.resample:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        order = order[: len(order) // self.unit * self.unit]
        batch = np.arange(len(order)) // self.batch_size
        self.order = order[np.lexsort((self.days[order], batch))]  # stable
        self.epoch = epoch
