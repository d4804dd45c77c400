"""Views into the model, against the saved weights, the raw log and naive searches."""

from __future__ import annotations

import math
from dataclasses import replace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
from msgspec.structs import replace as replace_struct
from tiny_run import Run, Tiny

from models.core.retriever import Queries, Ragged
from models.training.two_tower import Model, TwoTower
from workflows.ranking import inside
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import Inside
from workflows.stages.train import load_model
from workflows.stages.train_files import TrainFiles


@pytest.fixture(scope="module")
def run(tiny: Tiny) -> Run:
    return tiny.trained


@pytest.fixture(scope="module")
def prepared(run: Run) -> Prepared:
    return Prepared.open(run.store, run.recipe)


@pytest.fixture(scope="module")
def model(run: Run, prepared: Prepared) -> Model:
    return load_model(run.store, run.recipe, prepared)


@pytest.fixture(scope="module")
def tower(model: Model, prepared: Prepared) -> TwoTower:
    return TwoTower.of(model, prepared.users, prepared.items)


@pytest.fixture(scope="module")
def found(run: Run, prepared: Prepared, model: Model, tower: TwoTower) -> Inside:
    evaluation_set = prepared.evaluation_set("test", run.recipe.evaluate)
    assert evaluation_set is not None
    return inside.analyse(run.recipe, prepared, evaluation_set, model, tower)


def counts(run: Run) -> np.ndarray:
    """Return the training interactions of each item, in the order of the item table."""
    table = pq.read_table(run.store.folder("etl") / "items" / "raw.parquet")
    return table["train_count"].to_numpy()


def test_the_decay_is_that_of_the_saved_weights(run, found):
    weights: list[np.ndarray] = []
    with h5py.File(TrainFiles(run.store.folder("train")).weights) as file:
        file.visititems(
            lambda name, x: weights.append(x[()]) if name.endswith("encoder/vars/0") else None
        )
    (position,) = weights
    shares = [math.exp(p) / sum(math.exp(q) for q in position) for p in position]
    (decay,) = found.decays.values()
    assert decay == pytest.approx(shares, rel=1e-5)


def test_norms_and_biases_stand_against_popularity(run, tower, found):
    met = counts(run) > 0
    vectors = tower.vectors.astype(np.float64)
    for cloud, values in (
        (found.norms, np.sqrt((vectors[:, :8] ** 2).sum(axis=1))),
        (found.biases, vectors[:, 8]),
    ):
        assert cloud.counts == counts(run)[met].tolist()
        assert cloud.values == pytest.approx(values[met], rel=1e-5)
        rank = [scipy.stats.rankdata(side[met]) for side in (counts(run), values)]
        assert cloud.correlation == pytest.approx(np.corrcoef(*rank)[0, 1], abs=1e-4)


def test_neighbours_are_those_of_a_naive_search(run, tower, found):
    vectors = tower.vectors[:, :8].astype(np.float64)
    met = np.flatnonzero(counts(run) > 0)
    assert [near.item for near in found.neighbours] == met[:8].tolist()  # the table's order
    for near in found.neighbours:
        cosines = {
            other: sum(a * b for a, b in zip(vectors[near.item], vectors[other], strict=True))
            / math.hypot(*vectors[near.item])
            / math.hypot(*vectors[other])
            for other in met.tolist()
            if other != near.item
        }
        assert near.items == sorted(cosines, key=lambda other: -cosines[other])[:5]
        assert near.cosines == pytest.approx([cosines[i] for i in near.items], rel=1e-5)


def test_users_have_their_history_their_list_and_their_hits(run, prepared, tower, found):
    """By the raw log and a ranking of the whole catalogue, item by item."""
    ids = prepared.raw_items["item_id"].to_pylist()
    users = prepared.raw_users["user_id"].to_pylist()
    row_of = {item: row for row, item in enumerate(ids)}
    before, everything = run.histories(withheld=1), run.histories()
    test = prepared.part("test")
    shop = dict(zip(test["user_row"].tolist(), test["shop"].tolist(), strict=True))
    assert len({example.user for example in found.examples}) == len(users) - 1 == 9
    for example in found.examples:
        user = users[example.user]
        history = [row_of[item] for item in before[user]]
        assert example.n_earlier == len(history)
        assert example.latest == history[::-1][:10]
        assert example.withheld == [row_of.get(everything[user][-1], -1)]
        query = Queries(
            np.array([example.user]),
            Ragged(np.array(history), np.array([0, len(history)])),
            {"shop": np.array([shop[example.user]], np.int32)},
        )
        vector = tower.embed(query)[0].astype(np.float64)
        scores = (tower.vectors.astype(np.float64) @ vector).astype(np.float32)
        order = sorted(set(range(len(ids))) - set(history), key=lambda r: (-scores[r], r))[:10]
        assert example.recommended == order
        assert example.hits == (example.withheld[0] in order)
    lengths = [example.n_earlier for example in found.examples]
    assert lengths == sorted(lengths)
    assert sum(example.hits for example in found.examples) > 0


def test_the_model_is_described(model, found):
    assert {"user_id", "city", "history_item_id"} <= set(found.query_inputs)
    assert {"item_id", "genres"} <= set(found.item_inputs)
    assert found.n_weights == sum(weight.numpy().size for weight in model.trainable_weights)
    assert found.loss == "full", "what `auto` becomes for few items"


def test_a_view_that_the_model_lacks_is_none(run, prepared, model, tower):
    recipe = run.recipe
    towers = replace_struct(recipe.towers, normalize=True, item_bias=False)
    items = inside._Items(replace_struct(recipe, model=towers), counts(run), tower.vectors)
    assert items.norms() is None
    assert items.biases() is None


def test_a_cloud_holds_some_of_many_items_and_one_value_has_no_correlation(run, tower):
    many = 3 * inside.MAX_POINTS
    rows = np.arange(many) % len(tower.vectors)
    items = inside._Items(run.recipe, np.arange(many) + 1, tower.vectors[rows])
    cloud = items.norms()
    assert len(set(cloud.counts)) == len(cloud.values) == inside.MAX_POINTS
    assert replace(items, counts=np.ones(many, np.int64)).norms().correlation is None
