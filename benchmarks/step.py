"""Times of the parts of a training step.

    python benchmarks/step.py [--batch 4096] [--items 20000]

The figures are medians over thirty steps of the model of benchmarks/training.py: the whole step;
the step without the loss (towers, their gradients, the optimiser); the forward pass of the towers;
the loss with both gradients; the loader. The item tower gets each item of the batch once, as in
training.
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

from models.core.partitions import PartitionInMemory
from models.losses import in_batch
from models.losses.sampled_loss import ITEM, QUERY, SampledLoss
from models.training.batches import Batches
from models.training.optimizer import LazyAdam
from models.training.row_batches import RowLoader


def main() -> None:
    """Measure the parts and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--items", type=int, default=20_000)
    options = parser.parse_args()
    made = world(make(DATA, n_rows=400_000, n_items=options.items), options.batch)
    loader = RowLoader(made.model.schema.column_names)
    batches = Batches(PartitionInMemory(made.train), loader, batch_size=options.batch, seed=1)
    batch = {name: tf.constant(values) for name, values in batches[0].items()}
    model, adam = made.model, LazyAdam(0.001)
    adam.build(model.trainable_variables)
    output = next(layer for layer in model.submodules if isinstance(layer, SampledLoss))
    rows, own, repeats = tf.unique_with_counts(batch["item_row"])
    weights = tf.fill([options.batch], 1 / options.batch)

    def towers(training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        return model.query_encoder(batch, training=training), output.embed_items(rows, training)

    def whole() -> tf.Tensor:
        vectors = {QUERY: model.query_encoder(batch, training=True)}
        vectors[ITEM] = model.candidate_encoder(batch, training=True)
        return output.loss_of(vectors, batch, training=True).total

    def without_loss() -> tf.Tensor:
        query, item = towers(training=True)
        return tf.reduce_sum(query * tf.gather(item, own))

    def step(loss: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
        @tf.function(autograph=False)
        def run() -> tf.Tensor:
            with tf.GradientTape() as tape:
                total = loss()
            gradients = tape.gradient(total, model.trainable_variables)
            adam.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return total

        return run

    @tf.function(autograph=False)
    def forward() -> tf.Tensor:
        return tf.add_n([tf.reduce_sum(vectors) for vectors in towers()])

    query, item = towers()

    @tf.function(autograph=False)
    def loss_alone() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch([query, item])
            total = in_batch.softmax_loss(
                query, item, own, weights=weights, multiplicity=tf.cast(repeats, tf.float32)
            ).total
        return tf.add_n([tf.reduce_sum(g) for g in tape.gradient(total, [query, item])])

    parts = {
        "whole step": step(whole),
        "without the loss": step(without_loss),
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
