"""Each user with the offers of the rows beside their own: pairs of a mini-batch, and their loss.

A batch that is sorted by day is cut into mini-batches of n + 1 rows. In each, all users meet all
offers: a row's own offer is its positive, the n others are its negatives, but for those of the same
user, which are neither. A model that knows nothing but how many negatives there are has the loss
0.5004 for n = 4.
"""

from __future__ import annotations

from typing import Any

import merlin.models.tf as mm
import tensorflow as tf
from merlin.models.tf.outputs.base import ModelOutput

from models.core.columns import USER_ROW

USER, OFFER = "query", "candidate"
#: The target of a pair that is neither a positive nor a negative.
LEFT_OUT = -1.0


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


def pair_targets(users: tf.Tensor, size: int, versions: tf.Tensor) -> tf.Tensor:
    """Return the target of each pair, float32 [B · size, versions].

    It is 1 for a row's own offer, 0 for that of another user, and `LEFT_OUT` for another offer of
    the same user. Rows are in order of (mini-batch, user, offer).

    Args:
        users: a number for each row's user, int [B].
        size: rows of a mini-batch.
        versions: columns, all equal.
    """
    users = tf.reshape(users, [-1, size])
    same = users[:, :, None] == users[:, None, :]
    targets = tf.where(tf.eye(size) > 0, 1.0, tf.where(same, LEFT_OUT, 0.0))
    return tf.tile(tf.reshape(targets, [-1, 1]), [1, versions])


class PairLoss(tf.keras.losses.Loss):
    """Binary cross-entropy of logits, the mean over all pairs that are not left out."""

    def __init__(self) -> None:
        # the mean of a scalar is itself
        reduction = tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE
        super().__init__(reduction=reduction, name="pair_loss")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the mean, a scalar. Targets are those of `pair_targets`."""
        kept = tf.cast(y_true != LEFT_OUT, y_pred.dtype)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(y_true, 0.0), y_pred)
        return tf.reduce_sum(kept * losses) / tf.reduce_sum(kept)


class MiniBatchNegatives(ModelOutput):
    """The pairs of a batch in Merlin's place for an output; their loss is binary cross-entropy.

    Args:
        interaction: scores groups of users with groups of offers.
        negatives: n, beside each positive.
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
        """Leave the interaction to build itself when it is called."""
        self.built = True

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        features: dict[str, tf.Tensor] | None = None,
        targets: tf.Tensor | None = None,
        training: bool = False,
        testing: bool = False,
    ) -> Any:
        """Return logits [pairs, versions] and their targets; logits alone at inference.

        Args:
            inputs: users [B, ...], and offers [versions · B, ...], version by version.
            features: the batch; its `USER_ROW` says which rows are of one user.
            targets: none; Merlin passes them.
            training, testing: as Merlin calls it.
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
        """Pairs and versions."""
        return tf.TensorShape([None, None])
