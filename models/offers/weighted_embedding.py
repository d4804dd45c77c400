"""Computes mean and variance of the embeddings of lists of codes, without a loop over rows.

For an item, an attribute is a list of one value; for an offer such as "brand = x", a weighted list
of the values of its items; for a user, a list of the values of earlier items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Lists(NamedTuple):
    """Lists of codes, one per row: list i is `codes[offsets[i]:offsets[i + 1]]`.

    Attributes:
        codes: the attribute codes of all lists, one list after the other, int [n_values].
        offsets: where each list starts in `codes`, int [n_rows + 1], ascending, the first is 0.
        weights: the weight of each code, float32 [n_values], not negative; None gives all distinct
            codes of a list the same weight.
    """

    codes: tf.Tensor
    offsets: tf.Tensor
    weights: tf.Tensor | None = None


class Penalty(tf.keras.regularizers.L1):
    """The L1 penalty of Keras, with a gradient in one pass over the weights instead of three."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return the L1 penalty: the factor l1 times the sum of absolute weights."""

        @tf.custom_gradient
        def total(weights: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            value = self.l1 * tf.reduce_sum(tf.abs(weights))
            return value, lambda upstream: (self.l1 * upstream) * tf.sign(weights)

        return total(tf.convert_to_tensor(x))


class WeightedEmbedding(tf.keras.layers.Layer):
    """Mean and population variance of the embeddings E of a row's codes i, elementwise:

        o_i = w_i / Σ_j w_j,   mean = Σ_i o_i E_i,   variance = Σ_i o_i E_i² - mean²

    Mean and variance are zero for an empty list, and for a list whose weights are all zero.

    Args:
        n_codes: number of rows of the embedding table.
        dim: number of dimensions of the embeddings.
        l1: factor of the L1 penalty on the table.
    """

    def __init__(self, n_codes: int, dim: int, *, l1: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_codes = n_codes
        self.table = self.add_weight(
            "table",
            [n_codes, dim],
            initializer="uniform",
            regularizer=Penalty(l1) if l1 else None,
        )

    def one(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the embedding of each of the given codes, [B] → float32 [B, dim]."""
        return tf.gather(self.table, codes)

    def mean(self, lists: Lists) -> tf.Tensor:
        """Return the weighted mean of the embeddings of each list of codes, float32 [B, dim]."""
        if lists.weights is not None:
            return self.moments(lists)[0]
        codes, rows = _distinct(lists, self.n_codes)
        n_rows = tf.size(lists.offsets) - 1
        return tf.sparse.segment_mean(self.table, codes, rows, num_segments=n_rows)

    def moments(self, lists: Lists) -> tuple[tf.Tensor, tf.Tensor]:
        """Return weighted mean and variance of each list's embeddings, float32 [B, dim] each."""
        n_rows = tf.size(lists.offsets) - 1
        if lists.weights is None:
            codes, rows = _distinct(lists, self.n_codes)
            weights = tf.ones_like(codes, tf.float32)
        else:
            codes, rows = lists.codes, _rows(lists)
            weights = lists.weights
        total = tf.math.unsorted_segment_sum(weights, rows, n_rows)
        share = tf.math.divide_no_nan(weights, tf.gather(total, rows))[:, None]
        vectors = tf.gather(self.table, codes)
        mean = tf.math.unsorted_segment_sum(share * vectors, rows, n_rows)
        square = tf.math.unsorted_segment_sum(share * tf.square(vectors), rows, n_rows)
        # rounding may leave a little below zero
        return mean, tf.maximum(square - tf.square(mean), 0.0)

    def call(self, inputs: Lists) -> tuple[tf.Tensor, tf.Tensor]:
        """Return weighted mean and variance of each list's embeddings, float32 [B, dim] each."""
        return self.moments(inputs)


def _rows(lists: Lists) -> tf.Tensor:
    """Return, for each code, the index of the list that holds the code, in ascending order."""
    # as tf.ragged.row_splits_to_segment_ids, in one operation in place of thirty
    places = tf.range(tf.size(lists.codes), dtype=lists.offsets.dtype)
    return tf.searchsorted(lists.offsets[1:], places, side="right", out_type=tf.int64)


def _distinct(lists: Lists, n_codes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the distinct codes of each list, and for each code the index of its list."""
    keys = _rows(lists) * n_codes + tf.cast(lists.codes, tf.int64)
    first = tf.unique(keys).y  # in order of appearance, so rows still rise
    return first % n_codes, first // n_codes
