"""This package on the generated log: towers, loss, optimiser and Keras fit as in `train`.

`--option plain` computes the loss in one block, with repeated items as separate columns, so that
the B x B matrices are kept, as by other packages. `dim=32` changes the width of the last layers
from 64.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from peers.pace import Pace, arguments

from workflows.ground import device

device.choose("cpu")

import numpy as np
import workload
from merlin.schema import ColumnSchema, Schema, Tags
from peers.watch import Watch

from models.core.partitions import PartitionInMemory
from models.core.retriever import Ragged
from models.losses import in_batch
from models.losses.config import LossConfig
from models.losses.negatives import TrainingFacts
from models.losses.sampled_loss import SampledLoss
from models.towers.config import TwoTowerConfig
from models.training.batches import Batches
from models.training.config import OptimizerConfig, TrainConfig
from models.training.fit import Fit
from models.training.row_batches import RowLoader
from models.training.two_tower import Model, build

LOSS = LossConfig(kind="in_batch", mask="item")


@dataclass(frozen=True)
class World:
    """A built model and its data.

    Attributes:
        model: the model, with initial weights.
        train: the encoded clicks.
        users: the encoded user table.
        items: the encoded item table.
        seen: item rows of each user.
    """

    model: Model
    train: dict[str, np.ndarray]
    users: dict[str, np.ndarray]
    items: dict[str, np.ndarray]
    seen: Ragged


def world(
    data: Path,
    batch: int,
    *,
    dim: int = 64,
    loss: LossConfig = LOSS,
) -> World:
    """Return the model of this benchmark and its data; `dim` is the width of the last layers."""
    users, items, rows = workload.load(data)
    columns, sizes = workload.columns(data)
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
    seen = Ragged.from_pairs(rows["user"], rows["item"], n_lists=len(users["user_id"]))
    counts = np.bincount(rows["item"], minlength=n_items)
    towers = TwoTowerConfig(
        dim="infer",
        combine="concat",
        query_layers=(128, dim),
        item_layers=(128, dim),
        item_bias=False,
        dropout=0.0,
    )
    model = build(schema, towers, loss, TrainingFacts(counts, items, batch, 1), seed=1)
    train = {**columns, "user_row": rows["user"], "item_row": rows["item"]}
    return World(model, train, users, items, seen)


def main() -> None:
    """Fit until the time is over."""
    options = arguments(__doc__)
    kind, _, dim = options.option.partition("dim=")
    made = world(options.data, options.batch, dim=int(dim or 64))
    if kind == "plain":
        in_batch.softmax_loss.__kwdefaults__["block_scores"] = (1 << 31) - 1
        loss = next(layer for layer in made.model.submodules if isinstance(layer, SampledLoss))
        loss.merged = False
    config = TrainConfig(batch_size=options.batch, epochs=100)
    loader = RowLoader(made.model.schema.column_names)
    rows = PartitionInMemory(made.train)
    batches = Batches(rows, loader, batch_size=config.batch_size, seed=config.seed)
    fit = Fit(made.model, batches, config, OptimizerConfig(lr=0.001), None)
    pace = Pace(options.warmup, options.seconds)
    fit.run([Watch(pace, options.batch)])
    pace.print_result()


def tag(name: str) -> Tags:
    """Return the tag of a column: user or item."""
    ids = {"user_id": Tags.USER_ID, "item_id": Tags.ITEM_ID}
    return ids.get(name, Tags.USER if name.startswith("user") else Tags.ITEM)


if __name__ == "__main__":
    main()
