"""Builds the query tower or the item tower from a schema, on Merlin's encoder.

Layers for histories and for an item bias are added to what Merlin's encoder has.

Tags choose the inputs: the query tower takes USER and CONTEXT columns, the item tower ITEM columns.
A CATEGORICAL column is embedded (a list by the mean of its embeddings, weighted if the list has
weights) or one-hot encoded, and a CONTINUOUS column is taken as a number.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import merlin.models.tf as mm
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from merlin.schema import ColumnSchema, Schema, Tags

from models.core.column_names import AGES_OF, HISTORY_AGES, WEIGHTS_OF
from models.core.columns import Columns, as_array, n_rows, take
from models.core.reserved_codes import PAD
from models.core.retriever import Ints
from models.encoders.dropout import Dropout
from models.encoders.encoder import Shape, build_encoder
from models.towers.config import TwoTowerConfig
from models.towers.item_content import ItemCategories, ItemContent, by_item_code
from models.towers.layers import (
    AppendOne,
    History,
    IdDropout,
    ItemBias,
    OneHot,
    WeightedMean,
    layer_name,
)
from models.towers.vectors import ItemVectors, Vectors, vectors_by_code

#: A tower is an Encoder of Merlin Models.
Tower: TypeAlias = mm.Encoder


class TowerError(ValueError):
    """A pair of towers cannot be built from the configuration and the schema."""


def tower_schemas(schema: Schema) -> tuple[Schema, Schema]:
    """Return the schemas of the feature columns of the query tower and of the item tower."""
    inputs = schema.select_by_tag(Tags.CATEGORICAL) + schema.select_by_tag(Tags.CONTINUOUS)
    lists = inputs.column_names
    inputs += Schema([c for c in schema if c.properties.get(WEIGHTS_OF) in lists])
    query = inputs.select_by_tag(Tags.USER) + inputs.select_by_tag(Tags.CONTEXT)
    return query, inputs.select_by_tag(Tags.ITEM)


class SharedItems(NamedTuple):
    """The item tower, whose layers the query tower shares, and the columns of the items.

    Attributes:
        tower: the item tower.
        items: input columns of the item tower, one row per item.
    """

    tower: Tower
    items: Columns


def build_tower(
    name: str,
    schema: Schema,
    config: TwoTowerConfig,
    layers: tuple[int, ...],
    seed: int,
    *,
    shared: SharedItems | None = None,
) -> Tower:
    """Build one tower from its columns; histories use layers of the item tower in `shared`."""
    if not schema:
        raise TowerError(
            f"the {name} tower has no inputs; give a feature of its role `input: true`"
        )
    # not InputBlockV2: it would add embeddings to a tower that has only histories
    inputs = mm.ParallelBlock(
        _branches(name, schema, config, seed, shared),
        aggregation=config.combine,
        is_input=True,
        schema=schema,
    )
    ids = schema.select_by_tag(Tags.ID)
    blocks = _blocks(name, ids, config, layers, seed)
    pre = _id_dropout(ids.first, config, seed + 1) if ids else None
    return mm.Encoder(inputs, *blocks, pre=pre, name=f"{name}_tower")


def _branches(
    name: str, schema: Schema, config: TwoTowerConfig, seed: int, shared: SharedItems | None
) -> dict[str, Any]:
    """Return a tower's input layers, by the kind of column (category, history, number, vector)."""
    one_hot = Schema([column for column in schema if _is_one_hot(column, config)])
    embedded = schema.excluding_by_name(one_hot.column_names)
    histories = embedded.select_by_tag(Tags.SEQUENCE)
    weights = {c.properties[WEIGHTS_OF]: c.name for c in schema if WEIGHTS_OF in c.properties}
    plain = embedded.excluding_by_tag(Tags.SEQUENCE).excluding_by_name(list(weights))
    categorical, continuous = (plain.select_by_tag(t) for t in (Tags.CATEGORICAL, Tags.CONTINUOUS))
    branches: dict[str, Any] = {}
    if categorical:
        branches[_branch("categorical", schema)] = _embeddings(name, categorical, config, seed)
    if weights:
        weighted = schema.select_by_name(list(weights))
        made = _embeddings(name, weighted, config, seed + len(categorical))
        tables = {c.name: _table(made, c) for c in weighted}
        both = weighted + schema.select_by_name(list(weights.values()))
        branches[_branch("weighted", schema)] = WeightedMean(both, weights, tables)
    if one_hot:
        branches[_branch("one_hot", schema)] = OneHot(one_hot)
    vectors = Schema([column for column in continuous if column.is_list])
    continuous = continuous.excluding_by_name(vectors.column_names)
    if vectors:
        project = config.dim if config.combine == "sum" else None
        assert project != "infer", "sums need one width"
        branches[_branch("vectors", schema)] = Vectors(vectors, project, seed + len(schema))
    if continuous:
        numbers = mm.Continuous(continuous)
        if config.combine == "sum":
            project = mm.MLPBlock([config.dim], activation="linear", use_bias=False)
            numbers = mm.ContinuousProjection(continuous, project)
        branches[_branch("continuous", schema)] = numbers
    adds_content = config.history_content and config.combine == "sum"
    ages = schema.select_by_name([HISTORY_AGES])
    for column in histories.excluding_by_name([HISTORY_AGES]):
        assert shared is not None
        table = _table(shared.tower, column)
        shape = Shape(int(column.shape.dims[1].max), table.output_dim, seed + 50, ages=bool(ages))
        branches[_branch(f"{column.name}_pool", schema)] = History(
            Schema([column]) + ages,
            table,
            build_encoder(config.encoder, shape),
            gaps=not _lists_items(column, shared.tower),
            content=_content(column, shared) if adds_content else None,
        )
    return branches


