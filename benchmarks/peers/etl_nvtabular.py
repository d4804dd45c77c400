"""etl with NVTabular as in its notebook for two towers: Categorify on all columns, filter last.

Merlin models 23.6, examples/05-Retrieval-Model.ipynb: ids, user and item features get
Categorify with dtype int32 and `TagAs…`, then `Filter` on the click, `fit_transform`, `to_parquet`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

import nvtabular as nvt
import pyarrow.parquet as pq
from merlin.schema import Tags
from nvtabular.ops import (
    AddMetadata,
    Categorify,
    Filter,
    TagAsItemFeatures,
    TagAsItemID,
    TagAsUserFeatures,
    TagAsUserID,
)
from peers.pace import arguments, peak
from workload import USER, item_columns


def main() -> None:
    """Fit, transform and write, and print the time."""
    options = arguments(__doc__)
    folder = options.data / "nvtabular"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()

    def encode() -> Categorify:
        return Categorify(dtype="int32", out_path=str(folder / "categories"))

    users = [name for name in USER if name != "user_id"]
    items = [name for name in item_columns(0) if name != "item_id"]
    outputs = (
        (["user_id"] >> encode() >> TagAsUserID())
        + (["item_id"] >> encode() >> TagAsItemID())
        + (users >> encode() >> TagAsUserFeatures())
        + (items >> encode() >> TagAsItemFeatures())
        + (["click"] >> AddMetadata(tags=[Tags.BINARY_CLASSIFICATION, "target"]))
    )
    workflow = nvt.Workflow(outputs >> Filter(f=lambda frame: frame["click"] != 0))
    dataset = nvt.Dataset(str(options.data / "log.parquet"), cpu=True)
    workflow.fit_transform(dataset).to_parquet(output_path=str(folder / "train"))
    seconds = time.perf_counter() - start
    rows = sum(pq.read_metadata(path).num_rows for path in (folder / "train").glob("*.parquet"))
    print(json.dumps({"seconds": round(seconds, 2), "rows": rows, "peak_mib": peak()}))


if __name__ == "__main__":
    main()
