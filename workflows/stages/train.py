"""The train stage, read back: the model with the weights that it kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.core.columns import as_array
from models.core.prior import Prior
from models.losses.sampled_softmax import TrainingFacts
from models.towers.tower import TowerError
from models.training import two_tower
from models.training.callbacks import Epoch
from models.training.two_tower import Model
from workflows.ground import trust
from workflows.ground.errors import RecipeError
from workflows.ground.understood import understood
from workflows.recipe import Recipe
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.store import TIMES, Store


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
        return read_epochs(self.history, self.folder / TIMES)

    def write_history(self, epochs: Sequence[Epoch]) -> None:
        """Write what was measured, epoch by epoch."""
        write_epochs(epochs, self.history)
        write_times({self.history.name: epochs}, self.folder / TIMES)


def write_epochs(epochs: Sequence[Epoch], path: Path) -> None:
    """Write what a fit measured, without its seconds: equal fits give equal files."""
    timeless = [Epoch(epoch.epoch, epoch.metrics) for epoch in epochs]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(timeless), indent=2))


def write_times(epochs: Mapping[str, Sequence[Epoch]], path: Path) -> None:
    """Write the seconds of the epochs of one or several fits: name of the fit's file → seconds."""
    times = {name: [epoch.seconds for epoch in each] for name, each in epochs.items()}
    path.write_bytes(msgspec.json.encode(times))


def read_epochs(path: Path, times: Path) -> list[Epoch]:
    """Return the epochs that `write_epochs` wrote, with the seconds that `write_times` wrote."""
    epochs = msgspec.json.decode(path.read_bytes(), type=list[Epoch])
    seconds = msgspec.json.decode(times.read_bytes(), type=dict[str, list[float]])[path.name]
    return [Epoch(e.epoch, e.metrics, took) for e, took in zip(epochs, seconds, strict=True)]


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
    with understood(prepared.folder / "train", "etl"):
        schema = two_tower.read_schema(prepared.folder / "train")
    try:
        return two_tower.build(schema, recipe.model, recipe.loss, facts, seed=recipe.train.seed)
    except TowerError as error:
        raise RecipeError(f"recipe {recipe.name}, field model: {error}") from None


def load_model(store: Store, recipe: Recipe, prepared: Prepared, *, as_of: str = "test") -> Model:
    """Build the recipe's model with the weights that the train stage kept.

    Args:
        store: the run.
        recipe: the recipe of the run.
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
    weights = TrainFiles(store.folder("train")).weights
    trust.refuse_strange_weights(weights)
    with understood(weights, "train"):
        model.load_weights(weights)
    return model


def apply_prior(model: Model, prepared: Prepared, prior: Prior, *, as_of: str) -> None:
    """Put a prior, as of a cut, into a model's item bias."""
    codes = as_array(prepared.items[prepared.recipe.item_id])
    two_tower.set_prior(model, codes, prior.scores(prepared.interactions(*KNOWN[as_of])))
