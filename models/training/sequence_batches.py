"""Makes shuffled batches of sequences: one pass over a sequence gives a target at every step.

In a batch of rows, the history of each row is encoded by itself. In a sequence, the history of a
row begins with the history of the previous row, and a causal encoder encodes all histories of the
sequence at once (Kang and McAuley 2018).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.core.column_names import HISTORY_AGES
from models.core.columns import Columns, take
from models.core.retriever import Ints, Ragged


class SequenceBatches(tf.keras.utils.Sequence):
    """The shuffled batches of an epoch, made from parts of users' sequences of training rows.

    Each training row is the target of one step in each epoch. A sequence of more than `max_len` + 1
    rows is cut into parts, at places that are drawn anew for each epoch; a part does not know the
    parts before it, so its first row has an empty history.

    Args:
        columns: the encoded columns of the training rows without histories, name → [n_rows].
        sequences: for each user, the user's training rows as row numbers of `columns`, oldest
            first.
        histories: history column → the code of each training row's item, int [n_rows].
        times: the time of each training row in seconds, int64 [n_rows]; None to leave out ages.
        max_len: number of items of the longest history.
        batch_size: number of training rows in a batch, at least `max_len` + 1. Parts are not cut
            for it, so that a batch has a few rows more or fewer.
        seed: the random seed; together with the epoch number it determines the parts and their
            order.
        max_per_user: largest number of training rows of a user in an epoch, one after the other,
            from a place drawn at random; None for all.
    """

    def __init__(
        self,
        columns: Columns,
        sequences: Ragged,
        histories: Mapping[str, Ints],
        *,
        times: npt.NDArray[np.int64] | None,
        max_len: int,
        batch_size: int,
        seed: int,
        max_per_user: int | None = None,
    ) -> None:
        self.columns = columns
        self.sequences = sequences
        self.histories = histories
        self.times = times
        self.longest = max_len + 1
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = sequences.lengths
        if max_per_user is not None:
            self.lengths = np.minimum(self.lengths, max_per_user)
        self.n_rows = len(sequences.values)
        self.rows_per_epoch = int(self.lengths.sum())
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Cut the sequences of an epoch and draw their order; epochs are numbered from 0."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        spare = self.sequences.lengths - self.lengths
        starts = self.sequences.offsets[:-1] + rng.integers(0, spare + 1)
        parts = cut(starts, self.lengths, self.longest, rng)
        self.parts = parts[rng.permutation(len(parts))]
        # a part belongs to the batch of its last row, so that the number of batches is fixed
        last = np.cumsum(self.parts[:, 1] - self.parts[:, 0]) - 1
        self.bounds = np.searchsorted(last, np.arange(len(self) + 1) * self.batch_size)

    def on_epoch_end(self) -> None:
        """Cut and order the sequences of the next epoch; Keras calls this after each epoch."""
        self.start_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.rows_per_epoch // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.generic]]:
        parts = self.parts[self.bounds[index] : self.bounds[index + 1]]
        lengths = parts[:, 1] - parts[:, 0]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(parts[:, 0] - offsets[:-1], lengths)
        rows = self.sequences.values[places]
        batch = take(self.columns, rows)
        is_last = np.zeros(len(rows), bool)
        is_last[offsets[1:] - 1] = True  # the last row is a target, and in no history
        steps = rows[~is_last]
        splits = (offsets - np.arange(len(offsets))).astype(np.int32)
        lists = {name: codes[steps] for name, codes in self.histories.items()}
        if self.times is not None:
            ends = np.repeat(self.times[rows[offsets[1:] - 1]], lengths - 1)
            lists[HISTORY_AGES] = (ends - self.times[steps]).astype(np.float32)
        for name, values in lists.items():
            batch[f"{name}__values"], batch[f"{name}__offsets"] = values, splits
        return batch


def cut(
    starts: Ints, lengths: Ints, longest: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Cut sequences into parts of at most `longest` rows, at places drawn at random.

    Args:
        starts: the row number at which each sequence starts, int64 [n_sequences].
        lengths: number of rows of each sequence, int64 [n_sequences].
        longest: the longest part.
        rng: random generator that draws the length of the first part of a long sequence; later
            parts, except for the last one, have `longest` rows.

    Returns:
        Start and end of each part, int64 [n_parts, 2]; each row is in exactly one part.
    """
    first = np.where(lengths > longest, rng.integers(1, longest + 1, len(lengths)), lengths)
    count = (lengths > 0) - (first - lengths) // longest  # the first part and the others
    owner = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    ends = np.minimum(first[owner] + number * longest, lengths[owner])
    begins = np.where(number == 0, 0, first[owner] + (number - 1) * longest)
    return np.stack([begins, ends], axis=1) + starts[owner, None]
