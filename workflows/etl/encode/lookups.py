"""Look up the vocabulary codes of texts, and the rows of users and items in their tables.

One object serves all interactions in memory, another one those of one partition on disk: there the
codes of most columns were looked up before, for all partitions at once.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.reserved_codes import NULL
from workflows.etl.encode.ops import CodeTable, Int32s
from workflows.etl.read.routing import assign_partitions
from workflows.etl.read.spilled_log import read_shared_texts, read_texts, write_texts
from workflows.etl.shape import split
from workflows.ground.vocabulary import FOLDER, Vocabulary
from workflows.raw import dictionaries
from workflows.recipe import Recipe

Value = TypeVar("Value")


class Lookups(Protocol):
    """What the writer of part files looks up."""

    def codes(self, column: str, texts: pa.StringArray) -> CodeTable:
        """Return the vocabulary codes of the distinct texts of a column."""
        ...

    def rows(self, key: str, texts: pa.StringArray) -> Int32s:
        """Return the row in the user or item table of each distinct id; a last entry is for null.

        An id that the table lacks has -1; or a number of its own below 0 if it is a user of valid
        or test, so that the histories of different unknown users are not mixed.
        """
        ...

    def user_ids(self, rows: npt.NDArray[np.int32]) -> pa.Array:
        """Return the id of each user row, as `rows` returns it."""
        ...

    def known(self, key: str) -> tuple[pa.StringArray, Int32s]:
        """Return ids of users (or items) that have rows, as `rows` returns them, and the rows."""
        ...


class WholeLookups:
    """Looks up the texts of interactions in memory.

    Args:
        recipe: the recipe, which names the columns of ids.
        vocabularies: text column → its vocabulary.
        users, items: ids of the user and the item table, in the order of their rows.
        unknown: ids of valid and test users that the user table lacks.
    """

    def __init__(
        self,
        recipe: Recipe,
        vocabularies: Mapping[str, Vocabulary],
        users: pa.StringArray,
        items: pa.StringArray,
        unknown: pa.StringArray,
    ) -> None:
        self._vocabularies = vocabularies
        self._user = recipe.user_id
        self._ids = {recipe.user_id: users, recipe.item_id: items}
        self.unknown = unknown
        self._known: dict[str, list[tuple[pa.Array, CodeTable]]] = defaultdict(list)
        self._places: dict[str, list[tuple[pa.Array, Int32s]]] = defaultdict(list)

    def codes(self, column: str, texts: pa.StringArray) -> CodeTable:
        """Return the vocabulary codes of the distinct texts of a column (cached for all splits)."""
        vocabulary = self._vocabularies[column]
        return _reuse(self._known[column], texts, lambda: CodeTable.of(vocabulary, texts))

    def rows(self, key: str, texts: pa.StringArray) -> Int32s:
        """Return the row in the user or item table of each distinct id of a column (cached)."""
        unknown = self.unknown if key == self._user else None
        of = self._ids[key]
        return _reuse(self._places[key], texts, lambda: find_rows(texts, of, unknown))

    def user_ids(self, rows: npt.NDArray[np.int32]) -> pa.Array:
        """Return the id of each user row; -n stands for the n-th unknown user."""
        ids, _ = self.known(self._user)
        n_known = len(self._ids[self._user])
        return ids.take(pa.array(np.where(rows < 0, n_known - 1 - rows, rows)))

    def known(self, key: str) -> tuple[pa.StringArray, Int32s]:
        """Return ids of users (or items) that have rows, and the rows."""
        ids = self._ids[key]
        rows = np.arange(len(ids), dtype=np.int32)
        if key != self._user:
            return ids, rows
        others = -1 - np.arange(len(self.unknown), dtype=np.int32)
        return pa.concat_arrays([ids, self.unknown]), np.concatenate([rows, others])


class PartitionLookups:
    """Looks up the texts of interactions of one partition on disk.

    Args:
        files: the files that hold what was looked up for all partitions.
        partition: number of the partition.
        unknown: ids of valid and test users of the partition that the user table lacks.
        first: number of unknown users of earlier partitions.
    """

    def __init__(
        self, files: LookupFiles, partition: int, unknown: pa.StringArray, first: int
    ) -> None:
        self._files = files
        self._partition = partition
        self._unknown = unknown
        self._first = first

    def codes(self, column: str, texts: pa.StringArray) -> CodeTable:
        """Return the vocabulary codes of the distinct texts of a column."""
        files = self._files
        size, oov_buckets = files.sizes[column]
        if column == files.user:
            values, codes = files.of_partition("codes", self._partition)
            few = Vocabulary(values, np.zeros(len(values), np.int64), oov_buckets=oov_buckets)
            found = few.encode(texts)
            is_known = found >= few.first_code
            found[is_known] = codes[found[is_known] - few.first_code]
            return CodeTable(np.append(found, np.int32(NULL)), size, oov_buckets)
        if column in files.shared and dictionaries.are_same(texts, files.texts(column)):
            return CodeTable(np.load(files.codes_path(column)), size, oov_buckets)
        return CodeTable.of(read_vocabulary(files.folder, column), texts)

    def rows(self, key: str, texts: pa.StringArray) -> Int32s:
        """Return the row in the user or item table of each distinct id, and -1 for null."""
        files = self._files
        if key == files.user:
            ids, places = files.of_partition("users", self._partition)
            found = find_rows(texts, ids, None)
            found = np.where(found < 0, -1, np.append(places, np.int32(-1))[found])
            others = find_rows(texts, self._unknown, None)
            return np.where(others >= 0, -1 - self._first - others, found).astype(np.int32)
        if key in files.shared and dictionaries.are_same(texts, files.texts(key)):
            rows: Int32s = np.load(files.item_rows)
            return rows
        return find_rows(texts, read_texts(files.item_ids), None)

    def user_ids(self, rows: npt.NDArray[np.int32]) -> pa.Array:
        """Return the id of each user row; -n stands for the n-th unknown user."""
        ids, of_ids = self.known(self._files.user)
        order = np.argsort(of_ids)
        return ids.take(pa.array(order[np.searchsorted(of_ids[order], rows)]))

    def known(self, key: str) -> tuple[pa.StringArray, Int32s]:
        """Return ids of users of the partition (or of items) that have rows, and the rows."""
        files = self._files
        if key != files.user:
            ids = read_texts(files.item_ids)
            return ids, np.arange(len(ids), dtype=np.int32)
        ids, rows = files.of_partition("users", self._partition)
        others = -1 - self._first - np.arange(len(self._unknown), dtype=np.int32)
        return pa.concat_arrays([ids, self._unknown]), np.concatenate([rows, others])


@dataclass(frozen=True)
class LookupFiles:
    """Files that hold what the partitions of a log look up.

    Attributes:
        folder: folder of the stage, with its vocabularies.
        aside: folder of the files.
        user, item: names of the columns of ids.
        shared: column → path of its distinct texts, which have one number in all partitions.
        sizes: text column → size and number of unseen codes of its vocabulary.
    """

    folder: Path
    aside: Path
    user: str
    item: str
    shared: dict[str, Path]
    sizes: dict[str, tuple[int, int]]

    def texts(self, column: str) -> pa.StringArray:
        """Return the distinct texts of a shared column."""
        return read_shared_texts(self.shared[column])

    def codes_path(self, column: str) -> Path:
        """The path of the codes of the texts of a shared column."""
        return self.shared[column].with_suffix(".codes.npy")

    @property
    def item_rows(self) -> Path:
        """The path of the rows of the texts of the item id, if they are shared."""
        return self.aside / "item-rows.npy"

    @property
    def item_ids(self) -> Path:
        """The path of the ids of the item table."""
        return self.aside / "item-ids.texts"

    def of_partition(self, name: str, partition: int) -> tuple[pa.StringArray, Int32s]:
        """Return ids of users of one partition, and their codes (`codes`) or rows (`users`)."""
        path = self.aside / f"{name}-{partition}"
        return read_texts(path.with_suffix(".texts")), np.load(path.with_suffix(".npy"))

    def write(
        self, fitted: Mapping[str, Vocabulary], users: pa.Array, items: pa.Array, n: int
    ) -> None:
        """Look up what n partitions share, and write it.

        Args:
            fitted: text column → its vocabulary.
            users, items: ids of the user table, without the unknown user, and of the item table.
            n: number of partitions.
        """
        self._write_by_partition("users", users, np.arange(len(users), dtype=np.int32), n)
        if self.user in fitted:
            of = fitted[self.user]
            codes = np.arange(of.first_code, of.size, dtype=np.int32)
            self._write_by_partition("codes", of.values, codes, n)
        for column in self.shared:
            if column in fitted:
                codes = CodeTable.of(fitted[column], self.texts(column)).codes
                np.save(self.codes_path(column), codes)
        write_texts(items, self.item_ids)
        if self.item in self.shared:
            np.save(self.item_rows, find_rows(self.texts(self.item), items, None))

    def _write_by_partition(self, name: str, ids: pa.Array, numbers: Int32s, n: int) -> None:
        owners = assign_partitions(ids, n)
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=n))
        for partition, some in enumerate(np.split(order, ends[:-1])):
            path = self.aside / f"{name}-{partition}"
            write_texts(ids.take(pa.array(some)).cast(pa.string()), path.with_suffix(".texts"))
            np.save(path.with_suffix(".npy"), numbers[some])


@functools.lru_cache(maxsize=256)
def read_vocabulary(folder: Path, column: str) -> Vocabulary:
    """Return the vocabulary of one column from the folder of the stage; that of users is large."""
    return Vocabulary.read(folder / FOLDER / f"{column}.parquet")


def _reuse(
    found: list[tuple[pa.StringArray, Value]], texts: pa.StringArray, make: Callable[[], Value]
) -> Value:
    """Return a function's result for given distinct texts from a cache, or compute and cache it."""
    for known, value in found:
        if known.equals(texts):
            return value
    found.append((texts, make()))
    return found[-1][1]


