"""Time from raw parquet to encoded parquet: this package, NVTabular and polars.

    python benchmarks/etl.py [--rows 1000000 10000000] [--repetitions 5]

The parquet file has the sixteen categorical columns of benchmarks/workload.py as int64, a time, and
a click for half of the rows. Each program keeps the rows with clicks, gives the values of each
column codes by falling count, and writes int32 parquet and the vocabularies. Each also does
something else:

- ours: `two-tower etl` sorts by time, and writes tables of users and items as of the cut, schemas,
  a report with the SHA-256 of the raw file, and a manifest. It treats values as text.
- NVTabular: Categorify on all columns, and the filter last, as in its notebook. It has no tables.
- polars: our own program, which filters first. It has the same order, ties, tables, row numbers and
  hash as ours, but no schemas, shares of unseen values or manifest. It treats values as numbers.

Each program runs in its own process, alternately; imports are not counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import DATA, Peer, machine, median, run_alternately, table, write
from workload import columns, make

PEERS = [
    Peer("ours", "ours", "etl_ours.py"),
    Peer("NVTabular", "ours", "etl_nvtabular.py"),
    Peer("polars", "polars", "etl_polars.py"),
]


def main() -> None:
    """Run each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    facts, results, rows = machine(), {}, []
    for n in options.rows:
        place = raw(n, options.items)
        runs = results[f"{n} rows"] = run_alternately(PEERS, options.repetitions, "--data", place)
        write("etl", facts, results)
        ours = median(runs["ours"], "seconds") or 0.0
        for name, of in runs.items():
            seconds, peak = median(of, "seconds"), median(of, "peak_mib")
            if seconds is None:
                rows.append([f"{n:,}", name, of[0]["failed"], "", ""])
            else:
                told = [f"{seconds:.1f}", f"{seconds / ours:.2f}", f"{peak or 0:,.0f}"]
                rows.append([f"{n:,}", name, *told])
    print(table(["rows", "", "seconds", "times ours", "peak MiB"], rows))


def raw(n_rows: int, n_items: int) -> Path:
    """Write log.parquet, unless it exists, and return its folder."""
    place = make(DATA, n_rows=n_rows, n_items=n_items)
    if not (place / "log.parquet").is_file():
        draw = np.random.default_rng(2)
        made = {name: values.astype(np.int64) for name, values in columns(place)[0].items()}
        made["click"] = draw.integers(0, 2, n_rows)
        made["time"] = 1_600_000_000 + np.arange(n_rows) // 10
        pq.write_table(pa.table(made), place / "log.parquet")
    return place


if __name__ == "__main__":
    main()
