"""Quality on the data sets on which the field publishes: ours, RecTools' models, and baselines.

    python benchmarks/published.py --data FOLDER [--datasets beauty …] [--models SASRec …]

FOLDER has beauty.csv.gz, beauty_items.csv.gz and ml1m_seq.csv.gz; MovieLens-100K is the data of
its recipe. The last event of each user is the test part, the one before it the valid part; all
items are ranked, and seen items are left out.

All models have the same split and the same evaluator: RecTools' models (peers/rectools_lists.py,
in an environment of their own) get the train part and the valid part of our etl, and return each
user's 100 best items. No model trains on the valid part; it chooses epochs and hyper-parameters,
and is in the histories when the test part is ranked.

The figures of each fit are added to benchmarks/results/published.json at once. A fit whose figures
are there is skipped, so the benchmark can be interrupted. A peer's fit that `--limit` has cut off
goes on if the limit is larger. Peers have one thread, and their seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bench
import numpy as np

from models.core import metrics
from workflows.ground import device as devices

if TYPE_CHECKING:
    from models.core.evaluation_set import EvaluationSet
    from workflows.stages.etl import Prepared
    from workflows.stages.store import Store

RESULTS = bench.RESULTS / "published.json"
#: Name of a model of ours → the variant of each data set's recipe; "" is the recipe itself.
OURS = {"ours, attention": "", "ours, pool": "pool"}
KS = (10, 100)
KEPT = ("recall@10", "ndcg@10", "recall@100")
BASELINES = ("ease", "als", "popularity")
PEERS = {
    "RecTools SASRec, softmax": "sasrec",
    "RecTools eSASRec (LiGR, sampled softmax)": "esasrec",
}


@dataclass(frozen=True)
class DataSet:
    """A data set on which the models are compared.

    Attributes:
        recipe: the recipe's file.
        published: model and source → recall@10 and ndcg@10 in print.
        shipped: whether the recipe says where its data is; else it is in the folder `--data`.
    """

    recipe: Path
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    shipped: bool = False


#: Sources: "bench" is github.com/blondered/transformer_benchmark (README), "Dross" is
#: github.com/antklen/sasrec-bert4rec-recsys23 (README). Those of MovieLens-1M have all events; the
#: copy that is measured here lacks the last two or three of each user.
DATASETS = {
    "ml-100k": DataSet(bench.ROOT / "recipes" / "movielens-100k.yaml", shipped=True),
    "beauty": DataSet(
        bench.ROOT / "benchmarks" / "beauty.yaml",
        {
            "SASRec, sampled softmax (bench)": (0.0921, 0.0531),
            "eSASRec (bench)": (0.0928, 0.0523),
            "HSTU (bench)": (0.0788, 0.0439),
            "TIGER (bench)": (0.0648, 0.0384),
        },
    ),
    "ml-1m": DataSet(
        bench.ROOT / "benchmarks" / "ml1m.yaml",
        {
            "SASRec, softmax (Dross)": (0.3152, 0.1821),
            "SASRec, sampled softmax (bench)": (0.2929, 0.1684),
            "eSASRec (bench)": (0.3133, 0.1772),
        },
    ),
}


def main() -> None:
    """Run the fits that have no figures yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of Beauty and MovieLens-1M")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--models", nargs="+", help="only models whose names have one of these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    words = "seconds of processor time after which no epoch of a peer begins"
    parser.add_argument("--limit", type=float, default=3600, help=words)
    options = parser.parse_args()
    if options.data is None and not all(DATASETS[name].shipped for name in options.datasets):
        parser.error("Beauty and MovieLens-1M need --data; or take --datasets ml-100k.")
    device = devices.choose("cpu")
    for name in options.datasets:
        fits = Fits(name, device, options.data, options.limit)
        for seed in options.seeds:
            for model in models(options.models or [""], first=seed == options.seeds[0]):
                fits.fit(model, seed)
    for name, found in read_results().items():
        print(f"\n{name}\n\n{as_table(DATASETS[name], found)}")


def models(words: Sequence[str], *, first: bool) -> list[str]:
    """Return the models to fit, whose names have one of the words; baselines only the first time.

    (A baseline's figures hardly depend on the seed.)
    """
    names = [*OURS, *PEERS, *(BASELINES if first else ())]
    return [name for name in names if any(word in name for word in words)]


