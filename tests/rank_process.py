"""One rank of small trainings of the toy world, as a process; see test_collectives.py.

python rank_process.py RANK ADDRESS[,ADDRESS] FOLDER writes the losses and weights of each case.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf

from models.core.collectives import ALONE, Collectives
from models.encoders.config import AttentionConfig
from models.losses.config import LossConfig
from models.training.collectives import connect
from models.training.config import OptimizerConfig, TrainConfig


class Case(NamedTuple):
    """A small training; its last batch has one row, so that one of two ranks has none of it."""

    columns: tuple[str, ...]
    loss: LossConfig
    rates: OptimizerConfig = OptimizerConfig(lr=0.01)
    towers: Mapping[str, object] = MappingProxyType({})
    in_sequences: bool = False


CASES = {
    "full": Case(("history_item_id", "item_id", "genres"), LossConfig(kind="full")),
    "in_batch": Case(("user_id", "item_id", "group"), LossConfig(kind="in_batch", mask="none")),
    # Adagrad, because the bias of the last layer has no gradient but rounding, which Adam enlarges
    "mixed": Case(
        ("user_id", "history_item_id", "item_id", "group", "price"),
        LossConfig(kind="mixed", negatives=20, reduction="sum"),
        OptimizerConfig(kind="adagrad", lr=0.05),
        {"query_layers": (16, 8), "item_layers": (16, 8), "item_bias": True},
    ),
    "sequences": Case(
        ("history_item_id", "item_id"),
        LossConfig(kind="in_batch"),
        OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.01),
        {"encoder": AttentionConfig(dropout=0.0)},
        in_sequences=True,
    ),
}


def main(rank: int, addresses: list[str], folder: Path) -> None:
    """Run every case."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    collectives: Collectives = connect(addresses, rank) if len(addresses) > 1 else ALONE
    # these run TensorFlow, which can be done only after the ranks are connected
    from toy_towers import toy_towers

    from models.training.fit import Fit

    toy = toy_towers()
    for name, case in CASES.items():
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(1)
        tf.config.experimental.enable_op_determinism()
        model = toy.build(*case.columns, loss=case.loss, **case.towers)
        batches = toy.sequences(model) if case.in_sequences else toy.batches(model, batch_size=60)
        train = TrainConfig(epochs=3)
        fit = Fit(model, batches, train, case.rates, judge=None, collectives=collectives)
        fit.run()
        losses = [epoch.metrics["loss"] for epoch in fit.clock.epochs]
        weights = {weight.name: weight.numpy() for weight in model.weights}
        np.savez(folder / f"{name} {rank} of {len(addresses)}.npz", losses=losses, **weights)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3]))
