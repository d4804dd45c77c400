"""Ranks cold-start films by genres and year, by vectors of their texts, or by both.

    make .venv-bench-minilm/.ok
    .venv-bench-minilm/bin/python benchmarks/peers/film_texts.py \
        data/movielens-100k/ml-100k.item films.parquet
    python benchmarks/cold_items.py --vectors films.parquet --seeds 1 2 3 [--only texts …]

A random tenth of the films is removed from training. The targets are the users' ratings of these
films, and only these films are ranked, as with `evaluate.also: [{candidates: cold}]`; recall@10 is
the mean over users. The results are written to benchmarks/results/cold_items.json after every fit;
fits whose results are there are skipped, so the benchmark can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workflows.ground import device as devices

RESULTS = Path(__file__).parent / "results" / "cold_items.json"
K = 10
SHARE = 0.1
NO_GENRES = ["features.genres.input=false", "features.release_year.input=false"]
TITLE, TEXT = (
    f"features.{name}={{role: item, kind: vector, dim: 384, normalize: true}}"
    for name in ("title_vector", "text_vector")
)

IN_HISTORIES = "model.history_content=true"
IN_BATCH = "loss.kind=in_batch"  # in place of the softmax over all films, cold ones included

#: Name of a setting → changes of the recipe movielens-100k:pool, in which users have attributes,
#: and a history is the weighted mean of its items.
SETTINGS: dict[str, list[str]] = {
    "genres and year": [],
    "vectors of texts": [*NO_GENRES, TEXT],
    "genres and year, vectors of texts": [TEXT],
    "vectors of texts, in histories too": [*NO_GENRES, TEXT, IN_HISTORIES],
    "genres and year, in histories too": [IN_HISTORIES],
    "genres and year, in-batch negatives": [IN_BATCH],
    "vectors of texts, in histories too, in-batch negatives": [
        *NO_GENRES,
        TEXT,
        IN_HISTORIES,
        IN_BATCH,
    ],
    "vectors of titles": [*NO_GENRES, TITLE],
    "vectors of texts, no id dropout": [*NO_GENRES, TEXT, "model.id_dropout=0"],
    "genres and year, no id dropout": ["model.id_dropout=0"],
}


def main() -> None:
    """Run the fits that have no results yet, then print the means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="*", default=SETTINGS, help="names of settings")
    options = parser.parse_args()
    device = devices.choose()
    done = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for seed in options.seeds:
        for name in options.only:
            if str(seed) not in done.setdefault(name, {}):
                done[name][str(seed)] = measure(seed, SETTINGS[name], options.vectors, device)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(done, indent=1) + "\n")
                print(name, seed, done[name][str(seed)], flush=True)
    for name, runs in done.items():
        means = {
            key: statistics.mean(run[key] for run in runs.values()) for key in ("cold", "warm")
        }
        print(f"{name} ({len(runs)} seeds)", {key: round(mean, 4) for key, mean in means.items()})


def measure(
    seed: int, settings: list[str], vectors: Path, device: devices.Device
) -> dict[str, float]:
    """Remove films from training, train, and rank them for the users who rated them."""
    import tensorflow as tf

    from models.core.config import ListRules
    from models.training.two_tower import TwoTower
    from workflows import recipe as recipes
    from workflows.etl import etl
    from workflows.stages.etl import Prepared
    from workflows.stages.store import Store
    from workflows.stages.train import load_model
    from workflows.train import train

    path = recipes.find("movielens-100k")
    base = recipes.load(path, variant="pool")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        _write_split((path.parent / base.data).resolve(), data, seed)
        _write_films((path.parent / base.data).resolve(), data, vectors)
        split = "{kind: given, valid: valid, test: test}"
        files = {"ratings": "train.inter", "valid": "valid.inter", "test": "test.inter"}
        source = json.dumps(base.to_dict()["sources"]["ratings"])
        changes = [f"split={split}", f"train.seed={seed}", *settings]
        changes += [f"sources.{name}={source}" for name in files]
        changes += [f"sources.{name}.files={file}" for name, file in files.items()]
        changes += ["sources.items.files=films.parquet", "sources.items.format=parquet"]
        recipe = recipes.load(path, changes, variant="pool")
        store = Store(data / "run")
        etl(recipe, store, device, data=data)
        tf.keras.backend.clear_session()
        fitted = train(recipe, store, device).first
        prepared = Prepared.open(store, recipe)
        model = TwoTower.of(load_model(store, recipe, prepared), prepared.users, prepared.items)
        cold = prepared.evaluation_set("test", ListRules(candidates="cold"))
        assert cold is not None
        return {
            "cold": float(cold.per_user(model, (K,))[f"recall@{K}"].mean()),
            "chance": cold.chance(K),
            "warm": fitted.best.metrics[f"val_recall@{K}"],
            "epoch": fitted.best.epoch,
        }


def _write_split(raw: Path, data: Path, seed: int) -> None:
    """Write train, valid (last other event of each user) and test (all events of cold films)."""
    (data / "ml-100k.user").symlink_to(raw / "ml-100k.user")
    head, *rows = (raw / "ml-100k.inter").read_text().splitlines()
    films = sorted({row.split("\t")[1] for row in rows})
    rng = np.random.default_rng(seed)
    cold = set(rng.choice(films, int(len(films) * SHARE), replace=False))
    rows.sort(key=lambda row: float(row.split("\t")[3]))
    warm = [row for row in rows if row.split("\t")[1] not in cold]
    last = {row.split("\t")[0]: row for row in warm}
    parts = {
        "train": [row for row in warm if last[row.split("\t")[0]] is not row],
        "valid": list(last.values()),
        "test": [row for row in rows if row.split("\t")[1] in cold],
    }
    for name, part in parts.items():
        (data / f"{name}.inter").write_text("\n".join([head, *part]) + "\n")


def _write_films(raw: Path, data: Path, vectors: Path) -> None:
    """Write the film table with the vectors of the films beside their other columns."""
    head, *rows = (raw / "ml-100k.item").read_text().splitlines()
    cells = zip(*(row.split("\t") for row in rows), strict=True)
    films = pa.table(dict(zip(head.split("\t"), map(list, cells), strict=True)))
    found = pq.read_table(vectors)
    assert found["item_id"].to_pylist() == films["item_id:token"].to_pylist()
    for name in ("title", "text"):
        films = films.append_column(f"{name}_vector", found[name])
    pq.write_table(films, data / "films.parquet")


if __name__ == "__main__":
    main()
