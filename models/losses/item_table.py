"""The item table as variables, from which a training step looks up the inputs of the item tower.

The columns are variables, because TensorFlow would copy constants into each traced graph, and a
graph may have at most 2 GiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.core.columns import Columns
from models.core.retriever import Ragged


@dataclass(frozen=True)
class ItemTable:
    """The columns of the item table that a training step needs, which are no weights of the model.

    The class is not a Keras layer, because Keras would save its variables with the weights of the
    model.

    Attributes:
        columns: name → the column, [n_items], or the values and the offsets of a column of lists.
        log_q: the log of each item's sampling probability, float32 [n_items]; None for no
            correction.
    """

    columns: Mapping[str, tf.Variable | tuple[tf.Variable, tf.Variable]]
    log_q: tf.Variable | None

    @classmethod
    def of(
        cls, items: Columns, names: Sequence[str], log_q: npt.NDArray[np.float32] | None
    ) -> ItemTable:
        """Make variables of the named columns of the item table, and of log q."""
        columns: dict[str, tf.Variable | tuple[tf.Variable, tf.Variable]] = {}
        for name in names:
            column = items[name]
            if isinstance(column, Ragged):
                columns[name] = _variable(column.values), _variable(column.offsets)
            else:
                columns[name] = _variable(column)
        return cls(columns, None if log_q is None else _variable(log_q))

    def take(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the columns of the given rows in the format of Merlin's data loader."""
        batch: dict[str, tf.Tensor] = {}
        for name, column in self.columns.items():
            if not isinstance(column, tuple):
                batch[name] = tf.gather(column, rows)
                continue
            lists = tf.gather(tf.RaggedTensor.from_row_splits(*column, validate=False), rows)
            batch[f"{name}__values"] = lists.values
            batch[f"{name}__offsets"] = tf.cast(lists.row_splits, tf.int32)
        return batch

    def log_q_of(self, rows: tf.Tensor) -> tf.Tensor | None:
        """Return log q of the items in the given rows, float32; None for no correction."""
        return None if self.log_q is None else tf.gather(self.log_q, rows)


def _variable(values: npt.NDArray[np.generic]) -> tf.Variable:
    return tf.Variable(values, trainable=False)
