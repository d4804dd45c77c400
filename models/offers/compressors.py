"""Compressors reduce the attribute embeddings of a user or an offer to a few vectors.

Shapes: B rows of a batch, u attributes of a user or o of an offer, and d dimensions of an
embedding.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.encoders.dropout import Dropout

#: Number of hidden rows of the user compressor for each row of its output.
WIDER = 2
#: One of so many numbers wins.
LOSERS = 3


def k_winners(x: tf.Tensor, k: int) -> tf.Tensor:
    """Keep the k largest absolute values of each row of a matrix, and set the others to zero.

    Args:
        x: the matrix, float32 [B, n].
        k: number of values to keep, at most n; among equal values the first are kept.
    """
    winners = tf.math.top_k(tf.abs(x), k, sorted=False).indices
    kept = tf.reduce_sum(tf.one_hot(winners, x.shape[-1], dtype=x.dtype), axis=1)
    return x * kept


def description(mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """Flatten mean and variance of each offer's items, [B, o, d] each, into one row, [B, 2 o d]."""
    size = 2 * mean.shape[1] * mean.shape[2]
    return tf.reshape(tf.concat([mean, variance], axis=1), [-1, size])


class _Mixture(tf.keras.layers.EinsumDense):
    """Mixes rows like Keras' EinsumDense, but by one matrix product, which takes half the time."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.activation(tf.matmul(self.kernel, inputs, transpose_a=True) + self.bias)


class UserCompressor(tf.keras.layers.Layer):
    """Compresses users' attribute embeddings [B, u, d] to [B, k, d] by a dense layer and a mixture.

    The dense layer maps all u · d inputs of a user to hidden rows of width d, of which the mixture
    makes k rows.

    Args:
        k: number of vectors to which a user is compressed.
        dropout: dropout rate of the hidden rows.
        seed: the seed of the dropout.
    """

    def __init__(self, k: int, *, dropout: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k
        self.widen: Any = None
        self.drop = Dropout(dropout, seed=seed)
        self.norm = tf.keras.layers.LayerNormalization()
        self.mix = _Mixture("bhr,hk->bkr", [k, None], activation="selu", bias_axes="k")
        self.batch_norm = tf.keras.layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        """Create the hidden layer of the user compressor, with the width of its inputs."""
        self.widen = tf.keras.layers.EinsumDense(
            "bur,uhrd->bhd", [WIDER * self.k, shape[-1]], activation="gelu", bias_axes="hd"
        )
        super().build(shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the compressed user embeddings, float32 [B, k, d]."""
        x = self.norm(self.drop(self.widen(x), training=training))
        return self.batch_norm(self.mix(x), training=training)


class _Choice(tf.keras.layers.Layer):
    """Maps mean and variance of each offer's items to numbers in (-1, 1), by two dense layers.

    Only the hidden units with the largest absolute values (`k_winners`) are passed on.
    """

    def __init__(self, hidden: int, size: int, *, dropout: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.winners = max(1, hidden // LOSERS)
        self.drops = [Dropout(dropout, seed=seed + i) for i in range(2)]
        self.hidden = tf.keras.layers.Dense(hidden, "gelu")
        self.norm = tf.keras.layers.LayerNormalization()
        self.out = tf.keras.layers.Dense(size, "tanh")

    def call(self, z: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.norm(self.hidden(self.drops[0](z, training=training)))
        return self.out(self.drops[1](k_winners(x, self.winners), training=training))


class _OfferLayer(tf.keras.layers.Layer):
    """The base class of layers that take mean and variance of each offer's items, [B, o, d] each.

    Args:
        m: number of vectors to which an offer is compressed.
        dropout: dropout rate.
        seed: the seed of the dropout.
    """

    def __init__(self, m: int, *, dropout: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.m, self.dropout, self.seed = m, dropout, seed
        self.choice: Any = None


class OfferCompressor(_OfferLayer):
    """Compresses offers' attribute embeddings [B, o, d] to m linear combinations, [B, m, d].

    The coefficients depend on mean and variance of an offer's items: an attribute with a small
    variance belongs to the definition of the offer.
    """

    def build(self, shape: Any) -> None:
        """Create the weights by which the offer compressor mixes attribute embeddings."""
        size = shape[0][1] * self.m
        self.choice = _Choice(size, size, dropout=self.dropout, seed=self.seed)
        super().build(shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return compressed offers, float32 [B, m, d], given mean and variance of their items."""
        mean, variance = inputs
        mixture = self.choice(description(mean, variance), training=training)
        mixture = tf.reshape(mixture, [-1, mean.shape[1], self.m])
        return tf.matmul(mixture, mean, transpose_a=True)


class MaskNet(_OfferLayer):
    """Computes a multiplicative mask for a compressed offer from mean and variance of its items.

    The layer follows Wang et al. 2021, "MaskNet: Introducing Feature-Wise Multiplication to CTR
    Ranking Models".
    """

    def build(self, shape: Any) -> None:
        """Create the weights of the layers that compute the multiplicative mask."""
        dim = shape[0][2]
        self.choice = _Choice(dim, self.m * dim, dropout=self.dropout, seed=self.seed)
        super().build(shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return the mask, float32 [B, m, d], given mean and variance of the offers' items."""
        mean, variance = inputs
        mask = self.choice(description(mean, variance), training=training)
        return tf.reshape(mask, [-1, self.m, mean.shape[2]])
