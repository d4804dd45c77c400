"""A batch's offers as groups: every row gets the mean and the variance of its group."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def group_moments(vectors: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and population variance of each row's group, for several groupings at once.

    Args:
        vectors: float32 [B, ...].
        keys: the group of each row, int64 [A, B], each in [0, B).

    Returns:
        Both float32 [A · B, ...], grouping by grouping.

    Example:
        keys [[0, 0, 1]] and the rows of a unit matrix give the means [.5, .5, 0], [.5, .5, 0],
        [0, 0, 1].
    """
    shape = tf.shape(vectors)
    flat = tf.reshape(vectors, [shape[0], -1])
    both = tf.concat([flat, tf.square(flat)], axis=1)
    mean, square = tf.split(_means(both, keys), 2, axis=1)
    # rounding may leave a little below zero
    variance = tf.nn.relu(square - tf.square(mean))
    shape = tf.concat([[-1], shape[1:]], axis=0)
    return tf.reshape(mean, shape), tf.reshape(variance, shape)


def _means(rows: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Return the mean of each row's group, float32 [B, n] → [A · B, n]."""
    n_versions, n_rows = keys.shape[0], tf.shape(keys, tf.int64)[1]
    groups = tf.reshape(keys + n_rows * tf.range(n_versions, dtype=tf.int64)[:, None], [-1])
    order = tf.argsort(groups)
    rising = tf.gather(groups, order)

    def mean(x: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.sparse.segment_mean(x, places, rising, tf.size(groups)), groups)

    @tf.custom_gradient
    def means(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # what a row gives to its group's mean is what the mean gives to the row
            of_rows = tf.reshape(mean(upstream, order), [n_versions, n_rows, -1])
            return tf.reduce_sum(of_rows, axis=0)

        return mean(x, order % tf.cast(n_rows, order.dtype)), gradient

    return means(rows)
