"""Exact search by number of items, against the bare matrix product of the same vectors.

    python benchmarks/exact_scale.py [--items 1000000 3000000 10000000] [--queries 1000]

The vectors are random and have 64 dimensions, so that no score hints at another one. The bare
product computes all scores tile by tile, on the same number of threads, and does nothing with them:
a ratio of 1 would mean that finding the best 100 items takes no time. Both are run in turns;
processor time is given besides elapsed time, which on a busy machine includes other processes.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from bench import exponent, machine, table, write

from models.core.blas import product, run_in_threads, threads
from models.core.exact import max_norm, search

WIDTH, AT = 64, 100
#: Items of a tile of the bare product, which it computes for all queries of a thread.
TILE = 4096


def bare(queries: np.ndarray, items: np.ndarray) -> None:
    """Compute all scores, tile by tile, with the queries divided among the threads."""
    n_threads = threads()
    parts = iter(np.array_split(queries, n_threads))

    def work() -> None:
        for part in parts:
            buffer = np.empty(len(part) * TILE, np.float32)
            for start in range(0, len(items), TILE):
                tile = items[start : start + TILE]
                size = len(part) * len(tile)
                product(part, tile, out=buffer[:size].reshape(len(part), len(tile)))

    run_in_threads(work, n_threads)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the elapsed time and the processor time of a call, in seconds."""
    before = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - before[0], time.process_time() - before[1]


def run(n_items: int, n_queries: int, repetitions: int) -> dict[str, float]:
    """Search and multiply in turns; return the medians."""
    draw = np.random.default_rng(1)
    items = np.empty((n_items, WIDTH), np.float32)
    for start in range(0, n_items, 1 << 20):
        items[start : start + (1 << 20)] = draw.standard_normal(
            (min(1 << 20, n_items - start), WIDTH), np.float32
        )
    queries = draw.standard_normal((n_queries, WIDTH), np.float32)
    norm_bound = max_norm(items)
    times = []
    for _ in range(repetitions):
        ours = timed(lambda: search(queries, items, AT, norm_bound=norm_bound))
        theirs = timed(lambda: bare(queries, items))
        times.append((*ours, *theirs))
    seconds, cpu, bare_seconds, bare_cpu = np.median(times, axis=0)
    return {
        "search_s": round(seconds, 2),
        "search_cpu_s": round(cpu, 2),
        "product_s": round(bare_seconds, 2),
        "product_cpu_s": round(bare_cpu, 2),
        "ratio": round(seconds / bare_seconds, 2),
        "cpu_ratio": round(cpu / bare_cpu, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Run each number of items, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    facts, rows = machine(), []
    for n_items in options.items:
        found = run(n_items, options.queries, options.repetitions)
        write("exact_scale", facts, {f"{options.queries} x {n_items}": found})
        rows.append([f"{n_items:,}", *found.values()])
        print(rows[-1], flush=True)
    print(table(["items", *found], rows))
    if len(options.items) > 1:
        grows = exponent(options.items, [float(row[2]) for row in rows])
        print(f"search: processor time grows as items ** {grows:.2f}")


if __name__ == "__main__":
    main()
