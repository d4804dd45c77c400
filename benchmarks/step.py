"""What the time of one training step is made of.

    python benchmarks/step.py [--batch 4096] [--items 20000]

Medians over thirty steps of the model of benchmarks/training.py: the whole step, the same without
the loss (towers, their gradients, the optimiser), the towers forward, the loss with both gradients,
the loader.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from bench import DATA, machine, table, write
from peers.ours import world  # chooses the device first
from workload import make

import tensorflow as tf  # isort: skip - after the device

from models import in_batch, masks
from models.batches import Batches
from models.optimizer import LazyAdam


def main() -> None:
    """Time the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--items", type=int, default=20_000)
    options = parser.parse_args()
    made = world(make(DATA, n_rows=400_000, n_items=options.items), options.batch)
    batches = Batches(made.train, batch_size=options.batch, seed=1)
    batch = {name: tf.constant(values) for name, values in batches[0].items()}
    model, adam = made.model, LazyAdam(0.001)
    towers = (model.query_encoder, model.candidate_encoder)
    adam.build(model.trainable_variables)
    query, item = (tower(batch) for tower in towers)
    own = tf.range(options.batch)
    weights = tf.fill([options.batch], 1 / options.batch)

    def loss_of(query: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        mask = masks.same_item(tf.reshape(batch["item_row"], [-1]), own)
        return in_batch.softmax_loss(query, item, own, weights=weights, mask=mask).total

    def step(loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Callable[[], tf.Tensor]:
        @tf.function(autograph=False)
        def run() -> tf.Tensor:
            with tf.GradientTape() as tape:
                total = loss(*(tower(batch, training=True) for tower in towers))
            gradients = tape.gradient(total, model.trainable_variables)
            adam.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return total

        return run

    @tf.function(autograph=False)
    def forward() -> tf.Tensor:
        return tf.add_n([tf.reduce_sum(tower(batch)) for tower in towers])

    @tf.function(autograph=False)
    def loss_alone() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch([query, item])
            total = loss_of(query, item)
        return tf.add_n([tf.reduce_sum(g) for g in tape.gradient(total, [query, item])])

    parts = {
        "whole step": step(loss_of),
        "without the loss": step(lambda q, i: tf.reduce_sum(q * i)),
        "towers forward": forward,
        "loss and its gradients": loss_alone,
        "loader": lambda: batches[1],
    }
    results = {name: milliseconds(run) for name, run in parts.items()}
    write("step", machine(), results)
    print(table(["", "ms"], [[name, f"{ms:.1f}"] for name, ms in results.items()]))


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(33):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


if __name__ == "__main__":
    main()
