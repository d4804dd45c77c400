"""What a user did before each interaction: list columns, strictly earlier, never the target."""

from __future__ import annotations

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
    order = np.argsort(users, kind="stable")
    sorted_users = users[order]
    place = np.arange(len(users))
    first = np.searchsorted(sorted_users, sorted_users, side="left")
    stop = place
    if config.before == "others":
        stop = np.searchsorted(sorted_users, sorted_users, side="right")
    elif config.before != "event":
        bucket = times[order] // (_DAY if config.before == "day" else 1)
        new = np.ones(len(users), bool)
        new[1:] = (bucket[1:] != bucket[:-1]) | (sorted_users[1:] != sorted_users[:-1])
        stop = np.maximum.accumulate(np.where(new, place, 0))  # the first event of the bucket
    # among all the others the row itself takes a place, and is left out when they are gathered
    own = (config.before == "others") & (place >= stop - config.max_len - 1)
    start = np.maximum(first, stop - config.max_len - own)
    windows = Windows(order, np.empty_like(start), np.empty_like(stop))
    windows.start[order], windows.stop[order] = start, stop
    return windows
