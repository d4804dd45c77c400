"""Trains two epochs of MovieLens-100K with one history encoder, without validation.

    python benchmarks/peers/encoder.py --option VARIANT [--epochs 2]

It prints rows a second of the faster epoch, the peak memory and the number of trained numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    """Run etl and two epochs, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--option", default="", help="a variant of the recipe, such as pool")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    from workflows import recipe as recipes
    from workflows.etl import etl
    from workflows.ground import device as devices
    from workflows.model_kinds.two_tower import TwoTowers
    from workflows.stages.store import Store

    path = recipes.find("movielens-100k")
    recipe = recipes.load(path, [f"train.epochs={options.epochs}"], variant=options.option)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "run")
        etl(recipe, store, devices.choose("cpu"), data=(path.parent / recipe.data).resolve())
        towers = TwoTowers.open(store, recipe)
        model = towers.build("model")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fit = towers.fit(model, None, lines=False)
        fit.run()
    fastest = min(epoch.seconds for epoch in fit.clock.epochs)
    figures = {
        "rows_per_s": fit.batches.rows_per_epoch / fastest,
        "before_mib": before / 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": sum(int(w.shape.num_elements()) for w in model.trainable_weights),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
