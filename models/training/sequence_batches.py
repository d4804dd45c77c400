"""Batches of sequences of training rows: one pass over a sequence gives a target at every step.

In a batch of rows, the history of each row is encoded by itself. In a sequence, the history of a
row begins with the history of the previous row, and a causal encoder encodes all histories of the
sequence at once (Kang and McAuley 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.core.column_names import HISTORY_AGES, ITEM_ROW, USER_ROW
from models.core.columns import Column, Columns, as_array, take_rows
from models.core.retriever import Ints, Ragged
from models.training.positives import Positives, number_users
from models.training.row_batches import CapsUsers


@dataclass(frozen=True)
class SequenceLoader(CapsUsers):
    """Makes the rows of a window (some partitions in memory) ready for batches of sequences.

    Each training row is the target of one step in each epoch. A sequence of more than `max_len` + 1
    rows is cut into parts, at places that are drawn anew for each epoch; a part has no access to
    the parts before it, so its first row has an empty history. Parts are not cut to fit into a
    batch, so a batch may have a few rows more or fewer than `batch_size`, which must be at least
    `max_len` + 1.

    Attributes:
        names: the names of the columns of a batch, without histories.
        time: the name of the column with the time of each row in seconds, by which a user's rows
            are ordered.
        histories: name of a history column → the code in it of each item of the item table, int
            [n_items].
        n_users: number of rows of the user table, without the row of unknown users.
        max_len: number of items of the longest history.
        max_per_user: largest number of training rows of a user in an epoch, which are consecutive
            rows with a start drawn at random; None for all rows.
        with_ages: whether a batch has the ages of the items of histories.
        with_positives: whether a batch has the positive items of the users of its rows.
    """

    names: Sequence[str]
    time: str
    histories: Mapping[str, Ints]
    n_users: int
    max_len: int
    max_per_user: int | None = None
    with_ages: bool = False
    with_positives: bool = False

    def load(self, columns: Columns, *, complete: bool) -> Sequences:
        """Return the users' sequences in some partitions, ready to be cut and shuffled."""
        times = as_array(columns[self.time]).astype(np.int64)
        items = as_array(columns[ITEM_ROW])
        users, n_lists = as_array(columns[USER_ROW]), self.n_users
        if not complete:  # a window has few of the users of the table
            users, starts = number_users(users, np.argsort(users, kind="stable"))
            n_lists = len(starts)
        order = np.argsort(times, kind="stable")
        return Sequences(
            {name: columns[name] for name in self.names},
            Ragged.from_pairs(users[order], order.astype(np.int32), n_lists=n_lists),
            {name: codes[items] for name, codes in self.histories.items()},
            times=times if self.with_ages else None,
            max_len=self.max_len,
            max_per_user=self.max_per_user,
            positives=Positives.of(columns) if self.with_positives else None,
        )


@dataclass(frozen=True)
class Sequences:
    """Users' sequences of training rows in memory, which each epoch cuts and shuffles.

    Attributes:
        columns: the encoded columns of the training rows without histories, name → [n_rows].
        rows: for each user, the user's training rows as row numbers of `columns`, oldest first.
        histories: history column → the code of each training row's item, int [n_rows].
        times: the time of each training row in seconds, int64 [n_rows]; None if the model does not
            use the ages of items.
        max_len: number of items of the longest history.
        max_per_user: largest number of training rows of a user in an epoch, which are consecutive;
            None for all.
        positives: the positive items of the rows' users; None if batches do not need them.
    """

    columns: Columns
    rows: Ragged
    histories: Mapping[str, Ints]
    times: npt.NDArray[np.int64] | None
    max_len: int
    max_per_user: int | None = None
    positives: Positives | None = None

    def shuffle(self, rng: np.random.Generator, epoch: int) -> ShuffledParts:
        """Cut the sequences at new random places, and put their parts in a random order."""
        lengths = self.rows.lengths
        if self.max_per_user is not None:
            lengths = np.minimum(lengths, self.max_per_user)
        spare = self.rows.lengths - lengths
        starts = self.rows.offsets[:-1] + rng.integers(0, spare + 1)
        parts = cut(starts, lengths, self.max_len + 1, rng)
        return ShuffledParts(self, parts[rng.permutation(len(parts))])


class ShuffledParts:
    """Parts of sequences in the order of an epoch.

    Args:
        sequences: the users' sequences of training rows.
        parts: start and end of each part, as positions in `sequences.rows.values`, int64 [n_parts,
            2].
    """

    def __init__(self, sequences: Sequences, parts: npt.NDArray[np.int64]) -> None:
        self.sequences = sequences
        self.parts = parts
        self.ends = np.cumsum(parts[:, 1] - parts[:, 0])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def take(self, start: int, stop: int) -> dict[str, Column]:
        """Return the columns of the parts whose last row is at a position from start to stop.

        So a part belongs to one batch, and the number of batches is the same in every epoch.
        """
        of = self.sequences
        first, last = np.searchsorted(self.ends - 1, [start, stop])
        parts = self.parts[first:last]
        lengths = parts[:, 1] - parts[:, 0]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(parts[:, 0] - offsets[:-1], lengths)
        rows = of.rows.values[places]
        batch = {name: take_rows(column, rows) for name, column in of.columns.items()}
        if of.positives is not None:
            batch |= of.positives.of_rows(rows)
        is_last = np.zeros(len(rows), bool)
        is_last[offsets[1:] - 1] = True  # the last row is a target, and in no history
        steps = rows[~is_last]
        splits = offsets - np.arange(len(offsets))
        lists = {name: codes[steps] for name, codes in of.histories.items()}
        if of.times is not None:
            ends = np.repeat(of.times[rows[offsets[1:] - 1]], lengths - 1)
            lists[HISTORY_AGES] = (ends - of.times[steps]).astype(np.float32)
        return batch | {name: Ragged(values, splits) for name, values in lists.items()}


def cut(
    starts: Ints, lengths: Ints, longest: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Cut sequences into parts of at most `longest` rows, at places drawn at random.

    Args:
        starts: the position at which each sequence starts, int64 [n_sequences].
        lengths: number of rows of each sequence, int64 [n_sequences].
        longest: the largest number of rows of a part.
        rng: random generator that draws the length of the first part of a long sequence; later
            parts, except for the last one, have `longest` rows.

    Returns:
        Start and end of each part as positions, int64 [n_parts, 2]; each row is in exactly one
        part.
    """
    first = np.where(lengths > longest, rng.integers(1, longest + 1, len(lengths)), lengths)
    count = (lengths > 0) - (first - lengths) // longest  # the first part and the others
    owner = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    ends = np.minimum(first[owner] + number * longest, lengths[owner])
    begins = np.where(number == 0, 0, first[owner] + (number - 1) * longest)
    return np.stack([begins, ends], axis=1) + starts[owner, None]