def _lists_items(history: ColumnSchema, tower: Tower) -> bool:
    """Return whether a history lists the ids of the items, not another feature of theirs."""
    return Tags.ID in tower.schema[history.int_domain.name].tags  # Merlin splits ITEM_ID


def _content(history: ColumnSchema, shared: SharedItems) -> ItemContent | None:
    """Return a layer for the features of a history's items; None if they have no features."""
    if not _lists_items(history, shared.tower):
        return None
    codes = as_array(shared.items[history.int_domain.name])
    n_codes = history.int_domain.max + 1
    parts = [*_categories(codes, n_codes, shared), *_vectors(codes, n_codes, shared)]
    return ItemContent(parts) if parts else None


def _categories(codes: Ints, n_codes: int, shared: SharedItems) -> Iterator[ItemCategories]:
    """Yield a layer for the categories of items, except weighted ones, if there are any."""
    schema = shared.tower.schema
    weighted = [c.properties[WEIGHTS_OF] for c in schema if WEIGHTS_OF in c.properties]
    columns = schema.select_by_tag(Tags.CATEGORICAL).excluding_by_tag(Tags.ID)
    if names := columns.excluding_by_name(weighted).column_names:
        yield ItemCategories(
            {name: _table(shared.tower, schema[name]) for name in names},
            {name: by_item_code(shared.items[name], codes, n_codes) for name in names},
        )


def _vectors(codes: Ints, n_codes: int, shared: SharedItems) -> Iterator[ItemVectors]:
    """Yield a layer for the vectors of items, if they have any."""
    layers = [block for block in shared.tower.submodules if isinstance(block, Vectors)]
    for layer in layers[:1]:
        tables = {
            name: vectors_by_code(shared.items[name], codes, n_codes, length=length)
            for name, length in layer.widths.items()
        }
        yield ItemVectors(layer, tables)


def _branch(name: str, schema: Schema) -> str:
    """Return a name for a tower's input layer that differs from the names of all columns.

    Merlin's ParallelBlock would pass to a layer with the name of a column only that column.
    """
    while name in schema.column_names:
        name += "_"
    return name


def _blocks(
    name: str, ids: Schema, config: TwoTowerConfig, layers: tuple[int, ...], seed: int
) -> list[tf.keras.layers.Layer]:
    """Return a tower's layers after its input layers: dropout, MLP, normalisation, item bias."""
    blocks: list[tf.keras.layers.Layer] = []
    dropout = config.dropout
    if name == "item" and config.item_dropout is not None:
        dropout = config.item_dropout
    if dropout:
        blocks.append(Dropout(dropout, seed=seed))
    if layers:
        blocks.append(
            mm.MLPBlock(list(layers), activation=config.activation, no_activation_last_layer=True)
        )
    if config.normalize:
        blocks.append(mm.L2Norm())
    if config.item_bias and name == "item" and not ids:
        raise TowerError(
            "item_bias needs the item id; set `input: true` for it, or model.item_bias to false"
        )
    if config.item_bias:
        blocks.append(_bias(ids.first, config, seed) if name == "item" else AppendOne())
    return blocks


