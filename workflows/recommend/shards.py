"""Lists of millions of users, a shard at a time: what an interrupted run has written is kept.

Shards are written into a folder beside the stage, which only the same question takes up again, and
are linked into the stage when all are there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from models import atomic

#: Users whose lists are made at a time, and rows of all their lists. An array of text holds 2 GiB.
SHARD, ROWS = 50_000, 1_000_000

Format = Literal["parquet", "jsonl"]


class Fact(msgspec.Struct, frozen=True):
    """What a shard holds.

    Attributes:
        rows: ranks of all lists.
        answered_by: who answered → how many lists.
        bytes: size of the shard's file.
        sha256: hash of the shard's file.
    """

    rows: int
    answered_by: dict[str, int]
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
        identity: of the question; shards of another are removed.
        size: users of a shard.
    """

    def __init__(self, folder: Path, identity: str, *, size: int) -> None:
        self._root = folder
        self._size = size
        self._folder = folder / identity[:16]

    def write(
        self,
        n_users: int,
        lists: Callable[[slice], pa.Table],
        save: Callable[[pa.Table, Path], None],
        suffix: Format,
    ) -> Iterator[Fact]:
        """Write the shards that are not there yet; yield the facts of all.

        Args:
            n_users: in all.
            lists: makes those of a slice of the users.
            save: writes one shard.
            suffix: of the files.
        """
        self._begin()
        starts = range(0, n_users, self._size)
        for number, start in enumerate(tqdm(starts, unit="shard", disable=None)):
            part = self._folder / f"part-{number:05d}.{suffix}"
            fact = part.with_suffix(".json")  # comes last: with it the shard is whole
            known = _read_fact(fact)
            if known is None or not known.is_of(part):
                atomic.remove(fact)
                table = lists(slice(start, start + self._size))
                known = _written(table, part, save)
                atomic.write_bytes(fact, msgspec.json.encode(known))
            yield known

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


def _written(table: pa.Table, part: Path, save: Callable[[pa.Table, Path], None]) -> Fact:
    """Write a shard, sync it, and return what describes it."""
    aside = part.with_name(f".{part.name}")
    atomic.remove(aside)
    save(table, aside)
    fact = Fact(len(table), sources(table), aside.stat().st_size, atomic.sha256(aside))
    atomic.put_in_place(aside, part)
    return fact


def _read_fact(path: Path) -> Fact | None:
    """Return what describes a shard; None where it is missing or cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Fact)
    except (OSError, msgspec.DecodeError):
        return None


def write_parquet(lists: pa.Table, path: Path) -> None:
    """Write a row a rank."""
    pq.write_table(lists, path)


def write_jsonl(
    lists: pa.Table, path: Path, *, key: str, history: Callable[[str], object] | None
) -> None:
    """Write a line a list: user, who answered, `items` with ranks, scores and labels, `history`.

    Args:
        lists: a row a rank.
        path: of the file.
        key: the user id column.
        history: gives what a user did; None for nothing.
    """
    with path.open("w", encoding="utf-8") as file:
        for line in _by_user(lists, key):
            if history:
                line["history"] = history(str(line[key]))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _by_user(lists: pa.Table, key: str) -> Iterator[dict[str, object]]:
    """Yield users with their items, from a row a rank."""
    line: dict[str, object] = {}
    items: list[dict[str, object]] = []
    for row in lists.to_pylist():
        user, by = row.pop(key), row.pop("answered_by")
        if row["rank"] == 1:
            if line:
                yield line
            items = []
            line = {key: user, "answered_by": by, "items": items}
        items.append(row)
    if line:
        yield line


def sources(lists: pa.Table) -> dict[str, int]:
    """Return who answered how many lists."""
    first = lists.filter(pc.equal(lists["rank"], 1))
    return dict(Counter(first["answered_by"].to_pylist()))
