"""Reads the files of the etl stage, without TensorFlow or Merlin."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.column_names import ITEM_ROW, USER_ROW
from models.core.columns import BLOCK_ROWS, Column, as_array, read_columns, read_rows, take_rows
from models.core.config import ListRules
from models.core.evaluation_set import EvaluationSet, build_evaluation_set
from models.core.partitions import ParquetPartitions, Partitions
from models.core.retriever import Interactions, Ints, Ragged
from models.core.row_groups import RowGroups
from models.core.user_sample import ALL_USERS, UserSample
from workflows.derive import fitted
from workflows.derive.fitted import States
from workflows.ground import statistics, vocabulary
from workflows.ground.column_names import TRAIN_COUNT
from workflows.ground.pair_hash import pair_hash
from workflows.ground.stage_content import read_json, reading, require
from workflows.ground.statistics import NumberFact
from workflows.ground.vocabulary import Vocabulary
from workflows.recipe import Recipe
from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: The table of the histories after each user's last event; there is one where models of offers
#: need it.
LATEST = "latest"
#: Column of the file of seen items: the part, by its place among the three, from which on a pair of
#: a user and an item is known.
PART = "part"
#: The parts that are known at a cut: before valid, before test, or all of them.
KNOWN = {"valid": ("train",), "test": ("train", "valid"), "latest": ("train", "valid", "test")}


class EtlReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of report.json: how many rows the etl stage read, dropped and wrote.

    Attributes:
        read: raw table of the recipe → number of rows that were read.
        files: raw file that was read → its SHA-256.
        dropped: cause, such as a filter → number of interactions that were dropped for this cause.
        unmatched: joined table → number of interactions whose id the table does not have.
        rows: part (train, valid, test) → number of interactions that were written.
        users, items: number of rows of the user table and of the item table, and how many of these
            users and items occur in training.
        conflicts: user or item feature → number of ids for which the training rows have more than
            one value.
        unseen: part → column → share of cells whose value is not in the column's vocabulary.
        null: part → column → share of cells whose value is missing.
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
class EtlFiles:
    """The paths of the files and folders in the folder of the etl stage."""

    folder: Path

    def table(self, name: str) -> Path:
        """The folder of an encoded table: train, valid, test, users, items, latest (histories)."""
        return self.folder / name

    def parts(self, name: str) -> list[Path]:
        """The Parquet files that together hold the encoded columns of a table, in their order."""
        paths = self.table(name).glob("part-*.parquet")
        return sorted(paths, key=lambda path: [int(n) for n in path.stem.split("-")[1:]])

    def part(self, name: str, number: int) -> Path:
        """The path of one of the numbered Parquet files with the encoded columns of a table."""
        return self.table(name) / f"part-{number}.parquet"

    def partition_part(self, name: str, partition: int, number: int) -> Path:
        """The path of a numbered Parquet file with the encoded rows of one partition of users.

        Large logs are written in partitions, each of which has all rows of its users.
        """
        return self.table(name) / f"part-{partition:05d}-{number:03d}.parquet"

    def partitions(self, name: str) -> list[list[Path]]:
        """The Parquet files of each partition of a table; a user's rows are in one partition.

        The file `partitions.json` has the number of part files of each partition, in the order of
        the part files. A table without this file is one partition.
        """
        paths, file = self.parts(name), self.partition_sizes(name)
        if not file.is_file():
            return [paths]
        sizes = read_json(file, list[int], "etl")
        ends = np.cumsum(sizes)
        fits = min(sizes, default=-1) >= 0 and ends[-1] == len(paths)
        require(fits, file, "etl", f"it is about other files than the {len(paths)} of {name}")
        return [paths[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def partition_sizes(self, name: str) -> Path:
        """The JSON file with the number of part files of each partition of a table."""
        return self.table(name) / "partitions.json"

    def schema(self, name: str) -> Path:
        """The file with Merlin's schema of the encoded columns of a table."""
        return self.table(name) / "schema.pbtxt"

    def raw(self, name: str) -> Path:
        """The file with the readable (not encoded) columns of the user table or the item table."""
        return self.table(name) / "raw.parquet"

    @property
    def seen(self) -> Path:
        """The file of interactions that a filter dropped but that count as seen; it may be absent.

        The columns are the row numbers of user and item, and `part` (0 train, 1 valid, 2 test):
        lists for later parts leave out the item. The file is absent if no filter has `still_seen`.
        """
        return self.folder / "seen.parquet"

    @property
    def vocabularies(self) -> Path:
        """The folder of vocabularies, with one file for each column whose values get codes."""
        return self.folder / vocabulary.FOLDER

    @property
    def statistics(self) -> Path:
        """The JSON file with the training mean and standard deviation of each number column."""
        return self.folder / statistics.FILE

    @property
    def report(self) -> Path:
        """The JSON file with the numbers of rows that etl read, dropped and wrote (`EtlReport`)."""
        return self.folder / "report.json"


