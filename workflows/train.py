"""Fit the two towers on the training rows, keeping the best epoch of a catalogue-wide metric.

Models that learn nothing (popularity, content) are built, measured and kept in the same way.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import tensorflow as tf

from models.core import prior as priors
from models.core.prior import Prior
from models.towers.config import PopularityConfig, TwoTowerConfig
from models.training.callbacks import DivergedError, Epoch
from models.training.checkpoint import Checkpoint
from models.training.fit import Fit, UnknownMetricError, Validation
from models.training.tracking import Tracker, tracker
from models.training.two_tower import Model, TwoTower
from models.training.warm_start import WarmStartError, grown
from workflows.ground.device import Device
from workflows.ground.errors import DataError, RecipeError, StaleInput
from workflows.recipe import Recipe
from workflows.stages.etl import Prepared
from workflows.stages.held_out import refuse_leak, warn_of_hidden
from workflows.stages.store import CHECKPOINT, PARTS, Store
from workflows.stages.train import apply_prior, build_model, load_weights
from workflows.stages.train_files import TrainFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Where the stage lies, and how the fit went.

    Attributes:
        folder: the folder of the stage.
        best: the epoch whose weights were kept.
        epochs: how many ran, those before a resumed one included.
        rows_per_second: of the fastest epoch, validation included; 0 where nothing was learnt.
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
        callbacks: callbacks of Keras, more of them (TensorBoard, …); they see the `val_*` metrics.

    Raises:
        RecipeError: an unknown metric to monitor, or towers that do not fit together.
        StaleInput: a warm start from other towers or other vocabularies.
        DataError: the loss became NaN.
    """
    start = time.perf_counter()
    with contextlib.ExitStack() as open_books, store.write("train", recipe, device) as draft:
        prepared = Prepared.open(store, recipe)
        _refuse_lonely(recipe, prepared)
        _seed(recipe.train.seed)
        model = build_model(recipe, prepared)
        if warm_start:
            _take_over(model, prepared, warm_start)
        prior = _popularity(recipe)
        if prior:
            apply_prior(model, prepared, prior, as_of="valid")
        fit = _prepare(model, recipe, prepared, _checkpoint(recipe, store, warm_start))
        log.info("training on %s rows", f"{fit.batches.n_rows:,}")
        extra = _trackers(recipe, store)
        for track in extra:
            open_books.enter_context(track.following())
        best = _run(fit, recipe, [*callbacks, *extra], resume=resume)
        files = TrainFiles(draft.folder)
        if recipe.prior:
            prior = _choose_prior(fit, recipe, prepared)
        if prior:
            files.prior.write_bytes(msgspec.json.encode(prior))
            # the weights are saved without it: its counts depend on the cut that is asked for
            apply_prior(model, prepared, Prior(prior.days, 0.0), as_of="valid")
        model.save_weights(files.weights)
        epochs = fit.clock.epochs
        files.write_history(epochs)
        for track in extra:
            track.add(draft.folder)
        draft.rows = {"train": fit.batches.n_rows, "epochs": len(epochs)}
        draft.metrics = best.metrics
    if fit.checkpoint:
        fit.checkpoint.remove()
    fastest = min(e.seconds for e in epochs)
    return TrainResult(
        store.folder("train"),
        best,
        len(epochs),
        len(fit.batches.order) / fastest if fastest else 0.0,
        time.perf_counter() - start,
    )


def _refuse_lonely(recipe: Recipe, prepared: Prepared) -> None:
    """Refuse batches that compare an item with itself alone, of which nothing can be learnt."""
    n_items, loss = len(prepared.raw_items), recipe.loss
    in_batch = loss.negatives_of(n_items) == "in_batch"
    if in_batch and recipe.train.batch_size == 1 and isinstance(recipe.model, TwoTowerConfig):
        raise RecipeError(
            f"recipe {recipe.name}, field train.batch_size: loss.kind {loss.kind} compares the "
            "items of a batch with each other, and a batch of 1 has nothing to compare. Take more "
            "rows, or loss.kind: full."
        )
    if n_items == 1:
        log.warning("the item table has one item: there is nothing to learn")


