"""Sampled softmax: the items of the batch (or of the table) are negatives, unless known better.

    loss_b = -log softmax_c(s_bc / T - log q_c)[own column],   s_bc = <query_b, item_c>

Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations",
section 3: an item stands in a batch as often as it is popular, so log q (its share of the training
rows) is taken off its logit. The correction does not depend on the temperature. Pure functions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

#: Added to the logits of masked items: their probability is exactly 0 in float32.
_NEVER = -1e9


def log_q(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Return the log of each item's share of the training rows.

    Args:
        counts: training rows of each item, int [n_items]; unseen items count as one.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1.0)
    return np.log(counts / counts.sum()).astype(np.float32)


def mixture_log_q(
    log_q: npt.NDArray[np.float32], *, batch_size: int, negatives: int
) -> npt.NDArray[np.float32]:
    """Return log q of batch items and uniform items together (Yang et al. 2020, section 3.2).

    Args:
        log_q: of the batch alone, float32 [n_items].
        batch_size: B rows, drawn as often as items are popular.
        negatives: m items, drawn uniformly.
    """
    share = batch_size / (batch_size + negatives)
    mixed = share * np.exp(log_q.astype(np.float64)) + (1 - share) / len(log_q)
    return np.log(mixed).astype(np.float32)


def known_positives(
    users: tf.Tensor, items: tf.Tensor, values: tf.Tensor, offsets: tf.Tensor
) -> tf.Tensor:
    """Return bool [B, C]: the user of row b is known to like the item of column c.

    Args:
        users: user rows, int [B].
        items: item rows, int [C].
        values: item rows that users like, int [n], user by user.
        offsets: int64 [n_users + 1]; user u likes `values[offsets[u]:offsets[u + 1]]`.
    """
    spans = tf.ragged.range(tf.gather(offsets, users), tf.gather(offsets, users + 1))
    liked = tf.cast(tf.gather(values, spans.values), items.dtype)
    distinct = tf.sort(tf.unique(items).y)
    size = tf.size(distinct)
    place = tf.minimum(tf.searchsorted(distinct, liked), size - 1)
    here = tf.where(tf.gather(distinct, place) == liked)[:, 0]
    rows = tf.gather(spans.value_rowids(), here)
    cells = tf.stack([rows, tf.cast(tf.gather(place, here), tf.int64)], axis=1)
    shape = tf.cast(tf.stack([tf.size(users), size]), tf.int64)
    likes = tf.scatter_nd(cells, tf.ones(tf.shape(here), tf.int32), shape) > 0
    return tf.gather(likes, tf.searchsorted(distinct, items), axis=1)


def softmax_loss(
    logits: tf.Tensor,
    positives: tf.Tensor,
    *,
    temperature: float = 1.0,
    log_q: tf.Tensor | None = None,
    mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return the loss of each row, float32 [B].

    Args:
        logits: scores, float [B, C].
        positives: the column of each row's own item, int [B].
        temperature: T > 0.
        log_q: of each column's item, float32 [C]; None for no correction.
        mask: bool [B, C], True where column c is no negative of row b; ignored at its positive.
    """
    logits = tf.cast(logits, tf.float32) / temperature
    if log_q is not None:
        logits -= log_q[None, :]
    positive = tf.gather(logits, positives, batch_dims=1)
    if mask is not None:
        own = tf.one_hot(positives, tf.shape(logits)[1], on_value=False, off_value=True)
        logits += tf.cast(mask & own, tf.float32) * _NEVER
    return tf.reduce_logsumexp(logits, axis=1) - positive
