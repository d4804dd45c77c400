"""How much memory a step takes by batch size: the loss in blocks, and the B x B matrices kept.

    python benchmarks/memory.py [--batches 4096 16384 65536]

The peak of the process minus what it held before the fit: weights, data and libraries. (Raw Merlin
makes its weights in the first step, some 100 MiB here.)
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

#: MiB that the matrices of a peer may take.
FITS = 8192


def main() -> None:
    """Run each batch size once; peaks hardly vary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384, 65536])
    options = parser.parse_args()
    place = make(DATA, n_rows=400_000, n_items=20_000)
    facts, results, rows = machine(), {}, []
    for batch in options.batches:
        words = ("--data", place, "--batch", batch, "--warmup", 1, "--seconds", 1)
        # scores and their softmax, float32: whoever keeps both would take the machine down
        whole = 2 * batch**2 * 4 / 2**20
        peers = PEERS if whole < FITS else PEERS[:1]
        runs = results[str(batch)] = in_turns(peers, 1, *words)
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
