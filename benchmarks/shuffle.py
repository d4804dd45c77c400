"""Recall on MovieLens-100K of a full shuffle, and of shuffles within windows of a few partitions.

    python benchmarks/shuffle.py [--partitions 32] [--windows 32 4 1] [--seeds 1 2 3]

Training rows are divided by user into partitions, as etl divides a large log. An epoch takes the
partitions in a random order, so many at a time as a window holds, and shuffles the rows of a
window. A window of all partitions is the full shuffle. Each fit is measured on the test part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import DATA, machine, table, write

from workflows.ground import device as devices

device = devices.choose("cpu")

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.columns import USER_ROW
from models.core.partitions import ParquetPartitions
from models.training.two_tower import TwoTower
from workflows import recipe as recipes
from workflows.etl import etl
from workflows.model_kinds.protocol import build_fresh
from workflows.model_kinds.two_tower import TwoTowers
from workflows.stages.etl import EtlFiles, Prepared
from workflows.stages.store import Store


def main() -> None:
    """Fit with each window and each seed, and print mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="pool")
    parser.add_argument("--partitions", type=int, default=32)
    parser.add_argument("--windows", type=int, nargs="+", default=[32, 4, 1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    store = Store(DATA / "shuffle")
    path = recipes.find("movielens-100k")
    recipe = recipes.load(path, variant=options.variant)
    etl(recipe, store, device, data=(path.parent / recipe.data).resolve())
    prepared = Prepared.open(store, recipe)
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        divide(prepared, EtlFiles(Path(folder)), options.partitions)
        divided = _Divided(prepared.folder, recipe, Path(folder))
        for seed in options.seeds:
            for size in options.windows:
                found = measure(divided, seed, size / options.partitions)
                results.setdefault(f"{size} of {options.partitions}", []).append(found)
                print(seed, size, found, flush=True)
    write("shuffle", machine(), results)
    rows = []
    for name, of in results.items():
        cells = [[one[metric] for one in of] for metric in METRICS]
        rows.append([name, *(f"{np.mean(c):.4f} ± {np.std(c):.4f}" for c in cells)])
    print(table(["partitions in a window", *METRICS], rows))


METRICS = ("recall@10", "ndcg@10", "epochs")


class _Divided(Prepared):
    """An etl stage whose training rows are read from partitions by user."""

    def __init__(self, folder: Path, recipe: recipes.Recipe, divided: Path) -> None:
        super().__init__(folder, recipe)
        object.__setattr__(self, "divided", EtlFiles(divided))

    def partitions(self, name: str, columns: list[str]) -> ParquetPartitions:
        """Return the partitions of the training rows."""
        return ParquetPartitions(self.divided.partitions(name), columns)  # type: ignore[attr-defined]


def divide(prepared: Prepared, files: EtlFiles, count: int) -> None:
    """Write the training rows as partitions by user, with one file each."""
    rows = pq.read_table(prepared.files.parts("train"))
    users = rows[USER_ROW].to_numpy()
    of = np.random.default_rng(0).integers(0, count, users.max() + 1)[users]
    files.table("train").mkdir(parents=True)
    for number in range(count):
        pq.write_table(rows.filter(pa.array(of == number)), files.part("train", number))
    files.partition_sizes("train").write_bytes(msgspec.json.encode([1] * count))


def measure(prepared: _Divided, seed: int, share: float) -> dict[str, float]:
    """Fit with windows that hold a share of the rows, and measure on the test part."""
    recipe = prepared.recipe
    recipe = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, seed=seed))
    models = TwoTowers(_Divided(prepared.folder, recipe, prepared.divided.folder))
    model = build_fresh(models, "")
    fit = models.fit(model, models.judge(), lines=False)
    total = fit.batches.rows.n_bytes.sum()
    # the partitions are not equally large
    fit.batches.window_bytes = None if share == 1 else int(share * total * 1.1)
    fit.batches.start_epoch(0)
    print(len(fit.batches.windows), "windows", flush=True)
    fit.run()
    evaluation_set = prepared.evaluation_set("test", recipe.evaluate)
    assert evaluation_set is not None
    found = evaluation_set.per_user(TwoTower.of(model, prepared.users, prepared.items), [10])
    means = {name: float(found[name].mean()) for name in METRICS[:2]}
    return {**means, "epochs": float(len(fit.clock.epochs))}


if __name__ == "__main__":
    main()
