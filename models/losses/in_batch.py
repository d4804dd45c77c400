"""Sampled softmax: the items of the batch (or of the table) are the negatives of each row.

    loss_b = -log softmax_c(s_bc / T - log q_c)[own column],   s_bc = <query_b, item_c>

Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations",
section 3: popular items are in many batches, so log q, the log of an item's share of the training
rows, is subtracted from its logit. The correction by log q does not depend on the temperature.

TensorFlow's own softmax keeps several matrices [B, C] and reads each from memory several times.
This module computes the probabilities, the loss and both gradients of a block of rows while the
block is in the cache (the idea of Milakov and Gimelshein 2018 and of FlashAttention, Dao et al.
2022). So it needs memory of O((B + C)·d), and most of its time is that of three matrix products. Of
m equal columns only one is kept, and its logit is increased by log m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

#: Logit of a masked item, whose probability is then exactly 0.
_NEVER = tf.float32.min

#: Number of scores of a block, which fit in the cache and keep all cores busy
#: (benchmarks/NOTES.md).
BLOCK_SCORES = 1 << 21

#: A probability below this has lost digits to underflow; its log is computed from the scores.
_TINY = 1e-30

#: What is added to the logit of an item that is masked for a group of rows: its probability is 0.
#: It is finite in bfloat16, too.
_NEVER_IN_GROUP = -1e30


class Masked(NamedTuple):
    """The cells of a block of the score matrix whose items are not negatives of the cells' rows.

    Attributes:
        cells: the masked cells, int64 [n, 2]: the row of the cell in the block (or the group of the
            row, if there are groups), and the column of the cell.
        groups: the group of each row of the block, int [n_rows], numbered from 0. All rows of a
            group have the same masked columns, except that a row's own item is never masked. None
            if there are no groups; then no cell holds a row's own item.
    """

    cells: tf.Tensor
    groups: tf.Tensor | None = None


#: Returns the masked cells of the block of rows from start to stop.
Mask = Callable[[tf.Tensor, tf.Tensor], Masked]


class Loss(NamedTuple):
    """The training loss of a batch: its total, and the loss of each row.

    Attributes:
        total: the weighted sum of the rows' losses, float32 []; only the total has gradients.
        rows: loss of each row, unweighted, float32 [B].
    """

    total: tf.Tensor
    rows: tf.Tensor


def log_q(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Return the log of each item's share of the training rows.

    Args:
        counts: number of training rows of each item, int [n_items]; 0 counts as 1.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1.0)
    return np.log(counts / counts.sum()).astype(np.float32)


def mixture_log_q(
    log_q: npt.NDArray[np.float32], *, batch_size: int, negatives: int
) -> npt.NDArray[np.float32]:
    """Return log q if the negatives are in-batch and uniformly drawn items (Yang et al. 2020, 3.2).

    Args:
        log_q: log q of in-batch items alone, float32 [n_items].
        batch_size: B, the number of batch rows, whose items are drawn in proportion to popularity.
        negatives: m, the number of items that are drawn uniformly.
    """
    share = batch_size / (batch_size + negatives)
    mixed = share * np.exp(log_q.astype(np.float64)) + (1 - share) / len(log_q)
    return np.log(mixed).astype(np.float32)


def softmax_loss(
    queries: tf.Tensor,
    items: tf.Tensor,
    positive_column: tf.Tensor,
    *,
    weights: tf.Tensor,
    temperature: float = 1.0,
    log_q: tf.Tensor | None = None,
    mask: Mask | None = None,
    multiplicity: tf.Tensor | None = None,
    precision: str = "float32",
    block_scores: int = BLOCK_SCORES,
) -> Loss:
    """Return the sampled softmax loss of a batch, with gradients for `queries` and `items`.

    Args:
        queries: the query embedding of each batch row, float32 [B, d].
        items: the embeddings of the items to compare with, one per column, float32 [C, d].
        positive_column: the column of each row's own item, int [B].
        weights: the weights of the rows in the total, float32 [B]; 1/B gives the mean.
        temperature: T > 0, by which the dot products are divided.
        log_q: log q of each column's item, float32 [C]; None for no correction.
        mask: the function that returns, for a block of rows, the cells that are no negatives.
        multiplicity: number of equal items that each column represents, float32 [C]; None if each
            item has a column. For a row's own column, the number is taken as 1, because items equal
            to the row's item are no negatives.
        precision: precision of the matrix products, `float32` or `bfloat16`; sums stay in float32.
        block_scores: upper bound for rows x C of a block; a block has at least one row.

    Example, with the other items of the batch as negatives:
    >>> queries, items = tf.eye(2), tf.constant([[5.0, 0.0], [0.0, 3.0]])
    >>> weights = tf.constant([0.5, 0.5])  # a mean
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(items)
    ...     loss = softmax_loss(queries, items, tf.range(2), weights=weights)
    >>> loss.rows.numpy().round(4)  # log(1 + exp(-5)), log(1 + exp(-3))
    array([0.0067, 0.0486], dtype=float32)
    >>> tape.gradient(loss.total, items).shape
    TensorShape([2, 2])
    """
    positive_column = tf.cast(positive_column, tf.int32)
    bias = None if log_q is None else -log_q
    surplus = None
    if multiplicity is not None:
        more = tf.math.log(multiplicity)
        bias = more if bias is None else bias + more
        surplus = tf.gather(more, positive_column)

    @tf.custom_gradient
    def loss(queries: tf.Tensor, items: tf.Tensor) -> tuple[Loss, Callable[..., object]]:
        rows, d_queries, d_items = _blocks(
            queries / temperature,
            items,
            positive_column,
            weights,
            bias,
            surplus,
            mask,
            precision,
            block_scores,
        )

        def gradient(d_total: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return d_total / temperature * d_queries, d_total * d_items

        return Loss(tf.tensordot(weights, rows, 1), rows), gradient

    return Loss(*loss(queries, items))


def _blocks(
    queries: tf.Tensor,
    items: tf.Tensor,
    positive_column: tf.Tensor,
    weights: tf.Tensor,
    bias: tf.Tensor | None,
    surplus: tf.Tensor | None,
    mask: Mask | None,
    precision: str,
    block_scores: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the loss of each row [B], and the gradients of the total loss for queries and items.

    `bias` [C] is added to the logits of every row; `surplus` [B] is subtracted from the logit of
    each row's own item.
    """
    n_rows, dim = tf.shape(queries)[0], queries.shape[1]
    step = tf.clip_by_value(block_scores // tf.maximum(tf.shape(items)[0], 1), 1, n_rows)
    count = -(-n_rows // tf.maximum(step, 1))
    wide = items
    if bias is not None:  # an additional dimension costs less than a pass over the scores
        queries = tf.concat([queries, tf.ones_like(queries[:, :1])], 1)
        wide = tf.concat([items, bias[:, None]], 1)

    narrow_items, wide = (tf.cast(v, precision) for v in (items, wide))

    def block(
        i: tf.Tensor, d_items: tf.Tensor, losses: tf.TensorArray, d_queries: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray, tf.TensorArray]:
        start = i * step
        stop = tf.minimum(start + step, n_rows)
        query, mine, weight = (
            queries[start:stop],
            positive_column[start:stop],
            weights[start:stop, None],
        )
        masked = None if mask is None else mask(start, stop)
        scores = _scores(tf.cast(query, precision), wide, mine, masked)
        if surplus is not None:
            cells = tf.stack([tf.range(stop - start), mine], 1)
            scores = tf.tensor_scatter_nd_sub(scores, cells, surplus[start:stop])
        shares = tf.nn.softmax(scores)
        loss = _minus_log(tf.gather(shares, mine, batch_dims=1), scores, mine)
        narrow = tf.cast(shares, precision)
        d_query = _product(narrow, narrow_items) - tf.gather(items, mine)
        pull = tf.cast(query[:, :dim] * weight, precision)
        d_items += _product(narrow, pull, transpose_a=True)
        return i + 1, d_items, losses.write(i, loss), d_queries.write(i, d_query * weight)

    _, d_items, losses, d_queries = tf.while_loop(
        lambda i, *_: i < count,
        block,
        (
            tf.constant(0),
            tf.zeros_like(items),
            tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=[None]),
            tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=[None, dim]),
        ),
        parallel_iterations=1,
    )
    pull = queries[:, :dim] * weights[:, None]
    d_items = tf.tensor_scatter_nd_sub(d_items, positive_column[:, None], pull)
    return losses.concat(), d_queries.concat(), d_items