def find_unknown_users(
    parts: Mapping[split.Part, pa.Table], key: str, known: pa.StringArray
) -> pa.StringArray:
    """Return the ids of valid and test users that the user table lacks, in order of appearance."""
    found = [pa.array([], pa.string())]
    for part in split.PARTS[1:]:
        column = dictionaries.combine(parts[part][key])
        if len(column):
            ids = column.dictionary.take(pc.unique(column.indices))
            found.append(ids.filter(pc.invert(pc.is_in(ids, value_set=known))))
    return pc.unique(pa.chunked_array(found))


def find_rows(ids: pa.StringArray, of: pa.StringArray, unknown: pa.StringArray | None) -> Int32s:
    """Return the table row (user or item) of each distinct id; a last entry, -1, is for null.

    Args:
        ids: distinct user or item ids of interactions.
        of: the ids of the user or item table, in the order of its rows.
        unknown: ids that the table lacks; the n-th of them gets row -n, so that histories of
            different unknown users are not mixed.
    """
    rows = pc.index_in(ids, value_set=of)
    if unknown is not None:
        number = pc.index_in(ids, value_set=unknown)
        rows = pc.coalesce(rows, pc.subtract(pa.scalar(-1, pa.int32()), number))
    return np.append(rows.fill_null(-1).to_numpy(), np.int32(-1))
