"""Interactions score users and offers: bilinear with a head, or a dot product of two towers.

An interaction takes G groups of I users and J offers each. The offers have A versions, one for each
random grouping of the batch. Users [G, I, ...] and offers [A, G, J, ...] give scores [G, I, J, A]
of all pairs within a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.encoders.dropout import Dropout
from models.offers.weighted_embedding import Penalty


class Stack(tf.keras.layers.Layer):
    """A multi-layer perceptron: batch normalisation, then dense layers with dropout and tanh.

    Args:
        layers: widths of the layers.
        out: width of a last layer without dropout and tanh; None for no such layer.
        dropout: dropout rate.
        l1: factor of the sum of absolute weights of the dense layers.
        seed: the seed of the dropout.
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        out: int | None = None,
        dropout: float,
        l1: float,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        rule = Penalty(l1) if l1 else None
        self.norm = tf.keras.layers.BatchNormalization()
        self.dense = [
            tf.keras.layers.Dense(width, kernel_regularizer=rule, bias_regularizer=rule)
            for width in [*layers, *([out] if out else [])]
        ]
        self.drops = [Dropout(dropout, seed=seed + i) for i in range(len(layers))]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the last layer's output, float32 [B, width]; inputs are flattened to [B, n]."""
        x = tf.reshape(x, [-1, _size(x)])
        x = self.norm(x, training=training)
        for dense, drop in zip(self.dense, self.drops, strict=False):
            x = tf.tanh(drop(dense(x), training=training))
        return self.dense[-1](x) if len(self.dense) > len(self.drops) else x


def _size(x: tf.Tensor) -> int:
    size = 1
    for dimension in x.shape[1:]:
        size *= dimension
    return size


class Dot(tf.keras.layers.Layer):
    """Scores users and offers by the dot product of their embeddings."""

    def call(self, users: tf.Tensor, offers: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return dot products, float32 [G, I, J, A], of users [G, I, d] and offers [A, G, J, d]."""
        return tf.einsum("gid,agjd->gija", users, offers)


class Bilinear(tf.keras.layers.Layer):
    """A bilinear form of each row u of a user with each row o of an offer, then a head:

        s_uo = U_uᵀ K_uo O_o + b_uo

    Args:
        shape: the shape of the kernel, [rows of a user, rows of an offer, dim, dim].
        layers: widths of the head.
        dropout: dropout rate of the kernel and of the head.
        l1: factor of the sum of absolute weights of kernel and head.
        seed: the seed of the dropout.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        layers: Sequence[int],
        *,
        dropout: float,
        l1: float,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.drop = Dropout(dropout, seed=seed)
        self.head = Stack(layers, out=1, dropout=dropout, l1=l1, seed=seed + 1)
        rule = Penalty(l1) if l1 else None
        self.kernel = self.add_weight(
            "kernel", shape, initializer="glorot_uniform", regularizer=rule
        )
        self.bias = self.add_weight("bias", shape[:2], initializer="zeros")

    def pairs(self, users: tf.Tensor, offers: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the bilinear form of each user vector and offer vector, [G, I, J, A, k, m]."""
        kernel = self.drop(self.kernel, training=training)
        k, m, d, _ = kernel.shape
        groups, i = tf.shape(users)[0], tf.shape(users)[1]
        versions, j = tf.shape(offers)[0], tf.shape(offers)[2]
        # two products of matrices; tf.einsum turns its operands around in six dimensions, which
        # takes longer than the products. The kernel meets each user once, not each pair
        of_users = tf.transpose(tf.reshape(users, [-1, k, d]), [1, 0, 2])
        of_kernel = tf.reshape(tf.transpose(kernel, [0, 2, 1, 3]), [k, d, m * d])
        met = tf.reshape(of_users @ of_kernel, [k, groups, i, m, d])
        met = tf.reshape(tf.transpose(met, [1, 3, 2, 0, 4]), [groups, m, i * k, d])
        of_offers = tf.reshape(tf.transpose(offers, [1, 3, 2, 0, 4]), [groups, m, j * versions, d])
        s = tf.reshape(tf.matmul(met, of_offers, transpose_b=True), [groups, m, i, k, j * versions])
        s = tf.reshape(tf.transpose(s, [0, 2, 4, 3, 1]), [groups, i, j, versions, k, m])
        return s + self.bias

    def call(self, users: tf.Tensor, offers: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return scores, float32 [G, I, J, A], of users [G, I, k, d] and offers [A, G, J, m, d]."""
        s = self.pairs(users, offers, training=training)
        shape, size = tf.shape(s), self.bias.shape[0] * self.bias.shape[1]
        scores = self.head(tf.reshape(s, [-1, size]), training=training)
        return tf.reshape(scores, shape[:4])
