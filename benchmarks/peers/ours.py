"""This package on the generated log: towers, loss, optimiser and Keras fit as in train.

`--option plain` takes the loss in one block: the B x B matrices are kept, as elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from peers.pace import Pace, arguments

from workflows import device

device.choose("cpu")

import numpy as np
import tensorflow as tf
import workload
from merlin.schema import ColumnSchema, Schema, Tags

from models import in_batch
from models.config import LossConfig, OptimizerConfig, TrainConfig, TwoTowerConfig
from models.fit import Fit
from models.retriever import Ragged
from models.sampled_softmax import TrainingFacts
from models.two_tower import build


class Watch(tf.keras.callbacks.Callback):
    """Stop the fit when the time is up."""

    def __init__(self, pace: Pace, batch: int) -> None:
        super().__init__()
        self.pace = pace
        self.batch = batch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count."""
        if self.pace.step(self.batch):
            self.model.stop_training = True


def main() -> None:
    """Fit until the time is up."""
    options = arguments(__doc__)
    if options.option == "plain":
        in_batch.BLOCK_SCORES = (1 << 31) - 1
        in_batch.softmax_loss.__kwdefaults__["block_scores"] = (1 << 31) - 1
    _, items, rows = workload.load(options.data)
    columns, sizes = workload.columns(options.data)
    n_items = len(items["item_id"])
    schema = Schema(
        [
            ColumnSchema(
                name,
                tags=[tag(name), Tags.CATEGORICAL],
                properties={"domain": {"min": 0, "max": size - 1, "name": name}},
                dtype=np.int32,
            )
            for name, size in sizes.items()
        ]
        + [ColumnSchema(name, dtype=np.int32) for name in ("user_row", "item_row")]
    )
    order = np.argsort(rows["user"], kind="stable")
    offsets = np.searchsorted(rows["user"][order], np.arange(workload.USER["user_id"] + 1))
    facts = TrainingFacts(
        np.bincount(rows["item"], minlength=n_items),
        Ragged(rows["item"][order], offsets),
        items,
        options.batch,
        1,
    )
    towers = TwoTowerConfig(
        dim="infer",
        combine="concat",
        query_layers=(128, 64),
        item_layers=(128, 64),
        item_bias=False,
        dropout=0.0,
    )
    loss = LossConfig(kind="in_batch", mask="item")
    model = build(schema, towers, loss, facts, seed=1)
    fit = Fit(
        model,
        {**columns, "user_row": rows["user"], "item_row": rows["item"]},
        TrainConfig(batch_size=options.batch, epochs=100),
        OptimizerConfig(lr=0.001),
        None,
    )
    pace = Pace(options.warmup, options.seconds)
    fit.run([Watch(pace, options.batch)])
    pace.say()


def tag(name: str) -> Tags:
    """Return the tag of a column's side."""
    ids = {"user_id": Tags.USER_ID, "item_id": Tags.ITEM_ID}
    return ids.get(name, Tags.USER if name.startswith("user") else Tags.ITEM)


if __name__ == "__main__":
    main()
