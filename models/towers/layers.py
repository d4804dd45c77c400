"""Keras layers that Merlin lacks: histories, weighted lists, one-hots, an item bias."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from merlin.schema import Schema

from models.core.column_names import HISTORY_AGES
from models.core.reserved_codes import UNSEEN
from models.encoders.dropout import Draws
from models.encoders.encoder import HistoryEncoder, Steps

#: Pattern of the names that TensorFlow accepts for a layer everywhere.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
#: The beginning of a layer's name if TensorFlow refuses the name of its column.
_ESCAPED = "x-"


def layer_name(column: str) -> str:
    """Return the name of the Keras layer of a column; no two columns have the same.

    TensorFlow accepts only letters, digits, `_`, `.` and `-` in layer names. Each character of a
    column's name that TensorFlow does not accept is replaced by its code point, and the layer name
    then begins with `x-`: `a b` becomes `x-a-20-b`. Data and files keep the columns' own names.
    """
    if _PLAIN.fullmatch(column) and not column.startswith(_ESCAPED):
        return column
    kept = (c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in column)
    return _ESCAPED + "".join(kept)


class History(tf.keras.layers.Layer):
    """Encodes a user's history as one vector, with the embedding table of the item tower.

    An empty history is the zero vector.

    Args:
        schema: one list column of codes, oldest first; and the column `history_ages`, if there is
            one.
        table: the item tower's Keras Embedding [n_codes, dim], which this layer shares.
        encoder: the history encoder, which makes one vector of the items' embeddings.
        gaps: whether values of a list may be missing; missing values are left out and have no
            position.
        content: returns further vectors of item codes, which are added to the items' embeddings.

    Attributes:
        in_sequences: whether a training batch has sequences: of a list of n items, all n + 1
            prefixes, from the empty one to the whole list, are encoded. The output then has as many
            rows as all lists have items, plus one row for each list.
    """

    def __init__(
        self,
        schema: Schema,
        table: tf.keras.layers.Embedding,
        encoder: HistoryEncoder,
        *,
        gaps: bool = False,
        content: tf.keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._schema = schema
        self.content = content
        self.column = next(name for name in schema.column_names if name != HISTORY_AGES)
        self.table = table
        self.encoder = encoder
        self.gaps = gaps
        self.in_sequences = False

    @property
    def schema(self) -> Schema:
        """The history column that this layer encodes, with its type and vocabulary size."""
        return self._schema

    def build(self, input_shape: Any) -> None:
        """Create the weights of the shared embedding table if the item tower has not done so."""
        if not self.table.built:
            self.table.build(input_shape)
        super().build(input_shape)

    def call(
        self, inputs: dict[str, tf.RaggedTensor], training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return history vectors {column: float32 [B, dim]} of ragged item codes [B, None, 1]."""
        steps = self._steps(inputs, training)
        if training and self.in_sequences:
            each = self.encoder.encode_each(steps, training=training)
            empty = tf.zeros([each.nrows(), 1, self.table.output_dim])
            encoded = tf.concat([tf.RaggedTensor.from_tensor(empty), each], axis=1).values
        else:
            encoded = self.encoder.encode(steps, training=training)
        return {self.column: tf.ensure_shape(encoded, [None, self.table.output_dim])}

    def _steps(self, inputs: dict[str, tf.RaggedTensor], training: bool) -> Steps:
        lists, ages = inputs[self.column].with_row_splits_dtype(tf.int64), None
        if HISTORY_AGES in inputs:
            ages = tf.squeeze(inputs[HISTORY_AGES].with_row_splits_dtype(tf.int64), -1)
        if self.gaps:
            known = tf.squeeze(lists, -1) >= UNSEEN
            lists = _without_missing(lists)
            ages = ages if ages is None else tf.ragged.boolean_mask(ages, known)
        codes = tf.reshape(lists.flat_values, [-1])
        vectors = tf.nn.embedding_lookup(self.table.embeddings, codes)
        if self.content is not None:
            vectors += self.content(codes, training=training)
        if ages is not None:  # the lists are equally long
            ages = lists.with_values(ages.values)
        return Steps(lists.with_values(vectors), ages)

    def compute_output_shape(self, input_shape: Any) -> dict[str, tf.TensorShape]:
        """Return the shape of the history vectors, {column: [B, dim]}."""
        return {self.column: tf.TensorShape([None, self.table.output_dim])}


