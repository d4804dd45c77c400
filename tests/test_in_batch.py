from __future__ import annotations

import math

import merlin.models.tf as mm
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from merlin.models.tf.outputs.base import DotProduct
from merlin.schema import ColumnSchema, Schema, Tags

from models.in_batch import known_positives, log_q, mixture_log_q, softmax_loss

# a batch with a repeated item, a repeated user, and a user who likes nearly everything
USERS = np.array([0, 0, 1, 2, 2])
ITEMS = np.array([3, 1, 3, 0, 2])
LIKED = [[3, 1], [3], [0, 2, 1]]
COUNTS = np.array([40, 7, 1, 90])
LOGITS = np.random.default_rng(0).normal(scale=2.0, size=(5, 5))

MASKS = {
    "none": None,
    "item": [[i == j for j in ITEMS] for i in ITEMS],
    "user": [[j in LIKED[u] for j in ITEMS] for u in USERS],
}


def by_hand(logits, positives, *, temperature, q, mask) -> list[float]:
    """State the loss of each row in Python floats: no term for a masked column."""
    losses = []
    for b, own in enumerate(positives):
        terms = {}
        for c in range(len(logits[b])):
            if mask is None or not mask[b][c] or c == own:
                terms[c] = logits[b][c] / temperature - (math.log(q[c]) if q is not None else 0)
        losses.append(math.log(sum(math.exp(t) for t in terms.values())) - terms[own])
    return losses


def slope(logits, weights, positives, **kw) -> np.ndarray:
    """Return the gradient of the weighted sum of `by_hand` by central differences."""
    gradient = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        up, down = (
            np.dot(weights, by_hand(logits + sign * step, positives, **kw)) for sign in (1, -1)
        )
        gradient[place] = (up - down) / 2e-5
    return gradient


def loss_and_gradient(logits, weights, positives, **kw) -> tuple[np.ndarray, np.ndarray]:
    variable = tf.Variable(logits.astype(np.float32))
    with tf.GradientTape() as tape:
        losses = softmax_loss(variable, tf.constant(positives), **kw)
        total = tf.reduce_sum(losses * tf.constant(weights, tf.float32))
    return losses.numpy(), tape.gradient(total, variable).numpy()


def as_tensor(value, dtype):
    return None if value is None else tf.constant(value, dtype)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 3.0])
def test_values_and_gradients_are_those_of_plain_float64(temperature, corrected, mask):
    positives = np.arange(5)
    weights = np.array([1.0, 0.5, 2.0, 0.0, 1.0])
    q = COUNTS[ITEMS] / COUNTS.sum() if corrected else None
    losses, gradient = loss_and_gradient(
        LOGITS,
        weights,
        positives,
        temperature=temperature,
        log_q=tf.gather(log_q(COUNTS), ITEMS) if corrected else None,
        mask=as_tensor(MASKS[mask], tf.bool),
    )
    setting = {"temperature": temperature, "q": q, "mask": MASKS[mask]}
    expected = by_hand(LOGITS, positives, **setting)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        gradient, slope(LOGITS, weights, positives, **setting), rtol=1e-4, atol=1e-5
    )
    assert losses.dtype == np.float32


def test_the_masks_and_the_correction_of_that_batch_are_not_idle():
    every = [
        by_hand(LOGITS, range(5), temperature=1.0, q=q, mask=mask)
        for q in (None, COUNTS[ITEMS] / COUNTS.sum())
        for mask in MASKS.values()
    ]
    assert len({tuple(np.round(losses, 3)) for losses in every}) == 6


