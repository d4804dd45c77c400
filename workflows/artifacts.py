"""What finished stages hold, read back: the one place that knows their files' names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import merlin.models.tf as mm
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models import two_tower
from models.callbacks import Epoch
from models.columns import Column, read_columns
from models.config import EvaluateConfig
from models.retriever import Interactions
from models.trial import Trial, trial
from workflows.errors import RecipeError
from workflows.recipe import Recipe
from workflows.store import Store

#: Parts that come before each part, in order of time.
_BEFORE = {"valid": ("train",), "test": ("train", "valid")}


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

    def trial(self, part: str, config: EvaluateConfig) -> Trial | None:
        """Return the trial of valid or test; None where the split has no such part."""
        held = self.interactions(part)
        if not len(held.users):
            return None
        return trial(
            held.users,
            held.items,
            history=self.interactions(*_BEFORE[part]),
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

    def read_history(self) -> list[Epoch]:
        """Return what was measured, epoch by epoch."""
        return msgspec.json.decode(self.history.read_bytes(), type=list[Epoch])


def build_model(recipe: Recipe, prepared: Prepared) -> mm.RetrievalModelV2:
    """Build the recipe's model with fresh weights.

    Raises:
        RecipeError: the towers do not fit together.
    """
    positives = prepared.interactions("train").histories()
    facts = two_tower.TrainingFacts(
        prepared.item_counts, positives, prepared.items, recipe.train.batch_size
    )
    schema = two_tower.read_schema(prepared.folder / "train")
    try:
        return two_tower.build(schema, recipe.model, recipe.loss, facts, seed=recipe.train.seed)
    except two_tower.TowerError as error:
        raise RecipeError(f"recipe {recipe.name}, field model: {error}") from None


def load_model(store: Store, recipe: Recipe, prepared: Prepared) -> mm.RetrievalModelV2:
    """Build the recipe's model with the weights that the train stage kept.

    Raises:
        MissingStage, StaleInput, ArtifactError: the train stage cannot be used.
    """
    store.read("train", recipe)
    model = build_model(recipe, prepared)
    model.load_weights(TrainFiles(store.folder("train")).weights)
    return model
