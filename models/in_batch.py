"""In-batch softmax: the other items of the batch are negatives of a row, unless known better.

    loss_b = -log softmax_j(s_bj / T - log q_j)[b],   s_bj = <query_b, item_j>

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


def same_item(items: tf.Tensor) -> tf.Tensor:
    """Return bool [B, B]: column j holds the item of row b.

    Args:
        items: item rows, int [B].
    """
    return items[:, None] == items[None, :]


def known_positives(
    users: tf.Tensor, items: tf.Tensor, values: tf.Tensor, offsets: tf.Tensor
) -> tf.Tensor:
    """Return bool [B, B]: the user of row b is known to like the item of column j.

    Args:
        users: user rows, int [B].
        items: item rows, int [B].
        values: item rows that users like, int [n], user by user.
        offsets: int64 [n_users + 1]; user u likes `values[offsets[u]:offsets[u + 1]]`.
    """
    spans = tf.ragged.range(tf.gather(offsets, users), tf.gather(offsets, users + 1))
    liked = tf.cast(tf.gather(values, spans.values), items.dtype)
    in_batch = tf.sort(tf.unique(items).y)
    size = tf.size(in_batch)
    place = tf.minimum(tf.searchsorted(in_batch, liked), size - 1)
    here = tf.where(tf.gather(in_batch, place) == liked)[:, 0]
    cells = tf.stack(
        [tf.gather(spans.value_rowids(), here), tf.cast(tf.gather(place, here), tf.int64)], 1
    )
    shape = tf.cast(tf.stack([tf.size(users), size]), tf.int64)
    likes = tf.scatter_nd(cells, tf.ones(tf.shape(here), tf.int32), shape) > 0
    return tf.gather(likes, tf.searchsorted(in_batch, items), axis=1)


def softmax_loss(
    queries: tf.Tensor,
    items: tf.Tensor,
    *,
    temperature: float,
    log_q: tf.Tensor | None = None,
    mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return the loss of each row, float32 [B].

    Args:
        queries: float [B, dim].
        items: float [B, dim]; row b is the positive of query b.
        temperature: T > 0.
        log_q: of each item, float32 [B]; None for no correction.
        mask: bool [B, B], True where column j is no negative of row b. The diagonal is ignored.
    """
    logits = tf.cast(tf.matmul(queries, items, transpose_b=True), tf.float32) / temperature
    if log_q is not None:
        logits -= log_q[None, :]
    positive = tf.linalg.diag_part(logits)
    if mask is not None:
        mask = tf.linalg.set_diag(mask, tf.zeros_like(mask[:, 0]))
        logits += tf.cast(mask, tf.float32) * _NEVER
    return tf.reduce_logsumexp(logits, axis=1) - positive
