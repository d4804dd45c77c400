"""Each user with the offers of the rows beside his own: pairs of a mini-batch, and their loss.

A batch that is sorted by date is cut into mini-batches of n + 1 rows. In each all users meet all
offers: a row's own offer is its positive, the n others are its negatives. A model that knows
nothing but how many these are has the loss 0.5004 for n = 4.
"""

from __future__ import annotations

from typing import Any

import merlin.models.tf as mm
import tensorflow as tf
from merlin.models.tf.outputs.base import ModelOutput

USER, OFFER = "query", "candidate"


def check_divisible(batch_size: int, negatives: int) -> None:
    """Refuse a batch that cannot be cut into mini-batches.

    Raises:
        ValueError: rows would be left over.
    """
    if batch_size % (negatives + 1):
        raise ValueError(
            f"a batch is cut into mini-batches of {negatives} negatives and a positive, so "
            f"batch_size must be a multiple of {negatives + 1}, got {batch_size}"
        )


def mini_batches(x: tf.Tensor, size: int) -> tf.Tensor:
    """Cut rows into mini-batches.

    Args:
        x: [B, ...].
        size: rows of a mini-batch.

    Returns:
        [B / size, size, ...].
    """
    return tf.reshape(x, tf.concat([[-1, size], tf.shape(x)[1:]], axis=0))


def own_pairs(n_batches: tf.Tensor, size: int, versions: tf.Tensor) -> tf.Tensor:
    """Return 1 where the user meets his own offer, float32 [n_batches · size², versions].

    Rows are in order of (mini-batch, user, offer).
    """
    own = tf.reshape(tf.eye(size), [1, size * size, 1])
    return tf.reshape(tf.tile(own, [n_batches, 1, versions]), [-1, versions])


class MiniBatchNegatives(ModelOutput):
    """The pairs of a batch in Merlin's place for an output; their loss is binary cross-entropy.

    Args:
        interaction: scores groups of users with groups of offers.
        negatives: n, beside each positive.
    """

    def __init__(self, interaction: tf.keras.layers.Layer, negatives: int, **kwargs: Any) -> None:
        super().__init__(
            to_call=interaction,
            default_loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
            default_metrics_fn=list,
            name="mini_batch_negatives",
            **kwargs,
        )
        self.size = negatives + 1

    def build(self, input_shape: Any) -> None:
        """Leave the interaction to build itself when it is called."""
        self.built = True

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        training: bool = False,
        testing: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return logits [pairs, versions] and what they should be; logits alone at inference.

        Args:
            inputs: users [B, ...], and offers [versions · B, ...], version by version.
            training, testing: as Merlin calls it.
            **kwargs: features and targets, which Merlin passes and nothing here needs.
        """
        users, offers = inputs[USER], inputs[OFFER]
        versions = tf.shape(offers)[0] // tf.shape(users)[0]
        users = mini_batches(users, self.size)
        n_batches = tf.shape(users)[0]
        shape = tf.concat([[versions, n_batches, self.size], tf.shape(offers)[1:]], axis=0)
        static = offers.shape[1:]
        offers = tf.ensure_shape(
            tf.reshape(offers, shape), [None, None, self.size, *static.as_list()]
        )
        scores = self.to_call(users, offers, training=training)
        logits = tf.reshape(scores, [-1, versions])
        if not (training or testing):
            return logits
        return mm.Prediction(logits, own_pairs(n_batches, self.size, versions))

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Pairs and versions."""
        return tf.TensorShape([None, None])
