"""A direct implementation of the formulas of offer models; models/offers is compared with it.

It multiplies tables by sparse matrices, has keys as text and groups as ragged partitions, makes
every pair of a user and an offer, and multiplies the rows of each pair in a loop. It takes its
weights and layers from a model of this package, so the losses can be compared up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.offers.model import InferenceModel, Model


class Restated:
    """The training loss of a model with all blocks.

    Args:
        model: the built model, whose weights are used.
        subsets: subsets of attributes, bool [n_subsets, n_attributes].
    """

    def __init__(self, model: Model, subsets: tf.Tensor, *, size: int, versions: int) -> None:
        self.model = model
        self.users, self.offers = InferenceModel(model).towers
        self.meet = model.last.to_call
        self.subsets = subsets
        self.size = size
        self.versions = versions

    def loss(self, batch: Mapping[str, tf.Tensor], training: bool = True) -> tf.Tensor:
        """Return cross-entropy and penalty of a batch."""
        users = self._users(batch, training)
        codes = tf.stack([batch[name] for name in self.offers.attributes], axis=1)
        pairs = zip(self.offers.tables, tf.unstack(codes, axis=1), strict=True)
        vectors = tf.stack([self._pooled(t, c, tf.range(tf.size(c) + 1)) for t, c in pairs], axis=1)
        logits = []
        for _ in range(self.versions):
            mean, variance = self.group_moments(vectors, self.keys(codes))
            offers = self.offers.compress(mean, variance, training=training)
            logits.append(self._scores(users, offers, training))
        own = tf.reshape(tf.eye(self.size), [1, -1])
        target = tf.reshape(tf.tile(own, [tf.shape(codes)[0] // self.size, 1]), [-1, 1])
        found = tf.concat(logits, axis=1)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.broadcast_to(target, tf.shape(found)), found
        )
        kept = tf.boolean_mask(losses, self._kept(batch["user_row"]))
        return tf.reduce_mean(kept) + tf.add_n(self.model.losses)

    def _kept(self, users: tf.Tensor) -> tf.Tensor:
        """Return which pairs are a row with itself, or rows of two users: bool [pairs]."""
        of_user = tf.repeat(tf.range(tf.size(users)), self.size)
        first = of_user // self.size * self.size
        of_offer = first + tf.tile(tf.range(self.size), [tf.size(users)])
        other = tf.gather(users, of_user) != tf.gather(users, of_offer)
        return other | (of_user == of_offer)

    def _users(self, batch: Mapping[str, tf.Tensor], training: bool) -> tf.Tensor:
        met = [
            self._pooled(table, batch[f"{name}__values"], batch[f"{name}__offsets"])
            for name, table in zip(self.users.columns, self.users.tables, strict=True)
        ]
        return self.users.last(tf.stack(met, axis=1), training=training)

    @staticmethod
    def _pooled(table: Any, codes: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
        """Return means over distinct codes: a sparse matrix times the table and its square."""
        lists = tf.RaggedTensor.from_row_splits(codes, offsets)
        sets = tf.sets.union(lists.to_sparse(), lists.to_sparse())
        n = tf.shape(offsets, tf.int64)[0] - 1
        cells = tf.stack([sets.indices[:, 0], tf.cast(sets.values, tf.int64)], axis=1)
        matrix = tf.SparseTensor(cells, tf.ones_like(cells[:, 0], tf.float32), [n, table.n_codes])
        count = tf.sparse.reduce_sum(matrix, axis=1, keepdims=True)
        both = tf.concat([table.table, tf.square(table.table)], axis=1)
        pooled = tf.math.divide_no_nan(tf.sparse.sparse_dense_matmul(matrix, both), count)
        return tf.split(pooled, 2, axis=1)[0]

    def keys(self, codes: tf.Tensor) -> tf.Tensor:
        """Return keys of groups: rows with equal values of a random subset of attributes."""
        chosen = self.subsets[tf.random.uniform([], 0, self.subsets.shape[0], tf.int32)]
        text = tf.where(chosen, tf.strings.as_string(codes), "")
        return tf.unique(tf.strings.reduce_join(text, axis=1, separator=",")).idx

    @staticmethod
    def group_moments(vectors: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean and variance of the group of each row, by ragged partitions."""
        n_groups = tf.reduce_max(keys) + 1
        groups = tf.ragged.stack_dynamic_partitions(vectors, keys, n_groups)
        mean = tf.reduce_mean(groups, axis=1)
        square = tf.reduce_mean(tf.square(groups), axis=1)
        variance = square - tf.square(mean)
        return tf.gather(mean, keys), tf.gather(variance, keys)

    def _scores(self, users: tf.Tensor, offers: tf.Tensor, training: bool) -> tf.Tensor:
        """Return scores: make every pair, and loop over the rows of both."""
        users, offers = (tf.reshape(x, [-1, self.size, *x.shape[1:]]) for x in (users, offers))
        of_user = tf.repeat(users, self.size, axis=1)
        of_offer = tf.tile(offers, [1, self.size, 1, 1])
        of_user, of_offer = (tf.reshape(x, [-1, *x.shape[2:]]) for x in (of_user, of_offer))
        kernel = self.meet.drop(self.meet.kernel, training=training)
        found = []
        for u in range(kernel.shape[0]):
            for o in range(kernel.shape[1]):
                met = tf.matmul(of_user[:, u], kernel[u, o])
                found.append(tf.reduce_sum(met * of_offer[:, o], axis=1) + self.meet.bias[u, o])
        return self.meet.head(tf.stack(found, axis=1), training=training)
