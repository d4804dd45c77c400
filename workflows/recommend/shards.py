"""Writes the lists of millions of users shard by shard, so that an interrupted call can resume.

Shards (files with the lists of some users) are written into a folder beside the folder of the
stage. Finished shards are reused only by a call with the same arguments. When all shards are
written, they are hard-linked into the stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from models.core import atomic
from models.core.retriever import NO_ITEM, Ints
from workflows.ground.column_names import ANSWERED_BY
from workflows.ground.errors import DataError
from workflows.stages.recommender import Answers
from workflows.stages.user_features import Users

#: Greatest number of users of a shard, and of rows of its lists: an array of text holds 2 GiB at
#: most.
SHARD, ROWS = 50_000, 1_000_000

Format = Literal["parquet", "jsonl"]


class ListCounts(msgspec.Struct, frozen=True):
    """Counts of recommendation lists by ranking method and by length.

    Attributes:
        rows: number of items in all lists.
        answered_by: method that ranked the items → number of lists.
        empty: number of lists without any item.
        short: number of lists that are shorter than `k`, but not empty.
    """

    rows: int
    answered_by: dict[str, int]
    empty: int
    short: int

    @classmethod
    def summed(cls, parts: Iterable[ListCounts]) -> ListCounts:
        """Return the sums of several counts of lists."""
        rows = empty = short = 0
        by: Counter[str] = Counter()
        for part in parts:
            by.update(part.answered_by)
            rows, empty, short = rows + part.rows, empty + part.empty, short + part.short
        return cls(rows, dict(by), empty, short)


class ListBatch(NamedTuple):
    """The recommendation lists of some users, including empty lists.

    Attributes:
        users: raw ids of the users, text [n_users].
        answered_by: for each user, the method that ranked the items, text [n_users].
        lengths: the lengths of the lists, int64 [n_users].
        rows: a table with one row per recommended item: list after list, each ordered by rank.
        k: the length that lists should have.
    """

    users: Users
    answered_by: Users
    lengths: Ints
    rows: pa.Table
    k: int

    @classmethod
    def of(cls, answers: Answers, rows: pa.Table, k: int) -> ListBatch:
        """Return a batch: a recommender's answers, and the table rows of their first `k` items."""
        lengths = (answers.top.items != NO_ITEM).sum(axis=1).clip(max=k)
        return cls(answers.users, answers.answered_by, lengths, rows, k)

    def counts(self) -> ListCounts:
        """Return the counts of the batch's lists, by ranking method and length."""
        empty = int((self.lengths == 0).sum())
        short = int((self.lengths < self.k).sum()) - empty
        return ListCounts(
            self.rows.num_rows, dict(Counter(self.answered_by.tolist())), empty, short
        )


