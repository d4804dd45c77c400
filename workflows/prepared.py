"""What the etl stage holds, read back; it needs neither TensorFlow nor Merlin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.columns import Column, read_columns
from models.config import EvaluateConfig
from models.retriever import Interactions, Ragged
from models.trial import Trial, trial
from workflows import statistics, vocabulary
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
        return read_columns(self.files(name))

    def files(self, name: str) -> list[Path]:
        """Return the files of train, valid, test, users, items or latest, in their order."""
        paths = (self.folder / name).glob("part-*.parquet")
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("part-")))

    @cached_property
    def users(self) -> dict[str, Column]:
        """Encoded user table, n_users + 1 rows, the last for unknown users."""
        return read_columns(self.files("users"))

    @cached_property
    def items(self) -> dict[str, Column]:
        """Encoded item table, n_items rows."""
        return read_columns(self.files("items"))

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
        return vocabulary.read_all(self.folder)

    @cached_property
    def numbers(self) -> dict[str, NumberFact]:
        """Number column → how it is standardised."""
        return statistics.read(self.folder)

    def interactions(self, *parts: str) -> Interactions:
        """Return the interactions of some parts, in order of time within each user's history."""
        names = ["user_row", "item_row", *([self.recipe.time] if self.recipe.time else [])]
        files = [path for part in parts for path in self.files(part)]
        rows = pq.read_table(files, columns=names)
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
        """Return the trial of a part; None where the split has no such part.

        The rows of train are asked for as of the test part: who has learnt them knows them.
        """
        held = self.interactions(part)
        if not len(held.users):
            return None
        return trial(
            held.users,
            held.items,
            history=self.interactions(*KNOWN.get(part, KNOWN["test"])),
            item_counts=self.item_counts,
            config=config,
            contexts=self._contexts(part),
        )

    def _contexts(self, part: str) -> dict[str, Column]:
        """Return the inputs that belong to the interactions; a part is in order of time."""
        given = {n: f for n, f in self.recipe.features.items() if f.role == "context" and f.input}
        names = [name for name, feature in given.items() if feature.kind != "label"]
        names += [f"{name}_missing" for name, feature in given.items() if feature.indicator]
        return read_columns(self.files(part), names) if names else {}
