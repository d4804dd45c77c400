from __future__ import annotations

import doctest
import math

import merlin.models.tf as mm
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from merlin.models.tf.outputs.base import DotProduct
from merlin.schema import ColumnSchema, Schema, Tags

from models.losses import in_batch
from models.losses.in_batch import Mask, Masked, log_q, mixture_log_q, softmax_loss

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


def masked(cells: list[list[bool]] | np.ndarray | None) -> Mask | None:
    """Return a matrix as a mask: the cells of a block of rows, but for the diagonal."""
    if cells is None:
        return None
    return of_rows(np.array(cells, bool) & ~np.eye(*np.shape(cells), dtype=bool))


def of_rows(cells: np.ndarray) -> Mask:
    """Return a bool matrix [B, C] as a mask."""
    return lambda start, stop: Masked(tf.where(tf.constant(cells)[start:stop]))


def masked_by_group(cells: np.ndarray, groups: np.ndarray) -> Mask:
    """Return a mask in which the rows of a group share masked columns, bool [n_groups, C]."""

    def mask(start: tf.Tensor, stop: tf.Tensor) -> Masked:
        mine = tf.constant(groups)[start:stop]
        return Masked(tf.where(tf.constant(cells)[mine[0] : mine[-1] + 1]), mine - mine[0])

    return mask


def loss_and_gradient(logits, weights, positives, **kw) -> tuple[np.ndarray, np.ndarray]:
    """Return row losses and the gradient of their weighted sum; the items are unit vectors."""
    queries = tf.constant(logits, tf.float32)
    items = tf.eye(queries.shape[1])
    with tf.GradientTape() as tape:
        tape.watch(queries)
        loss = softmax_loss(
            queries, items, tf.constant(positives), weights=tf.constant(weights, tf.float32), **kw
        )
    np.testing.assert_allclose(loss.total, np.dot(weights, loss.rows), rtol=1e-6)
    return loss.rows.numpy(), tape.gradient(loss.total, queries).numpy()


def losses_of(logits, own=None, **kw) -> np.ndarray:
    own = np.arange(len(logits)) if own is None else own
    return loss_and_gradient(logits, np.ones(len(logits)), own, **kw)[0]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 3.0])
