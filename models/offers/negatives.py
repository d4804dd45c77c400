"""Mini-batch negatives: each user is paired with the offers of the neighbouring rows.

A batch that is sorted by day is cut into mini-batches of n + 1 rows. In each mini-batch, all users
are paired with all offers. The offer of a user's own row is the positive, and the n others are
negatives, except offers of the same user's other rows, which are left out. A model that predicts
the share of positives, 1 / (n + 1), for every pair has the loss 0.5004 for n = 4.
"""

from __future__ import annotations

from typing import Any

import merlin.models.tf as mm
import tensorflow as tf
from merlin.models.tf.outputs.base import ModelOutput

from models.core.columns import USER_ROW

USER, OFFER = "query", "candidate"
#: The training target of a user-offer pair that is neither a positive nor a negative.
LEFT_OUT = -1.0


def check_divisible(batch_size: int, negatives: int) -> None:
    """Raise an error if the batch size is not a multiple of the mini-batch size.

    Raises:
        ValueError: the batch size is not a multiple of `negatives` + 1.
    """
    if batch_size % (negatives + 1):
        raise ValueError(
            f"a batch is cut into mini-batches of {negatives} negatives and a positive, so "
            f"batch_size must be a multiple of {negatives + 1}, got {batch_size}"
        )


def mini_batches(x: tf.Tensor, size: int) -> tf.Tensor:
    """Reshape the rows of a batch into mini-batches of equal size.

    Args:
        x: a tensor with one row per row of the batch, [B, ...].
        size: number of rows of a mini-batch.

    Returns:
        [B / size, size, ...].
    """
    return tf.reshape(x, tf.concat([[-1, size], tf.shape(x)[1:]], axis=0))


def pair_targets(users: tf.Tensor, size: int, versions: tf.Tensor) -> tf.Tensor:
    """Return the training target of each user-offer pair, float32 [B · size, versions].

    The target is 1 for a row's own offer, 0 for an offer of another user, and `LEFT_OUT` for
    another offer of the same user. The order of pairs is (mini-batch, user, offer).

    Args:
        users: index of each row's user, int [B].
        size: number of rows of a mini-batch.
        versions: number of groupings of the batch into offers; targets are repeated for each
            grouping.
    """
    users = tf.reshape(users, [-1, size])
    same = users[:, :, None] == users[:, None, :]
    targets = tf.where(tf.eye(size) > 0, 1.0, tf.where(same, LEFT_OUT, 0.0))
    return tf.tile(tf.reshape(targets, [-1, 1]), [1, versions])


class PairLoss(tf.keras.losses.Loss):
    """The mean binary cross-entropy of the user-offer pairs that are not left out."""

    def __init__(self) -> None:
        # the mean of a scalar is itself
        reduction = tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE
        super().__init__(reduction=reduction, name="pair_loss")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the mean binary cross-entropy over pairs; `pair_targets` makes the targets."""
        kept = tf.cast(y_true != LEFT_OUT, y_pred.dtype)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(y_true, 0.0), y_pred)
        return tf.reduce_sum(kept * losses) / tf.reduce_sum(kept)


class MiniBatchNegatives(ModelOutput):
    """A Merlin output block that scores the pairs of a batch, with binary cross-entropy as loss.

    Args:
        interaction: the layer that scores groups of users with groups of offers.
        negatives: number of negatives of each positive.
    """

    def __init__(self, interaction: tf.keras.layers.Layer, negatives: int, **kwargs: Any) -> None:
        super().__init__(
            to_call=interaction,
            default_loss=PairLoss(),
            default_metrics_fn=list,
            name="mini_batch_negatives",
            **kwargs,
        )
        self.size = negatives + 1

    def build(self, input_shape: Any) -> None:
        """Mark this layer as built; the interaction creates its own weights in its first call."""
        self.built = True

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        features: dict[str, tf.Tensor] | None = None,
        targets: tf.Tensor | None = None,
        training: bool = False,
        testing: bool = False,
    ) -> Any:
        """Return the logits of user-offer pairs and their targets; at inference only logits.

        Args:
            inputs: embeddings of users [B, ...], and of offers [versions · B, ...]; the offers of
                one grouping (version) follow those of another.
            features: the batch; its `USER_ROW` identifies the user of each row.
            targets: not used, but required by Merlin.
            training, testing: whether Merlin calls the layer in training or in testing.
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
        assert features is not None
        return mm.Prediction(logits, pair_targets(features[USER_ROW], self.size, versions))

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Return the shape of the logits of user-offer pairs, [pairs, versions]."""
        return tf.TensorShape([None, None])
