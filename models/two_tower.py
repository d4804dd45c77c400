"""Two towers from a schema: Merlin's encoders and TwoTowerModelV2 with a loss of our own.

Tags choose the inputs: USER and CONTEXT columns feed the query tower, ITEM columns the item tower,
each CATEGORICAL by an embedding (lists by the mean of theirs) and each CONTINUOUS as a number.
Merlin's contrastive output divides log q by the temperature and cannot correct in-batch negatives
at all, so `InBatchSoftmax` stands in its place; everything else is Merlin's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import merlin.models.tf as mm
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from merlin.models.tf.outputs.base import DotProduct, ModelOutput
from merlin.schema import Schema, Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

from models import in_batch
from models.columns import Columns, n_rows, take
from models.config import LossConfig, TwoTowerConfig
from models.exact import Exact
from models.retriever import Ragged

QUERY, ITEM = "query", "candidate"
#: Columns of a batch that name rows of the tables: for the loss, not for the towers.
USER_ROW, ITEM_ROW = "user_row", "item_row"


class TowerError(ValueError):
    """The configuration and the schema make no pair of towers."""


@dataclass(frozen=True)
class TrainingFacts:
    """What the loss knows of the training rows.

    Attributes:
        item_counts: rows of each item, int [n_items].
        positives: item rows of each user, a Ragged of n_users lists.
    """

    item_counts: npt.NDArray[np.integer]
    positives: Ragged


def read_schema(folder: Path) -> Schema:
    """Return the Merlin schema that etl wrote beside a table."""
    return TensorflowMetadata.from_proto_text_file(str(folder)).to_merlin_schema()


def tower_schemas(schema: Schema) -> tuple[Schema, Schema]:
    """Return the inputs of the query tower and of the item tower."""
    inputs = schema.select_by_tag(Tags.CATEGORICAL) + schema.select_by_tag(Tags.CONTINUOUS)
    query = inputs.select_by_tag(Tags.USER) + inputs.select_by_tag(Tags.CONTEXT)
    return query, inputs.select_by_tag(Tags.ITEM)


def build(
    schema: Schema, config: TwoTowerConfig, loss: LossConfig, facts: TrainingFacts, *, seed: int
) -> mm.RetrievalModelV2:
    """Build the model with all its weights.

    Args:
        schema: tagged columns, as the etl stage wrote them; with `user_row` and `item_row`.
        config: the towers.
        loss: the loss.
        facts: of the training rows.
        seed: of the initial weights.

    Raises:
        TowerError: a tower without inputs, or towers of different width.
    """
    widths = [(config.query_layers or (None,))[-1], (config.item_layers or (None,))[-1]]
    query_schema, item_schema = tower_schemas(schema)
    query = _tower("query", query_schema, config, config.query_layers, seed)
    item = _tower("item", item_schema, config, config.item_layers, seed + 1000)
    model = mm.TwoTowerModelV2(
        query,
        item,
        outputs=InBatchSoftmax(loss, facts),
        schema=query_schema + item_schema + schema.select_by_name([USER_ROW, ITEM_ROW]),
    )
    outputs = [_width(tower) for tower in (query, item)]
    if outputs[0] != outputs[1]:
        raise TowerError(
            f"the query tower ends in {outputs[0]} and the item tower in {outputs[1]} dimensions "
            f"(last layers {widths[0]} and {widths[1]}, combine {config.combine!r}); a dot product "
            "needs equal widths. Give both towers a last layer of the same width."
        )
    return model


def _tower(
    name: str, schema: Schema, config: TwoTowerConfig, layers: tuple[int, ...], seed: int
) -> mm.Encoder:
    if not schema:
        raise ValueError(
            f"the {name} tower has no inputs; give a feature of its role `input: true`"
        )
    categorical = schema.select_by_tag(Tags.CATEGORICAL)
    continuous = schema.select_by_tag(Tags.CONTINUOUS)
    branches: dict[str, Any] = {}
    if categorical:
        branches["categorical"] = mm.Embeddings(
            categorical,
            dim=config.dim,
            sequence_combiner="mean",
            embeddings_initializer={
                column.name: tf.keras.initializers.RandomNormal(0.0, config.init_stddev, seed + i)
                for i, column in enumerate(categorical)
            },
            block_name=f"{name}_embeddings",
        )
    if continuous:
        branches["continuous"] = (
            mm.ContinuousProjection(
                continuous, mm.MLPBlock([config.dim], activation="linear", use_bias=False)
            )
            if config.combine == "sum"
            else mm.Continuous(continuous)
        )
    aggregation = "element-wise-sum" if config.combine == "sum" else "concat"
    inputs = mm.InputBlockV2(schema, aggregation=aggregation, **branches)
    blocks = []
    if layers:
        blocks.append(
            mm.MLPBlock(list(layers), activation=config.activation, no_activation_last_layer=True)
        )
    post = mm.L2Norm() if config.normalize else None
    return mm.Encoder(inputs, *blocks, post=post, name=f"{name}_tower")


def empty_batch(schema: Schema) -> dict[str, tf.Tensor]:
    """Return one row of zeros (lists: one zero) of these columns, to build weights with."""
    batch: dict[str, tf.Tensor] = {}
    for column in schema:
        dtype = tf.as_dtype(column.dtype.to_numpy.name)
        if column.is_list:
            batch[f"{column.name}__values"] = tf.zeros([1], dtype)
            batch[f"{column.name}__offsets"] = tf.constant([0, 1], tf.int32)
        else:
            batch[column.name] = tf.zeros([1], dtype)
    return batch


def _width(tower: mm.Encoder) -> int:
    return int(tower(empty_batch(tower.schema)).shape[-1])


@tf.keras.utils.register_keras_serializable(package="merlin_two_tower")
class InBatchSoftmax(ModelOutput):
    """Merlin's place for a loss, filled with the one of `models.in_batch`.

    In training it gives each row's loss as the prediction, float32 [B, 1], to be reduced by
    `row_loss`; at inference the score of each query with its own item, float32 [B, 1].
    """

    def __init__(self, config: LossConfig, facts: TrainingFacts, **kwargs: Any) -> None:
        super().__init__(
            to_call=DotProduct(),
            default_loss=RowLoss(config.reduction),
            default_metrics_fn=_no_metrics,
            name="in_batch_softmax",
            **kwargs,
        )
        self.config = config
        self.log_q = tf.constant(in_batch.log_q(facts.item_counts))
        self.liked = tf.constant(facts.positives.values, tf.int32)
        self.offsets = tf.constant(facts.positives.offsets, tf.int64)

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        features: dict[str, tf.Tensor] | None = None,
        targets: tf.Tensor | None = None,
        training: bool = False,
        testing: bool = False,
    ) -> Any:
        """Return row losses in training and testing, scores otherwise."""
        if not (training or testing):
            return self.to_call(inputs)
        assert features is not None
        items = tf.reshape(features[ITEM_ROW], [-1])
        users = tf.reshape(features[USER_ROW], [-1])
        losses = in_batch.softmax_loss(
            inputs[QUERY],
            inputs[ITEM],
            temperature=self.config.temperature,
            log_q=tf.gather(self.log_q, items) if self.config.logq else None,
            mask=self._mask(users, items),
        )[:, None]
        return mm.Prediction(losses, tf.zeros_like(losses))

    def _mask(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor | None:
        if self.config.mask == "none":
            return None
        if self.config.mask == "item":
            return in_batch.same_item(items)
        return in_batch.known_positives(users, items, self.liked, self.offsets)


def _no_metrics() -> list[tf.keras.metrics.Metric]:
    return []


class RowLoss(tf.keras.losses.Loss):
    """The reduction of row losses: `mean` or `sum` over the batch."""

    def __init__(self, kind: str) -> None:
        reduction = tf.keras.losses.Reduction
        mean, total = reduction.SUM_OVER_BATCH_SIZE, reduction.SUM
        super().__init__(reduction=mean if kind == "mean" else total, name="row_loss")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the row losses as they are, float32 [B]."""
        return y_pred[:, 0]