def _is_one_hot(column: ColumnSchema, config: TwoTowerConfig) -> bool:
    return Tags.CATEGORICAL in column.tags and config.dims.get(column.int_domain.name) == "one_hot"


def _id_dropout(column: ColumnSchema, config: TwoTowerConfig, seed: int) -> IdDropout | None:
    if not config.id_dropout:
        return None
    return IdDropout(column.name, rate=config.id_dropout, seed=seed)


def _embeddings(
    name: str, schema: Schema, config: TwoTowerConfig, seed: int
) -> tf.keras.layers.Layer:
    """Return the layer that embeds categorical columns; a list gets the mean of its embeddings."""
    widths = {c.name: config.dims.get(c.int_domain.name, config.dim) for c in schema}
    return mm.Embeddings(
        Schema([_with_table_name(column) for column in schema]),
        # Merlin infers the width of a column that has none here
        dim={name: width for name, width in widths.items() if width != "infer"},
        sequence_combiner="mean",
        embeddings_initializer={
            column.name: tf.keras.initializers.RandomNormal(0.0, config.init_stddev, seed + i)
            for i, column in enumerate(schema)
        },
        block_name=f"{name}_embeddings",
    )


def _with_table_name(column: ColumnSchema) -> ColumnSchema:
    """Return a column with its domain renamed, because Merlin names embedding tables by domain."""
    name = layer_name(column.int_domain.name)
    domain = {**column.properties["domain"], "name": name}
    return column.with_properties({"domain": domain})


def _table(tower: tf.Module, column: ColumnSchema) -> tf.keras.layers.Embedding:
    """Return the embedding table that a tower has for the domain (vocabulary) of a column."""
    domain = column.int_domain.name
    for block in tower.submodules:
        if isinstance(block, mm.EmbeddingTable) and block.table_name == layer_name(domain):
            return block.table
    raise TowerError(
        f"{column.name!r} shares the embeddings of {domain!r}, which is not an input of the item "
        f"tower; set features.{domain}.input to true, or leave it out of history.columns."
    )


def _bias(item_id: ColumnSchema, config: TwoTowerConfig, seed: int) -> ItemBias:
    size = item_id.int_domain.max + 1
    return ItemBias(item_id.name, size, _id_dropout(item_id, config, seed + 2))


