"""Optimisers of Keras 2.12, a lazy Adam for embedding tables, and learning rate schedules.

In every step, Keras' Adam reads and writes every row of an embedding table and of its moments,
though a batch uses only a few thousand rows: with a million items, Adam takes most of the training
time. `LazyAdam` updates only the rows that the batch uses.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from models.training.config import OptimizerConfig


def optimizer(config: OptimizerConfig, *, steps: int) -> tf.keras.optimizers.Optimizer:
    """Build the Keras optimiser of a configuration, with its learning rate schedule.

    Args:
        config: settings of the optimiser and its learning rate schedule.
        steps: number of steps of the whole fit without early stopping.
    """
    rate: Any = config.lr
    if config.warmup_steps or config.schedule != "constant":
        rate = WarmupSchedule(config.lr, config.warmup_steps, steps, config.schedule)
    if config.kind == "adam":
        return LazyAdam(rate)
    if config.kind == "adagrad":
        return tf.keras.optimizers.Adagrad(rate)
    decay = config.weight_decay
    # Keras multiplies the decay by the learning rate, TensorFlow Addons did not
    return AdamW(rate, decay / config.lr if config.decay == "tfa" else decay)


class AdamW(tf.keras.optimizers.AdamW):
    """Keras' AdamW with one fused operation per variable in place of a dozen operations.

    For a small variable, the overhead of an operation exceeds its arithmetic; for a large variable,
    each operation is another pass over memory.
    """

    def __init__(self, learning_rate: Any, weight_decay: float) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, jit_compile=False)

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Apply one AdamW step to a variable; Keras' own code handles sparse gradients."""
        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable)
            return
        place = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class LazyAdam(tf.keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015) that updates only the rows of a table that the batch uses.

    With a sparse gradient, the rows in the batch get the update of Adam; the other rows and their
    moments do not change. Keras itself handles dense gradients.
    """

    def __init__(self, learning_rate: Any) -> None:
        # XLA would compile anew for each number of touched rows
        super().__init__(learning_rate, jit_compile=False)

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Apply one Adam step to a variable; in embedding tables, only to the rows in the batch."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable)
            return
        place = self._index_dict[self._var_key(variable)]
        rows, slope = gradient.indices, gradient.values
        beta_1, beta_2 = (tf.cast(b, variable.dtype) for b in (self.beta_1, self.beta_2))
        step = tf.cast(self.iterations + 1, variable.dtype)
        unbiased = tf.sqrt(1 - tf.pow(beta_2, step)) / (1 - tf.pow(beta_1, step))
        rate = tf.cast(self.learning_rate, variable.dtype) * unbiased
        moment, square = self._momentums[place], self._velocities[place]
        mean = beta_1 * tf.gather(moment, rows) + (1 - beta_1) * slope
        power = beta_2 * tf.gather(square, rows) + (1 - beta_2) * tf.square(slope)
        moment.scatter_update(tf.IndexedSlices(mean, rows))
        square.scatter_update(tf.IndexedSlices(power, rows))
        change = rate * mean / (tf.sqrt(power) + self.epsilon)
        variable.scatter_sub(tf.IndexedSlices(change, rows))


class WarmupSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate schedule: linear warm-up from 0, then constant, or decay to 0.

    Args:
        peak: the highest learning rate.
        warmup: number of warm-up steps.
        steps: number of steps of the whole fit.
        kind: the schedule after the warm-up: constant, linear or cosine.
    """

    def __init__(self, peak: float, warmup: int, steps: int, kind: str) -> None:
        super().__init__()
        self.peak = peak
        self.warmup = warmup
        self.steps = steps
        self.kind = kind

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the learning rate of a training step; steps are numbered from 0."""
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
        """Return the constructor arguments of the schedule, for Keras to save and restore it."""
        return {
            "peak": self.peak,
            "warmup": self.warmup,
            "steps": self.steps,
            "kind": self.kind,
        }
