"""One fit: Keras' own loop, and what watches it. The model ends with its best epoch's weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from models.core.columns import USER_ROW, Columns, as_array
from models.core.evaluation_set import Trial
from models.losses.sampled_loss import BatchLoss
from models.training.batches import Batches
from models.training.callbacks import (
    CatalogueValidation,
    Clock,
    Epoch,
    KeepBest,
    Progress,
    RefuseNaN,
)
from models.training.checkpoint import Checkpoint, WriteCheckpoint
from models.training.config import OptimizerConfig, TrainConfig
from models.training.optimizer import optimizer
from models.training.two_tower import Model

log = logging.getLogger(__name__)


class UnknownMetricError(ValueError):
    """The metric to monitor is none of those that are measured."""


@dataclass(frozen=True)
class Validation:
    """What an epoch is judged by.

    Attributes:
        trial: the validation part.
        users: inputs of the query tower, one row a user, the last for unknown users.
        items: inputs of the item tower, one row an item.
        ks: list lengths.
    """

    trial: Trial
    users: Columns
    items: Columns
    ks: tuple[int, ...]


@dataclass
class Fit:
    """A fit that is about to run.

    Attributes:
        model: built, not yet compiled.
        columns: training rows.
        train: the loop.
        rates: the optimiser.
        validation: None where there is no validation part: then the last epoch is the best.
        checkpoint: where to keep each epoch; None for nowhere.
        clock: what was measured.
        lines: whether a line an epoch is logged where there is no terminal.
    """

    model: Model
    columns: Columns
    train: TrainConfig
    rates: OptimizerConfig
    validation: Validation | None
    checkpoint: Checkpoint | None = None
    clock: Clock = field(default_factory=Clock)
    lines: bool = True

    def __post_init__(self) -> None:
        self.keep = KeepBest(self.train.monitor, self.train.patience)
        self.batches = Batches(
            {name: self.columns[name] for name in self.model.schema.column_names},
            batch_size=self.train.batch_size,
            seed=self.train.seed,
            owners=as_array(self.columns[USER_ROW]),
            max_per_owner=self.train.max_rows_per_user,
        )
        # nothing branches on a tensor, and autograph takes seconds to convert Merlin's code
        self.model.train_step = tf.autograph.experimental.do_not_convert(self.model.train_step)
        self.model.compile(
            optimizer=optimizer(self.rates, steps=len(self.batches) * self.train.epochs),
            loss=BatchLoss(),
            metrics=[],
        )

    def run(
        self, callbacks: Sequence[tf.keras.callbacks.Callback] = (), *, resume: bool = False
    ) -> Epoch:
        """Fit, and leave the best epoch's weights in the model.

        Args:
            callbacks: more of Keras'.
            resume: go on from the checkpoint.

        Returns:
            The best epoch.

        Raises:
            UnknownMetricError: the metric to monitor is not measured.
            DivergedError: the loss is no number.
        """
        watch = self._watch()
        if not self.model.trainable_weights:
            return self._judged(watch)
        # variables made inside the first step would have it traced twice
        self.model.optimizer.build(self.model.trainable_variables)
        first = 0
        if resume and self.checkpoint:
            first = self.checkpoint.read(self.model, self.clock, self.keep)
            note = "" if first else ": no checkpoint of this fit"
            log.info("resuming after epoch %s%s", first, note)
        self.batches.start_epoch(first)
        if not self.keep.finished(first - 1):
            self.model.fit(
                self.batches,
                initial_epoch=first,
                epochs=self.train.epochs,
                shuffle=False,  # Batches shuffles, by seed and epoch
                verbose=0,
                callbacks=[RefuseNaN(), *watch, *callbacks, self.clock, *self._after()],
            )
            # Keras would save its running mean with the weights, unless no epoch ran any more
            self.model.compiled_loss = None
        if self.validation is None:
            log.warning("the split has no valid part: the last epoch is kept, not the best")
            return self.clock.epochs[-1]
        self.model.set_weights(self.keep.weights)
        return self.clock.epochs[self.keep.epoch]

    def _judged(self, watch: Sequence[tf.keras.callbacks.Callback]) -> Epoch:
        """Measure a model that has nothing to learn, once."""
        logs: dict[str, float] = {}
        for callback in [*watch, self.clock]:
            callback.set_model(self.model)
            callback.on_epoch_begin(0)
        for callback in [*watch, self.clock]:
            callback.on_epoch_end(0, logs)
        return self.clock.epochs[0]

    def _watch(self) -> list[tf.keras.callbacks.Callback]:
        if self.validation is None:
            return []
        shown = self.validation
        callback = CatalogueValidation(shown.trial, shown.users, shown.items, shown.ks)
        if self.train.monitor not in callback.names:
            raise UnknownMetricError(
                f"{self.train.monitor!r} is not measured; expected one of "
                f"{', '.join(callback.names)}"
            )
        return [callback, self.keep]

    def _after(self) -> list[Any]:
        shown = ("loss", self.train.monitor)
        progress = Progress(self.train.epochs, shown, self.clock, lines=self.lines)
        if self.checkpoint is None:
            return [progress]
        return [WriteCheckpoint(self.checkpoint, self.clock, self.keep), progress]
