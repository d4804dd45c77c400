"""The same by hand in polars: filter, count each column, number its values, look them up, write."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import polars as pl
from peers.pace import arguments, peak
from workload import USER, item_columns


def main() -> None:
    """Filter first, as polars would; codes by falling count, ties by value, from 3."""
    options = arguments(__doc__)
    folder = options.data / "polars"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.perf_counter()
    columns = [*USER, *item_columns(0)]
    log = pl.scan_parquet(options.data / "log.parquet").filter(pl.col("click") != 0)
    log = log.select(*columns, "time").collect()
    encoded = {}
    for name in columns:
        counts = log[name].value_counts(name="count")
        # ours orders ties by the text of the value
        counts = counts.with_columns(pl.col(name).cast(pl.String).alias("text"))
        counts = counts.sort(["count", "text"], descending=[True, False])
        codes = counts.with_row_index("code", offset=3).select(
            name, pl.col("code").cast(pl.Int32), "count"
        )
        codes.write_parquet(folder / f"{name}.parquet", compression="snappy")
        found = log.select(name).join(codes.select(name, "code"), on=name, how="left")
        encoded[name] = found["code"].fill_null(2).alias(name)
    out = pl.DataFrame([*encoded.values(), log["time"]]).sort("time", maintain_order=True)
    out.write_parquet(folder / "train.parquet", compression="snappy")
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": round(seconds, 2), "rows": len(out), "peak_mib": peak()}))


if __name__ == "__main__":
    main()
