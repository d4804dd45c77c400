"""Trains a model with Keras' training loop, and keeps the weights of the best epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from models.core import atomic
from models.core.collectives import ALONE, Collectives
from models.training.batches import Batches
from models.training.callbacks import Clock, KeepBest, Progress, RefuseNaN, Validation
from models.training.checkpoint import Checkpoint, WriteCheckpoint, share_state
from models.training.config import OptimizerConfig, TrainConfig
from models.training.epoch import Epoch
from models.training.judge import Judge
from models.training.optimizer import optimizer
from models.training.two_tower import train_by_ranks

log = logging.getLogger(__name__)


class UnknownMetricError(ValueError):
    """The metric that should choose the best epoch is not among the validation metrics."""


@dataclass
class Fit:
    """A training run: a model, its training rows and its settings; `run` trains the model.

    Attributes:
        model: a built model that is not compiled yet; its output block contains the loss.
        batches: the shuffled batches of training rows.
        train: settings of the training loop.
        rates: settings of the optimiser and of the learning rate schedule.
        judge: the object that computes validation metrics after each epoch; None if there is no
            validation part, and then the weights of the last epoch are kept.
        checkpoint: the checkpoint to which the state is saved after each epoch; None to save none.
        clock: the callback that records the time and the metrics of each epoch.
        lines: whether each epoch is logged as a line if there is no terminal.
        collectives: the exchange between the processes that train this model together. Only process
            0 writes checkpoints and shows the progress.
    """

    model: tf.keras.Model
    batches: Batches
    train: TrainConfig
    rates: OptimizerConfig
    judge: Judge | None
    checkpoint: Checkpoint | None = None
    clock: Clock = field(default_factory=Clock)
    lines: bool = True
    collectives: Collectives = ALONE

    def __post_init__(self) -> None:
        self.keep = KeepBest(self.train.monitor, self.train.patience)
        if self.collectives.share.size > 1:
            self.collectives.begin()
            self.batches.share = self.collectives.share
            train_by_ranks(self.model, self.collectives)
        # nothing branches on a tensor, and autograph takes seconds to convert Merlin's code
        self.model.train_step = tf.autograph.experimental.do_not_convert(self.model.train_step)
        self.model.compile(
            optimizer=optimizer(self.rates, steps=len(self.batches) * self.train.epochs),
            loss=None,  # that of the output block
            metrics=[],
        )
        if self.collectives.share.size > 1:
            self.model.optimizer.aggregate_gradients = self.collectives.exchange

    def save_weights(self, path: Path) -> None:
        """Write the weights of the model as HDF5.

        Raises:
            OSError: the disk is full; raised before HDF5 writes, because HDF5 would crash the
                process.
        """
        model = self.model
        arrays = [*model.variables, *model.optimizer.variables]  # Keras saves both
        # each has a header of its own
        size = sum(array.dtype.size * array.shape.num_elements() + 4096 for array in arrays)
        atomic.require_room(path, size)
        model.save_weights(path)

    def run(
        self, callbacks: Sequence[tf.keras.callbacks.Callback] = (), *, resume: bool = False
    ) -> Epoch:
        """Train the model, and set its weights to those of the best epoch.

        Args:
            callbacks: further Keras callbacks, such as a tracker.
            resume: whether to continue from the checkpoint.

        Returns:
            The number, the metrics and the duration of the best epoch.

        Raises:
            UnknownMetricError: the metric that should choose the best epoch is not measured.
            DivergedError: the loss became NaN or infinite.
        """
        watch = self._validation_callbacks()
        if not self.model.trainable_weights:
            return self._measure_once(watch)
        # variables made inside the first step would have it traced twice
        self.model.optimizer.build(self.model.trainable_variables)
        first = 0
        if resume and self.checkpoint and self.collectives.share.rank == 0:
            first = self.checkpoint.read(self.model, self.clock, self.keep)
            note = "" if first else ": no checkpoint of this fit"
            log.info("resuming after epoch %s%s", first, note)
        first = share_state(self.collectives, self.model, self.clock, self.keep, first)
        self.batches.start_epoch(first)
        if first < self.train.epochs and not self.keep.finished(first - 1):
            self._fit(first, [RefuseNaN(), *watch, *callbacks, self.clock, *self._after()])
            # Keras would save its running mean with the weights, unless no epoch ran any more
            self.model.compiled_loss = None
        if self.judge is None:
            log.warning("the split has no valid part: the last epoch is kept, not the best")
            return self.clock.epochs[-1]
        self.model.set_weights(self.keep.weights)
        return self.clock.epochs[self.keep.epoch]

    def _fit(self, first: int, callbacks: Sequence[tf.keras.callbacks.Callback]) -> None:
        """Run the epochs from the one with the number `first` to the last."""
        try:
            self.model.fit(
                self.batches,
                initial_epoch=first,
                epochs=self.train.epochs,
                shuffle=False,  # Batches shuffles, by seed and epoch
                verbose=0,
                callbacks=callbacks,
            )
        except tf.errors.OpError:
            if self.batches.failure:
                raise self.batches.failure from None
            raise

    def _measure_once(self, watch: Sequence[tf.keras.callbacks.Callback]) -> Epoch:
        """Return an epoch with the validation metrics of a model without trainable weights."""
        logs: dict[str, float] = {}
        for callback in [*watch, self.clock]:
            callback.set_model(self.model)
            callback.on_epoch_begin(0)
        for callback in [*watch, self.clock]:
            callback.on_epoch_end(0, logs)
        return self.clock.epochs[0]

    def _validation_callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """Return the callbacks that validate the model after each epoch and keep the best weights.

        Raises:
            UnknownMetricError: the metric that should choose the best epoch is not measured.
        """
        validation = Validation(self.judge)
        if self.judge is None:
            return [validation]
        if self.train.monitor not in self.judge.names:
            raise UnknownMetricError(
                f"{self.train.monitor!r} is not measured; expected one of "
                f"{', '.join(self.judge.names)}"
            )
        return [validation, self.keep]

    def _after(self) -> list[Any]:
        """Return the callbacks that write checkpoints and show progress, only on process 0."""
        if self.collectives.share.rank > 0:
            return []
        shown = ("loss", self.train.monitor)
        progress = Progress(self.train.epochs, shown, self.clock, lines=self.lines)
        if self.checkpoint is None:
            return [progress]
        return [WriteCheckpoint(self.checkpoint, self.clock, self.keep), progress]
