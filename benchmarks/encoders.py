"""Speed and memory of training with each history encoder, on MovieLens-100K.

    python benchmarks/encoders.py [--runs 3]

The encoders take turns, each in a process of its own, with the inputs and the batch size of its
variant of the recipe; the figures are medians.
"""

from __future__ import annotations

import argparse

from bench import Peer, machine, median, run_alternately, table, write

PEERS = [
    Peer("weighted mean (decay_pool), batches of rows", "ours", "encoder.py", "pool"),
    Peer("attention, batches of sequences", "ours", "encoder.py"),
]


def main() -> None:
    """Run each encoder several times, in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    facts, results = machine(), run_alternately(PEERS, options.runs)
    write("encoders", facts, results)
    rows = []
    for peer in PEERS:
        rate, peak, before, size = (
            median(results.get(peer.name, []), key) or 0.0
            for key in ("rows_per_s", "peak_mib", "before_mib", "parameters")
        )
        rows.append([peer.name, f"{rate:,.0f}", f"{peak - before:,.0f}", f"{size:,.0f}"])
    print(table(["encoder", "rows/s", "memory of the fit, MiB", "trained numbers"], rows))


if __name__ == "__main__":
    main()
