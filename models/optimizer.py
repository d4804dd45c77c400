"""Optimisers of Keras 2.12, with the learning rate's course over a fit."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from models.config import OptimizerConfig


def optimizer(config: OptimizerConfig, *, steps: int) -> tf.keras.optimizers.Optimizer:
    """Build the optimiser.

    Args:
        config: kind, rates and their course.
        steps: of the whole fit, if it is not stopped early.
    """
    rate: Any = config.lr
    if config.warmup_steps or config.schedule != "constant":
        rate = Course(config.lr, config.warmup_steps, steps, config.schedule)
    if config.kind == "adam":
        return tf.keras.optimizers.Adam(rate)
    if config.kind == "adagrad":
        return tf.keras.optimizers.Adagrad(rate)
    decay = config.weight_decay
    # Keras multiplies the decay by the learning rate, TensorFlow Addons did not
    return tf.keras.optimizers.AdamW(
        rate, weight_decay=decay / config.lr if config.decay == "tfa" else decay
    )


class Course(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Rise in a line from 0, then stay, or fall to 0 at the last step.

    Args:
        peak: the highest rate.
        warmup: steps of the rise.
        steps: in all.
        kind: constant, linear or cosine.
    """

    def __init__(self, peak: float, warmup: int, steps: int, kind: str) -> None:
        super().__init__()
        self.peak = peak
        self.warmup = warmup
        self.steps = steps
        self.kind = kind

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the rate of a step, counted from 0."""
        step = tf.cast(step, tf.float32)
        rise = tf.minimum((step + 1.0) / max(1, self.warmup), 1.0)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        done = tf.clip_by_value(done, 0.0, 1.0)
        fall = {
            "constant": tf.ones_like(done),
            "linear": 1.0 - done,
            "cosine": 0.5 * (1.0 + tf.cos(math.pi * done)),
        }[self.kind]
        return self.peak * rise * fall

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "peak": self.peak,
            "warmup": self.warmup,
            "steps": self.steps,
            "kind": self.kind,
        }
