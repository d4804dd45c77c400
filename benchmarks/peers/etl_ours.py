"""`etl` of this package on the raw parquet of benchmarks/etl.py; imports are not timed."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from peers.pace import arguments, peak

from workflows import recipe
from workflows.ground import device

RECIPE = Path(__file__).parents[1] / "etl.yaml"


def main() -> None:
    """Run etl, and print the time."""
    options = arguments(__doc__)
    chosen = device.choose("cpu")
    from workflows.etl import etl
    from workflows.stages.store import Store

    folder = options.data / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    result = etl(recipe.load(RECIPE), Store(folder), chosen, data=options.data)
    seconds = time.perf_counter() - start
    rows = result.report.rows["train"]
    print(json.dumps({"seconds": round(seconds, 2), "rows": rows, "peak_mib": peak()}))


if __name__ == "__main__":
    main()
