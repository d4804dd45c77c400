from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from merlin.schema import ColumnSchema, Schema, Tags
from toy_towers import FIRST, categories, category

from models.encoders.decay_pool import DecayPool
from models.encoders.dropout import Draws, Dropout
from models.encoders.encoder import Steps
from models.towers.layers import (
    AppendOne,
    History,
    IdDropout,
    ItemBias,
    OneHot,
    WeightedMean,
)

N_CODES, DIM = 12, 4
HISTORY = Schema([ColumnSchema("history", tags=[Tags.SEQUENCE], dtype=np.int32)])
#: Empty at both ends and in the middle; a repeat; longer than three.
LISTS = [[], [5], [3, 7, 3], [], [1, 2, 3, 4, 5, 6, 11], []]


def pool_of(max_len: int, positions: list[float] | None = None) -> History:
    table = tf.keras.layers.Embedding(N_CODES, DIM)
    pool = History(HISTORY, table, DecayPool(10.0, max_len))
    pool(ragged([[1]]))  # builds the table
    draw = np.random.default_rng(0)
    table.set_weights([draw.normal(size=(N_CODES, DIM)).astype(np.float32)])
    pool.encoder.position.assign(draw.normal(size=max_len) if positions is None else positions)
    return pool


def ragged(lists: list[list[int]]) -> dict[str, tf.RaggedTensor]:
    """Merlin's form of a list column: [B, None, 1]."""
    return {"history": tf.ragged.constant(lists, tf.int32)[..., None]}


def by_hand(pool: History, lists: list[list[int]]) -> np.ndarray:
    """Pool in float64, item by item, the latest first."""
    table = pool.table.get_weights()[0].astype(np.float64)
    positions = pool.encoder.position.numpy().astype(np.float64)
    pooled = np.zeros((len(lists), DIM))
    for row, codes in enumerate(lists):
        latest = codes[::-1][: pool.encoder.max_len]
        weights = [math.exp(positions[k]) for k in range(len(latest))]
        for weight, code in zip(weights, latest, strict=True):
            pooled[row] += math.sqrt(len(latest)) * weight / sum(weights) * table[code]
    return pooled


@pytest.mark.parametrize("max_len", [1, 3, 10])
def test_a_history_is_the_weighted_mean_of_its_latest_items(max_len):
    pool = pool_of(max_len)
    pooled = pool(ragged(LISTS))["history"].numpy()
    np.testing.assert_allclose(pooled, by_hand(pool, LISTS), rtol=1e-5, atol=1e-6)
    assert pooled.dtype == np.float32
    assert pooled.shape == (len(LISTS), DIM)


def test_an_empty_history_is_the_zero_vector():
    pool = pool_of(3)
    assert (pool(ragged([[]] * 4))["history"].numpy() == np.zeros((4, DIM))).all()
    pooled = pool(ragged(LISTS))["history"].numpy()
    assert (pooled[[0, 3, 5]] == 0).all()
    assert (pooled[[1, 2, 4]] != 0).all()


def test_what_is_older_than_max_len_does_not_matter_and_the_order_does():
    pool = pool_of(3)
    a, b, c = pool(ragged([[9, 9, 1, 2, 3], [8, 1, 2, 3], [8, 3, 2, 1]]))["history"].numpy()
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c, rtol=0.01)


def test_equal_positions_give_the_mean_times_the_root_of_the_length():
    pool = pool_of(4, positions=[0.7] * 4)
    pooled = pool(ragged([[2, 5, 5, 9]]))["history"].numpy()
    expected = 2 * pool.table.get_weights()[0][[2, 5, 5, 9]].mean(axis=0)
    np.testing.assert_allclose(pooled[0], expected, rtol=1e-5)


def test_a_fresh_pool_prefers_the_latest():
    weights = DecayPool(10.0, 50).weights_by_position()
    assert (np.diff(weights) < 0).all()
    assert weights[49] > 0.001


