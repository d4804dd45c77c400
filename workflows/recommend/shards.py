"""Lists of millions of users, a shard at a time: what an interrupted run has written is kept.

Shards are written into a folder beside the stage, which only the same question takes up again, and
are linked into the stage when all are there.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from workflows.stages.export import Answers, Users

#: Users whose lists are made at a time, and rows of all their lists. An array of text holds 2 GiB.
SHARD, ROWS = 50_000, 1_000_000

Format = Literal["parquet", "jsonl"]


class Counts(msgspec.Struct, frozen=True):
    """How many lists there are, and how long they are.

    Attributes:
        rows: ranks of all lists.
        answered_by: who answered → how many lists.
        empty: lists without an item.
        short: other lists that are shorter than asked.
    """

    rows: int
    answered_by: dict[str, int]
    empty: int
    short: int

    @classmethod
    def summed(cls, parts: Iterable[Counts]) -> Counts:
        """Return the counts of all parts together."""
        rows = empty = short = 0
        by: Counter[str] = Counter()
        for part in parts:
            by.update(part.answered_by)
            rows, empty, short = rows + part.rows, empty + part.empty, short + part.short
        return cls(rows, dict(by), empty, short)


class Listed(NamedTuple):
    """The lists of some users, empty ones among them.

    Attributes:
        users: raw ids, text [n_users].
        by: what answered (two-tower, raw features or fallback), text [n_users].
        lengths: the lengths of the lists, int64 [n_users].
        rows: a row a rank, list after list.
        k: length that was asked for.
    """

    users: Users
    by: Users
    lengths: Ints
    rows: pa.Table
    k: int

    @classmethod
    def of(cls, answers: Answers, rows: pa.Table, k: int) -> Listed:
        """Return answers with the rows of their lists, of which the first `k` were kept."""
        lengths = (answers.top.items != NO_ITEM).sum(axis=1).clip(max=k)
        return cls(answers.users, answers.by, lengths, rows, k)

    def counts(self) -> Counts:
        """Count the lists."""
        empty = int((self.lengths == 0).sum())
        short = int((self.lengths < self.k).sum()) - empty
        return Counts(self.rows.num_rows, dict(Counter(self.by.tolist())), empty, short)


class Fact(msgspec.Struct, frozen=True):
    """What a shard holds.

    Attributes:
        counts: the counts of its lists.
        bytes: size of the shard's file.
        sha256: hash of the shard's file.
    """

    counts: Counts
    bytes: int
    sha256: str

    def is_of(self, part: Path) -> bool:
        """Say whether a file is the one that was described, by its size and hash."""
        return (
            part.is_file()
            and not part.is_symlink()
            and part.stat().st_size == self.bytes
            and atomic.sha256(part) == self.sha256
        )


def shard_size(length: int) -> int:
    """Return of how many users a shard is, by the length of the lists that are retrieved."""
    return max(1, min(SHARD, ROWS // length))


class Shards:
    """A folder of shards that grows, whichever process works at it.

    Args:
        folder: beside the stage.
        identity: the identity of the question; shards of another are removed.
        size: users of a shard.
    """

    def __init__(self, folder: Path, identity: str, *, size: int) -> None:
        self._root = folder
        self._size = size
        self._folder = folder / identity[:16]

    def write(
        self,
        n_users: int,
        lists: Callable[[slice], Listed],
        save: Callable[[Listed, Path], None],
        suffix: Format,
    ) -> Iterator[Fact]:
        """Write the shards that are not there yet; yield the facts of all.

        Args:
            n_users: in all.
            lists: makes those of a slice of the users.
            save: writes one shard.
            suffix: the suffix of the files.
        """
        self._begin()
        starts = range(0, n_users, self._size)
        for number, start in enumerate(tqdm(starts, unit="shard", disable=None)):
            part = self._folder / f"part-{number:05d}.{suffix}"
            fact = part.with_suffix(".json")  # comes last: with it the shard is whole
            known = _read_fact(fact)
            if known is None or not known.is_of(part):
                atomic.remove(fact)
                try:
                    known = _written(lists(slice(start, start + self._size)), part, save)
                    atomic.write_bytes(fact, msgspec.json.encode(known))
                except BaseException:
                    self._remove_useless(part)
                    raise
            yield known

    def _remove_useless(self, part: Path) -> None:
        """Remove a shard without a fact, and the folder if it holds no whole shard."""
        with contextlib.suppress(OSError):
            atomic.remove(part)
            if not any(self._folder.glob("part-*.json")):
                self.remove()

    def link(self, folder: Path, suffix: Format) -> None:
        """Put all shards into a folder."""
        folder.mkdir()
        for part in self._folder.glob(f"part-*.{suffix}"):
            try:
                os.link(part, folder / part.name)
            except OSError:  # some file systems have no hard links
                shutil.copyfile(part, folder / part.name)

    def remove(self) -> None:
        """Remove the shards here; those that were linked stay."""
        atomic.remove(self._root)

    def _begin(self) -> None:
        if self._root.is_symlink():
            atomic.remove(self._root)
        if self._root.is_dir():
            for other in self._root.iterdir():
                if other != self._folder or other.is_symlink():
                    atomic.remove(other)
        self._folder.mkdir(parents=True, exist_ok=True)


def _written(listed: Listed, part: Path, save: Callable[[Listed, Path], None]) -> Fact:
    """Write a shard, sync it, and return what describes it."""
    aside = part.with_name(f".{part.name}")
    atomic.remove(aside)
    try:
        save(listed, aside)
        fact = Fact(listed.counts(), aside.stat().st_size, atomic.sha256(aside))
        atomic.put_in_place(aside, part)
    except BaseException:
        with contextlib.suppress(OSError):
            atomic.remove(aside)
        raise
    return fact


def _read_fact(path: Path) -> Fact | None:
    """Return what describes a shard; None where it is missing or cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Fact)
    except (OSError, msgspec.DecodeError):
        return None


def write_parquet(listed: Listed, path: Path) -> None:
    """Write a row a rank; a user without an item has no row."""
    pq.write_table(listed.rows, path)


def write_jsonl(
    listed: Listed, path: Path, *, key: str, history: Callable[[str], object] | None
) -> None:
    """Write a line a list: user, who answered, `items` with ranks, scores and labels, `history`.

    Args:
        listed: the lists; an empty one gets a line, too.
        path: the path of the file.
        key: the user id column.
        history: gives what a user did; None for nothing.
    """
    rows: Iterator[dict[str, Any]] = iter(listed.rows.drop([key, "answered_by"]).to_pylist())
    each = zip(listed.users, listed.by, listed.lengths.tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        for user, by, length in each:
            line = {key: user, "answered_by": by, "items": list(islice(rows, length))}
            if history:
                line["history"] = history(str(user))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
