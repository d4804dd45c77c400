"""Keras callbacks: validation, keeping the best epoch, timing, progress, and stopping at NaN."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from models.core.retriever import BrokenModel
from models.training.epoch import Epoch
from models.training.judge import Judge

log = logging.getLogger(__name__)

Logs = dict[str, float] | None


class DivergedError(ArithmeticError):
    """The training loss became NaN or infinite, so the training was stopped."""


class Validation(tf.keras.callbacks.Callback):
    """A Keras callback that adds validation metrics and the L1 penalty to each epoch's logs.

    Callbacks that read the validation metrics must come after `Validation`.

    Args:
        judge: the object that computes validation metrics; None if there is no validation part.
    """

    def __init__(self, judge: Judge | None) -> None:
        super().__init__()
        self.judge = judge

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the validation metrics to `logs`, the dict that later callbacks get."""
        if logs is None:
            return
        if self.model.losses:
            logs["l1"] = float(tf.add_n(self.model.losses))
        if self.judge is None:
            return
        try:
            logs.update(self.judge.measure(self.model))
        except BrokenModel as error:  # a last step's update is in no loss
            raise DivergedError(f"after epoch {epoch + 1}: {error}") from error


class KeepBest(tf.keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and stops training early if no better epoch follows.

    EarlyStopping of Keras 2.12 would restore the best weights only if it stopped early.

    Args:
        monitor: the validation metric that defines the best epoch; higher is better.
        patience: number of epochs without a better one after which training stops.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__()
        self.monitor = monitor
        self.patience = patience
        self.epoch = -1
        self.value = -np.inf
        self.weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keep the model's weights after this epoch if its metric is the best so far."""
        value = (logs or {})[self.monitor]
        if value > self.value:
            self.epoch, self.value, self.weights = epoch, value, self.model.get_weights()
        self.model.stop_training = self.finished(epoch)

    def finished(self, epoch: int) -> bool:
        """Return whether training stops early, after `patience` epochs that were no better."""
        return self.epoch >= 0 and epoch - self.epoch >= self.patience


class RefuseNaN(tf.keras.callbacks.Callback):
    """Stops the fit at the first step whose loss is NaN or infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Store the number of the epoch, for the error message about a NaN loss."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check the loss of the batch, not the running mean that Keras reports."""
        loss = (logs or {}).get("loss_batch", 0.0)
        if not np.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} in epoch {self.epoch + 1}, step {batch + 1}"
            )


class Clock(tf.keras.callbacks.Callback):
    """A Keras callback that records the wall time and the metrics of each training epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self.start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start to measure the wall time of the epoch."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Record the wall time and the metrics of the finished epoch."""
        seconds = round(time.perf_counter() - self.start, 3)
        self.epochs.append(Epoch(epoch, metrics_in(logs), seconds))


def metrics_in(logs: Logs) -> dict[str, float]:
    """Return the loss and the validation metrics in an epoch's logs, but not Merlin's metrics."""
    hidden = ("loss_batch", "regularization_loss")
    return {name: float(value) for name, value in (logs or {}).items() if name not in hidden}


class Progress(tf.keras.callbacks.Callback):
    """Shows progress: a bar over all steps on a terminal, or else one log line per epoch.

    In the list of callbacks, `Progress` must come after `Clock`, whose figures it shows.

    Args:
        epochs: largest number of epochs of the training.
        shown: metrics to show beside the bar and in the log lines.
        clock: the callback that records the time and the metrics of each epoch.
        lines: whether to log one line per epoch if there is no terminal.
    """

    def __init__(
        self, epochs: int, shown: Sequence[str], clock: Clock, *, lines: bool = True
    ) -> None:
        super().__init__()
        self.epochs = epochs
        self.shown = shown
        self.clock = clock
        self.lines = lines

    def on_train_begin(self, logs: Logs = None) -> None:
        """Open the progress bar of the training on the terminal."""
        steps = self.params["steps"]
        total = steps * self.epochs if steps else None
        self.bar = tqdm(total=total, unit="step", disable=None, file=sys.stderr)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move the progress bar by one training step."""
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Show the validation metrics of the epoch beside the bar, or in a log line."""
        figures = {n: f"{v:.4f}" for n, v in (logs or {}).items() if n in self.shown}
        if not self.bar.disable:
            self.bar.set_postfix({"epoch": epoch + 1, **figures})
        elif self.lines:
            shown = ", ".join(f"{name} {figure}" for name, figure in figures.items())
            seconds = self.clock.epochs[-1].seconds
            log.info("epoch %s of %s: %s, %.1f s", epoch + 1, self.epochs, shown, seconds)

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the progress bar of the training."""
        self.bar.close()
