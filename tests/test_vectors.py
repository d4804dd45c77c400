"""vectors: scaled, projected and looked up by hand; a history has the vectors of its items."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from merlin.schema import ColumnSchema, Schema, Tags
from toy_towers import FIRST, ToyTowers, compiled, tables, toy_towers, weights_of

from models.core.column_names import NORMALIZE
from models.core.columns import take_rows
from models.core.reserved_codes import UNSEEN
from models.core.retriever import Ragged
from models.encoders.config import DecayPoolConfig
from models.towers.layers import IdDropout
from models.towers.tower import embed
from models.towers.vectors import ItemVectors, Vectors, vectors_by_code
from models.training.warm_start import grow_weights

NAMES = ("age", "history_item_id", "item_id", "look")


def vector(name: str, length: int, **properties: str) -> ColumnSchema:
    """Return the schema of a column of item vectors, as etl writes it."""
    return ColumnSchema(
        name,
        tags=[Tags.ITEM, Tags.CONTINUOUS],
        dtype=np.float32,
        dims=(None, (0, length)),
        properties=properties,
    )


def lists(rows: list[list[float]]) -> Ragged:
    offsets = np.cumsum([0, *map(len, rows)])
    return Ragged(np.concatenate(rows).astype(np.float32), offsets)


@pytest.fixture(scope="module")
def toy() -> ToyTowers:
    """The toy world in which items have vectors of length 3; each seventh item has none."""
    world = toy_towers()
    rng = np.random.default_rng(1)
    n_items = len(world.items["item_id"])
    looks = lists([[] if n % 7 == 6 else rng.normal(size=3) for n in range(n_items)])
    return dataclasses.replace(
        world,
        columns={**world.columns, "look": vector("look", 3)},
        items={**world.items, "look": looks},
        train={**world.train, "look": take_rows(looks, world.train["item_row"])},
    )


def dense(column: Ragged, length: int) -> np.ndarray:
    rows = [column[n] if len(column[n]) else np.zeros(length) for n in range(len(column))]
    return np.array(rows)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_normalised_vectors_have_length_one_and_missing_ones_zero(scale):
    layer = Vectors(Schema([vector("look", 2, **{NORMALIZE: "true"})]), None, seed=1)
    given = np.array([[3, 4], [0, 0], [np.nan, np.nan], [0, -2]], np.float32) * np.float32(scale)
    expected = [[0.6, 0.8], [0, 0], [0, 0], [0, -1]]
    np.testing.assert_allclose(layer.encode("look", tf.constant(given), False), expected, rtol=1e-6)
    plain = Vectors(Schema([vector("look", 2)]), None, seed=1)  # the control
    np.testing.assert_array_equal(plain.encode("look", tf.constant(given[:2]), False), given[:2])


def test_a_code_has_the_vector_of_its_item_unless_items_share_it():
    column = lists([[1, 2], [3, 4], [], [5, 6], [7, 8]])
    codes = np.array([FIRST + 1, FIRST, FIRST + 2, FIRST + 3, FIRST + 3])
    table = vectors_by_code(column, codes, FIRST + 5, length=2)
    assert table.dtype == np.float32
    assert table[FIRST:].tolist() == [[3, 4], [1, 2], [0, 0], [0, 0], [0, 0]]
    assert not table[:FIRST].any()
    unseen = vectors_by_code(column.take(np.arange(1)), np.array([UNSEEN]), FIRST, length=2)
    assert not unseen.any()


def test_a_history_has_the_embeddings_and_the_projected_vectors_of_its_items(toy):
    model = toy.build(*NAMES, item_bias=False, encoder=DecayPoolConfig(None), history_content=True)
    kernel = weights_of(model.candidate_encoder, Vectors).kernels["look"].numpy()
    described = tables(model)["item_id"][FIRST:] + dense(toy.items["look"], 3) @ kernel
    queries = {name: toy.train[name] for name in ("age", "history_item_id")}
    nothing = Ragged.empty(len(toy.train["user_row"]))
    bare = {**queries, "history_item_id": Ragged(nothing.values.astype(np.int32), nothing.offsets)}
    found = embed(model.query_encoder, queries) - embed(model.query_encoder, bare)
    for row in (0, 7, 100, len(found) - 1):
        items = toy.train["history_item_id"][row] - FIRST
        total = described[items].sum(0) / np.sqrt(max(len(items), 1))
        np.testing.assert_allclose(found[row], total, atol=1e-5)


def test_without_history_content_the_history_has_ids_only(toy):
    for names, options in [
        (NAMES, {"history_content": False}),
        (NAMES, {"combine": "concat", "query_layers": [8], "item_layers": [8]}),
        (("age", "history_group", "item_id", "group", "look"), {}),
        (NAMES[:3], {}),
    ]:
        model = toy.build(*names, **{"history_content": True, **options})
        assert not [b for b in model.submodules if isinstance(b, ItemVectors)], names
    with_content = toy.build(*NAMES, history_content=True)  # the control
    assert weights_of(with_content.query_encoder, ItemVectors)


def test_the_projection_learns_from_both_towers_and_the_vectors_stay(toy):
    model = compiled(toy.build(*NAMES, history_content=True))
    (table,) = weights_of(model.query_encoder, ItemVectors).tables.values()
    before = table.numpy()
    query = {name: toy.train[name] for name in NAMES[:2]}
    kernel = weights_of(model.candidate_encoder, Vectors).kernels["look"]
    old, embedded = kernel.numpy(), embed(model.query_encoder, query)
    kernel.assign_add(tf.ones_like(kernel))
    assert np.abs(embed(model.query_encoder, query) - embedded).max() > 0.1
    kernel.assign(old)
    model.fit(toy.batches(model), verbose=0)
    assert np.abs(kernel.numpy() - old).max() > 1e-4
    np.testing.assert_array_equal(table.numpy(), before)
    assert sum(weight is kernel for weight in model.trainable_weights) == 1


def test_a_warm_start_takes_the_new_vectors():
    old, fresh = np.ones((5, 2), np.float32), np.zeros((7, 2), np.float32)
    (taken,) = grow_weights([old], [fresh], ["look/vectors:0"])
    np.testing.assert_array_equal(taken, fresh)


@pytest.mark.parametrize(
    ("names", "cold", "rate", "expected"),
    [
        (NAMES, 0.5, None, 0.05),
        (NAMES, 0.05, None, 0.05),
        (NAMES, 0.04, None, None),
        (("user_id", "item_id"), 0.5, None, None),
        (NAMES, 0.5, 0.0, None),
        (NAMES, 0.0, 0.3, 0.3),
    ],
)
def test_id_dropout_is_on_where_items_have_content_and_many_are_cold(
    toy, monkeypatch, names, cold, rate, expected
):
    facts = toy.facts()
    n_items = len(facts.item_counts)
    n_cold = int(np.ceil(cold * n_items)) if cold != 0.04 else int(0.05 * n_items - 1e-9)
    counts = np.arange(n_items) >= n_cold
    changed = dataclasses.replace(facts, item_counts=counts.astype(np.int64))
    monkeypatch.setattr(ToyTowers, "facts", lambda *_, **__: changed)
    model = toy.build(*names, id_dropout=rate)
    found = {b.rate for b in model.candidate_encoder.submodules if isinstance(b, IdDropout)}
    assert found == ({expected} if expected else set())
