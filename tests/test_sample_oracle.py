"""oracle: marks on worlds small enough to rank by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from samples.oracle import HeldOut, Marks, marks, mini_batch_auc
from samples.truth import Truth

NO_MONTHS = pa.array([], pa.string())
Rows = list[tuple[str | None, str, str]]


def truth(*, months: bool) -> Truth:
    """Return: "a" likes x, then y; "b" likes z, then y; everybody likes w in winter."""
    items = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    return Truth(
        users=pa.array(["a", "b"]),
        items=pa.array(["x", "y", "z", "w"]),
        months=pa.array(["summer", "winter"]) if months else NO_MONTHS,
        user_tastes=np.array([[1, 0, 0], [0, 1, 0]], np.float32),
        item_tastes=items,
        month_tastes=np.array([[0, 0, -9], [0, 0, 9]], np.float32)[: 2 * months],
    )


def held_out(train: Rows, test: Rows) -> HeldOut:
    def table(rows: Rows) -> pa.Table:
        columns = [pa.array(column) for column in zip(*rows, strict=True)]
        return pa.table(columns, names=["user", "item", "month"])

    return HeldOut(table(train), table(test))


A_X, B_Y, A_W = ("a", "x", "summer"), ("b", "y", "summer"), ("a", "w", "winter")
TRAIN: Rows = [A_X, B_Y, B_Y, A_W]


def test_marks_without_months() -> None:
    nobody = (None, "x", "-")
    test: Rows = [("a", "x", "-"), ("a", "y", "-"), ("b", "z", "-"), ("b", "w", "-"), nobody]
    found = marks(truth(months=False), held_out(TRAIN, test), k=1)
    # popularity shows y to all, the oracle x to "a" and z to "b"; nobody's row does not count
    assert found == Marks(1, 4, 0.25, None, None, 0.5)


def test_marks_with_months() -> None:
    test: Rows = [A_X, ("b", "w", "winter"), B_Y, A_W]
    found = marks(truth(months=True), held_out(TRAIN, test), k=1)
    # popularity shows y; by month y in summer and w in winter; tastes alone x and z
    assert found == Marks(1, 4, 0.25, 0.75, 0.25, 0.75)


def test_seen_items_give_way_to_others() -> None:
    test: Rows = [("a", "y", "-"), ("b", "z", "-"), ("b", "x", "-")]
    found = marks(truth(months=False), held_out(TRAIN, test), k=1, exclude_seen=True)
    # "a" has x and w: y is next for both rankings; "b" has y: popularity is left with x
    assert found == Marks(1, 3, pytest.approx(2 / 3), None, None, pytest.approx(2 / 3))


def test_a_long_list_holds_everything() -> None:
    test: Rows = [("a", "w", "-"), ("b", "x", "-")]
    assert marks(truth(months=False), held_out(TRAIN, test), k=4).oracle == 1
    assert marks(truth(months=False), held_out(TRAIN, test), k=4).popularity == 1


def test_auc_is_that_of_all_pairs_in_the_batch() -> None:
    rng = np.random.default_rng(1)
    tastes, of_items = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    world = Truth(
        *(pa.array(list("abcd")), pa.array(list("uvwxyz")), NO_MONTHS),
        *(tastes.astype(np.float32), of_items.astype(np.float32), np.zeros((0, 3), np.float32)),
    )
    users, items = rng.integers(0, 4, 61), rng.integers(0, 6, 61)
    rows: Rows = [("abcd"[u], "uvwxyz"[i], "-") for u, i in zip(users, items, strict=True)]
    counts = np.bincount(items[:21], minlength=6)
    odds = np.exp(tastes @ of_items.T)
    chances = odds / odds.sum(axis=1, keepdims=True)
    mean = np.mean([chances[u] for u in users[21:]], axis=0)
    popular: tuple[list[float], list[float]] = ([], [])
    known: tuple[list[float], list[float]] = ([], [])
    for start in range(21, 61, 5):
        for i in range(start, start + 5):
            for j in range(start, start + 5):
                if i == j or items[i] != items[j]:
                    popular[i == j].append(counts[items[j]])
                    known[i == j].append(chances[users[i], items[j]] / mean[items[j]])
    expected = []
    for negative, positive in (popular, known):
        wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        expected.append(np.mean(wins))
    assert mini_batch_auc(world, held_out(rows[:21], rows[21:])) == pytest.approx(expected)
