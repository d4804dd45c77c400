"""Fit the offer models of a recipe, one after the other, keeping each one's best epoch."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from models.offers.fit import MONITOR, OfferFit
from models.offers.trial import Pairs
from models.training.callbacks import DivergedError, Epoch
from workflows.ground.device import Device
from workflows.ground.errors import DataError, RecipeError
from workflows.offers.prepared import Offering, history_file, weights_file
from workflows.recipe import Recipe
from workflows.stages.store import TIMES, Store
from workflows.stages.train_files import write_epochs, write_times

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OffersTrainResult:
    """Where the stage lies, and how the fits went.

    Attributes:
        folder: the folder of the stage.
        best: model → the epoch whose weights were kept.
        rows_per_second: model → of its fastest epoch, validation included.
        seconds: in all.
    """

    folder: Path
    best: dict[str, Epoch]
    rows_per_second: dict[str, float]
    seconds: float


def train(recipe: Recipe, store: Store, device: Device) -> OffersTrainResult:
    """Fit every model of `offers` on the etl stage.

    Args:
        recipe: models, optimiser, loop.
        store: the run.
        device: chosen for this process.

    Raises:
        RecipeError: a batch size that does not divide, or another metric to monitor.
        DataError: the loss became NaN.
    """
    start = time.perf_counter()
    if recipe.train.monitor != MONITOR:
        raise RecipeError(
            f"recipe {recipe.name}, field train.monitor: an offer model is judged by {MONITOR!r}, "
            f"got {recipe.train.monitor!r}. Set it to that."
        )
    best, rates = {}, {}
    histories: dict[str, list[Epoch]] = {}
    with store.write("train", recipe, device) as draft:
        offering = Offering.open(store, recipe)
        pairs = offering.pairs("valid")
        for name in offering.config.models:
            fit = prepared_fit(offering, name, pairs)
            log.info("%s: %s rows an epoch", name, f"{len(fit.batches.order):,}")
            best[name] = _run(fit, name)
            epochs = fit.clock.epochs
            rates[name] = len(fit.batches.order) / min(e.seconds for e in epochs)
            fit.model.save_weights(weights_file(draft.folder, name))
            file = history_file(draft.folder, name)
            write_epochs(epochs, file)
            histories[file.name] = epochs
            draft.rows[name] = len(fit.batches.order)
        write_times(histories, draft.folder / TIMES)
        draft.metrics = {
            f"{name} {metric}": value
            for name, epoch in best.items()
            for metric, value in epoch.metrics.items()
        }
    return OffersTrainResult(store.folder("train"), best, rates, time.perf_counter() - start)


def prepared_fit(offering: Offering, name: str, pairs: Pairs | None) -> OfferFit:
    """Return a fit whose result depends on the seed, and on no model that was trained before."""
    recipe = offering.recipe
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(recipe.train.seed)
    tf.config.experimental.enable_op_determinism()
    model = offering.build(name)
    return OfferFit(
        model=model,
        batches=offering.batches("train", seed=recipe.train.seed, names=model.schema.column_names),
        train=recipe.train,
        rates=recipe.optimizer,
        pairs=pairs,
        item=recipe.item_id,
    )


def _run(fit: OfferFit, name: str) -> Epoch:
    try:
        return fit.run()
    except DivergedError as error:
        raise DataError(
            f"Training of {name} failed: {error}. Lower optimizer.lr, or raise train.batch_size."
        ) from None
