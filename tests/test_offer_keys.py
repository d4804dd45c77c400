"""Groups of rows: which they are, and their means and variances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.offers.group_by import group_moments
from models.offers.keys import MAX_PARTS, SLACK, KeyGenerator, subsets


def generator(or_share: float = 0.0, seed: int = 1) -> KeyGenerator:
    return KeyGenerator([50, 7, 3], mean_attributes=1.0, or_share=or_share, seed=seed)


def batch(n: int = 200) -> np.ndarray:
    draw = np.random.default_rng(0)
    return np.stack([draw.integers(0, size, n) for size in (50, 7, 3)], axis=1).astype(np.int32)


def as_partition(keys: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(keys == key)) for key in np.unique(keys)}


# ── which attributes ────────────────────────────────────────────────────────────────────


def test_m09_subsets_have_the_published_sizes() -> None:
    drawn = subsets(6, 2.0, seed=0)
    sizes = drawn.sum(axis=1)
    assert sizes.min() == 1
    # (1 - (2/3)^6) · 30,000 are not empty; the mean of a size is 2 / (1 - (2/3)^6)
    assert len(drawn) == pytest.approx(27_383, rel=0.01)
    assert sizes.mean() == pytest.approx(2.19, abs=0.02)
    shares = np.bincount(sizes, minlength=7)[1:] / len(sizes)
    chances = [math.comb(6, k) * (1 / 3) ** k * (2 / 3) ** (6 - k) for k in range(1, 7)]
    np.testing.assert_allclose(shares, np.array(chances) / sum(chances), atol=0.01)


def test_m09_a_call_takes_one_subset_for_the_whole_batch() -> None:
    made, codes = generator(), batch()
    met = set()
    of_subset = {
        chosen: as_partition(made.group_by_attributes(codes, tf.constant(chosen) > 0))
        for chosen in np.ndindex(2, 2, 2)
        if any(chosen)
    }
    for _ in range(40):
        keys = as_partition(made(codes, training=True).numpy())
        found = [chosen for chosen, partition in of_subset.items() if partition == keys]
        assert len(found) == 1
        met.add(found[0])
    assert len(met) == 7, "40 draws of 7 subsets should meet each"


def test_m09_same_key_if_and_only_if_equal_values() -> None:
    made, codes = generator(), batch()
    for chosen in ([True, False, False], [False, True, True], [True, True, True]):
        keys = made.group_by_attributes(codes, tf.constant(chosen)).numpy()
        rows = [tuple(row) for row in codes[:, chosen]]
        equal = np.array([[a == b for b in rows] for a in rows])
        assert ((keys[:, None] == keys[None]) == equal).all()
        assert keys.max() < len(codes)


def test_m09_large_vocabularies_do_not_run_into_each_other() -> None:
    made = KeyGenerator([2**31 - 1] * 4, mean_attributes=4.0, or_share=0.0, seed=1)
    codes = np.array([[2**31 - 2] * 4, [2**31 - 2, 0, 0, 0], [0, 0, 0, 2**31 - 2]], np.int32)
    keys = made.group_by_attributes(codes, tf.constant([True] * 4)).numpy()
    assert len(set(keys)) == 3


def test_m09_at_evaluation_each_row_is_a_group_of_its_own() -> None:
    assert generator(or_share=1.0)(batch(5)).numpy().tolist() == [0, 1, 2, 3, 4]


def test_m09_the_seed_decides() -> None:
    codes = batch()
    one, same, other = (
        [k(codes, training=True).numpy().tolist() for _ in range(6)]
        for k in (generator(0.4), generator(0.4), generator(0.4, seed=2))
    )
    assert one == same
    assert one != other
    assert len({tuple(keys) for keys in one}) > 1, "each call draws anew"


def test_m09_keys_are_those_of_tuples_also_where_their_product_fits_no_int64() -> None:
    large = KeyGenerator([2**31 - 1] * 4, mean_attributes=1.0, or_share=0.0, seed=1)
    codes = np.random.default_rng(0).integers(0, 3, (200, 4)) * (2**30 - 1)
    for chosen in np.ndindex(2, 2, 2, 2):
        keys = large.group_by_attributes(tf.constant(codes), tf.constant(chosen) > 0).numpy()
        tuples = np.unique(codes * chosen, axis=0, return_inverse=True)[1]
        assert as_partition(keys) == as_partition(tuples)
        assert keys.max() < 200


# ── OR ──────────────────────────────────────────────────────────────────────────────────


def test_m09_the_share_of_or_is_kept() -> None:
    made, codes = generator(or_share=0.4), batch(60)
    plain = [
        as_partition(made.group_by_attributes(codes, tf.constant(chosen) > 0).numpy())
        for chosen in np.ndindex(2, 2, 2)
        if any(chosen)
    ]
    call = tf.function(lambda: made(codes, training=True))
    is_or = [as_partition(call().numpy()) not in plain for _ in range(400)]
    assert np.mean(is_or) == pytest.approx(0.4, abs=0.08)


def test_m09_large_groups_are_split_and_small_ones_are_not() -> None:
    made = generator()
    # eleven groups of 4 rows and one of 1,000: the 40 % quantile is 4, so up to 4 + 5 stay whole
    keys = np.concatenate([np.repeat(np.arange(11), 4), np.full(1000, 11)])
    split = made.split_groups(tf.constant(keys)).numpy()
    for group in range(11):
        assert len(set(split[keys == group])) == 1
    n_parts = min(1000 // (4 + SLACK) + 1, MAX_PARTS)
    assert len(set(split[keys == 11])) == n_parts
    # a part never joins rows of two groups
    assert len({(k, s) for k, s in zip(keys, split, strict=True)}) == split.max() + 1


def test_m09_collided_groups_are_whole_and_few_together() -> None:
    made = generator()
    keys = np.arange(200) % 40
    many = set()
    for _ in range(20):
        merged = made.merge_groups(tf.constant(keys)).numpy()
        assert len({(k, m) for k, m in zip(keys, merged, strict=True)}) == 40, "groups stay whole"
        each = np.bincount([merged[keys == k][0] for k in range(40)])
        many.add(each[:-1].max())
        assert (each[:-1] == each[0]).all(), "but the last, all hold the same number of groups"
    assert min(many) == 2
    assert max(many) >= 3


# ── moments ─────────────────────────────────────────────────────────────────────────────


def test_m08_the_example_of_the_original() -> None:
    mean, variance, of_rows = group_moments(tf.eye(3), tf.constant([[0, 0, 1]], tf.int64))
    assert of_rows.numpy().tolist() == [0, 0, 1]
    np.testing.assert_allclose(mean, [[0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(variance, [[0.25, 0.25, 0], [0, 0, 0]])


def test_m08_moments_are_those_of_numpy_and_broadcast_back() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(50, 3, 4)).astype(np.float32)
    keys = draw.integers(0, 9, (3, 50))
    *moments, of_rows = group_moments(vectors, keys)
    means, variances = (tf.reshape(tf.gather(m, of_rows), [3, 50, 3, 4]) for m in moments)
    assert len(moments[0]) == sum(keys.max(axis=1) + 1), "each group once"
    for version, row in np.ndindex(3, 50):
        group = vectors[keys[version] == keys[version, row]]
        np.testing.assert_allclose(means[version, row], group.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(variances[version, row], group.var(axis=0), atol=1e-5)
    assert np.abs(means.numpy() - vectors).max() > 0.1, "grouping must change something"


def test_m08_gradients_are_those_of_differences() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(12, 3)).astype(np.float32)
    keys = tf.constant(draw.integers(0, 4, (2, 12)))
    weights = draw.normal(size=(2, 24, 3)).astype(np.float32)
    of_rows = group_moments(vectors, keys).of_rows

    def value(x: tf.Tensor) -> tf.Tensor:
        mean, variance = (tf.gather(moment, of_rows) for moment in group_moments(x, keys)[:2])
        return tf.reduce_sum(weights[0] * mean + weights[1] * variance)

    (found,), (hand,) = tf.test.compute_gradient(value, [vectors], delta=1e-2)
    np.testing.assert_allclose(found, hand, atol=2e-3)
    assert np.abs(hand).max() > 0.1


def test_m08_a_group_without_rows_is_zero_and_gives_no_gradient() -> None:
    vectors = tf.Variable(tf.eye(3))
    with tf.GradientTape() as tape:
        mean, variance, of_rows = group_moments(vectors, tf.constant([[0, 2, 2]], tf.int64))
        value = tf.reduce_sum(tf.gather(mean, of_rows))
    assert not mean[1].numpy().any()
    assert not variance[1].numpy().any()
    np.testing.assert_allclose(tape.gradient(value, vectors), np.ones((3, 3)))


def test_m08_gradients_go_to_all_rows_of_a_group() -> None:
    vectors = tf.Variable(tf.eye(3))
    with tf.GradientTape() as tape:
        mean = group_moments(vectors, tf.constant([[0, 0, 1]], tf.int64)).mean
        value = mean[0, 2] * 8.0
    slope = tape.gradient(value, vectors).numpy()
    np.testing.assert_allclose(slope, [[0, 0, 4], [0, 0, 4], [0, 0, 0]])
