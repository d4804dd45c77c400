"""Groups the rows of a batch into offers by equal values of randomly drawn attributes.

A model that is trained on single items cannot tell "brand = x" from an item of that brand. So each
training step draws a few attributes, and rows that agree in all of them ("brand = x AND category =
y") become one offer. Some groupings are then split and merged at random, so that the model also
learns offers such as "brand = x OR brand = z".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.encoders.dropout import Draws

#: Number of attribute subsets drawn when the layer is made, from which each call takes one.
N_SUBSETS = 30_000
#: Largest number of parts into which a group of rows is split.
MAX_PARTS = 50
#: Groups of up to this quantile's size, and a few rows more, stay whole.
QUANTILE, SLACK = 0.4, 5
#: The largest number of an int64, and of rows that a batch is taken to have at most.
_MOST, MAX_ROWS = 2**63 - 1, 2**31
#: Groups are merged by 2 plus a Poisson number of them; this is the mean of the latter.
MORE_GROUPS = 0.5


def subsets(n: int, mean: float, seed: int) -> npt.NDArray[np.bool_]:
    """Draw random subsets of n attributes, without empty ones, bool [n_subsets, n].

    Args:
        n: number of attributes.
        mean: mean size of a drawn subset; the mean includes empty subsets, although these are
            dropped; at most n.
        seed: the seed of the draws.
    """
    dice = np.random.default_rng(seed)
    drawn = dice.random((N_SUBSETS, n)) < min(1.0, mean / n)
    return drawn[drawn.any(axis=1)]


class KeyGenerator(Draws):
    """In training, assigns the rows of a batch to random groups; otherwise, each row to its own.

    Args:
        sizes: number of codes of each attribute.
        mean_attributes: mean number of attributes in a random subset.
        or_share: share of the calls in which groups are split and merged at random.
        seed: the seed of all draws.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        mean_attributes: float,
        or_share: float,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.sizes = tuple(sizes)
        self.or_share = or_share
        self.subsets = tf.constant(subsets(len(sizes), mean_attributes, seed))

    def call(self, codes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the index, in [0, B), of the group of each batch row, int64 [B].

        Args:
            codes: the attribute codes of each row's item, int [B, n_attributes].
            training: whether to group the rows; otherwise each row is its own group.
        """
        if not training:
            return tf.range(tf.shape(codes, tf.int64)[0])
        row = self.integers([], self.subsets.shape[0], tf.int32)
        keys = self.group_by_attributes(codes, self.subsets[row])
        is_or = self.uniform([]) < self.or_share
        return tf.where(is_or, self.merge_groups(self.split_groups(keys)), keys)

    def group_by_attributes(self, codes: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Return each row's group index; rows with equal chosen attributes share a group."""
        codes = tf.where(chosen, tf.cast(codes, tf.int64), 0)
        keys, many = codes[:, 0], self.sizes[0]
        for place, size in enumerate(self.sizes[1:], start=1):
            if many * size > _MOST:
                keys, many = tf.unique(keys, tf.int64).idx, MAX_ROWS
            keys, many = keys * size + codes[:, place], many * size
        return tf.unique(keys, tf.int64).idx

    def split_groups(self, keys: tf.Tensor) -> tf.Tensor:
        """Split the groups with the most rows into random parts, and return new group indices."""
        sizes = tf.math.bincount(tf.cast(keys, tf.int32))
        quantile = tf.cast(tf.round(QUANTILE * tf.cast(tf.size(sizes) - 1, tf.float32)), tf.int32)
        usual = tf.sort(sizes)[quantile] + SLACK
        parts = tf.minimum(sizes // usual + 1, MAX_PARTS)
        parts = tf.cast(tf.gather(parts, keys), tf.float32)
        part = tf.cast(self.uniform(tf.shape(keys)) * parts, tf.int64)
        return tf.unique(keys * MAX_PARTS + part, tf.int64).idx

    def merge_groups(self, keys: tf.Tensor) -> tf.Tensor:
        """Merge randomly chosen groups, several into one, and return new group indices."""
        n_groups = tf.reduce_max(keys) + 1
        few = 2 + tf.random.stateless_poisson([], self._next(), MORE_GROUPS, tf.int64)
        place = tf.cast(tf.argsort(self.uniform(n_groups[None])), tf.int64)
        return tf.gather(place, keys) // few
