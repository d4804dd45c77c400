"""Every history encoder that a recipe can name keeps the protocol of encoders."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from models.encoders.attention import Attention
from models.encoders.config import AttentionConfig, DecayPoolConfig, EncoderConfig
from models.encoders.encoder import HistoryEncoder, Shape, Steps, build_encoder
from models.encoders.gaps import GapBias

#: A union has several arguments; a single class has none.
CONFIGS = get_args(EncoderConfig) or (EncoderConfig,)
DIM = 4
LENGTHS = [2, 0, 3]
AGES = [[90.0, 0.0], [], [5000.0, 70.0, 70.0]]


def steps(order: list[int], *, ages: bool = False, add: float = 0.0) -> Steps:
    """Return histories of these lengths, the rows in another order."""
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(n, DIM)).astype(np.float32) for n in LENGTHS]
    lists = tf.RaggedTensor.from_row_lengths(
        np.concatenate([vectors[i] for i in order]), [LENGTHS[i] for i in order]
    )
    flat = np.float32([age + add for i in order for age in AGES[i]])
    return Steps(lists, lists.with_values(tf.constant(flat)) if ages else None)


def build(config: EncoderConfig, *, ages: bool = False) -> HistoryEncoder:
    """Return an encoder whose weights are all random, so that each of them matters."""
    encoder = build_encoder(config, Shape(max_len=5, dim=DIM, seed=1, ages=ages))
    rng = np.random.default_rng(1)
    for weight in encoder.trainable_weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return encoder


@pytest.mark.parametrize("ages", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__struct_config__.tag)
def test_an_encoder_gives_one_vector_a_history_and_one_a_step(config: type, ages: bool):
    encoder = build(config(), ages=ages)
    assert isinstance(encoder, tf.keras.layers.Layer)  # so that its weights are those of the tower
    one = encoder.encode(steps([0, 1, 2], ages=ages), training=False).numpy()
    each = encoder.encode_each(steps([0, 1, 2], ages=ages), training=False)
    assert one.shape == (3, DIM)
    assert each.row_lengths().numpy().tolist() == LENGTHS
    assert not one[1].any()  # an empty history is the zero vector
    assert one[0].any()
    for row, length in ((0, 2), (2, 3)):
        np.testing.assert_allclose(each[row][length - 1], one[row], rtol=1e-5, atol=1e-6)
    turned = encoder.encode(steps([2, 1, 0], ages=ages), training=False).numpy()
    np.testing.assert_allclose(turned[::-1], one, rtol=1e-5, atol=1e-6)
    weights = encoder.weights_by_position()
    assert weights is None or weights.shape == (5,)


@pytest.mark.parametrize("ages", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__struct_config__.tag)
def test_a_step_depends_on_itself_and_on_earlier_steps_alone(config: type, ages: bool):
    encoder, whole = build(config(), ages=ages), steps([2], ages=ages)
    each = encoder.encode_each(whole, training=False)[0].numpy()
    for n in (1, 2, 3):
        of = None if whole.ages is None else whole.ages[:, :n]
        prefix = Steps(whole.vectors[:, :n], of)
        found = encoder.encode(prefix, training=False).numpy()[0]
        np.testing.assert_allclose(found, each[n - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__struct_config__.tag)
def test_only_differences_between_ages_matter_and_unknown_ages_are_as_none(config: type):
    encoder = build(config(), ages=True)
    one = encoder.encode(steps([0, 1, 2], ages=True), training=False).numpy()
    later = encoder.encode(steps([0, 1, 2], ages=True, add=512.0), training=False).numpy()
    np.testing.assert_allclose(later, one, rtol=1e-5, atol=1e-6)
    unknown = encoder.encode(steps([0, 1, 2], ages=True, add=np.nan), training=False).numpy()
    without = encoder.encode(steps([0, 1, 2]), training=False).numpy()
    np.testing.assert_allclose(unknown, without, rtol=1e-5, atol=1e-6)
    assert not np.allclose(without[0], one[0], rtol=0.01), "ages matter"


def test_a_time_between_two_points_gets_what_lies_between_their_numbers():
    gap = GapBias()
    table = np.arange(gap.table.shape[0], dtype=np.float32) ** 2
    gap.table.assign(table)
    points = [0, 1, 3, 2**20 - 1]
    found = gap(tf.constant(points, tf.float32)).numpy()
    np.testing.assert_allclose(found, table[[0, 1, 2, 20]], rtol=1e-4)
    half = gap(tf.constant([2**2.5 - 1], tf.float32)).numpy()
    np.testing.assert_allclose(half[0], (table[2] + table[3]) / 2, rtol=1e-4)
    assert np.isfinite(gap(tf.constant([3e38, -5.0, np.inf, np.nan])).numpy()).all()
    assert gap(tf.constant([np.nan])).numpy().tolist() == [0.0]


def by_hand(encoder: Attention, vectors: np.ndarray) -> np.ndarray:
    """Encode one history with one block, in float64, item by item and head by head."""

    def value(layer: tf.keras.layers.Layer, name: str) -> np.ndarray:
        return getattr(layer, name).numpy().astype(np.float64)

    def norm(layer: tf.keras.layers.Layer, x: np.ndarray) -> np.ndarray:
        scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
        return scaled * value(layer, "scale") + value(layer, "shift")

    def affine(layer: tf.keras.layers.Layer, x: np.ndarray) -> np.ndarray:
        return x @ value(layer, "kernel") + value(layer, "bias")

    def bias(head: int, i: int, j: int) -> float:
        return value(block, "position")[i - j, head]

    (block,) = encoder.blocks
    last, width = len(vectors) - 1, DIM // block.heads
    parts = np.array([affine(block.project, norm(block.norms[0], x)) for x in vectors])
    query, key, values = (parts[:, n * DIM : (n + 1) * DIM] for n in range(3))
    mixed = []
    for head in range(block.heads):
        of = slice(head * width, (head + 1) * width)
        scores = [
            query[last, of] @ key[j, of] / math.sqrt(width) + bias(head, last, j)
            for j in range(last + 1)
        ]
        shares = np.exp(scores) / np.exp(scores).sum()
        mixed += (shares @ values[:, of]).tolist()
    hidden = vectors[last] + affine(block.join, np.array(mixed))
    wide = affine(block.up, norm(block.norms[1], hidden))
    gelu = np.array([x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in wide])
    hidden = hidden + affine(block.down, gelu)
    return value(encoder, "gain") * norm(encoder.norm, hidden)


def test_attention_is_that_of_the_formula():
    encoder, given = build(AttentionConfig(decay=None)), steps([0, 2])
    found = encoder.encode(given, training=False).numpy()
    for row in range(2):
        expected = by_hand(encoder, given.vectors[row].numpy().astype(np.float64))
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "used"), [(1, 1), (2, 2), (3, 1), (6, 2), (8, 4)])
def test_heads_that_do_not_divide_the_width_are_fewer(heads: int, used: int):
    encoder = build(AttentionConfig(heads=heads))
    assert encoder.blocks[0].heads == used
    found = encoder.encode(steps([0, 1, 2]), training=False)
    assert found.shape == (3, DIM)
    assert np.isfinite(found).all()


def test_attention_is_added_to_the_weighted_mean():
    config = AttentionConfig(decay=10.0)
    encoder = build(config, ages=True)
    pool = build(DecayPoolConfig(), ages=True)
    pool.set_weights(encoder.pool.get_weights())
    alone = build(AttentionConfig(decay=None))
    for mine, theirs in zip(alone.blocks, encoder.blocks, strict=True):
        mine.set_weights(theirs.get_weights())
    alone.norm.set_weights(encoder.norm.get_weights())
    alone.gain.assign(encoder.gain)
    given = steps([0, 1, 2], ages=True)
    both, one, other = (e.encode(given, training=False).numpy() for e in (encoder, pool, alone))
    np.testing.assert_allclose(both, one + other, rtol=1e-4, atol=1e-5)


def test_dropout_of_attention_is_for_training_alone_and_goes_on_where_it_was():
    encoder = build(AttentionConfig(dropout=0.5))
    still = [encoder.encode(steps([0, 2]), training=False).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)
    state = encoder.get_weights()
    first = [encoder.encode(steps([0, 2]), training=True).numpy() for _ in range(2)]
    assert not np.allclose(*first)
    encoder.set_weights(state)  # as a resumed fit does
    again = [encoder.encode(steps([0, 2]), training=True).numpy() for _ in range(2)]
    np.testing.assert_allclose(again, first, rtol=1e-5, atol=1e-6)
