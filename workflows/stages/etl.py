"""What the etl stage holds, read back; it needs neither TensorFlow nor Merlin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.columns import Column, read_columns
from models.core.evaluation_set import ListRules, Trial, trial
from models.core.retriever import Interactions, Ragged, joined
from workflows.ground import statistics, vocabulary
from workflows.ground.pair_hash import pair_hash
from workflows.ground.stage_content import reading, require
from workflows.ground.statistics import NumberFact
from workflows.ground.vocabulary import Vocabulary
from workflows.recipe import Recipe
from workflows.stages.store import Store

#: File of what users saw in rows that a filter dropped: user and item row, and the part, by its
#: place among the three, from which on it is known. Absent where no filter asks for it.
SEEN = "seen.parquet"
#: The parts that are known at a cut: before valid, before test, or all of them.
KNOWN = {"valid": ("train",), "test": ("train", "valid"), "latest": ("train", "valid", "test")}


class EtlReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of what the etl stage read, dropped and wrote: the content of its report.json.

    Attributes:
        read: source → number of rows.
        files: raw file → SHA-256.
        dropped: cause → number of interactions that were dropped.
        unmatched: joined table → number of interactions whose id is not in it.
        rows: train, valid, test → number of rows.
        users, items: number of rows of the tables, and how many of them occur in training.
        conflicts: feature → number of ids with more than one value in training.
        unseen: split → column → share of cells whose value has no code of its own.
        null: split → column → share of cells without a value.
    """

    read: dict[str, int]
    files: dict[str, str]
    dropped: dict[str, int]
    unmatched: dict[str, int]
    rows: dict[str, int]
    users: dict[str, int]
    items: dict[str, int]
    conflicts: dict[str, int]
    unseen: dict[str, dict[str, float]]
    null: dict[str, dict[str, float]]


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
        with reading(self.folder / name, "etl"):
            return read_columns(self.files(name))

    def files(self, name: str) -> list[Path]:
        """Return the files of train, valid, test, users, items or latest, in their order."""
        paths = (self.folder / name).glob("part-*.parquet")
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("part-")))

    @cached_property
    def users(self) -> dict[str, Column]:
        """Encoded user table, n_users + 1 rows, the last for unknown users."""
        return self.part("users")

    @cached_property
    def items(self) -> dict[str, Column]:
        """Encoded item table, n_items rows."""
        return self.part("items")

    @cached_property
    def raw_users(self) -> pa.Table:
        """Readable user table in the same order; the last row has no id."""
        with reading(self.folder / "users", "etl"):
            return pq.read_table(self.folder / "users" / "raw.parquet")

    @cached_property
    def raw_items(self) -> pa.Table:
        """Readable item table in the same order."""
        with reading(self.folder / "items", "etl"):
            return pq.read_table(self.folder / "items" / "raw.parquet")

    @cached_property
    def item_counts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Training interactions of each item, int64 [n_items]."""
        with reading(self.folder / "items", "etl"):
            return self.raw_items["train_count"].to_numpy()

    @property
    def report(self) -> EtlReport:
        """Counts of what etl read, dropped and wrote."""
        path = self.folder / "report.json"
        with reading(path, "etl"):
            return msgspec.json.decode(path.read_bytes(), type=EtlReport)

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Column → vocabulary."""
        with reading(self.folder / "vocabulary", "etl"):
            return vocabulary.read_all(self.folder)

    @cached_property
    def numbers(self) -> dict[str, NumberFact]:
        """Number column → how it is standardised."""
        with reading(self.folder / statistics.FILE, "etl"):
            return statistics.read(self.folder)

    def interactions(self, *parts: str) -> Interactions:
        """Return the interactions of some parts, in order of time within each user's history.

        Where the data has no time, histories are in a random order, and so their end is a
        sample; it is the order that etl takes.
        """
        rows = self._as_written(*parts)
        order = np.arange(len(rows.users))
        if rows.times is not None:
            order = np.argsort(rows.times, kind="stable")
        elif history := self.recipe.history:
            order = np.argsort(pair_hash(rows.users, rows.items, seed=history.seed), kind="stable")
        return replace(
            rows,
            users=rows.users[order],
            items=rows.items[order],
            times=None if rows.times is None else rows.times[order],
        )

    def _as_written(self, *parts: str) -> Interactions:
        """Return the interactions of some parts, one part after the other, as their files say."""
        names = ["user_row", "item_row", *([self.recipe.time] if self.recipe.time else [])]
        files = [path for part in parts for path in self.files(part)]
        with reading(self.folder, "etl"):
            rows = pq.read_table(files, columns=names)
            return self._within(
                Interactions(
                    users=rows["user_row"].to_numpy(),
                    items=rows["item_row"].to_numpy(),
                    times=rows[self.recipe.time].to_numpy() if self.recipe.time else None,
                    n_users=len(self.raw_users) - 1,
                    n_items=len(self.raw_items),
                )
            )

    def _within(self, rows: Interactions) -> Interactions:
        """Return interactions whose rows are those of the tables."""
        for table, found, n in (
            ("users", rows.users, rows.n_users),
            ("items", rows.items, rows.n_items),
        ):
            is_there = not len(found) or found.max() < n
            require(bool(is_there), self.folder / table, "etl", "interactions name rows beyond it")
        return rows

    def histories(self, *parts: str) -> Ragged:
        """Return what each user of the table did in some parts, oldest first."""
        rows = self.interactions(*parts)
        known = (rows.users >= 0) & (rows.items >= 0)
        return Ragged.from_pairs(rows.users[known], rows.items[known], n_lists=rows.n_users)

    def also_seen(self, *parts: str) -> Interactions | None:
        """Return what users saw in rows of some parts that a filter dropped; None for nothing."""
        path = self.folder / SEEN
        if not path.is_file():
            return None
        wanted = [KNOWN["latest"].index(part) for part in parts]
        with reading(path, "etl"):
            rows = pq.read_table(path)
            known = np.isin(rows["part"].to_numpy(), wanted)
            return self._within(
                Interactions(
                    users=rows["user_row"].to_numpy()[known],
                    items=rows["item_row"].to_numpy()[known],
                    times=None,
                    n_users=len(self.raw_users) - 1,
                    n_items=len(self.raw_items),
                )
            )

    def seen(self, *parts: str) -> Ragged:
        """Return what each user of the table saw in some parts, whether it counts or not."""
        histories, more = self.histories(*parts), self.also_seen(*parts)
        if more is None:
            return histories
        known = more.users >= 0
        lists = Ragged.from_pairs(more.users[known], more.items[known], n_lists=more.n_users)
        return joined(histories, lists)

    def trial(self, part: str, rules: ListRules) -> Trial | None:
        """Return the trial of a part; None where the split has no such part.

        The rows of train are asked for as of the test part: who has learnt them knows them.
        """
        parts = KNOWN.get(part, KNOWN["test"])
        held = self._as_written(part)  # beside the contexts, which are read as they stand
        if not len(held.users):
            return None
        return trial(
            held.users,
            held.items,
            history=self.interactions(*parts),
            also_seen=self.also_seen(*parts),
            item_counts=self.item_counts,
            rules=rules,
            contexts=self._contexts(part),
        )

    def _contexts(self, part: str) -> dict[str, Column]:
        """Return the inputs that belong to the interactions, as the part's files say."""
        given = {n: f for n, f in self.recipe.features.items() if f.role == "context" and f.input}
        names = [column for n, f in given.items() for column in f.meaning.columns(n, f)]
        return read_columns(self.files(part), names) if names else {}
