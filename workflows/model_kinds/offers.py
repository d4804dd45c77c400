"""Offer models, which rank users for an offer: several are compared; the first is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.core.collectives import ALONE, Collectives
from models.offers.judge import PairJudge
from models.offers.model import Model
from models.offers.pairs import NoNegativesError
from models.training.checkpoint import Checkpoint
from models.training.fit import Fit
from models.training.judge import Judge
from workflows.ground.errors import DataError
from workflows.model_kinds.protocol import Evaluation, Exported
from workflows.offers import evaluation
from workflows.offers import export as offers_export
from workflows.ranking.lift import Lift
from workflows.recipe import Recipe
from workflows.recipe.search_space import Range, Space
from workflows.stages.etl import Prepared
from workflows.stages.offer_data import OfferData
from workflows.stages.offers_report import ALL
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles
from workflows.towers.export import AsOf


@dataclass(frozen=True)
class OfferModels:
    """The offer models of a recipe, as train, tune, evaluate and export use them.

    Attributes:
        offer_data: the etl stage of the run, with the settings of the offer models.
    """

    offer_data: OfferData
    remedy = "Lower optimizer.lr, or raise train.batch_size."

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> OfferModels:
        """Check the etl stage of a run, and return the offer models of the recipe.

        Raises:
            MissingStage, StaleInput, ArtifactError: the etl stage is missing, stale or damaged.
        """
        return cls(OfferData.open(store, recipe))

    @property
    def prepared(self) -> Prepared:
        """The content of the run's etl stage: encoded interactions and tables."""
        return self.offer_data.prepared

    @property
    def names(self) -> list[str]:
        """Return the names of the recipe's offer models."""
        return list(self.offer_data.config.models)

    def with_recipe(self, recipe: Recipe) -> OfferModels:
        """Return the offer models with another recipe's hyper-parameters, on the same etl stage."""
        return OfferModels(OfferData(replace(self.prepared, recipe=recipe)))

    def judge(self, collectives: Collectives = ALONE) -> PairJudge | None:
        """Return the object that computes the validation AUC; None if the split has no valid part.

        Raises:
            DataError: the valid part has no negative pairs of a user and an offer.
        """
        recipe = self.prepared.recipe
        pairs = self.offer_data.pairs(
            "valid", seed=recipe.train.seed, sample=recipe.train.validation_sample
        )
        try:
            return None if pairs is None else PairJudge(pairs, recipe.item_id)
        except NoNegativesError as error:
            raise DataError(
                f"recipe {recipe.name}: the part valid cannot judge a fit: {error}. Give valid "
                "more users, or raise model.negatives."
            ) from None

    def build(self, name: str) -> Model:
        """Build one of the recipe's offer models with newly initialised weights."""
        return self.offer_data.build(name)

    def load_weights(self, store: Store, name: str) -> Model:
        """Build one of the recipe's offer models with the trained weights of the train stage."""
        return self.offer_data.load_weights(store, name)

    def fit(
        self,
        model: Model,
        judge: Judge | None,
        *,
        checkpoint: Checkpoint | None = None,
        lines: bool = True,
        collectives: Collectives = ALONE,
    ) -> Fit:
        """Return an offer model's training loop, over a sample of the rows of each user and day."""
        recipe = self.prepared.recipe
        batches = self.offer_data.batches(
            "train", seed=recipe.train.seed, names=model.schema.column_names
        )
        return Fit(model, batches, recipe.train, recipe.optimizer, judge, checkpoint, lines=lines)

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the weights of a fitted offer model to the folder of the train stage."""
        fit.save_weights(TrainFiles(folder, name).weights)

    def evaluate(self, store: Store, folder: Path, min_lifts: Sequence[Lift]) -> Evaluation:
        """Score pairs of a user and an offer of the test part with every offer model and task."""
        report = evaluation.evaluate(self.offer_data, store, folder)
        rows = {"events": report.events, "pairs": report.pairs}
        metrics = {
            f"wauc {score.task}": score.wauc
            for score in report.scores
            if (score.model, score.band) == (self.names[0], ALL) and score.wauc is not None
        }
        return Evaluation(report, rows, metrics)

    def export(self, store: Store, folder: Path, as_of: AsOf | None) -> Exported:
        """Export the first offer model, with the embeddings of all offers and users."""
        rows = offers_export.export(self.offer_data, store, folder)
        return Exported(rows, {"model": self.names[0]})

    def space(self) -> Space:
        """Return tune's search space: learning rate, embedding dimensions, dropout, L1 penalty."""
        return {
            "optimizer.lr": Range(low=2e-4, high=5e-3, log=True),
            "model.dim": (16, 32, 64, 100),
            "model.dropout": (0.0, 0.1, 0.2, 0.3),
            "model.l1": Range(low=1e-8, high=1e-5, log=True),
        }
