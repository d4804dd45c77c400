"""How much memory a step takes by batch size: the loss in blocks, and the B x B matrices kept.

    python benchmarks/memory.py [--batches 4096 16384 65536]

The peak of the process minus what it held before the first step (weights, data and libraries).
"""

from __future__ import annotations

import argparse

from bench import DATA, Peer, in_turns, machine, median, table, write
from workload import make

PEERS = [
    Peer("ours", "ours", "ours.py"),
    Peer("ours, loss in one block", "ours", "ours.py", "plain"),
    Peer("raw Merlin, metrics off", "ours", "merlin_raw.py", "no_metrics"),
]


def main() -> None:
    """Run each batch size once; peaks hardly vary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384, 65536])
    options = parser.parse_args()
    place = make(DATA, n_rows=400_000, n_items=20_000)
    facts, results, rows = machine(), {}, []
    for batch in options.batches:
        words = ("--data", place, "--batch", batch, "--warmup", 1, "--seconds", 1)
        runs = results[str(batch)] = in_turns(PEERS, 1, *words)
        cells = [median(of, "peak_mib") for of in runs.values()]
        before = [median(of, "before_mib") for of in runs.values()]
        gaps = [
            f"{peak - start:,.0f}" if peak and start else "failed"
            for peak, start in zip(cells, before, strict=True)
        ]
        rows.append([f"{batch:,}", *gaps])
    write("memory", facts, results)
    print(table(["batch", *(f"{peer.name}, MiB" for peer in PEERS)], rows))


if __name__ == "__main__":
    main()
