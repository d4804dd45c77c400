"""Two towers from a schema: Merlin's encoders and TwoTowerModelV2 with a loss of our own.

Tags choose the inputs: USER and CONTEXT columns feed the query tower, ITEM columns the item tower,
each CATEGORICAL by an embedding (lists by the mean of theirs) and each CONTINUOUS as a number.
Merlin's contrastive output divides log q by the temperature and cannot correct in-batch negatives
at all, so `SampledSoftmax` stands in its place; everything else is Merlin's.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import merlin.models.tf as mm
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from merlin.models.tf.outputs.base import DotProduct, ModelOutput
from merlin.schema import ColumnSchema, Schema, Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

from models import in_batch
from models.columns import ITEM_ROW, USER_ROW, Column, Columns, n_rows, take, take_rows
from models.config import UNSEEN, LossConfig, TwoTowerConfig
from models.exact import search
from models.layers import AppendOne, Draws, Dropout, HistoryPool, IdDropout, ItemBias
from models.retriever import Bools, Queries, Ragged, TopK

#: What the rest of the house calls Merlin's classes.
Model: TypeAlias = mm.RetrievalModelV2
Tower: TypeAlias = mm.Encoder

QUERY, ITEM = "query", "candidate"


class TowerError(ValueError):
    """The configuration and the schema make no pair of towers."""


@dataclass(frozen=True)
class TrainingFacts:
    """What the loss knows of the training rows.

    Attributes:
        item_counts: rows of each item, int [n_items].
        positives: item rows of each user, a Ragged of n_users lists.
        items: inputs of the item tower, n_items rows.
        batch_size: rows of a training step.
        seed: of drawn negatives.
    """

    item_counts: npt.NDArray[np.integer]
    positives: Ragged
    items: Columns
    batch_size: int
    seed: int


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
) -> Model:
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
    query_schema, item_schema = tower_schemas(schema)
    item = _tower("item", item_schema, config, config.item_layers, seed + 1000)
    query = _tower("query", query_schema, config, config.query_layers, seed, shared=item)
    model = mm.TwoTowerModelV2(
        query,
        item,
        outputs=SampledSoftmax(loss, facts, item),
        schema=query_schema + item_schema + schema.select_by_name([USER_ROW, ITEM_ROW]),
    )
    widths = [_width(tower) for tower in (query, item)]
    if widths[0] != widths[1]:
        raise TowerError(
            f"the query tower ends in {widths[0]} and the item tower in {widths[1]} dimensions "
            f"(query_layers {list(config.query_layers)}, item_layers {list(config.item_layers)}, "
            f"combine {config.combine!r}); a dot product needs equal widths. Give both towers a "
            "last layer of the same width."
        )
    return model


def _tower(
    name: str,
    schema: Schema,
    config: TwoTowerConfig,
    layers: tuple[int, ...],
    seed: int,
    *,
    shared: Tower | None = None,
) -> Tower:
    """Build one encoder; history columns look their items up in the tables of `shared`."""
    if not schema:
        raise TowerError(
            f"the {name} tower has no inputs; give a feature of its role `input: true`"
        )
    histories = schema.select_by_tag(Tags.SEQUENCE)
    plain = schema.excluding_by_tag(Tags.SEQUENCE)
    categorical, continuous = (plain.select_by_tag(t) for t in (Tags.CATEGORICAL, Tags.CONTINUOUS))
    branches: dict[str, Any] = {}
    if categorical:
        branches["categorical"] = _embeddings(name, categorical, config, seed)
    if continuous:
        project = mm.MLPBlock([config.dim], activation="linear", use_bias=False)
        branches["continuous"] = (
            mm.ContinuousProjection(continuous, project)
            if config.combine == "sum"
            else mm.Continuous(continuous)
        )
    for column in histories:
        assert shared is not None
        # no column's name: ParallelBlock takes a branch called like its input for one that it feeds
        branches[f"{column.name}_pool"] = HistoryPool(
            Schema([column]),
            _table(shared, column),
            max_len=int(column.shape.dims[1].max),
            decay=config.history_decay,
        )
    # not InputBlockV2: it makes embeddings of its own where a tower has histories alone
    inputs = mm.ParallelBlock(branches, aggregation=config.combine, is_input=True, schema=schema)
    blocks: list[tf.keras.layers.Layer] = []
    if config.dropout:
        blocks.append(Dropout(config.dropout, seed=seed))
    if layers:
        blocks.append(
            mm.MLPBlock(list(layers), activation=config.activation, no_activation_last_layer=True)
        )
    if config.normalize:
        blocks.append(mm.L2Norm())
    ids = schema.select_by_tag(Tags.ID)
    if config.item_bias and name == "item" and not ids:
        raise TowerError(
            "item_bias needs the item id; set `input: true` for it, or model.item_bias to false"
        )
    if config.item_bias:
        blocks.append(_bias(ids.first) if name == "item" else AppendOne())
    pre = None
    if config.id_dropout and ids:
        pre = IdDropout(ids.first.name, rate=config.id_dropout, unseen=UNSEEN, seed=seed + 1)
    return mm.Encoder(inputs, *blocks, pre=pre, name=f"{name}_tower")


def _embeddings(
    name: str, schema: Schema, config: TwoTowerConfig, seed: int
) -> tf.keras.layers.Layer:
    """Return one table a column, lists by the mean of theirs."""
    return mm.Embeddings(
        schema,
        dim=config.dim,
        sequence_combiner="mean",
        embeddings_initializer={
            column.name: tf.keras.initializers.RandomNormal(0.0, config.init_stddev, seed + i)
            for i, column in enumerate(schema)
        },
        block_name=f"{name}_embeddings",
    )


def _table(tower: Tower, column: ColumnSchema) -> tf.keras.layers.Embedding:
    """Return the tower's table of the domain that a column shares."""
    domain = column.int_domain.name
    for block in tower.submodules:
        if isinstance(block, mm.EmbeddingTable) and block.table_name == domain:
            return block.table
    raise TowerError(
        f"{column.name!r} shares the embeddings of {domain!r}, which is no input of the item "
        f"tower; set features.{domain}.input to true, or leave it out of history.columns."
    )


