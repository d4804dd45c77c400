"""A batch's offers as groups: every row gets the mean and the variance of its group."""

from __future__ import annotations

import tensorflow as tf


def group_moments(vectors: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and population variance of each row's group.

    Args:
        vectors: float32 [B, ...].
        keys: the group of each row, int [B], each in [0, B).

    Returns:
        Both float32, the shape of the vectors.

    Example:
        keys [0, 0, 1] and the rows of a unit matrix give the means [.5, .5, 0], [.5, .5, 0],
        [0, 0, 1].
    """
    shape = tf.shape(vectors)
    flat = tf.reshape(vectors, [shape[0], -1])
    both = tf.concat([flat, tf.square(flat)], axis=1)
    of_groups = tf.math.unsorted_segment_mean(both, keys, shape[0])
    mean, square = tf.split(tf.gather(of_groups, keys), 2, axis=1)
    # rounding may leave a little below zero
    variance = tf.maximum(square - tf.square(mean), 0.0)
    return tf.reshape(mean, shape), tf.reshape(variance, shape)
