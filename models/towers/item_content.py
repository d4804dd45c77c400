"""Features of the items of a history, looked up by the codes of the item ids.

An item of a history is described by its categories and vectors as well as by its id. Both towers
use the same embeddings and projections, so an item's score rises with the likeness of its features
to those of the history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.core.columns import Column
from models.core.reserved_codes import UNSEEN
from models.core.retriever import Ints, Ragged
from models.towers.layers import layer_name


class ItemContent(tf.keras.layers.Layer):
    """Returns vectors of item codes, each the sum of the vectors that several layers return.

    Args:
        parts: layers that return vectors of item codes, float32 [n, dim].
    """

    def __init__(self, parts: Sequence[tf.keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parts = list(parts)

    def call(self, items: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the sum of the parts' vectors of each item code, float32 [n, dim]."""
        distinct, places = tf.unique(items)  # popular items are in many histories
        vectors = [part(distinct, training=training) for part in self.parts]
        return tf.gather(tf.add_n(vectors), places)


class ItemCategories(tf.keras.layers.Layer):
    """The embeddings of the categories of items, given by the codes of the items' ids.

    Args:
        tables: category feature → the Keras Embedding of the item tower, [n_codes, dim].
        lists: category feature → the codes of each item id's categories, as `by_item_code` makes
            them. These lists are stored as weights that are not trained, so that exported towers
            contain them.
    """

    def __init__(
        self,
        tables: Mapping[str, tf.keras.layers.Embedding],
        lists: Mapping[str, Ragged],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tables = dict(tables)
        self.lists = {
            name: tuple(
                self._constant(f"{layer_name(name)}/item_{part}", values)
                for part, values in (("codes", found.values), ("offsets", found.offsets))
            )
            for name, found in lists.items()
        }

    def _constant(self, name: str, values: Ints) -> tf.Variable:
        start = tf.constant_initializer(values.astype(np.int32))
        return self.add_weight(name, values.shape, tf.int32, start, trainable=False)

    def build(self, input_shape: Any) -> None:
        """Create the weights of the shared embedding tables if the item tower has not yet."""
        for table in self.tables.values():
            if not table.built:
                table.build(input_shape)
        super().build(input_shape)

    def call(self, items: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return, for each item code, the sum of its features' mean embeddings, float32 [n, dim].

        Items without categories, and unseen items, get zeros.
        """
        return tf.add_n([self._mean(name, items) for name in self.tables])

    def _mean(self, name: str, items: tf.Tensor) -> tf.Tensor:
        codes, offsets = self.lists[name]
        lists = tf.gather(tf.RaggedTensor.from_row_splits(codes, offsets, validate=False), items)
        vectors = tf.nn.embedding_lookup(self.tables[name].embeddings, lists.values)
        total = tf.math.unsorted_segment_sum(vectors, lists.value_rowids(), lists.nrows())
        counts = tf.cast(lists.row_lengths(), tf.float32)
        return tf.math.divide_no_nan(total, counts[:, None])


def by_item_code(column: Column, items: Ints, n_codes: int) -> Ragged:
    """Return the values of a feature for each item code; a code that several items share has none.

    Args:
        column: the feature's value of each item: one category code, int [n_items], or a list of
            codes.
        items: the code of each item's id, int [n_items].
        n_codes: number of codes of the item ids.

    Returns:
        A Ragged of n_codes lists.
    """
    if not isinstance(column, Ragged):
        column = Ragged(column.astype(np.int32), np.arange(len(column) + 1))
    rows = np.full(n_codes, -1)
    rows[items] = np.arange(len(items))
    shared = np.bincount(items, minlength=n_codes) > 1
    rows[shared | (np.arange(n_codes) <= UNSEEN)] = -1
    return column.take(rows)
