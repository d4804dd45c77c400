"""Reads interactions by blocks of users, so that those of all users are never in memory.

A block has consecutive rows of the user table. The parts of the split are in other orders, so large
ones are first sorted on the disk: each interaction is appended to the file of a range of users, and
each file is read once, when its blocks are asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.core.retriever import Interactions, Ints
from workflows.stages.etl import Prepared

#: Largest number of users of a block, and of their interactions; a single user may have more.
USERS, ROWS = 1 << 16, 1 << 23
#: Number of interactions that are sorted in memory at a time. As many are not written to the disk.
_SORTED = 1 << 23


class UserBlock(NamedTuple):
    """Consecutive rows of the user table, with the interactions of these users.

    Attributes:
        users: the rows of the user table.
        known: the interactions with known items, each user's in order of time; users are numbered
            from the first of the block on.
    """

    users: slice
    known: Interactions


@dataclass(frozen=True)
class UserBlocks:
    """The interactions of some parts of the split, by blocks of users.

    Attributes:
        prepared: the content of the run's etl stage.
        parts: the parts of the split: train, valid or test.
        ends: the row of the user table after the last one of each block, int64 [n_blocks].
        n_rows: number of interactions of each block, int64 [n_blocks].
        item_counts: number of interactions of each item, those of unknown users included, int64.
    """

    prepared: Prepared
    parts: Sequence[str]
    ends: npt.NDArray[np.int64]
    n_rows: npt.NDArray[np.int64]
    item_counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, prepared: Prepared, parts: Sequence[str]) -> UserBlocks:
        """Count the interactions of each user, and divide the users into blocks."""
        of_users = np.zeros(prepared.n_users, np.int64)
        of_items = np.zeros(prepared.n_items, np.int64)
        for rows in prepared.in_blocks(*parts):
            of_items += rows.item_counts()
            known = rows.of_known_users()
            users, counts = np.unique(known.users, return_counts=True)
            of_users[users] += counts
        ends = _ends(of_users)
        totals = np.concatenate([[0], np.cumsum(of_users)])
        return cls(prepared, parts, ends, np.diff(totals[ends], prepend=0), of_items)

    def read(self, folder: Path) -> Iterator[UserBlock]:
        """Yield the blocks in the order of the user table; there is at least one.

        Args:
            folder: the folder for temporary files; they are removed at the end.
        """
        if self.n_rows.sum() <= _SORTED:
            rows = self.prepared.interactions(*self.parts).of_known_users()
            yield from self._cut(rows, slice(0, len(self.ends)))
            return
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            spill = _Spill(Path(aside), self._ranges())
            for rows in self.prepared.in_blocks(*self.parts):
                spill.write(rows.of_known_users(), self.ends)
            for number, blocks in enumerate(spill.ranges):
                rows = self.prepared.in_order(spill.read(number, like=rows))
                yield from self._cut(rows, blocks)

    def _ranges(self) -> list[slice]:
        """Divide the blocks into ranges, whose interactions are sorted in memory at a time."""
        totals, ranges, start = np.concatenate([[0], np.cumsum(self.n_rows)]), [], 0
        while start < len(self.n_rows):
            stop = int(np.searchsorted(totals, totals[start] + _SORTED, side="right")) - 1
            ranges.append(slice(start, max(stop, start + 1)))
            start = ranges[-1].stop
        return ranges

    def _cut(self, rows: Interactions, blocks: slice) -> Iterator[UserBlock]:
        """Yield some blocks of users, given all of their interactions in order of time."""
        order = np.argsort(rows.users, kind="stable")
        start = 0
        for number in range(blocks.start, blocks.stop):
            first = int(self.ends[number - 1]) if number else 0
            users = slice(first, int(self.ends[number]))
            mine = order[start : start + int(self.n_rows[number])]
            start += len(mine)
            yield UserBlock(
                users,
                replace(
                    rows,
                    users=rows.users[mine] - users.start,
                    items=rows.items[mine],
                    times=None if rows.times is None else rows.times[mine],
                    n_users=users.stop - users.start,
                ),
            )


def _ends(of_users: Ints) -> npt.NDArray[np.int64]:
    """Divide users into blocks, given their numbers of interactions; return where blocks end."""
    totals = np.concatenate([[0], np.cumsum(of_users)])
    ends: list[int] = []
    start, n = 0, len(of_users)
    while start < n or not ends:
        stop = int(np.searchsorted(totals, totals[start] + ROWS, side="right")) - 1
        ends.append(min(n, max(start + 1, min(stop, start + USERS))))
        start = ends[-1]
    return np.array(ends, np.int64)


class _Spill:
    """Files of interactions, each with those of a range of blocks, in the order of the parts.

    Args:
        folder: the folder of the files.
        ranges: the blocks of each file.
    """

    def __init__(self, folder: Path, ranges: Sequence[slice]) -> None:
        self.ranges = ranges
        self._paths = [folder / f"{number}.rows" for number in range(len(ranges))]
        for path in self._paths:
            path.touch()

    def write(self, rows: Interactions, ends: Ints) -> None:
        """Append interactions to the files of their users.

        Args:
            rows: interactions of known users.
            ends: the row of the user table after the last one of each block.
        """
        last = ends[[blocks.stop - 1 for blocks in self.ranges]]
        numbers = np.searchsorted(last, rows.users, side="right").astype(np.uint16)
        order = np.argsort(numbers, kind="stable")  # a radix sort, for uint16
        records = _records(rows)[order]
        stops = np.cumsum(np.bincount(numbers, minlength=len(self.ranges)))
        for path, start, stop in zip(self._paths, [0, *stops[:-1]], stops, strict=True):
            if stop > start:
                with path.open("ab") as file:
                    records[start:stop].tofile(file)

    def read(self, number: int, *, like: Interactions) -> Interactions:
        """Return the interactions of a file, and remove it.

        Args:
            number: the number of the file.
            like: other interactions, with the same columns.
        """
        records = np.fromfile(self._paths[number], _records(like).dtype)
        self._paths[number].unlink()
        times = None if like.times is None else np.ascontiguousarray(records["time"])
        users, items = (np.ascontiguousarray(records[name]) for name in ("user", "item"))
        return replace(like, users=users, items=items, times=times)


def _records(rows: Interactions) -> npt.NDArray[np.void]:
    """Return interactions as one array of records, which is written at once."""
    columns = [("user", rows.users), ("item", rows.items)]
    if rows.times is not None:
        columns.append(("time", rows.times))
    records = np.empty(len(rows.users), [(name, column.dtype) for name, column in columns])
    for name, column in columns:
        records[name] = column
    return records
