"""Batches from several partitions: windows, the order of an epoch, and what batches have."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.core.collectives import Share
from models.core.column_names import BATCH_USER, HISTORY_AGES, POSITIVES
from models.core.columns import to_arrow
from models.core.partitions import ParquetPartitions, PartitionInMemory
from models.core.retriever import Ragged
from models.offers.batches import DayLoader, day_batches
from models.training.batches import Batches
from models.training.row_batches import RowLoader
from models.training.sequence_batches import SequenceLoader

#: 12 partitions; user u is in partition u % 12. Users have 1 to 12 rows.
N_USERS, N_PARTITIONS, N_ITEMS = 60, 12, 30
USERS = np.random.default_rng(0).permutation(np.repeat(np.arange(N_USERS), np.arange(60) % 12 + 1))
N = len(USERS)
ITEMS = np.random.default_rng(1).integers(0, N_ITEMS, N)
#: Rows are numbered in the order of the files.
ORDER = np.argsort(USERS % N_PARTITIONS, kind="stable")
USERS, ITEMS = USERS[ORDER], ITEMS[ORDER]
TIMES = np.random.default_rng(2).permutation(N) * 10_000
ROWS = {
    "row": np.arange(N),
    "pair": Ragged(np.arange(2 * N), np.arange(N + 1) * 2),
    "user_row": USERS,
    "item_row": ITEMS,
    "when": TIMES,
}
PARTITION = USERS % N_PARTITIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def rows(folder) -> ParquetPartitions:
    """Return the rows in partitions of two files each."""
    table = pa.table({name: to_arrow(column) for name, column in ROWS.items()})
    files = []
    for number in range(N_PARTITIONS):
        part = table.filter(pa.array(number == PARTITION))
        files.append([folder / f"{number}-{half}.parquet" for half in (0, 1)])
        middle = len(part) // 3
        for path, half in zip(files[-1], (part[:middle], part[middle:]), strict=True):
            pq.write_table(half, path, row_group_size=7)
    return ParquetPartitions(files, list(ROWS))


def window_bytes(rows: ParquetPartitions, partitions: float) -> int:
    """Return the bytes of so many partitions."""
    return int(rows.n_bytes.mean() * partitions)


#: The kinds of batches that must be cut from windows as they are from all rows.
LOADERS = {
    "rows": RowLoader(["row", "pair"], with_positives=True),
    "capped rows": RowLoader(["row"], max_per_user=4),
    "sequences": SequenceLoader(
        ["row", "pair"],
        "when",
        {"history": np.arange(N_ITEMS) + 100},
        n_users=N_USERS,
        max_len=4,
        with_ages=True,
        with_positives=True,
    ),
    "capped sequences": SequenceLoader(
        ["row"], "when", {}, n_users=N_USERS, max_len=4, max_per_user=6
    ),
}
TAKEN = {"capped rows": 4, "capped sequences": 6}


def made(rows, kind: str, *, partitions: float | None = 3.3, batch_size: int = 7) -> Batches:
    size = None if partitions is None else window_bytes(rows, partitions)
    return Batches(rows, LOADERS[kind], batch_size=batch_size, seed=1, window_bytes=size)


def order(batches: Batches) -> list[int]:
    """Go through an epoch as Keras does."""
    return [row for i in range(len(batches)) for row in batches[i]["row"].tolist()]


# ── the order of an epoch ──


@pytest.mark.parametrize("batch_size", [5, 7, 64, 1000])
@pytest.mark.parametrize("kind", LOADERS)
def test_an_epoch_takes_each_row_once_or_some_rows_of_each_user(rows, kind, batch_size):
    batches = made(rows, kind, batch_size=batch_size)
    number = len(batches)
    for _ in range(3):
        found = order(batches)
        assert len(set(found)) == len(found) == batches.rows_per_epoch
        counts = np.bincount(USERS, minlength=N_USERS)
        expected = np.minimum(counts, TAKEN.get(kind, N))
        np.testing.assert_array_equal(np.bincount(USERS[found], minlength=N_USERS), expected)
        sizes = [len(batches[i]["row"]) for i in range(number)]
        if "rows" in kind:
            assert set(sizes[:-1]) <= {batch_size}, "only the last batch is smaller"
        assert 0 < min(sizes) <= max(sizes) <= batch_size + 4
        batches.on_epoch_end()
        assert len(batches) == number, "the learning rate schedule needs the number of steps"


@pytest.mark.parametrize("kind", LOADERS)
def test_a_table_in_one_window_has_the_order_of_a_table_in_memory(rows, kind):
    in_memory = Batches(PartitionInMemory(ROWS), LOADERS[kind], batch_size=7, seed=1)
    one_window = made(rows, kind, partitions=6.2)  # two windows may be in memory
    assert len(one_window.windows) == 1
    for _ in range(3):
        for i in range(len(in_memory)):
            expected, found = in_memory[i], one_window[i]
            assert expected.keys() == found.keys()
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name])
        in_memory.on_epoch_end()
        one_window.on_epoch_end()


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", LOADERS)
def test_the_shares_of_all_ranks_are_the_batch_in_its_order(rows, kind, size, batch_size):
    whole = made(rows, kind, batch_size=batch_size)
    ranks = [made(rows, kind, batch_size=batch_size) for _ in range(size)]
    for number, batches in enumerate(ranks):
        batches.share = Share(number, size)
    assert {len(batches) for batches in ranks} == {len(whole)}
    for i in range(len(whole)):
        parts = [batches[i] for batches in ranks]
        assert whole[i].keys() == parts[0].keys()
        for name in ("row", "pair__values"):
            if name in whole[i]:
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(joined, whole[i][name])
        lengths = [len(part["row"]) for part in parts]
        assert max(lengths) - min(lengths) <= (1 if "rows" in kind else 8)


def test_rows_are_shuffled_within_windows_of_several_partitions(rows):
    batches = made(rows, "rows")
    seen = []
    for _ in range(30):
        place, found = 0, order(batches)
        assert 3 < len(batches.windows) < 7
        for window in batches.windows:
            n = int(rows.n_rows[window].sum())
            mine, place = found[place : place + n], place + n
            assert set(PARTITION[mine]) == set(window)
            shares = np.bincount(PARTITION[mine]) / n
            changes = (np.diff(PARTITION[mine]) != 0).mean()
            assert changes >= (1 - (shares**2).sum()) / 2, "partitions are mixed"
        seen.append(tuple(np.concatenate(batches.windows)))
        batches.on_epoch_end()
    assert len(set(seen)) == 30, "each epoch draws an order of the partitions"
    assert len({windows[0] for windows in seen}) > 6


@pytest.mark.parametrize("kind", LOADERS)
def test_a_resumed_epoch_is_the_one_that_would_have_come(rows, kind):
    went_on = made(rows, kind)
    for _ in range(2):
        order(went_on)
        went_on.on_epoch_end()
    resumed = made(rows, kind)
    resumed.start_epoch(2)
    assert order(resumed) == order(went_on)


@pytest.mark.parametrize("kind", LOADERS)
def test_batches_may_be_asked_for_in_any_order(rows, kind):
    batches, again = made(rows, kind), made(rows, kind)
    expected = [batches[i]["row"].tolist() for i in range(len(batches))]
    for i in np.random.default_rng(3).permutation(len(batches)):
        assert again[int(i)]["row"].tolist() == expected[i]


# ── what a batch has ──


@pytest.mark.parametrize("kind", ["rows", "sequences"])
def test_a_batch_of_two_windows_has_the_columns_and_positives_of_its_rows(rows, kind):
    batches = made(rows, kind, partitions=1.5, batch_size=50)
    for i in range(len(batches)):
        batch = batches[i]
        expected = [v for r in batch["row"] for v in (2 * r, 2 * r + 1)]
        assert batch["pair__values"].tolist() == expected
        offsets = batch[f"{POSITIVES}__offsets"]
        for row, user in zip(batch["row"], batch[BATCH_USER], strict=True):
            mine = batch[f"{POSITIVES}__values"][offsets[user] : offsets[user + 1]]
            assert sorted(mine) == sorted(ITEMS[USERS[row] == USERS])


def test_sequences_of_a_window_are_whole(rows):
    batches = made(rows, "sequences", partitions=1.5, batch_size=20)
    for i in range(len(batches)):
        batch, start = batches[i], 0
        for first, last in pairwise(batch["history__offsets"]):
            part = batch["row"][start : start + last - first + 1]
            start += len(part)
            mine = np.flatnonzero(USERS[part[0]] == USERS)
            mine = mine[np.argsort(TIMES[mine])].tolist()
            at = mine.index(part[0])
            assert mine[at : at + len(part)] == part.tolist()
            assert (
                batch["history__values"][first:last].tolist() == (ITEMS[part[:-1]] + 100).tolist()
            )
            ages = batch[f"{HISTORY_AGES}__values"][first:last]
            assert ages.tolist() == (TIMES[part[-1]] - TIMES[part[:-1]]).tolist()
        assert start == len(batch["row"])


def test_batches_of_days_come_from_windows(rows, monkeypatch):
    monkeypatch.setattr("models.offers.batches.WINDOW_BYTES", window_bytes(rows, 3.3))
    loader = DayLoader(["row"], "when", max_per_day=2, seed=1)
    batches = day_batches(rows, loader, batch_size=20, negatives=4, seed=1)
    assert len(batches.windows) > 3
    found = order(batches)
    visits = np.unique(np.stack([USERS, TIMES // 86_400]), axis=1, return_inverse=True)[1].ravel()
    assert np.bincount(visits[found]).max() == 2
    assert len(found) == np.minimum(np.bincount(visits), 2).sum() // 20 * 20
    for i in range(len(batches)):
        days = TIMES[batches[i]["row"]] // 86_400
        assert (np.diff(days) >= 0).all()


# ── reading ──


def test_a_window_is_read_while_the_one_before_it_is_used(rows, monkeypatch):
    read, wanted = [], ParquetPartitions.read

    def noted(self: ParquetPartitions, numbers: list[int]) -> object:
        read.append(list(numbers))
        return wanted(self, numbers)

    monkeypatch.setattr(ParquetPartitions, "read", noted)
    batches = made(rows, "rows", batch_size=4)
    assert read == [], "nothing is read before it is needed"
    batches[0]
    batches._next.result()
    windows = [window.tolist() for window in batches.windows]
    assert read == windows[:2]
    order(batches)
    assert read == windows, "each window is read once in an epoch"


def test_one_window_is_read_once_for_all_epochs(rows, monkeypatch):
    batches = made(rows, "rows", partitions=None)
    order(batches)
    monkeypatch.setattr(ParquetPartitions, "read", None)
    batches.on_epoch_end()
    assert len(order(batches)) == N
