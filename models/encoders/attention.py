"""A history encoder: causal self-attention over the items, added to their weighted mean.

    h = e(item);  in each block: h + Attention(LN(h)), then h + FeedForward(LN(h))
    history vector = pool(items) + gain · LN(h) at the last item

Each item attends to itself and to earlier items, as in SASRec (Kang and McAuley 2018, section 3),
with layer normalisation before each layer instead of after it. In place of position embeddings,
each head adds a learnt number to its attention scores, one for each number of steps between two
items (Raffel et al. 2020, section 2.1). Times change only the weights of the mean: in the attention
scores, they did not improve the metrics on MovieLens-100K.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from models.core.retriever import Floats
from models.encoders.config import AttentionConfig
from models.encoders.decay_pool import DecayPool
from models.encoders.dropout import Dropout
from models.encoders.encoder import Shape, Steps

#: What is added to the attention score of a later item: its share becomes 0.
_NEVER = -1e9


class Attention(tf.keras.layers.Layer):
    """Encodes a history by blocks of causal self-attention, added to the mean of its items.

    Args:
        config: number and sizes of the layers.
        shape: the sizes of the inputs, and the seed of the weights.
    """

    def __init__(self, config: AttentionConfig, shape: Shape, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_scores = shape.max_len**2
        self.pool = None
        if config.decay is not None:
            self.pool = DecayPool(config.decay, shape.max_len, ages=shape.ages, name="pool")
        self.drop = Dropout(config.dropout, seed=shape.seed, name="drop")
        self.blocks = [
            Block(config, shape._replace(seed=shape.seed + 10 * n), name=f"block_{n}")
            for n in range(1, config.blocks + 1)
        ]
        self.norm = LayerNorm(shape.dim, name="norm")
        start = tf.keras.initializers.Constant(config.gain if self.pool else 1.0)
        self.gain = self.add_weight("gain", [], initializer=start)

    def encode(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return one vector per history, float32 [B, dim]; an empty history gives zeros."""
        each = self.encode_each(steps, training=training)
        padded = tf.pad(each.values, [[0, 1], [0, 0]])  # zeros for empty histories
        end = tf.shape(each.values, tf.int64)[0]
        return tf.gather(padded, tf.where(each.row_lengths() > 0, each.row_limits() - 1, end))

    def encode_each(self, steps: Steps, *, training: bool) -> tf.RaggedTensor:
        """Return one vector per step of each history, ragged float32 [B, None, dim]."""
        lists = steps.vectors
        hidden = lists.with_values(self.drop(lists.values, training=training))
        for block in self.blocks:
            hidden = block(hidden, training=training)
        vectors = self.gain * self.norm(hidden.values)
        if self.pool is not None:
            vectors += self.pool.encode_each(steps, training=training).values
        return lists.with_values(vectors)

    def weights_by_position(self) -> Floats | None:
        """Return None, because the weight of an item depends on the other items."""
        return None


class Block(tf.keras.layers.Layer):
    """A block of causal self-attention and a feed-forward layer, each added to its input.

    Args:
        config: number of heads, width of the feed-forward layer, and dropout.
        shape: the sizes of the inputs, and the seed of the weights.
    """

    def __init__(self, config: AttentionConfig, shape: Shape, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = math.gcd(config.heads, shape.dim)
        self.dim, self.width = shape.dim, shape.dim // self.heads
        seed, wide = shape.seed, config.feed_forward * shape.dim
        self.norms = [LayerNorm(shape.dim, name=f"norm_{n}") for n in range(2)]
        self.project = Linear(shape.dim, 3 * shape.dim, seed, name="project")
        self.join = Linear(shape.dim, shape.dim, seed + 1, name="join")
        self.up = Linear(shape.dim, wide, seed + 2, name="up")
        self.down = Linear(wide, shape.dim, seed + 3, name="down")
        self.position = self.add_weight(
            "position", [shape.max_len, self.heads], initializer="zeros"
        )
        self.drops = [Dropout(config.dropout, seed=seed + n, name=f"drop_{n}") for n in range(4, 8)]

    def call(self, hidden: tf.RaggedTensor, training: bool = False) -> tf.RaggedTensor:
        """Return the hidden vectors after this block, ragged float32 [B, None, dim].

        Args:
            hidden: one vector for each item of each history, ragged float32 [B, None, dim].
            training: whether dropout is applied.
        """
        drop_shares, drop_mixed, drop_wide, drop_out = self.drops
        flat = hidden.values
        mixed = self._attend(hidden.with_values(self.norms[0](flat)), drop_shares, training)
        flat += drop_mixed(self.join(mixed), training=training)
        wide = drop_wide(tf.nn.gelu(self.up(self.norms[1](flat))), training=training)
        return hidden.with_values(flat + drop_out(self.down(wide), training=training))

    def _attend(self, hidden: tf.RaggedTensor, drop: Dropout, training: bool) -> tf.Tensor:
        """Return the attention output for all items of all histories, float32 [n_items, dim]."""
        dense = hidden.with_values(self.project(hidden.values)).to_tensor()  # [B, L, 3·dim]
        n, length = tf.shape(dense)[0], tf.shape(dense)[1]
        dense = tf.reshape(dense, [n, length, 3, self.heads, self.width])
        query, key, value = tf.unstack(tf.transpose(dense, [2, 0, 3, 1, 4]))  # [B, heads, L, width]
        scores = tf.matmul(query, key, transpose_b=True) / self.width**0.5
        shares = tf.nn.softmax(scores + self._bias(length))
        mixed = tf.matmul(drop(shares, training=training), value)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [n, length, self.dim])
        return tf.RaggedTensor.from_tensor(mixed, hidden.row_lengths()).values

    def _bias(self, length: tf.Tensor) -> tf.Tensor:
        """Return the learnt term of the attention score of items i and j, float32 [heads, L, L]."""
        places = tf.range(length)
        steps = places[:, None] - places
        last = tf.shape(self.position)[0] - 1
        bias = tf.gather(self.position, tf.clip_by_value(steps, 0, last))
        return tf.transpose(tf.where((steps >= 0)[..., None], bias, _NEVER), [2, 0, 1])


class Linear(tf.keras.layers.Layer):
    """A dense layer, whose weights exist before the first call and depend on a seed.

    Args:
        dim: width of the inputs.
        to: width of the outputs.
        seed: seed of the initial weights.
    """

    def __init__(self, dim: int, to: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        start = tf.keras.initializers.GlorotUniform(seed)
        self.kernel = self.add_weight("kernel", [dim, to], initializer=start)
        self.bias = self.add_weight("bias", [to], initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the outputs, float32 [n, to], of inputs [n, dim]."""
        return tf.matmul(inputs, self.kernel) + self.bias


class LayerNorm(tf.keras.layers.Layer):
    """Layer normalisation (Ba et al. 2016), whose weights exist before the first call.

    Args:
        dim: width of the inputs.
    """

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = self.add_weight("scale", [dim], initializer="ones")
        self.shift = self.add_weight("shift", [dim], initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return each row with mean 0 and variance 1, scaled and shifted, float32 [n, dim]."""
        mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
        return (inputs - mean) * tf.math.rsqrt(variance + 1e-5) * self.scale + self.shift


def build(config: AttentionConfig, shape: Shape) -> Attention:
    """Build the history encoder of self-attention blocks."""
    return Attention(config, shape)
