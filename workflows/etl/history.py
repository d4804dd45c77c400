"""What a user did before each interaction: list columns, strictly earlier, never the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workflows.recipe import History

Ints = npt.NDArray[np.integer]
_DAY = 86_400


@dataclass(frozen=True)
class Windows:
    """For each interaction, which others of the same user it may know; never itself.

    Attributes:
        order: interactions sorted by user, then time, int64 [n].
        start: first place in `order` of each interaction's window, int64 [n].
        stop: one past its last, int64 [n].
    """

    order: Ints
    start: Ints
    stop: Ints

    def gather(self, codes: pa.Array, rows: Ints) -> pa.ListArray:
        """Return the codes of the windows of some interactions, oldest first.

        Args:
            codes: of every interaction, int [n].
            rows: which interactions, int [m].
        """
        start, stop = self.start[rows], self.stop[rows]
        lengths = stop - start
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
        self_or_not = self.order[places] == np.repeat(rows, lengths)
        if self_or_not.any():  # a window of all the others is one run of places around the row
            places = places[~self_or_not]
            inside = np.concatenate([[0], np.cumsum(self_or_not)])
            offsets = offsets - inside[offsets]
        values = codes.take(pa.array(self.order[places]))
        return pa.ListArray.from_arrays(offsets.astype(np.int32), values)


def windows(users: Ints, times: npt.NDArray[np.int64], config: History) -> Windows:
    """Find each interaction's window.

    Args:
        users: any number for each user, int [n], in order of time.
        times: seconds, int64 [n], rising.
        config: length, and what counts as earlier.
    """
    n = len(users)
    order = np.argsort(users, kind="stable").astype(np.int32)
    sorted_users = users[order]
    place = np.arange(n, dtype=np.int32)
    new = np.ones(n, bool)
    new[1:] = sorted_users[1:] != sorted_users[:-1]
    first = np.maximum.accumulate(np.where(new, place, 0))
    stop = place
    if config.before == "others":
        ends = np.append(np.flatnonzero(new)[1:], n).astype(np.int32)
        stop = np.repeat(ends, np.diff(np.append(np.flatnonzero(new), n))) if n else place
    elif config.before != "event":
        bucket = times[order] // (_DAY if config.before == "day" else 1)
        new[1:] |= bucket[1:] != bucket[:-1]
        stop = np.maximum.accumulate(np.where(new, place, 0))  # the first event of the bucket
    # among all the others the row itself takes a place, and is left out when they are gathered
    own = (config.before == "others") & (place >= stop - config.max_len - 1)
    start = np.maximum(first, stop - config.max_len - own)
    windows = Windows(order, np.empty_like(start), np.empty_like(stop))
    windows.start[order], windows.stop[order] = start, stop
    return windows


@dataclass(frozen=True)
class Past:
    """What happened in one part of the split.

    Attributes:
        users: any number for each interaction's user, int32 [n].
        times: seconds, int64 [n], rising.
        codes: item column → its codes, int32 [n].
    """

    users: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]
    codes: dict[str, npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Histories:
    """The history columns of a part.

    Attributes:
        windows: of its interactions and those of the parts before it, in order of time.
        codes: history column → codes of these interactions.
        places: where the part's own ones are among them, int [n].
    """

    windows: Windows
    codes: dict[str, pa.Array]
    places: Ints

    @classmethod
    def of(cls, pasts: Sequence[Past], config: History) -> Histories:
        """Make those of the last part; only it and the parts before it are looked at."""
        times = np.concatenate([past.times for past in pasts])
        order = np.argsort(times, kind="stable").astype(np.int32)
        users = np.concatenate([past.users for past in pasts])[order]
        codes = {
            name: pa.array(np.concatenate([past.codes[column] for past in pasts])[order])
            for name, column in config.inputs.items()
        }
        places = np.empty_like(order)
        places[order] = np.arange(len(order), dtype=np.int32)
        own = places[len(order) - len(pasts[-1].times) :]
        return cls(windows(users, times[order], config), codes, own)

    def lists(self, part: slice, block: int) -> dict[str, pa.ChunkedArray]:
        """Return the columns of some rows, oldest codes first, made in blocks of so many rows."""
        rows = self.places[part]
        blocks = [rows[start : start + block] for start in range(0, max(1, len(rows)), block)]
        return {
            name: pa.chunked_array([self.windows.gather(codes, block) for block in blocks])
            for name, codes in self.codes.items()
        }
