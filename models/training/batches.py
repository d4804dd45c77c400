"""Makes shuffled batches of encoded columns in memory, in the form that Merlin's models take.

Merlin's own loader has no seed for its shuffle (NVTabular #438) and shuffles within a chunk only.
In these batches, a seed and the epoch's number give the order of all rows, so that a run is
reproducible and can resume.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.core.columns import Columns, n_rows, take
from models.core.retriever import Ints


class Batches(tf.keras.utils.Sequence):
    """The shuffled batches of an epoch; each epoch draws a new order.

    Args:
        columns: the encoded columns of the training rows, name → [n_rows].
        batch_size: number of training rows in a batch; the last batch may be smaller.
        seed: the random seed; together with the epoch number it determines the order.
        owners: the user of each training row, as a row number in the user table, int [n_rows];
            required if `max_per_owner` is given.
        max_per_owner: largest number of training rows of a user in an epoch, drawn at random; None
            for all.

    Raises:
        ValueError: `max_per_owner` is given without `owners`.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        batch_size: int,
        seed: int,
        owners: Ints | None = None,
        max_per_owner: int | None = None,
    ) -> None:
        if max_per_owner is not None and owners is None:
            raise ValueError(f"max_per_owner = {max_per_owner} needs the owners of the rows.")
        self.columns = columns
        self.batch_size = batch_size
        self.seed = seed
        self.owners = owners
        self.max_per_owner = max_per_owner
        self.n_rows = n_rows(columns)
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Draw the training rows of an epoch and their order; epochs are numbered from 0."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.n_rows)
        if self.max_per_owner is not None and self.owners is not None:
            order = order[_rank_within(self.owners[order]) < self.max_per_owner]
        self.order = order

    @property
    def rows_per_epoch(self) -> int:
        """Number of training rows in an epoch."""
        return len(self.order)

    def on_epoch_end(self) -> None:
        """Draw the rows and the order of the next epoch; Keras calls this after each epoch."""
        self.start_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.generic]]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return take(self.columns, rows)


def _rank_within(owners: Ints) -> Ints:
    """Return, for each row, how many earlier rows belong to the same user, int64 [n]."""
    order = np.argsort(owners, kind="stable")
    _, start, count = np.unique(owners[order], return_index=True, return_counts=True)
    rank = np.empty(len(owners), np.int64)
    rank[order] = np.arange(len(owners)) - np.repeat(start, count)
    return rank
