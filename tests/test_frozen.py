"""Frozen towers: popularity and content as towers, beside counts and means made by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from toy_towers import FIRST, ToyTowers, toy_towers

from models.baselines.popularity import Popularity
from models.core.prior import Prior
from models.core.retriever import Interactions, Queries, Ragged
from models.losses.config import LossConfig
from models.towers.config import ContentConfig, PopularityConfig
from models.towers.tower import TowerError
from models.training.two_tower import Model, TwoTower, build, set_prior


@pytest.fixture(scope="module")
def toys() -> ToyTowers:
    return toy_towers()


def content(toys: ToyTowers, *names: str) -> Model:
    return build(toys.schema(*names), ContentConfig(), LossConfig(), toys.facts(), seed=1)


def popularity(toys: ToyTowers, log: Interactions) -> TwoTower:
    schema = toys.schema("user_id", "history_item_id", "item_id", "group")
    model = build(schema, PopularityConfig(), LossConfig(), toys.facts(), seed=1)
    assert not model.trainable_weights
    set_prior(model, toys.items["item_id"], Prior(None, 1.0).scores(log))
    return TwoTower.of(model, toys.users, toys.items)


def test_m04_popularity_ranks_by_counts_ties_by_row(toys: ToyTowers):
    log = toys.world.train
    model = popularity(toys, log)
    top = model.top_k(toys.world.queries, 7)
    counts = np.bincount(log.items, minlength=log.n_items)
    order = sorted(range(log.n_items), key=lambda item: (-counts[item], item))
    assert (top.items == order[:7]).all()
    assert (top.items == Popularity().fit(log).top_k(toys.world.queries, 7).items).all()
    assert len(set(counts)) < len(counts)  # there are ties


def test_m04_popularity_says_the_same_to_everybody(toys: ToyTowers):
    model = popularity(toys, toys.world.train)
    everybody = np.concatenate(
        [model.embed(toys.world.queries), model.embed(toys.world.cold_queries)]
    )
    assert (everybody == 1).all()
    assert model.vectors.shape == (toys.world.train.n_items, 1)


def test_m04_popularity_without_an_age_counts_old_rows_as_new_ones():
    log = Interactions(
        np.zeros(4, int), np.array([0, 0, 1, 2]), np.array([0, 1, 2, 10**9]), n_users=1, n_items=4
    )
    even, recent = (Prior(days, 1.0).scores(log) for days in (None, 1.0))
    assert even.argmax() == 0
    assert even[1] == even[2] > even[3]
    assert recent.argmax() == 2


def test_m05_content_is_the_mean_of_the_histories_one_hots(toys: ToyTowers):
    model = content(toys, "user_id", "history_group", "item_id", "group")
    assert not model.trainable_weights
    tower = TwoTower.of(model, toys.users, toys.items)
    n_groups = toys.world.n_groups
    one_hots = np.eye(n_groups, dtype=np.float32)[toys.world.item_groups]
    values = slice(FIRST - 1, FIRST - 1 + n_groups)  # before them: missing, unseen
    assert (tower.vectors[:, values] == one_hots).all()
    assert (np.delete(tower.vectors, np.r_[values], axis=1) == 0).all()
    # items of one group twice and of another once, and nobody
    first, again, other = (
        np.flatnonzero(toys.world.item_groups == g)[i] for g, i in ((0, 0), (0, 1), (2, 0))
    )
    histories = Ragged(np.array([first, again, other]), np.array([0, 3, 3]))
    asked = tower.embed(Queries(np.array([0, -1]), histories))
    expected = one_hots[[first, again, other]].mean(axis=0)
    assert asked[0, values] == pytest.approx(expected)
    assert asked[0] @ tower.vectors[first] == pytest.approx(2 / 3)
    assert (asked[1] == 0).all()


def test_m05_both_sides_put_their_categories_in_one_order(toys: ToyTowers):
    """The history's columns have other names than the item's; the places must be the same."""
    names = ("history_item_id", "history_group", "item_id", "group")
    with pytest.raises(
        TowerError, match=r"\['group'\], with those of the history, \['group', 'item_id'\]"
    ):
        content(toys, *names)


def test_m05_content_needs_a_history_of_each_category(toys: ToyTowers):
    with pytest.raises(TowerError, match=r"give history.columns the same ones, and at least one"):
        content(toys, "user_id", "history_group", "item_id", "group", "genres")
    with pytest.raises(TowerError, match=r"compares the categories of items, \[\]"):
        content(toys, "user_id", "item_id")


def test_popularity_needs_the_item_id_and_somebody_to_ask(toys: ToyTowers):
    for names in (("user_id", "group"), ("history_group", "item_id", "group")):
        with pytest.raises(TowerError, match="popularity needs the item id and a user feature"):
            build(toys.schema(*names), PopularityConfig(), LossConfig(), toys.facts(), seed=1)
