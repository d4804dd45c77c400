"""The negatives of a batch: in-batch items, with or without uniformly drawn ones, or all items.

To add a kind of negatives, write a class here and a line in `NEGATIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.core.collectives import Collectives
from models.core.columns import Columns
from models.encoders.dropout import Draws
from models.losses.config import LossConfig
from models.losses.in_batch import log_q, mixture_log_q


@dataclass(frozen=True)
class TrainingFacts:
    """What the loss needs to know of the training rows and of the item table.

    Attributes:
        item_counts: number of training rows of each item, int [n_items].
        items: input columns of the item tower, one row per item of the catalogue.
        batch_size: number of training rows in a training step.
        seed: the seed of randomly drawn negatives.
    """

    item_counts: npt.NDArray[np.integer]
    items: Columns
    batch_size: int
    seed: int


@dataclass(frozen=True)
class BatchItems:
    """The items of a batch with their embeddings, and a function that embeds other items.

    If several processes train, the rows are this process's part of the batch, but a comparison has
    the items of the whole batch.

    Attributes:
        rows: the item of each batch row, as a row number in the item table, int [B].
        vectors: the item embedding of each batch row, float32 [B, dim].
        embed: the function that returns the embeddings of items, float32 [n, dim], given their row
            numbers in the item table.
        merge: whether equal items may share one column, because their embeddings are the same.
        collectives: the exchange between the processes of the training.
    """

    rows: tf.Tensor
    vectors: tf.Tensor
    embed: Callable[[tf.Tensor], tf.Tensor]
    merge: bool
    collectives: Collectives

    def compare(self, drawn: tf.Tensor | None = None) -> Comparison:
        """Return a comparison whose columns are the items of the batch, followed by drawn items.

        Args:
            drawn: randomly drawn items, as row numbers in the item table, int [n].
        """
        every = self.collectives.gather(self.rows)
        own = every.start + tf.range(tf.size(self.rows))
        n_rows = tf.size(every.values)
        rows = every.values if drawn is None else tf.concat([every.values, drawn], 0)
        if self.merge:
            rows, columns, counts = tf.unique_with_counts(rows)
            multiplicity = tf.cast(counts, tf.float32)
            return Comparison(rows, self.embed(rows), tf.gather(columns, own), n_rows, multiplicity)
        vectors = self.collectives.gather(self.vectors).values
        if drawn is not None:
            vectors = tf.concat([vectors, self.embed(drawn)], 0)
        return Comparison(rows, vectors, own, n_rows)


class Comparison(NamedTuple):
    """The items with which the rows of a batch are compared; each column is one item.

    Attributes:
        rows: the item of each column, as a row number in the item table, int [C].
        vectors: the item embedding of each column, float32 [C, dim].
        positive_column: the column of each batch row's own item, int [B].
        n_rows: number of rows of the whole batch, in all processes.
        multiplicity: number of equal items that each column represents, float32 [C]; None if each
            item has a column.
        is_table: whether the columns are the whole item table: column c is row c of the table.
    """

    rows: tf.Tensor
    vectors: tf.Tensor
    positive_column: tf.Tensor
    n_rows: tf.Tensor
    multiplicity: tf.Tensor | None = None
    is_table: bool = False


class Negatives(Protocol):
    """The protocol of a kind of negatives, which chooses the items to compare a batch with.

    Attributes:
        log_q: the log of each item's sampling probability, float32 [n_items]; None if it is the
            same for all items.
    """

    log_q: npt.NDArray[np.float32] | None

    def compare(self, batch: BatchItems) -> Comparison:
        """Return the items, positives and negatives, to compare the rows of a batch with."""
        ...


class InBatch:
    """In-batch negatives: each row's negatives are the items of the other rows of the batch."""

    log_q: npt.NDArray[np.float32] | None

    def __init__(self, config: LossConfig, facts: TrainingFacts) -> None:
        self.log_q = log_q(facts.item_counts)

    def compare(self, batch: BatchItems) -> Comparison:
        """Return the items of the batch as the columns of the comparison."""
        return batch.compare()


class Mixed(Draws):
    """Negatives from the batch, and drawn uniformly from the item table (Yang et al. 2020)."""

    log_q: npt.NDArray[np.float32] | None

    def __init__(self, config: LossConfig, facts: TrainingFacts) -> None:
        super().__init__(facts.seed)
        self.n_items, self.n_drawn = len(facts.item_counts), config.negatives
        self.log_q = mixture_log_q(
            log_q(facts.item_counts), batch_size=facts.batch_size, negatives=config.negatives
        )

    def compare(self, batch: BatchItems) -> Comparison:
        """Return the items of the batch, followed by items drawn uniformly from the catalogue."""
        return batch.compare(self.integers([self.n_drawn], self.n_items, batch.rows.dtype))


class Full:
    """Full softmax: each row's negatives are all other items of the item table."""

    log_q: npt.NDArray[np.float32] | None = None

    def __init__(self, config: LossConfig, facts: TrainingFacts) -> None:
        self.n_items = len(facts.item_counts)

    def compare(self, batch: BatchItems) -> Comparison:
        """Return every item of the item table as the columns of the comparison."""
        rows = tf.range(self.n_items, dtype=batch.rows.dtype)
        n_rows = batch.collectives.total(tf.size(batch.rows))
        return Comparison(rows, batch.embed(rows), batch.rows, n_rows, is_table=True)


#: Name in recipes → the class of the negatives.
NEGATIVES: Mapping[str, Callable[[LossConfig, TrainingFacts], Negatives]] = {
    "in_batch": InBatch,
    "mixed": Mixed,
    "full": Full,
}