class WeightedMean(tf.keras.layers.Layer):
    """The weighted mean of the embeddings of a list of categories.

        Σ_k w_k e(code_k) / Σ_k w_k

    Missing values are left out with their weights. The mean of an empty list is the zero vector,
    and so is the mean of a list with weights that are all zero.

    Args:
        schema: the lists of codes, and the lists of their weights.
        weights: column of codes → column of its weights.
        tables: column of codes → Keras Embedding [n_codes, dim].
    """

    def __init__(
        self,
        schema: Schema,
        weights: Mapping[str, str],
        tables: Mapping[str, tf.keras.layers.Embedding],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._schema = schema
        self.weights_of = dict(weights)
        self.tables = dict(tables)
        for column, table in self.tables.items():
            with tf.name_scope(layer_name(column)):  # HDF5 files need names
                table.build(None)  # here, so that the optimiser knows all weights before the fit

    @property
    def schema(self) -> Schema:
        """The list columns whose embeddings this layer averages, and their weight columns."""
        return self._schema

    def call(self, inputs: dict[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        """Return weighted mean embeddings {column of codes: float32 [B, dim]} of ragged lists."""
        return {
            column: _weighted_mean(inputs[column], inputs[self.weights_of[column]], table)
            for column, table in self.tables.items()
        }

    def compute_output_shape(self, input_shape: Any) -> dict[str, tf.TensorShape]:
        """Return the shapes of the mean embeddings, {column of codes: [B, dim]}."""
        return {c: tf.TensorShape([None, table.output_dim]) for c, table in self.tables.items()}


def _weighted_mean(
    lists: tf.RaggedTensor, weights: tf.RaggedTensor, table: tf.keras.layers.Embedding
) -> tf.Tensor:
    codes = tf.reshape(lists.flat_values, [-1])
    counts = tf.reshape(weights.flat_values, [-1]) * tf.cast(codes >= UNSEEN, tf.float32)
    rows, n_rows = lists.value_rowids(), lists.nrows()
    vectors = tf.nn.embedding_lookup(table.embeddings, codes)
    total = tf.math.unsorted_segment_sum(counts[:, None] * vectors, rows, n_rows)
    norm = tf.math.unsorted_segment_sum(counts, rows, n_rows)
    mean = tf.math.divide_no_nan(total, norm[:, None])
    return tf.ensure_shape(mean, [None, table.output_dim])


class OneHot(tf.keras.layers.Layer):
    """One-hot categories: a 1 at the position of the code. Only padding, code 0, has no position.

    Missing and unseen values have positions. A list is the mean of its codes' one-hots without
    missing values; an empty list is the zero vector.

    Args:
        schema: the categorical columns to encode: codes or lists of codes.
    """

    def __init__(self, schema: Schema, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._schema = schema
        self.widths = {column.name: int(column.int_domain.max) for column in schema}

    @property
    def schema(self) -> Schema:
        """The categorical columns that this layer one-hot encodes, with their vocabulary sizes."""
        return self._schema

    def call(self, inputs: dict[str, tf.Tensor | tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        """Return one-hots {column: float32 [B, n_codes - 1]} of codes [B, 1] or ragged lists."""
        return {name: _one_hot(inputs[name], width) for name, width in self.widths.items()}

    def compute_output_shape(self, input_shape: Any) -> dict[str, tf.TensorShape]:
        """Return the shapes of the one-hots, {column: [B, n_codes - 1]}."""
        return {name: tf.TensorShape([None, width]) for name, width in self.widths.items()}


def _one_hot(codes: tf.Tensor | tf.RaggedTensor, width: int) -> tf.Tensor:
    if not isinstance(codes, tf.RaggedTensor):
        return tf.one_hot(tf.reshape(codes, [-1]) - 1, width)
    codes = _without_missing(codes)
    places = tf.cast(tf.reshape(codes.flat_values, [-1]), tf.int64)
    rows, lengths = codes.value_rowids(), codes.row_lengths()
    cells = tf.stack([tf.cast(rows, tf.int64), places], axis=1)
    shape = tf.stack([tf.size(lengths, tf.int64), width + 1])
    # whole numbers first: equal shares are equal to the last bit, and so are ties
    counts = tf.scatter_nd(cells, tf.ones_like(places, tf.float32), shape)[:, 1:]
    shares = tf.math.divide_no_nan(counts, tf.cast(lengths, tf.float32)[:, None])
    return tf.ensure_shape(shares, [None, width])


def _without_missing(lists: tf.RaggedTensor) -> tf.RaggedTensor:
    """Return ragged lists of categorical codes without the codes of padding and missing values.

    A tower for raw values gets "" both for padding and for missing text, so both codes must have
    the same effect.
    """
    known = tf.ragged.boolean_mask(tf.squeeze(lists, -1), tf.squeeze(lists, -1) >= UNSEEN)
    return tf.expand_dims(known, -1)


class RowCount(tf.keras.layers.Layer):
    """An input layer of width 0, from which a tower without features gets the batch size.

    Args:
        schema: the schema of one feature column, whose values are ignored.
    """

    def __init__(self, schema: Schema, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._schema = schema

    @property
    def schema(self) -> Schema:
        """The one feature column from which this layer takes the batch size."""
        return self._schema

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return a matrix with one row per example and no columns, {column: float32 [B, 0]}."""
        (name,) = self._schema.column_names
        return {name: tf.zeros([tf.size(inputs[name]), 0])}

    def compute_output_shape(self, input_shape: Any) -> dict[str, tf.TensorShape]:
        """Return the shape of the matrix without columns, {column: [B, 0]}."""
        (name,) = self._schema.column_names
        return {name: tf.TensorShape([None, 0])}


class ItemBias(tf.keras.layers.Layer):
    """Appends a learnt bias plus the popularity prior of the item to the item tower's output.

    Args:
        column: the column of the item id's codes.
        n_codes: number of codes of the item id, which is the size of the bias table.
        drop: the layer that replaces codes by the unseen code in training, so that new items get a
            trained bias.
    """

    def __init__(
        self, column: str, n_codes: int, drop: IdDropout | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.column = column
        self.drop = drop
        self.table = self.add_weight("bias", [n_codes], initializer="zeros")
        self.prior = self.add_weight("prior", [n_codes], initializer="zeros", trainable=False)

    def call(
        self, inputs: tf.Tensor, features: dict[str, tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """Return item embeddings with the item biases as last dimension, float32 [B, dim + 1]."""
        if self.drop:
            features = self.drop(features, training=training)
        codes = tf.reshape(features[self.column], [-1])
        bias = tf.gather(self.table, codes) + tf.gather(self.prior, codes)
        return tf.concat([inputs, bias[:, None]], axis=1)

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Return the shape of item embeddings with a bias, [B, dim + 1]."""
        return tf.TensorShape([input_shape[0], input_shape[-1] + 1])


class AppendOne(tf.keras.layers.Layer):
    """Appends the constant 1 to query embeddings, so that the dot product adds the item bias."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the query embeddings with 1 as last dimension, float32 [B, dim + 1]."""
        return tf.pad(inputs, [[0, 0], [0, 1]], constant_values=1.0)

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Return the shape of query embeddings with the constant 1, [B, dim + 1]."""
        return tf.TensorShape([input_shape[0], input_shape[-1] + 1])


class IdDropout(Draws):
    """In training, replaces random ids by the unseen code, so that its embedding gets trained.

    Without this dropout, the embedding of unknown users and new items would keep its random initial
    values.

    Args:
        column: the column of an id's codes.
        rate: share of the rows that are replaced.
        seed: the seed of the draws.
    """

    def __init__(self, column: str, *, rate: float, seed: int, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.column = column
        self.rate = rate

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Return the tower's inputs, in training with some ids replaced by the unseen code."""
        if not training:
            return inputs
        codes = inputs[self.column]
        drop = self.uniform(tf.shape(codes)) < self.rate
        return {**inputs, self.column: tf.where(drop, tf.cast(UNSEEN, codes.dtype), codes)}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shapes of the tower's input columns, which do not change."""
        return input_shape
