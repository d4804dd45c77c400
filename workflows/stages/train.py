"""Rebuilds the two-tower model of a finished train stage with its trained weights."""

from __future__ import annotations

from models.core.columns import as_array
from models.core.prior import Prior
from models.core.retriever import Interactions
from models.losses.negatives import TrainingFacts
from models.towers.schema_file import read_schema
from models.towers.tower import TowerError
from models.training import two_tower
from models.training.two_tower import Model
from workflows.ground.errors import RecipeError
from workflows.ground.stage_content import reading
from workflows.recipe import Recipe
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles


def build_model(recipe: Recipe, prepared: Prepared) -> Model:
    """Build the two-tower model of a recipe with newly initialised weights.

    Raises:
        RecipeError: a tower does not have the inputs that it needs.
    """
    facts = TrainingFacts(
        prepared.item_counts,
        prepared.items,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
    )
    with reading(prepared.folder / "train", "etl"):
        schema = read_schema(prepared.folder / "train", ages_of=recipe.history_with_ages)
    try:
        return two_tower.build(schema, recipe.towers, recipe.loss, facts, seed=recipe.train.seed)
    except TowerError as error:
        raise RecipeError(f"recipe {recipe.name}, field model: {error}") from None


def load_model(store: Store, recipe: Recipe, prepared: Prepared, *, as_of: str = "test") -> Model:
    """Build the two-tower model of a recipe with its trained weights and its popularity prior.

    Args:
        store: the stages of the run.
        recipe: the recipe of the run.
        prepared: the content of the run's etl stage.
        as_of: the cut before which interactions count for a popularity prior: a key of `KNOWN`,
            such as `test`.

    Raises:
        MissingStage, StaleInput, ArtifactError: the train stage is missing, stale or damaged.
    """
    model = load_weights(store, recipe, prepared)
    if prior := TrainFiles(store.folder("train")).read_prior():
        apply_prior(model, prepared, prior, known=prepared.interactions(*KNOWN[as_of]))
    return model


def load_weights(store: Store, recipe: Recipe, prepared: Prepared) -> Model:
    """Build the two-tower model of a recipe with its trained weights, without a popularity prior.

    Raises:
        MissingStage, StaleInput, ArtifactError: the train stage is missing, stale or damaged.
    """
    store.read("train", recipe)
    model = build_model(recipe, prepared)
    TrainFiles(store.folder("train")).load_weights(model)
    return model


def apply_prior(model: Model, prepared: Prepared, prior: Prior, *, known: Interactions) -> None:
    """Write a popularity prior, from interactions before a cut, into the item bias of a model.

    Args:
        model: the model whose item bias is overwritten.
        prepared: the content of the run's etl stage.
        prior: the settings of the popularity prior.
        known: the interactions before the cut, from `Prepared.interactions`.
    """
    codes = as_array(prepared.items[prepared.recipe.item_id])
    two_tower.set_prior(model, codes, prior.scores(known))
