"""Merlin Models as in its notebook 05: V2 towers, contrastive output, its loader and fit.

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
import numpy as np
import pandas as pd
import workload
from merlin.io import Dataset
from merlin.models.tf.outputs.base import DotProduct
from merlin.schema import Tags
from peers.pace import Pace, arguments
from peers.watch import Watch

#: Columns of the user whose names do not begin with "user".
USER = ("gender", "occupation")


def world(data: Path) -> tuple[Dataset, mm.RetrievalModelV2]:
    """Return the clicks, and the model of the notebook."""
    return two_towers(*workload.columns(data))


def two_towers(
    columns: dict[str, np.ndarray], sizes: dict[str, int]
) -> tuple[Dataset, mm.RetrievalModelV2]:
    """Return encoded rows and the model of the notebook for them.

    Args:
        columns: codes, int [n_rows].
        sizes: number of codes; columns whose name begins with "user" are the user's, unless
            `USER` names them.
    """
    clicks = Dataset(pd.DataFrame(columns), cpu=True)
    for name, size in sizes.items():
        side = Tags.USER if name in USER or name.startswith("user") else Tags.ITEM
        ids = {"user_id": [Tags.USER_ID], "item_id": [Tags.ITEM_ID]}.get(name, [])
        domain = {"domain": {"min": 0, "max": size - 1, "name": name}}
        column = clicks.schema[name].with_tags([side, Tags.CATEGORICAL, *ids])
        clicks.schema[name] = column.with_properties(domain)
    towers = [
        mm.Encoder(
            mm.InputBlockV2(clicks.schema.select_by_tag(side)),
            mm.MLPBlock([128, 64], no_activation_last_layer=True),
        )
        for side in (Tags.USER, Tags.ITEM)
    ]
    output = mm.ContrastiveOutput(
        DotProduct(),
        negative_samplers="in-batch",
        schema=clicks.schema.select_by_tag(Tags.ITEM_ID),
    )
    return clicks, mm.TwoTowerModelV2(*towers, outputs=output, schema=clicks.schema)


def main() -> None:
    """Fit until the time is over."""
    options = arguments(__doc__)
    clicks, model = world(options.data)
    off = options.option == "no_metrics"
    metrics = [] if off else [mm.RecallAt(10), mm.NDCGAt(10)]
    model.compile(optimizer="adam", run_eagerly=False, metrics=metrics)
    pace = Pace(options.warmup, options.seconds)
    model.fit(
        mm.Loader(clicks, batch_size=options.batch),
        epochs=100,
        verbose=0,
        train_metrics_steps=0 if off else 1,
        callbacks=[Watch(pace, options.batch)],
    )
    pace.print_result()


if __name__ == "__main__":
    main()
