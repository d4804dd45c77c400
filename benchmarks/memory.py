"""Memory of a training step by batch size, and of training on a log that is larger than memory.

    python benchmarks/memory.py [--batches 4096 16384 65536]
    python benchmarks/log_on_disk.py FOLDER && python benchmarks/memory.py --log FOLDER

By batch size, the blockwise loss is compared with B x B matrices. With `--log`, training from the
files of a log is compared with training on some of its rows in memory, in turns.

The figure is the peak memory of the process minus its memory before the fit, which has weights,
data and libraries. (Raw Merlin makes its weights, about 100 MiB here, in the first step.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import DATA, Peer, machine, median, run_alternately, table, write
from workload import make

PEERS = [
    Peer("ours", "ours", "ours.py"),
    Peer("ours, loss in one block", "ours", "ours.py", "plain"),
    Peer("raw Merlin, metrics off", "ours", "merlin_raw.py", "no_metrics"),
]

#: Largest memory of the B x B matrices of a peer, MiB.
FITS = 8192


def main() -> None:
    """Run each batch size once, as peaks hardly vary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--log", type=Path, help="folder of log_on_disk.py")
    options = parser.parse_args()
    if options.log:
        compare_with_disk(options.log)
        return
    place = make(DATA, n_rows=400_000, n_items=20_000)
    facts, results, rows = machine(), {}, []
    for batch in options.batches:
        words = ("--data", place, "--batch", batch, "--warmup", 1, "--seconds", 1)
        # float32 scores and their softmax; a peer that needs more memory than this is skipped
        whole = 2 * batch**2 * 4 / 2**20
        peers = PEERS if whole < FITS else PEERS[:1]
        runs = results[str(batch)] = run_alternately(peers, 1, *words)
        row = [f"{batch:,}"]
        for peer in PEERS:
            of = runs.get(peer.name, [])
            peak, before = median(of, "peak_mib"), median(of, "before_mib")
            tried = f"{peak - before:,.0f}" if peak and before else "failed"
            row.append(tried if of else f"not run: two matrices of {whole / 2:,.0f}")
        rows.append(row)
    write("memory", facts, results)
    print(table(["batch", *(f"{peer.name}, MiB" for peer in PEERS)], rows))


def compare_with_disk(log: Path) -> None:
    """Train on the log from its files and in memory, in turns, and print the medians."""
    peers = [Peer(f"from {name}", "ours", "disk.py", name) for name in ("disk", "memory")]
    words = ("--data", log, "--batch", 4096, "--warmup", 12, "--seconds", 60)
    runs = run_alternately(peers, 3, *words)
    write("memory", machine(), {"log on disk": runs})
    rows = []
    for name, of in runs.items():
        before, peak, n_rows, pace, used, reading = (median(of, key) or 0.0 for key in FIGURES)
        rows.append(
            [name, f"{n_rows:,.0f}", f"{peak - before:,.0f}", f"{pace:,.0f}", used, reading]
        )
    head = ["", "rows", "above the model, MiB", "rows/s", "CPU s per million rows", "of reading"]
    print(table(head, rows))


#: The figures of disk.py that are compared.
FIGURES = (
    "resident_before_mib",
    "resident_peak_mib",
    "rows",
    "rows_per_second",
    "cpu_seconds_per_million_rows",
    "reading_seconds_per_million_rows",
)


if __name__ == "__main__":
    main()
