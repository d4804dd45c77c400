"""TensorFlow Recommenders: Keras towers, its Retrieval task without metrics, tf.data, fit.

`--option remove_hits` masks equal items in the batch, as the others do; its default does not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import workload
from peers.pace import Pace, arguments
from peers.watch import Watch


class Tower(tf.keras.Model):
    """Concatenated embeddings of users or items, and an MLP."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.tables = {
            name: tf.keras.layers.Embedding(size, workload.width(size))
            for name, size in sizes.items()
        }
        self.dense = tf.keras.Sequential(
            [tf.keras.layers.Dense(128, "relu"), tf.keras.layers.Dense(64)]
        )

    def call(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return float32 [B, 64]."""
        return self.dense(tf.concat([self.tables[n](batch[n]) for n in self.tables], axis=1))


class Model(tfrs.Model):
    """Two towers and the task."""

    def __init__(self, sizes: dict[str, int], *, remove_hits: bool) -> None:
        super().__init__()
        self.user = Tower({n: s for n, s in sizes.items() if n.startswith("user")})
        self.item = Tower({n: s for n, s in sizes.items() if n.startswith("item")})
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=remove_hits)
        self.remove_hits = remove_hits

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return the loss of a batch."""
        ids = features["item_id"] if self.remove_hits else None
        return self.task(
            self.user(features),
            self.item(features),
            candidate_ids=ids,
            compute_metrics=False,
            compute_batch_metrics=False,
        )


def main() -> None:
    """Fit until the time is over."""
    options = arguments(__doc__)
    columns, sizes = workload.columns(options.data)
    order = np.random.default_rng(0).permutation(len(columns["item_id"]))
    data = tf.data.Dataset.from_tensor_slices({n: v[order] for n, v in columns.items()})
    data = data.repeat().batch(options.batch).prefetch(2)
    model = Model(sizes, remove_hits=options.option == "remove_hits")
    model.compile(tf.keras.optimizers.Adam(0.001))
    pace = Pace(options.warmup, options.seconds)
    model.fit(
        data, epochs=1, steps_per_epoch=10**6, verbose=0, callbacks=[Watch(pace, options.batch)]
    )
    pace.print_result()


if __name__ == "__main__":
    main()
