"""Makes the batches of an epoch from partitions of encoded rows, shuffled by seed and epoch.

Merlin's own loader has no seed for its shuffle (issue 438 of NVIDIA-Merlin/NVTabular). Here, the
seed and the number of the epoch give the order of all rows, so that a run is reproducible and can
resume.

A table of rows may be larger than memory. So an epoch reads the partitions of the table in a random
order, some at a time. The partitions that are in memory together are called a window. The rows of a
window are shuffled, and while they are trained on, a thread reads the next window. A table that
fits into memory is one window, which is read once, and its rows are shuffled completely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.core.collectives import Share
from models.core.column_names import BATCH_USER, POSITIVES
from models.core.columns import Column, Columns, as_array, concatenate, to_batch
from models.core.partitions import Partitions
from models.core.retriever import Ints

#: Bytes of the columns of a window. A second window is read at the same time, so a table of up to
#: twice as many bytes is one window.
WINDOW_BYTES = 192 << 20


class Window(Protocol):
    """Training rows of a window (some partitions in memory), in the order of an epoch."""

    def __len__(self) -> int:
        """Return how many rows of the window the epoch takes."""

    def take(self, start: int, stop: int) -> dict[str, Column]:
        """Return the columns of the rows at positions start to stop in the order of the epoch."""


class LoadedRows(Protocol):
    """Training rows of a window (some partitions in memory), which each epoch orders anew."""

    def shuffle(self, rng: np.random.Generator, epoch: int) -> Window:
        """Return the rows in a random order; the epoch may take only some rows of each user."""


class Loader(Protocol):
    """The protocol of loaders, which make the rows of a window (some partitions) ready for batches.

    There is a loader for each kind of batch: single rows, sequences, and rows sorted by day.
    """

    @property
    def counted(self) -> Sequence[str]:
        """Return the names of the columns that `count` reads; none if an epoch takes all rows."""

    def count(self, columns: Columns) -> int:
        """Return how many rows of a partition an epoch takes, given the columns `counted`."""

    def load(self, columns: Columns, *, complete: bool) -> LoadedRows:
        """Return the rows of a window (some partitions), ready to be shuffled for an epoch.

        Args:
            columns: the columns of the rows of the window.
            complete: whether the window is the whole table of training rows.
        """


class Batches(tf.keras.utils.Sequence):
    """The shuffled batches of an epoch; each epoch draws a new order.

    Args:
        rows: the training rows in partitions.
        loader: makes the rows of a window ready for the kind of batches that the model trains on.
        batch_size: number of training rows in a batch; the last batch may be smaller.
        seed: the random seed; together with the epoch number it determines the order.
        unit: the number of rows of an epoch is a multiple of this number; remaining rows are
            dropped.
        window_bytes: about how many bytes the columns of a window take; None for one window of all
            rows.
        finish: the function that changes the columns of a batch last; None for no change.

    Attributes:
        share: the part of each batch that this process of the training takes.
        failure: the error that ended the reading of rows; None if reading has not failed.
    """

    def __init__(
        self,
        rows: Partitions,
        loader: Loader,
        *,
        batch_size: int,
        seed: int,
        unit: int = 1,
        window_bytes: int | None = WINDOW_BYTES,
        finish: Callable[[dict[str, Column]], dict[str, Column]] | None = None,
    ) -> None:
        self.rows = rows
        self.loader = loader
        self.batch_size = batch_size
        self.seed = seed
        self.window_bytes = window_bytes
        self.finish = finish
        self.failure: Exception | None = None
        self.share = Share()
        self.n_rows = int(rows.n_rows.sum())
        self.rows_per_epoch = int(self._lengths.sum()) // unit * unit
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader of training rows")
        self.start_epoch(0)

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        """The number of rows of each partition that an epoch takes, int64 [n_partitions]."""
        if not self.loader.counted:
            return self.rows.n_rows.astype(np.int64)
        owners = self.rows.select(self.loader.counted)
        counts = [self.loader.count(owners.read([number])) for number in range(len(owners.n_rows))]
        return np.array(counts, np.int64)

    def start_epoch(self, epoch: int) -> None:
        """Draw the order of the windows of an epoch; epochs are numbered from 0."""
        self.epoch = epoch
        self.windows = self._draw_windows()
        lengths = [self._lengths[window].sum() for window in self.windows]
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._window: Window | None = None
        self._number = -1
        self._next: Future[Window] | None = None

    def _draw_windows(self) -> list[Ints]:
        """Return the windows of the epoch in random order: the numbers of their partitions."""
        n_bytes, most = self.rows.n_bytes, self.window_bytes
        count = len(n_bytes)
        if count == 1 or most is None or n_bytes.sum() <= 2 * most:
            return [np.arange(count)]
        # window w draws from [seed, epoch, w], so this is a generator of its own
        order = np.random.default_rng([self.seed, self.epoch, count]).permutation(count)
        windows, size = [[order[0]]], n_bytes[order[0]]
        for number in order[1:]:
            if size + n_bytes[number] > most:
                windows.append([])
                size = 0
            windows[-1].append(number)
            size += n_bytes[number]
        return [np.array(window) for window in windows]

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; Keras calls this after each epoch."""
        self.start_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.rows_per_epoch // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.generic]]:
        return to_batch(self.columns(index))

    def columns(self, index: int) -> dict[str, Column]:
        """Return the columns of a batch; a batch may begin in one window and end in the next."""
        start = index * self.batch_size
        stop = min(start + self.batch_size, self.rows_per_epoch)
        mine = self.share.of(stop - start)
        columns = _join(list(self._pieces(start + mine.start, start + mine.stop)))
        return columns if self.finish is None else self.finish(columns)

    def _pieces(self, start: int, stop: int) -> Iterator[dict[str, Column]]:
        """Yield a batch's rows in each window, from position start to stop; at least one piece."""
        earliest = int(np.searchsorted(self._ends, start, "right"))
        for number in range(earliest, len(self.windows)):
            first = self._starts[number]
            if first >= stop and number > earliest:
                break
            last = min(stop, self._ends[number])
            yield self._open(number).take(int(max(start, first) - first), int(last - first))

    def _open(self, number: int) -> Window:
        """Return a window, and start to read the next window in a thread."""
        if number == self._number and self._window is not None:
            return self._window
        waiting = self._next if number == self._number + 1 else None
        self._window = self._next = None  # its memory is free before another window is read
        try:
            self._window = waiting.result() if waiting else self._read(number)
        except Exception as error:
            self.failure = error  # TensorFlow makes another error of it
            raise
        self._number = number
        if number + 1 < len(self.windows):
            self._next = self._reader.submit(self._read, number + 1)
        return self._window

    def _read(self, number: int) -> Window:
        # numpy makes the same generator of [seed, epoch] and [seed, epoch, 0]
        rng = np.random.default_rng([self.seed, self.epoch, number])
        complete = len(self.windows) == 1
        loaded = self._all_rows if complete else self._load(self.windows[number], complete=False)
        return loaded.shuffle(rng, self.epoch)

    @cached_property
    def _all_rows(self) -> LoadedRows:
        return self._load(self.windows[0], complete=True)

    def _load(self, numbers: Ints, *, complete: bool) -> LoadedRows:
        return self.loader.load(self.rows.read(numbers.tolist()), complete=complete)


def _join(pieces: Sequence[dict[str, Column]]) -> dict[str, Column]:
    """Concatenate the pieces of a batch that come from several windows."""
    if BATCH_USER in pieces[0]:
        n_users = 0
        for piece in pieces:  # each piece numbers its users from 0
            piece[BATCH_USER] = as_array(piece[BATCH_USER]) + np.int32(n_users)
            n_users += len(piece[POSITIVES])
    return concatenate(pieces)
