"""tastes: items are drawn by the softmax that the truth describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from samples import tastes
from samples.tastes import Audience, Catalogue, Shelves
from samples.truth import Months, read_truth, write_truth


@pytest.fixture
def world() -> tuple[Audience, Catalogue]:
    """Return 3 users with 2 styles, and 12 items on 4 of the 6 possible shelves."""
    rng = np.random.default_rng(5)
    shelves = np.array([[0, 3], [0, 4], [1, 3], [2, 4]])
    catalogue = Catalogue(
        shelves[rng.permutation(np.arange(12) % 4)],
        rng.normal(0, 1, 12),
        rng.normal(0, 1, (12, 2)),
        rng.normal(0, 1, (2, 2)),
    )
    likes = rng.normal(0, 1, (3, 5)).astype(np.float32)
    return Audience(likes, np.array([0, 1, 1])), catalogue


def chances(audience: Audience, catalogue: Catalogue) -> np.ndarray:
    """Return the softmax of the affinities, number by number."""
    scores = np.zeros((3, 12))
    for user in range(3):
        for item in range(12):
            scores[user, item] = catalogue.log_popularity[item]
            for value in catalogue.values[item]:
                scores[user, item] += audience.tastes[user, value]
            for axis in range(2):
                style = catalogue.styles[audience.styles[user], axis]
                scores[user, item] += style * catalogue.looks[item, axis]
    odds = np.exp(scores)
    return odds / odds.sum(axis=1, keepdims=True)


def test_items_are_drawn_by_the_softmax(world: tuple[Audience, Catalogue]) -> None:
    audience, catalogue = world
    counts = np.array([40_000, 0, 60_000])
    items = Shelves(catalogue).draw(audience, counts, np.random.default_rng(1))
    assert len(items) == 100_000
    for user, drawn in ((0, items[:40_000]), (2, items[40_000:])):
        expected = chances(audience, catalogue)[user] * len(drawn)
        met = np.bincount(drawn, minlength=12)
        # chi square with 11 degrees of freedom is below 31 with 99.9 %
        assert ((met - expected) ** 2 / expected).sum() < 31


def test_blocks_of_users_make_no_difference_to_the_chances(
    world: tuple[Audience, Catalogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    audience, catalogue = world
    monkeypatch.setattr(tastes, "_BLOCK", 1)
    items = Shelves(catalogue).draw(audience, np.full(3, 30_000), np.random.default_rng(1))
    for user in range(3):
        expected = chances(audience, catalogue)[user] * 30_000
        met = np.bincount(items[user * 30_000 :][:30_000], minlength=12)
        assert ((met - expected) ** 2 / expected).sum() < 31


def test_the_truth_holds_the_same_chances(
    world: tuple[Audience, Catalogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audience, catalogue = world
    monkeypatch.setattr("samples.truth._BLOCK", 16)  # rows come in several groups
    users, items = pa.array(["a", "b", "c"]), pa.array([str(n) for n in range(12)])
    months = Months(["1", "2"], np.arange(10.0).reshape(2, 5))
    write_truth(tmp_path, (users, audience), (items, catalogue), months)
    truth = read_truth(tmp_path)
    assert truth.users == users
    assert truth.items == items
    assert truth.months.to_pylist() == ["1", "2"]
    odds = np.exp(truth.user_tastes @ truth.item_tastes.T)
    expected = chances(audience, catalogue)
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), expected, rtol=1e-4)
    added = truth.month_tastes @ truth.item_tastes.T
    np.testing.assert_allclose(added[1], [5 + a + 5 + b for a, b in catalogue.values], rtol=1e-6)


def test_nobody_draws_an_item_twice(world: tuple[Audience, Catalogue]) -> None:
    audience, catalogue = world
    rng = np.random.default_rng(2)
    pairs = tastes.draw_distinct(Shelves(catalogue), audience, np.array([5, 0, 12]), rng)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    counts = np.bincount(pairs[:, 0], minlength=3)
    assert counts[0] == 5
    assert counts[1] == 0
    assert 8 <= counts[2] <= 12  # the rarest may not be met


def test_distinct_items_are_drawn_one_after_the_other(world: tuple[Audience, Catalogue]) -> None:
    audience, catalogue = world
    many = Audience(np.repeat(audience.tastes[:1], 30_000, axis=0), np.zeros(30_000, np.int64))
    rng = np.random.default_rng(3)
    pairs = tastes.draw_distinct(Shelves(catalogue), many, np.full(30_000, 2), rng)
    first, second = pairs[0::2, 1], pairs[1::2, 1]
    one = chances(audience, catalogue)[0]
    # the second, given the first, is drawn from the rest
    rest = one[:, None] * one / (1 - one[:, None])
    two = rest.sum(axis=0) - rest.diagonal()
    for drawn, expected in ((first, one * 30_000), (second, two * 30_000)):
        met = np.bincount(drawn, minlength=12)
        assert ((met - expected) ** 2 / expected).sum() < 31


def test_favourites_differ_and_follow_their_weights() -> None:
    weights = np.log([0.1, 0.2, 0.7])
    drawn = tastes.draw_favourites(weights, 20_000, 1, np.random.default_rng(1))[:, 0]
    assert np.bincount(drawn) / 20_000 == pytest.approx([0.1, 0.2, 0.7], abs=0.015)
    pairs = tastes.draw_favourites(weights, 100, 2, np.random.default_rng(1))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert tastes.draw_favourites(weights, 5, 9, np.random.default_rng(1)).shape == (5, 3)


def test_columns_are_chosen_by_their_shares() -> None:
    steps = np.cumsum([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], axis=1)
    rows = np.repeat([0, 1], [20_000, 100])
    drawn = tastes.choose(steps, rows, np.random.default_rng(1))
    assert np.bincount(drawn[:20_000], minlength=3) / 20_000 == pytest.approx(
        [0.25, 0.75, 0], abs=0.015
    )
    assert (drawn[20_000:] == 2).all()


def test_rare_things_are_met_once_at_least() -> None:
    rng = np.random.default_rng(1)
    assert tastes.draw_mask(1_000, 0.0116, rng).sum() == 12
    assert tastes.draw_mask(50, 0.002, rng).sum() == 1
    met = tastes.draw_kinds(100, (("a", 0.9), ("b", 0.1), (None, 0.0001)), rng)
    assert [met.count(kind) for kind in ("a", "b", None)] == [89, 10, 1]


def test_zipf_is_a_shuffled_power_of_the_rank() -> None:
    weights = np.exp(tastes.zipf(5, 2.0, np.random.default_rng(1)))
    assert sorted(weights) == pytest.approx([1 / 25, 1 / 16, 1 / 9, 1 / 4, 1])
