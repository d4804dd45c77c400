"""A Keras callback for the peers; not in pace.py, as the peer PyTorch has no TensorFlow."""

from __future__ import annotations

import tensorflow as tf
from peers.pace import Pace


class Watch(tf.keras.callbacks.Callback):
    """Stops the fit when the time is over."""

    def __init__(self, pace: Pace, batch: int) -> None:
        super().__init__()
        self.pace = pace
        self.batch = batch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count a step."""
        if self.pace.step(self.batch):
            self.model.stop_training = True
