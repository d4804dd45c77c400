"""Training by two ranks, of one core each, against one process on one core.

    python benchmarks/ranks.py [--batches 4096 16384] [--items 20000] [--kinds in_batch full]

The data and the model are those of benchmarks/training.py. All have the same global batch, of which
a rank trains on its half. Each process has one thread for TensorFlow's operations and for BLAS, and
is pinned to a core of its own. The variants run alternately, and the first ten steps do not count.
The figures are medians over the repetitions: rows per second, and the seconds of processor time
that one process takes for a step. The latter depend little on what else runs on the machine, but
leave out the time for which a rank waits.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import DATA, ROOT, machine, median, table, write
from workload import make

from workflows.ground.ranks import find_cluster

#: Number of first steps, which do not count.
WARMUP = 10


def main() -> None:
    """Run all sizes, and print a table; or run one rank, if its number is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000])
    parser.add_argument("--kinds", nargs="+", default=["in_batch", "full"])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="number of steps that count")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--addresses", default="")
    options = parser.parse_args()
    if options.rank is not None:
        train(options)
        return
    facts, results, lines = machine(), {}, []
    for n_items, kind, batch in itertools.product(options.items, options.kinds, options.batches):
        make(DATA, n_rows=options.rows, n_items=n_items)
        sizes = {"items": n_items, "kinds": kind, "batches": batch, "rows": options.rows}
        words = [f"--{name}={value}" for name, value in {**sizes, "steps": options.steps}.items()]
        runs: dict[str, list[dict[str, float]]] = {"one process": [], "two ranks": []}
        for _ in range(options.repetitions):
            for n, found in enumerate(runs.values(), start=1):
                found.append(pace(n, words))
                print(n, kind, batch, found[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
        results[f"{kind}, {n_items} items, batch {batch}"] = runs
        lines.append([kind, n_items, batch, *ratios(*runs.values())])
    write("ranks", facts, results)
    head = ("one process, rows/s", "two ranks, rows/s", "ratio", "ratio of processor times")
    print(table(["loss", "items", "batch", *head], lines))


def ratios(one: list[dict[str, float]], two: list[dict[str, float]]) -> list[str]:
    """Return the medians of both variants and their ratios, as text."""
    paces = [median(runs, "rows_per_second") or 0.0 for runs in (one, two)]
    times = [median(runs, "processor_seconds") or 1.0 for runs in (one, two)]
    ratio = f"{paces[1] / paces[0]:.2f}", f"{times[0] / times[1]:.2f}"
    return [*(f"{pace:,.0f}" for pace in paces), *ratio]


def pace(n: int, words: list[str]) -> dict[str, float]:
    """Train by n processes, each on a core of its own, and return the figures of the first."""
    cluster = find_cluster(n, {})
    addresses = ",".join(cluster.addresses) if cluster else ""
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen(
            [
                *("taskset", "-c", str(cores[rank]), sys.executable, __file__, *words),
                *("--rank", str(rank), "--addresses", addresses),
            ],
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), "1"),
                "CUDA_VISIBLE_DEVICES": "",
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "PYTHONPATH": str(ROOT),
            },
        )
        for rank in range(n)
    ]
    outputs = [process.communicate()[0] for process in processes]
    found: dict[str, float] = json.loads(outputs[0].splitlines()[-1])
    return found


def train(options: argparse.Namespace) -> None:
    """Train as one rank, and print its figures."""
    from models.core.collectives import ALONE, Collectives
    from models.training.collectives import connect

    addresses = options.addresses.split(",") if options.addresses else []
    collectives: Collectives = connect(addresses, options.rank) if addresses else ALONE
    import tensorflow as tf
    from peers.ours import world

    from models.core.partitions import PartitionInMemory
    from models.losses.config import LossConfig
    from models.training.batches import Batches
    from models.training.config import OptimizerConfig, TrainConfig
    from models.training.fit import Fit
    from models.training.row_batches import RowLoader

    tf.config.experimental.enable_op_determinism()  # as `two-tower train` does
    (kind,), (batch,), (n_items,) = options.kinds, options.batches, options.items
    place = make(DATA, n_rows=options.rows, n_items=n_items)
    made = world(place, batch, loss=LossConfig(kind=kind, mask="item"))

    class Steps(tf.keras.callbacks.Callback):
        """Stops all ranks after the same step, and measures the time of the steps that count."""

        steps = 0

        def on_train_batch_end(self, number: int, logs: object = None) -> None:
            self.steps += 1
            if self.steps == WARMUP:
                self.start = time.perf_counter(), time.process_time()
            if self.steps == WARMUP + options.steps:
                self.end = time.perf_counter(), time.process_time()
                self.model.stop_training = True

    config = TrainConfig(batch_size=batch, epochs=100)
    loader = RowLoader(made.model.schema.column_names)
    batches = Batches(PartitionInMemory(made.train), loader, batch_size=batch, seed=config.seed)
    fit = Fit(made.model, batches, config, OptimizerConfig(lr=0.001), None, collectives=collectives)
    steps = Steps()
    fit.run([steps])
    seconds, processor = (b - a for a, b in zip(steps.start, steps.end, strict=True))
    figures = {
        "rows_per_second": options.steps * batch / seconds,
        "processor_seconds": processor / options.steps,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
