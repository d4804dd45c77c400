"""The verb train: fits the models of a recipe on the training rows, and keeps their best epochs.

Models without trainable weights (popularity, content) are built, measured and kept in the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from models.core import atomic
from models.core.collectives import ALONE, Collectives, RankLostError
from models.training.callbacks import DivergedError
from models.training.checkpoint import Checkpoint
from models.training.collectives import LOST
from models.training.epoch import Epoch
from models.training.fit import Fit, UnknownMetricError
from models.training.judge import Judge
from models.training.tracking import Tracker, tracker
from models.training.warm_start import WarmStartError, grow_weights
from workflows.ground.device import Device
from workflows.ground.errors import DataError, RankError, RecipeError, StaleInput
from workflows.model_kinds import open_models
from workflows.model_kinds.protocol import Models, build_fresh
from workflows.recipe import Recipe
from workflows.stages.dependencies import PARTS
from workflows.stages.etl import Prepared
from workflows.stages.held_out import refuse_leak
from workflows.stages.store import CHECKPOINT, Store
from workflows.stages.train_files import TrainFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """The result of fitting one model.

    Attributes:
        best: the training epoch whose weights were kept.
        epochs: number of epochs, including those of an interrupted call that was resumed.
        rows_per_second: training rows per second in the fastest epoch, including validation; 0 if
            nothing was learnt.
    """

    best: Epoch
    epochs: int
    rows_per_second: float


@dataclass(frozen=True)
class TrainResult:
    """The result of the verb train.

    Attributes:
        folder: the folder of the train stage.
        fits: name of a model → the result of its fit; the first model is exported.
        seconds: duration of the whole verb.
    """

    folder: Path
    fits: dict[str, Fitted]
    seconds: float

    @property
    def first(self) -> Fitted:
        """The fit of the first model, which is the one to be exported."""
        return next(iter(self.fits.values()))


def train(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    resume: bool = False,
    warm_start: Store | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    collectives: Collectives = ALONE,
) -> TrainResult:
    """Fit the models of a recipe on the etl stage, one after the other.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, with its finished stages.
        device: the device of this process.
        resume: whether to continue after the last finished epoch of an interrupted call for the
            same recipe and data, if there is one; the result is the same as without the
            interruption.
        warm_start: an earlier run, with whose weights the fit begins. The new vocabularies must
            begin with the values of the earlier ones (`etl --grow-from`).
        callbacks: additional Keras callbacks, which get the `val_*` metrics.
        collectives: the exchange with the other ranks, which call `assist`; this process is rank 0.

    Raises:
        RecipeError: the metric to monitor is unknown, or the settings of a model contradict each
            other.
        StaleInput: the warm start is from other models or other vocabularies.
        DataError: the loss became NaN.
        RankLostError: another rank ended.
    """
    start = time.perf_counter()
    with (
        _lost(collectives),
        contextlib.ExitStack() as trackers,
        store.write("train", recipe, device) as draft,
    ):
        fits = _Fits.open(recipe, store, warm_start, collectives)
        found = {}
        for name in fits.models.names:
            fit = fits.prepare(name)
            tracking = fits.track(name, trackers)
            best = fits.run(fit, name, [*callbacks, *tracking], resume=resume)
            fits.save(fit, name, draft.folder)
            for track in tracking:
                track.add(draft.folder)
            epochs = fit.clock.epochs
            fastest = min(epoch.seconds for epoch in epochs)
            rate = fit.batches.rows_per_epoch / fastest if fastest else 0.0
            found[name] = Fitted(best, len(epochs), rate)
            label = fits.label(name)
            draft.rows |= {"train": fit.batches.n_rows, f"{label}epochs": len(epochs)}
            draft.metrics |= {f"{label}{metric}": v for metric, v in best.metrics.items()}
    atomic.remove(store.root / CHECKPOINT)
    with _lost(collectives):
        collectives.collect(_END)
    return TrainResult(store.folder("train"), found, time.perf_counter() - start)


#: What the ranks exchange when the train stage is written, so that none of them ends before.
_END = np.zeros(1)


def assist(
    recipe: Recipe,
    store: Store,
    *,
    warm_start: Store | None = None,
    collectives: Collectives,
) -> None:
    """Fit the models of a recipe as another rank than rank 0, which calls `train`; write nothing.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, with its etl stage.
        warm_start: an earlier run, with whose weights the fit begins.
        collectives: the exchange with the other ranks.

    Raises:
        RankLostError: another rank ended.
        TwoTowerError: as `train`.
    """
    with _lost(collectives):
        fits = _Fits.open(recipe, store, warm_start, collectives)
        for name in fits.models.names:
            fits.run(fits.prepare(name), name, [], resume=False)
        collectives.collect(_END)


@contextlib.contextmanager
def _lost(collectives: Collectives) -> Iterator[None]:
    """Return a context that raises `RankLostError` if an exchange fails because a rank ended."""
    if collectives.share.size == 1:
        yield
        return
    try:
        yield
    except LOST as error:
        raise RankLostError(str(error)) from error


def _identity(recipe: Recipe, store: Store, warm_start: Store | None) -> str:
    """Return a text that two fits share if recipe, data and initial weights are the same."""
    parts = [recipe.digest(*PARTS["train"]), store.read("etl", recipe, deep=False).digest]
    if warm_start:
        parts.append(warm_start.digest("train"))
    return " ".join(parts)


@dataclass(frozen=True)
class _Fits:
    """Runs the fits of one call of `train` or `assist`.

    Attributes:
        models: the models to fit.
        store: the folder of the run, with its finished stages.
        judge: the object that computes the validation metrics of all fits.
        identity: the text that identifies checkpoints of the same fit, from which it may resume.
        earlier: the models of a warm start; None for fresh weights.
        collectives: the exchange between the ranks.
    """

    models: Models
    store: Store
    judge: Judge | None
    identity: str
    earlier: _Earlier | None
    collectives: Collectives

    @classmethod
    def open(
        cls, recipe: Recipe, store: Store, warm_start: Store | None, collectives: Collectives
    ) -> _Fits:
        """Open the models of a recipe, and check that all ranks have the same recipe and data.

        Raises:
            RankError: they differ.
        """
        identity = _identity(recipe, store, warm_start)
        _refuse_different(identity, collectives)
        models = open_models(store, recipe)
        earlier = _Earlier.open(warm_start, models) if warm_start else None
        return cls(models, store, models.judge(collectives), identity, earlier, collectives)

    def label(self, name: str) -> str:
        """Return the prefix of the names of a model's metrics; empty for a single model."""
        return f"{name} " if len(self.models.names) > 1 else ""

    def prepare(self, name: str) -> Fit:
        """Return the fit of a model, with the weights of the earlier run in a warm start."""
        model = build_fresh(self.models, name)
        if self.earlier:
            self.earlier.take_over(model, name)
        checkpoint = Checkpoint(self.store.root / CHECKPOINT / name, f"{self.identity} {name}")
        return self.models.fit(
            model, self.judge, checkpoint=checkpoint, collectives=self.collectives
        )

    def track(self, name: str, trackers: contextlib.ExitStack) -> list[Tracker]:
        """Return the experiment trackers of a model's fit, which follow it until the stack ends."""
        found = _trackers(self.models.prepared.recipe, self.store, self.label(name).strip())
        for tracking in found:
            trackers.enter_context(tracking.following())
        return found

    def run(
        self,
        fit: Fit,
        name: str,
        callbacks: Sequence[tf.keras.callbacks.Callback],
        *,
        resume: bool,
    ) -> Epoch:
        """Fit one model, and return its best epoch.

        Raises:
            RecipeError: the metric to monitor is unknown.
            DataError: the loss became NaN.
        """
        label, recipe = self.label(name), self.models.prepared.recipe
        size = self.collectives.share.size
        by = f" by {size} ranks" if size > 1 else ""
        log.info("training %son %s rows%s", label, f"{fit.batches.n_rows:,}", by)
        try:
            return fit.run(callbacks, resume=resume)
        except UnknownMetricError as error:
            raise RecipeError(f"recipe {recipe.name}, field train.monitor: {error}.") from None
        except DivergedError as error:
            what = f" of {name}" if label else ""
            raise DataError(f"Training{what} failed: {error}. {self.models.remedy}") from None

    def save(self, fit: Fit, name: str, folder: Path) -> None:
        """Write the weights of a fitted model, and the metrics of its epochs."""
        self.models.save(fit, name, folder)
        TrainFiles(folder, name).write_history(fit.clock.epochs)


