"""Groups the items of a batch into offers, with mean and variance of each group's embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Groups(NamedTuple):
    """Mean and variance of the item embeddings of each group, for several groupings of a batch.

    Attributes:
        mean, variance: mean and population variance of each group's embeddings, float32 [n_groups,
            ...].
        of_rows: the index of the group of each batch row, for A groupings of B rows, int64 [A · B].
    """

    mean: tf.Tensor
    variance: tf.Tensor
    of_rows: tf.Tensor


def group_moments(vectors: tf.Tensor, keys: tf.Tensor) -> Groups:
    """Return mean and variance of the vectors of each group, for several groupings of the rows.

    Args:
        vectors: the embeddings of the batch rows, float32 [B, ...].
        keys: the group of each row in each of A groupings, int64 [A, B], from 0. Groups without
            rows have mean and variance 0.

    Example:
    keys [[0, 0, 1]] and the rows of a unit matrix give the means [.5, .5, 0], [0, 0, 1], and
    the groups 0, 0, 1 of the rows.
    """
    shape = tf.shape(vectors)
    flat = tf.reshape(vectors, [shape[0], -1])
    both = tf.concat([flat, tf.square(flat)], axis=1)
    counts = tf.reduce_max(keys, axis=1) + 1
    of_rows = tf.reshape(keys + tf.cumsum(counts, exclusive=True)[:, None], [-1])
    mean, square = tf.split(_means(both, of_rows, tf.reduce_sum(counts)), 2, axis=1)
    # rounding may leave a little below zero
    variance = tf.nn.relu(square - tf.square(mean))
    shape = tf.concat([[-1], shape[1:]], axis=0)
    return Groups(tf.reshape(mean, shape), tf.reshape(variance, shape), of_rows)


def _means(rows: tf.Tensor, of_rows: tf.Tensor, n_groups: tf.Tensor) -> tf.Tensor:
    """Return the mean of the rows of each group, float32 [B, n] → [n_groups, n]."""
    order = tf.argsort(of_rows)
    rising = tf.gather(of_rows, order)
    sizes = tf.math.bincount(tf.cast(of_rows, tf.int32), dtype=rows.dtype)[:, None]

    @tf.custom_gradient
    def means(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        places = order % tf.shape(x)[0]

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # a gather: that of segment_mean itself adds up row by row
            given = tf.gather(upstream / sizes, of_rows)
            return tf.reduce_sum(tf.reshape(given, tf.concat([[-1], tf.shape(x)], axis=0)), axis=0)

        return tf.sparse.segment_mean(x, places, rising, num_segments=n_groups), gradient

    return means(rows)
