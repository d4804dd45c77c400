"""Time and memory of etl by the number of rows of a generated log.

    python benchmarks/etl_rows.py [--rows 3000000 30000000 300000000] [--memory-limit 2GiB]

A row has a user, an item and a time, as int64 in parquet files of ten million rows. There are as
many users as a twentieth of the rows, and half a million items, whose rows follow Zipf's law. Rows
are in order of time, and the last two rows of each user are withheld. The peak memory is that of
the process and all its children. Files and run are deleted afterwards, except with --keep.

If time grows as a power of the number of rows, the exponent is that of the last column; the target
is at most 1.1.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import DATA, machine, table, write
from etl_scale import run_and_measure

#: Rows of a raw file, and items of the catalogue.
FILE, ITEMS = 10_000_000, 500_000
RECIPE = """\
name: rows
data: .
sources: {log: {files: "log-*.parquet"}}
interactions: log
split: {kind: leave_last, valid: 1, test: 1}
features:
  user: {role: user, id: true, input: false}
  item: {role: item, id: true}
  time: {role: time, unit: s}
"""


def main() -> None:
    """Write each log, run etl on it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[3_000_000, 30_000_000, 300_000_000])
    parser.add_argument("--memory-limit", default="2GiB")
    parser.add_argument("--keep", action="store_true", help="Keep the files and the run.")
    options = parser.parse_args()
    facts, results, rows = machine(), {}, []
    before: tuple[int, float] | None = None
    for n in options.rows:
        folder, run = DATA / f"rows-{n}", DATA / f"rows-{n}-run"
        write_log(folder, n)
        words = ("--recipe", folder / "rows.yaml", "--run", run)
        found = run_and_measure("etl", *words, "--memory-limit", options.memory_limit)
        results[f"{n} rows"] = found
        seconds, cpu, peak = (found[k] for k in ("seconds", "cpu", "peak_gib"))
        exponent = ""
        if before:
            exponent = f"{math.log(cpu / before[1]) / math.log(n / before[0]):.2f}"
        rows.append([f"{n:,}", f"{seconds:.0f}", f"{cpu:.0f}", f"{peak:.2f}", exponent])
        before = (n, cpu)
        write("etl_rows", facts, results)
        if not options.keep:
            shutil.rmtree(folder)
            shutil.rmtree(run)
    print(table(["rows", "seconds", "processor seconds", "peak GiB", "exponent"], rows))


def write_log(folder: Path, n: int) -> None:
    """Write the raw files and the recipe, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.yaml").write_text(RECIPE, encoding="utf-8")
    weight = 1.0 / np.arange(1, ITEMS + 1) ** 0.8
    ends = np.cumsum(weight / weight.sum())
    for number, start in enumerate(range(0, n, FILE)):
        path = folder / f"log-{number:03d}.parquet"
        if path.is_file():
            continue
        size = min(FILE, n - start)
        draw = np.random.default_rng([n, number])
        made = {
            "user": draw.integers(0, max(1, n // 20), size),
            "item": np.searchsorted(ends, draw.random(size)),
            "time": 1_600_000_000 + (start + np.arange(size)) * 60_000_000 // n,
        }
        pq.write_table(pa.table(made), path)


if __name__ == "__main__":
    main()
