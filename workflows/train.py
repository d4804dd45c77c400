"""Fit the two towers on the training rows, keeping the best epoch of a catalogue-wide metric."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import merlin.models.tf as mm
import msgspec
import tensorflow as tf

from models import prior as priors
from models import two_tower
from models.batches import Batches
from models.callbacks import (
    CatalogueValidation,
    Clock,
    DivergedError,
    Epoch,
    KeepBest,
    Progress,
    RefuseNaN,
    steady_mean,
)
from models.checkpoint import Checkpoint, WriteCheckpoint
from models.columns import as_array
from models.optimizer import optimizer
from models.prior import Prior
from models.trial import Trial
from models.two_tower import TwoTower
from models.warm_start import WarmStartError, grown
from workflows.artifacts import Prepared, TrainFiles, apply_prior, build_model
from workflows.device import Device
from workflows.errors import DataError, RecipeError, StaleInput
from workflows.recipe import Recipe
from workflows.store import PARTS, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Where the stage lies, and how the fit went.

    Attributes:
        folder: of the stage.
        best: the epoch whose weights were kept.
        epochs: how many ran, those before a resumed one included.
        rows_per_second: of the fastest epoch, validation included.
        seconds: in all.
    """

    folder: Path
    best: Epoch
    epochs: int
    rows_per_second: float
    seconds: float


