"""Training speed in rows per second: this package, raw Merlin, TFRS and PyTorch on the same data.

    python benchmarks/training.py [--batches 1024 4096 16384] [--items 1000 20000 1000000]

The data are 400,000 clicks with sixteen categorical columns (benchmarks/workload.py). All models
have embeddings of the sizes that Merlin infers, MLPs 128-64, in-batch softmax, and Adam at 0.001.
Their differences:

- ours: masks equal items and corrects by logQ; towers, loss, optimiser and Keras fit are those of
  `two-tower train`. Without dropout, as here, an item that is several times in a batch is embedded
  and compared once.
- raw Merlin: TwoTowerModelV2 as in its notebook 05, with its metrics and with metrics off.
- TFRS: its Retrieval task, metrics off. By default it does not mask equal items; the others do.
- PyTorch: eager, sparse embedding gradients and SparseAdam; also with our own blockwise loss.

Each peer runs in its own process, alternately; the figure is the median over the repetitions of the
rows per second after ten steps of warm-up.
"""

from __future__ import annotations

import argparse

from bench import DATA, Peer, machine, median, run_alternately, table, write
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
    """Run all sizes and print a table for each."""
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
            runs = run_alternately(PEERS, options.repetitions, *words)
            results[f"{n_items} items, batch {batch}"] = runs
            write("training", facts, results)
            print(f"\n{n_items:,} items, batch {batch:,}\n{summary(runs)}\n", flush=True)


def summary(runs: dict[str, list[dict[str, float]]]) -> str:
    """Return a table of medians, and of how many times as fast ours is."""
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
