"""Report page and model card of offer models: their AUC by task, and their learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from models.offers.config import OffersConfig
from models.training.epoch import Epoch
from workflows.ground.stage_content import reading
from workflows.offers.table import bounds, protocol
from workflows.recipe import Recipe
from workflows.report import card, dataset, learning, numbers, origin, page
from workflows.report.charts import Picture
from workflows.report.finished import Stages
from workflows.report.page import Tile
from workflows.report.rendering import template
from workflows.report.tables import Table
from workflows.stages.evaluate import EvaluateFiles
from workflows.stages.offers_report import ALL, OffersReport, Score
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles


@dataclass(frozen=True)
class FinishedOffers(Stages):
    """The finished stages of a run of offer models, which rank users for an offer.

    Attributes:
        fits: name of a model → the metrics of each epoch of its fit.
        scores: the report of the evaluation, with the AUC of each model and task.
    """

    fits: dict[str, list[Epoch]]
    scores: OffersReport

    @classmethod
    def read(cls, store: Store, recipe: Recipe) -> FinishedOffers:
        """Read the finished stages of a run; `store.write` checked before that they can be used."""
        assert isinstance(recipe.model, OffersConfig)
        common, train = Stages.open(store, recipe), store.folder("train")
        fits = {name: TrainFiles(train, name).read_history() for name in recipe.model.models}
        path = EvaluateFiles(store.folder("evaluate")).report
        with reading(path, "evaluate"):
            scores = msgspec.json.decode(path.read_bytes(), type=OffersReport)
        return cls(**vars(common), fits=fits, scores=scores)

    @property
    def is_validated(self) -> bool:
        """Whether the training epochs were measured on a validation part."""
        return all(self.recipe.train.monitor in epochs[0].metrics for epochs in self.fits.values())

    def best(self, model: str) -> Epoch:
        """Return the training epoch of a model whose weights were kept."""
        monitor, epochs = self.recipe.train.monitor, self.fits[model]
        return max(epochs, key=lambda e: e.metrics[monitor]) if self.is_validated else epochs[-1]


def render_page(finished: FinishedOffers) -> str:
    """Return the whole report page, HTML, of offer models."""
    return page.fill(
        finished,
        "offers.html",
        tiles=list(_tiles(finished)),
        facts=_facts(finished),
        protocol=protocol(finished.scores),
        tables=list(_tables(finished.scores)),
        curves=list(_curves(finished)),
        is_validated=finished.is_validated,
    )


def render_card(finished: FinishedOffers) -> str:
    """Return the whole model card, Markdown, of offer models."""
    return template("offers_card.md", finalize=card.escaped).render(
        finished=finished,
        facts=_facts(finished),
        data=list(dataset.sentences(finished)),
        protocol=protocol(finished.scores),
        tables=list(_tables(finished.scores)),
        training=list(_training(finished)),
        hashes=origin.hashes(finished),
    )


def _tables(scores: OffersReport) -> Iterator[Table]:
    """Yield tables of AUC by model and task, one table per band of how frequent offers are."""
    for band in dict.fromkeys(score.band for score in scores.scores):
        of_band = [score for score in scores.scores if score.band == band]
        if not any(score.offers for score in of_band):
            continue
        cells = {(score.model, score.task): score for score in of_band}
        models = list(dict.fromkeys(score.model for score in of_band))
        tasks = list(dict.fromkeys(score.task for score in of_band))
        yield Table(
            f"{band}: offers with {bounds(of_band[0])}",
            ["model", *(f"{task} ({_offers(cells[models[0], task])})" for task in tasks)],
            [
                [model, *(numbers.score(cells[model, task].wauc, form=".3f") for task in tasks)]
                for model in models
            ],
            numeric=True,
            marked=models[0],
        )


def _offers(score: Score) -> str:
    left_out = f", {score.one_class} of one class left out" if score.one_class else ""
    return numbers.counted(score.offers, "offer") + left_out


def _curves(finished: FinishedOffers) -> Iterator[Picture]:
    for model, epochs in finished.fits.items():
        best = finished.best(model)
        for name in ("loss", finished.recipe.train.monitor):
            if name in best.metrics:
                yield learning.curve(epochs, best, name, model)


def _tiles(finished: FinishedOffers) -> Iterator[Tile]:
    """Yield key numbers: the exported model's AUC in each task, and the size of the evaluation."""
    first = next(iter(finished.fits))
    for score in finished.scores.scores:
        if (score.model, score.band) == (first, ALL):
            value = numbers.score(score.wauc, form=".3f")
            yield Tile(value, f"AUC of {score.task} by {first}", _offers(score))
    events = finished.scores.events
    yield Tile(f"{events:,}", "test events", f"{finished.scores.pairs:,} pairs a task")


def _facts(finished: FinishedOffers) -> dict[str, str]:
    """Return the settings of the trained models as text, by section of the recipe."""
    plain = finished.recipe.to_dict()
    model = dict(plain["model"])
    blocks = {f"model {name}": numbers.settings(of) for name, of in model.pop("models").items()}
    return {
        **blocks,
        "widths and the like": numbers.settings(model),
        "tasks": numbers.settings(plain["tasks"]),
        "optimizer": numbers.settings(plain["optimizer"]),
        "training": numbers.settings(plain["train"]),
    }


def _training(finished: FinishedOffers) -> Iterator[str]:
    manifest = finished.manifests["train"]
    for model, epochs in finished.fits.items():
        best, seconds = finished.best(model), sum(epoch.seconds for epoch in epochs)
        figures = [f"{name} {numbers.score(value)}" for name, value in best.metrics.items()]
        yield (
            f"{model}: {numbers.counted(len(epochs), 'epoch')}, {seconds:,.0f} s on the "
            f"{manifest.device} ({manifest.device_why}). Epoch {best.epoch + 1} was kept: "
            f"{', '.join(figures)}."
        )
    yield f"Made {manifest.created}."
