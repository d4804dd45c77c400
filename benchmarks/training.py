"""How many rows a second train: this package beside raw Merlin, TFRS and PyTorch, same data.

    python benchmarks/training.py [--batches 1024 4096 16384] [--items 1000 20000 1000000]

400,000 clicks with sixteen categorical columns (benchmarks/workload.py), embeddings of Merlin's
inferred sizes, MLPs 128-64, in-batch softmax, Adam at 0.001. What a row gets from each:

- ours: equal items masked, logQ on; towers, loss, optimiser and Keras fit as in `two-tower train`.
  Without dropout, as here, an item that stands in a batch often is embedded and compared once.
- raw Merlin: TwoTowerModelV2 as in its notebook 05, with its metrics and with metrics off.
- TFRS: its Retrieval task, metrics off; its default does not mask equal items, the others do.
- PyTorch: eager, sparse embedding gradients and SparseAdam; and with a blockwise loss by hand.

Every peer runs in a process of its own, in turns; the figure is the median over the repetitions of
the rows per second after ten steps of warm-up.
"""

from __future__ import annotations

import argparse

from bench import DATA, Peer, in_turns, machine, median, table, write
from workload import make

PEERS = [
    Peer("ours", "ours", "ours.py"),
    Peer("ours, loss in one block", "ours", "ours.py", "plain"),
    Peer("raw Merlin, its metrics", "ours", "merlin_raw.py"),
    Peer("raw Merlin, metrics off", "ours", "merlin_raw.py", "no_metrics"),
    Peer("TFRS", "tfrs", "tfrs.py"),
    Peer("TFRS, equal items masked", "tfrs", "tfrs.py", "remove_hits"),
    Peer("PyTorch eager", "torch", "pytorch.py"),
    Peer("PyTorch, blockwise loss", "torch", "pytorch.py", "blockwise"),
]


def main() -> None:
    """Run the grid and print a table for each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 20_000, 1_000_000])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    facts, results = machine(), {}
    for n_items in options.items:
        place = make(DATA, n_rows=options.rows, n_items=n_items)
        for batch in options.batches:
            words = ("--data", place, "--batch", batch, "--seconds", options.seconds)
            runs = in_turns(PEERS, options.repetitions, *words)
            results[f"{n_items} items, batch {batch}"] = runs
            write("training", facts, results)
            print(f"\n{n_items:,} items, batch {batch:,}\n{summary(runs)}\n", flush=True)


def summary(runs: dict[str, list[dict[str, float]]]) -> str:
    """Return medians, and how many times as fast ours is."""
    ours = median(runs["ours"], "rows_per_second") or 0.0
    rows = []
    for name, of in runs.items():
        pace, peak = median(of, "rows_per_second"), median(of, "peak_mib")
        if pace is None:
            rows.append([name, of[0]["failed"], "", ""])
        else:
            rows.append([name, f"{pace:,.0f}", f"{ours / pace:.2f}", f"{peak:,.0f}"])
    return table(["", "rows/s", "ours is times as fast", "peak MiB"], rows)


if __name__ == "__main__":
    main()
