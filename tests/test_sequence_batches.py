from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from models.core.column_names import HISTORY_AGES
from models.core.partitions import PartitionInMemory
from models.core.retriever import Ragged
from models.training.batches import Batches
from models.training.sequence_batches import SequenceLoader, cut

#: Users with 1, 0, 2, 9 and 4 rows; the rows of a user are not side by side.
OWNERS = np.random.default_rng(0).permutation(np.repeat([0, 2, 3, 4], [1, 2, 9, 4]))
N = len(OWNERS)
SEQUENCES = Ragged.from_pairs(OWNERS, np.arange(N), n_lists=5)
ITEMS = np.arange(N)[::-1] % 7
CODES = (np.arange(7) + 100)[ITEMS]
TIMES = np.arange(N) ** 3
ROWS = {
    "row": np.arange(N),
    "pair": Ragged(np.arange(2 * N), np.arange(N + 1) * 2),
    "user_row": OWNERS,
    "item_row": ITEMS,
    "when": TIMES,
}


def batches(
    *,
    max_len: int = 3,
    batch_size: int = 5,
    seed: int = 1,
    max_per_user: int | None = None,
    with_ages: bool = True,
) -> Batches:
    loader = SequenceLoader(
        ["row", "pair"],
        "when",
        {"history": np.arange(7) + 100},
        n_users=5,
        max_len=max_len,
        max_per_user=max_per_user,
        with_ages=with_ages,
    )
    return Batches(PartitionInMemory(ROWS), loader, batch_size=batch_size, seed=seed)


def lists(batch: dict[str, np.ndarray], name: str) -> list[list[float]]:
    values, offsets = batch[f"{name}__values"], batch[f"{name}__offsets"]
    return [values[a:b].tolist() for a, b in pairwise(offsets)]


@pytest.mark.parametrize(
    ("batch_size", "max_len"), [(2, 1), (4, 1), (4, 3), (7, 3), (21, 20), (100, 20)]
)
def test_an_epoch_holds_every_row_once_and_always_as_many_batches(batch_size, max_len):
    made = batches(batch_size=batch_size, max_len=max_len)
    n_batches = len(made)
    for _ in range(20):
        found = [row for i in range(len(made)) for row in made[i]["row"].tolist()]
        assert sorted(found) == list(range(N))
        assert all(len(made[i]["row"]) for i in range(len(made))), "no batch is empty"
        made.on_epoch_end()
        assert len(made) == n_batches


def test_the_history_of_a_row_is_the_rows_before_it_in_its_sequence():
    made = batches()
    for _ in range(5):
        for i in range(len(made)):
            batch = made[i]
            rows, start = batch["row"].tolist(), 0
            assert batch["pair__values"].tolist() == [v for r in rows for v in (2 * r, 2 * r + 1)]
            for codes, ages in zip(
                lists(batch, "history"), lists(batch, HISTORY_AGES), strict=True
            ):
                part = rows[start : start + len(codes) + 1]
                start += len(part)
                assert len(set(OWNERS[part])) == 1
                assert len(part) <= 4
                mine = SEQUENCES[OWNERS[part[0]]].tolist()
                at = mine.index(part[0])
                assert mine[at : at + len(part)] == part, "side by side, oldest first"
                assert codes == CODES[part[:-1]].tolist()
                assert ages == (TIMES[part[-1]] - TIMES[part[:-1]]).tolist()
            assert start == len(rows)
        made.on_epoch_end()


def test_of_a_user_with_many_rows_an_epoch_takes_some_in_a_row():
    made, seen = batches(max_per_user=4, batch_size=4), set()
    for _ in range(20):
        rows = [row for i in range(len(made)) for row in made[i]["row"].tolist()]
        assert len(rows) == len(set(rows)) == made.rows_per_epoch == 1 + 2 + 4 + 4
        places = np.sort([SEQUENCES[3].tolist().index(row) for row in rows if OWNERS[row] == 3])
        assert (np.diff(places) == 1).all()
        seen.add(places[0])
        made.on_epoch_end()
    assert len(seen) > 3


def test_without_times_there_are_no_ages():
    names = {name for name in batches(with_ages=False)[0] if not name.startswith("pair")}
    assert names == {"row", "history__values", "history__offsets"}


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    def order(made: Batches) -> list[int]:
        return [row for i in range(len(made)) for row in made[i]["row"].tolist()]

    first = batches()
    once = order(first)
    first.on_epoch_end()
    twice = order(first)
    assert once != twice
    assert order(batches(seed=2)) != once
    resumed = batches()
    resumed.start_epoch(1)
    assert order(resumed) == twice


def test_a_long_sequence_is_cut_elsewhere_in_each_epoch():
    starts, lengths = np.array([0, 0, 3, 10]), np.array([0, 3, 7, 21])
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        parts = cut(starts, lengths, 5, rng)
        assert (np.diff(parts, axis=1) >= 1).all()
        assert (np.diff(parts, axis=1) <= 5).all()
        rows = np.concatenate([np.arange(a, b) for a, b in parts])
        np.testing.assert_array_equal(rows, np.arange(31))
        assert [0, 3] in parts.tolist(), "a short one stays whole"
        seen.add(parts[1, 1])
    assert len(seen) == 5
