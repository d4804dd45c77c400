"""The protocol of a kind of models, through which train, tune, evaluate and export use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import tensorflow as tf

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
    """The result of an evaluation.

    Attributes:
        report: all metrics.
        rows: counts, such as those of users and targets.
        metrics: the headline metrics of the first model.
        missed: one sentence for each lift that was not reached.
    """

    report: Report | OffersReport
    rows: dict[str, int]
    metrics: dict[str, float]
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """The counts and options of an export, for its manifest.

    Attributes:
        rows: number of rows of each table, and number of dimensions of the embeddings.
        options: options of the call, which are not in the recipe.
    """

    rows: dict[str, int]
    options: dict[str, str]


class Models(Protocol):
    """The models that a recipe describes, on its etl stage."""

    @property
    def remedy(self) -> str:
        """Return a sentence that says what to change if a fit diverges."""

    @property
    def prepared(self) -> Prepared:
        """Return the etl stage."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the models; each is fitted separately, and the first is exported."""

    def with_recipe(self, recipe: Recipe) -> Models:
        """Return the models with the hyper-parameters of another recipe, on the same etl stage."""

    def judge(self) -> Judge | None:
        """Return the judge of all fits; None if the split has no valid part."""

    def build(self, name: str) -> tf.keras.Model:
        """Build a model with fresh weights.

        Raises:
            RecipeError: the settings of the model contradict each other.
        """

    def load_weights(self, store: Store, name: str) -> tf.keras.Model:
        """Build a model with the weights that the train stage of a run kept.

        Raises:
            MissingStage, StaleInput, ArtifactError: the stage cannot be used.
        """

    def fit(
        self,
        model: tf.keras.Model,
        judge: Judge | None,
        *,
        checkpoint: Checkpoint | None = None,
        lines: bool = True,
    ) -> Fit:
        """Return a fit that is ready to run.

        Args:
            model: a model from `build`, possibly with other initial weights.
            judge: the judge from `judge`, or None to keep the last epoch.
            checkpoint: where the state after each epoch is saved; None to save none.
            lines: whether one line per epoch is logged if there is no terminal.

        Raises:
            RecipeError: there are too few training rows for a batch.
        """

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the weights of the best epoch, and the chosen prior if there is one."""

    def evaluate(self, store: Store, folder: Path, min_lifts: Sequence[Lift]) -> Evaluation:
        """Measure every model on the test part, and write the metrics to a folder.

        Raises:
            DataError: there is no test part, or it cannot be measured.
            ArtifactError: a model gives NaN scores.
        """

    def export(self, store: Store, folder: Path, as_of: AsOf | None) -> Exported:
        """Write the first model to a folder, for serving.

        Raises:
            ArtifactError: its embeddings are NaN, infinite or all equal.
        """

    def space(self) -> Space:
        """Return the default search space of `tune`."""


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
