"""Reads the finished stages of a run, whose content report.html and the model card show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from models.core.prior import Prior
from models.core.retriever import Ints
from models.training.epoch import Epoch
from workflows.ground.column_names import TRAIN_COUNT
from workflows.recipe import Recipe
from workflows.stages.etl import EtlReport, Prepared
from workflows.stages.evaluate import Block, EvaluateFiles, Figure, Inside, Report
from workflows.stages.manifest import Manifest
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles

#: The list length k of the headline metric; if the recipe lacks it, its first list length is used.
USUAL_K = 10


@dataclass(frozen=True)
class Stages:
    """The finished stages etl, train and evaluate of a run with any kind of model.

    Attributes:
        recipe: the recipe that the stages were made from.
        manifests: name of a stage → its manifest (origin, versions and hashes).
        prepared: the etl stage, with the encoded data.
        data: the report of the etl stage: counts of rows, users and items.
    """

    recipe: Recipe
    manifests: dict[str, Manifest]
    prepared: Prepared
    data: EtlReport

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Stages:
        """Read the finished stages of a run; `store.write` checked before that they can be used."""
        prepared = Prepared(store.folder("etl"), recipe)
        stages = ("etl", "train", "evaluate")
        manifests = {stage: store.read(stage, recipe, deep=False) for stage in stages}
        return cls(recipe, manifests, prepared, prepared.report)

    @property
    def item_counts(self) -> Ints:
        """Number of training interactions of each item, int64 [n_items]."""
        return self.prepared.item_counts

    @property
    def user_counts(self) -> Ints:
        """Number of training interactions of each user, int64 [n_users]."""
        counts: Ints = self.prepared.raw_users[TRAIN_COUNT].to_numpy()
        return counts[:-1]  # the last row is the unknown user


@dataclass(frozen=True)
class Finished(Stages):
    """The finished stages of a run whose model ranks the items of a catalogue.

    Attributes:
        epochs: the metrics of each training epoch.
        prior: the popularity prior that was chosen after training and is added to the item scores;
            None if the recipe has no prior.
        scores: the report of the evaluation: the metrics of all models.
        inside: the analysis of the trained towers with the weights of the best epoch.
    """

    epochs: list[Epoch]
    prior: Prior | None
    scores: Report
    inside: Inside

    @classmethod
    def read(cls, store: Store, recipe: Recipe) -> Finished:
        """Read the finished stages of a run; `store.write` checked before that they can be used."""
        common = Stages.open(store, recipe)
        train = TrainFiles(store.folder("train"))
        evaluate = EvaluateFiles(store.folder("evaluate"))
        return cls(
            **vars(common),
            epochs=train.read_history(),
            prior=train.read_prior(),
            scores=evaluate.read_report(),
            inside=evaluate.read_inside(),
        )

    @property
    def metric(self) -> str:
        """The name of the main metric, recall at the first list length, such as recall@10."""
        ks = self.recipe.evaluate.ks
        return f"recall@{USUAL_K if USUAL_K in ks else ks[0]}"

    @property
    def k(self) -> int:
        """The list length k of the main metric."""
        return int(self.metric.partition("@")[2])

    @property
    def best(self) -> Epoch:
        """The best training epoch, whose weights the model has."""
        signed = self.manifests["train"].metrics
        return next(epoch for epoch in self.epochs if epoch.metrics == signed)

    @property
    def models(self) -> list[str]:
        """All models that were evaluated, the best by the main metric first."""
        figures = self.scores.headline.metrics
        return sorted(figures, key=lambda model: -figures[model][self.metric].mean)

    @property
    def best_baseline(self) -> str | None:
        """The best baseline by the main metric; None if no baseline ran."""
        return next((model for model in self.models if model != self.scores.ours), None)

    def headline(self, model: str) -> Figure:
        """Return a model's value of the main metric, with its confidence interval."""
        return self.scores.headline.metrics[model][self.metric]

    def segments(self, start: str = "") -> dict[str, Block]:
        """Return the evaluation segments whose names begin with `start`, in the report's order."""
        return {n: b for n, b in self.scores.segments.items() if n.startswith(start)}

    def item_names(self, rows: Sequence[int]) -> list[str]:
        """Return the names of items, given row numbers: their first label, or else their ids."""
        ids = _texts(self.prepared.raw_items, self.recipe.item_id, rows)
        features = self.recipe.features
        label = next((n for n in self.recipe.columns("item") if features[n].meaning.is_label), None)
        if label is None:
            return [text or "" for text in ids]
        labels = _texts(self.prepared.raw_items, label, rows)
        return [name or text or "" for name, text in zip(labels, ids, strict=True)]

    def user_ids(self, rows: Sequence[int]) -> list[str]:
        """Return the raw ids of users, given their row numbers in the user table."""
        return [text or "" for text in _texts(self.prepared.raw_users, self.recipe.user_id, rows)]


def _texts(table: pa.Table, column: str, rows: Sequence[int]) -> list[str | None]:
    values = table[column].take(pa.array(rows, pa.int64())).to_pylist()
    return [None if value is None else str(value) for value in values]
