"""Memory of a training step by batch size: with the blockwise loss, and with B x B matrices.

    python benchmarks/memory.py [--batches 4096 16384 65536]

The figure is the peak memory of the process minus its memory before the fit, which has weights,
data and libraries. (Raw Merlin makes its weights, about 100 MiB here, in the first step.)
"""

from __future__ import annotations

import argparse

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
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
