"""Every history encoder that a recipe can name keeps the protocol of encoders."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from models.encoders.config import EncoderConfig
from models.encoders.encoder import Steps, build_encoder

#: A union has several arguments; a single class has none.
CONFIGS = get_args(EncoderConfig) or (EncoderConfig,)
DIM = 4
LENGTHS = [2, 0, 3]


def steps(order: list[int]) -> Steps:
    """Return histories of these lengths, the rows in another order."""
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(n, DIM)).astype(np.float32) for n in LENGTHS]
    flat = np.concatenate([vectors[i] for i in order])
    return Steps(tf.RaggedTensor.from_row_lengths(flat, [LENGTHS[i] for i in order]))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__struct_config__.tag)
def test_an_encoder_gives_one_vector_a_history_and_one_a_step(config: type):
    encoder = build_encoder(config(), max_len=5)
    assert isinstance(encoder, tf.keras.layers.Layer)  # so that its weights are those of the tower
    one = encoder.encode(steps([0, 1, 2]), training=False).numpy()
    each = encoder.encode_each(steps([0, 1, 2]), training=False).numpy()
    assert (one.shape, each.shape) == ((3, DIM), (3, max(LENGTHS), DIM))
    assert not one[1].any()  # an empty history is the zero vector
    assert one[0].any()
    for row, length in ((0, 2), (2, 3)):
        np.testing.assert_allclose(each[row, length - 1], one[row], rtol=1e-5, atol=1e-6)
    turned = encoder.encode(steps([2, 1, 0]), training=False).numpy()
    np.testing.assert_allclose(turned[::-1], one, rtol=1e-5, atol=1e-6)
    weights = encoder.weights_by_age()
    assert weights is None or weights.shape == (5,)