def _bias(item_id: ColumnSchema) -> ItemBias:
    return ItemBias(item_id.name, item_id.int_domain.max + 1)


def set_prior(model: Model, codes: npt.NDArray[np.integer], prior: npt.NDArray[np.float32]) -> None:
    """Put a prior into the item bias; items that share a code share their mean.

    Args:
        model: built with `item_bias`.
        codes: the item id's code of each item, int [n_items].
        prior: float32 [n_items].
    """
    bias = next(b for b in model.candidate_encoder.blocks if isinstance(b, ItemBias))
    size = int(bias.prior.shape[0])
    count = np.maximum(np.bincount(codes, minlength=size), 1)
    bias.prior.assign((np.bincount(codes, prior, minlength=size) / count).astype(np.float32))


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


def _width(tower: Tower) -> int:
    return int(tower(empty_batch(tower.schema)).shape[-1])


class SampledSoftmax(ModelOutput):
    """Merlin's place for a loss, filled with the one of `models.in_batch`.

    In training it gives each row's loss as the prediction, float32 [B, 1], to be reduced by
    `RowLoss`; at inference the score of each query with its own item, float32 [B, 1].

    Args:
        config: the loss.
        facts: of the training rows.
        tower: the item tower, for items that are not in the batch.
    """

    def __init__(
        self, config: LossConfig, facts: TrainingFacts, tower: Tower, **kwargs: Any
    ) -> None:
        super().__init__(
            to_call=DotProduct(),
            default_loss=RowLoss(config.reduction),
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
        """Return row losses in training and testing, scores otherwise."""
        if not (training or testing):
            return self.to_call(inputs)
        assert features is not None
        own = tf.reshape(features[ITEM_ROW], [-1])
        users = tf.reshape(features[USER_ROW], [-1])
        rows, vectors, positives = self._candidates(own, inputs[ITEM], training)
        losses = in_batch.softmax_loss(
            tf.matmul(inputs[QUERY], vectors, transpose_b=True),
            positives,
            temperature=self.config.temperature,
            log_q=tf.gather(self.log_q, rows) if self._corrected else None,
            mask=self._mask(users, own, rows),
        )[:, None]
        return mm.Prediction(losses, tf.zeros_like(losses))

    @property
    def _corrected(self) -> bool:
        return self.config.logq and self.kind != "full"

    def _candidates(
        self, own: tf.Tensor, vectors: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return item rows [C], their vectors [C, dim], and each row's own column [B]."""
        if self.kind == "full":
            rows = tf.range(self.n_items, dtype=own.dtype)
            return rows, self.embed_items(rows, training), own
        positives = tf.range(tf.size(own))
        if self.kind == "mixed":
            drawn = self.draws.integers([self.config.negatives], self.n_items, own.dtype)
            more = self.embed_items(drawn, training)
            return tf.concat([own, drawn], 0), tf.concat([vectors, more], 0), positives
        return own, vectors, positives

    def _mask(self, users: tf.Tensor, own: tf.Tensor, rows: tf.Tensor) -> tf.Tensor | None:
        if self.config.mask == "none":
            return None
        if self.config.mask == "item":
            return own[:, None] == rows[None, :]
        return in_batch.known_positives(users, rows, self.liked, self.offsets)


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


class RowLoss(tf.keras.losses.Loss):
    """The reduction of row losses: `mean` or `sum` over the batch."""

    def __init__(self, kind: str) -> None:
        reduction = tf.keras.losses.Reduction
        mean, total = reduction.SUM_OVER_BATCH_SIZE, reduction.SUM
        super().__init__(reduction=mean if kind == "mean" else total, name="row_loss")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the row losses as they are, float32 [B]."""
        return y_pred[:, 0]


#: Traced once a tower; validation asks after every epoch.
_COMPILED: WeakKeyDictionary[Tower, Any] = WeakKeyDictionary()


def _compiled(tower: Tower, like: dict[str, npt.NDArray[np.generic]]) -> Any:
    """Return the tower as a function of batches of any size."""
    if tower not in _COMPILED:
        # unknown sizes in every spec, or each new size would be traced again
        specs = {name: tf.TensorSpec([None], values.dtype) for name, values in like.items()}
        reference = weakref.ref(tower)  # a strong one would keep the key alive for ever

        def call(batch: dict[str, tf.Tensor]) -> tf.Tensor:
            alive = reference()
            assert alive is not None, "its caller holds it"
            return alive(batch, training=False)

        # no autograph: nothing here branches on a tensor, and converting Merlin's code takes 4 s
        _COMPILED[tower] = tf.function(call, input_signature=[specs], autograph=False)
    return _COMPILED[tower]


def embed(tower: Tower, columns: Columns, *, batch_size: int = 8192) -> npt.NDArray[np.float32]:
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
    call = _compiled(tower, take(columns, np.arange(0)))
    parts = [
        call({name: tf.constant(v) for name, v in take(columns, rows).items()}).numpy()
        for rows in np.array_split(np.arange(count), max(1, -(-count // batch_size)))
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)


@dataclass(frozen=True)
class TwoTower:
    """A trained model as a Retriever: queries are embedded with the history that they bring.

    Attributes:
        tower: the query tower.
        users: its inputs that belong to users, n_users + 1 rows, the last for unknown users.
        items: inputs of the item tower, n_items rows; history columns are looked up in it.
        vectors: the items' embeddings, float32 [n_items, dim].
    """

    tower: Tower
    users: Columns
    items: Columns
    vectors: npt.NDArray[np.float32]

    @classmethod
    def of(cls, model: Model, users: Columns, items: Columns) -> TwoTower:
        """Embed the catalogue with a built model."""
        vectors = embed(model.candidate_encoder, items)
        return cls(model.query_encoder, users, items, vectors)

    def inputs(self, queries: Queries) -> dict[str, Column]:
        """Return the query tower's inputs, one row a query."""
        columns: dict[str, Column] = {}
        for column in self.tower.schema:
            if Tags.SEQUENCE in column.tags:
                latest = queries.histories.last(int(column.shape.dims[1].max))
                codes = self.items[column.int_domain.name]
                assert isinstance(codes, np.ndarray)
                columns[column.name] = Ragged(codes[latest.values], latest.offsets)
            else:
                columns[column.name] = take_rows(self.users[column.name], queries.users)
        return columns

    def embed(self, queries: Queries) -> npt.NDArray[np.float32]:
        """Return the queries' embeddings, float32 [n_queries, dim]."""
        return embed(self.tower, self.inputs(queries))

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank the whole catalogue for each query."""
        vectors = self.embed(queries)
        return search(vectors, self.vectors, k, exclude=exclude, candidates=candidates)