@dataclass(frozen=True)
class Fits:
    """The fits on one data set.

    Attributes:
        dataset: the name of the data set.
        device: the device of this process.
        data: the folder of Beauty and MovieLens-1M, if it was given.
        limit: seconds of processor time after which no epoch of a peer begins.
    """

    dataset: str
    device: devices.Device
    data: Path | None
    limit: float

    def fit(self, model: str, seed: int) -> None:
        """Fit a model and store its figures, if there are none, or of a fit that had less time."""
        stored = read_results().get(self.dataset, {}).get(model, {}).get(str(seed))
        if stored and (stored.get("is_finished", True) or stored["seconds"] >= self.limit):
            return
        facts, start = bench.machine(), time.perf_counter()
        if model in PEERS:
            figures = self.peer(model, seed)
        elif model in BASELINES:
            figures = self.baseline(model)
        else:
            figures = self.ours(model, seed)
        figures = {"seconds": round(time.perf_counter() - start, 1), **figures, "machine": facts}
        print(self.dataset, model, seed, figures, flush=True)
        if "failed" in figures:
            return
        found = read_results()  # again: another process may have written to it
        found.setdefault(self.dataset, {}).setdefault(model, {})[str(seed)] = figures
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    def prepare(self, variant: str, seed: int = 1) -> tuple[Prepared, Store]:
        """Run the etl stage of a recipe's variant if need be; return its content and its run."""
        from workflows import recipe as recipes
        from workflows.etl import etl
        from workflows.stages.etl import Prepared
        from workflows.stages.store import Store

        dataset = DATASETS[self.dataset]
        recipe = recipes.load(dataset.recipe, [f"train.seed={seed}"], variant=variant)
        data = dataset.recipe.parent / recipe.data if dataset.shipped else self.data
        assert data is not None  # main has asked for it
        store = Store(bench.DATA / "published" / recipe.name)
        etl(recipe, store, self.device, data=data.resolve())
        return Prepared.open(store, recipe), store

    def ours(self, model: str, seed: int) -> dict[str, Any]:
        """Train a model of ours, and return its figures."""
        import tensorflow as tf

        from models.training.two_tower import TwoTower
        from workflows.stages.train import load_model
        from workflows.train import train

        prepared, store = self.prepare(OURS[model], seed)
        tf.keras.backend.clear_session()
        start = time.perf_counter()
        fitted = train(prepared.recipe, store, self.device).first
        seconds = time.perf_counter() - start
        trained = load_model(store, prepared.recipe, prepared)
        towers = TwoTower.of(trained, prepared.users, prepared.items)
        return {
            **means(held_out(prepared, "test").per_user(towers, KS)),
            "valid recall@10": round(fitted.best.metrics["val_recall@10"], 5),
            "seconds": round(seconds, 1),
            "epochs": fitted.epochs,
        }

    def baseline(self, name: str) -> dict[str, Any]:
        """Choose a baseline's hyper-parameters on the valid part, and return its figures."""
        from models.baselines.fallback import as_of
        from models.baselines.search import Facts
        from workflows.ranking.baselines import attributes, choose
        from workflows.stages.etl import KNOWN

        prepared, _ = self.prepare("")
        codes = attributes(prepared.recipe, prepared.items)
        facts = Facts(train=prepared.interactions("train"), attributes=codes, seed=1)
        chosen = choose(name, facts, held_out(prepared, "valid"))
        model = as_of(chosen.model, prepared.interactions(*KNOWN["test"]))
        figures = means(held_out(prepared, "test").per_user(model, KS))
        return {**figures, "parameters": chosen.note.parameters, "tried": chosen.note.tried}

    def peer(self, model: str, seed: int) -> dict[str, Any]:
        """Fit a peer on our train part, and return the figures of its lists."""
        prepared, _ = self.prepare("")
        folder, option = bench.DATA / "published" / f"{self.dataset}-peers", PEERS[model]
        folder.mkdir(parents=True, exist_ok=True)
        test = held_out(prepared, "test")
        np.savez(folder / "rows.npz", **hand_over(prepared, test))
        peer = bench.Peer(model, "rectools", "rectools_lists.py", option)
        words = ["--settings", self.dataset, "--seed", seed, "--limit", self.limit]
        told = peer.run("--data", folder, *words, timeout=100 * self.limit + 3600)
        if "failed" in told:
            return told
        items = np.load(folder / f"{option}-{seed}.npz")["items"]
        return {**means(measure(test, items)), **told}


def held_out(prepared: Prepared, part: str) -> EvaluationSet:
    """Return the queries and target items of the valid part or of the test part."""
    found = prepared.evaluation_set(part, prepared.recipe.evaluate)
    assert found is not None
    return found


def hand_over(prepared: Prepared, test: EvaluationSet) -> dict[str, np.ndarray]:
    """Return the data that a peer gets, as row numbers of users and items.

    Returns:
        train_users, train_items, valid_users, valid_items: the events of a part, each user's in
        order of time, int64 [n_events]; events of items that training has not met are left out.
        users: the users for whom the peer returns lists, int64 [n_queries].
    """
    told = {"users": test.queries.users}
    for part in ("train", "valid"):
        events = prepared.interactions(part)
        known = events.items >= 0
        told[f"{part}_users"] = events.users[known]
        told[f"{part}_items"] = events.items[known]
    return told


def measure(test: EvaluationSet, items: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return each metric of ranked lists by its name, float64 [n_queries].

    Args:
        test: the queries with their target items and excluded items.
        items: row numbers of items, best first, int64 [n_queries, k]; -1 is an empty place.

    Raises:
        ValueError: a list has an item that its user has seen.
    """
    if test.exclude is not None:
        n_items = len(test.candidates)
        seen = test.exclude.owners() * n_items + test.exclude.values
        listed = np.arange(len(items))[:, None] * n_items + items
        if n_wrong := int((np.isin(listed, seen) & (items >= 0)).sum()):
            raise ValueError(f"{n_wrong} items of the peer's lists were seen by their users.")
    return metrics.per_user(metrics.find_ranks(items, test.targets), test.targets, KS)


def means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the means of the metrics of the table over all users."""
    return {name: round(float(values[name].mean()), 5) for name in KEPT}


def read_results() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures so far: data set → model → seed → figures."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def as_table(dataset: DataSet, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table: means and deviations over seeds; published figures in brackets."""
    rows: list[list[object]] = []
    for model, by_seed in found.items():
        runs = list(by_seed.values())
        cells = [mean_of([run[name] for run in runs]) for name in KEPT]
        seconds = f"{statistics.mean(run['seconds'] for run in runs):.0f}"
        epochs = ", ".join(str(run["epochs"]) for run in runs if "epochs" in run)
        rows.append([model, *cells, seconds, epochs, len(runs)])
    for model, figures in dataset.published.items():
        rows.append([model, *(f"({figure:.4f})" for figure in figures), "", "", "", ""])
    return bench.table(["", *KEPT, "seconds", "epochs", "seeds"], rows)


def mean_of(values: Sequence[float]) -> str:
    """Return the mean of some values, and the standard deviation if there are several."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
