"""The page of metrics: those of evaluate and train, of offer models, and of a running server."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from models.core import metrics
from models.core.evaluation_set import SELECTION_METRICS
from models.training.epoch import VAL_MEAN
from reference_pages.page import Entry, Page, Section
from workflows.recipe.meanings import meanings
from workflows.serve.observe import Metrics
from workflows.stages.offers_report import Score

INTRODUCTION = """
`evaluate` computes the metrics of rankings for each user and prints their means with bootstrap
intervals. Relevance is binary: T is the set of a user's held-out items, and h_i is 1 if the item at
rank i is in T, else 0. Items with equal scores have no order: a metric is its mean over all their
orders. So a model that scores all items alike gets the metrics of a random ranking.
""".strip()
#: Metrics that `train` writes for each epoch: name → meaning.
OF_AN_EPOCH = {
    "loss": "Mean training loss of the epoch.",
    "val_recall@10": "A metric of rankings, here recall@10, on the validation part: the whole"
    " catalogue is ranked. All metrics of rankings have such a name.",
    VAL_MEAN: f"Mean of {', '.join(SELECTION_METRICS)} on the validation part. The epoch with the"
    " highest value is kept.",
    "val_auc": "Offer models: mean of the weighted AUC over the tasks, on the validation part.",
}


def page() -> Page:
    """Return the page of metrics."""
    return Page("Metrics", INTRODUCTION, [*_sections()])


def _sections() -> list[Section]:
    of_lists = (metrics.coverage, metrics.popularity_bias)
    epoch = [Entry(name, text) for name, text in OF_AN_EPOCH.items()]
    auc = Entry("wauc", meanings(Score).get("wauc", ""))
    return [
        Section(
            "Rankings",
            "Metrics of the lists of users, at each length k of `evaluate.ks`.",
            [_entry(f"{name}@k", function) for name, function in metrics.METRICS.items()],
        ),
        Section(
            "Catalogue",
            "Metrics of all lists together.",
            [_entry(f"{function.__name__}@k", function) for function in of_lists],
        ),
        Section("Epochs", "Metrics of an epoch, in `model.history.json` and in trackers.", epoch),
        Section("Offers", "The metric of offer models.", [auc]),
        Section("Prometheus", "Metrics at `/metrics` of a running server.", [*_of_server()]),
    ]


def _entry(name: str, function: Any) -> Entry:
    """Return the entry of a metric: the docstring of its function up to the arguments."""
    text = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    return Entry(name, text.removeprefix("Return ").strip())


def _of_server() -> list[Entry]:
    names = ("users", "items", "recipe", "recipe_hash", "export", "exported", "as_of")
    health = SimpleNamespace(**dict.fromkeys(names, 0))
    current: Any = SimpleNamespace(served=SimpleNamespace(health=health), reloads=0, refusals=0)
    families = Metrics(current).registry.collect()
    return [Entry(family.name, family.documentation) for family in families]
