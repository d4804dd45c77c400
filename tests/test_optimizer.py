"""One step on a single number, and the learning rate's course, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.training.config import OptimizerConfig
from models.training.optimizer import WarmupSchedule, optimizer


def step(config: OptimizerConfig, gradient: float, weight: float = 2.0) -> float:
    """Return the weight after one step."""
    variable = tf.Variable(weight)
    optimizer(config, steps=10).apply_gradients([(tf.constant(gradient), variable)])
    return float(variable.numpy())


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient():
    config = OptimizerConfig(kind="adam", lr=0.1)
    assert step(config, 3.0) == pytest.approx(1.9, abs=1e-5)
    assert step(config, -0.01) == pytest.approx(2.1, abs=1e-4)


def test_t04_adagrads_first_step_by_hand():
    config = OptimizerConfig(kind="adagrad", lr=0.1)
    # Keras starts the sum of squares at 0.1
    assert step(config, 3.0) == pytest.approx(2 - 0.1 * 3 / math.sqrt(0.1 + 9), abs=1e-6)


def test_t04_the_two_meanings_of_weight_decay():
    # without a gradient only the decay moves the weight
    keras = OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.001, decay="keras")
    addons = OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.001, decay="tfa")
    assert step(keras, 0.0) == pytest.approx(2 - 0.01 * 0.001 * 2, abs=1e-6)  # 2e-5 is to be seen
    assert step(addons, 0.0) == pytest.approx(2 - 0.001 * 2, abs=1e-6)


def test_t04_adamw_in_one_operation_steps_as_kerass():
    draw = np.random.default_rng(0)
    table = draw.normal(size=(4, 3)).astype(np.float32)
    ours, keras, without = (tf.Variable(table) for _ in range(3))
    config = OptimizerConfig(kind="adamw", lr=0.1, weight_decay=0.02, warmup_steps=3)
    pairs = [
        (optimizer(config, steps=10), ours),
        (
            tf.keras.optimizers.AdamW(WarmupSchedule(0.1, 3, 10, "constant"), weight_decay=0.02),
            keras,
        ),
        (optimizer(OptimizerConfig(kind="adam", lr=0.1, warmup_steps=3), steps=10), without),
    ]
    for count in range(6):
        slope = tf.constant(draw.normal(size=(4, 3)).astype(np.float32))
        sparse = tf.IndexedSlices(slope[:2], tf.constant([3, 1]), tf.constant([4, 3]))
        for adam, variable in pairs:
            adam.apply_gradients([(sparse if count == 4 else slope, variable)])
    np.testing.assert_allclose(ours, keras, atol=5e-5)
    assert np.abs(ours.numpy() - without.numpy()).max() > 1e-3, "the decay must matter"


@pytest.mark.parametrize(
    ("kind", "last", "middle"),
    [
        ("constant", 1.0, 1.0),
        ("linear", 1 / 8, 0.5),
        ("cosine", 0.5 * (1 + math.cos(7 * math.pi / 8)), 0.5),
    ],
)
def test_the_rate_rises_and_then_stays_or_falls(kind, last, middle):
    course = WarmupSchedule(1.0, 2, 10, kind)
    rates = np.array([float(course(tf.constant(n))) for n in range(10)])
    assert rates[:2] == pytest.approx([0.5, 1.0])
    assert rates[6] == pytest.approx(middle, abs=1e-6)
    assert rates[9] == pytest.approx(last, abs=1e-6)
    assert WarmupSchedule(**course.get_config()).get_config() == course.get_config()


def test_the_optimiser_follows_its_course():
    config = OptimizerConfig(kind="adam", lr=0.1, warmup_steps=4)
    assert step(config, 3.0) == pytest.approx(2 - 0.1 / 4, abs=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_a_decay_that_nobody_would_look_at_is_refused(kind):
    with pytest.raises(ValueError, match=f"weight_decay is for kind adamw; {kind} would not"):
        OptimizerConfig(kind=kind, weight_decay=0.1)


def lazily(gradients: list[tf.IndexedSlices], table: np.ndarray) -> np.ndarray:
    """Return a table after a step for each gradient."""
    variable = tf.Variable(table)
    adam = optimizer(OptimizerConfig(kind="adam", lr=0.1), steps=10)
    for gradient in gradients:
        adam.apply_gradients([(gradient, variable)])
    return variable.numpy()


def test_rows_touched_in_every_step_move_as_in_kerass_adam():
    draw = np.random.default_rng(0)
    table = draw.normal(size=(4, 3)).astype(np.float32)
    slopes = [draw.normal(size=(4, 3)).astype(np.float32) for _ in range(5)]
    order = [np.array([2, 0, 3, 1]) for _ in slopes]
    sparse = [
        tf.IndexedSlices(tf.constant(s[o]), tf.constant(o), tf.constant([4, 3]))
        for s, o in zip(slopes, order, strict=True)
    ]
    variable = tf.Variable(table)
    keras = tf.keras.optimizers.Adam(0.1)
    for slope in slopes:
        keras.apply_gradients([(tf.constant(slope), variable)])
    np.testing.assert_allclose(lazily(sparse, table), variable.numpy(), rtol=1e-4, atol=5e-5)


def test_a_row_that_no_batch_touches_rests_and_one_touched_twice_takes_the_sum():
    table = np.ones((4, 2), np.float32)
    first = tf.IndexedSlices(tf.ones([3, 2]), tf.constant([1, 1, 2]), tf.constant([4, 2]))
    second = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]), tf.constant([4, 2]))
    once, twice = lazily([first], table), lazily([first, second], table)
    np.testing.assert_array_equal(twice[[0, 3]], 1.0)
    np.testing.assert_array_equal(twice[2], once[2])  # Keras' own Adam moves it once more
    # Adam's formulas for row 1, whose gradients are 2 (added up) and 1
    mean, power, weight = 0.0, 0.0, 1.0
    for t, slope in enumerate((2.0, 1.0), start=1):
        mean, power = 0.9 * mean + 0.1 * slope, 0.999 * power + 0.001 * slope**2
        weight -= 0.1 * (mean / (1 - 0.9**t)) / (math.sqrt(power / (1 - 0.999**t)) + 1e-7)
    np.testing.assert_allclose(twice[1], weight, rtol=1e-5)