def test_the_positive_may_stand_in_any_column():
    positives = np.array([2, 2, 0, 1, 6])
    logits = np.random.default_rng(1).normal(size=(5, 7))
    losses, _ = loss_and_gradient(logits, np.ones(5), positives)
    expected = by_hand(logits, positives, temperature=1.0, q=None, mask=None)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_the_correction_does_not_depend_on_the_temperature():
    q = tf.gather(log_q(COUNTS), ITEMS)
    plain = softmax_loss(tf.constant(LOGITS), tf.range(5), log_q=q).numpy()
    for temperature in (0.05, 7.0):
        scaled = tf.constant(LOGITS * temperature, tf.float32)
        losses = softmax_loss(scaled, tf.range(5), temperature=temperature, log_q=q)
        np.testing.assert_allclose(losses, plain, rtol=1e-4)
        # Merlin's way divides the correction too
        divided = softmax_loss(scaled - q[None, :], tf.range(5), temperature=temperature)
        assert not np.allclose(divided, plain, rtol=0.05)


@pytest.mark.parametrize("loudness", [0.0, 90.0, 1e4])
def test_a_masked_item_has_probability_zero_however_high_its_score(loudness):
    logits = LOGITS.copy()
    logits[0, 2] = loudness
    mask = np.zeros((5, 5), bool)
    mask[0, 2] = True
    losses, gradient = loss_and_gradient(logits, np.ones(5), np.arange(5), mask=tf.constant(mask))
    assert gradient[0, 2] == 0.0
    without = by_hand(np.delete(LOGITS, 2, axis=1)[:1], [0], temperature=1.0, q=None, mask=None)
    np.testing.assert_allclose(losses[:1], without, rtol=1e-6)


def test_a_row_whose_every_column_is_masked_keeps_its_own_and_loses_nothing():
    losses, gradient = loss_and_gradient(
        LOGITS * 20, np.ones(5), np.arange(5), mask=tf.ones([5, 5], tf.bool)
    )
    assert (losses == 0).all()
    assert (gradient == 0).all()


def test_a_large_score_gives_a_finite_loss():
    logits = np.array([[3e4, -3e4], [3e4, -3e4]])
    losses, gradient = loss_and_gradient(logits, np.ones(2), np.arange(2))
    np.testing.assert_allclose(losses, [0, 6e4])
    assert np.isfinite(gradient).all()


