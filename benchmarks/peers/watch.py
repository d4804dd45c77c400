"""The peers' Keras callback; apart from pace.py, as PyTorch has no TensorFlow beside it."""

from __future__ import annotations

import tensorflow as tf
from peers.pace import Pace


class Watch(tf.keras.callbacks.Callback):
    """Stop the fit when the time is up."""

    def __init__(self, pace: Pace, batch: int) -> None:
        super().__init__()
        self.pace = pace
        self.batch = batch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count."""
        if self.pace.step(self.batch):
            self.model.stop_training = True
