"""The training loss of two towers, in the place that Merlin has for it.

Merlin's contrastive output divides log q by the temperature and cannot correct in-batch negatives
at all; this one is `models.losses.in_batch` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import merlin.models.tf as mm
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from merlin.models.tf.outputs.base import DotProduct, ModelOutput

from models.core.columns import ITEM_ROW, ROW_WEIGHT, USER_ROW, Column, Columns
from models.core.retriever import Ragged
from models.losses import in_batch, masks
from models.losses.config import LossConfig
from models.towers.layers import Draws, Dropout, IdDropout
from models.towers.tower import Tower

QUERY, ITEM = "query", "candidate"


@dataclass(frozen=True)
class TrainingFacts:
    """What the loss knows of the training rows.

    Attributes:
        item_counts: rows of each item, int [n_items].
        positives: item rows of each user, a Ragged of n_users lists.
        items: inputs of the item tower, n_items rows.
        batch_size: rows of a training step.
        seed: the seed of drawn negatives.
    """

    item_counts: npt.NDArray[np.integer]
    positives: Ragged
    items: Columns
    batch_size: int
    seed: int


class Comparison(NamedTuple):
    """The items that a batch's rows are compared with, one a column.

    Attributes:
        rows: the rows of the item table, int [C].
        vectors: float32 [C, dim].
        own: the column of each row's own item, int [B].
        repeats: how often each item was drawn, float32 [C]; None where each draw is a column.
    """

    rows: tf.Tensor
    vectors: tf.Tensor
    own: tf.Tensor
    repeats: tf.Tensor | None = None


class SampledSoftmax(ModelOutput):
    """Merlin's place for a loss, filled with the one of `models.losses.in_batch`.

    In training its prediction is the batch's loss, once a row, float32 [B, 1], to be compiled with
    `BatchLoss`; at inference the score of each query with its own item, float32 [B, 1].

    An item that stands in a batch many times is embedded once, and its repeats, which no mask but
    `none` leaves to its own rows, are one column: the same loss and gradients for fewer products.
    Not so where the item tower drops numbers out: there each repeat is a vector of its own.

    Args:
        config: the loss.
        facts: the facts of the training rows.
        tower: the item tower, for items that are not in the batch.
    """

    def __init__(
        self, config: LossConfig, facts: TrainingFacts, tower: Tower, **kwargs: Any
    ) -> None:
        super().__init__(
            to_call=DotProduct(),
            default_loss=BatchLoss(),
            default_metrics_fn=_no_metrics,
            name="sampled_softmax",
            **kwargs,
        )
        n_items = len(facts.item_counts)
        self.config = config
        self.kind = config.kind
        if config.kind == "auto":
            self.kind = "full" if n_items <= config.full_up_to else "in_batch"
        log_q = in_batch.log_q(facts.item_counts)
        if self.kind == "mixed":
            log_q = in_batch.mixture_log_q(
                log_q, batch_size=facts.batch_size, negatives=config.negatives
            )
        self.n_items = n_items
        random = any(isinstance(layer, (Dropout, IdDropout)) for layer in tower.submodules)
        self.merged = config.mask != "none" and not random
        self.draws = Draws(facts.seed)
        self.log_q = tf.constant(log_q)
        self.liked = tf.constant(facts.positives.values, tf.int32)
        self.offsets = tf.constant(facts.positives.offsets, tf.int64)
        self.table = {name: _constant(facts.items[name]) for name in tower.schema.column_names}
        # in a closure, or Keras would count the tower's weights as this layer's too
        self.embed_items = lambda rows, training: tower(
            _rows_of(self.table, _any_number(rows)), training=training
        )

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        features: dict[str, tf.Tensor] | None = None,
        targets: tf.Tensor | None = None,
        training: bool = False,
        testing: bool = False,
    ) -> Any:
        """Return the loss in training and testing, scores otherwise."""
        if not (training or testing):
            return self.to_call(inputs)
        assert features is not None
        total = self.loss_of(inputs, features, training=training).total
        prediction = tf.fill([tf.shape(inputs[QUERY])[0], 1], total)
        return mm.Prediction(prediction, tf.zeros_like(prediction))

    def loss_of(
        self, inputs: dict[str, tf.Tensor], features: dict[str, tf.Tensor], *, training: bool
    ) -> in_batch.Loss:
        """Return the loss of a batch.

        Args:
            inputs: both towers' outputs, float32 [B, dim].
            features: the batch; of it the `LOSS_COLUMNS`.
            training: whether items outside the batch are embedded with dropout.
        """
        own = tf.reshape(features[ITEM_ROW], [-1])
        against = self._comparison(own, inputs[ITEM], training)
        return in_batch.softmax_loss(
            inputs[QUERY],
            against.vectors,
            against.own,
            weights=self._weights(features, tf.size(own)),
            temperature=self.config.temperature,
            log_q=tf.gather(self.log_q, against.rows) if self._corrected else None,
            mask=self._mask(features, against),
            repeats=against.repeats,
            precision=self.config.precision,
        )

    def _weights(self, features: dict[str, tf.Tensor], n_rows: tf.Tensor) -> tf.Tensor:
        """Return what each row's loss counts in the batch's, float32 [B]."""
        weights = tf.ones([n_rows])
        if ROW_WEIGHT in features:
            weights = tf.reshape(features[ROW_WEIGHT], [-1])
        return weights if self.config.reduction == "sum" else weights / tf.cast(n_rows, tf.float32)

    @property
    def _corrected(self) -> bool:
        return self.config.logq and self.kind != "full"

    def _comparison(self, own: tf.Tensor, vectors: tf.Tensor, training: bool) -> Comparison:
        """Choose the items: `own` and `vectors` are those of the batch, [B] and [B, dim]."""
        if self.kind == "full":
            rows = tf.range(self.n_items, dtype=own.dtype)
            return Comparison(rows, self.embed_items(rows, training), own)
        rows, n_rows = own, tf.size(own)
        if self.kind == "mixed":
            drawn = self.draws.integers([self.config.negatives], self.n_items, own.dtype)
            rows = tf.concat([own, drawn], 0)
        if self.merged:
            rows, columns, repeats = tf.unique_with_counts(rows)
            vectors = self.embed_items(rows, training)
            return Comparison(rows, vectors, columns[:n_rows], tf.cast(repeats, tf.float32))
        if self.kind == "mixed":
            vectors = tf.concat([vectors, self.embed_items(drawn, training)], 0)
        return Comparison(rows, vectors, tf.range(n_rows))

    def _mask(self, features: dict[str, tf.Tensor], against: Comparison) -> in_batch.Mask | None:
        if self.config.mask == "none":
            return None
        if self.config.mask == "item":
            once = self.kind == "full" or self.merged
            return None if once else masks.same_item(against.rows, against.own)
        return masks.known_positives(
            tf.reshape(features[USER_ROW], [-1]),
            against.own,
            self.liked,
            self.offsets,
            items=None if self.kind == "full" else against.rows,
        )


def _constant(column: Column) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(column, Ragged):
        return tf.RaggedTensor.from_row_splits(column.values, column.offsets)
    return tf.constant(column)


def _any_number(rows: tf.Tensor) -> tf.Tensor:
    """Forget how many rows there are: Merlin compares the static sizes of what it joins."""
    return tf.compat.v1.placeholder_with_default(rows, [None])


def _rows_of(table: dict[str, Any], rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return some rows of encoded columns in the form of Merlin's loader."""
    batch: dict[str, tf.Tensor] = {}
    for name, column in table.items():
        part = tf.gather(column, rows)
        if isinstance(part, tf.RaggedTensor):
            batch[f"{name}__values"] = part.values
            batch[f"{name}__offsets"] = tf.cast(part.row_splits, tf.int32)
        else:
            batch[name] = part
    return batch


def _no_metrics() -> list[tf.keras.metrics.Metric]:
    return []


class BatchLoss(tf.keras.losses.Loss):
    """The batch's loss, which every row of the prediction carries; Keras takes their mean."""

    def __init__(self) -> None:
        reduction = tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE
        super().__init__(reduction=reduction, name="batch_loss")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the predictions as they are, float32 [B]."""
        return y_pred[:, 0]
