"""Generates the training rows of a large log as the etl stage writes them: partitions by user.

    python benchmarks/log_on_disk.py FOLDER [--rows 300000000] [--users 3000000] [--items 100000]

Each row has eight columns: the rows of its user and its item in their tables, and the codes of four
features of the user and two of the item. The items follow Zipf's law. 300 million rows take about
6 GB.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.columns import ITEM_ROW, USER_ROW
from workflows.stages.etl import EtlFiles

#: Feature → number of codes; ids have as many as their table has rows.
USER_FEATURES = {"user_age": 9, "user_gender": 4, "user_geography": 60}
ITEM_FEATURES = {"item_category": 1_000}
#: Number of rows of a part file, and of part files of a partition.
_PART, _FILES = 1 << 18, 4


def features(n_users: int, n_items: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the encoded columns of the user table and the item table."""
    rng = np.random.default_rng(1)
    users = {"user_id": np.arange(n_users, dtype=np.int32)}
    users |= {n: rng.integers(0, k, n_users, np.int32) for n, k in USER_FEATURES.items()}
    items = {"item_id": np.arange(n_items, dtype=np.int32)}
    items |= {n: rng.integers(0, k, n_items, np.int32) for n, k in ITEM_FEATURES.items()}
    return users, items


def generate(folder: Path, *, n_rows: int, n_users: int, n_items: int) -> None:
    """Write the part files of the training rows; a user's rows are in one partition."""
    files = EtlFiles(folder)
    files.table("train").mkdir(parents=True)
    users, items = features(n_users, n_items)
    weight = 1.0 / np.arange(1, n_items + 1) ** 0.8
    popular = np.searchsorted(
        np.cumsum(weight / weight.sum()), (np.arange(1 << 20) + 0.5) / (1 << 20)
    )
    n_parts = -(-n_rows // _PART)
    n_partitions = -(-n_parts // _FILES)
    for number in range(n_parts):
        rng = np.random.default_rng([1, number])
        size = min(_PART, n_rows - number * _PART)
        user = number // _FILES + n_partitions * rng.integers(0, n_users // n_partitions, size)
        item = popular[rng.integers(0, len(popular), size)]
        columns = {USER_ROW: user.astype(np.int32), ITEM_ROW: item.astype(np.int32)}
        columns |= {name: values[user] for name, values in users.items()}
        columns |= {name: values[item] for name, values in items.items()}
        pq.write_table(
            pa.table(columns),
            files.part("train", number),
            row_group_size=_PART // 2,
            use_dictionary=[*USER_FEATURES, *ITEM_FEATURES],
        )
    sizes = [min(_FILES, n_parts - start) for start in range(0, n_parts, _FILES)]
    files.partition_sizes("train").write_text(json.dumps(sizes))
    facts = {"n_rows": n_rows, "n_users": n_users, "n_items": n_items}
    (folder / "facts.json").write_text(json.dumps(facts))


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300_000_000)
    parser.add_argument("--users", type=int, default=3_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    generate(options.folder, n_rows=options.rows, n_users=options.users, n_items=options.items)


if __name__ == "__main__":
    main()
