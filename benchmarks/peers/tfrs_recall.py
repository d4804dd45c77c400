"""TFRS on MovieLens-100K: writes the embeddings after each epoch, and the time of the fit.

`--option tutorial`: only ids, in 32 dimensions, Adagrad 0.1, batch 8192, as in its tutorial
"basic retrieval"; `small`: 64 dimensions, Adam 0.003, batch 512, equal items masked.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from peers.pace import arguments

EPOCHS = 60


class Ids(tfrs.Model):
    """An embedding of each user and of each item."""

    def __init__(self, n_users: int, n_items: int, *, dim: int, remove_hits: bool) -> None:
        super().__init__()
        self.users = tf.keras.layers.Embedding(n_users, dim)
        self.items = tf.keras.layers.Embedding(n_items, dim)
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=remove_hits)

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return the loss of a batch."""
        return self.task(
            self.users(features["user_row"]),
            self.items(features["item_row"]),
            candidate_ids=features["item_row"],
            compute_metrics=False,
            compute_batch_metrics=False,
        )


def main() -> None:
    """Fit epoch by epoch, and write the embeddings after each."""
    options = arguments(__doc__)
    tf.keras.utils.set_random_seed(1)
    tutorial = options.option == "tutorial"
    rows = dict(np.load(options.data / "rows.npz"))
    sizes = [len(np.load(options.data / f"{n}.npz")[f"{n[:-1]}_id"]) for n in ("users", "items")]
    model = Ids(*sizes, dim=32 if tutorial else 64, remove_hits=not tutorial)
    optimisers = tf.keras.optimizers
    model.compile(optimisers.Adagrad(0.1) if tutorial else optimisers.Adam(0.003))
    data = tf.data.Dataset.from_tensor_slices({n: rows[n] for n in ("user_row", "item_row")})
    data = data.shuffle(len(rows["user_row"]), seed=1).batch(8192 if tutorial else 512).prefetch(2)
    seconds = 0.0
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        model.fit(data, epochs=1, verbose=0)
        seconds += time.perf_counter() - start
        users, items = (layer.embeddings.numpy() for layer in (model.users, model.items))
        file = options.data / f"epoch-{epoch:02d}.npz"
        np.savez(file, users=users, items=items, seconds=seconds)
    print(json.dumps({"seconds": round(seconds, 1), "epochs": EPOCHS}))


if __name__ == "__main__":
    main()
