"""The published ablation of offer models, repeated on the sample of REES46.

    python benchmarks/ablation_offers.py --run runs/rees46-small [--seeds 1 2 3] [--only TTT FFT]

The run must have the etl stage of `rees46:small`. Each of the six combinations of blocks is trained
with each seed and measured on all tasks, as by `two-tower evaluate`. The name of a combination says
whether it has group_by, mask_net and bilinear. A fit is measured twice: after its last epoch, as in
the published notebooks, which do not stop early, and with the epoch that was best on the validation
part, as `two-tower train` does. The tables have means and standard deviations over the seeds of the
weighted AUC of all offers, and the published figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from bench import machine, table, write

from workflows.ground import device

device.choose("cpu")

from models.offers.model import InferenceModel
from models.training.callbacks import Clock
from workflows import recipe as recipes
from workflows.model_kinds.offers import OfferModels
from workflows.model_kinds.protocol import build_fresh
from workflows.offers.evaluation import task
from workflows.stages.store import Store

#: (group_by, mask_net, bilinear) → weighted AUC in `ablation rees` of the tinyclues repository.
PUBLISHED = {
    "FFF": (0.761, 0.660, 0.684, 0.670, 0.745, 0.653),
    "FFT": (0.761, 0.590, 0.621, 0.625, 0.714, 0.617),
    "TFF": (0.761, 0.721, 0.737, 0.732, 0.754, 0.682),
    "TFT": (0.767, 0.678, 0.692, 0.691, 0.751, 0.676),
    "TTF": (0.761, 0.728, 0.733, 0.727, 0.746, 0.678),
    "TTT": (0.771, 0.736, 0.740, 0.741, 0.758, 0.694),
}
#: The order of the combinations; the first are the most useful if the benchmark is interrupted.
ORDER = ["TTT", "FFT", "FFF", "TFF", "TFT", "TTF"]


def main() -> None:
    """Train and measure all combinations, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=ORDER)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    options = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {"last": {}, "best": {}}
    for seed in options.seeds:
        for name in options.only:
            start = time.perf_counter()
            for epoch, scores in _train_and_measure(
                options.run, name, seed, options.settings
            ).items():
                found[epoch].setdefault(name, []).append(scores)
                print(seed, name, epoch, {key: round(value, 3) for key, value in scores.items()})
            print(f"{time.perf_counter() - start:.0f} s", flush=True)
            write("ablation_offers", machine(), found)
    tasks = list(found["last"][options.only[0]][0])
    for epoch, models in found.items():
        rows = [
            [f"{name}, {epoch} epoch", *(_mean([scores[key] for scores in runs]) for key in tasks)]
            for name, runs in models.items()
        ]
        print(table(["", *tasks], rows))
    print(table(["published", *tasks], [[name, *PUBLISHED[name]] for name in options.only]))


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


class _Last(Clock):
    """Keeps the weights of the last epoch, as a fit ends with those of the best epoch."""

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Keep the weights."""
        super().on_train_end(logs)
        self.weights = self.model.get_weights()


def _train_and_measure(
    run: Path, name: str, seed: int, settings: list[str]
) -> dict[str, dict[str, float]]:
    blocks = dict(zip(("group_by", "mask_net", "bilinear"), (c == "T" for c in name), strict=True))
    text = ", ".join(f"{key}: {str(value).lower()}" for key, value in blocks.items())
    recipe = recipes.load(
        recipes.find("rees46"),
        [f"model.models={{{name}: {{{text}}}}}", f"train.seed={seed}", *settings],
        variant="small",
    )
    models = OfferModels.open(Store(run), recipe)
    offer_data = models.offer_data
    fit = models.fit(build_fresh(models, name), models.judge())
    clock = fit.clock = _Last()
    best = fit.run()
    print(f"best epoch {best.epoch + 1} of {len(clock.epochs)}", end=", ")
    pairs = offer_data.pairs("test", seed=recipe.evaluate.seed)
    assert pairs is not None
    tasks = {key: task(offer_data, key, pairs.columns) for key in offer_data.tasks}
    found = {}
    for epoch, weights in (("best", fit.model.get_weights()), ("last", clock.weights)):
        fit.model.set_weights(weights)
        aucs = pairs.aucs(InferenceModel(fit.model), tasks)
        found[epoch] = {key: auc.mean().mean for key, auc in aucs.items()}
    return found


if __name__ == "__main__":
    main()
