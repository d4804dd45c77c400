"""Time from a trained model to embeddings on disk and 100 items per user: ours and raw Merlin.

    python benchmarks/retrieval.py [--sizes 660 20000] [--large 100000]

Both embed all users and items, write the embeddings as parquet, and rank. Ours leaves out seen
items; Merlin's functions (candidate_embeddings, query_embeddings, to_top_k_encoder) cannot. With
the size of `--large`, only ours runs.
"""

from __future__ import annotations

import argparse

from bench import DATA, Peer, machine, median, run_alternately, table, write
from workload import make


def main() -> None:
    """Run ours and Merlin alternately for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[660, 20_000])
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    facts, results, rows = machine(), {}, []
    for size in [*options.sizes, options.large]:
        place = make(DATA, n_rows=400_000, n_items=size)
        peers = [Peer("ours", "ours", "ours_export.py", str(size))]
        if size != options.large:
            peers.append(Peer("raw Merlin", "ours", "merlin_export.py", str(size)))
        runs = results[str(size)] = run_alternately(peers, options.repetitions, "--data", place)
        seconds = {name: median(of, "seconds") for name, of in runs.items()}
        peaks = {name: median(of, "peak_mib") for name, of in runs.items()}
        theirs = seconds.get("raw Merlin")
        rows.append(
            [
                f"{size:,} x {size:,}",
                seconds["ours"],
                theirs or "",
                f"{theirs / seconds['ours']:.0f}" if theirs and seconds["ours"] else "",
                peaks["ours"],
                peaks.get("raw Merlin") or "",
            ]
        )
    write("retrieval", facts, results)
    head = ["users x items", "ours, s", "raw Merlin, s", "times as fast", "ours, peak MiB"]
    print(table([*head, "raw Merlin, peak MiB"], rows))


if __name__ == "__main__":
    main()
