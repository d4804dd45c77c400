"""Training speed of an offer model, compared with a direct implementation of its formulas.

    python benchmarks/offers.py [--full] [--steps 20]

Both run alternately in one process, with the same batches, weights, loss and optimiser; the figure
is the median time of a step. The default sizes are those of `rees46:small` (batch 500, 32
dimensions, 1,447 items); `--full` takes those of the real data (batch 5040, 100 dimensions, 28,113
items).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf
from bench import machine, table, write
from merlin.schema import ColumnSchema, Schema, Tags
from restated_offers import Restated

from models.core.columns import Column, take
from models.core.retriever import Ragged
from models.offers.config import OfferModel, OffersConfig
from models.offers.keys import subsets
from models.offers.model import Model, build
from models.offers.negatives import PairLoss
from models.training.config import OptimizerConfig
from models.training.optimizer import optimizer

#: Numbers of codes of the attributes: product, three categories, brand, price cluster.
SMALL = {"product": 1_459, "c1": 19, "c2": 27, "c3": 34, "brand": 52, "price": 32}
FULL = {"product": 28_125, "c1": 26, "c2": 73, "c3": 103, "brand": 2_574, "price": 212}
#: Kind of event → length of the longest list; the mean is half of it, as in the sample.
KINDS = {"cart": 12, "purchase": 5}


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    sizes, rows = (FULL, 5040) if options.full else (SMALL, 500)
    config = OffersConfig() if options.full else OffersConfig(dim=32, layers=(32, 16))
    tf.keras.utils.set_random_seed(1)
    model = build(_schema(sizes), config, OfferModel(), list(sizes), seed=1)
    batches = [_batch(sizes, rows, seed) for seed in range(4)]
    drawn = tf.constant(subsets(len(sizes), config.mean_attributes, 1))
    slow = Restated(model, drawn, size=config.negatives + 1, versions=config.augmentations)
    steps = {"ours": _step(model, _loss(model)), "restated": _step(model, slow.loss)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for count in range(options.steps + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            loss = float(step(batches[count % len(batches)]))
            if count >= 2:  # in the first steps, TensorFlow traces
                times[name].append(time.perf_counter() - start)
            assert np.isfinite(loss), name
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = medians["restated"] / medians["ours"]
    lines = [(n, f"{m * 1000:.0f}", f"{rows / m:,.0f}") for n, m in medians.items()]
    shape = "full" if options.full else "small"
    print(table(["", "ms a step", "rows a second"], lines))
    print(f"\n{shape}: {ratio:.1f} times as fast")
    write("offers", machine(), {shape: {**medians, "ratio": ratio}})


def _loss(model: Model) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    def loss(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        prediction = model(batch, training=True)
        cross = PairLoss()(prediction.targets, prediction.outputs)
        return cross + tf.add_n(model.losses)

    return loss


def _step(
    model: Model, loss: Callable[[dict[str, tf.Tensor]], tf.Tensor]
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    rates = OptimizerConfig(kind="adamw", lr=1e-4, weight_decay=4e-8, decay="tfa")
    adam = optimizer(rates, steps=1)
    adam.build(model.trainable_variables)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = loss(batch)
        gradients = tape.gradient(total, model.trainable_variables)
        adam.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return total

    return step


def _schema(sizes: dict[str, int]) -> Schema:
    def column(name: str, of: str, *tags: Tags) -> ColumnSchema:
        domain = {"domain": {"min": 0, "max": sizes[of] - 1, "name": of}}
        made = ColumnSchema(name, tags=[*tags, Tags.CATEGORICAL], properties=domain, dtype=np.int32)
        return made.with_shape((None, None)) if Tags.SEQUENCE in tags else made

    items = [column(name, name, Tags.ITEM) for name in sizes]
    lists = [
        column(f"history_{kind}_{of}", of, Tags.USER, Tags.SEQUENCE)
        for kind in KINDS
        for of in sizes
    ]
    return Schema([*items, *lists, ColumnSchema("user_row", dtype=np.int32)])


def _batch(sizes: dict[str, int], n: int, seed: int) -> dict[str, tf.Tensor]:
    """Return a batch with values of Zipf's distribution, and lists of random lengths."""
    draw = np.random.default_rng(seed)

    def codes(of: str, many: int) -> np.ndarray:
        return ((draw.zipf(1.3, many) - 1) % sizes[of]).astype(np.int32)

    columns: dict[str, Column] = {name: codes(name, n) for name in sizes}
    columns["user_row"] = draw.integers(0, n, n).astype(np.int32)
    for kind, longest in KINDS.items():
        offsets = np.concatenate([[0], np.cumsum(draw.integers(0, longest + 1, n))])
        for name in sizes:
            columns[f"history_{kind}_{name}"] = Ragged(codes(name, int(offsets[-1])), offsets)
    return {k: tf.constant(v) for k, v in take(columns, np.arange(n)).items()}


if __name__ == "__main__":
    main()
