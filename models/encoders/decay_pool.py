"""A history encoder: the weighted mean of the items, with weights by position and by time.

    h = sqrt(n) · Σ_k w_k e(item_k) / Σ_k w_k,   w_k = exp(p_k + g(t_0 - t_k)),  latest item: k = 0

where n is the number of items, p is learnt, one number per position, and g is a learnt function of
the time between the item and the latest item; without known times g = 0, and without a decay p = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.core.retriever import Floats
from models.encoders.config import DecayPoolConfig
from models.encoders.encoder import Shape, Steps
from models.encoders.gaps import GapBias, between


class DecayPool(tf.keras.layers.Layer):
    """Encodes a history as the mean of its latest items, weighted by position and time.

    Args:
        decay: the decay, in positions, of the initial weights; None for equal weights.
        max_len: number of latest items of a history that are read; older ones are left out.
        ages: whether the times between the steps are known.
    """

    def __init__(
        self, decay: float | None, max_len: int, *, ages: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_len = max_len
        self.n_scores = 1  # no item is compared with another
        self.position: tf.Variable | None = None
        if decay is not None:
            start = -tf.range(max_len, dtype=tf.float32) / decay
            self.position = self.add_weight(
                "position", [max_len], initializer=lambda shape, dtype=None: start
            )
        self.gap = GapBias(name="gap") if ages else None

    def encode(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return the weighted mean of each history's item embeddings, float32 [B, dim]."""
        lists = steps.vectors
        rows, lengths, n_rows = lists.value_rowids(), lists.row_lengths(), lists.nrows()
        # the last item of a list has age 0
        n_steps = tf.shape(lists.values, tf.int64)[0]
        ages = tf.gather(lists.row_limits(), rows) - 1 - tf.range(n_steps)
        weights = self._weights(ages)
        if self.gap is not None and steps.ages is not None:
            last = tf.gather(steps.ages.values, tf.gather(lists.row_limits(), rows) - 1)
            weights *= tf.exp(self.gap(steps.ages.values - last))
        total = tf.math.unsorted_segment_sum(weights[:, None] * lists.values, rows, n_rows)
        norm = tf.math.unsorted_segment_sum(weights, rows, n_rows)
        return self._mean(total, norm, lengths)

    def encode_each(self, steps: Steps, *, training: bool) -> tf.RaggedTensor:
        """Return the weighted mean of the items up to each step, ragged float32 [B, None, dim]."""
        vectors = steps.vectors.to_tensor()
        places = tf.range(tf.shape(vectors)[1])
        ages = places[:, None] - places  # age of step j at step i
        weights = tf.where(ages >= 0, self._weights(tf.maximum(ages, 0)), 0.0)[None]
        if self.gap is not None and steps.ages is not None:
            weights *= tf.exp(self.gap(between(steps.ages)))
        total = tf.matmul(weights, vectors)
        norm = tf.reduce_sum(weights, -1)
        mean = self._mean(total, norm, places + 1)
        return tf.RaggedTensor.from_tensor(mean, steps.vectors.row_lengths())

    def weights_by_position(self) -> Floats | None:
        """Return the learnt weight exp(p) of each history position; None if all weigh the same."""
        return None if self.position is None else np.exp(self.position.numpy())

    def _weights(self, ages: tf.Tensor) -> tf.Tensor:
        weights = tf.cast(ages < self.max_len, tf.float32)
        if self.position is not None:
            weights *= tf.gather(tf.exp(self.position), tf.minimum(ages, self.max_len - 1))
        return weights

    def _mean(self, total: tf.Tensor, norm: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        used = tf.cast(tf.minimum(lengths, self.max_len), total.dtype)
        return total * tf.math.divide_no_nan(tf.sqrt(used), norm)[..., None]


def build(config: DecayPoolConfig, shape: Shape) -> DecayPool:
    """Build the history encoder that pools items by position and time."""
    return DecayPool(config.decay, shape.max_len, ages=shape.ages)
