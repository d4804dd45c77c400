"""Compressors, interaction and negatives: shapes and weights as published, values by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.offers.compressors import (
    MaskNet,
    OfferCompressor,
    UserCompressor,
    k_winners,
)
from models.offers.interaction import Bilinear, Dot, Stack
from models.offers.negatives import (
    MiniBatchNegatives,
    PairLoss,
    check_divisible,
    mini_batches,
    pair_targets,
)

QUIET = {"dropout": 0.1, "seed": 1}


def n_weights(layer: tf.keras.layers.Layer) -> int:
    return sum(int(tf.size(weight)) for weight in layer.trainable_weights)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ── compressors ─────────────────────────────────────────────────────────────────────────


def test_m10_user_compressor() -> None:
    layer = UserCompressor(5, **QUIET)
    assert layer(normal(4, 12, 100)).shape == (4, 5, 100)
    # 12·10·100·100 + 10·100, LayerNorm 2·100, 10·5 + 5, BatchNorm 2·100
    assert n_weights(layer) == 1_201_455


def test_m10_offer_compressor() -> None:
    layer = OfferCompressor(3, **QUIET)
    assert layer((normal(4, 6, 100), normal(4, 6, 100) ** 2)).shape == (4, 3, 100)
    # 1200·18 + 18, LayerNorm 2·18, 18·18 + 18
    assert n_weights(layer) == 21_996


def test_m10_mask_net() -> None:
    layer = MaskNet(3, **QUIET)
    assert layer((normal(4, 6, 100), normal(4, 6, 100) ** 2)).shape == (4, 3, 100)
    # 1200·100 + 100, LayerNorm 2·100, 100·300 + 300
    assert n_weights(layer) == 150_600


def test_m10_user_compressor_is_that_of_loops() -> None:
    layer = UserCompressor(2, dropout=0.0, seed=1)
    x = normal(3, 4, 5)
    layer(x)
    layer.widen.bias.assign(normal(4, 5, seed=1))
    layer.mix.bias.assign(normal(2, 1, seed=2))
    first, bias = (w.numpy() for w in (layer.widen.kernel, layer.widen.bias))
    hidden = np.zeros((3, 4, 5))
    for row, k in np.ndindex(3, 4):
        hidden[row, k] = sum(x[row, u] @ first[u, k] for u in range(4)) + bias[k]
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    hidden = hidden - hidden.mean(axis=2, keepdims=True)
    hidden /= np.sqrt((hidden**2).mean(axis=2, keepdims=True) + 1e-3)
    mixed = np.zeros((3, 2, 5))
    for row, k in np.ndindex(3, 2):
        mixed[row, k] = sum(layer.mix.kernel.numpy()[h, k] * hidden[row, h] for h in range(4))
        mixed[row, k] += layer.mix.bias.numpy()[k, 0]
    mixed = 1.05070098 * np.where(mixed > 0, mixed, 1.67326324 * (np.exp(mixed) - 1))
    np.testing.assert_allclose(layer(x), mixed / math.sqrt(1 + 1e-3), atol=1e-4)


def test_m10_an_offer_is_mixed_of_its_own_attributes() -> None:
    layer = OfferCompressor(2, dropout=0.0, seed=1)
    mean, variance = normal(4, 3, 5), normal(4, 3, 5) ** 2
    found = layer((mean, variance)).numpy()
    z = np.concatenate([mean.reshape(4, -1), variance.reshape(4, -1)], axis=1)
    mixture = layer.choice(z).numpy().reshape(4, 3, 2)
    for row, m in np.ndindex(4, 2):
        hand = sum(mixture[row, o, m] * mean[row, o] for o in range(3))
        np.testing.assert_allclose(found[row, m], hand, atol=1e-5)
    other = layer((mean, variance * 3)).numpy()
    assert abs(other - found).max() > 1e-3, "the variance must matter"


def test_m10_k_winners_leaves_exactly_k() -> None:
    x = normal(50, 18)
    kept = k_winners(x, 6).numpy()
    assert ((kept != 0).sum(axis=1) == 6).all()
    for row in range(50):
        best = np.argsort(-abs(x[row]))[:6]
        hand = np.where(np.isin(np.arange(18), best), x[row], 0)
        np.testing.assert_array_equal(kept[row], hand)
    ties = k_winners(tf.constant([[1.0, -1.0, 1.0, -1.0]]), 2).numpy()
    assert (ties != 0).sum() == 2


# ── interaction ─────────────────────────────────────────────────────────────────────────


def bilinear(rows: tuple[int, int], dim: int, dropout: float = 0.0) -> Bilinear:
    layer = Bilinear((*rows, dim, dim), [6, 4], dropout=dropout, l1=0.0, seed=1)
    layer.bias.assign(normal(*rows, seed=3))
    return layer


def test_m11_pairs_are_those_of_loops() -> None:
    users, offers = normal(12, 4, 7), normal(12, 3, 7, seed=1)
    layer = bilinear((4, 3), 7)
    grouped = layer.pairs(mini_batches(users, 4), mini_batches(offers, 4)[None]).numpy()
    assert grouped.shape == (3, 4, 4, 1, 4, 3)
    flat = grouped.reshape(48, 12)
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    for row, (g, i, j) in enumerate(np.ndindex(3, 4, 4)):
        user, offer = users[4 * g + i], offers[4 * g + j]
        hand = [user[u] @ kernel[u, o] @ offer[o] + bias[u, o] for u, o in np.ndindex(4, 3)]
        np.testing.assert_allclose(flat[row], hand, rtol=1e-4, atol=1e-4)


def test_m11_without_negatives_each_user_meets_his_own_offer() -> None:
    users, offers = normal(12, 4, 7), normal(12, 3, 7, seed=1)
    layer = bilinear((4, 3), 7)
    alone = layer.pairs(mini_batches(users, 1), mini_batches(offers, 1)[None]).numpy()
    together = layer.pairs(mini_batches(users, 4), mini_batches(offers, 4)[None]).numpy()
    own = together[:, np.arange(4), np.arange(4)].reshape(12, 12)
    np.testing.assert_allclose(alone.reshape(12, 12), own, rtol=1e-4, atol=1e-5)


def test_m11_dropout_falls_on_the_kernel_and_in_training_only() -> None:
    users, offers = tf.ones([1, 3, 2, 5]), tf.ones([1, 1, 3, 2, 5])
    layer = bilinear((2, 2), 5, dropout=0.5)
    dropped = layer.pairs(users, offers, training=True).numpy()
    # the same numbers of the kernel are gone for every pair
    assert np.ptp(dropped.reshape(9, 4), axis=0).max() < 1e-5
    plain = layer.pairs(users, offers).numpy()
    assert abs(dropped - plain).max() > 0.01
    np.testing.assert_array_equal(layer.pairs(users, offers), plain)


def test_m11_versions_of_offers_are_scored_apart() -> None:
    users = normal(2, 3, 4, 5)
    versions = normal(3, 2, 3, 2, 5, seed=1)
    layer = bilinear((4, 2), 5)
    found = layer(users, versions).numpy()
    assert found.shape == (2, 3, 3, 3)
    for version in range(3):
        alone = layer(users, versions[version : version + 1]).numpy()
        np.testing.assert_allclose(found[..., version], alone[..., 0], rtol=1e-4, atol=1e-5)


def test_dot_products_are_those_of_numpy() -> None:
    users, offers = normal(2, 3, 5), normal(2, 2, 4, 5, seed=1)
    found = Dot()(users, offers).numpy()
    for g, i, j, a in np.ndindex(2, 3, 4, 2):
        assert found[g, i, j, a] == pytest.approx(users[g, i] @ offers[a, g, j], rel=1e-4)


def test_t05_a_stack_has_the_penalty_of_kernels_and_biases() -> None:
    layer = Stack([4, 3], out=1, dropout=0.1, l1=0.01, seed=1)
    assert layer(normal(5, 2, 3)).shape == (5, 1)
    for dense in layer.dense:
        dense.bias.assign(tf.ones_like(dense.bias))
    weights = [w.numpy() for dense in layer.dense for w in dense.weights]
    hand = 0.01 * sum(abs(w).sum() for w in weights)
    assert float(tf.add_n(layer.losses)) == pytest.approx(hand, rel=1e-5)


# ── negatives ───────────────────────────────────────────────────────────────────────────


def test_m12_pairs_stand_in_order_of_mini_batch_user_and_offer() -> None:
    users = tf.reshape(tf.range(20.0), [20, 1])
    offers = 100.0 ** tf.reshape(tf.range(20.0) % 5, [20, 1])
    output = MiniBatchNegatives(Dot(), 4)
    inputs = {"query": users, "candidate": tf.concat([offers, 2 * offers], axis=0)}
    prediction = output(inputs, features={"user_row": tf.range(20)}, training=True)
    logits, targets = prediction.outputs.numpy(), prediction.targets.numpy()
    assert logits.shape == targets.shape == (4 * 25, 2)
    for row, (g, i, j) in enumerate(np.ndindex(4, 5, 5)):
        expected = (5 * g + i) * 100.0**j
        np.testing.assert_allclose(logits[row], [expected, 2 * expected], rtol=1e-5)
        assert (targets[row] == (i == j)).all()


def test_m12_a_batch_that_leaves_rows_over_is_refused() -> None:
    check_divisible(20, 4)
    with pytest.raises(ValueError, match="must be a multiple of 5, got 21"):
        check_divisible(21, 4)


def test_t02_a_constant_at_the_base_rate_scores_0_5004() -> None:
    targets = pair_targets(tf.range(35), 5, tf.constant(3))
    loss = PairLoss()
    constant = tf.fill(targets.shape, math.log(1 / 4))
    assert float(loss(targets, constant)) == pytest.approx(0.5004, abs=5e-5)
    assert float(loss(targets, constant + 0.1)) > 0.5008, "any other constant is worse"


def test_t02_the_loss_is_the_mean_over_pairs_and_versions() -> None:
    logits = normal(50, 3)
    targets = pair_targets(tf.range(10), 5, tf.constant(3)).numpy()
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    hand = -np.mean(targets * np.log(chance) + (1 - targets) * np.log(1 - chance))
    found = MiniBatchNegatives(Dot(), 4).default_loss(targets, logits)
    assert float(found) == pytest.approx(hand, rel=1e-5)


def test_t02_another_event_of_the_same_user_is_neither_positive_nor_negative() -> None:
    users = [3, 3, 8, 3, 8, 1, 2, 3, 4, 5]
    targets = pair_targets(tf.constant(users), 5, tf.constant(2)).numpy()
    expected = [
        1 if i == j else -1 if users[5 * g + i] == users[5 * g + j] else 0
        for g, i, j in np.ndindex(2, 5, 5)
    ]
    assert targets.T.tolist() == [expected, expected]
    assert expected.count(-1) == 8
    logits = normal(50, 2)
    kept = np.array(expected) >= 0
    own, chance = targets[kept], 1 / (1 + np.exp(-logits[kept].astype(np.float64)))
    hand = -np.mean(own * np.log(chance) + (1 - own) * np.log(1 - chance))
    output = MiniBatchNegatives(Dot(), 4)
    assert float(output.default_loss(targets, logits)) == pytest.approx(hand, rel=1e-5)
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        loss = output.default_loss(targets, variable)
    slopes = tape.gradient(loss, variable).numpy()
    assert (slopes[~kept] == 0).all()
    assert (slopes[kept] != 0).all()
