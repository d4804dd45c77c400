"""Does the model rank cold-start films, by genres and year, better than chance?

    python benchmarks/cold_items.py --seeds 1 2 3

A random tenth of the films is removed from training. The targets are the users' ratings of these
films, and only these films are ranked, so chance is k / (number of these films). The results are
written to benchmarks/results/cold_items.json.
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

from workflows.ground import device as devices

RESULTS = Path(__file__).parent / "results" / "cold_items.json"
K = 10
SHARE = 0.1


def main() -> None:
    """Run each setting with each seed, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    device = devices.choose()
    table = {
        f"id_dropout {rate}": [measure(seed, rate, device) for seed in seeds]
        for rate in (0.0, 0.05)
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    for name, runs in table.items():
        means = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        print(name, {key: round(mean, 4) for key, mean in means.items()})


def measure(seed: int, id_dropout: float, device: devices.Device) -> dict[str, float]:
    """Remove films from training, train, and rank them for the users who rated them."""
    import tensorflow as tf

    from models.core import metrics
    from models.training.two_tower import TwoTower
    from workflows import recipe as recipes
    from workflows.etl import etl
    from workflows.stages.etl import Prepared
    from workflows.stages.store import Store
    from workflows.stages.train import load_model
    from workflows.train import train

    path = recipes.find("movielens-100k")
    base = recipes.load(path)
    raw = (path.parent / base.data).resolve()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        _split(raw, data, seed)
        split = "{kind: given, valid: valid, test: test}"
        files = {"ratings": "train.inter", "valid": "valid.inter", "test": "test.inter"}
        source = json.dumps(base.to_dict()["sources"]["ratings"])
        settings = [f"split={split}", f"model.id_dropout={id_dropout}", f"train.seed={seed}"]
        settings += [f"sources.{name}={source}" for name in files]
        settings += [f"sources.{name}.files={file}" for name, file in files.items()]
        recipe = recipes.load(path, settings)
        store = Store(data / "run")
        etl(recipe, store, device, data=data)
        tf.keras.backend.clear_session()
        train(recipe, store, device)
        prepared = Prepared.open(store, recipe)
        model = TwoTower.of(load_model(store, recipe, prepared), prepared.users, prepared.items)
        evaluation_set = prepared.evaluation_set("test", recipe.evaluate)
        assert evaluation_set is not None
        cold = prepared.item_counts == 0
        top = model.top_k(evaluation_set.queries, K, candidates=cold)
        found = metrics.find_ranks(top.items, evaluation_set.targets, scores=top.scores)
        figures = metrics.per_user(found, evaluation_set.targets, (K,))
        return {
            "recall@10": float(figures[f"recall@{K}"].mean()),
            "chance": K / int(cold.sum()),
            "users": len(evaluation_set.queries),
        }


def _split(raw: Path, data: Path, seed: int) -> None:
    """Write train, valid (last other event of each user) and test (all events of cold films)."""
    for name in ("ml-100k.user", "ml-100k.item"):
        (data / name).symlink_to(raw / name)
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


if __name__ == "__main__":
    main()
