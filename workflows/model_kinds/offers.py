"""The kind of offer models: several can be fitted and compared; the first is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from workflows.stages.offering import Offering
from workflows.stages.offers_report import ALL
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles
from workflows.towers.export import AsOf


@dataclass(frozen=True)
class OfferModels:
    """The models of a recipe with the model kind offers.

    Attributes:
        offering: the etl stage.
    """

    offering: Offering
    remedy = "Lower optimizer.lr, or raise train.batch_size."

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> OfferModels:
        """Check the etl stage and return the models.

        Raises:
            MissingStage, StaleInput, ArtifactError: the stage cannot be used.
        """
        return cls(Offering.open(store, recipe))

    @property
    def prepared(self) -> Prepared:
        """The etl stage of the run."""
        return self.offering.prepared

    @property
    def names(self) -> list[str]:
        """Return the names of the models."""
        return list(self.offering.config.models)

    def with_recipe(self, recipe: Recipe) -> OfferModels:
        """Return the models with the hyper-parameters of another recipe, on the same etl stage."""
        return OfferModels(Offering(replace(self.prepared, recipe=recipe)))

    def judge(self) -> PairJudge | None:
        """Return the judge that scores pairs of the valid part; None if there is no such part.

        Raises:
            DataError: the valid part has no negative pairs.
        """
        recipe = self.prepared.recipe
        pairs = self.offering.pairs("valid", seed=recipe.train.seed)
        try:
            return None if pairs is None else PairJudge(pairs, recipe.item_id)
        except NoNegativesError as error:
            raise DataError(
                f"recipe {recipe.name}: the part valid cannot judge a fit: {error}. Give valid "
                "more users, or raise model.negatives."
            ) from None

    def build(self, name: str) -> Model:
        """Build a model with fresh weights."""
        return self.offering.build(name)

    def load_weights(self, store: Store, name: str) -> Model:
        """Build a model with the weights that the train stage of a run kept."""
        return self.offering.load(store, name).model

    def fit(
        self,
        model: Model,
        judge: Judge | None,
        *,
        checkpoint: Checkpoint | None = None,
        lines: bool = True,
    ) -> Fit:
        """Return a fit over rows that are drawn for each user and day."""
        recipe = self.prepared.recipe
        batches = self.offering.batches(
            "train", seed=recipe.train.seed, names=model.schema.column_names
        )
        return Fit(model, batches, recipe.train, recipe.optimizer, judge, checkpoint, lines=lines)

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the weights."""
        fit.save_weights(TrainFiles(folder, name).weights)

    def evaluate(self, store: Store, folder: Path, min_lifts: Sequence[Lift]) -> Evaluation:
        """Score the pairs of the test part with every model, task by task; lifts do not apply."""
        report = evaluation.evaluate(self.offering, store, folder)
        rows = {"events": report.events, "pairs": report.pairs}
        metrics = {
            f"wauc {score.task}": score.wauc
            for score in report.scores
            if (score.model, score.band) == (self.names[0], ALL) and score.wauc is not None
        }
        return Evaluation(report, rows, metrics)

    def export(self, store: Store, folder: Path, as_of: AsOf | None) -> Exported:
        """Write the first model, with embeddings of offers and of users after their last event."""
        rows = offers_export.export(self.offering, store, folder)
        return Exported(rows, {"model": self.names[0]})

    def space(self) -> Space:
        """Return the search space: learning rate, embedding dimensions, dropout, L1 penalty."""
        return {
            "optimizer.lr": Range(low=2e-4, high=5e-3, log=True),
            "model.dim": (16, 32, 64, 100),
            "model.dropout": (0.0, 0.1, 0.2, 0.3),
            "model.l1": Range(low=1e-8, high=1e-5, log=True),
        }
