"""Ablation of the recipe of MovieLens-100K and of its variant `pool`: one setting is changed.

    python benchmarks/ablation.py --seeds 1 2 3 [--only in_batch …]

Protocol P2: the last event of each user is in the test part, all items are ranked, and seen items
are left out. The epoch is chosen on the validation part. The results are written to
benchmarks/results/ablation.json after every fit; fits whose results are there are skipped, so the
benchmark can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from workflows.ground import device as devices

RESULTS = Path(__file__).parent / "results" / "ablation.json"
RUNS = Path("runs/ablation")
ATTRIBUTES = ("age", "gender", "occupation", "release_year", "genres")

#: Name of a change → the settings that differ from the recipe.
ATTENTION: dict[str, list[str]] = {
    "attention (the recipe)": [],
    "attention without times": ["features.timestamp.unit=order"],
    "attention without the weighted mean": ["model.encoder.decay=null"],
    "attention, two blocks": ["model.encoder.blocks=2"],
    "attention, item dropout 0.2": ["model.item_dropout=0.2"],
    "attention, in-batch": ["loss.kind=in_batch"],
    "attention, mixed negatives": ["loss.kind=mixed"],
    "attention with the attributes": [f"features.{name}.input=true" for name in ATTRIBUTES],
    "attention with the attributes, also in histories": [
        *(f"features.{name}.input=true" for name in ATTRIBUTES),
        "model.history_content=true",
    ],
}
#: Name of a change → the settings that differ from the recipe's variant `pool`.
POOL: dict[str, list[str]] = {
    "pool (the variant)": [],
    "in-batch softmax, logQ, user mask": ["loss.kind=in_batch"],
    "in-batch without logQ": ["loss.kind=in_batch", "loss.logq=false"],
    "in-batch, masking equal items only": ["loss.kind=in_batch", "loss.mask=item"],
    "in-batch, products in bfloat16": ["loss.kind=in_batch", "loss.precision=bfloat16"],
    "mixed negatives (512 + 1024 uniform)": ["loss.kind=mixed"],
    "no user mask": ["loss.mask=item"],
    "no history, user id instead": ["history=null", "features.user_id.input=true"],
    "no item bias": ["model.item_bias=false"],
    "no dropout": ["model.dropout=0"],
    "id dropout 0.05": ["model.id_dropout=0.05"],
    "L2-normalised, T 0.1": ["model.normalize=true", "loss.temperature=0.1"],
    "concat and MLP 128-64": [
        "model.combine=concat",
        "model.query_layers=[128, 64]",
        "model.item_layers=[128, 64]",
    ],
    "no features but the ids": [f"features.{name}.input=false" for name in ATTRIBUTES],
    "histories with the attributes": ["model.history_content=true"],
    "all rows of every user each epoch": ["train.max_rows_per_user=null"],
    "raw Merlin recipe (notebook 05)": [
        "history=null",
        "features.user_id.input=true",
        "model.combine=concat",
        "model.query_layers=[128, 64]",
        "model.item_layers=[128, 64]",
        "model.item_bias=false",
        "model.dropout=0",
        "loss.kind=in_batch",
        "loss.logq=false",
        "loss.mask=item",
        "optimizer.lr=0.001",
        "train.batch_size=4096",
        "train.max_rows_per_user=null",
        "train.epochs=3",
    ],
}


def main() -> None:
    """Run the fits that have no results yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--only", nargs="*", help="only changes whose names contain one of these words"
    )
    options = parser.parse_args()
    device = devices.choose()
    levers = ATTENTION | POOL
    names = [n for n in levers if not options.only or any(w in n for w in options.only)]
    done = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for seed in options.seeds:
        for name in names:
            if str(seed) not in done.setdefault(name, {}):
                variant = "pool" if name in POOL else ""
                settings = [*levers[name], f"train.seed={seed}"]
                done[name][str(seed)] = measure(settings, variant, device)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(done, indent=1) + "\n")
                print(name, seed, done[name][str(seed)], flush=True)
    print_table(done)


def measure(settings: list[str], variant: str, device: devices.Device) -> dict[str, float]:
    """Train once and return the metrics of the test part."""
    import tensorflow as tf

    from models.training.two_tower import TwoTower
    from workflows import recipe as recipes
    from workflows.etl import etl
    from workflows.stages.etl import Prepared
    from workflows.stages.store import Store
    from workflows.stages.train import load_model
    from workflows.train import train

    path = recipes.find("movielens-100k")
    recipe = recipes.load(path, settings, variant=variant)
    store = Store(RUNS)
    etl(recipe, store, device, data=(path.parent / recipe.data).resolve())
    tf.keras.backend.clear_session()
    begin = time.perf_counter()
    fitted = train(recipe, store, device).first
    seconds = time.perf_counter() - begin
    prepared = Prepared.open(store, recipe)
    model = TwoTower.of(load_model(store, recipe, prepared), prepared.users, prepared.items)
    evaluation_set = prepared.evaluation_set("test", recipe.evaluate)
    assert evaluation_set is not None
    figures = evaluation_set.per_user(model, (10, 20, 100))
    kept = ("recall@10", "recall@20", "recall@100", "ndcg@10")
    return {
        **{name: round(float(figures[name].mean()), 5) for name in kept},
        "valid recall@10": round(fitted.best.metrics["val_recall@10"], 5),
        "seconds": round(seconds, 1),
        "epochs": fitted.epochs,
    }


def print_table(done: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print means and standard deviations over the seeds as a Markdown table."""
    columns = ("recall@10", "recall@20", "ndcg@10", "valid recall@10", "seconds")
    print("| | " + " | ".join(columns) + " | seeds |")
    print("|---" * (len(columns) + 2) + "|")
    for name, runs in done.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs.values()]
            text = f"{statistics.mean(values):.4f}" if column != "seconds" else ""
            text = text or f"{statistics.mean(values):.0f}"
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(text + (spread if column != "seconds" else ""))
        print(f"| {name} | " + " | ".join(cells) + f" | {len(runs)} |")


if __name__ == "__main__":
    main()