class Share(NamedTuple):
    """The share of the shards that one of several processes writes: consecutive ones.

    Attributes:
        number: the number of the process, from 0 on.
        of: the number of processes.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read a share such as `0/4`, the first of four.

        Raises:
            DataError: the text is no share.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise DataError(
                f"--shard {text!r}: expected i/n, where n is the number of processes and i the "
                "number of this one, from 0 to n - 1: with four processes 0/4, 1/4, 2/4 and 3/4."
            )
        return cls(int(found[1]), int(found[2]))

    def among(self, n_shards: int) -> range:
        """Return the numbers of the shards of this share."""
        return range(self.number * n_shards // self.of, (self.number + 1) * n_shards // self.of)


class ShardFact(msgspec.Struct, frozen=True):
    """Counts, size and hash of a finished shard: a file with the lists of some users.

    Attributes:
        counts: the counts of the shard's lists.
        bytes: size of the shard's file.
        sha256: hash of the shard's file.
    """

    counts: ListCounts
    bytes: int
    sha256: str

    def is_of(self, part: Path) -> bool:
        """Return whether a file has the size and the hash of the finished shard."""
        return (
            part.is_file()
            and not part.is_symlink()
            and part.stat().st_size == self.bytes
            and atomic.sha256(part) == self.sha256
        )


def shard_size(length: int) -> int:
    """Return the number of users per shard, given the greatest number of items per user."""
    return max(1, min(SHARD, ROWS // length))


class Shards:
    """A folder of shards (files of users' lists); a later process writes the missing shards.

    Args:
        folder: the folder of the shards, which lies beside the folder of the stage.
        identity: a hash of all inputs of the lists; shards with another identity are removed.
        size: number of users of a shard.
    """

    def __init__(self, folder: Path, identity: str, *, size: int) -> None:
        self._root = folder
        self._size = size
        self._folder = folder / identity[:16]

    def write(
        self,
        n_users: int,
        lists: Callable[[slice], ListBatch],
        save: Callable[[ListBatch, Path], None],
        suffix: Format,
        share: Share | None = None,
    ) -> Iterator[ShardFact]:
        """Write the shards that are missing, and yield the counts, size and hash of each shard.

        Args:
            n_users: number of users in all shards together.
            lists: the function that makes the lists of a slice of the users.
            save: the function that writes a shard's file.
            suffix: the suffix of the files.
            share: the shards to write, while other processes write the others; None for all.
        """
        if share is None:
            self._remove_others()
        self._folder.mkdir(parents=True, exist_ok=True)
        numbers = (share or Share(0, 1)).among(self.count(n_users))
        for number in tqdm(numbers, unit="shard", disable=None):
            start = number * self._size
            part = self._folder / f"part-{number:05d}.{suffix}"
            fact = part.with_suffix(".json")  # comes last: with it the shard is whole
            known = _read_fact(fact)
            if known is None or not known.is_of(part):
                atomic.remove(fact)
                try:
                    known = _written(lists(slice(start, start + self._size)), part, save)
                    atomic.write_bytes(fact, msgspec.json.encode(known))
                except BaseException:
                    self._remove_useless(part, alone=share is None)
                    raise
            yield known

    def count(self, n_users: int) -> int:
        """Return the number of shards that users need."""
        return -(-n_users // self._size)

    def n_finished(self) -> int:
        """Return the number of finished shards, those of other processes included."""
        return sum(1 for _ in self._folder.glob("part-*.json"))

    def _remove_useless(self, part: Path, *, alone: bool) -> None:
        """Remove a shard file that is not finished, and the folder if it has no finished shard.

        Args:
            part: the shard file.
            alone: whether no other process writes into the folder.
        """
        with contextlib.suppress(OSError):
            atomic.remove(part)
            if alone and not any(self._folder.glob("part-*.json")):
                self.remove()

    def link(self, folder: Path, suffix: Format) -> None:
        """Hard-link all shard files into a folder, such as that of the stage."""
        folder.mkdir()
        for part in self._folder.glob(f"part-*.{suffix}"):
            try:
                os.link(part, folder / part.name)
            except OSError:  # some file systems have no hard links
                shutil.copyfile(part, folder / part.name)

    def remove(self) -> None:
        """Remove the folder of shards; the files that are linked into the stage remain."""
        atomic.remove(self._root)

    def _remove_others(self) -> None:
        """Remove shards that were written with other arguments."""
        if self._root.is_symlink():
            atomic.remove(self._root)
        if self._root.is_dir():
            for other in self._root.iterdir():
                if other != self._folder or other.is_symlink():
                    atomic.remove(other)


def _written(batch: ListBatch, part: Path, save: Callable[[ListBatch, Path], None]) -> ShardFact:
    """Write a shard file of lists to disk, and return its counts, size and hash."""
    aside = part.with_name(f".{part.name}")
    atomic.remove(aside)
    try:
        save(batch, aside)
        fact = ShardFact(batch.counts(), aside.stat().st_size, atomic.sha256(aside))
        atomic.put_in_place(aside, part)
    except BaseException:
        with contextlib.suppress(OSError):
            atomic.remove(aside)
        raise
    return fact


def _read_fact(path: Path) -> ShardFact | None:
    """Return a shard's counts, size and hash from a file; None if it is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ShardFact)
    except (OSError, msgspec.DecodeError):
        return None


def write_parquet(batch: ListBatch, path: Path) -> None:
    """Write users' lists as parquet, one row per recommended item; an empty list has no row."""
    pq.write_table(batch.rows, path)


def write_jsonl(
    batch: ListBatch, path: Path, *, key: str, history: Callable[[str], object] | None
) -> None:
    """Write users' lists as JSON lines: user, answered_by, items, and history if asked for.

    Args:
        batch: the lists; an empty list gets a line, too.
        path: the path of the file.
        key: the user id column.
        history: the function that returns the history of a user; None to leave histories out.
    """
    rows: Iterator[dict[str, Any]] = iter(batch.rows.drop([key, ANSWERED_BY]).to_pylist())
    each = zip(batch.users, batch.answered_by, batch.lengths.tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        for user, by, length in each:
            line = {key: user, ANSWERED_BY: by, "items": list(islice(rows, length))}
            if history:
                line["history"] = history(str(user))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
