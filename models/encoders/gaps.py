"""A learnt function of the time between two items of a history."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

#: Number of points at which the numbers are learnt: at 2^p - 1 seconds, so that the last is beyond
#: 68 years.
_POINTS = 33


class GapBias(tf.keras.layers.Layer):
    """Maps the time between two items to a learnt number, piecewise linear in log2(1 + seconds)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = self.add_weight("gap", [_POINTS], initializer="zeros")

    def call(self, seconds: tf.Tensor) -> tf.Tensor:
        """Return the learnt numbers of times in seconds, float32 of the same shape; NaN gives 0."""
        known = tf.math.is_finite(seconds)
        point = tf.math.log1p(tf.maximum(tf.where(known, seconds, 0.0), 0.0)) / tf.math.log(2.0)
        point = tf.minimum(point, _POINTS - 1.001)
        below = tf.floor(point)
        share = point - below
        low = tf.cast(below, tf.int32)
        found = tf.gather(self.table, low) * (1.0 - share) + tf.gather(self.table, low + 1) * share
        return tf.where(known, found, 0.0)


def between(ages: tf.RaggedTensor) -> tf.Tensor:
    """Return the seconds from item j to item i of each history, float32 [B, L, L].

    Args:
        ages: the seconds since each item, ragged float32 [B, None].
    """
    matrix = ages.to_tensor()
    return matrix[:, None, :] - matrix[:, :, None]
