"""Embeddings and lists from trained towers, as in the notebooks of Merlin.

It calls `candidate_embeddings` and `query_embeddings`, then `to_top_k_encoder` and its predictions.
Seen items are in the lists, as Merlin cannot leave them out.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import merlin.models.tf as mm
import tensorflow as tf
from merlin.io import Dataset
from merlin.models.utils.dataset import unique_rows_by_features
from merlin.schema import Tags
from peers.merlin_raw import world
from peers.pace import arguments, peak

K = 100


def main() -> None:
    """Embed, write and rank, and print the times."""
    options = arguments(__doc__)
    clicks, model = world(options.data)
    model.compile(optimizer="adam", run_eagerly=False, metrics=[])
    model.fit(mm.Loader(clicks, batch_size=4096), epochs=1, steps_per_epoch=1, verbose=0)
    n = int(options.option)
    start, before = time.perf_counter(), time.process_time()
    users = unique_rows_by_features(clicks, Tags.USER, Tags.USER_ID)
    users = Dataset(users.to_ddf().compute().head(n), schema=users.schema, cpu=True)
    items = unique_rows_by_features(clicks, Tags.ITEM, Tags.ITEM_ID)
    item_vectors = model.candidate_embeddings(items, batch_size=1024, index=Tags.ITEM_ID)
    item_vectors.compute().to_parquet(options.data / "merlin_items.parquet")
    user_vectors = model.query_embeddings(users, batch_size=1024, index=Tags.USER_ID)
    user_vectors.compute().to_parquet(options.data / "merlin_users.parquet")
    embedded = time.perf_counter()
    encoder = model.to_top_k_encoder(items, k=K, batch_size=128)
    encoder.compile(run_eagerly=False)
    lists = encoder.predict(mm.Loader(users, batch_size=1024, shuffle=False), verbose=0)
    ranked = time.perf_counter()
    assert tf.nest.flatten(lists)[0].shape[1] == K
    print(
        json.dumps(
            {
                "embed and write": round(embedded - start, 2),
                "rank": round(ranked - embedded, 2),
                "seconds": round(ranked - start, 2),
                "processor_seconds": round(time.process_time() - before, 2),
                "n_users": users.num_rows,
                "n_items": items.num_rows,
                "peak_mib": peak(),
            }
        )
    )


if __name__ == "__main__":
    main()
