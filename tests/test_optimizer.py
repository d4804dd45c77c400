"""One step on a single number, and the learning rate's course, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.config import OptimizerConfig
from models.optimizer import Course, optimizer


def step(config: OptimizerConfig, gradient: float, weight: float = 2.0) -> float:
    """Return the weight after one step."""
    variable = tf.Variable(weight)
    optimizer(config, steps=10).apply_gradients([(tf.constant(gradient), variable)])
    return float(variable.numpy())


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient():
    config = OptimizerConfig(kind="adam", lr=0.1)
    assert step(config, 3.0) == pytest.approx(1.9, abs=1e-5)
    assert step(config, -0.01) == pytest.approx(2.1, abs=1e-4)


def test_adagrads_first_step_by_hand():
    config = OptimizerConfig(kind="adagrad", lr=0.1)
    # Keras starts the sum of squares at 0.1
    assert step(config, 3.0) == pytest.approx(2 - 0.1 * 3 / math.sqrt(0.1 + 9), abs=1e-6)


def test_the_two_meanings_of_weight_decay():
    # without a gradient only the decay moves the weight
    keras = OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.001, decay="keras")
    addons = OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.001, decay="tfa")
    assert step(keras, 0.0) == pytest.approx(2 - 0.01 * 0.001 * 2, abs=1e-7)
    assert step(addons, 0.0) == pytest.approx(2 - 0.001 * 2, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "last", "middle"),
    [
        ("constant", 1.0, 1.0),
        ("linear", 1 / 8, 0.5),
        ("cosine", 0.5 * (1 + math.cos(7 * math.pi / 8)), 0.5),
    ],
)
def test_the_rate_rises_and_then_stays_or_falls(kind, last, middle):
    course = Course(1.0, 2, 10, kind)
    rates = np.array([float(course(tf.constant(n))) for n in range(10)])
    assert rates[:2] == pytest.approx([0.5, 1.0])
    assert rates[6] == pytest.approx(middle, abs=1e-6)
    assert rates[9] == pytest.approx(last, abs=1e-6)
    assert Course(**course.get_config()).get_config() == course.get_config()


def test_the_optimiser_follows_its_course():
    config = OptimizerConfig(kind="adam", lr=0.1, warmup_steps=4)
    assert step(config, 3.0) == pytest.approx(2 - 0.1 / 4, abs=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_a_decay_that_nobody_would_look_at_is_refused(kind):
    with pytest.raises(ValueError, match=f"weight_decay is for kind adamw; {kind} would not"):
        OptimizerConfig(kind=kind, weight_decay=0.1)
