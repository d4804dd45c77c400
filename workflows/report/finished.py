"""What the finished stages say and hold, read once: the page and the card show nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import pyarrow as pa

from models.core.evaluation_set import Trial
from models.core.prior import Prior
from models.core.retriever import Ints
from models.training.epoch import Epoch
from models.training.two_tower import Model, TwoTower
from workflows.recipe import Recipe
from workflows.stages.etl import EtlReport, Prepared
from workflows.stages.evaluate import Block, Figure, Report
from workflows.stages.store import Manifest, Store
from workflows.stages.train import load_model
from workflows.stages.train_files import TrainFiles

#: The list length that headlines; the first of the recipe's where it has no such.
USUAL_K = 10


@dataclass(frozen=True)
class Finished:
    """The stages etl, train and evaluate of a run.

    Attributes:
        recipe: what they were made from.
        manifests: stage → what it says of itself.
        prepared: the etl stage.
        data: what etl read, dropped and wrote.
        epochs: the epochs of the fit.
        prior: chosen in training; None if the recipe asks for none.
        scores: every figure of the evaluation.
        model: with the best epoch's weights, as of the test part.
    """

    recipe: Recipe
    manifests: dict[str, Manifest]
    prepared: Prepared
    data: EtlReport
    epochs: list[Epoch]
    prior: Prior | None
    scores: Report
    model: Model

    @classmethod
    def read(cls, store: Store, recipe: Recipe) -> Finished:
        """Read the stages, which `store.write` has checked."""
        prepared = Prepared(store.folder("etl"), recipe)
        files = TrainFiles(store.folder("train"))
        scores = store.folder("evaluate") / "report.json"
        return cls(
            recipe=recipe,
            manifests={
                stage: store.read(stage, recipe, deep=False)
                for stage in ("etl", "train", "evaluate")
            },
            prepared=prepared,
            data=msgspec.json.decode(
                (prepared.folder / "report.json").read_bytes(), type=EtlReport
            ),
            epochs=files.read_history(),
            prior=files.read_prior(),
            scores=msgspec.json.decode(scores.read_bytes(), type=Report),
            model=load_model(store, recipe, prepared),
        )

    @property
    def metric(self) -> str:
        """The metric that headlines."""
        ks = self.recipe.evaluate.ks
        return f"recall@{USUAL_K if USUAL_K in ks else ks[0]}"

    @property
    def k(self) -> int:
        """Its list length."""
        return int(self.metric.partition("@")[2])

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept: train signed its figures."""
        signed = self.manifests["train"].metrics
        return next(epoch for epoch in self.epochs if epoch.metrics == signed)

    @property
    def models(self) -> list[str]:
        """All models that were asked, the best by the headline metric first."""
        figures = self.scores.headline.metrics
        return sorted(figures, key=lambda model: -figures[model][self.metric].mean)

    @property
    def rival(self) -> str | None:
        """The best baseline; None where none ran."""
        return next((model for model in self.models if model != self.scores.ours), None)

    def headline(self, model: str) -> Figure:
        """Return a model's figure by the headline metric."""
        return self.scores.headline.metrics[model][self.metric]

    def segments(self, start: str = "") -> dict[str, Block]:
        """Return the segments whose name begins so, as evaluate ordered them."""
        return {n: b for n, b in self.scores.segments.items() if n.startswith(start)}

    @cached_property
    def trial(self) -> Trial:
        """The test part as evaluate asked it."""
        trial = self.prepared.trial("test", self.recipe.evaluate)
        assert trial is not None, "evaluate refuses a split without a test part"
        return trial

    @cached_property
    def tower(self) -> TwoTower:
        """The model as it is asked."""
        return TwoTower.of(self.model, self.prepared.users, self.prepared.items)

    @property
    def item_counts(self) -> Ints:
        """Training interactions of each item, int64 [n_items]."""
        return self.prepared.item_counts

    @property
    def user_counts(self) -> Ints:
        """Training interactions of each user, int64 [n_users]."""
        return self.prepared.raw_users["train_count"].to_numpy()[:-1]  # the last is nobody

    def item_names(self, rows: Ints) -> list[str]:
        """Return what people call some items: the first label of the recipe, or the id."""
        ids = _texts(self.prepared.raw_items, self.recipe.item_id, rows)
        features = self.recipe.features
        label = next((n for n in self.recipe.columns("item") if features[n].meaning.is_label), None)
        if label is None:
            return [text or "" for text in ids]
        labels = _texts(self.prepared.raw_items, label, rows)
        return [name or text or "" for name, text in zip(labels, ids, strict=True)]

    def user_ids(self, rows: Ints) -> list[str]:
        """Return the ids of some users."""
        return [text or "" for text in _texts(self.prepared.raw_users, self.recipe.user_id, rows)]


def _texts(table: pa.Table, column: str, rows: Ints) -> list[str | None]:
    values = table[column].take(pa.array(np.asarray(rows, np.int64))).to_pylist()
    return [None if value is None else str(value) for value in values]
