"""Layers for vector features: the vectors of a batch's rows, and of the items of histories.

A history item is described by its vectors as well as by its id. Both towers use one projection, so
that the score of an item without training interactions rises with the likeness of its vectors to
those of the user's history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from merlin.schema import Schema

from models.core.column_names import NORMALIZE, VECTOR_DROPOUT
from models.core.columns import Column
from models.core.retriever import Floats, Ints
from models.encoders.dropout import Dropout
from models.towers.item_content import by_item_code
from models.towers.layers import layer_name


class Vectors(tf.keras.layers.Layer):
    """Vector features, unchanged or projected; a missing vector is the zero vector.

    Args:
        schema: list columns; a column's dimensions give the length of its vectors. The property
            `NORMALIZE` of a column means that its vectors are divided by their L2 norms;
            `VECTOR_DROPOUT` is the dropout rate of the column's vectors in training.
        project: width of the outputs; None leaves the vectors as they are.
        seed: seed of the projections and of the dropout.
    """

    def __init__(self, schema: Schema, project: int | None, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._schema = schema
        self.project = project
        self.widths = {column.name: int(column.shape.dims[1].max) for column in schema}
        self.normalized = {c.name for c in schema if NORMALIZE in c.properties}
        self.drops = {
            c.name: Dropout(float(c.properties[VECTOR_DROPOUT]), seed=seed + n, name=f"drop_{n}")
            for n, c in enumerate(schema)
            if VECTOR_DROPOUT in c.properties
        }
        self.kernels: dict[str, tf.Variable] = {}
        for n, (name, width) in enumerate(self.widths.items() if project else ()):
            start = tf.keras.initializers.GlorotUniform(seed + n)
            weights = f"{layer_name(name)}/projection"
            self.kernels[name] = self.add_weight(weights, [width, project], initializer=start)

    @property
    def schema(self) -> Schema:
        """The vector feature columns that this layer takes, with the lengths of their vectors."""
        return self._schema

    def call(
        self, inputs: dict[str, tf.RaggedTensor], training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return the vectors, projected or as they are, {column: float32 [B, width]}."""
        return {
            name: self.encode(
                name, tf.squeeze(inputs[name], -1).to_tensor(shape=[None, width]), training
            )
            for name, width in self.widths.items()
        }

    def encode(self, name: str, vectors: tf.Tensor, training: bool) -> tf.Tensor:
        """Return vectors of a column as the tower takes them: without NaN, scaled and projected.

        Args:
            name: the vector feature column.
            vectors: the values of the column, float32 [n, length]; zeros or NaN if missing.
            training: whether dropout is applied before the projection.
        """
        vectors = tf.where(tf.math.is_nan(vectors), 0.0, vectors)
        if name in self.normalized:
            vectors = _unit(vectors)
        if name in self.drops:
            vectors = self.drops[name](vectors, training=training)
        return tf.matmul(vectors, self.kernels[name]) if self.project else vectors

    def compute_output_shape(self, input_shape: Any) -> dict[str, tf.TensorShape]:
        """Return the shapes of the output vectors, {column: [B, width]}."""
        return {
            n: tf.TensorShape([None, self.project or width]) for n, width in self.widths.items()
        }


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    """Return vectors divided by their L2 norms; a vector of zeros stays as it is."""
    # by the largest number first: the square of 1e20 is infinite in float32, that of 1e-30 is 0
    largest = tf.reduce_max(tf.abs(vectors), axis=1, keepdims=True)
    vectors = tf.math.divide_no_nan(vectors, largest)
    return tf.math.divide_no_nan(vectors, tf.norm(vectors, axis=1, keepdims=True))


class ItemVectors(tf.keras.layers.Layer):
    """The vectors of items, given by the codes of their ids, with the item tower's projections.

    Args:
        vectors: the layer of the item tower that projects vector features.
        tables: vector feature column → the vector of each code, float32 [n_codes, length].
    """

    def __init__(self, vectors: Vectors, tables: Mapping[str, Floats], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vectors = vectors
        self.tables = {
            name: self.add_weight(
                f"{layer_name(name)}/vectors",
                table.shape,
                initializer=tf.keras.initializers.Constant(table),
                trainable=False,
            )
            for name, table in tables.items()
        }

    def call(self, codes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the sum of the projected vectors of each code, float32 [n, dim]."""
        projected = [
            self.vectors.encode(name, tf.gather(table, codes), training)
            for name, table in self.tables.items()
        ]
        return tf.add_n(projected)


def vectors_by_code(column: Column, codes: Ints, n_codes: int, *, length: int) -> Floats:
    """Return the vector of each code of the item ids, float32 [n_codes, length].

    A code that several items share, such as that of unseen ids, gets zeros.

    Args:
        column: the vectors of the items, n_items lists, empty if missing.
        codes: the code of each item's id, int [n_items].
        n_codes: number of codes of the item ids.
        length: the length of the vectors.
    """
    lists = by_item_code(column, codes, n_codes)
    table = np.zeros((n_codes, length), np.float32)
    rows = np.flatnonzero(lists.lengths == length)
    table[rows] = lists.values[lists.offsets[rows, None] + np.arange(length)]
    return table
