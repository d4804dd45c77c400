"""A history encoder: the weighted mean of the items, with weights by position.

    h = sqrt(n) · Σ_k w_k e(item_k) / Σ_k w_k,   w_k = exp(p_k),  k = 0 for the latest item

where p is learnt, one number per position; without a decay, w = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.core.retriever import Floats
from models.encoders.config import DecayPoolConfig
from models.encoders.encoder import Steps


class DecayPool(tf.keras.layers.Layer):
    """Encodes a history as the mean of its latest items, weighted by position.

    Args:
        config: the decay that sets the initial weights of the positions.
        max_len: number of latest items of a history that are read; older items are left out.
    """

    def __init__(self, config: DecayPoolConfig, max_len: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_len = max_len
        self.position: tf.Variable | None = None
        if config.decay is not None:
            start = -tf.range(max_len, dtype=tf.float32) / config.decay
            self.position = self.add_weight(
                "position", [max_len], initializer=lambda shape, dtype=None: start
            )

    def encode(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return the weighted mean of each history's item embeddings, float32 [B, dim]."""
        lists = steps.vectors
        rows, lengths, n_rows = lists.value_rowids(), lists.row_lengths(), lists.nrows()
        # the last item of a list has age 0
        n_steps = tf.shape(lists.values, tf.int64)[0]
        ages = tf.gather(lists.row_limits(), rows) - 1 - tf.range(n_steps)
        weights = self._weights(ages)
        total = tf.math.unsorted_segment_sum(weights[:, None] * lists.values, rows, n_rows)
        norm = tf.math.unsorted_segment_sum(weights, rows, n_rows)
        return self._mean(total, norm, lengths)

    def encode_each(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return the weighted mean of the item embeddings up to each step, float32 [B, L, dim]."""
        vectors = steps.vectors.to_tensor()
        known = tf.sequence_mask(steps.vectors.row_lengths(), tf.shape(vectors)[1], tf.float32)
        places = tf.range(tf.shape(vectors)[1])
        ages = places[:, None] - places  # age of step j at step i
        weights = tf.where(ages >= 0, self._weights(tf.maximum(ages, 0)), 0.0)
        total = tf.einsum("ij,bjd->bid", weights, vectors * known[..., None])
        norm = tf.einsum("ij,bj->bi", weights, known)
        return self._mean(total, norm, places + 1)

    def weights_by_age(self) -> Floats | None:
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


def build(config: DecayPoolConfig, max_len: int) -> DecayPool:
    """Build the history encoder that pools items by position."""
    return DecayPool(config, max_len)
