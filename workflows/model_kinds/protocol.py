"""What verbs ask of the models of a recipe, whatever their kind."""

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
    """What an evaluation found.

    Attributes:
        report: every figure.
        rows: how many users, targets and the like there are.
        metrics: the headline of the first model.
        missed: a sentence for each lift that was missed.
    """

    report: Report | OffersReport
    rows: dict[str, int]
    metrics: dict[str, float]
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """What an export holds.

    Attributes:
        rows: rows of each table, and the width of the embeddings.
        options: choices of the call that are no part of the recipe.
    """

    rows: dict[str, int]
    options: dict[str, str]


class Models(Protocol):
    """The models that a recipe describes, on its etl stage."""

    @property
    def remedy(self) -> str:
        """Return a sentence that says what to change when a fit diverges."""

    @property
    def prepared(self) -> Prepared:
        """Return the etl stage."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the models; each is fitted by itself, and the first is exported."""

    def with_recipe(self, recipe: Recipe) -> Models:
        """Return the models of a recipe with other hyper-parameters, on the same stage."""

    def judge(self) -> Judge | None:
        """Return the judge of all fits; None where the split has no valid part."""

    def build(self, name: str) -> tf.keras.Model:
        """Build a model with fresh weights.

        Raises:
            RecipeError: its parts do not fit together.
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
            model: from `build`; its weights may have been changed since.
            judge: from `judge`, or None to keep the last epoch.
            checkpoint: where to keep each epoch; None for nowhere.
            lines: whether a line an epoch is logged where there is no terminal.

        Raises:
            RecipeError: the training rows do not make a batch.
        """

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the weights that a fit kept, and what was chosen after it, into a folder."""

    def evaluate(self, store: Store, folder: Path, min_lifts: Sequence[Lift]) -> Evaluation:
        """Measure every model on the test part, and write the figures into a folder.

        Raises:
            DataError: there is no test part, or none that can be measured.
            ArtifactError: a model gives scores that are no numbers.
        """

    def export(self, store: Store, folder: Path, as_of: AsOf | None) -> Exported:
        """Write the first model for other programs into a folder.

        Raises:
            ArtifactError: its embeddings say nothing.
        """

    def space(self) -> Space:
        """Return the fields that `tune` searches where the recipe names none."""


def build_fresh(models: Models, name: str) -> tf.keras.Model:
    """Build a model that depends on the recipe's seed, and on no model that was built before.

    Raises:
        RecipeError: its parts do not fit together.
    """
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(models.prepared.recipe.train.seed)
    # a run on a CPU repeats to the last digit
    tf.config.experimental.enable_op_determinism()
    return models.build(name)
