"""Compare the four systems of the Babyshop recipe on the same split and candidates.

    python benchmarks/babyshop.py [--data data/babyshop]

Without the real files, the small synthetic sample is used. The figures are shares of rows whose
item is among the first k. There are three blocks: test rows with the items of training as
candidates and seen items kept; test rows with all items as candidates and seen items left out; and
training rows. The results are written to benchmarks/results/babyshop.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import machine, table, write

from workflows import recipe as recipes
from workflows.ground import device as devices
from workflows.recipe import Recipe
from workflows.stages.store import Store

SYSTEMS = ("popularity", "", "content", "hybrid")
#: Block of the report → its name in the table.
BLOCKS = {
    "per_row": "test, seen items kept",
    "catalogue_seen_excluded": "test, seen items left out, whole catalogue",
    "train_rows": "the training rows",
}


def main() -> None:
    """Run each system, then print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the raw files")
    given = parser.parse_args().data
    device = devices.choose()
    with tempfile.TemporaryDirectory() as folder:
        data = given or _sample(Path(folder) / "raw")
        found = {name or "simple": measure(name, data, Path(folder), device) for name in SYSTEMS}
    ks = recipes.load(recipes.find("babyshop")).evaluate.ks
    write("babyshop", machine(), found)
    rows = [
        [system, told, *(_cell(of[block][f"recall@{k}"]) for k in ks)]
        for block, told in BLOCKS.items()
        for system, of in found.items()
    ]
    print(table(["system", "rows", *(f"top {k}" for k in ks)], rows))


def _sample(folder: Path) -> Path:
    from samples import sample

    return sample("babyshop", "small", folder).folder


def measure(
    variant: str, data: Path, folder: Path, device: devices.Device
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of a system: block → metric → mean and standard error."""
    from workflows.etl import etl
    from workflows.evaluate import evaluate
    from workflows.train import train

    path = recipes.find("babyshop")
    recipe: Recipe = recipes.load(path, ["evaluate.baselines=[]"], variant=variant)
    store = Store(folder / recipe.name)
    etl(recipe, store, device, data=data)
    train(recipe, store, device)
    report = evaluate(recipe, store, device).report
    return {
        block: {
            name: {"mean": figure.mean, "standard_error": figure.standard_error or 0.0}
            for name, figure in report.beside[block].metrics[report.ours].items()
        }
        for block in BLOCKS
    }


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}"


if __name__ == "__main__":
    main()
