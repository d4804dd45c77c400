"""Build the history of each interaction: the same user's earlier interactions.

With the recipe's `before: others`, for data without times, a history has all other interactions of
the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Bools, Ints, Ragged
from workflows.raw import spelling
from workflows.raw.dictionaries import combine, indices
from workflows.recipe import Events, History

Kinds = npt.NDArray[np.int8]
_DAY = 86_400


@dataclass(frozen=True)
class Windows:
    """The history of each interaction: a window of the same user's interactions in order of time.

    Attributes:
        order: row numbers of the interactions, sorted by user and then by time, int64 [n].
        start: position in `order` at which the window of each interaction begins, int64 [n].
        stop: position in `order` after the end of each interaction's window, int64 [n].
    """

    order: Ints
    start: Ints
    stop: Ints

    def gather(self, codes: pa.Array, rows: Ints) -> pa.ListArray:
        """Return the item codes in the histories of some interactions, oldest first.

        Args:
            codes: item code (or code of an item feature) of every interaction, int [n].
            rows: row numbers of the interactions whose histories are returned, int [m].
        """
        start, stop = self.start[rows], self.stop[rows]
        lengths = stop - start
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
        self_or_not = self.order[places] == np.repeat(rows, lengths)
        if self_or_not.any():  # with `before: others` the window contains the row itself
            places = places[~self_or_not]
            inside = np.concatenate([[0], np.cumsum(self_or_not)])
            offsets = offsets - inside[offsets]
        values = codes.take(pa.array(self.order[places]))
        return pa.ListArray.from_arrays(offsets.astype(np.int32), values)


def find_windows(
    users: Ints,
    times: npt.NDArray[np.int64],
    config: History,
    known: Bools | None = None,
) -> Windows:
    """Find the history window of each interaction: the same user's earlier interactions.

    Args:
        users: index of each interaction's user, int [n], in order of time.
        times: time of each interaction in seconds, int64 [n], rising; random numbers if the data
            has no time.
        config: length of histories, and which interactions count as earlier.
        known: mask of the interactions that `before: others` may use, bool [n]; None for all.
    """
    order, first, stop = _earlier(users, times, config)
    if config.before == "others" and known is not None:
        return _select(order, known[order], first, stop, config)
    place = np.arange(len(users), dtype=np.int32)
    # with `before: others` the row itself takes a place of the window; `gather` leaves it out
    own = (config.before == "others") & (place >= stop - config.max_len - 1)
    return _by_row(order, order, *_truncate(first, stop, config, longer=own))


def find_windows_by_kind(
    users: Ints, times: npt.NDArray[np.int64], kinds: Kinds, config: History
) -> list[Windows]:
    """Find the history windows of each interaction, one per kind of event (such as view or buy).

    Args:
        users: index of each interaction's user, int [n], in order of time.
        times: time of each interaction in seconds, int64 [n], rising.
        kinds: kind of each interaction as an index into `config.events.kinds`, int8 [n]; -1 for
            other kinds.
        config: length of histories, and which interactions count as earlier.
    """
    assert config.events is not None
    order, first, stop = _earlier(users, times, config)
    sorted_kinds = kinds[order]
    return [
        _select(order, sorted_kinds == kind, first, stop, config)
        for kind in range(len(config.events.kinds))
    ]


def final_histories(
    users: Ints, kinds: Kinds | None, config: History, *, n_users: int
) -> list[Ragged]:
    """Return, per kind of event, the interactions in each user's history after their last event.

    Args:
        users: index, in [0, n_users), of each interaction's user, int [n], in order of time.
        kinds: kind of each interaction, as for `find_windows_by_kind`; None if there is one kind.
        config: length of histories.
        n_users: number of users.
    """
    found = []
    for kind in range(len(config.events.kinds) if config.events else 1):
        rows = np.arange(len(users)) if kinds is None else np.flatnonzero(kinds == kind)
        whole = Ragged.from_pairs(users[rows], rows, n_lists=n_users)
        start, stop = _truncate(whole.offsets[:-1], whole.offsets[1:], config)
        offsets = np.concatenate([[0], np.cumsum(stop - start)])
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
        found.append(Ragged(whole.values[places], offsets))
    return found


def _select(order: Ints, chosen: Bools, first: Ints, stop: Ints, config: History) -> Windows:
    """Drop the interactions that a mask does not choose from history windows [first, stop)."""
    before = np.concatenate([[0], np.cumsum(chosen, dtype=np.int32)])
    return _by_row(order, order[chosen], *_truncate(before[first], before[stop], config))


def _truncate(
    first: Ints, stop: Ints, config: History, longer: Bools | int = 0
) -> tuple[Ints, Ints]:
    """Shorten history windows to `max_len` interactions, the latest or earliest (`keep`)."""
    if config.keep == "earliest":
        return first, np.minimum(stop, first + config.max_len)
    return np.maximum(first, stop - config.max_len - longer), stop


def _by_row(order: Ints, pool: Ints, start: Ints, stop: Ints) -> Windows:
    """Reorder history windows from the order of users and times to the order of the rows."""
    windows = Windows(pool, np.empty_like(start), np.empty_like(stop))
    windows.start[order], windows.stop[order] = start, stop
    return windows


def _earlier(users: Ints, times: npt.NDArray[np.int64], config: History) -> tuple[Ints, Ints, Ints]:
    """Sort interactions by user and time; return the order, and both ends of each history."""
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
    return order, first, stop


@dataclass(frozen=True)
class EventKinds:
    """The kind of event (such as view or buy) of each interaction of train, valid or test.

    Attributes:
        kinds: kind of event of each interaction as an index into `history.events.kinds`, int8 [n];
            -1 for other kinds.
        targets: whether the model learns to predict the interaction (it is a target), bool [n].
    """

    kinds: Kinds
    targets: Bools

    @classmethod
    def of(cls, column: pa.ChunkedArray, events: Events) -> EventKinds:
        """Return the kind of event of each interaction, from the column that holds it."""
        array = combine(column)
        texts, of_cells = array.dictionary, indices(array)
        named = [spelling.respell_one(kind, texts) for kind in events.kinds]
        places = pc.index_in(texts, value_set=pa.array(named, pa.string())).fill_null(-1)
        kinds = np.append(places.to_numpy(), -1).astype(np.int8)  # the last one is for null
        targets = pc.equal(texts, spelling.respell_one(events.target, texts)).to_numpy(
            zero_copy_only=False
        )
        return cls(kinds[of_cells], np.append(targets, False)[of_cells])


@dataclass(frozen=True)
class PartEvents:
    """The columns of the interactions of train, valid or test that are needed for histories.

    Attributes:
        users: index of each interaction's user, int32 [n].
        times: time of each interaction in seconds, int64 [n], rising. Data without times has random
            numbers in place of times, so that the latest rows are a random sample.
        codes: item feature column → vocabulary code of each interaction's item, int32 [n].
        kinds: kind of each interaction, as for `find_windows_by_kind`; None if histories do not
            distinguish kinds.
    """

    users: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]
    codes: dict[str, npt.NDArray[np.int32]]
    kinds: Kinds | None = None

    @classmethod
    def merge(cls, parts: Sequence[PartEvents]) -> tuple[PartEvents, Ints]:
        """Merge the interactions of several splits in order of time.

        Returns:
            The merged interactions, and the position of each of them in the concatenated splits,
            int32 [n].
        """
        times = np.concatenate([part.times for part in parts])
        order = np.argsort(times, kind="stable").astype(np.int32)
        kinds = [part.kinds for part in parts if part.kinds is not None]
        whole = cls(
            np.concatenate([part.users for part in parts])[order],
            times[order],
            {
                column: np.concatenate([part.codes[column] for part in parts])[order]
                for column in parts[0].codes
            },
            np.concatenate(kinds)[order] if kinds else None,
        )
        return whole, order


@dataclass(frozen=True)
class Histories:
    """The history (the user's other interactions) of each interaction of train, valid or test.

    Attributes:
        columns: history column → the windows and the codes of the interactions of this split and of
            earlier splits, in order of time.
        places: the position of each interaction of this split in the windows of `columns`, int [n].
    """

    columns: dict[str, tuple[Windows, pa.Array]]
    places: Ints

    @classmethod
    def of(cls, parts: Sequence[PartEvents], config: History) -> Histories:
        """Find the histories of the interactions of one part of the split, the last in `parts`.

        With `before: others` the history of a train interaction has all other train interactions of
        the user, and the history of a valid or test interaction has those of earlier splits only,
        as in evaluate.
        """
        merged, order = PartEvents.merge(parts)
        before = len(order) - len(parts[-1].times)
        if merged.kinds is None:
            known = order < before if len(parts) > 1 else None
            found = [find_windows(merged.users, merged.times, config, known)]
        else:
            found = find_windows_by_kind(merged.users, merged.times, merged.kinds, config)
        arrays = {column: pa.array(merged.codes[column]) for column in config.columns}
        each = [(windows, arrays[column]) for windows in found for column in config.columns]
        places = np.empty_like(order)
        places[order] = np.arange(len(order), dtype=np.int32)
        return cls(dict(zip(config.inputs, each, strict=True)), places[before:])

    def only(self, chosen: Bools) -> Histories:
        """Return the histories of only those interactions of the split that a mask chooses.

        Args:
            chosen: mask of the interactions whose histories are kept, bool [n].
        """
        return Histories(self.columns, self.places[chosen])

    def lists(self, part: slice, block: int) -> dict[str, pa.ChunkedArray]:
        """Return the history columns of some interactions: lists of item codes, oldest first.

        Args:
            part: range of the rows of the split whose histories are returned.
            block: number of rows of each chunk of the history columns.
        """
        rows = self.places[part]
        blocks = [rows[start : start + block] for start in range(0, max(1, len(rows)), block)]
        return {
            name: pa.chunked_array([windows.gather(codes, block) for block in blocks])
            for name, (windows, codes) in self.columns.items()
        }


@dataclass(frozen=True)
class FinalHistories:
    """The history of each user after their last event, for recommendations to known users.

    Attributes:
        users: distinct user indices, as in `PartEvents`, in rising order, int32 [n].
        columns: history column → the interactions of each user, and the item code of each
            interaction.
    """

    users: npt.NDArray[np.int32]
    columns: dict[str, tuple[Ragged, pa.Array]]

    @classmethod
    def of(cls, parts: Sequence[PartEvents], config: History) -> FinalHistories:
        """Build each user's final history from the events of train, valid and test."""
        merged, _ = PartEvents.merge(parts)
        users, numbers = np.unique(merged.users, return_inverse=True)
        found = final_histories(numbers, merged.kinds, config, n_users=len(users))
        arrays = {column: pa.array(merged.codes[column]) for column in config.columns}
        each = [(lists, arrays[column]) for lists in found for column in config.columns]
        return cls(users, dict(zip(config.inputs, each, strict=True)))

    def lists(self, part: slice) -> dict[str, pa.ListArray]:
        """Return the history columns of some users: lists of item codes, oldest first."""
        found = {}
        for name, (places, codes) in self.columns.items():
            offsets = places.offsets[part.start : part.stop + 1]
            values = codes.take(pa.array(places.values[offsets[0] : offsets[-1]]))
            starts = (offsets - offsets[0]).astype(np.int32)
            found[name] = pa.ListArray.from_arrays(starts, values)
        return found
