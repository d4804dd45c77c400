"""The training loss of a two-tower model, as an output block of Merlin.

Merlin's contrastive output divides log q by the temperature, and cannot correct in-batch negatives
at all. With this output block, the recipe chooses the negatives and the loss function.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import merlin.models.tf as mm
import tensorflow as tf
from merlin.models.tf.outputs.base import DotProduct, ModelOutput

from models.core.collectives import ALONE, Collectives
from models.core.column_names import BATCH_USER, POSITIVES
from models.core.columns import ITEM_ROW, ROW_WEIGHT
from models.encoders.dropout import Dropout
from models.losses import masks
from models.losses.config import FUNCTIONS, LossConfig
from models.losses.in_batch import Loss, Mask
from models.losses.item_table import ItemTable
from models.losses.negatives import NEGATIVES, BatchItems, Comparison, TrainingFacts
from models.towers.layers import IdDropout
from models.towers.tower import Tower
from models.towers.vectors import Vectors

QUERY, ITEM = "query", "candidate"


class LossFunction(Protocol):
    """The protocol of loss functions, which compare the rows of a batch with items."""

    def __call__(
        self,
        queries: tf.Tensor,
        items: tf.Tensor,
        positive_column: tf.Tensor,
        *,
        weights: tf.Tensor,
        temperature: float,
        log_q: tf.Tensor | None,
        mask: Mask | None,
        multiplicity: tf.Tensor | None,
        precision: str,
    ) -> Loss:
        """Return the training loss of a batch, with gradients for `queries` and `items`."""
        ...


def function_named(name: str) -> LossFunction:
    """Return the loss function of the table `FUNCTIONS` with the given name, such as `softmax`."""
    module, _, function = FUNCTIONS[name].partition(":")
    found: LossFunction = getattr(import_module(f"models.losses.{module}"), function)
    return found


class SampledLoss(ModelOutput):
    """An output block of Merlin that computes the loss of a batch from a comparison with negatives.

    In training, the block outputs the loss of the batch in every row, float32 [B, 1], and the Keras
    loss `BatchLoss` returns this output unchanged. At inference, the block outputs the score of
    each query with its own item, float32 [B, 1].

    An item that is in a batch many times is embedded once and has one column of the score matrix.
    This makes the matrix products smaller, but changes neither loss nor gradients, because every
    mask except `none` hides further occurrences of a row's own item. If the item tower has dropout,
    each occurrence has its own vector and column.

    If several processes train, each process compares its rows with the items of the whole batch,
    and each process outputs the loss of the whole batch. If the item tower has dense layers or
    draws random numbers, each process embeds a part of the items, and the processes exchange
    vectors; otherwise, they exchange only the row numbers of the items, and each process embeds all
    items.

    Args:
        config: hyper-parameters of the loss.
        facts: facts on the training rows, such as the count of each item.
        tower: the item tower, which embeds items that are not in the batch.

    Attributes:
        in_sequences: whether a training batch has sequences, so that the rows of a user are one
            after the other.
        collectives: the exchange between the processes of the training.
        splits_items: whether each of several processes embeds only a part of the items.
    """

    def __init__(
        self, config: LossConfig, facts: TrainingFacts, tower: Tower, **kwargs: Any
    ) -> None:
        super().__init__(
            to_call=DotProduct(),
            default_loss=BatchLoss(),
            default_metrics_fn=_no_metrics,
            name="sampled_loss",
            **kwargs,
        )
        self.config = config
        self.in_sequences = False
        self.kind = config.negatives_of(len(facts.item_counts))
        self.negatives = NEGATIVES[self.kind](config, facts)
        self.function = function_named(config.function)
        log_q = self.negatives.log_q if config.logq else None
        random = any(isinstance(layer, (Dropout, IdDropout)) for layer in tower.submodules)
        self.merged = config.mask != "none" and not random
        self.items = ItemTable.of(facts.items, tower.schema.column_names, log_q)
        self.collectives: Collectives = ALONE
        costly = (tf.keras.layers.Dense, Vectors)
        self.splits_items = random or any(isinstance(layer, costly) for layer in tower.submodules)
        # in a closure, or Keras would count the tower's weights as this layer's too
        self.embed_items = lambda rows, training: tower(
            self.items.take(_hide_row_count(rows)), training=training
        )

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        features: dict[str, tf.Tensor] | None = None,
        targets: tf.Tensor | None = None,
        training: bool = False,
        testing: bool = False,
    ) -> Any:
        """Return the batch's loss in each row; at inference, each query's score with its item."""
        if not (training or testing):
            return self.to_call(inputs)
        assert features is not None
        own = self.loss_of(inputs, features, training=training).total
        n_own = tf.cast(tf.shape(inputs[QUERY])[0], tf.float32)
        total, n_rows = tf.unstack(self.collectives.total(tf.stack([own, n_own])))
        # as many rows as the whole batch has, by which Keras weighs the loss of a batch
        prediction = tf.fill([tf.cast(n_rows, tf.int32), 1], total)
        return mm.Prediction(prediction, tf.zeros_like(prediction))

    def loss_of(
        self, inputs: dict[str, tf.Tensor], features: dict[str, tf.Tensor], *, training: bool
    ) -> Loss:
        """Return the training loss of a batch, given the outputs of both towers.

        Args:
            inputs: the query and item embeddings of the batch, float32 [B, dim] each.
            features: the columns of the batch, `LOSS_COLUMNS` among them; with the mask `user`
                also `BATCH_USER` and `POSITIVES`.
            training: whether items outside the batch are embedded with dropout.
        """
        rows = tf.reshape(features[ITEM_ROW], [-1])
        against = self.negatives.compare(
            BatchItems(
                rows,
                inputs[ITEM],
                lambda some: self._embed(some, training),
                self.merged,
                self.collectives,
            )
        )
        return self.function(
            inputs[QUERY],
            against.vectors,
            against.positive_column,
            weights=self._weights(features, tf.size(rows), against.n_rows),
            temperature=self.config.temperature,
            log_q=self.items.log_q_of(against.rows),
            mask=self._mask(features, against),
            multiplicity=against.multiplicity,
            precision=self.config.precision,
        )

    def _embed(self, rows: tf.Tensor, training: bool) -> tf.Tensor:
        """Return the embeddings of items, given row numbers that are equal in all processes."""
        share = self.collectives.share
        if share.size == 1 or not self.splits_items:
            return self.embed_items(rows, training)
        part = rows[share.of(tf.size(rows))]
        return self.collectives.gather(self.embed_items(part, training)).values

    def _weights(
        self, features: dict[str, tf.Tensor], n_own: tf.Tensor, n_rows: tf.Tensor
    ) -> tf.Tensor:
        """Return the weight in the batch's loss of each row of this process, float32 [n_own]."""
        weights = tf.ones([n_own])
        if ROW_WEIGHT in features:
            weights = tf.reshape(features[ROW_WEIGHT], [-1])
        return weights if self.config.reduction == "sum" else weights / tf.cast(n_rows, tf.float32)

    def _mask(self, features: dict[str, tf.Tensor], against: Comparison) -> Mask | None:
        if self.config.mask == "none":
            return None
        if self.config.mask == "item":
            once = against.is_table or against.multiplicity is not None
            return None if once else masks.same_item(against.rows, against.positive_column)
        return masks.known_positives(
            tf.reshape(features[BATCH_USER], [-1]),
            against.positive_column,
            tf.cast(features[f"{POSITIVES}__values"], tf.int32),
            tf.cast(features[f"{POSITIVES}__offsets"], tf.int64),
            items=None if against.is_table else against.rows,
            by_runs=self.in_sequences,
        )


def _hide_row_count(rows: tf.Tensor) -> tf.Tensor:
    """Hide a tensor's static row count: Merlin concatenates only tensors of equal static counts."""
    return tf.compat.v1.placeholder_with_default(rows, [None])


def _no_metrics() -> list[tf.keras.metrics.Metric]:
    return []


class BatchLoss(tf.keras.losses.Loss):
    """A Keras loss that returns the batch's loss, which the model outputs in every row."""

    def __init__(self) -> None:
        reduction = tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE
        super().__init__(reduction=reduction, name="batch_loss")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the predictions unchanged, because each is the batch's loss, float32 [B]."""
        return y_pred[:, 0]