def _scores(
    queries: tf.Tensor, items: tf.Tensor, positive_column: tf.Tensor, masked: Masked | None
) -> tf.Tensor:
    """Return the logits of a block of rows, of which masked cells have the probability 0.

    Groups are masked inside of the product: each group is one more dimension, in which its rows
    have a 1, and its masked items a large negative number. Where rows share many masked items, to
    change every masked cell of the product would take longer than the product itself.

    Args:
        queries: the query embeddings of the block's rows, float32 or bfloat16 [n_rows, d].
        items: the item embeddings, of the same type [C, d].
        positive_column: the column of each row's own item, int [n_rows].
        masked: the masked cells; None for none.

    Returns:
        float32 [n_rows, C].
    """
    if masked is None:
        return _product(queries, items, transpose_b=True)
    if masked.groups is None:
        scores = _product(queries, items, transpose_b=True)
        never = tf.fill([tf.shape(masked.cells)[0]], _NEVER)
        return tf.tensor_scatter_nd_update(scores, masked.cells, never)
    count = tf.reduce_max(masked.groups) + 1
    never = tf.fill([tf.shape(masked.cells)[0]], tf.constant(_NEVER_IN_GROUP, items.dtype))
    shape = tf.stack([tf.shape(items)[0], count])
    columns = tf.tensor_scatter_nd_update(
        tf.zeros(shape, items.dtype), tf.reverse(masked.cells, [1]), never
    )
    members = tf.one_hot(masked.groups, count, dtype=queries.dtype)
    scores = _product(
        tf.concat([queries, members], 1), tf.concat([items, columns], 1), transpose_b=True
    )
    own = tf.cast(queries, tf.float32) * tf.cast(tf.gather(items, positive_column), tf.float32)
    cells = tf.stack([tf.range(tf.size(positive_column)), positive_column], 1)
    return tf.tensor_scatter_nd_update(scores, cells, tf.reduce_sum(own, 1))


def _product(a: tf.Tensor, b: tf.Tensor, **how: bool) -> tf.Tensor:
    """Return the product of two float32 or bfloat16 matrices as float32."""
    return tf.cast(tf.matmul(a, b, **how), tf.float32)


def _minus_log(shares: tf.Tensor, scores: tf.Tensor, positive_column: tf.Tensor) -> tf.Tensor:
    """Return -log of the softmax probability of each row's own item, safe against underflow."""
    return tf.cond(
        tf.reduce_all(shares > _TINY),
        lambda: -tf.math.log(shares),
        lambda: (
            tf.reduce_logsumexp(scores, axis=1) - tf.gather(scores, positive_column, batch_dims=1)
        ),
    )
