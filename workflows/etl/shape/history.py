"""What is known of a user at each interaction: lists of other interactions, never the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Ragged
from workflows.raw import spelling
from workflows.raw.dictionaries import combine, indices
from workflows.recipe import Events, History

Ints = npt.NDArray[np.integer]
Kinds = npt.NDArray[np.int8]
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
            codes: the codes of every interaction, int [n].
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


def windows(
    users: Ints,
    times: npt.NDArray[np.int64],
    config: History,
    known: npt.NDArray[np.bool_] | None = None,
) -> Windows:
    """Find each interaction's window.

    Args:
        users: any number for each user, int [n], in order of time.
        times: seconds, int64 [n], rising; numbers drawn where the data has no time.
        config: length, and what counts as earlier.
        known: the only interactions that `before: others` may show, bool [n]; None for all.
    """
    order, first, stop = _earlier(users, times, config)
    if config.before == "others" and known is not None:
        return _of_kind(order, known[order], first, stop, config)
    place = np.arange(len(users), dtype=np.int32)
    # among all the others the row itself takes a place, and is left out when they are gathered
    own = (config.before == "others") & (place >= stop - config.max_len - 1)
    return _by_row(order, order, *_cut(first, stop, config, longer=own))


def windows_by_kind(
    users: Ints, times: npt.NDArray[np.int64], kinds: Kinds, config: History
) -> list[Windows]:
    """Find each interaction's window among those of each kind.

    Args:
        users: any number for each user, int [n], in order of time.
        times: seconds, int64 [n], rising.
        kinds: place in `config.events.kinds`, int8 [n]; -1 for another kind.
        config: length, and what counts as earlier.
    """
    assert config.events is not None
    order, first, stop = _earlier(users, times, config)
    sorted_kinds = kinds[order]
    return [
        _of_kind(order, sorted_kinds == kind, first, stop, config)
        for kind in range(len(config.events.kinds))
    ]


def whole_by_kind(
    users: Ints, kinds: Kinds | None, config: History, *, n_users: int
) -> list[Ragged]:
    """Return all that each user did of each kind, as places in the log: what is known now.

    Args:
        users: each in [0, n_users), int [n], in order of time.
        kinds: as `windows_by_kind` takes them; None where all rows are of one kind.
        config: length.
        n_users: how many lists of each kind there are.
    """
    found = []
    for kind in range(len(config.events.kinds) if config.events else 1):
        rows = np.arange(len(users)) if kinds is None else np.flatnonzero(kinds == kind)
        whole = Ragged.from_pairs(users[rows], rows, n_lists=n_users)
        start, stop = _cut(whole.offsets[:-1], whole.offsets[1:], config)
        offsets = np.concatenate([[0], np.cumsum(stop - start)])
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
        found.append(Ragged(whole.values[places], offsets))
    return found


def _of_kind(
    order: Ints, chosen: npt.NDArray[np.bool_], first: Ints, stop: Ints, config: History
) -> Windows:
    """Narrow windows [first, stop) of `order` to the chosen places."""
    before = np.concatenate([[0], np.cumsum(chosen, dtype=np.int32)])
    return _by_row(order, order[chosen], *_cut(before[first], before[stop], config))


def _cut(
    first: Ints, stop: Ints, config: History, longer: npt.NDArray[np.bool_] | int = 0
) -> tuple[Ints, Ints]:
    """Cut windows to their length."""
    if config.keep == "earliest":
        return first, np.minimum(stop, first + config.max_len)
    return np.maximum(first, stop - config.max_len - longer), stop


def _by_row(order: Ints, pool: Ints, start: Ints, stop: Ints) -> Windows:
    """Return windows of `pool`, given in the order of `order`, in the order of rows."""
    windows = Windows(pool, np.empty_like(start), np.empty_like(stop))
    windows.start[order], windows.stop[order] = start, stop
    return windows


def _earlier(users: Ints, times: npt.NDArray[np.int64], config: History) -> tuple[Ints, Ints, Ints]:
    """Return rows sorted by user and time, and where in that order each one's window lies."""
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
class Happened:
    """What kind of event each row of a part is.

    Attributes:
        kinds: place in `history.events.kinds`, int8 [n]; -1 for another kind.
        targets: whether it is what is to be predicted, bool [n].
    """

    kinds: Kinds
    targets: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, column: pa.ChunkedArray, events: Events) -> Happened:
        """Look the texts of a column up."""
        array = combine(column)
        texts, of_cells = array.dictionary, indices(array)
        named = [spelling.as_in(kind, texts) for kind in events.kinds]
        places = pc.index_in(texts, value_set=pa.array(named, pa.string())).fill_null(-1)
        kinds = np.append(places.to_numpy(), -1).astype(np.int8)  # the last stands for null
        targets = pc.equal(texts, spelling.as_in(events.target, texts)).to_numpy(
            zero_copy_only=False
        )
        return cls(kinds[of_cells], np.append(targets, False)[of_cells])