def _seed(seed: int) -> None:
    """Make a CPU run repeat to the last digit."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _checkpoint(recipe: Recipe, store: Store, warm_start: Store | None) -> Checkpoint:
    """Return the place of checkpoints, which only this fit may take up again."""
    parts = [recipe.digest(*PARTS["train"]), store.read("etl", recipe, deep=False).digest]
    if warm_start:
        parts.append(warm_start.digest("train"))
    return Checkpoint(store.root / CHECKPOINT, " ".join(parts))


def _take_over(model: Model, prepared: Prepared, earlier: Store) -> None:
    """Begin with an earlier run's weights."""
    recipe = earlier.recipe("train")
    before = Prepared.open(earlier, recipe)
    _refuse_moved_codes(before, prepared, earlier)
    refuse_leak(before, prepared, str(earlier.root))
    old = load_weights(earlier, recipe, before)
    names = [weight.name for weight in model.weights]
    try:
        model.set_weights(grown(old.get_weights(), model.get_weights(), names))
    except WarmStartError as error:
        raise StaleInput(f"--warm-start {earlier.root}: {error}.") from None


def _refuse_moved_codes(before: Prepared, now: Prepared, earlier: Store) -> None:
    """Codes that mean something else now would give every id another id's embedding."""
    for column, vocabulary in now.vocabularies.items():
        old = before.vocabularies.get(column)
        if old is None:
            continue
        begin = vocabulary.values[: len(old.values)]
        if old.first_code != vocabulary.first_code or not begin.equals(old.values):
            raise StaleInput(
                f"--warm-start {earlier.root}: the codes of {column!r} moved since. Run "
                f"`two-tower etl --grow-from {earlier.root}` first, which keeps them."
            )


def _prepare(model: Model, recipe: Recipe, prepared: Prepared, checkpoint: Checkpoint) -> Fit:
    trial = prepared.trial("valid", recipe.evaluate)
    validation = None
    if trial is not None:
        warn_of_hidden(trial, "valid")
        validation = Validation(trial, prepared.users, prepared.items, recipe.evaluate.ks)
    return Fit(
        model=model,
        columns=prepared.part("train"),
        train=recipe.train,
        rates=recipe.optimizer,
        validation=validation,
        checkpoint=checkpoint,
    )


def _trackers(recipe: Recipe, store: Store) -> list[Tracker]:
    if recipe.tracking is None:
        return []
    try:
        every = recipe.to_dict()
        parts = ["name", "split", *(part.partition(".")[0] for part in PARTS["train"])]
        params = {part: every[part] for part in dict.fromkeys(parts)}
        return [tracker(recipe.tracking, run=store.root.name, params=params, folder=store.root)]
    except ModuleNotFoundError as error:
        if not recipe.tracking.required:
            log.info("%s is not installed: the fit is not tracked", error.name)
            return []
        raise RecipeError(
            f"recipe {recipe.name}, field tracking: {error.name} is not installed. Install the "
            "extra `tracking`, or leave the field out."
        ) from None


def _run(
    fit: Fit,
    recipe: Recipe,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    *,
    resume: bool,
) -> Epoch:
    try:
        return fit.run(callbacks, resume=resume)
    except UnknownMetricError as error:
        raise RecipeError(f"recipe {recipe.name}, field train.monitor: {error}.") from None
    except DivergedError as error:
        raise DataError(
            f"Training failed: {error}. Lower optimizer.lr, raise loss.temperature, or look for "
            "extreme numbers in the features."
        ) from None


def _popularity(recipe: Recipe) -> Prior | None:
    """Return all that a model of kind popularity is: a prior, and nothing beside it."""
    return Prior(recipe.model.days, 1.0) if isinstance(recipe.model, PopularityConfig) else None


def _choose_prior(fit: Fit, recipe: Recipe, prepared: Prepared) -> Prior:
    """Return the prior that validates best, no prior being one of them."""
    assert recipe.prior is not None
    if fit.validation is None:
        raise RecipeError("prior: its weight is chosen on the valid part; the split has none.")
    scores = {}
    for prior in priors.grid(recipe.prior):
        apply_prior(fit.model, prepared, prior, as_of="valid")
        retriever = TwoTower.of(fit.model, prepared.users, prepared.items)
        scores[prior] = fit.validation.trial.steady(retriever)
    best = max(scores, key=lambda prior: scores[prior])
    log.info("prior: days %s, weight %s, val_mean %.4f", best.days, best.weight, scores[best])
    return best
