"""How training and ranking scale with batch size, catalogue, dimensions and users.

    python benchmarks/scaling.py

Training: rows per second of the fit of benchmarks/training.py. Ranking: the 100 best of all items,
without seen items.
"""

from __future__ import annotations

import argparse

from bench import DATA, Peer, machine, table, write
from workload import make

BATCHES = (1024, 4096, 16384, 65536)
CATALOGUES = (1_000, 20_000, 200_000, 1_000_000)
WIDTHS = (32, 64, 128)
RANKED = (1_000, 10_000, 100_000)


def main() -> None:
    """Vary one factor at a time, from batch 4096, 20,000 items and 64 dimensions."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    facts, results = machine(), {}
    for n_items in CATALOGUES:
        results[f"train, {n_items:,} items"] = train(n_items=n_items)
    for batch in BATCHES:
        results[f"train, batch {batch:,}"] = train(batch=batch)
    for dim in WIDTHS:
        results[f"train, {dim} dimensions"] = train(dim=dim)
    for n in RANKED:
        place = make(DATA, n_rows=400_000, n_items=n)
        run = Peer("ours", "ours", "ours_export.py", "10000").run("--data", place)
        results[f"rank {n:,} items for 10,000 users"] = run
    write("scaling", facts, results)
    rows = [
        [name, run.get("rows_per_second", ""), run.get("rank", ""), run["peak_mib"]]
        for name, run in results.items()
    ]
    print(table(["", "rows/s", "s", "peak MiB"], rows))


def train(*, n_items: int = 20_000, batch: int = 4096, dim: int = 64) -> dict[str, float]:
    """Return the speed of a fit."""
    place = make(DATA, n_rows=400_000, n_items=n_items)
    peer = Peer("ours", "ours", "ours.py", f"dim={dim}")
    return peer.run("--data", place, "--batch", batch, "--seconds", 8, "--warmup", 3)


if __name__ == "__main__":
    main()
