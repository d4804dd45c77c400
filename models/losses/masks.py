"""Masks: cells (row, item) of the score matrix that must not count as negatives.

A popular item is often another positive of the row's user, and must not be trained as a negative.
Because few cells are masked, they are listed, and no matrix [B, C] is made.
"""

from __future__ import annotations

import tensorflow as tf

from models.losses.in_batch import Mask, Masked


def known_positives(
    users: tf.Tensor,
    positive_column: tf.Tensor,
    values: tf.Tensor,
    offsets: tf.Tensor,
    *,
    items: tf.Tensor | None = None,
    by_runs: bool = False,
) -> Mask:
    """Return a mask that hides all known positive items of each row's user from the negatives.

    Args:
        users: the user of each batch row, as a row number in the user table, int [B].
        positive_column: the column of each row's own item, int [B], which is never masked.
        values: item rows of the users' positives, int [n], user by user.
        offsets: int64 [n_users + 1]; user u has the positives `values[offsets[u]:offsets[u + 1]]`.
        items: the item of each column, as a row number in the item table, int [C]; None if column c
            is row c of the item table.
        by_runs: whether to return the cells of each run of consecutive rows of one user once. Masks
            by runs are faster if the runs are long, as in batches of sequences.
    """
    find = None if items is None else _ColumnsOfItems(items)

    def mask(start: tf.Tensor, stop: tf.Tensor) -> Masked:
        these, groups = users[start:stop], None
        if by_runs:
            begins = tf.concat([tf.ones_like(these[:1], tf.bool), these[1:] != these[:-1]], 0)
            these, groups = tf.boolean_mask(these, begins), tf.cumsum(tf.cast(begins, tf.int32)) - 1
        spans = tf.ragged.range(tf.gather(offsets, these), tf.gather(offsets, these + 1))
        rows, liked = spans.value_rowids(), tf.gather(values, spans.values)
        if find is None:
            columns = tf.cast(liked, tf.int64)
        else:
            rows, columns = find(rows, liked)
        if by_runs:
            return Masked(tf.stack([rows, columns], axis=1), groups)
        return _without_own(rows, columns, positive_column[start:stop])

    return mask


def same_item(items: tf.Tensor, positive_column: tf.Tensor) -> Mask:
    """Return a mask by which a row's own item in other columns is no negative of the row.

    Args:
        items: the item of each column, as a row number in the item table, int [C].
        positive_column: the column of each row's own item, int [B].
    """
    find = _ColumnsOfItems(items)

    def mask(start: tf.Tensor, stop: tf.Tensor) -> Masked:
        mine = positive_column[start:stop]
        rows, columns = find(tf.range(tf.size(mine, tf.int64)), tf.gather(items, mine))
        return _without_own(rows, columns, mine)

    return mask


class _ColumnsOfItems:
    """Finds the columns of the score matrix that belong to a given item.

    Args:
        items: the item of each column, as a row number in the item table, int [C].
    """

    def __init__(self, items: tf.Tensor) -> None:
        self.order = tf.argsort(items, stable=True)
        self.sorted = tf.gather(items, self.order)

    def __call__(self, rows: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the score matrix's cells (rows, columns) that hold the wanted item of a row."""
        wanted = tf.cast(wanted, self.sorted.dtype)
        first = tf.searchsorted(self.sorted, wanted, side="left", out_type=tf.int64)
        last = tf.searchsorted(self.sorted, wanted, side="right", out_type=tf.int64)
        places = tf.ragged.range(first, last)
        columns = tf.gather(self.order, places.values)
        return tf.gather(rows, places.value_rowids()), tf.cast(columns, tf.int64)


def _without_own(rows: tf.Tensor, columns: tf.Tensor, positive_column: tf.Tensor) -> Masked:
    """Return the given cells of the score matrix, except those of the rows' own items."""
    others = columns != tf.cast(tf.gather(positive_column, rows), tf.int64)
    return Masked(tf.boolean_mask(tf.stack([rows, columns], axis=1), others))
