"""Weights that grow, by hand; and a model that goes on after new users, items and rows came."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_run import steps_run_eagerly
from world import USERS, World

from models.training.warm_start import WarmStartError, grow_weights
from workflows.etl import etl
from workflows.ground import device
from workflows.ground.errors import StaleInput
from workflows.ground.vocabulary import Vocabulary
from workflows.stages.etl import Prepared
from workflows.stages.held_out import refuse_leak
from workflows.stages.store import Store
from workflows.train import train

CPU = device.Device("cpu", "test")


def test_new_rows_begin_where_the_unseen_row_stood():
    old, fresh = np.arange(8.0).reshape(4, 2), np.full((6, 2), 9.0)
    (table,) = grow_weights([old], [fresh], ["tower/embeddings:0"])
    assert table.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [4, 5], [4, 5]]
    assert fresh[0, 0] == 9.0  # the argument is left alone


@pytest.mark.parametrize(
    ("old", "fresh", "message"),
    [
        (
            [np.zeros((5, 2))],
            [np.zeros((5, 3))],
            r"tower/embeddings:0 was \[5, 2\] and would be \[5, 3\]",
        ),
        (
            [np.zeros((5, 2))],
            [np.zeros((4, 2))],
            r"would be \[4, 2\]; only tables",
        ),
        ([np.zeros(3)], [np.zeros(3), np.zeros(3)], "has 1 weights, this one 2"),
    ],
)
def test_other_towers_are_refused(old, fresh, message):
    with pytest.raises(WarmStartError, match=message):
        grow_weights(old, fresh, ["tower/embeddings:0"] * len(fresh))


def test_what_is_no_table_does_not_grow():
    with pytest.raises(WarmStartError, match=r"pool/position:0 was \[5\] and would be \[9\]"):
        grow_weights([np.zeros(5)], [np.zeros(9)], ["pool/position:0"])


def vocabulary(store: Store, column: str) -> Vocabulary:
    return Vocabulary.read(store.folder("etl") / "vocabulary" / f"{column}.parquet")


@pytest.fixture(scope="module")
def grown_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Store, Store]:
    """The tiny world before and after a week in which a user and an item came."""
    tmp_path = tmp_path_factory.mktemp("grown")
    world = World(tmp_path / "raw")
    world.text += "history: {columns: [item_id]}\ntrain: {epochs: 2, batch_size: 64}\n"
    recipe = world.write().recipe()
    before, after = Store(tmp_path / "before"), Store(tmp_path / "after")
    etl(recipe, before, CPU, data=world.folder)
    with steps_run_eagerly():
        train(recipe, before, CPU)
    last = max(row["when"] for row in world.log if row["when"])
    for n in range(40):  # the newcomers are the most frequent of all: first by count
        row = {"user_id": "new", "item_id": "00new", "rating": 5, "shop": "web", "when": last + n}
        world.log.append(row)
    world.people.append({"user_id": "new", "age": 30, "city": "Rom"})
    world.films.append({"item_id": "00new", "title": "New", "price": 1.0, "genres": "a|new"})
    world.write()
    etl(recipe, after, CPU, data=world.folder, grow_from=before)
    return world, before, after


def test_old_values_keep_their_codes_and_new_ones_come_last(grown_world):
    _, before, after = grown_world
    for column in ("user_id", "item_id", "genres", "city", "shop"):
        old, new = (vocabulary(store, column).values.to_pylist() for store in (before, after))
        assert new[: len(old)] == old
    assert vocabulary(after, "item_id").values.to_pylist()[-1] == "00new"
    statistics = [(s.folder("etl") / "statistics.json").read_bytes() for s in (before, after)]
    assert statistics[0] == statistics[1]


def test_without_growing_the_codes_move(grown_world, tmp_path):
    world, before, _ = grown_world
    fresh = Store(tmp_path / "fresh")
    etl(world.recipe(), fresh, CPU, data=world.folder)
    assert vocabulary(fresh, "item_id").values.to_pylist()[0] == "00new"
    with pytest.raises(StaleInput, match=r"the codes of '\w+' moved since\. Run .*--grow-from"):
        train(world.recipe(), fresh, CPU, warm_start=before)


def test_with_other_buckets_the_codes_move(grown_world, tmp_path):
    world, before, _ = grown_world
    fresh, other = Store(tmp_path / "fresh"), world.recipe("vocabulary={oov_buckets: 3}")
    raw = World(tmp_path / "raw", text=world.text).write()  # the same values as before
    etl(other, fresh, CPU, data=raw.folder)
    old, new = (vocabulary(store, "item_id").values for store in (before, fresh))
    assert new.equals(old)
    with pytest.raises(StaleInput, match=r"the codes of '\w+' moved since\. Run .*--grow-from"):
        train(other, fresh, CPU, warm_start=before)


@pytest.mark.usefixtures("eagerly")
def test_a_warm_start_begins_where_the_earlier_fit_ended(grown_world):
    world, before, after = grown_world
    still = world.recipe("train.epochs=1", "optimizer.lr=1.0e-12")
    cold = train(still, after, CPU).first.best.metrics["loss"]
    warm = train(still, after, CPU, warm_start=before).first.best.metrics["loss"]
    assert warm < cold - 0.01


@pytest.mark.quality
def test_old_users_are_served_as_well_as_before(grown_world):
    world, before, after = grown_world
    recipe = world.recipe()
    first = before.read("train", recipe).metrics["val_recall@10"]
    second = train(recipe, after, CPU, warm_start=before).first.best.metrics["val_recall@10"]
    assert second >= first - 1 / len(USERS)


@pytest.mark.usefixtures("eagerly")
def test_a_warm_start_that_has_learnt_what_is_held_out_is_refused(grown_world, tmp_path):
    """Rows drawn anew: most of valid and test were rows of train for the warm model."""
    world, before, _ = grown_world
    store = Store(tmp_path / "redrawn")
    recipe = world.recipe("split={kind: random, seed: 5}")
    etl(recipe, store, CPU, data=world.folder, grow_from=before)
    with pytest.raises(
        StaleInput,
        match=r"before: \d+ of 15 rows of valid were rows of train there, .* split of kind random "
        r"does not keep .* Take split given, time or leave_last.* or train without --warm-start",
    ):
        train(recipe, store, CPU, warm_start=before)


def test_a_split_that_is_drawn_again_from_the_same_rows_does_not_leak(tmp_path):
    world = World(tmp_path / "raw").write()
    recipe = world.recipe("split={kind: random}")
    stores = [Store(tmp_path / name) for name in ("a", "b")]
    for store in stores:
        etl(recipe, store, CPU, data=world.folder)
    first, second = (Prepared.open(store, recipe) for store in stores)
    refuse_leak(first, second, "a")
    assert len(second.interactions("test").users) > 5