@dataclass(frozen=True)
class Past:
    """What happened in one part of the split.

    Attributes:
        users: any number for each interaction's user, int32 [n].
        times: seconds, int64 [n], rising; numbers drawn for each row where the data has no time, so
            that the latest rows are rows drawn at random.
        codes: item column → its codes, int32 [n].
        kinds: as `windows_by_kind` takes them; None where lists are of all kinds.
    """

    users: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]
    codes: dict[str, npt.NDArray[np.int32]]
    kinds: Kinds | None = None

    @classmethod
    def joined(cls, pasts: Sequence[Past]) -> tuple[Past, Ints]:
        """Return some as one, in order of time, and where their rows were one after the other."""
        times = np.concatenate([past.times for past in pasts])
        order = np.argsort(times, kind="stable").astype(np.int32)
        kinds = [past.kinds for past in pasts if past.kinds is not None]
        whole = cls(
            np.concatenate([past.users for past in pasts])[order],
            times[order],
            {
                column: np.concatenate([past.codes[column] for past in pasts])[order]
                for column in pasts[0].codes
            },
            np.concatenate(kinds)[order] if kinds else None,
        )
        return whole, order


@dataclass(frozen=True)
class Histories:
    """The history columns of a part.

    Attributes:
        columns: history column → windows of the part's interactions and those of the parts before
            it, in order of time, and codes of these interactions.
        places: where the part's own ones are among them, int [n].
    """

    columns: dict[str, tuple[Windows, pa.Array]]
    places: Ints

    @classmethod
    def of(cls, pasts: Sequence[Past], config: History) -> Histories:
        """Make those of the last part; only it and the parts before it are looked at.

        Among all others a row of train knows the other rows of train, and a row of valid or test
        knows the rows of the parts before, none of its own: as evaluate asks.
        """
        past, order = Past.joined(pasts)
        before = len(order) - len(pasts[-1].times)
        if past.kinds is None:
            known = order < before if len(pasts) > 1 else None
            found = [windows(past.users, past.times, config, known)]
        else:
            found = windows_by_kind(past.users, past.times, past.kinds, config)
        arrays = {column: pa.array(past.codes[column]) for column in config.columns}
        each = [(of, arrays[column]) for of in found for column in config.columns]
        places = np.empty_like(order)
        places[order] = np.arange(len(order), dtype=np.int32)
        return cls(dict(zip(config.inputs, each, strict=True)), places[before:])

    def only(self, chosen: npt.NDArray[np.bool_]) -> Histories:
        """Return those of some of the part's interactions."""
        return Histories(self.columns, self.places[chosen])

    def lists(self, part: slice, block: int) -> dict[str, pa.ChunkedArray]:
        """Return the columns of some rows, oldest codes first, made in blocks of so many rows."""
        rows = self.places[part]
        blocks = [rows[start : start + block] for start in range(0, max(1, len(rows)), block)]
        return {
            name: pa.chunked_array([found.gather(codes, block) for block in blocks])
            for name, (found, codes) in self.columns.items()
        }


@dataclass(frozen=True)
class Latest:
    """What is known of each user after their last event.

    Attributes:
        users: rising, each once, int32 [n]; numbers as in `Past`.
        columns: history column → places of each user's interactions, and codes of all of these.
    """

    users: npt.NDArray[np.int32]
    columns: dict[str, tuple[Ragged, pa.Array]]

    @classmethod
    def of(cls, pasts: Sequence[Past], config: History) -> Latest:
        """Look at all parts."""
        past, _ = Past.joined(pasts)
        users, people = np.unique(past.users, return_inverse=True)
        found = whole_by_kind(people, past.kinds, config, n_users=len(users))
        arrays = {column: pa.array(past.codes[column]) for column in config.columns}
        each = [(of, arrays[column]) for of in found for column in config.columns]
        return cls(users, dict(zip(config.inputs, each, strict=True)))

    def lists(self, part: slice) -> dict[str, pa.ListArray]:
        """Return the columns of some users, oldest codes first."""
        found = {}
        for name, (places, codes) in self.columns.items():
            offsets = places.offsets[part.start : part.stop + 1]
            values = codes.take(pa.array(places.values[offsets[0] : offsets[-1]]))
            starts = (offsets - offsets[0]).astype(np.int32)
            found[name] = pa.ListArray.from_arrays(starts, values)
        return found