def _refuse_different(identity: str, collectives: Collectives) -> None:
    """Refuse ranks that were called for other recipes, or that read other data."""
    own = np.frombuffer(hashlib.sha256(identity.encode()).digest(), np.int64)[None]
    every = collectives.collect(own)
    if (others := np.flatnonzero((every != every[0]).any(axis=1))).size:
        raise RankError(
            f"Rank {others[0]} has another recipe, etl stage or --warm-start than rank 0. Call "
            "`two-tower train` with the same options for all ranks, with one run folder that all "
            "machines see, or with equal copies of its etl stage."
        )


def _trackers(recipe: Recipe, store: Store, model: str = "") -> list[Tracker]:
    """Return the experiment trackers of a fit; an empty list if the recipe has no `tracking`.

    Args:
        recipe: the recipe with the settings of experiment tracking.
        store: the folder of the run, with its finished stages.
        model: the name of the model, if the recipe has several.
    """
    if recipe.tracking is None:
        return []
    try:
        every = recipe.to_dict()
        parts = ["name", "split", *(part.partition(".")[0] for part in PARTS["train"])]
        params = {part: every[part] for part in dict.fromkeys(parts)}
        run = " ".join(filter(None, (store.root.name, model)))
        return [tracker(recipe.tracking, run=run, params=params, folder=store.root, model=model)]
    except ModuleNotFoundError as error:
        if not recipe.tracking.required:
            log.info("%s is not installed: the fit is not tracked", error.name)
            return []
        raise RecipeError(
            f"recipe {recipe.name}, field tracking: {error.name} is not installed. Install the "
            "extra `tracking`, or leave the field out."
        ) from None