def test_without_options_it_is_the_loss_of_tensorflow_recommenders():
    # tfrs.tasks.Retrieval: identity labels, categorical cross-entropy of the scores, summed
    queries, items = (np.random.default_rng(s).normal(size=(6, 3)) for s in (2, 3))
    scores = tf.constant(queries @ items.T, tf.float32)
    theirs = tf.keras.losses.CategoricalCrossentropy(
        from_logits=True, reduction=tf.keras.losses.Reduction.SUM
    )(tf.eye(6), scores)
    ours = tf.reduce_sum(softmax_loss(scores, tf.range(6)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_masking_equal_items_is_the_loss_of_merlin_models(temperature):
    draw = np.random.default_rng(4)
    queries, vectors = (tf.constant(draw.normal(size=(5, 3)), tf.float32) for _ in range(2))
    ids = tf.constant(ITEMS[:, None])
    output = mm.ContrastiveOutput(
        DotProduct(),
        negative_samplers="in-batch",
        schema=Schema([ColumnSchema("item", tags=[Tags.ITEM_ID], dtype=np.int64)]),
        downscore_false_negatives=True,
        logits_temperature=temperature,
    )
    with tf.GradientTape() as tape:
        tape.watch([queries, vectors])
        theirs = output(
            {"query": queries, "candidate": vectors},
            features={"item": ids},
            targets=None,
            training=True,
        )
        their_losses = tf.keras.losses.categorical_crossentropy(
            theirs.targets, theirs.outputs, from_logits=True
        )
        their_total = tf.reduce_sum(their_losses)
    with tf.GradientTape() as own_tape:
        own_tape.watch([queries, vectors])
        our_losses = softmax_loss(
            tf.matmul(queries, vectors, transpose_b=True),
            tf.range(5),
            temperature=temperature,
            mask=ITEMS[:, None] == ITEMS[None, :],
        )
        our_total = tf.reduce_sum(our_losses)
    np.testing.assert_allclose(our_losses, their_losses, rtol=1e-5, atol=1e-6)
    pairs = zip(
        own_tape.gradient(our_total, [queries, vectors]),
        tape.gradient(their_total, [queries, vectors]),
        strict=True,
    )
    for ours, merlins in pairs:
        np.testing.assert_allclose(ours, merlins, rtol=1e-4, atol=1e-6)
    unmasked = softmax_loss(tf.matmul(queries, vectors, transpose_b=True), tf.range(5))
    assert not np.allclose(unmasked, their_losses, rtol=1e-3)


def test_q_is_the_share_of_the_training_rows():
    shares = np.exp(log_q(np.array([6, 3, 1, 0])))
    np.testing.assert_allclose(shares, [6 / 11, 3 / 11, 1 / 11, 1 / 11], rtol=1e-6)
    assert shares.dtype == np.float32


def test_the_q_of_a_mixture_is_how_often_its_draws_bring_an_item():
    q = log_q(np.array([6, 3, 1]))
    mixed = np.exp(mixture_log_q(q, batch_size=30, negatives=10))
    expected = [(30 * 0.6 + 10 / 3) / 40, (30 * 0.3 + 10 / 3) / 40, (30 * 0.1 + 10 / 3) / 40]
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=30),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_the_q_of_a_mixture_adds_up_to_one(counts, batch_size, negatives):
    q = log_q(np.array(counts))
    mixed = mixture_log_q(q, batch_size=batch_size, negatives=negatives)
    assert np.exp(mixed.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert mixed.dtype == np.float32


def gradient_by_item(scores, drawn, counts, *, corrected) -> np.ndarray:
    """Return the gradient of one row against drawn items (the first is its own), item by item."""
    variable = tf.Variable(scores[None, drawn], dtype=tf.float32)
    with tf.GradientTape() as tape:
        q = tf.gather(log_q(counts), drawn) if corrected else None
        loss = softmax_loss(variable, tf.constant([0]), log_q=q)
    sums = np.zeros(len(scores))
    np.add.at(sums, drawn, tape.gradient(loss, variable).numpy()[0])
    return sums


def test_with_the_correction_a_sampled_gradient_approaches_that_of_the_full_softmax():
    draw = np.random.default_rng(5)
    counts = np.maximum(1, 2000 / np.arange(1, 51) ** 1.2).astype(int)
    scores = draw.normal(size=50)
    own = 7
    full = np.exp(scores) / np.exp(scores).sum() - np.eye(50)[own]
    drawn = np.append(own, draw.choice(50, size=200_000, p=counts / counts.sum()))
    corrected = gradient_by_item(scores, drawn, counts, corrected=True)
    raw = gradient_by_item(scores, drawn, counts, corrected=False)
    assert np.abs(corrected - full).max() < 0.003
    assert np.abs(raw - full).max() > 0.1  # the control: the head of the catalogue is punished


@tf.function(
    input_signature=[
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.int64),
    ]
)
def traced(users, items, values, offsets):
    return known_positives(users, items, values, offsets)


@st.composite
def likes_and_batch(draw):
    n_items = draw(st.integers(1, 8))
    item = st.integers(0, n_items - 1)
    liked = draw(st.lists(st.lists(item, max_size=6), min_size=1, max_size=5))
    users = draw(st.lists(st.integers(0, len(liked) - 1), min_size=1, max_size=6))
    return liked, users, draw(st.lists(item, min_size=1, max_size=8))


@settings(deadline=None, max_examples=150)
@given(likes_and_batch())
def test_known_positives_are_those_of_a_double_loop(world):
    liked, users, items = world
    found = traced(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.array([i for of_user in liked for i in of_user], np.int32),
        np.cumsum([0, *map(len, liked)]),
    )
    assert found.numpy().tolist() == [[i in liked[u] for i in items] for u in users]


def test_known_positives_of_users_who_like_nothing():
    found = known_positives(
        tf.constant([1, 0]),
        tf.constant([5, 5, 2]),
        tf.zeros([0], tf.int32),
        tf.zeros([3], tf.int64),
    )
    assert found.numpy().tolist() == [[False] * 3] * 2
