"""Training by two ranks, of one core each, against one process on one core.

    python benchmarks/ranks.py [--batches 4096 16384] [--items 20000] [--kinds in_batch full]

The data and the model are those of benchmarks/training.py. All have the same global batch, of which
a rank trains on its half. Each process has one thread for TensorFlow's operations and for BLAS, and
is pinned to a core of its own. The variants run alternately; the figure is the median, over the
repetitions, of the rows per second after ten steps of warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from bench import DATA, ROOT, machine, median, table, write
from workload import make

#: Number of first steps, which do not count, and of steps that count.
WARMUP, STEPS = 10, 40


def main() -> None:
    """Run all sizes, and print a table; or run one rank, if its number is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000])
    parser.add_argument("--kinds", nargs="+", default=["in_batch", "full"])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--addresses", default="")
    options = parser.parse_args()
    if options.rank is not None:
        train(options)
        return
    facts, results, lines = machine(), {}, []
    for n_items in options.items:
        make(DATA, n_rows=options.rows, n_items=n_items)
        for kind in options.kinds:
            for batch in options.batches:
                sizes = (kind, batch, n_items, options.rows)
                runs = [[paces(n, *sizes) for n in (1, 2)] for _ in range(options.repetitions)]
                one, two = (median([{"pace": r[n]} for r in runs], "pace") or 0.0 for n in (0, 1))
                results[f"{kind}, {n_items} items, batch {batch}"] = runs
                lines.append(
                    [kind, n_items, batch, f"{one:,.0f}", f"{two:,.0f}", f"{two / one:.2f}"]
                )
                print(lines[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    write("ranks", facts, results)
    print(table(["loss", "items", "batch", "one process, rows/s", "two ranks", "ratio"], lines))


def paces(n: int, kind: str, batch: int, n_items: int, rows: int) -> float:
    """Train by n processes, each on a core of its own, and return the rows per second."""
    from workflows.ground.ranks import find_cluster

    cluster = find_cluster(n, {})
    addresses = cluster.addresses if cluster else ()
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen(
            [
                *("taskset", "-c", str(cores[rank])),
                *(sys.executable, __file__, "--rank", str(rank)),
                *("--addresses", ",".join(addresses), "--kinds", kind),
                *("--batches", str(batch), "--items", str(n_items), "--rows", str(rows)),
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
    return float(json.loads(outputs[0].splitlines()[-1])["rows_per_second"])


def train(options: argparse.Namespace) -> None:
    """Train as one rank, and print its rows per second."""
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
        """Stops all ranks after the same step, and measures the time of the last steps."""

        steps, start, end = 0, 0.0, 0.0

        def on_train_batch_end(self, number: int, logs: object = None) -> None:
            self.steps += 1
            if self.steps == WARMUP:
                self.start = time.perf_counter()
            if self.steps == WARMUP + STEPS:
                self.end = time.perf_counter()
                self.model.stop_training = True

    config = TrainConfig(batch_size=batch, epochs=100)
    loader = RowLoader(made.model.schema.column_names)
    batches = Batches(PartitionInMemory(made.train), loader, batch_size=batch, seed=config.seed)
    fit = Fit(made.model, batches, config, OptimizerConfig(lr=0.001), None, collectives=collectives)
    steps = Steps()
    fit.run([steps])
    print(json.dumps({"rows_per_second": STEPS * batch / (steps.end - steps.start)}))


if __name__ == "__main__":
    main()
