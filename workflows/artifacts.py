"""What finished stages hold, read back: the one place that knows their files' names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models import two_tower
from models.callbacks import Epoch
from models.columns import Column, as_array, read_columns
from models.config import EvaluateConfig
from models.prior import Prior
from models.retriever import Interactions, Ragged
from models.sampled_softmax import TrainingFacts
from models.towers import TowerError
from models.trial import Trial, trial
from models.two_tower import Model
from workflows import statistics
from workflows.errors import RecipeError
from workflows.recipe import Recipe
from workflows.statistics import NumberFact
from workflows.store import Store
from workflows.vocabulary import Vocabulary

#: The parts that are known at a cut: before valid, before test, or all of them.
KNOWN = {"valid": ("train",), "test": ("train", "valid"), "latest": ("train", "valid", "test")}


@dataclass(frozen=True)
class Prepared:
    """The etl stage.

    Attributes:
        folder: where it lies.
        recipe: what it was made from.
    """

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Prepared:
        """Check the stage and return it.

        Raises:
            MissingStage, StaleInput, ArtifactError: it cannot be used.
        """
        store.read("etl", recipe)
        return cls(store.folder("etl"), recipe)

    def part(self, name: str) -> dict[str, Column]:
        """Return all encoded columns of train, valid or test."""
        return read_columns(self.folder / name / "part-0.parquet")

    @cached_property
    def users(self) -> dict[str, Column]:
        """Encoded user table, n_users + 1 rows, the last for unknown users."""
        return read_columns(self.folder / "users" / "part-0.parquet")

    @cached_property
    def items(self) -> dict[str, Column]:
        """Encoded item table, n_items rows."""
        return read_columns(self.folder / "items" / "part-0.parquet")

    @cached_property
    def raw_users(self) -> pa.Table:
        """Readable user table in the same order; the last row has no id."""
        return pq.read_table(self.folder / "users" / "raw.parquet")

    @cached_property
    def raw_items(self) -> pa.Table:
        """Readable item table in the same order."""
        return pq.read_table(self.folder / "items" / "raw.parquet")

    @cached_property
    def item_counts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Training interactions of each item, int64 [n_items]."""
        return self.raw_items["train_count"].to_numpy()

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Column → vocabulary."""
        paths = sorted((self.folder / "vocabulary").glob("*.parquet"))
        return {path.stem: Vocabulary.read(path) for path in paths}

    @cached_property
    def numbers(self) -> dict[str, NumberFact]:
        """Number column → how it is standardised."""
        return statistics.read(self.folder)

    def interactions(self, *parts: str) -> Interactions:
        """Return the interactions of some parts, in order of time within each user's history."""
        names = ["user_row", "item_row", *([self.recipe.time] if self.recipe.time else [])]
        tables = [pq.read_table(self.folder / p / "part-0.parquet", columns=names) for p in parts]
        rows = pa.concat_tables(tables)
        times = rows[self.recipe.time].to_numpy() if self.recipe.time else None
        order = np.arange(len(rows)) if times is None else np.argsort(times, kind="stable")
        return Interactions(
            users=rows["user_row"].to_numpy()[order],
            items=rows["item_row"].to_numpy()[order],
            times=None if times is None else times[order],
            n_users=len(self.raw_users) - 1,
            n_items=len(self.raw_items),
        )

    def histories(self, *parts: str) -> Ragged:
        """Return what each user of the table did in some parts, oldest first."""
        rows = self.interactions(*parts)
        known = (rows.users >= 0) & (rows.items >= 0)
        return Ragged.from_pairs(rows.users[known], rows.items[known], n_lists=rows.n_users)

    def trial(self, part: str, config: EvaluateConfig) -> Trial | None:
        """Return the trial of valid or test; None where the split has no such part."""
        held = self.interactions(part)
        if not len(held.users):
            return None
        return trial(
            held.users,
            held.items,
            history=self.interactions(*KNOWN[part]),
            item_counts=self.item_counts,
            config=config,
        )


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