def ragged_batch(tower: Tower, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return encoded features as a tower takes them: padded matrices become ragged lists.

    Args:
        tower: the query tower or the item tower.
        features: input of the tower → [B], or [B, L] for lists.
    """
    batch: dict[str, tf.Tensor] = {}
    for column in tower.schema:
        name = column.name
        if column.is_list:
            lists = _ragged(column, features)
            batch[f"{name}__values"] = lists.values
            batch[f"{name}__offsets"] = tf.cast(lists.row_splits, tf.int32)
        else:
            batch[name] = features[name]
    return batch


def _ragged(column: ColumnSchema, features: dict[str, tf.Tensor]) -> tf.RaggedTensor:
    """Convert a padded list column to a ragged tensor; weights get the lengths of their lists."""
    values, weighed = features[column.name], column.properties.get(WEIGHTS_OF)
    dated = column.properties.get(AGES_OF)
    if dated is not None:
        codes = features[dated]
        return tf.ragged.boolean_mask(_fit_width(values, codes, missing=np.nan), codes != PAD)
    if Tags.CONTINUOUS in column.tags:  # in a vector, zeros are values, not padding
        return tf.RaggedTensor.from_tensor(values)
    if weighed is None:
        return tf.ragged.boolean_mask(values, values != PAD)
    codes = features[weighed]
    weights = _fit_width(values, codes, missing=1.0)
    weights = tf.where(tf.math.is_nan(weights), 1.0, weights)
    return tf.ragged.boolean_mask(weights, codes != PAD)


def _fit_width(numbers: tf.Tensor, codes: tf.Tensor, *, missing: float) -> tf.Tensor:
    """Cut or pad lists of numbers to the width of lists of codes; `missing` is the padding."""
    width = tf.shape(codes)[1]
    more = tf.maximum(0, width - tf.shape(numbers)[1])
    return tf.pad(numbers[:, :width], [[0, 0], [0, more]], constant_values=missing)


def _empty_batch(schema: Schema) -> dict[str, tf.Tensor]:
    """Return a batch of one row of zeros, whose forward pass creates a tower's weights."""
    batch: dict[str, tf.Tensor] = {}
    for column in schema:
        dtype = tf.as_dtype(column.dtype.to_numpy.name)
        if column.is_list:
            batch[f"{column.name}__values"] = tf.zeros([1], dtype)
            batch[f"{column.name}__offsets"] = tf.constant([0, 1], tf.int32)
        else:
            batch[column.name] = tf.zeros([1], dtype)
    return batch


def width(tower: Tower) -> int:
    return int(tower(_empty_batch(tower.schema)).shape[-1])


#: Towers as compiled functions. Each is traced once: validation calls it after every epoch.
_COMPILED: WeakKeyDictionary[Tower, Any] = WeakKeyDictionary()
#: Tower → number of batches that it has embedded without a compiled function.
_UNTRACED: WeakKeyDictionary[Tower, int] = WeakKeyDictionary()
#: The number of calls that take as long as tracing.
_TRACING = 8


def _function(
    tower: Tower, like: dict[str, npt.NDArray[np.generic]], batches: int
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Return a tower as a function, compiled by TensorFlow if there are many batches to embed."""
    before = _UNTRACED.get(tower, 0)
    # with lists, Merlin would trace a function for every new number of values
    if before + batches > _TRACING or any(column.is_list for column in tower.schema):
        return _compiled(tower, like)
    _UNTRACED[tower] = before + batches
    return lambda batch: tower(batch, training=False)


def _compiled(tower: Tower, like: dict[str, npt.NDArray[np.generic]]) -> Any:
    """Return a tower as a compiled TensorFlow function of batches of any size."""
    if tower not in _COMPILED:
        # unknown sizes in every spec, or each new size would be traced again
        specs = {name: tf.TensorSpec([None], values.dtype) for name, values in like.items()}
        reference = weakref.ref(tower)  # a strong reference would keep the tower in memory

        def call(batch: dict[str, tf.Tensor]) -> tf.Tensor:
            alive = reference()
            assert alive is not None, "its caller holds it"
            return alive(batch, training=False)

        # no autograph: nothing here branches on a tensor, and converting Merlin's code takes 4 s
        _COMPILED[tower] = tf.function(call, input_signature=[specs], autograph=False)
    return _COMPILED[tower]


#: Number of rows that a tower embeds at a time, and largest number of scores that its history
#: encoders keep in memory for them.
_ROWS, _SCORES = 8192, 1 << 22


def rows_at_a_time(tower: Tower) -> int:
    """Return how many rows a tower embeds at a time, given the memory of its history encoders."""
    encoders = [layer.encoder for layer in tower.submodules if isinstance(layer, History)]
    most = max((encoder.n_scores for encoder in encoders), default=1)
    return max(1, min(_ROWS, _SCORES // most))


def embed(
    tower: Tower, columns: Columns, *, batch_size: int | None = None
) -> npt.NDArray[np.float32]:
    """Return the embedding of each row of a table by one tower, computed batch by batch.

    Merlin's `encode` saves and reloads the model first, which takes longer than this function takes
    for 100k rows.

    Args:
        tower: the query tower or the item tower.
        columns: the tower's input columns, name → [n_rows].
        batch_size: number of rows that the tower embeds at a time; None for `rows_at_a_time`.

    Returns:
        float32 [n_rows, dim].
    """
    batch_size = batch_size or rows_at_a_time(tower)
    columns = {name: columns[name] for name in tower.schema.column_names}
    count = n_rows(columns)
    batches = np.array_split(np.arange(count), max(1, -(-count // batch_size)))
    call = _function(tower, take(columns, np.arange(0)), len(batches))
    parts = [
        call({name: tf.constant(v) for name, v in take(columns, rows).items()}).numpy()
        for rows in batches
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)
