"""How long raw parquet takes to become encoded parquet: this package, NVTabular, polars.

    python benchmarks/etl.py [--rows 1000000 10000000] [--repetitions 5]

The sixteen categorical columns of benchmarks/workload.py as int64, a time and a click that half of
the rows have, in one parquet file. Each of the three keeps the clicks, gives the values of each
column codes by falling count, and writes int32 parquet and the vocabularies. Besides:

- ours: `two-tower etl`: orders by time, writes the user and the item table as of the cut, schemas,
  the report with the SHA-256 of the raw file, and a signed manifest. Values are text to it.
- NVTabular: Categorify on all and the filter last, as its notebook has it; no tables.
- polars: by hand, filter first; the same order, ties, tables, row numbers and hash as ours, but no
  schemas, shares of unseen values or manifest. Values stay numbers to it.

Every contestant runs in a process of its own, in turns; imports are not counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import DATA, Peer, in_turns, machine, median, table, write
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
        runs = results[f"{n} rows"] = in_turns(PEERS, options.repetitions, "--data", place)
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
    """Write log.parquet once; return its folder."""
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