class _EtlPartitions(ParquetPartitions):
    """The partitions of a table of the etl stage; a damaged file raises an ArtifactError."""

    def read(self, numbers: Sequence[int]) -> dict[str, Column]:
        """Return the rows of some partitions, in the given order: column → values [n_rows]."""
        with reading(self.files[0][0].parent, "etl"):
            return super().read(numbers)


@dataclass(frozen=True)
class Prepared:
    """The encoded data of a finished etl stage; each file is read at first use.

    Attributes:
        folder: the folder of the etl stage.
        recipe: the recipe that the etl stage was made from.
    """

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Prepared:
        """Check that the etl stage fits the recipe and is undamaged, and return its content.

        Raises:
            MissingStage, StaleInput, ArtifactError: the etl stage is missing, stale or damaged.
        """
        store.read("etl", recipe)
        return cls(store.folder("etl"), recipe)

    @property
    def files(self) -> EtlFiles:
        """The paths of the files of the etl stage."""
        return EtlFiles(self.folder)

    def part(self, name: str, columns: Sequence[str] | None = None) -> dict[str, Column]:
        """Return encoded columns of a table, such as a part of the split: train, valid or test.

        Args:
            name: name of the table, as in `EtlFiles.table`.
            columns: names of the columns to read; None for all.
        """
        with reading(self.files.table(name), "etl"):
            return read_columns(self.files.parts(name), columns)

    def partitions(self, name: str, columns: Sequence[str]) -> Partitions:
        """Return a reader of encoded columns of a table, which reads some partitions at a time.

        Args:
            name: name of the table, as in `EtlFiles.table`.
            columns: names of the columns to read.
        """
        with reading(self.files.table(name), "etl"):
            found = _EtlPartitions(self.files.partitions(name), columns)
            found.refuse_missing_columns()
            return found

    @cached_property
    def users(self) -> dict[str, Column]:
        """The encoded user table, with n_users + 1 rows; the last row is for unknown users."""
        return self.part("users")

    @cached_property
    def items(self) -> dict[str, Column]:
        """The encoded feature columns of the item table, n_items rows."""
        return self.part("items")

    @cached_property
    def raw_users(self) -> pa.Table:
        """Readable (not encoded) user columns, in the order of `users`; the last row has no id."""
        return self._raw("users")

    @cached_property
    def raw_items(self) -> pa.Table:
        """The readable (not encoded) item columns in the row order of `items`."""
        return self._raw("items")

    @cached_property
    def n_users(self) -> int:
        """Number of rows of the user table, without the one for unknown users."""
        with reading(self.files.table("users"), "etl"):
            return int(pq.read_metadata(self.files.raw("users")).num_rows) - 1

    @cached_property
    def n_items(self) -> int:
        """Number of rows of the item table."""
        with reading(self.files.table("items"), "etl"):
            return int(pq.read_metadata(self.files.raw("items")).num_rows)

    def row_groups(self, name: str) -> RowGroups[pa.Table]:
        """Return a reader of rows of an encoded table by their numbers, such as `users`."""
        return self._row_groups(name, self.files.parts(name))

    def raw_row_groups(self, name: str) -> RowGroups[pa.Table]:
        """Return a reader of rows of a readable table by their numbers, such as `users`."""
        return self._row_groups(name, [self.files.raw(name)])

    def _row_groups(self, name: str, files: Sequence[Path]) -> RowGroups[pa.Table]:
        with reading(self.files.table(name), "etl"):
            return RowGroups(files, pq.read_schema(files[0]).names, lambda group: group)

    def _raw(self, name: str) -> pa.Table:
        with reading(self.files.table(name), "etl"):
            return pq.read_table(self.files.raw(name))

    @cached_property
    def item_counts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Number of training interactions of each item, int64 [n_items]."""
        with reading(self.files.table("items"), "etl"):
            return self.raw_items[TRAIN_COUNT].to_numpy()

    @property
    def report(self) -> EtlReport:
        """The counts of rows that the etl stage read, dropped and wrote."""
        return read_json(self.files.report, EtlReport, "etl")

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabulary of each column whose values get codes."""
        with reading(self.files.vocabularies, "etl"):
            return vocabulary.read_all(self.folder)

    @cached_property
    def numbers(self) -> dict[str, NumberFact]:
        """The training mean and standard deviation of each number column."""
        with reading(self.files.statistics, "etl"):
            return statistics.read(self.folder)

    @cached_property
    def states(self) -> States:
        """What steps of `derive` learnt from the training rows, by derived column."""
        return fitted.read(self.folder)

    def interactions(self, *parts: str, among: Ints | None = None) -> Interactions:
        """Return the interactions of some parts of the split, each user's in order of time.

        Without times, the interactions of a user are in the random order that etl gave them, so
        that the last ones are a random sample.

        Args:
            parts: the parts of the split: train, valid or test.
            among: the users whose interactions are returned, int [n_users]: row numbers in the user
                table, or negative numbers for unknown users, distinct and rising; None for all
                users.
        """
        return self.in_order(self._as_written(*parts, among=among))

    def in_order(self, rows: Interactions) -> Interactions:
        """Return interactions in order of time, or in a random order if there are no times."""
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

    def _as_written(self, *parts: str, among: Ints | None = None) -> Interactions:
        """Return the interactions of some parts of the split, in the order of the files."""
        files = [path for part in parts for path in self.files.parts(part)]
        with reading(self.folder, "etl"):
            if among is None:
                rows = pq.read_table(files, columns=self._columns)
            else:
                rows = read_rows(files, self._columns, USER_ROW, among)
            return self._of_table(rows)

    def in_blocks(self, *parts: str) -> Iterator[Interactions]:
        """Yield the interactions of some parts of the split in blocks, in the order of the files.

        There is at least one block.
        """
        with reading(self.folder, "etl"):
            for path in [path for part in parts for path in self.files.parts(part)]:
                with pq.ParquetFile(path) as file:
                    for rows in file.iter_batches(BLOCK_ROWS, columns=self._columns):
                        yield self._of_table(pa.Table.from_batches([rows]))
                    if not file.metadata.num_rows:
                        yield self._of_table(file.read(self._columns))

    @property
    def _columns(self) -> list[str]:
        """The columns of the parts that interactions are read from."""
        return [USER_ROW, ITEM_ROW, *([self.recipe.time] if self.recipe.time else [])]

    def _of_table(self, rows: pa.Table) -> Interactions:
        return self._within(
            Interactions(
                users=rows[USER_ROW].to_numpy(),
                items=rows[ITEM_ROW].to_numpy(),
                times=rows[self.recipe.time].to_numpy() if self.recipe.time else None,
                n_users=self.n_users,
                n_items=self.n_items,
            )
        )

    def _within(self, rows: Interactions) -> Interactions:
        """Return the interactions of a file after checking their row numbers of users and items."""
        for table, found, n in (
            ("users", rows.users, rows.n_users),
            ("items", rows.items, rows.n_items),
        ):
            is_there = not len(found) or found.max() < n
            path = self.files.table(table)
            require(bool(is_there), path, "etl", "interactions name rows beyond it")
        return rows

    def histories(self, *parts: str) -> Ragged:
        """Return each user's items in some parts of the split, as row numbers, oldest first."""
        return self.interactions(*parts).of_known_users().histories()

    def also_seen(self, *parts: str) -> Interactions | None:
        """Return dropped interactions of some parts that count as seen; None if not stored."""
        path = self.files.seen
        if not path.is_file():
            return None
        wanted = [KNOWN["latest"].index(part) for part in parts]
        with reading(path, "etl"):
            rows = pq.read_table(path)
            known = np.isin(rows[PART].to_numpy(), wanted)
            return self._within(
                Interactions(
                    users=rows[USER_ROW].to_numpy()[known],
                    items=rows[ITEM_ROW].to_numpy()[known],
                    times=None,
                    n_users=self.n_users,
                    n_items=self.n_items,
                )
            )

    def evaluation_set(
        self, part: str, rules: ListRules, sample: UserSample = ALL_USERS
    ) -> EvaluationSet | None:
        """Return the queries and target items of a part of the split; None if the split lacks it.

        For the part train, users have the histories before the test part.

        Args:
            part: the held-out part: valid, test or train.
            rules: the rules for lists: which items are candidates, and whether seen items are left
                out.
            sample: the sample of the part's users who have queries.
        """
        parts = KNOWN.get(part, KNOWN["test"])
        held = self._as_written(part)  # beside the contexts, which are read as they stand
        if not len(held.users):
            return None
        rows, sampled_from = sample.rows_of(held.users)
        users = held.users[rows]
        among = None if sampled_from is None else np.unique(users)
        built = build_evaluation_set(
            users,
            held.items[rows],
            history=self.interactions(*parts, among=among),
            also_seen=self.also_seen(*parts),
            item_counts=self.item_counts,
            rules=rules,
            contexts={n: take_rows(column, rows) for n, column in self._contexts(part).items()},
        )
        return replace(built, sampled_from=sampled_from)

    def rows_of_sample(self, part: str, sample: UserSample) -> dict[str, Column]:
        """Return the encoded rows of the users of a part whom `evaluation_set` would measure."""
        columns = self.part(part)
        rows = sample.rows_of(as_array(columns[USER_ROW])).rows
        return {name: take_rows(column, rows) for name, column in columns.items()}

    def _contexts(self, part: str) -> dict[str, Column]:
        """Return the context features of a part that the query tower takes, in row order."""
        given = {n: f for n, f in self.recipe.features.items() if f.role == "context" and f.input}
        names = [column for n, f in given.items() for column in f.meaning.columns(n, f)]
        return read_columns(self.files.parts(part), names) if names else {}


def warn_of_changed_files(store: Store, data: Path) -> None:
    """Log a warning if raw data files have changed since etl, according to modification times.

    Args:
        store: the stages of the run.
        data: the folder of the raw files; files that do not exist are ignored.
    """
    manifest = store.manifest("etl")
    finished = datetime.fromisoformat(manifest.created).timestamp() + 1  # it has whole seconds
    report = read_json(EtlFiles(store.folder("etl")).report, EtlReport, "etl")
    paths = {name: data / name for name in report.files}
    changed = [n for n, path in paths.items() if path.is_file() and path.stat().st_mtime > finished]
    if changed:
        log.warning(
            "%s: written after etl read %s. Run %s again if its content is another one.",
            ", ".join(changed),
            "it" if len(changed) == 1 else "them",
            store.invocation.command("etl"),
        )