@dataclass(frozen=True)
class _Earlier:
    """The models of an earlier run, for a warm start.

    Attributes:
        store: the earlier run.
        models: the models of the earlier run.
    """

    store: Store
    models: Models

    @classmethod
    def open(cls, store: Store, now: Models) -> _Earlier:
        """Open an earlier run, and check that its vocabularies agree with the new ones.

        Raises:
            StaleInput: a vocabulary code has another meaning, or the earlier run has trained on
                held-out rows.
        """
        models = open_models(store, store.recipe("train"))
        _refuse_moved_codes(models.prepared, now.prepared, store)
        refuse_leak(models.prepared, now.prepared, str(store.root))
        return cls(store, models)

    def take_over(self, model: tf.keras.Model, name: str) -> None:
        """Set a model's weights to those of the earlier model with the same name.

        Raises:
            StaleInput: there is no earlier model with the name, or its weights have other shapes.
        """
        if name not in self.models.names:
            raise StaleInput(
                f"--warm-start {self.store.root}: that run has no model {name!r}; it has "
                f"{', '.join(self.models.names)}."
            )
        old = self.models.load_weights(self.store, name)
        names = [weight.name for weight in model.weights]
        try:
            model.set_weights(grow_weights(old.get_weights(), model.get_weights(), names))
        except WarmStartError as error:
            raise StaleInput(f"--warm-start {self.store.root}: {error}.") from None


def _refuse_moved_codes(before: Prepared, now: Prepared, earlier: Store) -> None:
    """Refuse a warm start if a code has a new value, which would begin with a wrong embedding."""
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
