"""Masks: cells (row, item) of the score matrix that must not count as negatives.

A popular item is often another positive of the row's user, and must not be trained as a negative.
The cells are few, so they are listed; there is no matrix [B, C].
"""

from __future__ import annotations

import tensorflow as tf

from models.losses.in_batch import Mask


def known_positives(
    users: tf.Tensor,
    positive_column: tf.Tensor,
    values: tf.Tensor,
    offsets: tf.Tensor,
    *,
    items: tf.Tensor | None = None,
) -> Mask:
    """Return a mask of the known positives of a row's user.

    Args:
        users: user rows, int [B].
        positive_column: the column of each row's own item, int [B]: never masked.
        values: item rows of the users' positives, int [n], user by user.
        offsets: int64 [n_users + 1]; user u has the positives `values[offsets[u]:offsets[u + 1]]`.
        items: item rows of the columns, int [C]; None where column c is item row c.
    """
    find = None if items is None else _Places(items)

    def mask(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        these = users[start:stop]
        spans = tf.ragged.range(tf.gather(offsets, these), tf.gather(offsets, these + 1))
        rows, liked = spans.value_rowids(), tf.gather(values, spans.values)
        if find is None:
            columns = tf.cast(liked, tf.int64)
        else:
            rows, columns = find(rows, liked)
        return _cells(rows, columns, positive_column[start:stop])

    return mask


def same_item(items: tf.Tensor, positive_column: tf.Tensor) -> Mask:
    """Return a mask of the row's own item in other columns.

    Args:
        items: item rows of the columns, int [C].
        positive_column: the column of each row's own item, int [B].
    """
    find = _Places(items)

    def mask(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        mine = positive_column[start:stop]
        rows, columns = find(tf.range(tf.size(mine, tf.int64)), tf.gather(items, mine))
        return _cells(rows, columns, mine)

    return mask


class _Places:
    """Finds the columns that hold an item.

    Args:
        items: item rows of the columns, int [C].
    """

    def __init__(self, items: tf.Tensor) -> None:
        self.order = tf.argsort(items, stable=True)
        self.sorted = tf.gather(items, self.order)

    def __call__(self, rows: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return rows and columns, int64 [n], of all columns of the item wanted by each row."""
        wanted = tf.cast(wanted, self.sorted.dtype)
        first = tf.searchsorted(self.sorted, wanted, side="left", out_type=tf.int64)
        last = tf.searchsorted(self.sorted, wanted, side="right", out_type=tf.int64)
        places = tf.ragged.range(first, last)
        columns = tf.gather(self.order, places.values)
        return tf.gather(rows, places.value_rowids()), tf.cast(columns, tf.int64)


def _cells(rows: tf.Tensor, columns: tf.Tensor, positive_column: tf.Tensor) -> tf.Tensor:
    """Return (row, column) pairs, int64 [n, 2], without the rows' own columns."""
    others = columns != tf.cast(tf.gather(positive_column, rows), tf.int64)
    return tf.boolean_mask(tf.stack([rows, columns], axis=1), others)
