"""Mean and variance of weighted lists, compared with loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.offers.weighted_embedding import Lists, WeightedEmbedding

N_CODES, DIM = 9, 4
#: Empty at both ends and in the middle, one code, repeats.
CODES = [[], [5], [3, 7, 3], [], [1, 2, 3, 4, 4, 4], []]
WEIGHTS = [[], [2.0], [0.5, 0.25, 0.25], [], [1.0, 0.0, 3.0, 1.0, 1.0, 1.0], []]


def layer(l1: float = 0.0) -> WeightedEmbedding:
    made = WeightedEmbedding(N_CODES, DIM, l1=l1)
    draw = np.random.default_rng(0)
    made.table.assign(draw.normal(size=(N_CODES, DIM)))
    return made


def lists(codes: list[list[int]], weights: list[list[float]] | None = None) -> Lists:
    offsets = np.cumsum([0, *map(len, codes)])
    flat = tf.constant([c for row in codes for c in row], tf.int32)
    if weights is None:
        return Lists(flat, tf.constant(offsets))
    numbers = tf.constant([w for row in weights for w in row], tf.float32)
    return Lists(flat, tf.constant(offsets), numbers)


def by_hand(
    table: np.ndarray, codes: list[list[int]], weights: list[list[float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Loop over rows and codes in float64."""
    mean, variance = np.zeros((2, len(codes), DIM))
    for row, (of, how) in enumerate(zip(codes, weights, strict=True)):
        total = sum(how)
        if total:
            mean[row] = sum(w / total * table[c] for c, w in zip(of, how, strict=True))
            square = sum(w / total * table[c] ** 2 for c, w in zip(of, how, strict=True))
            variance[row] = square - mean[row] ** 2
    return mean, variance


def rounding(values: np.ndarray) -> float:
    """Return how far a short sum of terms as large as these may be off in float32."""
    return float(16 * np.finfo(np.float32).eps * np.abs(values).max())


def assert_are_moments(mean: np.ndarray, variance: np.ndarray, hand: tuple, made: object) -> None:
    """Compare with what was made by hand; a variance is a small difference of squares."""
    table = made.table.numpy()
    np.testing.assert_allclose(mean, hand[0], atol=rounding(table))
    np.testing.assert_allclose(variance, hand[1], atol=rounding(table**2))


def test_m07_mean_and_variance_are_those_of_a_loop() -> None:
    made = layer()
    mean, variance = made.moments(lists(CODES, WEIGHTS))
    hand = by_hand(made.table.numpy().astype(np.float64), CODES, WEIGHTS)
    assert_are_moments(mean, variance, hand, made)
    assert hand[1][4].min() > 0.01, "there must be a variance to get wrong"


def test_m07_without_weights_repeats_count_once() -> None:
    made = layer()
    distinct = [sorted(set(row)) for row in CODES]
    equal = [[1.0] * len(row) for row in distinct]
    hand = by_hand(made.table.numpy().astype(np.float64), distinct, equal)
    mean, variance = made.moments(lists(CODES))
    assert_are_moments(mean, variance, hand, made)
    np.testing.assert_allclose(made.mean(lists(CODES)), hand[0], atol=rounding(made.table.numpy()))
    counted = by_hand(made.table.numpy(), CODES, [[1.0] * len(row) for row in CODES])
    assert abs(counted[0] - hand[0]).max() > 0.1, "counting repeats must show"


@pytest.mark.parametrize("weights", [None, [[], [], []]])
def test_m07_empty_lists_are_zero_and_no_nan(weights: list[list[float]] | None) -> None:
    made = layer()
    with tf.GradientTape() as tape:
        mean, variance = made.moments(lists([[], [], []], weights))
        value = tf.reduce_sum(mean) + tf.reduce_sum(variance)
    assert mean.numpy().tolist() == np.zeros((3, DIM)).tolist()
    assert variance.numpy().tolist() == np.zeros((3, DIM)).tolist()
    slope = tf.convert_to_tensor(tape.gradient(value, made.table))
    assert np.isfinite(slope).all()


def test_m07_weights_that_are_all_zero_are_an_empty_list() -> None:
    mean, variance = layer().moments(lists([[1, 2]], [[0.0, 0.0]]))
    assert (mean.numpy() == 0).all()
    assert (variance.numpy() == 0).all()


def test_m07_one_code_is_its_row_without_a_variance() -> None:
    made = layer()
    for given in (lists([[5]]), lists([[5]], [[0.3]])):
        mean, variance = made.moments(given)
        np.testing.assert_allclose(mean[0], made.table[5], rtol=1e-6)
        assert (variance.numpy() < rounding(made.table.numpy() ** 2)).all()
    np.testing.assert_array_equal(made.one(tf.constant([5]))[0], made.table[5])


def test_m07_weights_are_shares_whatever_their_sum() -> None:
    made = layer()
    small, large = (made.moments(lists([[1, 2]], [[k, 3.0 * k]])) for k in (0.1, 40.0))
    np.testing.assert_allclose(small[0], large[0], rtol=1e-5)
    np.testing.assert_allclose(small[1], large[1], rtol=1e-4)


def test_gradients_are_those_of_dense_algebra() -> None:
    made = layer()
    draw = np.random.default_rng(1)
    direction = tf.constant(draw.normal(size=(2, len(CODES), DIM)), tf.float32)
    shares = np.zeros((len(CODES), N_CODES), np.float32)
    for row, (of, how) in enumerate(zip(CODES, WEIGHTS, strict=True)):
        for code, weight in zip(of, how, strict=True):
            shares[row, code] += weight / sum(how)

    def slope(dense: bool) -> np.ndarray:
        with tf.GradientTape() as tape:
            if dense:
                mean = shares @ made.table
                variance = shares @ tf.square(made.table) - tf.square(mean)
            else:
                mean, variance = made.moments(lists(CODES, WEIGHTS))
            value = tf.reduce_sum(direction[0] * mean + direction[1] * variance)
        return tf.convert_to_tensor(tape.gradient(value, made.table)).numpy()

    np.testing.assert_allclose(slope(dense=False), slope(dense=True), atol=1e-5)


def test_t05_the_penalty_is_the_sum_of_absolute_weights() -> None:
    made = layer(l1=0.5)
    assert float(made.losses[0]) == pytest.approx(0.5 * np.abs(made.table.numpy()).sum(), rel=1e-6)
    assert not layer().losses


def test_one_trace_serves_batches_of_any_size() -> None:
    made = layer()
    specs = [tf.TensorSpec([None], t) for t in (tf.int32, tf.int64, tf.float32)]
    traced = tf.function(lambda *given: made.moments(Lists(*given)), input_signature=specs)
    for part in (slice(0, 6), slice(1, 3), slice(2, 3)):
        given = lists(CODES[part], WEIGHTS[part])
        for one, other in zip(traced(*given), made.moments(given), strict=True):
            np.testing.assert_allclose(one, other, atol=rounding(made.table.numpy() ** 2))