def test_a_pool_without_decay_is_a_bag_that_learns_no_positions():
    table = tf.keras.layers.Embedding(N_CODES, DIM)
    pool = History(HISTORY, table, DecayPool(None, 3))
    pooled = pool(ragged([[9, 2, 5, 7], [7, 5, 2], [4], []]))["history"].numpy()
    vectors = table.get_weights()[0]
    mean = vectors[[2, 5, 7]].mean(axis=0) * np.sqrt(3)  # the last three
    np.testing.assert_allclose(pooled, [mean, mean, vectors[4], 0 * mean], rtol=1e-5, atol=1e-7)
    assert [weight.name for weight in pool.trainable_weights] == [table.embeddings.name]


def test_after_each_step_a_pool_gives_what_it_gives_for_the_steps_up_to_there():
    pool = pool_of(3)
    vectors = pool.table.get_weights()[0]
    steps = Steps(tf.ragged.constant([vectors[codes] for codes in LISTS], ragged_rank=1))
    each = pool.encoder.encode_each(steps, training=False)
    assert each.row_lengths().numpy().tolist() == [len(codes) for codes in LISTS]
    for row, codes in enumerate(LISTS):
        for n in range(len(codes)):
            (alone,) = by_hand(pool, [codes[: n + 1]])
            np.testing.assert_allclose(each[row][n], alone, rtol=1e-5, atol=1e-6)
    bag = DecayPool(None, 3)
    np.testing.assert_allclose(
        bag.encode_each(steps, training=False)[4][6],
        bag.encode(steps, training=False)[4],
        rtol=1e-5,
    )


def test_in_sequences_each_prefix_of_a_list_is_encoded_in_training_alone():
    pool = pool_of(3)
    pool.in_sequences = True
    prefixes = [codes[:n] for codes in LISTS for n in range(len(codes) + 1)]
    found = pool(ragged(LISTS), training=True)["history"].numpy()
    np.testing.assert_allclose(found, by_hand(pool, prefixes), rtol=1e-5, atol=1e-6)
    alone = pool(ragged(LISTS), training=False)["history"].numpy()
    np.testing.assert_allclose(alone, by_hand(pool, LISTS), rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_table_and_the_positions():
    pool = pool_of(3)
    direction = np.random.default_rng(1).normal(size=(len(LISTS), DIM))
    with tf.GradientTape() as tape:
        pooled = pool(ragged(LISTS))["history"]
        value = tf.reduce_sum(pooled * tf.constant(direction, tf.float32))
    table, positions = tape.gradient(value, [pool.table.embeddings, pool.encoder.position])
    table = tf.convert_to_tensor(table).numpy()
    touched = np.isin(np.arange(N_CODES), [5, 3, 7, 6, 11])  # the last three of each list
    assert np.isfinite(table).all()
    assert ((table != 0).any(axis=1) == touched).all()
    for place in range(3):
        values = []
        for step in (1e-3, -1e-3):
            start = pool.encoder.position.numpy()
            pool.encoder.position.assign(start + step * np.eye(3)[place])
            values.append((by_hand(pool, LISTS) * direction).sum())
            pool.encoder.position.assign(start)
        assert float(positions[place]) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-2)


def test_the_table_is_the_very_variable_that_was_given():
    pool = pool_of(3)
    items = pool.table(tf.constant([5])).numpy()
    np.testing.assert_allclose(pool(ragged([[5]]))["history"], items, rtol=1e-6)
    pool.table.embeddings.assign(pool.table.embeddings * 2.0)
    np.testing.assert_allclose(pool(ragged([[5]]))["history"], items * 2, rtol=1e-6)
    tables = [w.ref() for w in pool.trainable_weights if w.shape == (N_CODES, DIM)]
    assert tables == [pool.table.embeddings.ref()]


def test_a_graph_takes_batches_of_any_size():
    pool = pool_of(3)
    spec = tf.RaggedTensorSpec([None, None, 1], tf.int32, row_splits_dtype=tf.int32, ragged_rank=1)
    traced = tf.function(lambda lists: pool({"history": lists})["history"], input_signature=[spec])
    for lists in (LISTS, LISTS[:1], LISTS[2:5]):
        column = ragged(lists)["history"].with_row_splits_dtype(tf.int32)
        np.testing.assert_allclose(traced(column), by_hand(pool, lists), rtol=1e-5, atol=1e-6)
    assert pool.compute_output_shape(None) == {"history": tf.TensorShape([None, DIM])}