def test_t01_values_and_gradients_are_those_of_plain_float64(temperature, corrected, mask):
    positives = np.arange(5)
    weights = np.array([1.0, 0.5, 2.0, 0.0, 1.0])
    q = COUNTS[ITEMS] / COUNTS.sum() if corrected else None
    losses, gradient = loss_and_gradient(
        LOGITS,
        weights,
        positives,
        temperature=temperature,
        log_q=tf.gather(log_q(COUNTS), ITEMS) if corrected else None,
        mask=masked(MASKS[mask]),
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


def test_t01_the_correction_does_not_depend_on_the_temperature():
    q = tf.gather(log_q(COUNTS), ITEMS)
    plain = losses_of(LOGITS, log_q=q)
    for temperature in (0.05, 7.0):
        losses = losses_of(LOGITS * temperature, temperature=temperature, log_q=q)
        np.testing.assert_allclose(losses, plain, rtol=1e-4)
        # Merlin's way divides the correction too
        divided = losses_of(LOGITS * temperature - q[None, :], temperature=temperature)
        assert not np.allclose(divided, plain, rtol=0.05)


@pytest.mark.parametrize("loudness", [0.0, 90.0, 1e4])
def test_a_masked_item_has_probability_zero_however_high_its_score(loudness):
    logits = LOGITS.copy()
    logits[0, 2] = loudness
    mask = np.zeros((5, 5), bool)
    mask[0, 2] = True
    losses, gradient = loss_and_gradient(logits, np.ones(5), np.arange(5), mask=masked(mask))
    assert gradient[0, 2] == 0.0
    without = by_hand(np.delete(LOGITS, 2, axis=1)[:1], [0], temperature=1.0, q=None, mask=None)
    np.testing.assert_allclose(losses[:1], without, rtol=1e-6)


def test_a_row_whose_every_column_is_masked_keeps_its_own_and_loses_nothing():
    losses, gradient = loss_and_gradient(
        LOGITS * 20, np.ones(5), np.arange(5), mask=masked(np.ones([5, 5], bool))
    )
    assert (losses == 0).all()
    assert (gradient == 0).all()


def test_a_large_score_gives_a_finite_loss():
    logits = np.array([[3e4, -3e4], [3e4, -3e4]])
    losses, gradient = loss_and_gradient(logits, np.ones(2), np.arange(2))
    np.testing.assert_allclose(losses, [0, 6e4])
    assert np.isfinite(gradient).all()


def test_t01_without_options_it_is_the_loss_of_tensorflow_recommenders():
    # tfrs.tasks.Retrieval: identity labels, categorical cross-entropy of the scores, summed
    queries, items = (
        tf.constant(np.random.default_rng(s).normal(size=(6, 3)), tf.float32) for s in (2, 3)
    )
    theirs = tf.keras.losses.CategoricalCrossentropy(
        from_logits=True, reduction=tf.keras.losses.Reduction.SUM
    )(tf.eye(6), queries @ tf.transpose(items))
    ours = softmax_loss(queries, items, tf.range(6), weights=tf.ones(6)).total
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_t01_masking_equal_items_is_the_loss_of_merlin_models(temperature):
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
        ours = softmax_loss(
            queries,
            vectors,
            tf.range(5),
            weights=tf.ones(5),
            temperature=temperature,
            mask=masked(ITEMS[:, None] == ITEMS[None, :]),
        )
    np.testing.assert_allclose(ours.rows, their_losses, rtol=1e-5, atol=1e-6)
    pairs = zip(
        own_tape.gradient(ours.total, [queries, vectors]),
        tape.gradient(their_total, [queries, vectors]),
        strict=True,
    )
    for mine, merlins in pairs:
        np.testing.assert_allclose(mine, merlins, rtol=1e-4, atol=1e-5)
    unmasked = softmax_loss(queries, vectors, tf.range(5), weights=tf.ones(5)).rows
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
    queries = tf.ones([1, 1])
    items = tf.constant(scores[drawn, None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(items)
        q = tf.gather(log_q(counts), drawn) if corrected else None
        loss = softmax_loss(queries, items, tf.constant([0]), weights=tf.ones(1), log_q=q)
    sums = np.zeros(len(scores))
    np.add.at(sums, drawn, tape.gradient(loss.total, items).numpy()[:, 0])
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


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("block_scores", [1, 7, 40, 10_000])
def test_blocks_change_nothing(block_scores, grouped):
    draw = np.random.default_rng(6)
    queries, items = draw.normal(size=(13, 4)), draw.normal(size=(20, 4))
    own, weights = draw.integers(0, 20, 13), draw.uniform(size=13)
    cells = draw.uniform(size=(13, 20)) < 0.3
    if grouped:
        groups = np.array([0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4], np.int32)
        by_group, cells = masked_by_group(cells[:5], groups), cells[groups]
        assert cells[np.arange(13), own].any()  # rows' own items, which the groups mask
    cells[np.arange(13), own] = False
    mask = by_group if grouped else of_rows(cells)
    q = draw.normal(size=20)

    @tf.function  # as in a fit: the number of rows is not known when the graph is made
    def run(queries, items):
        with tf.GradientTape() as tape:
            tape.watch([queries, items])
            loss = softmax_loss(
                queries,
                items,
                tf.constant(own),
                weights=tf.constant(weights, tf.float32),
                temperature=0.5,
                log_q=tf.constant(q, tf.float32),
                mask=mask,
                block_scores=block_scores,
            )
        return loss, tape.gradient(loss.total, [queries, items])

    shape = [tf.TensorSpec([None, 4], tf.float32)] * 2
    loss, gradients = run.get_concrete_function(*shape)(
        tf.constant(queries, tf.float32), tf.constant(items, tf.float32)
    )
    logits = queries @ items.T / 0.5 - q
    logits[cells] = -np.inf
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss.rows, -np.log(shares[np.arange(13), own]), rtol=1e-5)
    slope = (shares - np.eye(20)[own]) * weights[:, None] / 0.5
    np.testing.assert_allclose(gradients[0], slope @ items, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients[1], slope.T @ queries, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("liked", [False, True, "by group"])
@pytest.mark.parametrize("block_scores", [5, 10_000])
def test_equal_columns_may_be_one(liked, corrected, block_scores):
    # the batch: item 0 four times, item 3 once, and item 4 drawn beside it
    draw = np.random.default_rng(8)
    vectors, q = draw.normal(size=(5, 4)), draw.normal(size=5)
    drawn = np.array([0, 2, 0, 1, 3, 0, 1, 0, 4, 2])
    own, weights = drawn[:8], draw.uniform(size=8)
    more = draw.uniform(size=(8, 5)) < (0.3 if liked else 0)
    groups = np.arange(8, dtype=np.int32) // (3 if liked == "by group" else 1)
    by_group = masked_by_group(more[:3], groups)
    more = more[groups]
    more[np.arange(8), own] = False
    queries = tf.constant(draw.normal(size=(8, 4)), tf.float32)

    def run(columns, own, mask, repeats):
        items = tf.constant(vectors[columns], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch([queries, items])
            loss = softmax_loss(
                queries,
                items,
                tf.constant(own),
                weights=tf.constant(weights, tf.float32),
                temperature=0.5,
                log_q=tf.constant(q[columns], tf.float32) if corrected else None,
                mask=mask,
                multiplicity=None if repeats is None else tf.constant(repeats, tf.float32),
                block_scores=block_scores,
            )
        d_queries, d_items = tape.gradient(loss.total, [queries, items])
        by_item = np.zeros_like(vectors)
        np.add.at(by_item, columns, d_items.numpy())
        return loss.rows.numpy(), d_queries.numpy(), by_item

    cells = more[:, drawn] | (own[:, None] == drawn)
    cells[np.arange(8), np.arange(8)] = False
    plain = run(drawn, np.arange(8), of_rows(cells), None)
    mask = by_group if liked == "by group" else of_rows(more)
    merged = run(np.arange(5), own, mask, np.bincount(drawn))
    for slow, fast in zip(plain, merged, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5)
    once = run(np.arange(5), own, mask, np.ones(5))
    assert not np.allclose(once[0], plain[0], rtol=1e-2)


def test_the_gradient_follows_what_becomes_of_the_total():
    queries, items = tf.constant(LOGITS, tf.float32), tf.eye(5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(queries)
        total = softmax_loss(queries, items, tf.range(5), weights=tf.ones(5)).total
        tripled = 3.0 * total
    plain, thrice = (tape.gradient(of, queries).numpy() for of in (total, tripled))
    np.testing.assert_allclose(thrice, 3 * plain, rtol=1e-6)


def test_bfloat16_is_near_and_not_the_same():
    draw = np.random.default_rng(7)
    queries, items = (tf.constant(draw.normal(size=(60, 16)), tf.float32) for _ in range(2))
    gradients = {}
    for precision in ("float32", "bfloat16"):
        with tf.GradientTape() as tape:
            tape.watch([queries, items])
            loss = softmax_loss(
                queries, items, tf.range(60), weights=tf.ones(60), precision=precision
            )
        gradients[precision] = tape.gradient(loss.total, [queries, items])
        assert loss.rows.dtype == tf.float32
    for exact, near in zip(gradients["float32"], gradients["bfloat16"], strict=True):
        assert near.dtype == tf.float32
        assert 1e-4 < float(tf.norm(near - exact) / tf.norm(exact)) < 0.02


def test_a_group_masks_in_bfloat16_too():
    draw = np.random.default_rng(9)
    queries, items = (tf.constant(draw.normal(size=(6, 8)), tf.float32) for _ in range(2))
    cells, groups = np.ones((2, 6), bool), np.array([0, 0, 0, 1, 1, 1], np.int32)
    cells[:, 5] = False
    with tf.GradientTape() as tape:
        tape.watch([queries, items])
        loss = softmax_loss(
            queries,
            items,
            tf.constant([0, 1, 2, 3, 4, 5]),
            weights=tf.ones(6),
            mask=masked_by_group(cells, groups),
            precision="bfloat16",
        )
    scores = (queries.numpy() @ items.numpy().T).astype(np.float64)
    own = scores[np.arange(6), np.arange(6)]
    expected = np.logaddexp(0, scores[:, 5] - own) * (np.arange(6) < 5)
    np.testing.assert_allclose(loss.rows, expected, atol=0.05)
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(loss.total, [queries, items]))


def test_the_example_of_the_docstring_holds():
    assert doctest.testmod(in_batch) == (0, 5)
