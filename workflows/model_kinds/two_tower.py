"""The models that rank all items: two-tower, and popularity and content written as two towers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from models.core import prior as priors
from models.core.collectives import ALONE, Collectives
from models.core.columns import ITEM_ROW, USER_ROW, as_array
from models.core.prior import Prior
from models.core.retriever import Interactions
from models.towers.config import PopularityConfig, TwoTowerConfig
from models.training.batches import Batches
from models.training.checkpoint import Checkpoint
from models.training.fit import Fit
from models.training.judge import CatalogueJudge, Judge
from models.training.row_batches import RowLoader
from models.training.sequence_batches import SequenceLoader
from models.training.two_tower import Model, TwoTower, train_on_sequences
from workflows.ground.errors import RecipeError
from workflows.model_kinds.protocol import Evaluation, Exported
from workflows.ranking import evaluation
from workflows.ranking.lift import Lift
from workflows.recipe import Recipe
from workflows.recipe.search_space import Space, usual_space
from workflows.stages import train as train_stage
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.held_out import warn_of_hidden
from workflows.stages.store import Store
from workflows.stages.train import apply_prior, build_model
from workflows.stages.train_files import TrainFiles
from workflows.towers import export as towers_export
from workflows.towers.export import AsOf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TwoTowers:
    """The two-tower model of a recipe that ranks the catalogue, as train, tune and export use it.

    Attributes:
        prepared: the content of the run's etl stage.
    """

    prepared: Prepared
    names = (TrainFiles.name,)
    remedy = (
        "Lower optimizer.lr, raise loss.temperature, or look for extreme numbers in the features."
    )

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> TwoTowers:
        """Check the etl stage of a run, and return the two-tower model of the recipe.

        Raises:
            MissingStage, StaleInput, ArtifactError: the etl stage is missing, stale or damaged.
        """
        return cls(Prepared.open(store, recipe))

    @property
    def recipe(self) -> Recipe:
        """The recipe that the etl stage was made from."""
        return self.prepared.recipe

    def with_recipe(self, recipe: Recipe) -> TwoTowers:
        """Return the two-tower model with another recipe's hyper-parameters, on the same data."""
        return TwoTowers(replace(self.prepared, recipe=recipe))

    def judge(self, collectives: Collectives = ALONE) -> CatalogueJudge | None:
        """Return the object that computes validation metrics; None without a valid part."""
        evaluation_set = self.prepared.evaluation_set(
            "valid", self.recipe.evaluate, self.recipe.train.validation_sample
        )
        if evaluation_set is None:
            return None
        warn_of_hidden(evaluation_set, "valid")
        prepared = self.prepared
        return CatalogueJudge(
            evaluation_set, prepared.users, prepared.items, self.recipe.evaluate.ks, collectives
        )

    def build(self, name: str) -> Model:
        """Build the two-tower model with newly initialised weights."""
        self._refuse_single_rows()
        return build_model(self.recipe, self.prepared)

    def _refuse_single_rows(self) -> None:
        """Refuse a batch size of 1 with in-batch negatives: batches would have no negatives."""
        recipe, n_items = self.recipe, len(self.prepared.raw_items)
        loss = recipe.loss
        in_batch = loss.negatives_of(n_items) == "in_batch"
        if in_batch and recipe.train.batch_size == 1 and isinstance(recipe.model, TwoTowerConfig):
            raise RecipeError(
                f"recipe {recipe.name}, field train.batch_size: loss.kind {loss.kind} compares the "
                "items of a batch with each other, and a batch of 1 has nothing to compare. Take "
                "more rows, or loss.kind: full."
            )
        if n_items == 1:
            log.warning("the item table has one item: there is nothing to learn")

    def load_weights(self, store: Store, name: str) -> Model:
        """Build the two-tower model with its trained weights, without a popularity prior."""
        return train_stage.load_weights(store, self.recipe, self.prepared)

    def fit(
        self,
        model: Model,
        judge: Judge | None,
        *,
        checkpoint: Checkpoint | None = None,
        lines: bool = True,
        collectives: Collectives = ALONE,
    ) -> Fit:
        """Return a training loop over all training rows, or over a sample of each user's rows."""
        prior = self._popularity()
        if prior:
            apply_prior(model, self.prepared, prior, known=self._known())
        train = self.recipe.train
        loader = self._sequences(model) if self.recipe.trains_on_sequences else self._rows(model)
        return Fit(
            model,
            self._batches(loader),
            train,
            self.recipe.optimizer,
            judge,
            checkpoint,
            lines=lines,
            collectives=collectives,
        )

    def _batches(self, loader: RowLoader | SequenceLoader) -> Batches:
        """Return the batches of training rows, which are read from the disk."""
        recipe, read = self.recipe, dict.fromkeys([*loader.names, USER_ROW, ITEM_ROW])
        size = recipe.train.batch_size
        if isinstance(loader, SequenceLoader):
            read[loader.time] = None
            size = max(size, loader.max_len + 1)
        rows = self.prepared.partitions("train", list(read))
        return Batches(rows, loader, batch_size=size, seed=recipe.train.seed)

    def _rows(self, model: Model) -> RowLoader:
        """Return batches of training rows, each with the history that etl wrote."""
        most = self.recipe.train.max_rows_per_user
        return RowLoader(model.schema.column_names, most, self.recipe.loss.mask == "user")

    def _sequences(self, model: Model) -> SequenceLoader:
        """Return batches of sequences of training rows, and set the model to train on sequences."""
        recipe, prepared = self.recipe, self.prepared
        assert recipe.history is not None
        assert recipe.time is not None
        train_on_sequences(model)
        return SequenceLoader(
            [n for n in model.schema.column_names if n not in recipe.history_columns],
            recipe.time,
            {
                name: as_array(prepared.items[column])
                for name, column in recipe.history_inputs.items()
            },
            n_users=self._n_users,
            max_len=recipe.history.max_len,
            max_per_user=recipe.train.max_rows_per_user,
            with_ages=bool(recipe.history_with_ages),
            with_positives=self.recipe.loss.mask == "user",
        )

    @property
    def _n_users(self) -> int:
        return len(self.prepared.raw_users) - 1

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the model weights, and the popularity prior that is best on the valid part."""
        files = TrainFiles(folder, name)
        prior = self._choose_prior(fit) if self.recipe.prior else self._popularity()
        if prior:
            files.prior.write_bytes(msgspec.json.encode(prior))
            # the weights are saved without it: its counts depend on the cut that is asked for
            apply_prior(fit.model, self.prepared, Prior(prior.days, 0.0), known=self._known())
        fit.save_weights(files.weights)

    def _popularity(self) -> Prior | None:
        """Return the popularity prior of a model of kind popularity; None for other kinds."""
        model = self.recipe.model
        return Prior(model.days, 1.0) if isinstance(model, PopularityConfig) else None

    def _known(self) -> Interactions:
        """Read the interactions before the valid part, from which a popularity prior is counted."""
        return self.prepared.interactions(*KNOWN["valid"])

    def _choose_prior(self, fit: Fit) -> Prior:
        """Choose the popularity prior, or none, with which the model is best on the valid part.

        Raises:
            RecipeError: the recipe's split has no valid part.
        """
        assert self.recipe.prior is not None
        if not isinstance(fit.judge, CatalogueJudge):
            raise RecipeError("prior: its weight is chosen on the valid part; the split has none.")
        scores, known = {}, self._known()
        for prior in priors.grid(self.recipe.prior):
            apply_prior(fit.model, self.prepared, prior, known=known)
            retriever = TwoTower.of(fit.model, self.prepared.users, self.prepared.items)
            scores[prior] = fit.judge.evaluation_set.selection_score(retriever)
        best = max(scores, key=lambda prior: scores[prior])
        log.info("prior: days %s, weight %s, val_mean %.4f", best.days, best.weight, scores[best])
        return best

    def evaluate(self, store: Store, folder: Path, min_lifts: Sequence[Lift]) -> Evaluation:
        """Rank the catalogue for the test part's users with the model and its baselines."""
        report, missed = evaluation.evaluate(self.prepared, store, folder, min_lifts)
        metrics = {n: f.mean for n, f in report.headline.metrics[report.ours].items()}
        return Evaluation(report, report.counts, metrics, tuple(missed))

    def export(self, store: Store, folder: Path, as_of: AsOf | None) -> Exported:
        """Export both towers, with users' histories up to a cut (by default, the test part)."""
        cut: AsOf = as_of or "test"
        rows = towers_export.export(self.prepared, store, folder, as_of=cut)
        return Exported(rows, {"as_of": cut})

    def space(self) -> Space:
        """Return tune's search space; it includes the decay of histories ordered by time."""
        history = self.recipe.history
        ordered = bool(history and self.recipe.time and history.before != "others")
        return usual_space(ordered=ordered)