def test_the_bias_is_one_more_term_of_the_dot_product():
    draw = np.random.default_rng(2)
    queries, items = (draw.normal(size=(3, DIM)).astype(np.float32) for _ in range(2))
    bias, prior = draw.normal(size=(2, N_CODES)).astype(np.float32)
    layer = ItemBias("item_id", N_CODES)
    layer.table.assign(bias)
    layer.prior.assign(prior)
    codes = np.array([4, 0, 11])
    wide_queries = AppendOne()(queries).numpy()
    wide_items = layer(items, features={"item_id": tf.constant(codes[:, None])}).numpy()
    np.testing.assert_allclose(
        wide_queries @ wide_items.T, queries @ items.T + (bias + prior)[codes], rtol=1e-5
    )
    assert wide_queries.shape == wide_items.shape == (3, DIM + 1)
    for one in (layer, AppendOne()):
        assert one.compute_output_shape(tf.TensorShape([None, DIM])) == [None, DIM + 1]


def test_a_fresh_bias_favours_no_item_and_only_the_bias_is_learnt():
    layer = ItemBias("item_id", N_CODES)
    wide = layer(np.ones((2, DIM), np.float32), features={"item_id": tf.constant([1, 2])})
    assert (wide.numpy()[:, -1] == 0).all()
    assert [w.name for w in layer.trainable_weights] == ["bias:0"]


def test_draws_go_on_and_repeat_from_a_saved_count():
    draws = Draws(7)
    first, second = draws.uniform(tf.constant([5])), draws.uniform(tf.constant([5]))
    state = draws.get_weights()
    third = draws.uniform(tf.constant([5]))
    numbers = np.stack([first, second, third])
    assert len(np.unique(numbers)) == 15
    assert ((numbers >= 0) & (numbers < 1)).all()
    resumed = Draws(7)
    np.testing.assert_array_equal(resumed.uniform(tf.constant([5])), first)
    resumed.set_weights(state)
    np.testing.assert_array_equal(resumed.uniform(tf.constant([5])), third)
    assert not np.array_equal(Draws(8).uniform(tf.constant([5])), first)
    assert not draws.trainable_weights


def test_whole_numbers_are_drawn_evenly_below_the_limit():
    drawn = Draws(1).integers([30_000], 10, tf.int32).numpy()
    assert drawn.dtype == np.int32
    counts = np.bincount(drawn, minlength=11)
    assert counts[10:].sum() == 0
    assert np.abs(counts[:10] / 30_000 - 0.1).max() < 0.01


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    layer = Dropout(0.3, seed=1)
    inputs = tf.fill([200, 200], 2.0)
    dropped = layer(inputs, training=True).numpy()
    assert (dropped == 0).mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(dropped[dropped != 0], 2 / 0.7, rtol=1e-6)
    again = layer(inputs, training=True).numpy()
    assert ((dropped == 0) == (again == 0)).mean() == pytest.approx(0.58, abs=0.01)  # .3² + .7²
    np.testing.assert_array_equal(layer(inputs), inputs)
    assert layer.compute_output_shape([None, 3]) == [None, 3]


def test_ids_are_dropped_in_training_only():
    layer = IdDropout("user_id", rate=0.2, seed=1)
    inputs = {"user_id": tf.range(10, 40_010), "age": tf.ones([3])}
    changed = layer(inputs, training=True)
    codes = changed["user_id"].numpy()
    kept = codes == np.arange(10, 40_010)
    assert (~kept).mean() == pytest.approx(0.2, abs=0.01)
    assert (codes[~kept] == 2).all()
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(changed["age"], inputs["age"])
    np.testing.assert_array_equal(layer(inputs)["user_id"], inputs["user_id"])
    assert layer.compute_output_shape({"user_id": [None]}) == {"user_id": [None]}


# ── one-hots ──


def one_hot_schema(size: int) -> Schema:
    return Schema(
        [category("colour", Tags.ITEM, size=size), categories("tags", Tags.ITEM, size=size)]
    )


def test_m02_each_code_but_padding_has_a_place_the_last_and_the_unseen_one_too():
    layer = OneHot(one_hot_schema(FIRST + 4))
    codes = tf.range(1, FIRST + 4)[:, None]
    tags = tf.RaggedTensor.from_row_lengths(
        tf.reshape(codes, [-1, 1]), [len(codes)] + [0] * (len(codes) - 1)
    )
    found = layer({"colour": codes, "tags": tags})["colour"].numpy()
    assert (found == np.eye(FIRST + 3)).all()
    assert layer.compute_output_shape({})["colour"][-1] == FIRST + 3


