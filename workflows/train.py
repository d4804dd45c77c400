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
)
from models.columns import as_array
from models.config import OptimizerConfig
from models.trial import Trial
from workflows.artifacts import Prepared, TrainFiles, build_model
from workflows.device import Device
from workflows.errors import DataError, RecipeError
from workflows.recipe import Recipe
from workflows.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Where the stage lies, and how the fit went.

    Attributes:
        folder: of the stage.
        best: the epoch whose weights were kept.
        epochs: how many ran.
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
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> TrainResult:
    """Fit the model that a recipe describes on the etl stage.

    Args:
        recipe: towers, loss, optimiser, loop.
        store: the run.
        device: chosen for this process.
        callbacks: of Keras, more of them (TensorBoard, …); they see the `val_*` metrics.

    Raises:
        RecipeError: an unknown metric to monitor, or towers that do not fit together.
        DataError: the loss became NaN.
    """
    start = time.perf_counter()
    prepared = Prepared.open(store, recipe)
    with store.write("train", recipe, device) as draft:
        _seed(recipe.train.seed)
        columns = prepared.part("train")
        model = build_model(recipe, prepared)
        model.compile(
            optimizer=_optimizer(recipe.optimizer),
            loss=two_tower.RowLoss(recipe.loss.reduction),
            metrics=[],
        )
        batches = Batches(
            {name: columns[name] for name in model.schema.column_names},
            batch_size=recipe.train.batch_size,
            seed=recipe.train.seed,
            owners=as_array(columns[two_tower.USER_ROW]),
            max_per_owner=recipe.train.max_rows_per_user,
        )
        log.info("training on %s rows, %s", f"{batches.n_rows:,}", device.why)
        epochs, best = _fit(model, batches, recipe, prepared, callbacks)
        files = TrainFiles(draft.folder)
        model.save_weights(files.weights)
        files.history.write_bytes(msgspec.json.format(msgspec.json.encode(epochs), indent=2))
        draft.rows = {"train": batches.n_rows, "epochs": len(epochs)}
        draft.metrics = best.metrics
    fastest = min(e.seconds for e in epochs)
    return TrainResult(
        store.folder("train"),
        best,
        len(epochs),
        len(batches.order) / fastest,
        time.perf_counter() - start,
    )


def _seed(seed: int) -> None:
    """Make a CPU run repeat to the last digit."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _optimizer(config: OptimizerConfig) -> tf.keras.optimizers.Optimizer:
    kinds = {
        "adam": tf.keras.optimizers.Adam,
        "adamw": tf.keras.optimizers.AdamW,
        "adagrad": tf.keras.optimizers.Adagrad,
    }
    extra = {"weight_decay": config.weight_decay} if config.kind == "adamw" else {}
    return kinds[config.kind](learning_rate=config.lr, **extra)


def _fit(
    model: mm.RetrievalModelV2,
    batches: Batches,
    recipe: Recipe,
    prepared: Prepared,
    callbacks: Sequence[tf.keras.callbacks.Callback],
) -> tuple[list[Epoch], Epoch]:
    """Run Keras' fit; leave the best epoch's weights in the model."""
    trial = prepared.trial("valid", recipe.evaluate)
    clock = Clock()
    keep = KeepBest(recipe.train.monitor, recipe.train.patience)
    chain: list[Any] = [] if trial is None else [_validation(trial, prepared, recipe), keep]
    progress = Progress(recipe.train.epochs, ("loss", recipe.train.monitor))
    try:
        model.fit(
            batches,
            epochs=recipe.train.epochs,
            verbose=0,
            callbacks=[RefuseNaN(), *chain, *callbacks, clock, progress],
        )
    except DivergedError as error:
        raise DataError(
            f"Training failed: {error}. Lower optimizer.lr, raise loss.temperature, or look for "
            "extreme numbers in the features."
        ) from None
    if trial is None:
        log.warning("the split has no valid part: the last epoch is kept, not the best")
        return clock.epochs, clock.epochs[-1]
    model.set_weights(keep.weights)
    return clock.epochs, clock.epochs[keep.epoch]


def _validation(trial: Trial, prepared: Prepared, recipe: Recipe) -> CatalogueValidation:
    ks = recipe.evaluate.ks
    names = [f"val_{metric}@{k}" for k in ks for metric in ("recall", "ndcg", "mrr", "map")]
    names.append("val_mean")
    if recipe.train.monitor not in names:
        raise RecipeError(
            f"recipe {recipe.name}, field train.monitor: {recipe.train.monitor!r} is not measured; "
            f"expected one of {', '.join(names)} (evaluate.ks sets the k)."
        )
    return CatalogueValidation(trial, prepared.users, prepared.items, ks)
