"""Count the texts and add up the numbers of training columns, partition by partition."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.core.retriever import Floats
from workflows.etl.threads import map_threads
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries
from workflows.recipe import Recipe

#: Greatest number of different values that a partition keeps apart for a median; the median of more
#: is exact to that part of the rows.
_MOST = 1 << 18


@dataclass(frozen=True)
class TextCounts:
    """The number of cells of each distinct text of a column.

    Attributes:
        texts: the distinct texts, without null.
        counts: number of cells of each text, and of missing cells, int64 [n_texts + 1].
    """

    texts: pa.StringArray
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> TextCounts:
        """Count the texts of a column, or the values of a column of lists."""
        return cls(dictionaries.flatten(column).dictionary, dictionaries.count_texts(column))

    def add(self, other: TextCounts) -> TextCounts:
        """Return the counts of two partitions together."""
        if self.texts is other.texts or self.texts.equals(other.texts):
            return TextCounts(self.texts, self.counts + other.counts)
        none = pa.array([], pa.int32())
        both = [
            pa.DictionaryArray.from_arrays(none, self.texts),
            pa.DictionaryArray.from_arrays(
                pa.array(np.arange(len(other.texts), dtype=np.int32)), other.texts
            ),
        ]
        _, new = pa.chunked_array(both).unify_dictionaries().chunks
        counts = np.zeros(len(new.dictionary) + 1, np.int64)
        counts[: len(self.texts)] = self.counts[:-1]
        counts[new.indices.to_numpy()] += other.counts[:-1]
        counts[-1] = self.counts[-1] + other.counts[-1]
        return TextCounts(new.dictionary, counts)


@dataclass(frozen=True)
class ValueCounts:
    """How often the values of a column occur; in a large column, values stand for their neighbours.

    Attributes:
        values: the different values, rising, [n].
        counts: number of cells of each value, int64 [n].
    """

    values: Floats
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> ValueCounts:
        """Count the values of a column without missing cells."""
        found, counts = np.unique(values, return_counts=True)
        return cls(found, counts.astype(np.int64))._shorten()

    def _shorten(self) -> ValueCounts:
        if len(self.values) <= _MOST:
            return self
        step = -(-len(self.values) // _MOST)
        starts = np.arange(0, len(self.values), step)
        middles = np.minimum(starts + step // 2, len(self.values) - 1)
        return ValueCounts(self.values[middles], np.add.reduceat(self.counts, starts))

    def add(self, other: ValueCounts) -> ValueCounts:
        """Return the counts of two partitions together."""
        values, which = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, which, np.concatenate([self.counts, other.counts]))
        return ValueCounts(values, counts)._shorten()

    @property
    def median(self) -> float:
        """The median of all cells; 0 if there are none."""
        if not len(self.values):
            return 0.0
        ends = np.cumsum(self.counts)
        n = int(ends[-1])
        middle = self.values[np.searchsorted(ends, [(n - 1) // 2, n // 2], "right")]
        return float(np.mean(middle))


@dataclass(frozen=True)
class NumberCounts:
    """The sums of a number column from which its mean and deviation are computed.

    Attributes:
        known: number of cells that are not missing.
        gaps: number of missing cells.
        mean: mean of the known cells, float64.
        squares: sum of the squared differences of the known cells from their mean.
        values: how often the known values occur, for a median; None if it is not needed.
        column: the known cells, as long as there is one partition; else None.
    """

    known: int
    gaps: int
    mean: float
    squares: float
    values: ValueCounts | None = None
    column: Floats | None = field(default=None, repr=False)

    @classmethod
    def of(cls, column: pa.ChunkedArray, policy: str | float, *, is_whole: bool) -> NumberCounts:
        """Add up a column.

        Args:
            column: column of float32 numbers, of which some may be missing.
            policy: what replaces missing numbers, as for `fact`.
            is_whole: whether these are all training rows, not those of one partition.
        """
        array = dictionaries.combine(column)
        known = array.drop_null().to_numpy()
        gaps = len(array) - len(known)
        if is_whole:
            return cls(len(known), gaps, 0.0, 0.0, column=known)
        mean = float(known.mean(dtype=np.float64)) if len(known) else 0.0
        values = ValueCounts.of(known) if policy == "median" else None
        return cls(len(known), gaps, mean, _squares(known, mean), values)

    def add(self, other: NumberCounts) -> NumberCounts:
        """Return the sums of two partitions together (Chan, Golub and LeVeque 1983)."""
        known = self.known + other.known
        difference = other.mean - self.mean
        share = other.known / max(1, known)
        values = self.values
        if values is not None and other.values is not None:
            values = values.add(other.values)
        return NumberCounts(
            known,
            self.gaps + other.gaps,
            self.mean + difference * share,
            self.squares + other.squares + difference**2 * self.known * share,
            values,
        )

    def fact(self, policy: str | float) -> NumberFact:
        """Return the mean and standard deviation (float64) of the column with its gaps filled.

        Args:
            policy: what replaces missing numbers: `mean`, `median` or a number; `error` if none is
                missing.
        """
        if self.column is not None:
            return _fit_number(self.column, self.gaps, policy)
        fill = self.mean if self.known else 0.0
        if isinstance(policy, float):
            fill = policy
        elif policy == "median" and self.values is not None:
            fill = self.values.median
        n = self.known + self.gaps
        if n == 0:
            return NumberFact(0.0, 0.0, fill)
        filled = float(np.float32(fill))
        mean = (self.known * self.mean + self.gaps * filled) / n
        squares = self.squares + self.known * (self.mean - mean) ** 2
        squares += self.gaps * (filled - mean) ** 2
        return NumberFact(mean, float(np.sqrt(squares / (n - 1))) if n > 1 else 0.0, fill)


def count_columns(
    recipe: Recipe, table: pa.Table, *, is_whole: bool
) -> tuple[dict[str, TextCounts], dict[str, NumberCounts]]:
    """Count the texts and add up the numbers of training rows.

    Args:
        recipe: recipe with the features.
        table: features of training rows.
        is_whole: whether these are all training rows, not those of one partition.

    Returns:
        Text column → its counts; and number column that is standardised → its sums.
    """
    features, names = recipe.features, table.column_names
    texts = map_threads(
        [c for c in names if features[c].meaning.has_codes], lambda c: TextCounts.of(table[c])
    )
    numbers = map_threads(
        [c for c in names if features[c].meaning.has_statistics],
        lambda c: NumberCounts.of(table[c], features[c].fill, is_whole=is_whole),
    )
    return texts, numbers


def _squares(known: Floats, mean: float) -> float:
    total = 0.0
    for rows in dictionaries.blocks(len(known)):
        total += float(np.square(known[rows] - mean, dtype=np.float64).sum())
    return total


def _fit_number(known: Floats, gaps: int, policy: str | float) -> NumberFact:
    """Return the mean and standard deviation (float64) of a whole column with its gaps filled."""
    if isinstance(policy, float):
        fill = policy
    elif policy == "median":
        fill = float(np.median(known)) if len(known) else 0.0
    else:  # with policy `error`, only the row of the unknown user has a gap: it gets the mean
        fill = float(known.mean(dtype=np.float64)) if len(known) else 0.0
    n = len(known) + gaps
    if n == 0:
        return NumberFact(0.0, 0.0, fill)
    filled = float(np.float32(fill))
    mean = (known.sum(dtype=np.float64) + gaps * filled) / n
    squares = gaps * (filled - mean) ** 2
    for rows in dictionaries.blocks(len(known)):
        squares += float(np.square(known[rows] - mean, dtype=np.float64).sum())
    deviation = float(np.sqrt(squares / (n - 1))) if n > 1 else 0.0
    return NumberFact(float(mean), deviation, fill)
