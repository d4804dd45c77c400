"""Builds a two-tower model on Merlin's TwoTowerModelV2 from a schema, with a sampled loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import merlin.models.tf as mm
import msgspec
import numpy as np
import numpy.typing as npt
from merlin.schema import Schema, Tags

from models.core.collectives import Collectives
from models.core.column_names import HISTORY_AGES
from models.core.columns import LOSS_COLUMNS, Column, Columns, take_rows
from models.core.exact import search
from models.core.retriever import Bools, Queries, Ragged, TopK
from models.encoders.dropout import Dropout
from models.losses.config import LossConfig
from models.losses.negatives import TrainingFacts
from models.losses.sampled_loss import SampledLoss
from models.towers import frozen
from models.towers.config import (
    ID_DROPOUT,
    MANY_COLD,
    ContentConfig,
    ModelConfig,
    PopularityConfig,
    TwoTowerConfig,
)
from models.towers.layers import History, IdDropout, ItemBias
from models.towers.tower import (
    SharedItems,
    Tower,
    TowerError,
    build_tower,
    embed,
    tower_schemas,
    width,
)

#: The class of two-tower models of Merlin Models.
Model: TypeAlias = mm.RetrievalModelV2


def build(
    schema: Schema, config: ModelConfig, loss: LossConfig, facts: TrainingFacts, *, seed: int
) -> Model:
    """Build a two-tower model with its loss, and create all its weights.

    Args:
        schema: tagged columns from the etl stage, including `user_row` and `item_row`.
        config: hyper-parameters of the two towers; popularity and content models have no trainable
            weights.
        loss: hyper-parameters of the training loss.
        facts: facts on the training rows, such as the count of each item.
        seed: the seed of the initial weights.

    Raises:
        TowerError: a tower has no inputs, or the towers have different output dimensions.
    """
    query_schema, item_schema = tower_schemas(schema)
    query, item = _towers(query_schema, item_schema, config, facts, seed)
    model = mm.TwoTowerModelV2(
        query,
        item,
        outputs=SampledLoss(loss, facts, item),
        schema=query_schema + item_schema + schema.select_by_name(LOSS_COLUMNS),
    )
    model.trainable = isinstance(config, TwoTowerConfig)
    model.built = True  # or Keras would call it once more, on a whole batch
    _refuse_unequal(width(query), width(item), config)
    return model


def _towers(
    query: Schema, item: Schema, config: ModelConfig, facts: TrainingFacts, seed: int
) -> tuple[Tower, Tower]:
    if isinstance(config, PopularityConfig):
        return frozen.popularity(query, item)
    if isinstance(config, ContentConfig):
        return frozen.content(query, item)
    rate = _item_id_dropout(config, item, facts)
    of_items = msgspec.structs.replace(config, id_dropout=rate)
    item_tower = build_tower("item", item, of_items, config.item_layers, seed + 1000)
    shared = SharedItems(item_tower, facts.items)
    query_tower = build_tower("query", query, config, config.query_layers, seed, shared=shared)
    return query_tower, item_tower


def _item_id_dropout(config: TwoTowerConfig, item: Schema, facts: TrainingFacts) -> float:
    """Return the share of item ids that a training step replaces by the unseen code."""
    if config.id_dropout is not None:
        return config.id_dropout
    has_content = len(item.excluding_by_tag(Tags.ID)) > 0
    share_cold = float((np.asarray(facts.item_counts) == 0).mean())
    return ID_DROPOUT if has_content and share_cold >= MANY_COLD else 0.0


def _refuse_unequal(query: int, item: int, config: ModelConfig) -> None:
    if query == item:
        return
    assert isinstance(config, TwoTowerConfig)  # the other kinds see to it
    raise TowerError(
        f"the query tower ends in {query} and the item tower in {item} dimensions "
        f"(query_layers {list(config.query_layers)}, item_layers {list(config.item_layers)}, "
        f"combine {config.combine!r}, dims {config.dims}); a dot product needs equal widths. Give "
        "both towers a last layer of the same width, or inputs whose widths add up to it."
    )


def train_on_sequences(model: Model) -> None:
    """Set up a model for training on batches of sequences.

    In training, the history layers of the query tower then encode every prefix of each history, and
    the loss masks the positives of a user once for all consecutive rows of the user.
    """
    for layer in model.submodules:
        if isinstance(layer, (History, SampledLoss)):
            layer.in_sequences = True


def train_by_ranks(model: Model, collectives: Collectives) -> None:
    """Set up a model for a training by several processes (ranks), which share each batch.

    In training, each process compares its rows with the items of the whole batch.

    For dropout, each process draws other random numbers. So only a model without dropout gets,
    except for rounding, the weights of a training by one process.
    """
    for layer in model.submodules:
        if isinstance(layer, SampledLoss):
            layer.collectives = collectives
        elif isinstance(layer, (Dropout, IdDropout)):
            layer.seed += collectives.share.rank * 1_000_003


def set_prior(model: Model, codes: npt.NDArray[np.integer], prior: npt.NDArray[np.float32]) -> None:
    """Write a popularity prior into the item bias; items with the same code get their mean prior.

    Args:
        model: a model that was built with `item_bias`.
        codes: the code of each item's id in the embedding table, int [n_items].
        prior: the number that is added to the score of each item, float32 [n_items].
    """
    bias = next(b for b in model.candidate_encoder.blocks if isinstance(b, ItemBias))
    size = int(bias.prior.shape[0])
    count = np.maximum(np.bincount(codes, minlength=size), 1)
    bias.prior.assign((np.bincount(codes, prior, minlength=size) / count).astype(np.float32))


def ages(queries: Queries, max_len: int) -> Ragged:
    """Return the seconds from each item of the histories to the last item of its history.

    Args:
        queries: the queries; without known times, all ages are NaN.
        max_len: number of latest items of a history.

    Returns:
        float32 values; a Ragged of n_queries lists.
    """
    if queries.times is None:
        lists = queries.histories.last(max_len)
        return Ragged(np.full(len(lists.values), np.nan, np.float32), lists.offsets)
    latest = queries.times.last(max_len)
    last = latest.values[np.maximum(latest.offsets[1:] - 1, 0)] if len(latest.values) else []
    values = np.repeat(last, latest.lengths) - latest.values
    return Ragged(values.astype(np.float32), latest.offsets)


@dataclass(frozen=True)
class TwoTower:
    """A trained two-tower model as a retriever, which embeds queries with their histories.

    Attributes:
        tower: the query tower.
        users: the user inputs of the query tower, n_users + 1 rows; the last row is for unknown
            users.
        items: input columns of the item tower, n_items rows; the query tower's history columns are
            made from them, too.
        vectors: the item tower's embedding of each item, float32 [n_items, dim].
    """

    tower: Tower
    users: Columns
    items: Columns
    vectors: npt.NDArray[np.float32]

    @classmethod
    def of(cls, model: Model, users: Columns, items: Columns) -> TwoTower:
        """Make a retriever of a two-tower model, by embedding all items with the item tower."""
        vectors = embed(model.candidate_encoder, items)
        return cls(model.query_encoder, users, items, vectors)

    def inputs(self, queries: Queries) -> dict[str, Column]:
        """Return the query tower's input columns for a batch of queries, one row per query."""
        columns: dict[str, Column] = {}
        for column in self.tower.schema:
            if column.name == HISTORY_AGES:
                columns[column.name] = ages(queries, int(column.shape.dims[1].max))
            elif Tags.SEQUENCE in column.tags:
                latest = queries.histories.last(int(column.shape.dims[1].max))
                codes = self.items[column.int_domain.name]
                assert isinstance(codes, np.ndarray)
                columns[column.name] = Ragged(codes[latest.values], latest.offsets)
            elif column.name in queries.contexts:
                columns[column.name] = queries.contexts[column.name]
            else:
                columns[column.name] = take_rows(self.users[column.name], queries.users)
        return columns

    def embed(self, queries: Queries) -> npt.NDArray[np.float32]:
        """Return the query tower's embedding of each query, float32 [n_queries, dim]."""
        return embed(self.tower, self.inputs(queries))

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k best items of the whole catalogue for each query, by exact search."""
        vectors = self.embed(queries)
        return search(vectors, self.vectors, k, exclude=exclude, candidates=candidates)
