"""Keras callbacks of a fit: validation by a judge, the best epoch kept, time, progress, no NaN."""

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
    """The loss is no number any more."""


class Validation(tf.keras.callbacks.Callback):
    """Add the judge's metrics, and the penalty of a model that has one, to each epoch's logs.

    Put it before callbacks that read them.

    Args:
        judge: None where there is no validation part.
    """

    def __init__(self, judge: Judge | None) -> None:
        super().__init__()
        self.judge = judge

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Measure; `logs` is the dict that later callbacks and the history get."""
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
    """Remember the best epoch's weights, and stop when no better one comes.

    Keras 2.12's EarlyStopping brings the best weights back only when it stops early.

    Args:
        monitor: a metric of the logs; more is better.
        patience: stop after this many epochs without a better one.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__()
        self.monitor = monitor
        self.patience = patience
        self.epoch = -1
        self.value = -np.inf
        self.weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Compare this epoch with the best so far."""
        value = (logs or {})[self.monitor]
        if value > self.value:
            self.epoch, self.value, self.weights = epoch, value, self.model.get_weights()
        self.model.stop_training = self.finished(epoch)

    def finished(self, epoch: int) -> bool:
        """Say whether no epoch after this one is wanted."""
        return self.epoch >= 0 and epoch - self.epoch >= self.patience


class RefuseNaN(tf.keras.callbacks.Callback):
    """Stop at the step whose loss is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember which epoch it is."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look at the batch's own loss, not at the mean so far."""
        loss = (logs or {}).get("loss_batch", 0.0)
        if not np.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} in epoch {self.epoch + 1}, step {batch + 1}"
            )


class Clock(tf.keras.callbacks.Callback):
    """Note time and metrics of each epoch. Put it after those that add metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self.start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Note the epoch."""
        seconds = round(time.perf_counter() - self.start, 3)
        self.epochs.append(Epoch(epoch, measured(logs), seconds))


def measured(logs: Logs) -> dict[str, float]:
    """Return the metrics of an epoch's logs, without what Merlin adds for itself."""
    hidden = ("loss_batch", "regularization_loss")
    return {name: float(value) for name, value in (logs or {}).items() if name not in hidden}


class Progress(tf.keras.callbacks.Callback):
    """One bar over all steps on a terminal; elsewhere a line an epoch, unless nobody wants them.

    Put it after the clock.

    Args:
        epochs: at most this many.
        shown: metrics to show beside the bar, and in the lines.
        clock: what was measured.
        lines: whether to log a line an epoch where there is no terminal.
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
        """Open the bar."""
        steps = self.params["steps"]
        total = steps * self.epochs if steps else None
        self.bar = tqdm(total=total, unit="step", disable=None, file=sys.stderr)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance."""
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Show the epoch's figures."""
        figures = {n: f"{v:.4f}" for n, v in (logs or {}).items() if n in self.shown}
        if not self.bar.disable:
            self.bar.set_postfix({"epoch": epoch + 1, **figures})
        elif self.lines:
            told = ", ".join(f"{name} {figure}" for name, figure in figures.items())
            seconds = self.clock.epochs[-1].seconds
            log.info("epoch %s of %s: %s, %.1f s", epoch + 1, self.epochs, told, seconds)

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the bar."""
        self.bar.close()