def train(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    resume: bool = False,
    warm_start: Store | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> TrainResult:
    """Fit the model that a recipe describes on the etl stage.

    Args:
        recipe: towers, loss, optimiser, loop.
        store: the run.
        device: chosen for this process.
        resume: go on after the last finished epoch of an interrupted fit of the same recipe and
            data; the result is that of a fit that was not interrupted. Anew if there is none.
        warm_start: begin with the weights of this run's train stage; its vocabularies must be the
            first part of ours (`etl --grow-from`).
        callbacks: of Keras, more of them (TensorBoard, …); they see the `val_*` metrics.

    Raises:
        RecipeError: an unknown metric to monitor, or towers that do not fit together.
        StaleInput: a warm start from other towers or other vocabularies.
        DataError: the loss became NaN.
    """
    start = time.perf_counter()
    prepared = Prepared.open(store, recipe)
    with store.write("train", recipe, device) as draft:
        _seed(recipe.train.seed)
        columns = prepared.part("train")
        model = build_model(recipe, prepared)
        if warm_start:
            _take_over(model, warm_start)
        batches = Batches(
            {name: columns[name] for name in model.schema.column_names},
            batch_size=recipe.train.batch_size,
            seed=recipe.train.seed,
            owners=as_array(columns[two_tower.USER_ROW]),
            max_per_owner=recipe.train.max_rows_per_user,
        )
        model.compile(
            optimizer=optimizer(recipe.optimizer, steps=len(batches) * recipe.train.epochs),
            loss=two_tower.RowLoss(recipe.loss.reduction),
            metrics=[],
        )
        log.info("training on %s rows, %s", f"{batches.n_rows:,}", device.why)
        checkpoint = _checkpoint(recipe, store, warm_start)
        fit = _Fit(model, batches, recipe, prepared, checkpoint)
        best = fit.run(callbacks, resume=resume)
        epochs = fit.clock.epochs
        files = TrainFiles(draft.folder)
        if prior := fit.choose_prior():
            files.prior.write_bytes(msgspec.json.encode(prior))
        model.save_weights(files.weights)
        files.history.write_bytes(msgspec.json.format(msgspec.json.encode(epochs), indent=2))
        draft.rows = {"train": batches.n_rows, "epochs": len(epochs)}
        draft.metrics = best.metrics
    checkpoint.remove()
    return TrainResult(
        store.folder("train"),
        best,
        len(epochs),
        len(batches.order) / min(e.seconds for e in epochs),
        time.perf_counter() - start,
    )


def _seed(seed: int) -> None:
    """Make a CPU run repeat to the last digit."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _checkpoint(recipe: Recipe, store: Store, warm_start: Store | None) -> Checkpoint:
    """Return the place of checkpoints, which only this fit may take up again."""
    parts = [recipe.digest(*PARTS["train"]), store.read("etl", recipe, deep=False).digest]
    if warm_start:
        parts.append(warm_start.digest("train"))
    return Checkpoint(store.root / ".train.checkpoint", " ".join(parts))


def _take_over(model: mm.RetrievalModelV2, earlier: Store) -> None:
    """Begin with an earlier run's weights."""
    recipe = earlier.recipe("train")
    prepared = Prepared.open(earlier, recipe)
    old = build_model(recipe, prepared)
    old.load_weights(TrainFiles(earlier.folder("train")).weights)
    try:
        names = [weight.name for weight in model.weights]
        model.set_weights(grown(old.get_weights(), model.get_weights(), names))
    except WarmStartError as error:
        raise StaleInput(f"--warm-start {earlier.root}: {error}.") from None


class _Fit:
    """One run of Keras' fit, with what watches it."""

    def __init__(
        self,
        model: mm.RetrievalModelV2,
        batches: Batches,
        recipe: Recipe,
        prepared: Prepared,
        checkpoint: Checkpoint,
    ) -> None:
        self.model = model
        self.batches = batches
        self.recipe = recipe
        self.prepared = prepared
        self.checkpoint = checkpoint
        self.trial = prepared.trial("valid", recipe.evaluate)
        self.clock = Clock()
        self.keep = KeepBest(recipe.train.monitor, recipe.train.patience)

    def run(self, callbacks: Sequence[tf.keras.callbacks.Callback], *, resume: bool) -> Epoch:
        """Fit, and leave the best epoch's weights in the model."""
        train = self.recipe.train
        first = self.checkpoint.read(self.model, self.clock, self.keep) if resume else 0
        if resume:
            note = "" if first else ": no checkpoint of this fit"
            log.info("resuming after epoch %s%s", first, note)
        self.batches.start_epoch(first)
        watch: list[Any] = [] if self.trial is None else [self._validation(self.trial), self.keep]
        if not self.keep.finished(first - 1):
            try:
                self.model.fit(
                    self.batches,
                    initial_epoch=first,
                    epochs=train.epochs,
                    shuffle=False,  # Batches shuffles, by seed and epoch
                    verbose=0,
                    callbacks=[
                        RefuseNaN(),
                        *watch,
                        *callbacks,
                        self.clock,
                        WriteCheckpoint(self.checkpoint, self.clock, self.keep),
                        Progress(train.epochs, ("loss", train.monitor)),
                    ],
                )
            except DivergedError as error:
                raise DataError(
                    f"Training failed: {error}. Lower optimizer.lr, raise loss.temperature, or "
                    "look for extreme numbers in the features."
                ) from None
        if self.trial is None:
            log.warning("the split has no valid part: the last epoch is kept, not the best")
            return self.clock.epochs[-1]
        self.model.set_weights(self.keep.weights)
        return self.clock.epochs[self.keep.epoch]

    def _validation(self, trial: Trial) -> CatalogueValidation:
        callback = CatalogueValidation(
            trial, self.prepared.users, self.prepared.items, self.recipe.evaluate.ks
        )
        if self.recipe.train.monitor not in callback.names:
            raise RecipeError(
                f"recipe {self.recipe.name}, field train.monitor: {self.recipe.train.monitor!r} is "
                f"not measured; expected one of {', '.join(callback.names)}."
            )
        return callback

    def choose_prior(self) -> Prior | None:
        """Return the prior that validates best, no prior being one of them."""
        config = self.recipe.prior
        if config is None:
            return None
        if self.trial is None:
            raise RecipeError("prior: its weight is chosen on the valid part; the split has none.")
        scores = {}
        for prior in priors.grid(config):
            apply_prior(self.model, self.prepared, prior, as_of="valid")
            model = TwoTower.of(self.model, self.prepared.users, self.prepared.items)
            scores[prior] = steady_mean(self.trial, model)
        best = max(scores, key=lambda prior: scores[prior])
        log.info("prior: days %s, weight %s, val_mean %.4f", best.days, best.weight, scores[best])
        # the weights are saved without it: its counts depend on the cut that is asked for
        apply_prior(self.model, self.prepared, Prior(best.days, 0.0), as_of="valid")
        return best
