"""Merlin Models as its own notebook 05 has it: V2 towers, contrastive output, its loader and fit.

`--option no_metrics` turns off the metrics that the notebook computes on each step's logits.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

import merlin.models.tf as mm
import pandas as pd
import tensorflow as tf
import workload
from merlin.io import Dataset
from merlin.schema import Tags
from peers.pace import Pace, arguments


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
    columns, sizes = workload.columns(options.data)
    data = Dataset(pd.DataFrame(columns), cpu=True)
    for name, size in sizes.items():
        side = Tags.USER if name.startswith("user") else Tags.ITEM
        ids = {"user_id": [Tags.USER_ID], "item_id": [Tags.ITEM_ID]}.get(name, [])
        data.schema[name] = data.schema[name].with_tags([side, Tags.CATEGORICAL, *ids])
        domain = {"domain": {"min": 0, "max": size - 1, "name": name}}
        data.schema[name] = data.schema[name].with_properties(domain)
    schema = data.schema
    towers = [
        mm.Encoder(
            mm.InputBlockV2(
                schema.select_by_tag(side),
                categorical=mm.Embeddings(
                    schema.select_by_tag(side).select_by_tag(Tags.CATEGORICAL)
                ),
            ),
            mm.MLPBlock([128, 64], no_activation_last_layer=True),
        )
        for side in (Tags.USER, Tags.ITEM)
    ]
    model = mm.TwoTowerModelV2(
        *towers,
        outputs=mm.ContrastiveOutput(
            mm.DotProduct() if hasattr(mm, "DotProduct") else dot_product(),
            negative_samplers="in-batch",
            schema=schema.select_by_tag(Tags.ITEM_ID),
        ),
        schema=schema,
    )
    metrics = (
        {} if options.option == "no_metrics" else {"metrics": [mm.RecallAt(10), mm.NDCGAt(10)]}
    )
    if not metrics:
        metrics = {"metrics": []}
    model.compile(optimizer="adam", run_eagerly=False, **metrics)
    pace = Pace(options.warmup, options.seconds)
    loader = mm.Loader(data, batch_size=options.batch)
    more = {} if metrics["metrics"] else {"train_metrics_steps": 0}
    model.fit(loader, epochs=100, verbose=0, callbacks=[Watch(pace, options.batch)], **more)
    pace.say()


def dot_product() -> tf.keras.layers.Layer:
    """Return Merlin's score of two towers' outputs."""
    from merlin.models.tf.outputs.base import DotProduct

    return DotProduct()


if __name__ == "__main__":
    main()
