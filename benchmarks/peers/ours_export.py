"""Embeddings and lists from towers, with this package.

The weights are not trained, as the time does not depend on them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
from peers.ours import world  # chooses the device first
from peers.pace import arguments, peak

from models.core.columns import fixed_lists, write_vectors
from models.core.exact import search
from models.towers.tower import embed

K = 100


def main() -> None:
    """Embed, write and rank without seen items, and print the times."""
    options = arguments(__doc__)
    made = world(options.data, 4096)
    n = int(options.option or len(made.users["user_id"]))
    users = {name: values[:n] for name, values in made.users.items()}
    start, before = time.perf_counter(), time.process_time()
    vectors = embed(made.model.query_encoder, users)
    items = embed(made.model.candidate_encoder, made.items)
    embedded = time.perf_counter()
    for name, matrix in (("users", vectors), ("items", items)):
        table = pa.table({"embedding": fixed_lists(matrix)})
        write_vectors(table, options.data / f"{name}.parquet")
    written = time.perf_counter()
    top = search(vectors, items, K, exclude=made.seen.take(np.arange(n)))
    ranked = time.perf_counter()
    assert top.items.shape == (n, K)
    print(
        json.dumps(
            {
                "embed": round(embedded - start, 2),
                "write": round(written - embedded, 2),
                "rank": round(ranked - written, 2),
                "seconds": round(ranked - start, 2),
                "processor_seconds": round(time.process_time() - before, 2),
                "peak_mib": peak(),
            }
        )
    )


if __name__ == "__main__":
    main()
