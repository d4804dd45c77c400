"""One fit of an offer model: Keras' loop, judged after each epoch by the path it is asked by."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import tensorflow as tf

from models.offers.batches import DayBatches
from models.offers.model import Asked, Model
from models.offers.trial import Pairs
from models.training.callbacks import Clock, Epoch, KeepBest, Progress, RefuseNaN
from models.training.config import OptimizerConfig, TrainConfig
from models.training.optimizer import optimizer

log = logging.getLogger(__name__)

#: The only metric that a fit measures.
MONITOR = "val_auc"


class PairValidation(tf.keras.callbacks.Callback):
    """Add the AUC of validation pairs to each epoch's logs, and the L1 penalty apart.

    Nothing is grouped or left out: two evaluations of the same weights are the same.

    Args:
        pairs: the validation events.
        item: the attribute that names items.
    """

    def __init__(self, pairs: Pairs | None, item: str) -> None:
        super().__init__()
        self.pairs = pairs
        self.item = item

    def set_model(self, model: Model) -> None:
        """Trace the model's evaluation path once for all epochs."""
        super().set_model(model)
        self.asked = Asked(model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure; `logs` is the dict that later callbacks and the history get."""
        if logs is None:
            return
        logs["l1"] = float(tf.add_n(self.model.losses)) if self.model.losses else 0.0
        if self.pairs is not None:
            logs[MONITOR] = self.pairs.auc_of_items(self.asked, self.item)


@dataclass
class OfferFit:
    """A fit that is about to run.

    Attributes:
        model: built, not yet compiled.
        batches: training rows.
        train: the loop.
        rates: the optimiser.
        pairs: validation events; None where there is no such part: then the last epoch is kept.
        item: the attribute that names items.
        clock: what was measured.
    """

    model: Model
    batches: DayBatches
    train: TrainConfig
    rates: OptimizerConfig
    pairs: Pairs | None
    item: str
    clock: Clock = field(default_factory=Clock)

    def run(self) -> Epoch:
        """Fit, and leave the best epoch's weights in the model.

        Raises:
            DivergedError: the loss is no number.
        """
        # an optimiser, a loss and metrics of its own: Keras binds them to one model's variables
        self.model.compile(
            optimizer=optimizer(self.rates, steps=len(self.batches) * self.train.epochs),
            loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[],
        )
        # variables made inside the first step would have it traced twice
        self.model.optimizer.build(self.model.trainable_variables)
        keep = KeepBest(MONITOR, self.train.patience)
        watch = [PairValidation(self.pairs, self.item)]
        self.batches.start_epoch(0)
        self.model.fit(
            self.batches,
            epochs=self.train.epochs,
            shuffle=False,  # DayBatches shuffles, by seed and epoch
            verbose=0,
            callbacks=[
                RefuseNaN(),
                *watch,
                *([keep] if self.pairs else []),
                self.clock,
                Progress(self.train.epochs, ("loss", MONITOR), self.clock),
            ],
        )
        if self.pairs is None:
            log.warning("the split has no valid part: the last epoch is kept, not the best")
            return self.clock.epochs[-1]
        self.model.set_weights(keep.weights)
        return self.clock.epochs[keep.epoch]
