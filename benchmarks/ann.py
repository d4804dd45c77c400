"""Recall and latency of approximate indexes, for one query at a time in one thread.

    python benchmarks/ann.py [--sizes 100000 1000000] [--kinds ivf hnsw] [--worlds trained cosine]

The vectors are synthetic and have 64 dimensions. There are three kinds. `trained` is similar to
embeddings of trained towers: users and items are scattered around 2,000 centres, whose sizes follow
Zipf's law and whose later dimensions have less variance; norms differ by a quarter. `cosine` is the
same with all norms 1 (model.normalize). `random` has no structure: no trained model is like it, and
no index can use it. The effort is tuned on 500 queries, as by `two-tower index`; recall@100 and
time are measured on 500 others. Processor time is given besides elapsed time, which on a busy
machine includes other processes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from bench import machine, table, write

from models.core.ann import Index
from models.core.ann_tuning import recalls, tune_effort
from models.core.exact import search

WIDTH, AT, QUERIES = 64, 100, 500
TASTES = 2000


def make(world: str, n_items: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return items, float32 [n_items, 64], and queries, float32 [1000, 64]."""
    draw = np.random.default_rng(seed)
    matters = np.ones(WIDTH) if world == "random" else np.exp(-np.arange(WIDTH) / 24)
    tastes = draw.normal(size=(TASTES, WIDTH)) * matters
    popular = np.arange(1, TASTES + 1) ** -0.8
    made = []
    for n in (n_items, 2 * QUERIES):
        scattered = draw.normal(size=(n, WIDTH)) * matters
        if world != "random":
            centres = tastes[draw.choice(TASTES, n, p=popular / popular.sum())]
            scattered = centres + 0.5 * scattered
        made.append(scattered)
    items, queries = made
    if world == "trained":
        items *= np.exp(0.25 * draw.normal(size=(n_items, 1)))
    if world == "cosine":
        items, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in made)
    return items.astype(np.float32), queries.astype(np.float32)


def measure(index: Index, queries: np.ndarray) -> dict[str, float]:
    """Search query by query; return percentiles of elapsed and processor time, milliseconds."""
    index.search(queries[:1], AT)
    clock, processor = [], []
    for row in range(len(queries)):
        before = time.perf_counter(), time.thread_time()
        index.search(queries[row : row + 1], AT)
        clock.append(time.perf_counter() - before[0])
        processor.append(time.thread_time() - before[1])
    return {
        f"{name}_p{p}_ms": round(float(np.percentile(of, p)) * 1000, 2)
        for name, of in (("clock", clock), ("cpu", processor))
        for p in (50, 99)
    }


def run(world: str, n_items: int, kind: str) -> dict[str, float]:
    """Build, tune and measure one index."""
    items, queries = make(world, n_items)
    start = time.perf_counter()
    built = Index.build(items, kind)
    build = time.perf_counter() - start
    index = tune_effort(built, queries[:QUERIES], at=AT, recall=0.99)
    tune = time.perf_counter() - start - build
    others = queries[QUERIES:]
    recall = float(recalls(index.search(others, AT), search(others, items, AT)).mean())
    facts = {"build_s": round(build, 1), "tune_s": round(tune, 1), "effort": index.effort}
    return {**facts, "recall": round(recall, 4), **measure(index, others)}


def main() -> None:
    """Run all combinations of the options, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["ivf", "hnsw"])
    parser.add_argument("--worlds", nargs="+", default=["trained", "cosine", "random"])
    options = parser.parse_args()
    facts, rows = machine(), []
    for size in options.sizes:
        for world in options.worlds:
            for kind in options.kinds:
                found = run(world, size, kind)
                write("ann", facts, {f"{kind} {world} {size}": found})
                rows.append([f"{size:,}", world, kind, *found.values()])
                print(rows[-1], flush=True)
                head = ["items", "world", "kind", *found]
    print(table(head, rows))


if __name__ == "__main__":
    main()
