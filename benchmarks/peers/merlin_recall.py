"""Raw Merlin on MovieLens-100K: writes the embeddings after each epoch, and the time of the fit.

`--option notebook`: batch 4096 and Adam 0.001, as in notebook 05; `small`: 512 and 0.003.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

import merlin.models.tf as mm
import numpy as np
import tensorflow as tf
from peers.merlin_raw import two_towers
from peers.pace import arguments

EPOCHS = 30
USER = ("user_id", "gender", "occupation")
ITEM = ("item_id", "release_year")
NAMES = ("rows", "users", "items")
BATCH = {"notebook": 4096, "small": 512}
RATE = {"notebook": 0.001, "small": 0.003}


def main() -> None:
    """Fit epoch by epoch, and write the embeddings after each."""
    options = arguments(__doc__)
    tf.keras.utils.set_random_seed(1)
    rows, users, items = (dict(np.load(options.data / f"{n}.npz")) for n in NAMES)
    tables = {**users, **items}
    sizes = {name: int(tables[name].max()) + 1 for name in (*USER, *ITEM)}
    data, model = two_towers({n: rows[n] for n in sizes}, sizes)
    towers = (model.query_encoder, model.candidate_encoder)
    adam = tf.keras.optimizers.Adam(RATE[options.option])
    model.compile(optimizer=adam, run_eagerly=False, metrics=[])
    seconds = 0.0
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        loader = mm.Loader(data, batch_size=BATCH[options.option])
        model.fit(loader, epochs=1, verbose=0, train_metrics_steps=0)
        seconds += time.perf_counter() - start
        vectors = [
            tower({n: tf.constant(table[n]) for n in names}).numpy()
            for tower, table, names in zip(towers, (users, items), (USER, ITEM), strict=True)
        ]
        file = options.data / f"epoch-{epoch:02d}.npz"
        np.savez(file, users=vectors[0], items=vectors[1], seconds=seconds)
    print(json.dumps({"seconds": round(seconds, 1), "epochs": EPOCHS}))


if __name__ == "__main__":
    main()
