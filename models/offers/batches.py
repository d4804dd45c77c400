"""Batches sorted by day, so that negatives are from the same or nearly the same day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.core.column_names import USER_ROW
from models.core.columns import Column, Columns, as_array, take_rows
from models.core.partitions import Partitions
from models.core.retriever import Ints
from models.offers.negatives import check_divisible
from models.training.batches import WINDOW_BYTES, Batches
from models.training.row_batches import OrderedRows, ShuffledRows, count_capped

#: Column of a batch with the day of each row, by which the batch is sorted.
_DAY = "day of the row"


def day_batches(
    rows: Partitions,
    loader: DayLoader,
    *,
    batch_size: int,
    negatives: int,
    seed: int,
    drop_last: bool = True,
) -> Batches:
    """Return batches of training rows, drawn and shuffled in each epoch; each is sorted by day.

    Rows of the same day are in random order, because in order of time the rows of one visit of a
    user would be neighbours, and the negatives of a row are its neighbours.

    Args:
        rows: the training rows in partitions.
        loader: makes the rows ready for batches, and limits the rows of a user and day in an epoch.
        batch_size: number of training rows in a batch; a multiple of `negatives` + 1.
        negatives: number of neighbouring rows that are the negatives of a row.
        seed: the random seed; together with the epoch number it determines the drawn rows and their
            order.
        drop_last: whether an incomplete last batch is left out; otherwise the last batch is cut to
            whole mini-batches.

    Raises:
        ValueError: the batch size is not a multiple of `negatives` + 1, or larger than the number
            of rows.
    """
    check_divisible(batch_size, negatives)
    unit = batch_size if drop_last else negatives + 1
    made = Batches(
        rows,
        loader,
        batch_size=batch_size,
        seed=seed,
        unit=unit,
        # the rows of the first epoch are in the same windows in no other epoch
        window_bytes=WINDOW_BYTES if loader.resample else None,
        finish=_sort_by_day,
    )
    if not len(made):
        raise ValueError(
            f"{made.n_rows} rows make no batch of {unit}, at most {loader.max_per_day} of a user "
            "and day; lower train.batch_size"
        )
    return made


@dataclass(frozen=True)
class DayLoader:
    """Makes training rows ready for batches that are sorted by day.

    An epoch takes at most `max_per_day` rows of each user and day.

    Attributes:
        names: the names of the columns of a batch.
        time: the name of the column with the time of each row, in seconds since 1970 (UTC).
        max_per_day: largest number of training rows of a user and day in an epoch, drawn at random.
        seed: the seed of the draw if all epochs have the same rows.
        resample: whether each epoch draws rows anew; otherwise all epochs have the same rows in
            different orders.
    """

    names: Sequence[str]
    time: str
    max_per_day: int
    seed: int
    resample: bool = True

    @property
    def counted(self) -> list[str]:
        """The names of the columns that `count` reads."""
        return [USER_ROW, self.time]

    def count(self, columns: Columns) -> int:
        """Return how many rows of a partition an epoch takes."""
        return count_capped(self._visits(columns), self.max_per_day)

    def load(self, columns: Columns, *, complete: bool) -> _RowsOfDays:
        """Return the rows of some partitions, with their days, ready to be shuffled."""
        chosen = {name: columns[name] for name in self.names}
        chosen[_DAY] = _days(columns[self.time])
        rows = ShuffledRows(chosen, self._visits(columns), self.max_per_day)
        return _RowsOfDays(rows, None if self.resample else self.seed)

    def _visits(self, columns: Columns) -> Ints:
        """Return a number for each row that rows of the same user and day share, int64 [n]."""
        both = np.stack([as_array(columns[USER_ROW]), _days(columns[self.time])])
        return np.unique(both, axis=1, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class _RowsOfDays:
    """Training rows in memory that each epoch shuffles, with a limit on rows of a user and day.

    Attributes:
        rows: the training rows, whose owners are pairs of user and day.
        seed: the seed by which all epochs draw the same rows; None if each epoch draws anew.
    """

    rows: ShuffledRows
    seed: int | None

    def shuffle(self, rng: np.random.Generator, epoch: int) -> OrderedRows:
        """Return the rows of an epoch in a random order."""
        if self.seed is None:
            return self.rows.shuffle(rng, epoch)
        first = self.rows.shuffle(np.random.default_rng([self.seed, 0]), 0)
        return replace(first, order=rng.permutation(first.order))


def _days(times: Column) -> Ints:
    return as_array(times) // 86_400


def _sort_by_day(columns: dict[str, Column]) -> dict[str, Column]:
    """Sort the rows of a batch by their days, and drop the column of the days."""
    order = np.argsort(as_array(columns.pop(_DAY)), kind="stable")
    return {name: take_rows(column, order) for name, column in columns.items()}
