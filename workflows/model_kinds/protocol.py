"""The interface through which train, tune, evaluate and export use any kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import tensorflow as tf

from models.core.collectives import ALONE, Collectives
from models.training.checkpoint import Checkpoint
from models.training.fit import Fit
from models.training.judge import Judge
from workflows.ranking.lift import Lift
from workflows.recipe import Recipe
from workflows.recipe.search_space import Space
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import Report
from workflows.stages.offers_report import OffersReport
from workflows.stages.store import Store
from workflows.towers.export import AsOf


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating the models of a recipe on the test part.

    Attributes:
        report: all metrics of all models.
        rows: numbers of users, targets and other rows that were evaluated.
        metrics: the most important metrics of the first model.
        missed: one sentence for each required lift over a baseline that was not reached.
    """

    report: Report | OffersReport
    rows: dict[str, int]
    metrics: dict[str, float]
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """The counts and options that an export records in its manifest.

    Attributes:
        rows: number of rows of each exported table, and number of dimensions of the embeddings.
        options: command-line options of export, which are not in the recipe.
    """

    rows: dict[str, int]
    options: dict[str, str]


class Models(Protocol):
    """The models that a recipe describes, which read the etl stage of a run."""

    @property
    def remedy(self) -> str:
        """Return a sentence that says which settings to change if training diverges."""

    @property
    def prepared(self) -> Prepared:
        """Return the content of the run's etl stage: encoded interactions and tables."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the models; each is fitted separately, and the first is exported."""

    def with_recipe(self, recipe: Recipe) -> Models:
        """Return the models with the hyper-parameters of another recipe, on the same etl stage."""

    def judge(self, collectives: Collectives = ALONE) -> Judge | None:
        """Return the object that computes validation metrics; None without a valid part.

        Args:
            collectives: the exchange between the ranks that train together.
        """

    def build(self, name: str) -> tf.keras.Model:
        """Build one of the recipe's models with newly initialised weights.

        Raises:
            RecipeError: the settings of the model contradict each other.
        """

    def load_weights(self, store: Store, name: str) -> tf.keras.Model:
        """Build one of the recipe's models with the trained weights of the train stage.

        Raises:
            MissingStage, StaleInput, ArtifactError: the train stage is missing, stale or damaged.
        """

    def fit(
        self,
        model: tf.keras.Model,
        judge: Judge | None,
        *,
        checkpoint: Checkpoint | None = None,
        lines: bool = True,
        collectives: Collectives = ALONE,
    ) -> Fit:
        """Return a training loop for a model, which is ready to run.

        Args:
            model: a model from `build`, possibly with other initial weights.
            judge: the object that computes the metric of each epoch; None keeps the last epoch.
            checkpoint: path where the training state is saved after each epoch; None to save none.
            lines: whether each epoch is logged as a line if there is no terminal.
            collectives: the exchange between the ranks that train together.

        Raises:
            RecipeError: there are too few training rows for a batch.
        """

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the model weights of the best epoch, and the popularity prior if one was chosen."""

    def evaluate(self, store: Store, folder: Path, min_lifts: Sequence[Lift]) -> Evaluation:
        """Measure every model on the test part, and write the metrics to a folder.

        Raises:
            DataError: there is no test part, or metrics cannot be computed on it.
            ArtifactError: a model computes NaN as the score of an item.
        """

    def export(self, store: Store, folder: Path, as_of: AsOf | None) -> Exported:
        """Write the towers, embeddings and tables of the first model to a folder, for serving.

        Raises:
            ArtifactError: the model's embeddings are NaN, infinite or all equal.
        """

    def space(self) -> Space:
        """Return the default search space of `tune` for this kind of model."""


def build_fresh(models: Models, name: str) -> tf.keras.Model:
    """Build a model whose initial weights depend only on the recipe's seed.

    Raises:
        RecipeError: the settings of the model contradict each other.
    """
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(models.prepared.recipe.train.seed)
    # a run on a CPU repeats to the last digit
    tf.config.experimental.enable_op_determinism()
    return models.build(name)