def test_a_missing_value_of_a_history_counts_as_no_position():
    pool = pool_of(4, [0.0, -0.5, -1.0, -1.5])
    with_gaps = [[3, 1, 7], [1, 1], [5, 0, 1]]
    plain = pool(ragged([[3, 7], [], [5]]))["history"].numpy()
    assert not np.allclose(pool(ragged(with_gaps))["history"].numpy(), plain)
    pool.gaps = True
    assert pool(ragged(with_gaps))["history"].numpy() == pytest.approx(plain)


def test_m02_a_list_is_the_mean_of_its_codes_and_an_empty_one_nothing():
    layer = OneHot(one_hot_schema(6))
    lists = tf.ragged.constant([[[3], [5], [1], [3]], [], [[2]]], ragged_rank=1)
    found = layer({"colour": tf.ones([3, 1], tf.int32), "tags": lists})["tags"].numpy()
    expected = [[0, 0, 2 / 3, 0, 1 / 3], [0] * 5, [0, 1, 0, 0, 0]]
    assert found == pytest.approx(np.array(expected))


# ── weighted lists ──

CODES = [[], [5], [3, 7, 3], [4, 9], [1, 0, 6], [1]]
WEIGHTS = [[], [0.25], [2.0, 1.0, 0.5], [0.0, 0.0], [8.0, 8.0, 3.0], [4.0]]


def weighted_mean() -> WeightedMean:
    lists = categories("shops", Tags.USER, size=N_CODES)
    weights = ColumnSchema("shops_weight", dtype=np.float32, dims=(None, None))
    table = tf.keras.layers.Embedding(N_CODES, DIM)
    layer = WeightedMean(Schema([lists, weights]), {"shops": "shops_weight"}, {"shops": table})
    layer(weighted([[3]], [[1.0]]))  # builds the table
    table.set_weights([np.random.default_rng(0).normal(size=(N_CODES, DIM)).astype(np.float32)])
    return layer


def weighted(codes: list[list[int]], weights: list[list[float]]) -> dict[str, tf.RaggedTensor]:
    """Merlin's form of two list columns: [B, None, 1]."""
    return {
        "shops": tf.ragged.constant(codes, tf.int32, ragged_rank=1)[..., None],
        "shops_weight": tf.ragged.constant(weights, tf.float32, ragged_rank=1)[..., None],
    }


def weighted_by_hand(table: np.ndarray) -> np.ndarray:
    """Without padding (0) and missing values (1); of nothing, zeros."""
    means = np.zeros((len(CODES), DIM))
    for row, (codes, weights) in enumerate(zip(CODES, WEIGHTS, strict=True)):
        known = [(c, w) for c, w in zip(codes, weights, strict=True) if c > 1 and w > 0]
        if known:
            of, by = zip(*known, strict=True)
            means[row] = np.average(table[list(of)].astype(np.float64), axis=0, weights=by)
    return means


def test_m07_a_weighted_list_is_the_weighted_mean_and_zero_where_nothing_counts():
    layer = weighted_mean()
    found = layer(weighted(CODES, WEIGHTS))["shops"].numpy()
    expected = weighted_by_hand(layer.tables["shops"].get_weights()[0])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert (found[[0, 3, 5]] == 0).all()  # not NaN
    assert (found[[1, 2, 4]] != 0).all()


def test_m07_only_the_rows_that_count_have_gradients():
    layer = weighted_mean()
    table = layer.tables["shops"].embeddings
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(weighted(CODES, WEIGHTS))["shops"])
    gradient = tape.gradient(total, table)
    assert isinstance(gradient, tf.IndexedSlices)
    expected = np.zeros((N_CODES, DIM))
    # row 1: all of 5; row 2: 3 has 2.5 of 3.5, 7 the rest; row 4: 6 alone is known
    expected[[5, 3, 7, 6]] = np.array([1, 2.5 / 3.5, 1 / 3.5, 1])[:, None]
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, rtol=1e-6, atol=1e-9)
