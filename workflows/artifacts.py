"""The train stage, read back: the model with the weights that it kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from models import two_tower
from models.callbacks import Epoch
from models.columns import as_array
from models.prior import Prior
from models.sampled_softmax import TrainingFacts
from models.towers import TowerError
from models.two_tower import Model
from workflows.errors import RecipeError
from workflows.prepared import KNOWN, Prepared
from workflows.recipe import Recipe
from workflows.store import Store


@dataclass(frozen=True)
class TrainFiles:
    """File names of the train stage."""

    folder: Path

    @property
    def weights(self) -> Path:
        """Weights of the best epoch, HDF5."""
        return self.folder / "model.weights.h5"

    @property
    def history(self) -> Path:
        """Epochs, JSON."""
        return self.folder / "history.json"

    @property
    def prior(self) -> Path:
        """The chosen prior, JSON; absent if the recipe asks for none."""
        return self.folder / "prior.json"

    def read_prior(self) -> Prior | None:
        """Return the chosen prior."""
        if not self.prior.is_file():
            return None
        return msgspec.json.decode(self.prior.read_bytes(), type=Prior)

    def read_history(self) -> list[Epoch]:
        """Return what was measured, epoch by epoch."""
        return msgspec.json.decode(self.history.read_bytes(), type=list[Epoch])


def build_model(recipe: Recipe, prepared: Prepared) -> Model:
    """Build the recipe's model with fresh weights.

    Raises:
        RecipeError: the towers do not fit together.
    """
    positives = prepared.histories("train")
    facts = TrainingFacts(
        prepared.item_counts,
        positives,
        prepared.items,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
    )
    schema = two_tower.read_schema(prepared.folder / "train")
    try:
        return two_tower.build(schema, recipe.model, recipe.loss, facts, seed=recipe.train.seed)
    except TowerError as error:
        raise RecipeError(f"recipe {recipe.name}, field model: {error}") from None


def load_model(store: Store, recipe: Recipe, prepared: Prepared, *, as_of: str = "test") -> Model:
    """Build the recipe's model with the weights that the train stage kept.

    Args:
        store: the run.
        recipe: of the run.
        prepared: its etl stage.
        as_of: the cut, a key of `KNOWN`, up to which a prior counts interactions.

    Raises:
        MissingStage, StaleInput, ArtifactError: the train stage cannot be used.
    """
    model = load_weights(store, recipe, prepared)
    if prior := TrainFiles(store.folder("train")).read_prior():
        apply_prior(model, prepared, prior, as_of=as_of)
    return model


def load_weights(store: Store, recipe: Recipe, prepared: Prepared) -> Model:
    """Build the recipe's model with the weights that the train stage kept, without a prior.

    Raises:
        MissingStage, StaleInput, ArtifactError: the train stage cannot be used.
    """
    store.read("train", recipe)
    model = build_model(recipe, prepared)
    model.load_weights(TrainFiles(store.folder("train")).weights)
    return model


def apply_prior(model: Model, prepared: Prepared, prior: Prior, *, as_of: str) -> None:
    """Put a prior, as of a cut, into a model's item bias."""
    codes = as_array(prepared.items[prepared.recipe.item_id])
    two_tower.set_prior(model, codes, prior.scores(prepared.interactions(*KNOWN[as_of])))