def embed(
    tower: mm.Encoder, columns: Columns, *, batch_size: int = 8192
) -> npt.NDArray[np.float32]:
    """Return the tower's output for each row: direct calls on batches.

    Merlin's `encode` saves and reloads the model first, which takes longer than 100k rows do here.

    Args:
        tower: an encoder.
        columns: its inputs, name → [n_rows].
        batch_size: rows of a call.

    Returns:
        float32 [n_rows, dim].
    """
    columns = {name: columns[name] for name in tower.schema.column_names}
    count = n_rows(columns)
    first = take(columns, np.arange(0))
    # unknown batch sizes in every spec: Merlin compares the static shapes of what it sums
    specs = {name: tf.TensorSpec([None], values.dtype) for name, values in first.items()}
    call = tf.function(lambda batch: tower(batch, training=False), input_signature=[specs])
    parts = [
        call({name: tf.constant(v) for name, v in take(columns, rows).items()}).numpy()
        for rows in np.array_split(np.arange(count), max(1, -(-count // batch_size)))
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)


def retriever(model: mm.RetrievalModelV2, users: Columns, items: Columns) -> Exact:
    """Embed both tables and search them exactly.

    Args:
        model: a built model.
        users: inputs of the query tower, [n_users + 1] rows, the last for unknown users.
        items: inputs of the item tower, [n_items] rows.
    """
    return Exact(embed(model.query_encoder, users), embed(model.candidate_encoder, items))
