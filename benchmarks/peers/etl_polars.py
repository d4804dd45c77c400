"""The work of etl, written directly in polars: filter, count, encode, write, and tables."""

from __future__ import annotations

import hashlib
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
    """Filter first; then give codes from 3 by falling count, ties by value."""
    options = arguments(__doc__)
    folder = options.data / "polars"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.perf_counter()
    item = list(item_columns(0))
    columns = [*USER, *item]
    log = pl.scan_parquet(options.data / "log.parquet").filter(pl.col("click") != 0)
    log = log.select(*columns, "time").collect().sort("time", maintain_order=True)
    codes = {}
    for name in columns:
        counts = log[name].value_counts(name="count")
        # as in ours, ties are in the order of the values as text
        counts = counts.with_columns(pl.col(name).cast(pl.String).alias("text"))
        counts = counts.sort(["count", "text"], descending=[True, False])
        codes[name] = counts.with_row_index("code", offset=3).select(
            name, pl.col("code").cast(pl.Int32), "count"
        )
        codes[name].write_parquet(folder / f"{name}.parquet", compression="snappy")
    out = encode(log, codes).with_columns(log["time"])
    for key, names, row in (("user_id", list(USER), "user_row"), ("item_id", item, "item_row")):
        # for each id: its columns at its last row, its count, and its row number for the log
        table = log.group_by(key).agg(pl.col(names[1:]).last(), pl.len().alias("train_count"))
        table = table.sort(pl.col(key).cast(pl.String))
        texts = table.with_columns(pl.col(names).cast(pl.String))
        texts.write_parquet(folder / f"{key}s_raw.parquet", compression="snappy")
        encode(table.select(names), codes).write_parquet(
            folder / f"{key}s.parquet", compression="snappy"
        )
        numbered = table.select(key).with_row_index(row)
        out = out.with_columns(log.select(key).join(numbered, on=key, how="left")[row])
    out.write_parquet(folder / "train.parquet", compression="snappy")
    with (options.data / "log.parquet").open("rb") as file:
        hashlib.file_digest(file, "sha256")
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": round(seconds, 2), "rows": len(out), "peak_mib": peak()}))


def encode(table: pl.DataFrame, codes: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the codes of all columns of a table; 2 for a value without a code."""
    found = []
    for name, of in codes.items():
        if name in table.columns:
            looked_up = table.select(name).join(of.select(name, "code"), on=name, how="left")
            found.append(looked_up["code"].fill_null(2).alias(name))
    return pl.DataFrame(found)


if __name__ == "__main__":
    main()
