"""What verbs ask of the models of a recipe, whatever their kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import tensorflow as tf

from models.training.checkpoint import Checkpoint
from models.training.fit import Fit
from models.training.judge import Judge
from workflows.recipe import Recipe
from workflows.recipe.search_space import Space
from workflows.stages.etl import Prepared
from workflows.stages.store import Store


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
